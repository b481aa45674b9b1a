//! What the database does by itself: its tasks, a file each, and the scheduler that runs them.
//!
//! Every task decides from the database's state whether there is anything to do, works in bounded steps,
//! changes no answer, and may be killed anywhere. Requests come first: see `governor`.

mod backup;
mod backup_incremental;
mod backup_retention;
mod backup_target;
mod backup_verify;
mod check;
mod checkpoint;
mod compact;
mod erase;
mod full_vacuum;
mod history_prune;
mod index_rebuild;
mod index_sync;
mod log_prune;
mod memory;
pub(crate) mod metadata_indexes;
mod optimize;
mod orphans;
mod schema_audit;
mod sweep;
mod vacuum;

use std::sync::{Arc, Weak};
use std::time::Duration;

use ochre_scheduler::{
    Class, Context, Defaults, Failure, JobStore, Knobs, Parts, Policies, Progress, Scheduler, Stop, SystemClock, Task,
    When, declare,
};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::database::Inner;
use crate::error::Error;
use crate::extension::WeakDatabase;
use crate::residence::PageWatch;

/// How a task reaches the database, which may be closing.
#[derive(Clone)]
pub(crate) struct Home(pub(crate) Weak<Inner>);

impl Home {
    fn open(&self) -> Result<Arc<Inner>, Failure> {
        self.0.upgrade().ok_or(Failure::Stopped(Stop::Closing))
    }
}

/// The scheduler of an open database; it stops when this is dropped.
pub(crate) struct Maintenance {
    inner: Arc<Inner>,
    scheduler: Arc<dyn Scheduler>,
    memory: Option<PageWatch>,
    is_stopped: Mutex<bool>,
}

impl Maintenance {
    /// Schedules every task as configured.
    pub(crate) fn new(inner: &Arc<Inner>, store: Option<Arc<dyn JobStore>>) -> Result<Self, Error> {
        let options = &inner.options;
        let mut tasks = tasks(&Home(Arc::downgrade(inner)));
        for extension in &options.extensions {
            for task in extension.tasks(&WeakDatabase(Arc::downgrade(inner))) {
                if tasks.iter().any(|other| other.name() == task.name()) {
                    let text = format!("extension '{}': there is a job '{}' already", extension.name(), task.name());
                    return Err(Error::Invalid(text));
                }
                tasks.push(task);
            }
        }
        let owner = format!("{} (pid {})", Uuid::new_v4(), std::process::id());
        let mut parts = Parts::new(tasks.clone(), owner);
        parts.governor = Arc::clone(&inner.governor) as Arc<dyn ochre_scheduler::Governor>;
        parts.clock = Arc::new(SystemClock);
        parts.observer.clone_from(&options.job_observer);
        if let Some(store) = store {
            parts.store = store;
        }
        // Without a thread of its own a database has nobody to run jobs.
        let name = if options.background { options.scheduler.as_str() } else { "off" };
        let refused = |section: &str, error: &dyn std::fmt::Display| Error::Options(format!("[{section}]: {error}"));
        let scheduler = options.schedulers.make(name, parts).map_err(|error| refused("scheduler", &error))?;
        if let Some(unknown) = options.jobs.keys().find(|name| tasks.iter().all(|task| task.name() != name.as_str())) {
            // Says which name was meant.
            scheduler.job(unknown).map_err(|error| refused("jobs", &error))?;
        }
        let nothing = serde_json::Map::new();
        for task in &tasks {
            declare(&*scheduler, &**task, options.jobs.get(task.name()).unwrap_or(&nothing))
                .map_err(|error| refused(&format!("jobs.{}", task.name()), &error))?;
        }
        inner.signals.connect(Arc::downgrade(&scheduler));
        let memory = options.background.then(|| PageWatch::start(inner));
        Ok(Self { inner: Arc::clone(inner), scheduler, memory, is_stopped: Mutex::new(false) })
    }

    /// Starts, unless the options say otherwise.
    pub(crate) fn start(&self) -> Result<(), Error> {
        Ok(self.scheduler.start()?)
    }

    pub(crate) fn scheduler(&self) -> &Arc<dyn Scheduler> {
        &self.scheduler
    }

    /// Stops maintenance and waits until it has stopped.
    pub(crate) fn stop(&self) {
        let mut is_stopped = self.is_stopped.lock();
        if !std::mem::replace(&mut *is_stopped, true) {
            self.inner.signals.stop();
            self.scheduler.stop();
            self.memory.iter().for_each(PageWatch::stop);
        }
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.stop();
    }
}

fn tasks(home: &Home) -> Vec<Arc<dyn Task>> {
    vec![
        Arc::new(backup::Backup(home.clone())),
        Arc::new(backup_incremental::BackupIncremental(home.clone())),
        Arc::new(backup_retention::BackupRetention(home.clone())),
        Arc::new(backup_verify::BackupVerify(home.clone())),
        Arc::new(checkpoint::Checkpoint(home.clone())),
        Arc::new(compact::Compact(home.clone())),
        Arc::new(erase::Erase(home.clone())),
        Arc::new(full_vacuum::FullVacuum(home.clone())),
        Arc::new(history_prune::HistoryPrune(home.clone())),
        Arc::new(index_rebuild::IndexRebuild(home.clone())),
        Arc::new(index_sync::IndexSync(home.clone())),
        Arc::new(check::Check(home.clone())),
        Arc::new(log_prune::LogPrune::new(home.clone())),
        Arc::new(memory::MemoryTask(home.clone())),
        Arc::new(optimize::Optimize(home.clone())),
        Arc::new(orphans::Orphans(home.clone())),
        Arc::new(schema_audit::SchemaAudit(home.clone())),
        Arc::new(sweep::Sweep(home.clone())),
        Arc::new(vacuum::Vacuum(home.clone())),
    ]
}

/// Every so many seconds, on, with these policies.
fn every(seconds: u64, change: impl FnOnce(&mut Policies)) -> Defaults {
    let mut defaults = Defaults::every(Duration::from_secs(seconds));
    change(&mut defaults.policies);
    defaults
}

/// By a cron expression in UTC, with these policies.
fn cron(expression: &str, is_enabled: bool, change: impl FnOnce(&mut Policies)) -> Defaults {
    let mut policies = Policies { class: Class::Idle, ..Policies::default() };
    change(&mut policies);
    Defaults { when: When::Cron(expression.into(), "UTC".into()), is_enabled, policies }
}

/// Progress without a known end.
fn at(what: &str, done: usize) -> Progress {
    Progress { done: done as u64, total: None, what: what.to_owned() }
}

/// Progress by parts.
fn part(what: &str, done: usize, total: usize) -> Progress {
    Progress { done: done as u64, total: Some(total as u64), what: what.to_owned() }
}

impl Inner {
    /// Does everything there is to do, now and here.
    pub(crate) fn maintain_all(self: &Arc<Self>) -> Result<(), Error> {
        let home = Home(Arc::downgrade(self));
        let run = |task: &dyn Task| {
            let nothing = serde_json::Map::new();
            let set = self.options.jobs.get(task.name()).and_then(|job| job.get("knobs")?.as_object());
            let knobs = Knobs::new(task, set.unwrap_or(&nothing))?;
            match task.run(&Context::unhurried(&knobs)) {
                Ok(_) => Ok(()),
                Err(Failure::Failed(reason)) => Err(Error::Maintenance { job: task.name().into(), reason }),
                Err(Failure::Stopped(_)) => Err(Error::Closed),
            }
        };
        self.sync_everything()?;
        for task in self.options.extensions.iter().flat_map(|extension| extension.tasks(&WeakDatabase(home.0.clone())))
        {
            run(&*task)?;
        }
        run(&index_rebuild::IndexRebuild(home.clone()))?;
        run(&sweep::Sweep(home.clone()))?;
        run(&log_prune::LogPrune::new(home.clone()))?;
        run(&compact::Compact(home.clone()))?;
        run(&vacuum::Vacuum(home.clone()))?;
        run(&memory::MemoryTask(home.clone()))?;
        run(&checkpoint::Checkpoint(home.clone()))?;
        // Compaction moves vectors.
        self.sync_everything()?;
        run(&orphans::Orphans(home))
    }
}
