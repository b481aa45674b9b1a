//! Jobs over HTTP: listed, changed, run, refused.

use serde_json::json;

use crate::support::TestServer;

#[tokio::test]
async fn jobs_are_listed_and_their_schedules_changed_and_set_back() {
    let server = TestServer::start();
    let before = server.get("/_admin/jobs/vacuum").await.ok();
    server.ask("PATCH", "/_admin/jobs/vacuum", Some(json!({"interval": "7m"}))).await.ok();
    let changed = server.get("/_admin/jobs/vacuum").await.ok();
    assert_ne!(changed["trigger"], before["trigger"]);
    server.ask("DELETE", "/_admin/jobs/vacuum/schedule", None).await.ok();
    assert_eq!(server.get("/_admin/jobs/vacuum").await.ok()["trigger"], before["trigger"]);
    let listed = server.get("/_admin/jobs").await.ok();
    assert!(listed.to_string().contains("\"index-sync\""), "{listed}");
}

#[tokio::test]
async fn a_misspelt_job_or_schedule_is_refused_with_the_nearest_name() {
    let server = TestServer::start();
    let text = server.get("/_admin/jobs/vacum").await.refused(404);
    assert!(text.contains("vacuum"), "{text}");
    let text = server.ask("PATCH", "/_admin/jobs/vacuum", Some(json!({"intervall": "7m"}))).await.refused(400);
    assert!(text.contains("interval"), "{text}");
    server.ask("PATCH", "/_admin/jobs/vacuum", Some(json!({"cron": "61 * * * *"}))).await.refused(400);
}

#[tokio::test]
async fn members_that_were_renamed_are_taken_and_shown_by_both_names() {
    let server = TestServer::start();
    server.ask("PATCH", "/_admin/jobs/vacuum", Some(json!({"knobs": {"free_share": 0.5}}))).await.ok();
    let shown = server.get("/_admin/jobs/vacuum").await.ok();
    assert_eq!(shown["settings"]["free_share"]["value"], 0.5);
    server.ask("PATCH", "/_admin/jobs/vacuum", Some(json!({"settings": {"free_share": 0.6}}))).await.ok();
    let shown = server.get("/_admin/jobs/vacuum").await.ok();
    assert_eq!(shown["knobs"]["free_share"]["value"], 0.6);
    assert_eq!(shown["knobs"]["free_share"]["about"], shown["settings"]["free_share"]["description"]);
    for (old, new) in [("about", "description"), ("last_look", "last_check"), ("tally", "counters")] {
        assert!(shown.get(old).is_some() && shown[old] == shown[new], "{old}: {shown}");
    }
    let text =
        server.ask("PATCH", "/_admin/jobs/vacuum", Some(json!({"settings": {"free_shar": 1}}))).await.refused(400);
    assert!(text.contains("did you mean 'free_share'"), "{text}");
}
