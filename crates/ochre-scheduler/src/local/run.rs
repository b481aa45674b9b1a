//! One run: on a thread of its own, or here and now.

use std::sync::Arc;

use super::due::after_run;
use super::{Active, Inner, Job, LEASE};
use crate::context::{Context, Control};
use crate::error::Error;
use crate::event::JobEvent;
use crate::policy::Class;
use crate::store::{Finished, Run, Schedule, Status};
use crate::task::{Failure, Stop, Task, TaskSettings};
use crate::time::Timestamp;
use crate::trigger::Interval;

/// Ends of runs that are remembered for each job while the store takes none.
const UNRECORDED_MAX: usize = 16;

/// A run that has begun as far as the store is concerned.
pub(super) struct Ready {
    run: Run,
    task: Arc<dyn Task>,
    settings: TaskSettings,
    class: Class,
    timeout: Interval,
    max_defer: Interval,
    control: Arc<Control>,
    /// It failed before it could do anything.
    failure: Option<Failure>,
}

impl Ready {
    /// Enters a run into its job.
    pub(super) fn new(job: &mut Job, run: Run, class: Class, failure: Option<Failure>) -> Self {
        let control = Arc::new(Control::new());
        job.running.push(Active { run: run.clone(), control: Arc::clone(&control) });
        let policies = &job.schedule.policies;
        Self {
            run,
            task: Arc::clone(&job.task),
            settings: job.settings.clone(),
            class,
            timeout: policies.timeout,
            max_defer: policies.max_defer,
            control,
            failure,
        }
    }

    /// Runs it on a thread of its own.
    pub(super) fn spawn(self, inner: &Arc<Inner>) {
        let scheduler = Arc::clone(inner);
        let name = format!("ochre-{}", self.run.job);
        let fence = self.run.fence;
        let ended =
            Run { status: Status::Failed, message: "its thread could not be started".into(), ..self.run.clone() };
        let spawned = std::thread::Builder::new().name(name).spawn(move || {
            scheduler.parts.governor.begin(self.class);
            self.execute(&scheduler);
            scheduler.wake();
        });
        match spawned {
            Ok(thread) => inner.state.lock().threads.push(thread),
            Err(error) => {
                tracing::error!(%error, fence, "a job's thread could not be started");
                inner.end(ended);
            }
        }
    }

    /// Runs it here and now.
    pub(super) fn execute(self, inner: &Inner) {
        let Self { run, task, settings, class, timeout, max_defer, control, failure } = self;
        let deadline = run.started + timeout.0;
        let renewed = parking_lot::Mutex::new(inner.now());
        let renew_lease = |control: &Control| inner.renew_lease(&run, control, deadline, &mut renewed.lock());
        let context =
            Context::new(&settings, class, max_defer.0, &*inner.parts.governor, Arc::clone(&control), &renew_lease);
        let result = match failure {
            Some(failure) => Err(failure),
            None => std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task.run(&context)))
                .unwrap_or_else(|panic| Err(Failure::Failed(format!("it panicked: {}", panic_text(&*panic))))),
        };
        let (status, message) = match result {
            Ok(report) => (Status::Succeeded, report),
            Err(Failure::Stopped(Stop::Cancelled)) => (Status::Cancelled, "cancelled".to_owned()),
            Err(Failure::Stopped(Stop::TimedOut)) => (Status::TimedOut, format!("took longer than {timeout}")),
            Err(Failure::Stopped(Stop::Closing)) => (Status::Interrupted, "goes on after the next start".to_owned()),
            Err(Failure::Stopped(Stop::Escalated)) => (Status::Escalated, "goes on as an urgent run".to_owned()),
            Err(Failure::Stopped(Stop::LeaseLost)) => (Status::Lost, "another process took it over".to_owned()),
            Err(Failure::Failed(reason)) => (Status::Failed, reason),
        };
        if status == Status::Failed || status == Status::TimedOut {
            tracing::warn!(job = run.job, attempt = run.attempt, reason = message, "a job failed");
        }
        tracing::debug!(job = run.job, ?status, message, "a job ended");
        inner.end(Run { status, message, progress: control.progress(), ..run });
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}

impl Inner {
    /// Renews the lease of a run now and then; why it has to stop, if it has to.
    fn renew_lease(&self, run: &Run, control: &Control, deadline: Timestamp, renewed: &mut Timestamp) -> Option<Stop> {
        let now = self.now();
        if now > deadline {
            return Some(Stop::TimedOut);
        }
        if now.since(*renewed) < LEASE / 3 {
            return None;
        }
        *renewed = now;
        match self.parts.store.renew_lease(&Run { progress: control.progress(), ..run.clone() }, LEASE) {
            Ok(true) => None,
            Ok(false) => Some(Stop::LeaseLost),
            Err(error) => {
                tracing::warn!(%error, job = run.job, "could not renew a lease; the run goes on");
                None
            }
        }
    }

    /// Ends a run.
    fn end(&self, run: Run) {
        let now = self.now();
        let ended = Run { ended: Some(now), ..run };
        let observed = ended.clone();
        let mut state = self.state.lock();
        let Some(job) = state.jobs.get_mut(&ended.job) else { return };
        job.running.retain(|active| active.run.fence != ended.fence);
        let before = job.schedule.clone();
        if let Err(error) = self.record_end(job, &ended, now) {
            // Until that works the store has it as running: after a restart it would count as lost, and be tried again.
            tracing::warn!(%error, job = ended.job, "could not record the end of a run; it is recorded later");
            job.schedule = after_run(&job.schedule, &ended, now);
            job.is_unsaved = true;
            job.unrecorded.push_back(ended);
            if job.unrecorded.len() > UNRECORDED_MAX {
                job.unrecorded.pop_front();
            }
        }
        let (event, observer) = (JobEvent::of(&observed, &before, &job.schedule), self.parts.observer.clone());
        drop(state);
        if let (Some(event), Some(observer)) = (event, observer) {
            observer(&event);
        }
    }

    /// Records the ends of runs that the store did not take before.
    pub(super) fn record_late(&self) -> Result<(), Error> {
        let mut state = self.state.lock();
        for job in state.jobs.values_mut() {
            while let Some(ended) = job.unrecorded.front().cloned() {
                let mut schedule = job.schedule.clone();
                loop {
                    match self.parts.store.finish(&schedule, &ended)? {
                        Finished::Done => {
                            job.schedule = Schedule { version: schedule.version + 1, ..schedule };
                            job.is_unsaved = false;
                        }
                        Finished::Changed => {
                            self.reload(job)?;
                            schedule = after_run(&job.schedule, &ended, self.now());
                            continue;
                        }
                        Finished::NotHeld => {}
                    }
                    break;
                }
                job.unrecorded.pop_front();
            }
        }
        Ok(())
    }

    fn record_end(&self, job: &mut Job, ended: &Run, now: Timestamp) -> Result<(), Error> {
        loop {
            let schedule = after_run(&job.schedule, ended, now);
            if schedule.is_broken && !job.schedule.is_broken {
                tracing::error!(
                    job = ended.job,
                    failures = schedule.failures,
                    "a job is broken; resume it once the cause is gone"
                );
            }
            match self.parts.store.finish(&schedule, ended)? {
                Finished::Done => {
                    job.schedule = Schedule { version: schedule.version + 1, ..schedule };
                    job.is_unsaved = false;
                    return Ok(());
                }
                Finished::Changed => self.reload(job)?,
                Finished::NotHeld => return Ok(()),
            }
        }
    }
}
