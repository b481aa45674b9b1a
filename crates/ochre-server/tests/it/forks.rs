//! Forks over HTTP: what they answer and what is refused.

use serde_json::json;

use crate::support::TestServer;

#[tokio::test]
async fn a_fork_has_what_its_source_had_and_both_go_on_alone() {
    let server = TestServer::start();
    let notes = server.filled("notes", 6).await;
    let (collections, source) = notes.rsplit_once('/').unwrap();
    let fork = server.post(&format!("{notes}/fork"), json!({"new_name": "copy"})).await.ok();
    assert_eq!((&fork["name"], &fork["dimension"]), (&json!("copy"), &json!(2)));
    assert_ne!(fork["id"], source);
    let copy = format!("{collections}/{}", fork["id"].as_str().unwrap());
    assert_eq!(server.get(&format!("{copy}/count")).await.ok(), json!(6));
    server.post(&format!("{copy}/delete"), json!({"ids": ["r0", "r1"]})).await.ok();
    server.post(&format!("{notes}/upsert"), json!({"ids": ["r7"], "embeddings": [[7.0, 1.0]]})).await.ok();
    let ids = |collection: String| {
        let server = &server;
        async move { server.post(&format!("{collection}/get"), json!({})).await.ok()["ids"].clone() }
    };
    assert_eq!(ids(copy.clone()).await, json!(["r2", "r3", "r4", "r5"]));
    assert_eq!(ids(notes.clone()).await, json!(["r0", "r1", "r2", "r3", "r4", "r5", "r7"]));
    // By name as well.
    server.post(&format!("{collections}/copy/fork"), json!({"new_name": "copy-of-copy"})).await.ok();
    for collection in [&notes, &copy, &format!("{collections}/copy-of-copy")] {
        assert_eq!(server.get(&format!("{collection}/fork_count")).await.ok(), json!({"count": 2}));
    }
    server.ask("DELETE", &format!("{collections}/notes"), None).await.ok();
    assert_eq!(server.get(&format!("{copy}/fork_count")).await.ok(), json!({"count": 1}));
    assert_eq!(ids(copy).await, json!(["r2", "r3", "r4", "r5"]));
}

#[tokio::test]
async fn a_fork_that_cannot_be_made_says_why() {
    let server = TestServer::start();
    let notes = server.filled("notes", 2).await;
    let (collections, _) = notes.rsplit_once('/').unwrap();
    for (collection, body, status, text) in [
        (&*notes, json!({"new_name": "notes"}), 409, "already exists"),
        (&*notes, json!({"new_name": "x"}), 400, "new_name"),
        (&*notes, json!({}), 422, "new_name"),
        (&*format!("{collections}/00000000-0000-4000-8000-000000000000"), json!({"new_name": "copy"}), 404, "exist"),
        (&*format!("{collections}/nothing"), json!({"new_name": "copy"}), 400, "UUID"),
    ] {
        let refused = server.post(&format!("{collection}/fork"), body).await;
        assert_eq!(refused.status.as_u16(), status, "{}", refused.body);
        assert!(refused.body.to_string().contains(text), "{}", refused.body);
    }
    assert_eq!(server.get(&format!("{collections}_count")).await.ok(), json!(1), "nothing was made");
}
