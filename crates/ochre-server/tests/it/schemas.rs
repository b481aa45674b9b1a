//! Schemas over HTTP: declared, enforced, explored.

use serde_json::json;

use crate::support::TestServer;

#[tokio::test]
async fn a_declared_schema_refuses_what_breaks_it() {
    let server = TestServer::start();
    let notes = server.filled("notes", 3).await;
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}, "kind": {"type": "string"}}});
    let declared = json!({"schema": schema, "validation_type": "strict"});
    server.ask("PUT", &format!("{notes}/schema"), Some(declared)).await.ok();
    let wrong = json!({"ids": ["x"], "embeddings": [[1, 1]], "metadatas": [{"n": "many"}]});
    let answer = server.post(&format!("{notes}/add"), wrong).await;
    assert_eq!(answer.status.as_u16(), 400, "{}", answer.body);
    assert!(answer.body.to_string().contains("many"), "{}", answer.body);
    let right = json!({"ids": ["x"], "embeddings": [[1, 1]], "metadatas": [{"n": 3}]});
    server.post(&format!("{notes}/add"), right).await.ok();
}

#[tokio::test]
async fn introspection_finds_the_types_of_keys() {
    let server = TestServer::start();
    let notes = server.filled("notes", 4).await;
    let report = server.get(&format!("{notes}/introspect")).await.ok();
    let text = report.to_string();
    assert!(text.contains("\"kind\"") && text.contains("\"n\""), "{text}");
    assert_eq!(report["records"], 4);
}
