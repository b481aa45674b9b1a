//! Why the scheduler refused or failed, grouped by what the caller can do about it.

/// Why the scheduler refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Never succeeds as written: fix it.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// What is wrong: a field of a cron expression, a zone, an interval, a setting.
        what: &'static str,
        /// Why, and what would be right.
        reason: String,
    },
    /// There is no such job.
    #[error("there is no job '{name}'{}", suggestion(.nearest.as_deref()))]
    UnknownJob {
        /// The name asked for.
        name: String,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// The job has no such setting.
    #[error("job '{job}' has no setting '{name}'{}", suggestion(.nearest.as_deref()))]
    UnknownSetting {
        /// The job.
        job: String,
        /// The setting asked for.
        name: String,
        /// The setting that is most like it.
        nearest: Option<String>,
    },
    /// Two tasks of one name, or a second schedule for one.
    #[error("job '{0}' is scheduled already; change its schedule instead of adding another")]
    Duplicate(String),
    /// The scheduler in use does not run jobs.
    #[error("the scheduler is off; set `[scheduler] implementation = \"local\"` to run jobs")]
    Off,
    /// There is no scheduler implementation of this name.
    #[error("there is no scheduler implementation '{name}'; there are: {known}")]
    UnknownImplementation {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The job store failed; what was asked for did not happen.
    #[error("the job store failed: {0}")]
    Store(String),
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean '{nearest}'?")).unwrap_or_default()
}
