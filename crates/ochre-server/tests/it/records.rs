//! Records: what goes in comes out, what is refused leaves nothing, and what a request looks up.

use serde_json::{Value, json};

use crate::support::TestServer;

#[tokio::test]
async fn records_are_added_changed_found_and_deleted() {
    let server = TestServer::start();
    let notes = server.filled("notes", 4).await;
    let update = json!({"ids": ["r1", "nobody"], "metadatas": [{"n": 10}, {"n": 1}]});
    server.post(&format!("{notes}/update"), update).await.ok();
    let upsert = json!({"ids": ["r4"], "embeddings": [[4, 1]], "documents": ["another"]});
    server.post(&format!("{notes}/upsert"), upsert).await.ok();
    assert_eq!(server.get(&format!("{notes}/count")).await.ok(), 5);
    let found = server.post(&format!("{notes}/get"), json!({"where": {"n": {"$gte": 3}}})).await.ok();
    assert_eq!(found["ids"], json!(["r1", "r3"]));
    let nearest = json!({"query_embeddings": [[2.1, 1]], "n_results": 2});
    let nearest = server.post(&format!("{notes}/query"), nearest).await.ok();
    assert_eq!(nearest["ids"], json!([["r2", "r3"]]));
    let deleted = server.post(&format!("{notes}/delete"), json!({"where": {"kind": "even"}})).await.ok();
    assert_eq!((deleted["deleted"].as_u64(), server.get(&format!("{notes}/count")).await.ok()), (Some(2), json!(3)));
}

#[tokio::test]
async fn a_batch_that_is_refused_leaves_nothing() {
    let server = TestServer::start();
    let notes = server.filled("notes", 2).await;
    let other = json!({"ids": ["a", "b"], "embeddings": [[1, 2], [1, 2, 3]]});
    let text = server.post(&format!("{notes}/add"), other).await.refused(400);
    assert!(text.contains("dimension"), "{text}");
    let uneven = json!({"ids": ["a", "b"], "embeddings": [[1, 2]]});
    server.post(&format!("{notes}/add"), uneven).await.refused(400);
    assert_eq!(server.get(&format!("{notes}/count")).await.ok(), 2);
}

#[tokio::test]
async fn a_read_looks_its_collection_up_once() {
    let server = TestServer::start();
    let notes = server.filled("notes", 3).await;
    for (what, body) in [
        ("query", json!({"query_embeddings": [[1, 1]], "n_results": 1})),
        ("query", json!({"query_embeddings": [[1, 1]], "where": {"kind": "even"}})),
        ("get", json!({"ids": ["r1"]})),
        ("get", json!({"where": {"kind": "even"}, "limit": 1})),
    ] {
        // On a machine that is busy a read may take long enough to be started again on another thread.
        let mut fewest = u64::MAX;
        for _ in 0..5 {
            let before = server.database.catalog_lookups();
            server.post(&format!("{notes}/{what}"), body.clone()).await.ok();
            fewest = fewest.min(server.database.catalog_lookups() - before);
        }
        assert_eq!(fewest, 1, "{what} {body}");
    }
}

#[tokio::test]
async fn records_are_reached_by_the_name_of_their_collection() {
    let server = TestServer::start();
    let notes = server.filled("notes", 3).await;
    let by_name = format!("{}/notes", notes.rsplit_once('/').unwrap().0);
    let record = json!({"ids": ["new"], "embeddings": [[9, 1]]});
    server.post(&format!("{by_name}/add"), record).await;
    assert_eq!(server.get(&format!("{notes}/count")).await.ok(), 4);
    let found =
        server.post(&format!("{by_name}/query"), json!({"query_embeddings": [[9, 1]], "n_results": 1})).await.ok();
    assert_eq!(found["ids"], json!([["new"]]));
    let text = server.get(&format!("{by_name}-unknown/count")).await.refused(400);
    assert!(text.contains("not a valid UUID"), "{text}");
    // A collection that is named like the id of another is reached by its own id.
    let id = notes.rsplit('/').next().unwrap();
    let namesake = server.collection(id).await;
    assert_eq!(server.get(&format!("{notes}/count")).await.ok(), 4);
    assert_eq!(server.get(&format!("{namesake}/count")).await.ok(), 0);
    server.ask("DELETE", &by_name, None).await.ok();
    server.get(&format!("{notes}/count")).await.refused(404);
}

#[tokio::test]
async fn a_deleted_collection_is_not_found_by_any_route() {
    let server = TestServer::start();
    let notes = server.filled("notes", 3).await;
    let by_name = notes.rsplit_once('/').unwrap().0.to_owned() + "/notes";
    server.ask("DELETE", &by_name, None).await.ok();
    server.ask("DELETE", &by_name, None).await.refused(404);
    for what in ["get", "query", "add", "delete"] {
        let body = json!({"ids": ["r1"], "embeddings": [[1, 1]], "query_embeddings": [[1, 1]]});
        server.post(&format!("{notes}/{what}"), body).await.refused(404);
    }
    // Another of the same name is another collection.
    let again = server.collection("notes").await;
    assert_ne!(again, notes);
    assert_eq!(server.get(&format!("{again}/count")).await.ok(), 0);
    server.get(&format!("{notes}/count")).await.refused(404);
}

#[tokio::test]
async fn integers_beyond_64_bits_are_told_beside_the_answer() {
    let server = TestServer::start();
    let notes = server.collection("notes").await;
    let body = json!({"ids": ["a"], "embeddings": [[1]], "metadatas": [{"n": 36_893_488_147_419_103_232_u128 as f64}]});
    let body: serde_json::Value =
        serde_json::from_str(&body.to_string().replace("3.6893488147419103e19", "36893488147419103232")).unwrap();
    let answer = server.post(&format!("{notes}/add"), body).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.body);
}

#[tokio::test]
async fn filters_that_chroma_does_not_have_are_answered() {
    let server = TestServer::start();
    let notes = server.collection("notes").await;
    let added = json!({
        "ids": ["a", "b", "c"], "embeddings": [[0, 1], [1, 1], [2, 1]], "documents": ["Été", null, "hiver"],
        "metadatas": [{"day": "2026-11-28", "tags": ["x", "y"]}, {"day": "2027-01-01", "tags": ["y"]}, {"n": 1.5}],
    });
    server.post(&format!("{notes}/add"), added).await.ok();
    for (filter, expected) in [
        (json!({"day": {"$gte": "2027"}}), json!(["b"])),
        (json!({"day": {"$prefix": "2026-"}}), json!(["a"])),
        (json!({"tags": {"$all": ["y", "x"]}}), json!(["a"])),
        (json!({"tags": {"$any": ["y", "z"]}}), json!(["a", "b"])),
        (json!({"tags": {"$size": 1}}), json!(["b"])),
        (json!({"day": {"$exists": false}}), json!(["c"])),
        (json!({"n": {"$exists": true}}), json!(["c"])),
        (json!({"#document": {"$exists": false}}), json!(["b"])),
        (json!({"#document": {"$icontains": "éTÉ"}}), json!(["a"])),
        (json!({"#document": {"$not_icontains": "HIVER"}}), json!(["a", "b"])),
    ] {
        let found = server.post(&format!("{notes}/get"), json!({"where": filter})).await.ok();
        assert_eq!(found["ids"], expected, "{filter}");
        let query = json!({"query_embeddings": [[0, 1]], "where": filter});
        assert_eq!(server.post(&format!("{notes}/query"), query).await.ok()["ids"], json!([expected]), "{filter}");
        let search = json!({"searches": [{"filter": filter}]});
        assert_eq!(server.post(&format!("{notes}/search"), search).await.ok()["ids"], json!([expected]), "{filter}");
    }
    for bad in [json!({"day": {"$size": "2"}}), json!({"tags": {"$any": []}}), json!({"n": {"$exists": "yes"}})] {
        server.post(&format!("{notes}/get"), json!({"where": bad})).await.refused(400);
    }
    let deleted = server.post(&format!("{notes}/delete"), json!({"where": {"day": {"$lt": "2027"}}})).await.ok();
    assert_eq!(deleted["deleted"], 1);
}

#[tokio::test]
async fn records_are_sorted_page_by_page_and_queries_end_at_a_distance() {
    let server = TestServer::start();
    let notes = server.filled("notes", 6).await;
    let page = async |body: Value| server.post(&format!("{notes}/get"), body).await;
    let order = json!(["kind", {"key": "n", "order": "desc"}]);
    let first = page(json!({"order_by": order, "limit": 4})).await.ok();
    // Those without a kind come first.
    assert_eq!(first["ids"], json!(["r5", "r3", "r1", "r4"]), "{first}");
    let cursor = &first["next_cursor"];
    let last = page(json!({"order_by": order, "limit": 4, "cursor": cursor})).await.ok();
    assert_eq!((&last["ids"], &last["next_cursor"]), (&json!(["r2", "r0"]), &Value::Null));
    let newest = page(json!({"order_by": [{"key": "#inserted", "order": "desc"}], "limit": 2})).await.ok();
    assert_eq!(newest["ids"], json!(["r5", "r4"]));
    let plain = page(json!({"cursor": "", "limit": 5})).await.ok();
    let rest = page(json!({"cursor": plain["next_cursor"], "limit": 5})).await.ok();
    assert_eq!((&rest["ids"], &rest["next_cursor"]), (&json!(["r5"]), &Value::Null));
    assert!(page(json!({"limit": 5})).await.ok().get("next_cursor").is_none());
    for (bad, place) in [
        (json!({"order_by": order, "cursor": plain["next_cursor"]}), "cursor: it is of a request with other"),
        (json!({"order_by": order, "cursor": "x"}), "cursor: it is no next_cursor"),
        (json!({"order_by": ["#document"]}), "order_by[0].key"),
        (json!({"order_by": ["n", "n", "n", "n", "n"]}), "order_by: 5 keys"),
    ] {
        let text = page(bad).await.refused(400);
        assert!(text.contains(place), "{text} for {place}");
    }
    page(json!({"order_by": [{"key": "n", "order": "up"}]})).await.refused(422);
    let near = json!({"query_embeddings": [[2, 1]], "max_distance": 1.0});
    assert_eq!(server.post(&format!("{notes}/query"), near).await.ok()["ids"], json!([["r2", "r1", "r3"]]));
    let knn = json!({"$knn": {"query": [2, 1], "limit": 6, "max_distance": 0}});
    let search = json!({"searches": [{"rank": knn}]});
    assert_eq!(server.post(&format!("{notes}/search"), search).await.ok()["ids"], json!([["r2"]]));
}
