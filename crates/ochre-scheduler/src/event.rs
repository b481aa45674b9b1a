//! What became of jobs that somebody may want to know at once.

use std::sync::Arc;

use serde::Serialize;

use crate::store::{Run, Schedule, Status};

/// Something that became of a job.
#[derive(Clone, Debug, Serialize)]
pub struct JobEvent {
    /// The job.
    pub job: String,
    /// What became of it.
    pub kind: JobEventKind,
    /// How the run ended.
    pub status: Status,
    /// What the run said.
    pub message: String,
    /// Runs that failed in a row, this one included; of a job that recovered, before this one.
    pub failures: u32,
}

/// What can become of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobEventKind {
    /// A run failed.
    Failed,
    /// It failed so often that it runs no more until it is resumed.
    Broken,
    /// A run succeeded after others had failed.
    Recovered,
}

/// Told of events, on the thread of the run: it must be fast, and ask the scheduler nothing.
pub type JobObserver = Arc<dyn Fn(&JobEvent) + Send + Sync>;

impl JobEvent {
    /// What came of a run, by the schedule before it ended and after.
    pub(crate) fn of(run: &Run, before: &Schedule, after: &Schedule) -> Option<Self> {
        let kind = match run.status {
            status if status.is_failure() && after.is_broken && !before.is_broken => JobEventKind::Broken,
            status if status.is_failure() => JobEventKind::Failed,
            Status::Succeeded if before.failures > 0 => JobEventKind::Recovered,
            _ => return None,
        };
        let failures = if kind == JobEventKind::Recovered { before.failures } else { after.failures };
        Some(Self { job: run.job.clone(), kind, status: run.status, message: run.message.clone(), failures })
    }
}
