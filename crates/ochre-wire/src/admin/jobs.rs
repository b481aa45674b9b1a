//! Jobs that maintain a database, and those that users made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

/// The jobs of a database.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// Each of them.
    pub jobs: Vec<JobSummary>,
    /// What runs them.
    pub implementation: String,
    /// How much load keeps them back: 0 none, 1 all that is not urgent.
    pub pressure: f64,
}

/// A job in short.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobSummary {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// `scheduled`, `running`, `held`, `paused`, `broken`, `off` …
    pub state: String,
    /// When it is due, in words.
    pub trigger: String,
    /// The next times it is due, five at most.
    pub next_runs: Vec<String>,
    /// When the last run that ended began.
    pub last_run: Option<String>,
    /// How it ended.
    pub last_outcome: Option<String>,
    /// What it said.
    pub last_message: Option<String>,
    /// The last check that found nothing to do.
    pub last_check: Option<LastCheck>,
    /// Why it is due and does not run.
    pub held: Option<Held>,
    /// Something about the schedule that a reader may not expect, or what keeps the task from working.
    pub warning: Option<String>,
    /// How far the run under way is.
    pub progress: Option<Progress>,
    /// What a user asked for, if a user made it.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub user_job: Option<UserJob>,
    /// The scheduled time of a run that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
}

/// What a user asked a job to do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UserJob {
    /// `backup`, `delete` or `webhook`.
    pub task: String,
    /// What the task needs; without values for who may not see any.
    #[schema(value_type = Object)]
    pub arguments: Map<String, Json>,
    /// Who made it.
    pub made_by: String,
    /// When.
    pub created_at: String,
}

/// A job with all there is to say of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JobAnswer {
    /// In short.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// Whether it is on.
    pub enabled: bool,
    /// When it is due, as it is stored.
    #[schema(value_type = Option<Object>)]
    pub schedule: Option<Json>,
    /// Runs that are due besides the schedule, now or later.
    pub pending: Vec<PendingRun>,
    /// What becomes of it where it is late, overlaps, fails or is stuck.
    #[schema(value_type = Object)]
    pub policies: Map<String, Json>,
    /// Its settings.
    pub settings: BTreeMap<String, Setting>,
    /// What became of its scheduled times.
    pub counters: BTreeMap<String, u64>,
    /// Runs that failed since one succeeded.
    pub failures: u32,
    /// The run under way.
    pub running: Option<Run>,
    /// The last runs, newest first, if they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<Run>>,
}

/// A check that found nothing to do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = JobCheck)]
pub struct LastCheck {
    /// When.
    pub at: String,
    /// Why there was nothing to do.
    pub reason: String,
}

/// What keeps a job that is due from running.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = HeldJob)]
pub struct Held {
    /// Why.
    pub reason: String,
    /// Until when at least, if that is known.
    pub until: Option<String>,
}

/// How far a run is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = JobProgress)]
pub struct Progress {
    /// Units that are done.
    pub done: u64,
    /// Units in all, if known.
    pub total: Option<u64>,
    /// What the units are, or what it is at.
    pub what: String,
}

/// A run that is due besides the schedule.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PendingRun {
    /// Its scheduled time.
    pub scheduled_at: String,
    /// What asked for it.
    pub kind: String,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// It does not begin before this.
    pub not_before: String,
}

/// A setting of a job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = JobSetting)]
pub struct Setting {
    /// Its value.
    #[schema(value_type = Object)]
    pub value: Json,
    /// What it does.
    pub description: Option<String>,
}

/// A run of a job.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = JobRun)]
pub struct Run {
    /// Its scheduled time.
    pub scheduled_at: String,
    /// What asked for it: `scheduled`, `manual`, `signalled` or `once`.
    pub kind: String,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// When it began.
    pub started: String,
    /// When it ended.
    pub ended: Option<String>,
    /// How long it took, in seconds.
    pub seconds: Option<f64>,
    /// `running`, `succeeded`, `failed` …
    pub status: String,
    /// What it said.
    pub message: String,
    /// How far it was.
    pub progress: Option<Progress>,
    /// Scheduled times that it covers besides its own.
    pub coalesced: u64,
}
