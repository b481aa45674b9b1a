//! Where schedules and runs are kept, so that a restart knows what was due and what was under way.
//!
//! What every implementation promises:
//! - [`JobStore::begin`] saves the schedule and inserts the run in one transaction, only if the schedule is
//!   still of the version it was read at and there is no run of the same job, scheduled time, kind and
//!   attempt: whoever loses learns so and has changed nothing.
//! - Fences grow with every run begun. A run is changed only by who holds its fence, while it holds it.
//! - Leases are measured by the store's own clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::policy::Policies;
use crate::time::Timestamp;
use crate::trigger::Trigger;

/// A stored schedule has at most so many pending runs.
const PENDING_MAX: usize = 1000;

/// A job's schedule and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The job.
    pub name: String,
    /// When it is due.
    pub trigger: Trigger,
    /// Its policies.
    pub policies: Policies,
    /// Its settings that are set; the others have their defaults.
    #[serde(alias = "knobs")]
    pub settings: Map<String, Value>,
    /// What the configuration said when this was made; if it says something else, this is made again.
    pub declared: Value,
    /// It is run at all.
    pub is_enabled: bool,
    /// It is not run, until resumed.
    pub is_paused: bool,
    /// It failed too often, and is not run until resumed.
    pub is_broken: bool,
    /// The next scheduled time; `None` if there is none any more.
    pub next: Option<Timestamp>,
    /// Runs that are due besides the schedule: asked for, queued, to be tried again.
    pub pending: Vec<Pending>,
    /// The last scheduled time that was dealt with.
    #[serde(alias = "last_nominal")]
    pub last_scheduled_at: Option<Timestamp>,
    /// The last run that ended.
    pub last_run: Option<Run>,
    /// The last check that found nothing to do.
    #[serde(alias = "last_look")]
    pub last_check: Option<LastCheck>,
    /// What became of scheduled times, so far.
    #[serde(alias = "tally")]
    pub counters: Counters,
    /// Runs that failed since one succeeded.
    pub failures: u32,
    /// Changes with every save.
    pub version: u64,
}

impl Schedule {
    /// Whether it is one that could have been made here: a stored one may come from anywhere.
    pub fn is_sound(&self) -> bool {
        let is_trigger = match &self.trigger {
            Trigger::Interval { every, .. } => Trigger::interval(every.0, Timestamp::default()).is_ok(),
            Trigger::Cron(_) | Trigger::Once(_) => true,
        };
        is_trigger && self.pending.len() <= PENDING_MAX
    }

    /// Goes on from a time, in another place: what was due or under way before is not any more.
    pub fn begin_from(&mut self, now: Timestamp) {
        self.next = self.trigger.next(now);
        self.pending.retain(|pending| pending.kind == Kind::Once && pending.scheduled_at > now);
        self.last_scheduled_at = None;
    }
}

/// When a check found nothing to do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheck {
    /// When.
    pub at: Timestamp,
    /// Why there was nothing to do.
    pub reason: String,
}

/// What became of scheduled times: each is counted exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// A run was begun for it.
    pub ran: u64,
    /// It was covered by the run of a later one.
    pub coalesced: u64,
    /// A check found nothing to do.
    pub nothing_to_do: u64,
    /// It was dropped because it was too late.
    pub missed: u64,
    /// It was dropped because the job still ran.
    pub overlapped: u64,
}

/// A run that is due besides the schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its scheduled time.
    #[serde(alias = "nominal")]
    pub scheduled_at: Timestamp,
    /// What asked for it.
    pub kind: Kind,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// It does not begin before this.
    pub not_before: Timestamp,
}

/// What asked for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Its schedule.
    Scheduled,
    /// Someone, by hand.
    Manual,
    /// Something that happened.
    Signalled,
    /// A time of its own, beside its schedule.
    Once,
}

/// One run of a job, identified by job, scheduled time, kind and attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The job.
    pub job: String,
    /// The time it is the run of.
    #[serde(alias = "nominal")]
    pub scheduled_at: Timestamp,
    /// What asked for it.
    pub kind: Kind,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Who runs it.
    pub owner: String,
    /// Grows with every run; only its holder may change the run.
    pub fence: u64,
    /// By the store's clock; past it the owner counts as dead.
    pub lease_until: Timestamp,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it stands.
    pub status: Status,
    /// Why it runs; once it has ended, what it did or why it failed.
    pub message: String,
    /// How far it is.
    pub progress: Option<Progress>,
    /// Earlier scheduled times that it covers.
    pub coalesced: u64,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It is under way.
    Running,
    /// It did what it had to.
    Succeeded,
    /// It did not.
    Failed,
    /// Someone stopped it.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// The scheduler was stopped, and it goes on after the next start.
    Interrupted,
    /// It got too little done beside requests, and goes on as an urgent run.
    #[serde(alias = "raised")]
    Escalated,
    /// Its process died.
    Lost,
}

impl Status {
    /// Whether the run counts as a failure.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::Lost)
    }
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units that are done.
    pub done: u64,
    /// Units in all, if known.
    pub total: Option<u64>,
    /// What the units are, or what it is at.
    pub what: String,
}

/// Persistence for schedules and runs.
pub trait JobStore: Send + Sync {
    /// Whether nobody else uses this store: then runs that another owner left are dead.
    fn is_exclusive(&self) -> bool;
    /// Whether what it holds is there after the process ended.
    fn is_persistent(&self) -> bool {
        true
    }
    /// All schedules.
    ///
    /// # Errors
    /// [`Error::Store`], as everywhere here.
    fn load(&self) -> Result<Vec<Schedule>, Error>;
    /// Saves a schedule under its next version, if it is still of `schedule.version` (0: if there is none).
    /// Returns whether it was.
    fn save(&self, schedule: &Schedule) -> Result<bool, Error>;
    /// Saves the schedule and inserts the run, which gets a fence and a lease of this length; `None` if
    /// someone else was faster.
    fn begin(&self, schedule: &Schedule, run: &Run, lease: Duration) -> Result<Option<Run>, Error>;
    /// Renews a lease and notes progress; `false` if the run is no longer held under its fence.
    fn renew_lease(&self, run: &Run, lease: Duration) -> Result<bool, Error>;
    /// Ends a run and saves its schedule; `false` if the run is no longer held under its fence, or the
    /// schedule has changed (then nothing was done; read it again).
    fn finish(&self, schedule: &Schedule, run: &Run) -> Result<Finished, Error>;
    /// Runs under way whose lease has expired, or that another owner left if nobody else uses the store.
    fn abandoned(&self, owner: &str) -> Result<Vec<Run>, Error>;
    /// The last runs of a job, newest first.
    fn history(&self, job: &str, limit: usize) -> Result<Vec<Run>, Error>;
    /// Forgets ended runs of a job that ended before `before`, and all but `max`; never the last run nor the
    /// last failure. Returns how many, at most `step`.
    fn prune(&self, job: &str, before: Timestamp, max: usize, step: usize) -> Result<usize, Error>;
    /// Forgets a job: its schedule and its runs, those under way too.
    fn remove(&self, job: &str) -> Result<(), Error>;
}

/// What came of ending a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It is ended.
    Done,
    /// The schedule was changed meanwhile; read it and try again.
    Changed,
    /// Someone else holds the run.
    NotHeld,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As versions before wrote them; what was changed by hand must survive the new names.
    const BEFORE: &str = r#"{
        "name": "vacuum", "trigger": {"kind": "interval", "every": "10s", "anchor": 0},
        "policies": POLICIES, "knobs": {"free_share": 0.5}, "declared": null,
        "is_enabled": true, "is_paused": true, "is_broken": false, "next": null,
        "pending": [{"nominal": 7, "kind": "manual", "attempt": 1, "not_before": 7}],
        "last_nominal": 5, "last_run": null, "last_look": {"at": 6, "reason": "nothing"},
        "counters": {"ran": 3, "coalesced": 0, "nothing_to_do": 1, "missed": 0, "overlapped": 0},
        "failures": 0, "version": 4
    }"#;

    #[test]
    fn schedules_that_older_versions_kept_are_read() {
        let now: Timestamp = "2026-11-27T00:00:00Z".parse().unwrap();
        let trigger = Trigger::interval(std::time::Duration::from_secs(10), now).unwrap();
        let mut before: Value =
            serde_json::from_str(&BEFORE.replace("POLICIES", &serde_json::to_string(&Policies::default()).unwrap()))
                .unwrap();
        before["trigger"] = serde_json::to_value(&trigger).unwrap();
        let time = |at: &Timestamp| serde_json::to_value(at).unwrap();
        for place in ["/pending/0/nominal", "/pending/0/not_before", "/last_nominal", "/last_look/at"] {
            *before.pointer_mut(place).unwrap() = time(&now);
        }
        let schedule: Schedule = serde_json::from_value(before).unwrap();
        assert_eq!(schedule.settings["free_share"], 0.5);
        assert_eq!((schedule.counters.ran, schedule.last_scheduled_at), (3, Some(now)));
        assert_eq!(schedule.last_check.as_ref().map(|check| check.reason.as_str()), Some("nothing"));
        assert_eq!(schedule.pending[0].scheduled_at, now);
        assert_eq!(serde_json::from_str::<Status>("\"raised\"").unwrap(), Status::Escalated);
        // Written again it has the new names.
        let again = serde_json::to_value(&schedule).unwrap();
        assert!(again.get("settings").is_some() && again.get("knobs").is_none(), "{again}");
    }
}
