//! Which job runs next, and what its policies say about it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::{BACKWARD_MAX, Inner, Job, LEASE, SLEEP_MAX, State};
use crate::context::Control;
use crate::error::Error;
use crate::local::run::Ready;
use crate::policy::{Class, Misfire, Overlap, Policies};
use crate::scheduler::Held;
use crate::store::{Finished, Kind, LastCheck, Pending, Run, Schedule, Status};
use crate::task::{Readiness, Stop};
use crate::time::Timestamp;
use crate::window::Window;

/// How often a job is looked at that would have to wait for others to end, in case it became urgent.
const HELD_LOOK_EVERY: Duration = Duration::from_secs(5);

/// A scheduled time whose turn it is.
#[derive(Clone, Debug)]
struct Due {
    scheduled_at: Timestamp,
    kind: Kind,
    attempt: u32,
    coalesced: u64,
    /// It stands in the schedule's list of pending runs.
    is_pending: bool,
}

impl Due {
    /// Whether it is a scheduled time that ends up in the tally.
    fn is_counted(&self) -> bool {
        matches!(self.kind, Kind::Scheduled | Kind::Once) && self.attempt == 1
    }
}

impl Inner {
    /// Begins the next run that is due, if there is one and there is room for it.
    pub(super) fn next_run(&self) -> Result<Option<Ready>, Error> {
        let now = self.now();
        let names = {
            let mut state = self.state.lock();
            state.notice_jump(now);
            for name in std::mem::take(&mut self.wake.lock().signalled) {
                if let Some(job) = state.jobs.get_mut(&name) {
                    job.is_signalled = true;
                }
            }
            let mut names: Vec<(i32, Timestamp, String)> = Vec::new();
            for (name, job) in &state.jobs {
                if let Some(since) = job.due_since(now).filter(|since| *since <= now) {
                    names.push((job.schedule.policies.priority.saturating_neg(), since, name.clone()));
                }
            }
            // Ageing: who waits for a long time comes before who is more important.
            names.sort_by_key(|(priority, since, _)| {
                let aged = i32::try_from(now.since(*since).as_secs() / 60).unwrap_or(i32::MAX);
                (priority.saturating_sub(aged), *since)
            });
            names
        };
        for (_, _, name) in names {
            if self.is_stopping() {
                return Ok(None);
            }
            if let Some(ready) = self.consider(&name, now)? {
                return Ok(Some(ready));
            }
        }
        Ok(None)
    }

    fn consider(&self, name: &str, now: Timestamp) -> Result<Option<Ready>, Error> {
        let (due, task, settings, version, is_held) = {
            let mut state = self.state.lock();
            let taken = state.locks_taken();
            let is_full = state.is_full(self.parts.running_max);
            let Some(job) = state.jobs.get_mut(name) else { return Ok(None) };
            let Some(due) = job.take_due(now) else { return Ok(None) };
            let is_free = job.task.locks().iter().all(|lock| !taken.contains(lock));
            let is_held = is_full && due.kind != Kind::Manual;
            // What is urgent is looked for all the same, now and then.
            let may_look =
                !is_held || job.last_check_while_held.is_none_or(|looked| now.since(looked) >= HELD_LOOK_EVERY);
            if !is_free || !may_look {
                return Ok(None);
            }
            job.last_check_while_held = is_held.then_some(now);
            job.is_checking = true;
            (due, std::sync::Arc::clone(&job.task), job.settings.clone(), job.schedule.version, is_held)
        };
        let check = if due.kind == Kind::Manual {
            Ok(Readiness::Ready("asked for".into()))
        } else {
            let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task.check(&settings)));
            looked.unwrap_or_else(|_| Err(crate::task::Failure::Failed("its look panicked".into())))
        };
        let mut state = self.state.lock();
        let Some(job) = state.jobs.get_mut(name) else { return Ok(None) };
        job.is_checking = false;
        if job.schedule.version != version || !job.is_on() && due.kind != Kind::Manual {
            // It was changed meanwhile: it is looked at again.
            self.wake();
            return Ok(None);
        }
        job.is_signalled &= due.kind != Kind::Signalled;
        let (message, is_urgent, failure) = match check {
            Ok(Readiness::Idle(reason)) => {
                tracing::debug!(job = name, reason, "a job has nothing to do");
                job.note_nothing(&due, now, reason);
                return Ok(None);
            }
            Ok(Readiness::Ready(_)) | Err(_) if is_held => {
                job.is_signalled |= due.kind == Kind::Signalled;
                return Ok(None);
            }
            Ok(Readiness::Ready(reason)) => (reason, false, None),
            Ok(Readiness::Urgent(reason)) => (reason, true, None),
            Err(failure) => ("could not tell whether there is anything to do".to_owned(), false, Some(failure)),
        };
        if !is_urgent && due.kind != Kind::Manual && !is_allowed(&job.schedule.policies, now) {
            tracing::debug!(job = name, reason = message, "a job waits for its windows to open");
            return Ok(None);
        }
        tracing::debug!(job = name, reason = message, urgent = is_urgent, attempt = due.attempt, "a job begins");
        let schedule = advanced(&job.schedule, &due);
        let Some(run) = self.parts.store.begin(&schedule, &self.new_run(name, &due, message, now), LEASE)? else {
            self.reload(job)?;
            self.wake();
            return Ok(None);
        };
        job.schedule = Schedule { version: schedule.version + 1, ..schedule };
        job.is_unsaved = false;
        // Urgent, so that it comes to its end: an urgent run is not raised any more.
        let was_raised = job.schedule.last_run.as_ref().is_some_and(|run| run.status == Status::Escalated);
        let is_urgent = is_urgent || due.attempt > 1 && was_raised;
        let class = if is_urgent { Class::Urgent } else { job.schedule.policies.class };
        Ok(Some(Ready::new(job, run, class, failure)))
    }

    fn new_run(&self, name: &str, due: &Due, message: String, now: Timestamp) -> Run {
        Run {
            job: name.to_owned(),
            scheduled_at: due.scheduled_at,
            kind: due.kind,
            attempt: due.attempt,
            owner: self.parts.owner.clone(),
            fence: 0,
            lease_until: now,
            started: now,
            ended: None,
            status: Status::Running,
            message,
            progress: None,
            coalesced: due.coalesced,
        }
    }

    /// Ends runs that nobody holds any more, and queues them to be tried again.
    pub(super) fn take_over(&self) -> Result<(), Error> {
        self.record_late()?;
        for lost in self.parts.store.abandoned(&self.parts.owner)? {
            let mut state = self.state.lock();
            let Some(job) = state.jobs.get_mut(&lost.job) else { continue };
            let mut own = job.running.iter().map(|active| &active.run).chain(&job.unrecorded);
            if own.any(|run| run.fence == lost.fence) {
                continue;
            }
            let ended = Run {
                status: Status::Lost,
                ended: Some(self.now()),
                message: format!("the process that ran it ({}) is gone", lost.owner),
                ..lost
            };
            loop {
                let schedule = after_run(&job.schedule, &ended, self.now());
                match self.parts.store.finish(&schedule, &ended)? {
                    Finished::Done => {
                        job.schedule = Schedule { version: schedule.version + 1, ..schedule };
                        job.is_unsaved = false;
                        break;
                    }
                    Finished::Changed => self.reload(job)?,
                    Finished::NotHeld => break,
                }
            }
        }
        Ok(())
    }

    /// Whether something is due and waits for runs to end.
    pub(super) fn is_anything_held(&self) -> bool {
        let now = self.now();
        self.state.lock().jobs.values().any(|job| job.due_since(now).is_some_and(|since| since <= now))
    }

    /// When something may be due next.
    pub(super) fn next_wake(&self) -> Timestamp {
        let now = self.now();
        let state = self.state.lock();
        let soonest = state.jobs.values().filter_map(|job| job.due_since(now)).filter(|time| *time > now).min();
        // What is due already waits for a run to end, a window to open or the like.
        soonest.unwrap_or(now + SLEEP_MAX).min(now + SLEEP_MAX)
    }
}

impl State {
    /// A clock that was set back far starts schedules over; one set forward is a matter of misfire policies.
    fn notice_jump(&mut self, now: Timestamp) {
        let seen = self.seen.replace(now);
        let recorded = self.jobs.values().filter_map(|job| job.schedule.last_scheduled_at).max();
        let Some(latest) = seen.max(recorded).filter(|latest| latest.since(now) > BACKWARD_MAX) else { return };
        tracing::warn!(%now, was = %latest, "the clock was set back; schedules start over from now");
        for job in self.jobs.values_mut() {
            if job.schedule.next.is_some() {
                job.schedule.next = job.schedule.trigger.next(now);
            }
            job.schedule.last_scheduled_at = job.schedule.last_scheduled_at.map(|scheduled_at| scheduled_at.min(now));
            let again = job.schedule.pending.iter_mut().filter(|pending| pending.kind != Kind::Once);
            again.for_each(|pending| pending.not_before = pending.not_before.min(now));
            job.is_unsaved = true;
        }
    }

    /// What keeps a job from running that is due, or its run from going on.
    pub(super) fn held(&self, job: &Job, now: Timestamp, running_max: usize) -> Option<Held> {
        let soon = |reason: String| Some(Held { reason, until: None });
        if let Some(active) = job.running.last() {
            return match active.control.is_waiting() {
                true => soon("requests come first: it goes on when they leave room".into()),
                false => None,
            };
        }
        let since = job.due_since(now).filter(|since| *since <= now)?;
        let policies = &job.schedule.policies;
        // A run by hand waits for nothing but what it works on.
        let is_by_hand =
            job.schedule.pending.iter().any(|pending| pending.kind == Kind::Manual && pending.not_before <= now);
        if !is_allowed(policies, now) && !is_by_hand {
            let quiet = policies.quiet_hours.iter().find(|window| window.contains(now));
            let reason = match quiet {
                Some(window) => format!("due since {since}, within its quiet hours {window}"),
                None => format!("due since {since}, outside its windows {}", list(&policies.windows)),
            };
            return Some(Held { reason, until: next_allowed(policies, now) });
        }
        let is_mine = |other: &&Job| other.task.locks().iter().any(|lock| job.task.locks().contains(lock));
        let running = || self.jobs.values().filter(|other| !other.running.is_empty());
        if let Some(other) = running().find(is_mine) {
            return soon(format!(
                "due since {since}, waits for job '{}', which works on the same",
                other.schedule.name
            ));
        }
        if self.is_full(running_max) && !is_by_hand {
            let names: Vec<&str> = running().map(|other| &*other.schedule.name).collect();
            return soon(format!(
                "due since {since}, waits for one of {} to end: {running_max} run at once",
                names.join(", ")
            ));
        }
        None
    }

    fn locks_taken(&self) -> BTreeSet<&'static str> {
        let running = self.jobs.values().filter(|job| !job.running.is_empty());
        running.flat_map(|job| job.task.locks().iter().copied()).collect()
    }

    fn is_full(&self, running_max: usize) -> bool {
        let counts = |job: &Job| {
            let stuck_after = job.schedule.policies.stuck_after.0;
            // Those that wait for room keep nobody from running.
            let is_working = |control: &Control| !control.is_waiting() && control.silence() <= stuck_after;
            job.running.iter().filter(|active| is_working(&active.control)).count()
        };
        self.jobs.values().map(counts).sum::<usize>() >= running_max
    }
}

impl Job {
    /// Since when something is due, or when it will be.
    fn due_since(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_checking {
            return None;
        }
        let pending = self.schedule.pending.iter().filter(|pending| self.is_on() || pending.kind == Kind::Manual);
        let pending = pending.map(|pending| pending.not_before).min();
        if !self.is_on() {
            return pending;
        }
        let scheduled = self.schedule.next.map(|next| next + jitter(&self.schedule, next));
        let signalled = self.is_signalled.then_some(now);
        [pending, scheduled, signalled].into_iter().flatten().min()
    }

    /// The scheduled time whose turn it is, after misfire and overlap policies.
    fn take_due(&mut self, now: Timestamp) -> Option<Due> {
        let may_overlap = self.running.is_empty() || self.schedule.policies.overlap == Overlap::Allow;
        let is_on = self.is_on();
        self.skip_missed_once(now);
        let ready = |pending: &&Pending| pending.not_before <= now && (is_on || pending.kind == Kind::Manual);
        if may_overlap && let Some(pending) = self.schedule.pending.iter().filter(ready).min_by_key(|p| p.not_before) {
            let Pending { scheduled_at, kind, attempt, .. } = *pending;
            return Some(Due { scheduled_at, kind, attempt, coalesced: 0, is_pending: true });
        }
        if !is_on {
            return None;
        }
        if let Some(due) = self.take_scheduled(now) {
            if may_overlap {
                return Some(due);
            }
            // Times that were missed are run one after another, not at once.
            let is_caught_up = self.running.iter().any(|active| active.run.started >= due.scheduled_at);
            if self.schedule.policies.misfire != Misfire::All || !is_caught_up {
                self.overlapped(&due, now);
            }
        }
        (self.is_signalled && may_overlap).then_some(Due {
            scheduled_at: now,
            kind: Kind::Signalled,
            attempt: 1,
            coalesced: 0,
            is_pending: false,
        })
    }

    /// Drops times to run once that passed too long ago, if that is the policy.
    fn skip_missed_once(&mut self, now: Timestamp) {
        let schedule = &mut self.schedule;
        if schedule.policies.misfire != Misfire::Skip {
            return;
        }
        let is_late = |pending: &Pending| {
            pending.kind == Kind::Once
                && pending.attempt == 1
                && now.since(pending.scheduled_at) > schedule.policies.grace.0
        };
        let before = schedule.pending.len();
        schedule.pending.retain(|pending| !is_late(pending));
        let missed = before - schedule.pending.len();
        schedule.counters.missed += missed as u64;
        self.is_unsaved |= missed > 0;
    }

    fn take_scheduled(&mut self, now: Timestamp) -> Option<Due> {
        let schedule = &mut self.schedule;
        let next = schedule.next.filter(|next| *next + jitter(schedule, *next) <= now)?;
        let latest = schedule.trigger.latest(next, now);
        let before = schedule.trigger.count(next, latest);
        let due = |scheduled_at, coalesced| Due {
            scheduled_at,
            kind: Kind::Scheduled,
            attempt: 1,
            coalesced,
            is_pending: false,
        };
        match schedule.policies.misfire {
            Misfire::Latest => Some(due(latest, before)),
            Misfire::Skip => {
                let is_late = now.since(latest) > schedule.policies.grace.0 + jitter(schedule, latest);
                schedule.counters.missed += before + u64::from(is_late);
                if before > 0 || is_late {
                    schedule.next = if is_late { schedule.trigger.next(now) } else { Some(latest) };
                    schedule.last_scheduled_at = Some(latest).filter(|_| is_late).or(schedule.last_scheduled_at);
                    self.is_unsaved = true;
                }
                (!is_late).then(|| due(latest, 0))
            }
            Misfire::All => {
                let surplus = (before + 1).saturating_sub(u64::from(schedule.policies.catch_up.max(1)));
                let mut scheduled_at = next;
                if surplus > 0 {
                    scheduled_at = latest;
                    for _ in 1..schedule.policies.catch_up.max(1) {
                        scheduled_at = schedule.trigger.latest(next, scheduled_at - Duration::from_micros(1));
                    }
                    schedule.counters.missed += schedule.trigger.count(next, scheduled_at);
                    schedule.next = Some(scheduled_at);
                    self.is_unsaved = true;
                }
                Some(due(scheduled_at, 0))
            }
        }
    }

    /// A time came while the job still runs.
    fn overlapped(&mut self, due: &Due, now: Timestamp) {
        let overlap = self.schedule.policies.overlap;
        let is_queued = self.schedule.pending.iter().any(|pending| pending.kind == Kind::Scheduled);
        let mut schedule = moved_on(&self.schedule, due);
        if overlap == Overlap::Skip || is_queued {
            schedule.counters.overlapped += 1 + due.coalesced;
        } else {
            schedule.counters.coalesced += due.coalesced;
            let pending = Pending { scheduled_at: due.scheduled_at, kind: due.kind, attempt: 1, not_before: now };
            schedule.pending.push(pending);
        }
        self.schedule = schedule;
        self.is_unsaved = true;
        if overlap == Overlap::CancelRunning {
            self.running.iter().for_each(|active| active.control.stop(Stop::Cancelled));
        }
    }

    fn note_nothing(&mut self, due: &Due, now: Timestamp, reason: String) {
        let mut schedule = moved_on(&self.schedule, due);
        if due.is_counted() {
            schedule.counters.nothing_to_do += 1;
            schedule.counters.coalesced += due.coalesced;
        }
        schedule.last_check = Some(LastCheck { at: now, reason });
        // What was to be tried again is no longer needed.
        schedule.failures = if due.attempt > 1 { 0 } else { schedule.failures };
        self.schedule = schedule;
        self.is_unsaved = true;
    }
}

/// The schedule after this time was dealt with.
fn moved_on(schedule: &Schedule, due: &Due) -> Schedule {
    let mut schedule = schedule.clone();
    if due.is_pending {
        let is_it = |pending: &Pending| {
            pending.scheduled_at == due.scheduled_at && pending.kind == due.kind && pending.attempt == due.attempt
        };
        schedule.pending.retain(|pending| !is_it(pending));
    } else if due.kind == Kind::Scheduled {
        schedule.next = schedule.trigger.next(due.scheduled_at);
        schedule.last_scheduled_at = Some(due.scheduled_at);
    }
    schedule
}

/// The schedule after a run was begun for this time.
fn advanced(schedule: &Schedule, due: &Due) -> Schedule {
    let mut schedule = moved_on(schedule, due);
    if due.is_counted() {
        schedule.counters.ran += 1;
        schedule.counters.coalesced += due.coalesced;
    }
    schedule
}

/// The schedule after a run ended.
pub(super) fn after_run(schedule: &Schedule, run: &Run, now: Timestamp) -> Schedule {
    let mut schedule = schedule.clone();
    schedule.last_run = Some(run.clone());
    let mut again = |not_before| {
        let pending = Pending { scheduled_at: run.scheduled_at, kind: run.kind, attempt: run.attempt + 1, not_before };
        schedule.pending.push(pending);
    };
    if matches!(run.status, Status::Interrupted | Status::Escalated) {
        again(now);
    } else if run.status.is_failure() {
        // Whoever asked for a run by hand sees that it failed, and asks again.
        if run.attempt <= schedule.policies.retries && run.kind != Kind::Manual {
            again(now + schedule.policies.retry_after(run.attempt));
        }
        schedule.failures += 1;
        schedule.is_broken |= schedule.policies.broken_after > 0 && schedule.failures >= schedule.policies.broken_after;
    } else if run.status == Status::Succeeded {
        schedule.failures = 0;
    }
    schedule
}

/// How much later than its scheduled time a run begins: the same for the same time of the same job.
fn jitter(schedule: &Schedule, scheduled_at: Timestamp) -> Duration {
    let Some(every) = schedule.trigger.every() else { return Duration::ZERO };
    let mut hasher = DefaultHasher::new();
    (&schedule.name, scheduled_at).hash(&mut hasher);
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    let share = (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64;
    // Never as much as the interval: then it would be the next time.
    every.mul_f64(share * schedule.policies.jitter.clamp(0.0, 0.99))
}

fn is_allowed(policies: &Policies, now: Timestamp) -> bool {
    let is_open = policies.windows.is_empty() || policies.windows.iter().any(|window| window.contains(now));
    is_open && !policies.quiet_hours.iter().any(|window| window.contains(now))
}

/// When runs may begin again, within about a week.
fn next_allowed(policies: &Policies, now: Timestamp) -> Option<Timestamp> {
    let opened = policies.windows.iter().flat_map(|window| window.beginnings(now));
    let over = policies.quiet_hours.iter().flat_map(|window| window.ends(now));
    opened.chain(over).filter(|time| is_allowed(policies, *time)).min()
}

fn list(windows: &[Window]) -> String {
    windows.iter().map(Window::to_string).collect::<Vec<_>>().join(", ")
}
