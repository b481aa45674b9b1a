//! Search over HTTP: the shape of answers, what is refused, and how it is explained.

use serde_json::{Value, json};

use crate::support::TestServer;

fn knn(query: &[f32], limit: u32) -> Value {
    json!({"$knn": {"query": query, "key": "#embedding", "limit": limit}})
}

#[tokio::test]
async fn each_search_has_an_answer_with_what_it_selects() {
    let server = TestServer::start();
    let notes = server.filled("notes", 6).await;
    let searches = json!({"searches": [
        {"filter": {"kind": "even"}, "rank": knn(&[3.0, 1.0], 2), "group_by": {}, "limit": {"offset": 0, "limit": 5},
         "select": {"keys": ["#score", "n"]}},
        {"filter": {"#id": {"$nin": ["r0", "r2"]}}, "limit": {"offset": 1, "limit": 2},
         "select": {"keys": ["#document", "#score", "#embedding", "#metadata"]}},
        {},
    ], "read_level": "index_and_wal"});
    let found = server.post(&format!("{notes}/search"), searches).await.ok();
    assert_eq!(found["ids"], json!([["r2", "r4"], ["r3", "r4"], ["r0", "r1", "r2", "r3", "r4", "r5"]]));
    assert_eq!(found["scores"], json!([[1.0, 1.0], null, null]));
    assert_eq!(found["documents"], json!([null, ["document number 3", "document number 4"], null]));
    assert_eq!(found["embeddings"], json!([null, [[3.0, 1.0], [4.0, 1.0]], null]));
    assert_eq!(found["metadatas"], json!([[{"n": 2}, {"n": 4}], [{"n": 3}, {"kind": "even", "n": 4}], null]));
    assert_eq!(found["select"][0], json!(["#score", "n"]));
    assert_eq!(server.post(&format!("{notes}/search"), json!({"searches": []})).await.ok()["ids"], json!([]));
}

#[tokio::test]
async fn records_are_grouped_and_their_ranks_fused() {
    let server = TestServer::start();
    let notes = server.filled("notes", 6).await;
    let rank =
        |query: &[f32], limit| json!({"$knn": {"query": query, "limit": limit, "return_rank": true, "default": 100}});
    let term = |rank: Value| json!({"$div": {"left": {"$val": 1}, "right": {"$sum": [{"$val": 60}, rank]}}});
    let fused = json!({"$mul": [{"$val": -1}, {"$sum": [term(rank(&[0.0, 1.0], 3)), term(rank(&[2.0, 1.0], 1))]}]});
    let search = json!({"searches": [{"rank": fused, "select": {"keys": ["#score"]}}]});
    let found = server.post(&format!("{notes}/search"), search).await.ok();
    // Third of the first and first of the second; first, and second, of the first alone.
    assert_eq!(found["ids"], json!([["r2", "r0", "r1"]]));
    let grouped = json!({"searches": [{"rank": knn(&[5.0, 1.0], 6), "group_by":
        {"keys": ["kind"], "aggregate": {"$max_k": {"keys": ["n"], "k": 1}}}}]});
    assert_eq!(server.post(&format!("{notes}/search"), grouped).await.ok()["ids"], json!([["r5", "r4"]]));
}

#[tokio::test]
async fn a_search_is_explained_and_its_filter_looked_at() {
    let server = TestServer::start();
    let notes = server.filled("notes", 6).await;
    let index = json!({"index_name": "by_n", "columns": [{"key": "n", "type": "int"}]});
    let id = notes.rsplit('/').next().unwrap();
    server.post(&format!("/_admin/metadata_indexes?collection_id={id}"), index).await;
    let search = json!({"searches": [{"filter": {"n": 3}, "rank": knn(&[0.0, 1.0], 2)}, {"filter": {"kind": "even"}}]});
    let found = server.post(&format!("{notes}/search?explain=true&strategy=exact"), search).await.ok();
    assert_eq!(
        (&found["explain"][0]["strategy"], &found["explain"][0]["matches_actual"]),
        (&json!("exact"), &json!(1))
    );
    assert_eq!(found["explain"][1]["matches_actual"], 3, "{found}");
    assert_eq!(found["explain"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn documents_are_searched_by_their_words() {
    let server = TestServer::start();
    let notes = server.filled("notes", 6).await;
    let words = |query: &str, limit| json!({"$knn": {"key": "#document", "query": query, "limit": limit}});
    let search = json!({"searches": [
        {"rank": words("NUMBER 4", 2), "select": {"keys": ["#document", "#score"]}},
        {"rank": words("nümber", 9), "filter": {"kind": "even"}},
        {"rank": words("absent", 9)},
        {"rank": {"$sum": [words("4", 9), {"$knn": {"query": [4, 1], "limit": 6}}]}, "limit": {"limit": 1}},
    ]});
    let found = server.post(&format!("{notes}/search?explain=true"), search).await.ok();
    assert_eq!(found["ids"], json!([["r4", "r0"], ["r0", "r2", "r4"], [], ["r4"]]));
    let scores = found["scores"][0].as_array().unwrap();
    assert!(scores[0].as_f64() < scores[1].as_f64() && scores[1].as_f64() < Some(1.0), "{scores:?}");
    assert_eq!(found["documents"][0][0], "document number 4");
    assert_eq!(found["explain"][0]["strategy"], "terms");
    let refused = json!({"searches": [{"rank": {"$knn": {"query": "words"}}}]});
    let text = server.post(&format!("{notes}/search"), refused).await.refused(400);
    assert!(text.contains("searches[0].rank.$knn.query") && text.contains("#document"), "{text}");
    let schema =
        json!({"defaults": {}, "keys": {"#document": {"string": {"fts_index": {"enabled": false, "config": {}}}}}});
    let collections = notes.rsplit_once('/').unwrap().0.to_owned();
    let hidden = server.post(&collections, json!({"name": "hidden", "schema": schema})).await.ok();
    let route = format!("{collections}/{}/search", hidden["id"].as_str().unwrap());
    let text = server.post(&route, json!({"searches": [{"rank": words("a", 1)}]})).await.refused(400);
    assert!(text.contains("searches[0].rank") && text.contains("FTS indexing is disabled"), "{text}");
}

#[tokio::test]
async fn an_analyzer_is_declared_shown_changed_and_refused() {
    let server = TestServer::start();
    let notes = server.collection("notes").await;
    let (collections, id) = notes.rsplit_once('/').unwrap();
    let modify = |value: Value| json!({"new_metadata": {"ochre:text_analyzer": value, "own": 1}});
    let shown = async || server.get(&format!("{collections}/notes")).await.ok()["metadata"].clone();
    let change = async |value: Value| server.ask("PUT", &format!("{collections}/{id}"), Some(modify(value))).await;
    change(json!("English")).await.ok();
    assert_eq!(shown().await, json!({"own": 1, "ochre:text_analyzer": "english"}));
    change(json!({"stop_words": ["x"]})).await.ok();
    assert_eq!(shown().await, json!({"own": 1, "ochre:text_analyzer": r#"{"stop_words":["x"]}"#}));
    let text = change(json!("klingon")).await.refused(400);
    assert!(text.contains("ochre:text_analyzer: there is no language 'klingon'; there are arabic"), "{text}");
    change(json!("")).await.ok();
    assert_eq!(shown().await, json!({"own": 1}));
    let created = json!({"name": "created", "metadata": {"ochre:text_analyzer": "german"}});
    assert_eq!(server.post(collections, created).await.ok()["metadata"], json!({"ochre:text_analyzer": "german"}));
}

#[tokio::test]
async fn what_is_no_search_is_refused() {
    let server = TestServer::start();
    let notes = server.filled("notes", 2).await;
    let search = |search: Value| json!({"searches": [{}, search]});
    for (status, body, place) in [
        (422, json!({}), "missing field `searches`"),
        (422, search(json!({"rank": {"$near": []}})), "searches[1].rank"),
        (422, search(json!({"rank": {"$knn": {"query": [0, 0], "limit": -1}}})), "searches[1].rank"),
        (422, search(json!({"limit": {"limit": -1}})), "searches[1].limit.limit"),
        (
            422,
            search(json!({"group_by": {"keys": ["n"], "aggregate": {"$avg": {}}}})),
            "searches[1].group_by.aggregate",
        ),
        (400, search(json!({"filter": {"n": {"$near": 1}}})), "searches[1].filter: Invalid where clause"),
        (400, search(json!({"filter": {"#id": {"$gt": 1}}})), "searches[1].filter"),
        (400, search(json!({"rank": {"$knn": {"query": [0, 0], "limit": 0}}})), "searches[1].rank"),
        (400, search(json!({"rank": {"$knn": {"query": [0, 0, 0]}}})), "dimension"),
        (400, search(json!({"rank": {"$knn": {"query": [0, 1e39]}}})), "searches[1].rank"),
        (
            400,
            search(json!({"rank": {"$knn": {"query": {"indices": [1], "values": [1.0]}, "key": "sparse"}}})),
            "sparse",
        ),
        (400, search(json!({"rank": {"$sum": []}})), "searches[1].rank.$sum"),
        (
            400,
            search(json!({"group_by": {"keys": ["n"], "aggregate": {"$min_k": {"keys": ["#score"], "k": 1}}}})),
            "searches[1].group_by",
        ),
    ] {
        let text = server.post(&format!("{notes}/search"), body.clone()).await.refused(status);
        assert!(text.contains(place), "{text} for {body}");
    }
    let mut deep = json!({"$val": 1});
    for _ in 0..200 {
        deep = json!({"$abs": deep});
    }
    server.post(&format!("{notes}/search"), search(json!({"rank": deep}))).await.refused(400);
    assert_eq!(server.get(&format!("{notes}/count")).await.ok(), 2);
}
