//! The API as a whole: its description, unknown routes, and what every answer has.

use serde_json::json;

use crate::support::TestServer;

#[tokio::test]
async fn every_operation_of_the_description_is_served() {
    let server = TestServer::start();
    let document = server.get("/openapi.json").await.ok();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 30, "{}", paths.len());
    for (path, operations) in paths {
        for method in operations.as_object().unwrap().keys() {
            let parts: Vec<&str> =
                path.split('/').map(|part| if part.starts_with('{') { "nobody" } else { part }).collect();
            let answer = server.ask(&method.to_uppercase(), &parts.join("/"), Some(json!({}))).await;
            let is_unknown = answer.status.as_u16() == 405
                || answer.status.as_u16() == 404 && (answer.body == "" || answer.body.to_string().contains("route"));
            assert!(!is_unknown, "{method} {path}: {} {}", answer.status, answer.body);
        }
    }
}

#[tokio::test]
async fn unknown_routes_of_our_own_name_the_nearest_one() {
    let server = TestServer::start();
    let text = server.get("/_admin/job").await.refused(404);
    assert!(text.contains("/_admin/jobs"), "{text}");
    let answer = server.get("/api/v2/nothing").await;
    assert_eq!((answer.status.as_u16(), answer.body), (404, json!("")));
}

#[tokio::test]
async fn answers_carry_the_id_of_their_request() {
    let server = TestServer::start();
    let answer = server.get("/api/v2/heartbeat").await;
    assert!(answer.headers.contains_key("x-request-id"), "{:?}", answer.headers);
}
