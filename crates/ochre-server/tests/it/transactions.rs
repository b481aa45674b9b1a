//! Conditional transactions over HTTP.

use serde_json::{Value, json};

use crate::support::TestServer;

fn update(id: &str, kind: &str) -> Value {
    json!({"operation": "update", "payload": {"ids": [id], "metadatas": [{"kind": kind}]}})
}

#[tokio::test]
async fn what_was_read_has_to_be_as_it_was() {
    let server = TestServer::start();
    let notes = server.filled("notes", 4).await;
    let (get, commit) = (format!("{notes}/conditional/get"), format!("{notes}/conditional/commit"));
    let first = server.post(&get, json!({"ids": ["r0", "r1"], "include": ["metadatas"]})).await.ok();
    assert_eq!(first["ids"], json!(["r0", "r1"]));
    let token = first["read_token"].clone();
    let more = server.post(&get, json!({"where": {"n": 3}, "limit": 5, "read_token": token})).await.ok();
    assert_eq!((&more["ids"], &more["read_token"]), (&json!(["r3"]), &token));
    let operations = json!([
        update("r0", "new"),
        {"operation": "delete", "payload": {"ids": ["r1"], "where": null, "where_document": null, "limit": null}},
        {"operation": "add", "payload": {"ids": ["r9"], "embeddings": [[9.0, 1.0]]}},
        {"payload": {"ids": ["r8"], "embeddings": [[8.0, 1.0]], "documents": ["eight"]}, "operation": "upsert"},
    ]);
    let body = json!({"read_token": token, "read_ids": ["r0", "r1", "r3"], "operations": operations});
    let committed = server.post(&commit, body.clone()).await.ok();
    assert_eq!(committed, json!({"first_inserted_record_offset": 2, "record_count": 4}));
    let ids = server.post(&format!("{notes}/get"), json!({})).await.ok()["ids"].clone();
    assert_eq!(ids, json!(["r0", "r2", "r3", "r9", "r8"]));
    let again = server.post(&commit, body).await;
    assert_eq!((again.status.as_u16(), &again.body["error"]), (409, &json!("ChromaError")));
    assert_eq!(again.body["message"], json!("conditional write conflict"));
    let stale = server.post(&get, json!({"ids": ["r0"], "read_token": token})).await;
    assert_eq!((stale.status.as_u16(), &stale.body["error"]), (412, &json!("StaleReadError")));
    let nothing = server.post(&commit, json!({"read_ids": [], "operations": []})).await.ok();
    assert_eq!(nothing, json!({"first_inserted_record_offset": null, "record_count": 0}));
}

#[tokio::test]
async fn what_is_no_transaction_is_refused_and_changes_nothing() {
    let server = TestServer::start();
    let notes = server.filled("notes", 2).await;
    let films = server.filled("films", 2).await;
    let commit = format!("{notes}/conditional/commit");
    let own = server.post(&format!("{notes}/conditional/get"), json!({})).await.ok()["read_token"].clone();
    let other = server.post(&format!("{films}/conditional/get"), json!({})).await.ok()["read_token"].clone();
    let ahead = json!(own.as_u64().unwrap() + (5 << 16));
    for (change, status, text) in [
        (json!({"read_token": null}), 400, "read_token"),
        (json!({"read_token": other}), 400, "of no read of this collection"),
        (json!({"read_token": ahead}), 400, "has not come so far"),
        (json!({"read_token": u64::MAX}), 400, "read_token"),
        (json!({"read_token": -1}), 422, "read_token"),
        (json!({"operations": [{"operation": "merge", "payload": {}}]}), 422, "merge"),
        (json!({"operations": [{"operation": "delete", "payload": {"where": {"n": 1}}}]}), 400, "ids only"),
        (json!({"operations": [update("r0", "a"), update("r0", "b")]}), 400, "operation 1 writes to record 'r0'"),
    ] {
        let mut body = json!({"read_token": own, "read_ids": ["r0"], "operations": [update("r0", "changed")]});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let message = server.post(&commit, body).await.refused(status);
        assert!(message.contains(text), "{message}");
    }
    let kept = server.post(&format!("{notes}/get"), json!({"where": {"kind": "even"}})).await.ok();
    assert_eq!(kept["ids"], json!(["r0"]));
}
