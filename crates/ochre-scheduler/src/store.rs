//! Where schedules and runs are kept, so that a restart knows what was due and what was under way.
//!
//! What every implementation promises:
//! - [`JobStore::begin`] saves the schedule and inserts the run in one transaction, only if the schedule is
//!   still of the version it was read at and there is no run of the same job, nominal time, kind and
//!   attempt: whoever loses learns so and has changed nothing.
//! - Fences grow with every run begun. A run is changed only by who holds its fence, while it holds it.
//! - Leases are measured by the store's own clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::policy::Policies;
use crate::time::Time;
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
    /// Its knobs that are set; the others have their defaults.
    pub knobs: Map<String, Value>,
    /// What the configuration said when this was made; if it says something else, this is made anew.
    pub declared: Value,
    /// It is run at all.
    pub is_enabled: bool,
    /// It is not run, until resumed.
    pub is_paused: bool,
    /// It failed too often, and is not run until resumed.
    pub is_broken: bool,
    /// The next nominal time; `None` if there is none any more.
    pub next: Option<Time>,
    /// Runs that are due besides the schedule: asked for, queued, to be tried again.
    pub pending: Vec<Pending>,
    /// The last nominal time that was dealt with.
    pub last_nominal: Option<Time>,
    /// The last run that ended.
    pub last_run: Option<Run>,
    /// The last look that found nothing to do.
    pub last_look: Option<LastLook>,
    /// What became of nominal times, so far.
    pub tally: Tally,
    /// Runs that failed since one succeeded.
    pub failures: u32,
    /// Changes with every save.
    pub version: u64,
}

impl Schedule {
    /// Whether it is one that could have been made here: a stored one may come from anywhere.
    pub fn is_sound(&self) -> bool {
        let is_trigger = match &self.trigger {
            Trigger::Interval { every, .. } => Trigger::interval(every.0, Time::default()).is_ok(),
            Trigger::Cron(_) | Trigger::Once(_) => true,
        };
        is_trigger && self.pending.len() <= PENDING_MAX
    }

    /// Goes on from a time, in another place: what was due or under way before is not any more.
    pub fn begin_from(&mut self, now: Time) {
        self.next = self.trigger.next(now);
        self.pending.retain(|pending| pending.kind == Kind::Once && pending.nominal > now);
        self.last_nominal = None;
    }
}

/// When a look found nothing to do, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLook {
    /// When.
    pub at: Time,
    /// Why there was nothing to do.
    pub reason: String,
}

/// What became of nominal times: each is counted exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// A run was begun for it.
    pub ran: u64,
    /// It was covered by the run of a later one.
    pub coalesced: u64,
    /// A look found nothing to do.
    pub nothing_to_do: u64,
    /// It was dropped because it was too late.
    pub missed: u64,
    /// It was dropped because the job still ran.
    pub overlapped: u64,
}

/// A run that is due besides the schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its nominal time.
    pub nominal: Time,
    /// What asked for it.
    pub kind: Kind,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// It does not begin before this.
    pub not_before: Time,
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

/// One run of a job, identified by job, nominal time, kind and attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The job.
    pub job: String,
    /// The time it is the run of.
    pub nominal: Time,
    /// What asked for it.
    pub kind: Kind,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Who runs it.
    pub owner: String,
    /// Grows with every run; only its holder may change the run.
    pub fence: u64,
    /// By the store's clock; past it the owner counts as dead.
    pub lease_until: Time,
    /// When it began.
    pub started: Time,
    /// When it ended.
    pub ended: Option<Time>,
    /// How it stands.
    pub status: Status,
    /// Why it runs; once it has ended, what it did or why it failed.
    pub message: String,
    /// How far it is.
    pub progress: Option<Progress>,
    /// Earlier nominal times that it covers.
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
    Raised,
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
    fn beat(&self, run: &Run, lease: Duration) -> Result<bool, Error>;
    /// Ends a run and saves its schedule; `false` if the run is no longer held under its fence, or the
    /// schedule has changed (then nothing was done; read it again).
    fn finish(&self, schedule: &Schedule, run: &Run) -> Result<Finished, Error>;
    /// Runs under way whose lease has expired, or that another owner left if nobody else uses the store.
    fn abandoned(&self, owner: &str) -> Result<Vec<Run>, Error>;
    /// The last runs of a job, newest first.
    fn history(&self, job: &str, limit: usize) -> Result<Vec<Run>, Error>;
    /// Forgets ended runs of a job that ended before `before`, and all but `max`; never the last run nor the
    /// last failure. Returns how many, at most `step`.
    fn prune(&self, job: &str, before: Time, max: usize, step: usize) -> Result<usize, Error>;
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
