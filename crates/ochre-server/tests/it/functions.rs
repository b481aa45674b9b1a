//! Attached functions and the state of indexing over HTTP.

use serde_json::json;

use crate::support::TestServer;

#[tokio::test]
async fn a_function_is_attached_shown_and_detached() {
    let server = TestServer::start();
    let notes = server.filled("notes", 3).await;
    let (collections, id) = notes.rsplit_once('/').unwrap();
    let statistics = json!({"name": "stats", "function_id": "statistics", "output_collection": "counted"});
    let attached = server.post(&format!("{notes}/functions/attach"), statistics.clone()).await.ok();
    assert_eq!(attached["created"], json!(true));
    assert_eq!(attached["attached_function"]["function_name"], json!("statistics"));
    let again = server.post(&format!("{notes}/functions/attach"), statistics).await.ok();
    assert_eq!((&again["created"], &again["attached_function"]), (&json!(false), &attached["attached_function"]));
    let shown = server.get(&format!("{notes}/functions/stats")).await.ok()["attached_function"].clone();
    assert_eq!((&shown["input_collection_id"], &shown["output_collection"]), (&json!(id), &json!("counted")));
    server.database.maintain().unwrap();
    let counted = server.post(&format!("{collections}/counted/get"), json!({"ids": ["kind::s:even"]})).await.ok();
    assert_eq!(counted["metadatas"][0]["count"], json!(2));
    let schema = server.get(&format!("{collections}/counted")).await.ok()["schema"].clone();
    assert_eq!(schema["source_attached_function_id"], attached["attached_function"]["id"]);
    let detach = format!("{notes}/attached_functions/stats/detach");
    assert_eq!(server.post(&detach, json!({"delete_output": true})).await.ok(), json!({"success": true}));
    assert!(server.post(&detach, json!({})).await.refused(404).contains("does not exist"));
    server.get(&format!("{notes}/functions/stats")).await.refused(404);
    server.get(&format!("{collections}/counted")).await.refused(404);
}

#[tokio::test]
async fn a_function_that_cannot_be_attached_says_why() {
    let server = TestServer::start();
    let notes = server.filled("notes", 1).await;
    let attach = format!("{notes}/functions/attach");
    for (change, status, text) in [
        (json!({"function_id": "nonexistent_function"}), 404, "function not found"),
        (json!({"params": {"a": 1}}), 400, "params must be empty"),
        (json!({"output_collection": "notes"}), 409, "Output collection [notes] already exists"),
        (json!({"output_collection": "?"}), 400, "name"),
        (json!({"name": ""}), 400, "name"),
    ] {
        let mut body = json!({"name": "count", "function_id": "record_counter", "output_collection": "counted"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let message = server.post(&attach, body).await.refused(status);
        assert!(message.contains(text), "{message}");
    }
}

#[tokio::test]
async fn nobody_reads_records_through_a_function_or_a_fork_who_may_not() {
    let server = TestServer::secured_with_roles(r#"["maker=collection:*", "half=collection:*,record:read"]"#);
    let notes = server.filled("notes", 1).await;
    server.collection("open").await;
    let place = "default_tenant/default_database";
    let key = server.as_key("writer", &[&format!("admin:{place}/open"), &format!("admin:{place}/mine*")]).await;
    let statistics = json!({"name": "s", "function_id": "statistics", "output_collection": "mine"});
    key.post(&format!("{notes}/functions/attach"), statistics.clone()).await.refused(404);
    key.post(&format!("{notes}/fork"), json!({"new_name": "mine"})).await.refused(404);
    let open = notes.replace(notes.rsplit('/').next().unwrap(), "open");
    for (path, body) in [
        ("fork", json!({"new_name": "theirs"})),
        ("functions/attach", json!({"name": "s", "function_id": "statistics", "output_collection": "theirs"})),
    ] {
        key.post(&format!("{open}/{path}"), body).await.refused(404);
    }
    key.post(&format!("{open}/fork"), json!({"new_name": "mine-too"})).await.ok();
    // Collections may be made, and records be neither read nor written.
    let maker = server.as_key("maker", &[&format!("maker:{place}/open"), &format!("admin:{place}/mine*")]).await;
    let writer = server.as_key("half", &[&format!("admin:{place}/open"), &format!("half:{place}/mine*")]).await;
    for (who, lacking) in [(&maker, "record:read"), (&writer, "record:write")] {
        for (path, body) in [("fork", json!({"new_name": "mine-3"})), ("functions/attach", statistics.clone())] {
            let message = who.post(&format!("{open}/{path}"), body).await.refused(403);
            assert!(message.contains(lacking), "{path}: {message}");
        }
    }
    key.post(&format!("{open}/functions/attach"), statistics).await.ok();
}

#[tokio::test]
async fn operations_are_counted_and_versions_rise() {
    let server = TestServer::start();
    let notes = server.collection("notes").await;
    let (status, upsert) = (format!("{notes}/indexing_status"), format!("{notes}/upsert"));
    assert_eq!(server.get(&status).await.ok()["op_indexing_progress"], json!(1.0));
    for (ids, x) in [(["a", "b"], 0.0), (["a", "c"], 1.0), (["a", "c"], 1.0)] {
        server.post(&upsert, json!({"ids": ids, "embeddings": [[x, 1.0], [x, 1.0]]})).await.ok();
    }
    server.post(&format!("{notes}/delete"), json!({"ids": ["a", "nothing"]})).await.ok();
    assert_eq!(server.get(&status).await.ok()["total_ops"], json!(5), "what changes nothing is no operation");
    let (collections, _) = notes.rsplit_once('/').unwrap();
    assert_eq!(server.get(&format!("{collections}/notes")).await.ok()["version"], json!(3));
}
