//! Administration of jobs: what maintenance does, when, and what became of it.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use ochre_engine::Database;
use ochre_engine::scheduler::{JobState, JobStatus, Run};
use serde::Deserialize;
use serde_json::{Map, Value as Json_, json};

use super::Operation;
use crate::app::App;
use crate::body::{JsonBytes, Query};
use crate::error::ApiError;

/// Runs that are shown unless asked for more.
const HISTORY: usize = 20;
/// Runs that are shown at most.
const HISTORY_MAX: usize = 1000;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "get",
        path: "/_admin/jobs",
        summary: "Every job: its state, when it is due, how its last run ended",
        request: None,
        response: (200, "object"),
        query: &[],
    },
    Operation {
        method: "get",
        path: "/_admin/jobs/{name}",
        summary: "A job: its definition, next times, progress and history",
        request: None,
        response: (200, "object"),
        query: &["history"],
    },
    Operation {
        method: "patch",
        path: "/_admin/jobs/{name}",
        summary: "Change a job's schedule, policies or knobs",
        request: Some("JobChange"),
        response: (200, "object"),
        query: &[],
    },
    Operation {
        method: "post",
        path: "/_admin/jobs/{name}/run",
        summary: "Run a job as soon as possible",
        request: None,
        response: (202, "object"),
        query: &[],
    },
    Operation {
        method: "post",
        path: "/_admin/jobs/{name}/cancel",
        summary: "Stop a run under way at its next step",
        request: None,
        response: (202, "object"),
        query: &[],
    },
    Operation {
        method: "post",
        path: "/_admin/jobs/{name}/pause",
        summary: "Run a job no more until it is resumed",
        request: None,
        response: (200, "object"),
        query: &[],
    },
    Operation {
        method: "post",
        path: "/_admin/jobs/{name}/resume",
        summary: "Run a paused or broken job again",
        request: None,
        response: (200, "object"),
        query: &[],
    },
];

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/_admin/jobs", get(list))
        .route("/_admin/jobs/{name}", get(show).patch(change))
        .route("/_admin/jobs/{name}/{action}", post(act))
}

#[derive(Deserialize)]
struct Shown {
    history: Option<usize>,
}

async fn list(State(app): State<App>) -> Result<Json<Json_>, ApiError> {
    app.check_local()?;
    app.run(|database| {
        let jobs: Vec<Json_> = database.scheduler().jobs().iter().map(summary).collect();
        Ok(Json(json!({"jobs": jobs, "implementation": database.scheduler().implementation(), "pressure": database.pressure()})))
    })
    .await
}

async fn show(
    State(app): State<App>, Path(name): Path<String>, Query(shown): Query<Shown>,
) -> Result<Json<Json_>, ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let status = database.scheduler().job(&name)?;
        let history = database.scheduler().history(&name, shown.history.unwrap_or(HISTORY).min(HISTORY_MAX))?;
        let mut shown = whole(&status);
        shown["history"] = history.iter().map(run).collect();
        Ok(Json(shown))
    })
    .await
}

async fn change(State(app): State<App>, Path(name): Path<String>, body: JsonBytes) -> Result<Json<Json_>, ApiError> {
    app.check_local()?;
    app.run(move |database| {
        let change: Map<String, Json_> = body.parse()?;
        Ok(Json(whole(&database.scheduler().alter(&name, &change)?)))
    })
    .await
}

async fn act(
    State(app): State<App>, Path((name, action)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Json_>), ApiError> {
    app.check_local()?;
    app.run(move |database: &Database| {
        let scheduler = database.scheduler();
        let status = match action.as_str() {
            "run" => scheduler.run_now(&name).map(|()| StatusCode::ACCEPTED)?,
            "cancel" => scheduler.cancel(&name).map(|()| StatusCode::ACCEPTED)?,
            "pause" => scheduler.pause(&name).map(|()| StatusCode::OK)?,
            "resume" => scheduler.resume(&name).map(|()| StatusCode::OK)?,
            other => {
                let text = format!("a job cannot be told to '{other}'; there are run, cancel, pause and resume");
                return Err(ApiError::not_found(text));
            }
        };
        Ok((status, Json(summary(&scheduler.job(&name)?))))
    })
    .await
}

fn summary(status: &JobStatus) -> Json_ {
    json!({
        "name": status.name,
        "about": status.about,
        "state": status.state,
        "trigger": status.trigger,
        "next_runs": status.next_runs,
        "last_run": status.last_run.as_ref().map(|run| run.started),
        "last_outcome": status.last_run.as_ref().map(|run| run.status),
        "last_message": status.last_run.as_ref().map(|run| &run.message),
        "last_look": status.last_look,
        "progress": status.progress,
    })
}

fn whole(status: &JobStatus) -> Json_ {
    let mut shown = summary(status);
    let knobs: Map<String, Json_> = status
        .knobs
        .iter()
        .map(|(name, value)| (name.clone(), json!({"value": value, "about": status.knobs_about.get(name.as_str())})))
        .collect();
    shown["enabled"] = json!(status.state != JobState::Off);
    shown["schedule"] = json!(status.schedule);
    shown["warning"] = json!(status.warning);
    shown["policies"] = json!(status.policies);
    shown["knobs"] = Json_::Object(knobs);
    shown["tally"] = json!(status.tally);
    shown["failures"] = json!(status.failures);
    shown["running"] = json!(status.running.as_ref().map(run));
    shown
}

fn run(run: &Run) -> Json_ {
    json!({
        "nominal": run.nominal,
        "kind": run.kind,
        "attempt": run.attempt,
        "started": run.started,
        "ended": run.ended,
        "seconds": run.ended.map(|ended| ended.since(run.started).as_secs_f64()),
        "status": run.status,
        "message": run.message,
        "progress": run.progress,
        "coalesced": run.coalesced,
    })
}
