//! What the database does by itself: its tasks, a file each, and the scheduler that runs them.
//!
//! Every task decides from the database's state whether there is anything to do, works in bounded steps,
//! changes no answer, and may be killed anywhere. Requests come first: see `throttle`.

pub(crate) mod job;
pub(crate) mod job_store;
pub(crate) mod tasks;

use std::sync::Arc;

use ochre_scheduler::{
    Context, Failure, JobStore, Scheduler, SchedulerConfig, SystemClock, Task, TaskSettings, declare,
};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::collection::eviction::PageWatch;
use crate::error::Error;
use crate::inner::{Inner, WeakInner};

/// The scheduler of an open database; it stops when this is dropped.
pub(crate) struct Maintenance {
    inner: Arc<Inner>,
    scheduler: Arc<dyn Scheduler>,
    memory: Option<PageWatch>,
    is_stopped: Mutex<bool>,
}

impl Maintenance {
    /// Schedules every task as configured, those of extensions (by name) included.
    pub(crate) fn new(
        inner: &Arc<Inner>, store: Option<Arc<dyn JobStore>>, of_extensions: Vec<(&'static str, Arc<dyn Task>)>,
    ) -> Result<Self, Error> {
        let options = &inner.settings;
        let mut tasks = tasks(&WeakInner(Arc::downgrade(inner)));
        for (extension, task) in of_extensions {
            if tasks.iter().any(|other| other.name() == task.name()) {
                return Err(Error::invalid(format!(
                    "extension '{extension}': there is a job '{}' already",
                    task.name()
                )));
            }
            tasks.push(task);
        }
        let owner = format!("{} (pid {})", Uuid::new_v4(), std::process::id());
        let mut config = SchedulerConfig::new(tasks.clone(), owner);
        config.governor = Arc::clone(&inner.admission) as Arc<dyn ochre_scheduler::Governor>;
        config.clock = Arc::new(SystemClock);
        config.observer.clone_from(&options.job_observer);
        if let Some(store) = store {
            config.store = store;
        }
        // Without a thread of its own a database has nobody to run jobs.
        let name = if options.background { options.scheduler.as_str() } else { "off" };
        let refused = |section: &str, error: &dyn std::fmt::Display| Error::Options(format!("[{section}]: {error}"));
        let scheduler = options.schedulers.make(name, config).map_err(|error| refused("scheduler", &error))?;
        if let Some(unknown) = options.jobs.keys().find(|name| tasks.iter().all(|task| task.name() != name.as_str())) {
            // Says which name was meant.
            scheduler.job(unknown).map_err(|error| refused("jobs", &error))?;
        }
        let nothing = serde_json::Map::new();
        for task in &tasks {
            declare(&*scheduler, &**task, options.jobs.get(task.name()).unwrap_or(&nothing))
                .map_err(|error| refused(&format!("jobs.{}", task.name()), &error))?;
        }
        let memory = options.background.then(|| PageWatch::start(&inner.collections));
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
            self.inner.collections.dirty.stop();
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

fn tasks(inner: &WeakInner) -> Vec<Arc<dyn Task>> {
    vec![
        Arc::new(tasks::backup::Backup(inner.clone())),
        Arc::new(tasks::backup_incremental::BackupIncremental(inner.clone())),
        Arc::new(tasks::backup_retention::BackupRetention(inner.clone())),
        Arc::new(tasks::backup_verify::BackupVerify(inner.clone())),
        Arc::new(tasks::checkpoint::Checkpoint(inner.clone())),
        Arc::new(tasks::compact::Compact(inner.clone())),
        Arc::new(tasks::erase::Erase(inner.clone())),
        Arc::new(tasks::full_vacuum::FullVacuum(inner.clone())),
        Arc::new(tasks::history_prune::HistoryPrune(inner.clone())),
        Arc::new(tasks::index_rebuild::IndexRebuild(inner.clone())),
        Arc::new(tasks::index_sync::IndexSync(inner.clone())),
        Arc::new(tasks::check::Check(inner.clone())),
        Arc::new(tasks::log_prune::LogPrune::new(inner.clone())),
        Arc::new(tasks::memory::MemoryTask(inner.clone())),
        Arc::new(tasks::optimize::Optimize(inner.clone())),
        Arc::new(tasks::orphans::Orphans(inner.clone())),
        Arc::new(tasks::schema_audit::SchemaAudit(inner.clone())),
        Arc::new(tasks::sweep::Sweep(inner.clone())),
        Arc::new(tasks::vacuum::Vacuum(inner.clone())),
    ]
}

/// Does everything there is to do, now and here; with the jobs of extensions.
pub(crate) fn maintain_all(inner: &Arc<Inner>, of_extensions: &[Arc<dyn Task>]) -> Result<(), Error> {
    let weak = WeakInner(Arc::downgrade(inner));
    let run = |task: &dyn Task| {
        let nothing = serde_json::Map::new();
        let set = inner.settings.jobs.get(task.name());
        let set = set.and_then(|job| job.get("settings").or_else(|| job.get("knobs"))?.as_object());
        let settings = TaskSettings::new(task, set.unwrap_or(&nothing))?;
        match task.run(&Context::unhurried(&settings)) {
            Ok(_) => Ok(()),
            Err(Failure::Failed(reason)) => Err(Error::Maintenance { job: task.name().into(), reason }),
            Err(Failure::Stopped(_)) => Err(Error::Closed),
        }
    };
    inner.indexing.sync_everything()?;
    of_extensions.iter().try_for_each(|task| run(&**task))?;
    run(&tasks::index_rebuild::IndexRebuild(weak.clone()))?;
    run(&tasks::sweep::Sweep(weak.clone()))?;
    run(&tasks::log_prune::LogPrune::new(weak.clone()))?;
    run(&tasks::compact::Compact(weak.clone()))?;
    run(&tasks::vacuum::Vacuum(weak.clone()))?;
    run(&tasks::memory::MemoryTask(weak.clone()))?;
    run(&tasks::checkpoint::Checkpoint(weak.clone()))?;
    // Compaction moves vectors.
    inner.indexing.sync_everything()?;
    run(&tasks::orphans::Orphans(weak))
}
