//! A scheduler on a virtual clock, with a task that does what the test says, and a store that may die.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ochre_scheduler::{
    Clock, Context, Defaults, Error, Failure, Finished, Interval, JobStore, LocalScheduler, MemoryJobStore, Policies,
    Progress, Readiness, Run, Schedule, ScheduleOptions, Scheduler, SchedulerConfig, Setting, SettingValue, Task,
    TaskSettings, Timestamp, VirtualClock, When,
};
use parking_lot::Mutex;

/// What a task does when it is its turn.
pub(crate) type Script = dyn Fn(&Context<'_>) -> Result<String, Failure> + Send + Sync;

/// A task that does what the test says.
pub(crate) struct Scripted {
    pub(crate) name: &'static str,
    pub(crate) look: Mutex<Readiness>,
    pub(crate) script: Box<Script>,
    pub(crate) ran: AtomicU64,
    pub(crate) locks: &'static [&'static str],
}

impl Scripted {
    pub(crate) fn new(
        name: &'static str, script: impl Fn(&Context<'_>) -> Result<String, Failure> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (look, script) = (Mutex::new(Readiness::Ready("there is work".into())), Box::new(script));
        Arc::new(Self { name, look, script, ran: AtomicU64::new(0), locks: &[] })
    }

    pub(crate) fn idle(name: &'static str) -> Arc<Self> {
        Self::new(name, |_| Ok("done".into()))
    }

    pub(crate) fn ran(&self) -> u64 {
        self.ran.load(Ordering::SeqCst)
    }
}

impl Task for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        "does what the test says"
    }

    fn defaults(&self) -> Defaults {
        let when = When::Every(Interval(Duration::from_secs(60)));
        Defaults { when, is_enabled: true, policies: Policies::default() }
    }

    fn settings(&self) -> &'static [Setting] {
        &[
            Setting { name: "dead_share", description: "a share", default: SettingValue::Share(0.3) },
            Setting { name: "step_bytes", description: "bytes a step", default: SettingValue::Count(1024) },
            Setting { name: "keep", description: "how long", default: SettingValue::Seconds(60) },
        ]
    }

    fn positive_settings(&self) -> &'static [&'static str] {
        &["step_bytes"]
    }

    fn locks(&self) -> &'static [&'static str] {
        self.locks
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        Ok(self.look.lock().clone())
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        context.step(Progress::default())?;
        self.ran.fetch_add(1, Ordering::SeqCst);
        (self.script)(context)
    }
}

/// A store whose process dies at a certain call: that call fails, done or not, and so does every later one.
pub(crate) struct Mortal {
    store: Arc<dyn JobStore>,
    /// Calls left to live; negative once dead.
    left: AtomicI64,
    /// Whether the last call still has its effect.
    is_done: bool,
}

impl Mortal {
    pub(crate) fn new(store: Arc<dyn JobStore>, calls: i64, is_done: bool) -> Arc<Self> {
        Arc::new(Self { store, left: AtomicI64::new(calls), is_done })
    }

    fn call<T>(&self, call: impl FnOnce(&dyn JobStore) -> Result<T, Error>) -> Result<T, Error> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1.. => call(&*self.store),
            0 if self.is_done => call(&*self.store).and(Err(Error::Store("died after it".into()))),
            _ => Err(Error::Store("dead".into())),
        }
    }

    /// Fails every call from now on, until [`Mortal::revive`].
    pub(crate) fn die(&self) {
        self.left.store(-1, Ordering::SeqCst);
    }

    pub(crate) fn revive(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}

impl JobStore for Mortal {
    fn is_exclusive(&self) -> bool {
        self.store.is_exclusive()
    }

    fn load(&self) -> Result<Vec<Schedule>, Error> {
        self.call(|store| store.load())
    }

    fn save(&self, schedule: &Schedule) -> Result<bool, Error> {
        self.call(|store| store.save(schedule))
    }

    fn begin(&self, schedule: &Schedule, run: &Run, lease: Duration) -> Result<Option<Run>, Error> {
        self.call(|store| store.begin(schedule, run, lease))
    }

    fn renew_lease(&self, run: &Run, lease: Duration) -> Result<bool, Error> {
        self.call(|store| store.renew_lease(run, lease))
    }

    fn finish(&self, schedule: &Schedule, run: &Run) -> Result<Finished, Error> {
        self.call(|store| store.finish(schedule, run))
    }

    fn abandoned(&self, owner: &str) -> Result<Vec<Run>, Error> {
        self.call(|store| store.abandoned(owner))
    }

    fn history(&self, job: &str, limit: usize) -> Result<Vec<Run>, Error> {
        self.store.history(job, limit)
    }

    fn prune(&self, job: &str, before: Timestamp, max: usize, step: usize) -> Result<usize, Error> {
        self.call(|store| store.prune(job, before, max, step))
    }

    fn remove(&self, job: &str) -> Result<(), Error> {
        self.call(|store| store.remove(job))
    }
}

/// A clock, and a store that outlives schedulers.
pub(crate) struct World {
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) store: Arc<MemoryJobStore>,
    owners: AtomicU64,
}

impl World {
    pub(crate) fn new(is_exclusive: bool) -> Self {
        let clock = Arc::new(VirtualClock::new(at("2026-11-21T00:00:00Z")));
        let store = Arc::new(MemoryJobStore::new(Arc::clone(&clock) as Arc<dyn Clock>, is_exclusive));
        Self { clock, store, owners: AtomicU64::new(0) }
    }

    /// A scheduler over these tasks, on the shared store.
    pub(crate) fn scheduler(&self, tasks: &[Arc<Scripted>]) -> LocalScheduler {
        self.scheduler_on(tasks, Arc::clone(&self.store) as Arc<dyn JobStore>)
    }

    pub(crate) fn scheduler_on(&self, tasks: &[Arc<Scripted>], store: Arc<dyn JobStore>) -> LocalScheduler {
        let tasks = tasks.iter().map(|task| Arc::clone(task) as Arc<dyn Task>).collect();
        let owner = format!("node-{}", self.owners.fetch_add(1, Ordering::SeqCst));
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        LocalScheduler::new("local", SchedulerConfig { store, clock, ..SchedulerConfig::new(tasks, owner) })
            .expect("tasks have own names")
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets time pass and looks what is due, as the scheduler's own thread would.
    pub(crate) fn pass(&self, scheduler: &LocalScheduler, seconds: u64) {
        let end = self.now() + Duration::from_secs(seconds);
        loop {
            let wake = scheduler.poll().expect("the store works");
            if wake >= end {
                break;
            }
            self.clock.set(wake.max(self.now()));
        }
        self.clock.set(end);
        scheduler.poll().expect("the store works");
    }

    pub(crate) fn runs(&self, job: &str) -> Vec<Run> {
        let mut runs = self.store.history(job, usize::MAX).expect("in memory");
        runs.reverse();
        runs
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect(text)
}

/// Options without jitter, with these changes.
pub(crate) fn options(change: impl FnOnce(&mut Policies)) -> ScheduleOptions {
    let mut policies = Policies { jitter: 0.0, ..Policies::default() };
    change(&mut policies);
    ScheduleOptions { policies, ..ScheduleOptions::default() }
}

/// Every minute, with these policies.
pub(crate) fn every_minute(scheduler: &LocalScheduler, job: &str, change: impl FnOnce(&mut Policies)) {
    scheduler.schedule_interval(job, Duration::from_secs(60), options(change)).expect("schedules");
}
