//! The scheduler as everyone else sees it, whichever implementation it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::clock::{Clock, SystemClock};
use crate::definition::Definition;
use crate::error::Error;
use crate::event::JobObserver;
use crate::governor::{Governor, NoGovernor};
use crate::local::LocalScheduler;
use crate::memory::MemoryJobStore;
use crate::off::OffScheduler;
use crate::policy::Policies;
use crate::store::{Counters, JobStore, LastCheck, Pending, Progress, Run};
use crate::task::{Defaults, Task, When};
use crate::time::Timestamp;
use crate::trigger::Trigger;

/// Runs named jobs when they are due.
pub trait Scheduler: Send + Sync {
    /// The name it is configured by.
    fn implementation(&self) -> &str;

    /// Schedules a job every so often.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::UnknownJob`] if there is no task of this name, [`Error::Duplicate`] if it
    /// is scheduled already, [`Error::UnknownSetting`], [`Error::Store`].
    fn schedule_interval(
        &self, job: &str, interval: Duration, options: ScheduleOptions,
    ) -> Result<JobHandle<'_>, Error>;

    /// Schedules a job by a cron expression, in the zone of the options.
    ///
    /// # Errors
    /// As [`Scheduler::schedule_interval`].
    fn schedule_cron(&self, job: &str, expression: &str, options: ScheduleOptions) -> Result<JobHandle<'_>, Error>;

    /// Schedules a job once: after a delay, or at a time.
    ///
    /// # Errors
    /// As [`Scheduler::schedule_interval`]; also if both are given, or neither.
    fn schedule_once(
        &self, job: &str, delay: Option<Duration>, at: Option<Timestamp>, options: ScheduleOptions,
    ) -> Result<JobHandle<'_>, Error>;

    /// Every job and how it stands, by name.
    fn jobs(&self) -> Vec<JobStatus>;

    /// How a job stands.
    ///
    /// # Errors
    /// [`Error::UnknownJob`], here and below.
    fn job(&self, job: &str) -> Result<JobStatus, Error>;

    /// The next times a job is due, at most this many.
    fn next_times(&self, job: &str, count: usize) -> Result<Vec<Timestamp>, Error>;

    /// Stops running a job until it is resumed. A run under way goes on.
    fn pause(&self, job: &str) -> Result<(), Error>;

    /// Runs a paused or broken job again, from its next time on.
    fn resume(&self, job: &str) -> Result<(), Error>;

    /// Runs a job as soon as possible, whatever its schedule and its precondition say; the scheduled time of the run.
    /// Asking again before it begins is asking once.
    fn run_now(&self, job: &str) -> Result<Timestamp, Error>;

    /// Stops a run under way at its next step.
    fn cancel(&self, job: &str) -> Result<(), Error>;

    /// Something happened that the job may have to do something about: it looks soon.
    fn signal(&self, job: &str);

    /// The last runs of a job, newest first.
    fn history(&self, job: &str, limit: usize) -> Result<Vec<Run>, Error>;

    /// Changes schedule, policies or settings. Nothing is changed if anything about it is wrong. A time to run once
    /// comes beside a recurring schedule, and `"once": null` takes such times back.
    fn alter(&self, job: &str, change: &Map<String, Value>) -> Result<JobStatus, Error>;

    /// Makes schedule, policies and settings of a job what they were declared to be.
    fn reset(&self, job: &str) -> Result<JobStatus, Error>;

    /// Adds a task, which can be scheduled from then on.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if there is one of its name.
    fn add_task(&self, task: Arc<dyn Task>) -> Result<(), Error>;

    /// Removes a job with its task and its history. A run under way is told to stop.
    fn remove(&self, job: &str) -> Result<(), Error>;

    /// Begins to run jobs.
    ///
    /// # Errors
    /// [`Error::Store`].
    fn start(&self) -> Result<(), Error>;

    /// Stops: runs under way are told to, and waited for.
    fn stop(&self);
}

/// How a job is scheduled, besides when.
#[derive(Clone, Debug, Default)]
pub struct ScheduleOptions {
    /// Its policies.
    pub policies: Policies,
    /// TaskSettings that differ from their defaults.
    pub settings: Map<String, Value>,
    /// The zone of a cron expression; UTC unless given.
    pub zone: Option<String>,
    /// Listed, but not run until it is enabled.
    pub is_disabled: bool,
    /// A configuration says so, and says it again at each start: a time to run once that has passed is no mistake to
    /// a scheduler that forgets whether it ran.
    pub is_configured: bool,
}

/// A scheduled job.
#[derive(Clone)]
pub struct JobHandle<'a> {
    scheduler: &'a dyn Scheduler,
    name: String,
}

impl<'a> JobHandle<'a> {
    /// A handle on a job of a scheduler.
    pub fn new(scheduler: &'a dyn Scheduler, name: &str) -> Self {
        Self { scheduler, name: name.to_owned() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As [`Scheduler::next_times`].
    ///
    /// # Errors
    /// As there.
    pub fn next_times(&self, count: usize) -> Result<Vec<Timestamp>, Error> {
        self.scheduler.next_times(&self.name, count)
    }

    /// As [`Scheduler::pause`].
    ///
    /// # Errors
    /// As there.
    pub fn pause(&self) -> Result<(), Error> {
        self.scheduler.pause(&self.name)
    }

    /// As [`Scheduler::resume`].
    ///
    /// # Errors
    /// As there.
    pub fn resume(&self) -> Result<(), Error> {
        self.scheduler.resume(&self.name)
    }

    /// As [`Scheduler::run_now`].
    ///
    /// # Errors
    /// As there.
    pub fn run_now(&self) -> Result<Timestamp, Error> {
        self.scheduler.run_now(&self.name)
    }

    /// As [`Scheduler::cancel`].
    ///
    /// # Errors
    /// As there.
    pub fn cancel(&self) -> Result<(), Error> {
        self.scheduler.cancel(&self.name)
    }

    /// As [`Scheduler::history`].
    ///
    /// # Errors
    /// As there.
    pub fn history(&self, limit: usize) -> Result<Vec<Run>, Error> {
        self.scheduler.history(&self.name, limit)
    }
}

/// How a job stands.
#[derive(Clone, Debug, Serialize)]
pub struct JobStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Whether it runs, and why not.
    pub state: JobState,
    /// When it is due, in words.
    pub trigger: String,
    /// When it is due, as it is stored.
    pub schedule: Option<Trigger>,
    /// Something about the schedule that a reader may not expect, or what keeps the task from working.
    pub warning: Option<String>,
    /// The next times it is due, five at most.
    pub next_runs: Vec<Timestamp>,
    /// The run under way.
    pub running: Option<Run>,
    /// The last run that ended.
    pub last_run: Option<Run>,
    /// The last look that found nothing to do.
    pub last_check: Option<LastCheck>,
    /// Why it is due and does not run.
    pub held: Option<Held>,
    /// Runs that are due besides the schedule, now or later.
    pub pending: Vec<Pending>,
    /// How far the run under way is.
    pub progress: Option<Progress>,
    /// What became of its scheduled time.
    pub counters: Counters,
    /// Runs that failed since one succeeded.
    pub failures: u32,
    /// Its policies.
    pub policies: Policies,
    /// All its settings, with their values.
    pub settings: Map<String, Value>,
    /// What each setting does.
    pub settings_descriptions: BTreeMap<&'static str, &'static str>,
}

/// What keeps a job that is due from running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Why.
    pub reason: String,
    /// Until when at least, if that is known.
    pub until: Option<Timestamp>,
}

/// Whether a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It waits for its next time.
    Scheduled,
    /// It is due, and something keeps it from running.
    Held,
    /// A run is under way.
    Running,
    /// A run is under way and gives way to requests.
    Waiting,
    /// A run is under way, but has not begun a step for too long.
    Stuck,
    /// It waits for `resume`.
    Paused,
    /// It failed too often, and waits for `resume`.
    Broken,
    /// It is not enabled, or the scheduler is off.
    Off,
    /// There is no next time any more.
    Finished,
}

/// What a scheduler is made of.
#[derive(Clone)]
pub struct SchedulerConfig {
    /// The tasks there are.
    pub tasks: Vec<Arc<dyn Task>>,
    /// Where schedules and runs are kept.
    pub store: Arc<dyn JobStore>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Who decides when there is room.
    pub governor: Arc<dyn Governor>,
    /// Names this scheduler among those that share its store. Never the host's name alone.
    pub owner: String,
    /// Runs under way at once, at most; urgent ones not counted.
    pub running_max: usize,
    /// Told of jobs that fail, break and recover.
    pub observer: Option<JobObserver>,
}

impl SchedulerConfig {
    /// These tasks, in memory, by the system's clock, ungoverned.
    pub fn new(tasks: Vec<Arc<dyn Task>>, owner: String) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = Arc::new(MemoryJobStore::new(Arc::clone(&clock), true));
        Self { tasks, store, clock, governor: Arc::new(NoGovernor), owner, running_max: 2, observer: None }
    }
}

type Factory = Box<dyn Fn(SchedulerConfig) -> Result<Arc<dyn Scheduler>, Error> + Send + Sync>;

/// The scheduler implementations there are, by name.
pub struct SchedulerRegistry(BTreeMap<String, Factory>);

impl Default for SchedulerRegistry {
    /// `local` keeps its jobs in the store it is given, `memory` forgets them at the end, `off` runs nothing.
    fn default() -> Self {
        let mut implementations = Self(BTreeMap::new());
        implementations.register("local", |parts| Ok(Arc::new(LocalScheduler::new("local", parts)?)));
        implementations.register("memory", |parts| {
            let store = Arc::new(MemoryJobStore::new(Arc::clone(&parts.clock), true));
            Ok(Arc::new(LocalScheduler::new("memory", SchedulerConfig { store, ..parts })?))
        });
        implementations.register("off", |parts| Ok(Arc::new(OffScheduler::new(parts)?)));
        implementations
    }
}

impl SchedulerRegistry {
    /// Adds one, or replaces the one of this name.
    pub fn register(
        &mut self, name: &str,
        make: impl Fn(SchedulerConfig) -> Result<Arc<dyn Scheduler>, Error> + Send + Sync + 'static,
    ) {
        self.0.insert(name.to_owned(), Box::new(make));
    }

    /// The names there are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Makes the one of this name.
    ///
    /// # Errors
    /// [`Error::UnknownImplementation`], or whatever it fails with.
    pub fn make(&self, name: &str, parts: SchedulerConfig) -> Result<Arc<dyn Scheduler>, Error> {
        let make = self.0.get(name).ok_or_else(|| Error::UnknownImplementation {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })?;
        make(parts)
    }
}

/// Schedules a task by its defaults, but for what `change` says, in the form of [`Scheduler::alter`].
///
/// # Errors
/// As [`Scheduler::alter`] and [`Scheduler::schedule_interval`].
pub fn declare<'a>(
    scheduler: &'a dyn Scheduler, task: &dyn Task, change: &Map<String, Value>,
) -> Result<JobHandle<'a>, Error> {
    let Defaults { when, is_enabled, policies } = task.defaults();
    // Only how often matters here; the scheduler has the clock.
    let anchor = Timestamp::default();
    let trigger = match when {
        When::Every(every) => Trigger::interval(every.0, anchor)?,
        When::Cron(expression, zone) => Trigger::cron(&expression, &zone)?,
    };
    let options = ScheduleOptions { policies, is_disabled: !is_enabled, ..ScheduleOptions::default() };
    let definition = Definition::new(task, trigger, options)?.changed(task, change, anchor)?;
    let mut options = ScheduleOptions {
        policies: definition.policies,
        settings: definition.set,
        zone: None,
        is_disabled: !definition.is_enabled,
        is_configured: true,
    };
    match definition.trigger {
        Trigger::Interval { every, .. } => scheduler.schedule_interval(task.name(), every.0, options),
        Trigger::Once(at) => scheduler.schedule_once(task.name(), None, Some(at), options),
        Trigger::Cron(cron) => {
            options.zone = Some(cron.zone().to_owned());
            scheduler.schedule_cron(task.name(), cron.expression(), options)
        }
    }
}
