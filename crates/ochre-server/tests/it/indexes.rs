//! Metadata indexes over HTTP: declared, built, used, refused.

use serde_json::json;

use crate::support::TestServer;

const INDEXES: &str = "/_admin/metadata_indexes";

#[tokio::test]
async fn a_declared_index_is_built_and_answers_filters() {
    let server = TestServer::start();
    let notes = server.filled("notes", 3).await;
    let body = json!({"index_name": "by_kind", "collection": "notes", "columns": ["kind"]});
    server.post(INDEXES, body).await.ok();
    server.database.maintain().unwrap();
    let shown = server.get("/_admin/metadata_index/by_kind").await.ok();
    assert_eq!((shown["status"].as_str(), shown["statistics"]["records"].as_u64()), (Some("ready"), Some(3)));
    let found = server
        .post(&format!("{notes}/get?explain=true&use_index=by_kind"), json!({"where": {"kind": "even"}}))
        .await
        .ok();
    assert_eq!((&found["ids"], &found["explain"]["index"]), (&json!(["r0", "r2"]), &json!("by_kind")));
}

#[tokio::test]
async fn a_bad_definition_is_refused_with_what_was_meant() {
    let server = TestServer::start();
    server.filled("notes", 3).await;
    for (body, words) in [
        (json!({"index_name": "x", "collection": "notes", "columns": ["knd"]}), "kind"),
        (json!({"index_name": "x", "collection": "nots", "columns": ["kind"]}), "nots"),
        (json!({"index_name": "x", "collection": "notes", "colums": ["kind"]}), "columns"),
        (json!({"index_name": "x", "collection": "notes", "columns": []}), "columns: "),
        (json!({"index_name": "x", "collection": "notes", "columns": [{"key": 5}]}), r#"columns: {"key":5}"#),
    ] {
        let answer = server.post(INDEXES, body.clone()).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{body}: {}", answer.status);
        let text = answer.body["message"].as_str().unwrap_or_default().to_owned();
        assert!(text.contains(words) && !text.starts_with("Validation error"), "{body}: {text}");
    }
    let asked = "/api/v2/tenants/default_tenant/databases/default_database/collections";
    let id = server.get(&format!("{asked}/notes")).await.ok()["id"].as_str().unwrap_or_default().to_owned();
    let hypothetical = form_urlencoded::byte_serialize(br#"[{"columns": ["a", "a"]}]"#).collect::<String>();
    let path = format!("{asked}/{id}/get?explain=true&hypothetical_indexes={hypothetical}");
    let text = server.post(&path, json!({"where": {"kind": "a"}})).await.refused(400);
    assert!(text.starts_with("columns: "), "{text}");
    assert_eq!(server.get(INDEXES).await.ok().as_array().map(Vec::len).unwrap_or_default(), 0);
}

#[tokio::test]
async fn deleting_every_index_has_to_be_confirmed() {
    let server = TestServer::start();
    server.filled("notes", 3).await;
    server.post(INDEXES, json!({"index_name": "by_n", "collection": "notes", "columns": ["n"]})).await.ok();
    server.ask("DELETE", INDEXES, None).await.refused(400);
    server.ask("DELETE", &format!("{INDEXES}?confirm=true"), None).await.ok();
    server.get("/_admin/metadata_index/by_n").await.refused(404);
}
