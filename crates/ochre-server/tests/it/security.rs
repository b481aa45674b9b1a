//! Who may do what: without a key nothing, with one what it grants, and no more.

use serde_json::json;

use crate::support::TestServer;

#[tokio::test]
async fn a_key_may_do_what_it_grants_and_nothing_else() {
    let admin = TestServer::secured();
    let notes = admin.filled("notes", 2).await;
    let reader = admin.as_key("reader", &["reader"]).await;
    assert_eq!(reader.get(&format!("{notes}/count")).await.ok(), 2);
    let add = json!({"ids": ["x"], "embeddings": [[1, 1]]});
    reader.post(&format!("{notes}/add"), add.clone()).await.refused(403);
    reader.post("/_admin/keys", json!({"name": "more", "grants": ["admin"]})).await.refused(403);
    let writer = admin.as_key("writer", &["writer:default_tenant/default_database/notes"]).await;
    writer.post(&format!("{notes}/add"), add.clone()).await.ok();
    let other = admin.filled("other", 1).await;
    let answer = writer.post(&format!("{other}/add"), add).await;
    assert!([403, 404].contains(&answer.status.as_u16()), "{}", answer.status);
}

#[tokio::test]
async fn nobody_is_asked_for_a_key_in_vain() {
    let admin = TestServer::secured();
    let notes = admin.filled("notes", 2).await;
    let nobody = TestServer::configured(&[("auth.enabled", "true")]);
    nobody.get(&format!("{notes}/count")).await.refused(401);
    nobody.get("/api/v2/heartbeat").await.ok();
}

#[tokio::test]
async fn renamed_collections_are_granted_by_their_new_name() {
    let admin = TestServer::secured();
    let notes = admin.filled("notes", 2).await;
    let reader = admin.as_key("reader", &["reader:default_tenant/default_database/notes"]).await;
    assert_eq!(reader.get(&format!("{notes}/count")).await.ok(), 2);
    admin.ask("PUT", &notes, Some(json!({"new_name": "secrets"}))).await.ok();
    let answer = reader.get(&format!("{notes}/count")).await;
    assert!([403, 404].contains(&answer.status.as_u16()), "{}", answer.status);
    // A collection that has the name now is another one.
    let again = admin.filled("notes", 1).await;
    assert_eq!(reader.get(&format!("{again}/count")).await.ok(), 1);
    let answer = reader.get(&format!("{notes}/count")).await;
    assert!([403, 404].contains(&answer.status.as_u16()), "{}", answer.status);
}
