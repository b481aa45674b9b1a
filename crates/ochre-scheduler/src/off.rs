//! A scheduler that lists jobs and runs none.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::definition::{Definition, Tasks, collect_tasks, find_task};
use crate::error::Error;
use crate::scheduler::{JobHandle, JobState, JobStatus, ScheduleOptions, Scheduler, SchedulerConfig};
use crate::store::Run;
use crate::task::Task;
use crate::time::Timestamp;
use crate::trigger::Trigger;

/// Lists jobs and runs none.
pub struct OffScheduler {
    parts: SchedulerConfig,
    tasks: Mutex<Tasks>,
    jobs: Mutex<BTreeMap<String, Definition>>,
}

impl OffScheduler {
    /// With the tasks of these parts.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if two have one name.
    pub fn new(parts: SchedulerConfig) -> Result<Self, Error> {
        Ok(Self { tasks: Mutex::new(collect_tasks(&parts.tasks)?), parts, jobs: Mutex::default() })
    }

    fn task(&self, name: &str) -> Result<Arc<dyn Task>, Error> {
        find_task(&self.tasks.lock(), name)
    }

    fn declare(&self, job: &str, trigger: Trigger, options: ScheduleOptions) -> Result<JobHandle<'_>, Error> {
        let definition = Definition::new(&*self.task(job)?, trigger, options)?;
        let mut jobs = self.jobs.lock();
        if jobs.contains_key(job) {
            return Err(Error::Duplicate(job.to_owned()));
        }
        jobs.insert(job.to_owned(), definition);
        Ok(JobHandle::new(self, job))
    }
}

impl Scheduler for OffScheduler {
    fn implementation(&self) -> &'static str {
        "off"
    }

    fn schedule_interval(
        &self, job: &str, interval: Duration, options: ScheduleOptions,
    ) -> Result<JobHandle<'_>, Error> {
        self.declare(job, Trigger::interval(interval, self.parts.clock.now())?, options)
    }

    fn schedule_cron(&self, job: &str, expression: &str, options: ScheduleOptions) -> Result<JobHandle<'_>, Error> {
        let trigger = Trigger::cron(expression, options.zone.as_deref().unwrap_or("UTC"))?;
        self.declare(job, trigger, options)
    }

    fn schedule_once(
        &self, job: &str, delay: Option<Duration>, at: Option<Timestamp>, options: ScheduleOptions,
    ) -> Result<JobHandle<'_>, Error> {
        self.declare(job, Trigger::once(self.parts.clock.now(), delay, at)?, options)
    }

    fn jobs(&self) -> Vec<JobStatus> {
        let jobs = self.jobs.lock();
        let tasks = self.tasks.lock();
        let status =
            |(name, definition): (&String, &Definition)| Some(definition.status(&**tasks.get(name)?, JobState::Off));
        jobs.iter().filter_map(status).collect()
    }

    fn job(&self, job: &str) -> Result<JobStatus, Error> {
        let task = self.task(job)?;
        let jobs = self.jobs.lock();
        let definition = jobs.get(job).ok_or_else(|| Error::UnknownJob { name: job.to_owned(), nearest: None })?;
        Ok(definition.status(&*task, JobState::Off))
    }

    fn next_times(&self, job: &str, _: usize) -> Result<Vec<Timestamp>, Error> {
        self.job(job).map(|_| Vec::new())
    }

    fn pause(&self, job: &str) -> Result<(), Error> {
        self.job(job).and(Err(Error::Off))
    }

    fn resume(&self, job: &str) -> Result<(), Error> {
        self.job(job).and(Err(Error::Off))
    }

    fn run_now(&self, job: &str) -> Result<Timestamp, Error> {
        self.job(job).and(Err(Error::Off))
    }

    fn cancel(&self, job: &str) -> Result<(), Error> {
        self.job(job).and(Err(Error::Off))
    }

    fn signal(&self, _: &str) {}

    fn history(&self, job: &str, limit: usize) -> Result<Vec<Run>, Error> {
        self.job(job)?;
        self.parts.store.history(job, limit)
    }

    fn alter(&self, job: &str, _: &Map<String, Value>) -> Result<JobStatus, Error> {
        self.job(job).and(Err(Error::Off))
    }

    fn reset(&self, job: &str) -> Result<JobStatus, Error> {
        self.job(job).and(Err(Error::Off))
    }

    fn add_task(&self, task: Arc<dyn Task>) -> Result<(), Error> {
        match self.tasks.lock().entry(task.name().to_owned()) {
            Entry::Occupied(_) => Err(Error::Duplicate(task.name().to_owned())),
            Entry::Vacant(vacant) => {
                vacant.insert(task);
                Ok(())
            }
        }
    }

    fn remove(&self, job: &str) -> Result<(), Error> {
        self.job(job)?;
        self.parts.store.remove(job)?;
        self.jobs.lock().remove(job);
        self.tasks.lock().remove(job);
        Ok(())
    }

    fn start(&self) -> Result<(), Error> {
        Ok(())
    }

    fn stop(&self) {}
}
