//! What happens when things do not go as scheduled: late, overlapping, failing, stuck, or at a bad hour.

use serde::{Deserialize, Serialize};

use crate::trigger::Interval;
use crate::window::Window;

/// What to do about times that passed while nobody could run the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Misfire {
    /// Run only if the latest of them is at most `grace` ago.
    Skip,
    /// Run once for all of them, however late; `grace` does not matter.
    Latest,
    /// Run for each of them, the latest `catch_up` at most.
    All,
}

/// What to do when a job is due while it still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// That time is skipped.
    Skip,
    /// It runs once more, after the one that runs.
    Queue,
    /// The one that runs is cancelled, and then it runs.
    CancelRunning,
    /// Both run.
    Allow,
}

/// How a job gives way to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Only while next to nothing else goes on.
    Idle,
    /// While there is room.
    Normal,
    /// Hardly ever gives way: a hard limit was passed.
    Urgent,
}

impl Class {
    /// The class above it.
    pub fn raised(self) -> Self {
        if self == Self::Idle { Self::Normal } else { Self::Urgent }
    }
}

/// The policies of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policies {
    /// What to do about missed times.
    pub misfire: Misfire,
    /// How late a run may be, if `misfire` is `skip`.
    pub grace: Interval,
    /// How many missed times are run, if `misfire` is `all`.
    pub catch_up: u32,
    /// What to do about a run that is due while one runs.
    pub overlap: Overlap,
    /// Starts are spread over this share of the interval, the same for the same time; 0 to 1.
    pub jitter: f64,
    /// A run that takes longer is stopped at its next step.
    pub timeout: Interval,
    /// A run without a step for so long is reported as stuck.
    pub stuck_after: Interval,
    /// How often a run that failed is tried again.
    pub retries: u32,
    /// How long the first retry waits; each further one twice as long.
    pub retry_delay: Interval,
    /// No retry waits longer.
    pub retry_delay_max: Interval,
    /// After this many failures in a row the job is broken, and waits for `resume`. 0: never.
    pub broken_after: u32,
    /// Of jobs that are due together, those with more come first.
    pub priority: i32,
    /// How the job gives way to requests.
    pub class: Class,
    /// Put off for this long, a job moves to the class above.
    pub max_defer: Interval,
    /// Runs begin only within one of these, if there are any; urgent ones at any time.
    pub windows: Vec<Window>,
    /// No run begins within any of these, except urgent ones.
    pub quiet_hours: Vec<Window>,
    /// Finished runs are kept for so long,
    pub history_age: Interval,
    /// and at most so many of them. The last one, and the last that failed, always are.
    pub history_max: u32,
}

impl Default for Policies {
    fn default() -> Self {
        let seconds = |seconds| Interval(std::time::Duration::from_secs(seconds));
        Self {
            misfire: Misfire::Latest,
            grace: seconds(3600),
            catch_up: 10,
            overlap: Overlap::Skip,
            jitter: 0.1,
            timeout: seconds(6 * 3600),
            stuck_after: seconds(600),
            retries: 5,
            retry_delay: seconds(30),
            retry_delay_max: seconds(3600),
            broken_after: 10,
            priority: 0,
            class: Class::Normal,
            max_defer: seconds(600),
            windows: Vec::new(),
            quiet_hours: Vec::new(),
            history_age: seconds(30 * 86_400),
            history_max: 1000,
        }
    }
}

impl Policies {
    /// How long the retry after so many failed attempts waits.
    pub fn retry_after(&self, attempts: u32) -> std::time::Duration {
        self.retry_delay.0.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(self.retry_delay_max.0)
    }
}
