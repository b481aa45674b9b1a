//! The scheduler of one process: a thread that looks what is due, and one for each run.
//!
//! Invariants:
//! - Advancing a schedule and beginning its run is one transaction of the store; so is ending a run.
//! - The lock on the jobs is never held while a task looks or runs.
//! - A scheduled time ends up in exactly one place of the job's tally.
//!
//! A look that finds nothing is saved with the next change of its schedule or at the end, not at once: to
//! lose it costs one look after the next start, to save it would cost a sync of the disk every time.

mod due;
mod run;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde_json::{Map, Value};

use crate::context::Control;
use crate::definition::{Definition, Tasks, collect_tasks, find_task};
use crate::error::Error;
use crate::scheduler::{JobHandle, JobState, JobStatus, ScheduleOptions, Scheduler, SchedulerConfig};
use crate::store::{Counters, Kind, Pending, Run, Schedule};
use crate::task::{Stop, Task, TaskSettings};
use crate::time::Timestamp;
use crate::trigger::Trigger;

/// The scheduler looks around at least this often, so that it notices when the clock jumps.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// As long as something is due and waits for others.
const HELD_SLEEP_MAX: Duration = Duration::from_secs(1);
/// A clock that goes back further than this starts schedules over from where it is now.
const BACKWARD_MAX: Duration = Duration::from_secs(3 * 3600);
/// How long a run is held without a step before another process may take it over.
const LEASE: Duration = Duration::from_secs(30);
/// How often, and how many times, a job that is to be removed is looked at whether its runs have ended.
const REMOVE_LOOK_EVERY: Duration = Duration::from_millis(20);
const REMOVE_LOOKS: usize = 500;
/// A job has at most so many times to run once, beside its schedule.
const ONCE_MAX: usize = 100;
/// Next times shown of a job.
const SHOWN: usize = 5;

/// The scheduler of one process.
pub struct LocalScheduler {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    name: &'static str,
    parts: SchedulerConfig,
    tasks: Mutex<Tasks>,
    state: Mutex<State>,
    /// What wakes the scheduler has a lock of its own, taken last and for a moment: whoever signals may hold
    /// any lock, the job store's among them.
    wake: Mutex<Wake>,
    woken: Condvar,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Wake {
    /// Something happened since the last look around.
    is_woken: bool,
    signalled: BTreeSet<String>,
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<String, Job>,
    /// What the clock showed last.
    seen: Option<Timestamp>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    task: Arc<dyn Task>,
    /// As it was declared: by the configuration, or by whoever made it.
    origin: Definition,
    schedule: Schedule,
    settings: TaskSettings,
    running: Vec<Active>,
    /// Runs that ended while the store took nothing: it still has them as running.
    unrecorded: VecDeque<Run>,
    is_signalled: bool,
    /// The schedule differs from the stored one.
    is_unsaved: bool,
    /// A look is going on.
    is_checking: bool,
    /// When it was last looked at although it would have had to wait.
    last_check_while_held: Option<Timestamp>,
}

struct Active {
    run: Run,
    control: Arc<Control>,
}

impl LocalScheduler {
    /// A scheduler under a configured name.
    ///
    /// # Errors
    /// [`Error::Duplicate`] if two tasks have one name.
    pub fn new(name: &'static str, parts: SchedulerConfig) -> Result<Self, Error> {
        let inner = Inner {
            name,
            tasks: Mutex::new(collect_tasks(&parts.tasks)?),
            parts,
            state: Mutex::default(),
            wake: Mutex::default(),
            woken: Condvar::new(),
            stopping: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner), thread: Mutex::default() })
    }

    /// Looks once what is due and runs it here and now; when to look again. For a scheduler that was not
    /// started: tests, and hosts that have their own clock.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn poll(&self) -> Result<Timestamp, Error> {
        self.inner.take_over()?;
        while let Some(run) = self.inner.next_run()? {
            run.execute(&self.inner);
        }
        Ok(self.inner.next_wake())
    }

    fn declare(&self, job: &str, trigger: Trigger, options: ScheduleOptions) -> Result<JobHandle<'_>, Error> {
        self.inner.declare(job, trigger, options)?;
        Ok(JobHandle::new(self, job))
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn task(&self, name: &str) -> Result<Arc<dyn Task>, Error> {
        find_task(&self.tasks.lock(), name)
    }

    /// How a job stands.
    fn status(&self, state: &State, job: &Job) -> JobStatus {
        let held = state.held(job, self.now(), self.parts.running_max);
        let is_due = held.is_some() && job.running.is_empty();
        let status = job.status();
        JobStatus { state: if is_due { JobState::Held } else { status.state }, held, ..status }
    }

    fn wake(&self) {
        self.wake.lock().is_woken = true;
        self.woken.notify_all();
    }

    /// Adds a job: as the store has it, unless it was declared differently then.
    fn declare(&self, name: &str, trigger: Trigger, options: ScheduleOptions) -> Result<(), Error> {
        let task = self.task(name)?;
        let is_configured = options.is_configured;
        let definition = Definition::new(&*task, trigger, options)?;
        let origin = definition.clone();
        let declared = definition.declared();
        let mut state = self.state.lock();
        if state.jobs.contains_key(name) {
            return Err(Error::Duplicate(name.to_owned()));
        }
        let stored = self.parts.store.load()?.into_iter().find(|schedule| schedule.name == name);
        let stored_version = stored.as_ref().map_or(0, |stored| stored.version);
        // The configuration may change in other respects after its time to run once has come.
        let same_once = stored.as_ref().filter(|stored| stored.trigger == definition.trigger).map(|stored| stored.next);
        // A change made by hand lasts until the configuration says something new.
        let kept = stored.filter(|stored| stored.declared == declared).and_then(|stored| {
            let settings = TaskSettings::new(&*task, &stored.settings).ok()?;
            Some((stored, settings))
        });
        let is_new = kept.is_none();
        let now = self.now();
        let next = match definition.trigger {
            // A time that is right now still counts.
            Trigger::Once(at) if is_new && at < now => match same_once {
                Some(next) => next,
                None if is_configured && !self.parts.store.is_persistent() => {
                    tracing::warn!(job = name, %at, "the time to run once has passed; this scheduler does not remember whether it ran");
                    None
                }
                None => return Err(passed(name, at, now)),
            },
            Trigger::Once(at) => same_once.unwrap_or(Some(at)),
            _ => definition.trigger.next(now),
        };
        let (schedule, settings) = kept.unwrap_or_else(|| {
            let schedule = Schedule {
                name: name.to_owned(),
                trigger: definition.trigger,
                policies: definition.policies,
                settings: definition.set,
                declared,
                is_enabled: definition.is_enabled,
                is_paused: false,
                is_broken: false,
                next,
                pending: Vec::new(),
                last_scheduled_at: None,
                last_run: None,
                last_check: None,
                counters: Counters::default(),
                failures: 0,
                version: stored_version,
            };
            (schedule, definition.settings)
        });
        let mut job = Job {
            task,
            origin,
            schedule,
            settings,
            running: Vec::new(),
            unrecorded: VecDeque::new(),
            is_signalled: false,
            is_unsaved: is_new,
            is_checking: false,
            last_check_while_held: None,
        };
        if is_new {
            self.save(&mut job)?;
        }
        state.jobs.insert(name.to_owned(), job);
        self.wake();
        Ok(())
    }

    /// Saves a changed schedule; if someone else changed it meanwhile, theirs is taken over instead.
    fn save(&self, job: &mut Job) -> Result<bool, Error> {
        if self.parts.store.save(&job.schedule)? {
            job.schedule.version += 1;
            job.is_unsaved = false;
            return Ok(true);
        }
        self.reload(job)?;
        Ok(false)
    }

    fn reload(&self, job: &mut Job) -> Result<(), Error> {
        let stored = self.parts.store.load()?.into_iter().find(|stored| stored.name == job.schedule.name);
        if let Some(stored) = stored {
            job.settings = TaskSettings::new(&*job.task, &stored.settings).unwrap_or_else(|_| job.settings.clone());
            job.schedule = stored;
            job.is_unsaved = false;
        }
        Ok(())
    }

    /// Changes a job and saves it, again and again while someone else is faster.
    fn change<T>(&self, name: &str, mut change: impl FnMut(&mut Job) -> Result<T, Error>) -> Result<T, Error> {
        self.task(name)?;
        let mut state = self.state.lock();
        let missing = || Error::UnknownJob { name: name.to_owned(), nearest: None };
        let job = state.jobs.get_mut(name).ok_or_else(missing)?;
        let changed = loop {
            let (before, settings) = (job.schedule.clone(), job.settings.clone());
            let changed = change(job).and_then(|changed| Ok(self.save(job)?.then_some(changed)));
            match changed {
                Ok(Some(changed)) => break changed,
                Ok(None) => {}
                Err(error) => {
                    (job.schedule, job.settings) = (before, settings);
                    return Err(error);
                }
            }
        };
        self.wake();
        Ok(changed)
    }

    fn read<T>(&self, name: &str, read: impl FnOnce(&Job) -> T) -> Result<T, Error> {
        self.task(name)?;
        let state = self.state.lock();
        let missing = || Error::UnknownJob { name: name.to_owned(), nearest: None };
        state.jobs.get(name).map(read).ok_or_else(missing)
    }

    fn loop_until_stopped(self: &Arc<Self>) {
        while !self.is_stopping() {
            let polled = self.take_over().and_then(|()| {
                while let Some(run) = self.next_run()? {
                    run.spawn(self);
                }
                Ok(())
            });
            if let Err(error) = polled {
                tracing::warn!(%error, "the scheduler cannot use its store; it tries again");
                std::thread::sleep(Duration::from_secs(1));
            }
            self.warn_of_stuck();
            // A run that begins to wait for room makes place for another without a word.
            let longest = if self.is_anything_held() { HELD_SLEEP_MAX } else { SLEEP_MAX };
            let sleep = self.next_wake().since(self.now()).clamp(Duration::from_millis(1), longest);
            self.state.lock().threads.retain(|thread| !thread.is_finished());
            let mut wake = self.wake.lock();
            if !std::mem::take(&mut wake.is_woken) && !self.is_stopping() {
                self.woken.wait_for(&mut wake, sleep);
                wake.is_woken = false;
            }
        }
    }

    fn warn_of_stuck(&self) {
        for job in self.state.lock().jobs.values_mut() {
            let (name, limit) = (job.schedule.name.clone(), job.schedule.policies.stuck_after.0);
            for active in job.running.iter().filter(|active| active.control.silence() > limit) {
                tracing::warn!(job = name, "a run takes no step; it is told to stop");
                active.control.stop(Stop::TimedOut);
            }
        }
    }

    /// Saves what only memory has.
    fn save_all(&self) {
        for job in self.state.lock().jobs.values_mut().filter(|job| job.is_unsaved) {
            if let Err(error) = self.save(job) {
                tracing::warn!(%error, job = job.schedule.name, "could not save a schedule");
            }
        }
    }
}

impl Job {
    fn is_on(&self) -> bool {
        self.schedule.is_enabled && !self.schedule.is_paused && !self.schedule.is_broken
    }

    fn state(&self) -> JobState {
        let stuck_after = self.schedule.policies.stuck_after.0;
        if self.running.iter().any(|active| active.control.silence() > stuck_after) {
            return JobState::Stuck;
        }
        match self.running.last() {
            Some(active) if active.control.is_waiting() => JobState::Waiting,
            Some(_) => JobState::Running,
            None if !self.schedule.is_enabled => JobState::Off,
            None if self.schedule.is_paused => JobState::Paused,
            None if self.schedule.is_broken => JobState::Broken,
            None if self.schedule.next.is_none() && self.schedule.pending.is_empty() => JobState::Finished,
            None => JobState::Scheduled,
        }
    }

    fn definition(&self) -> Definition {
        Definition {
            trigger: self.schedule.trigger.clone(),
            policies: self.schedule.policies.clone(),
            set: self.schedule.settings.clone(),
            settings: self.settings.clone(),
            is_enabled: self.schedule.is_enabled,
        }
    }

    fn status(&self) -> JobStatus {
        let running = self.running.last();
        let progress = running.and_then(|active| active.control.progress());
        JobStatus {
            next_runs: if self.is_on() { self.next_times(SHOWN) } else { Vec::new() },
            running: running.map(|active| Run { progress: progress.clone(), ..active.run.clone() }),
            last_run: self.schedule.last_run.clone(),
            last_check: self.schedule.last_check.clone(),
            pending: self.schedule.pending.clone(),
            progress,
            counters: self.schedule.counters,
            failures: self.schedule.failures,
            ..self.definition().status(&*self.task, self.state())
        }
    }

    fn next_times(&self, count: usize) -> Vec<Timestamp> {
        let trigger = &self.schedule.trigger;
        let mut times: Vec<Timestamp> =
            std::iter::successors(self.schedule.next, |time| trigger.next(*time)).take(count).collect();
        let once = self.schedule.pending.iter().filter(|pending| pending.kind == Kind::Once);
        times.extend(once.map(|pending| pending.not_before));
        times.sort_unstable();
        times.dedup();
        times.truncate(count);
        times
    }

    /// Begins again from now: what passed meanwhile was missed.
    fn restart(&mut self, now: Timestamp) {
        let schedule = &mut self.schedule;
        if let Some(due) = schedule.next.filter(|due| *due <= now) {
            schedule.counters.missed += 1 + schedule.trigger.count(due, now);
            schedule.last_scheduled_at = Some(schedule.trigger.latest(due, now));
            schedule.next = schedule.trigger.next(now);
        }
        let before = schedule.pending.len();
        schedule
            .pending
            .retain(|pending| pending.kind != Kind::Once || pending.attempt > 1 || pending.scheduled_at > now);
        schedule.counters.missed += (before - schedule.pending.len()) as u64;
    }
}

/// A time that is no time to come.
fn passed(job: &str, at: Timestamp, now: Timestamp) -> Error {
    let reason = format!("job '{job}': {at} has passed, it is {now}: give a time to come, or a delay");
    Error::Invalid { what: "schedule", reason }
}

/// Adds a time to run once, beside the schedule.
fn add_once(schedule: &mut Schedule, at: Timestamp) -> Result<(), Error> {
    let mut own = schedule.pending.iter().filter(|pending| pending.kind == Kind::Once);
    if own.clone().count() >= ONCE_MAX {
        let reason = format!("job '{}' has {ONCE_MAX} times to run once already, the limit", schedule.name);
        return Err(Error::Invalid { what: "schedule", reason });
    }
    if own.all(|pending| pending.scheduled_at != at) {
        schedule.pending.push(Pending { scheduled_at: at, kind: Kind::Once, attempt: 1, not_before: at });
    }
    Ok(())
}

impl Scheduler for LocalScheduler {
    fn implementation(&self) -> &'static str {
        self.inner.name
    }

    fn schedule_interval(
        &self, job: &str, interval: Duration, options: ScheduleOptions,
    ) -> Result<JobHandle<'_>, Error> {
        self.declare(job, Trigger::interval(interval, self.inner.now())?, options)
    }

    fn schedule_cron(&self, job: &str, expression: &str, options: ScheduleOptions) -> Result<JobHandle<'_>, Error> {
        let trigger = Trigger::cron(expression, options.zone.as_deref().unwrap_or("UTC"))?;
        self.declare(job, trigger, options)
    }

    fn schedule_once(
        &self, job: &str, delay: Option<Duration>, at: Option<Timestamp>, options: ScheduleOptions,
    ) -> Result<JobHandle<'_>, Error> {
        self.declare(job, Trigger::once(self.inner.now(), delay, at)?, options)
    }

    fn jobs(&self) -> Vec<JobStatus> {
        let state = self.inner.state.lock();
        state.jobs.values().map(|job| self.inner.status(&state, job)).collect()
    }

    fn job(&self, job: &str) -> Result<JobStatus, Error> {
        self.inner.task(job)?;
        let state = self.inner.state.lock();
        let missing = || Error::UnknownJob { name: job.to_owned(), nearest: None };
        Ok(self.inner.status(&state, state.jobs.get(job).ok_or_else(missing)?))
    }

    fn next_times(&self, job: &str, count: usize) -> Result<Vec<Timestamp>, Error> {
        self.inner.read(job, |job| job.next_times(count))
    }

    fn pause(&self, job: &str) -> Result<(), Error> {
        self.inner.change(job, |job| {
            job.schedule.is_paused = true;
            Ok(())
        })
    }

    fn resume(&self, job: &str) -> Result<(), Error> {
        let now = self.inner.now();
        self.inner.change(job, |job| {
            (job.schedule.is_paused, job.schedule.is_broken, job.schedule.failures) = (false, false, 0);
            job.restart(now);
            Ok(())
        })
    }

    fn run_now(&self, job: &str) -> Result<Timestamp, Error> {
        let now = self.inner.now();
        self.inner.change(job, |job| {
            let pending = &mut job.schedule.pending;
            if let Some(manual) = pending.iter().find(|pending| pending.kind == Kind::Manual) {
                return Ok(manual.scheduled_at);
            }
            pending.push(Pending { scheduled_at: now, kind: Kind::Manual, attempt: 1, not_before: now });
            Ok(now)
        })
    }

    fn cancel(&self, job: &str) -> Result<(), Error> {
        self.inner.read(job, |job| job.running.iter().for_each(|active| active.control.stop(Stop::Cancelled)))
    }

    fn signal(&self, job: &str) {
        self.inner.wake.lock().signalled.insert(job.to_owned());
        self.inner.wake();
    }

    fn history(&self, job: &str, limit: usize) -> Result<Vec<Run>, Error> {
        self.inner.task(job)?;
        self.inner.parts.store.history(job, limit)
    }

    fn alter(&self, job: &str, change: &Map<String, Value>) -> Result<JobStatus, Error> {
        let now = self.inner.now();
        self.inner.change(job, |job| {
            let mut changed = job.definition().changed(&*job.task, change, now)?;
            let schedule = &mut job.schedule;
            if change.get("once").is_some_and(Value::is_null) {
                schedule.pending.retain(|pending| pending.kind != Kind::Once);
            }
            if let Trigger::Once(at) = changed.trigger
                && changed.trigger != schedule.trigger
            {
                if at < now {
                    return Err(passed(&schedule.name, at, now));
                }
                if !matches!(schedule.trigger, Trigger::Once(_)) {
                    changed.trigger = schedule.trigger.clone();
                    add_once(schedule, at)?;
                }
            }
            if changed.trigger != schedule.trigger {
                schedule.next = changed.trigger.next(now);
            } else if changed.is_enabled && !schedule.is_enabled {
                job.restart(now);
            }
            let schedule = &mut job.schedule;
            schedule.trigger = changed.trigger;
            schedule.policies = changed.policies;
            schedule.settings = changed.set;
            schedule.is_enabled = changed.is_enabled;
            job.settings = changed.settings;
            Ok(())
        })?;
        self.job(job)
    }

    fn reset(&self, job: &str) -> Result<JobStatus, Error> {
        let now = self.inner.now();
        self.inner.change(job, |job| {
            let (origin, schedule) = (job.origin.clone(), &mut job.schedule);
            schedule.next = origin.trigger.next(now);
            schedule.pending.retain(|pending| pending.kind != Kind::Once);
            (schedule.trigger, schedule.policies, schedule.settings) = (origin.trigger, origin.policies, origin.set);
            (schedule.is_enabled, job.settings) = (origin.is_enabled, origin.settings);
            Ok(())
        })?;
        self.job(job)
    }

    fn add_task(&self, task: Arc<dyn Task>) -> Result<(), Error> {
        match self.inner.tasks.lock().entry(task.name().to_owned()) {
            Entry::Occupied(_) => Err(Error::Duplicate(task.name().to_owned())),
            Entry::Vacant(vacant) => {
                vacant.insert(task);
                Ok(())
            }
        }
    }

    fn remove(&self, job: &str) -> Result<(), Error> {
        self.inner.task(job)?;
        // A run that goes on works on what it has locked.
        for _ in 0..REMOVE_LOOKS {
            let mut state = self.inner.state.lock();
            let running = state.jobs.get(job).map_or(&[][..], |job| &job.running);
            if running.is_empty() {
                self.inner.parts.store.remove(job)?;
                state.jobs.remove(job);
                self.inner.tasks.lock().remove(job);
                return Ok(());
            }
            running.iter().for_each(|active| active.control.stop(Stop::Cancelled));
            drop(state);
            std::thread::sleep(REMOVE_LOOK_EVERY);
        }
        let reason = format!("job '{job}' is running and was told to stop; remove it once it has");
        Err(Error::Invalid { what: "removal", reason })
    }

    fn start(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        let spawned =
            std::thread::Builder::new().name("ochre-scheduler".into()).spawn(move || inner.loop_until_stopped());
        let thread = spawned.map_err(|error| Error::Store(format!("its thread cannot be started: {error}")))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    fn stop(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        for job in self.inner.state.lock().jobs.values() {
            job.running.iter().for_each(|active| active.control.stop(Stop::Closing));
        }
        self.inner.wake();
        if let Some(thread) = self.thread.lock().take() {
            // Panics there were logged by the panic hook; stopping goes on.
            let _ = thread.join();
        }
        let threads = std::mem::take(&mut self.inner.state.lock().threads);
        for thread in threads {
            let _ = thread.join();
        }
        self.inner.save_all();
    }
}

impl Drop for LocalScheduler {
    fn drop(&mut self) {
        if self.thread.lock().is_some() {
            self.stop();
        }
    }
}
