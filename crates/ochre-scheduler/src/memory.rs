//! A job store in memory: what several schedulers share in tests, and what a database without a disk uses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::error::Error;
use crate::store::{Finished, JobStore, Kind, Run, Schedule, Status};
use crate::time::Timestamp;

/// A job store in memory.
pub struct MemoryJobStore {
    clock: Arc<dyn Clock>,
    is_exclusive: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    schedules: BTreeMap<String, Schedule>,
    runs: BTreeMap<(String, Timestamp, Kind, u32), Run>,
    last_fence: u64,
}

impl MemoryJobStore {
    /// An empty one, with the clock that leases are measured by.
    pub fn new(clock: Arc<dyn Clock>, is_exclusive: bool) -> Self {
        Self { clock, is_exclusive, state: Mutex::default() }
    }
}

fn key(run: &Run) -> (String, Timestamp, Kind, u32) {
    (run.job.clone(), run.scheduled_at, run.kind, run.attempt)
}

impl State {
    fn save(&mut self, schedule: &Schedule) -> bool {
        let stored = self.schedules.get(&schedule.name).map_or(0, |stored| stored.version);
        if stored != schedule.version {
            return false;
        }
        let next = Schedule { version: stored + 1, ..schedule.clone() };
        self.schedules.insert(schedule.name.clone(), next);
        true
    }

    fn held(&mut self, run: &Run) -> Option<&mut Run> {
        self.runs.get_mut(&key(run)).filter(|held| held.fence == run.fence && held.status == Status::Running)
    }
}

impl JobStore for MemoryJobStore {
    fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    fn is_persistent(&self) -> bool {
        false
    }

    fn load(&self) -> Result<Vec<Schedule>, Error> {
        Ok(self.state.lock().schedules.values().cloned().collect())
    }

    fn save(&self, schedule: &Schedule) -> Result<bool, Error> {
        Ok(self.state.lock().save(schedule))
    }

    fn begin(&self, schedule: &Schedule, run: &Run, lease: Duration) -> Result<Option<Run>, Error> {
        let mut state = self.state.lock();
        if state.runs.contains_key(&key(run)) || !state.save(schedule) {
            return Ok(None);
        }
        state.last_fence += 1;
        let run = Run { fence: state.last_fence, lease_until: self.clock.now() + lease, ..run.clone() };
        state.runs.insert(key(&run), run.clone());
        Ok(Some(run))
    }

    fn renew_lease(&self, run: &Run, lease: Duration) -> Result<bool, Error> {
        let lease_until = self.clock.now() + lease;
        let mut state = self.state.lock();
        let Some(held) = state.held(run) else { return Ok(false) };
        held.lease_until = lease_until;
        held.progress.clone_from(&run.progress);
        Ok(true)
    }

    fn finish(&self, schedule: &Schedule, run: &Run) -> Result<Finished, Error> {
        let mut state = self.state.lock();
        if state.held(run).is_none() {
            return Ok(Finished::NotHeld);
        }
        if !state.save(schedule) {
            return Ok(Finished::Changed);
        }
        state.runs.insert(key(run), run.clone());
        Ok(Finished::Done)
    }

    fn abandoned(&self, owner: &str) -> Result<Vec<Run>, Error> {
        let now = self.clock.now();
        let is_abandoned = |run: &&Run| {
            run.status == Status::Running && (run.lease_until < now || self.is_exclusive && run.owner != owner)
        };
        Ok(self.state.lock().runs.values().filter(is_abandoned).cloned().collect())
    }

    fn history(&self, job: &str, limit: usize) -> Result<Vec<Run>, Error> {
        let state = self.state.lock();
        let mut runs: Vec<Run> = state.runs.values().filter(|run| run.job == job).cloned().collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.fence));
        runs.truncate(limit);
        Ok(runs)
    }

    fn prune(&self, job: &str, before: Timestamp, max: usize, step: usize) -> Result<usize, Error> {
        let mut state = self.state.lock();
        let mut ended: Vec<&Run> = state.runs.values().filter(|run| run.job == job && run.ended.is_some()).collect();
        ended.sort_by_key(|run| std::cmp::Reverse(run.fence));
        let last_failure = ended.iter().find(|run| run.status.is_failure()).map(|run| run.fence);
        let is_old = |(index, run): &(usize, &&Run)| {
            *index > 0 && Some(run.fence) != last_failure && (*index >= max || run.ended.is_some_and(|at| at < before))
        };
        let gone: Vec<_> = ended.iter().enumerate().filter(is_old).map(|(_, run)| key(run)).take(step).collect();
        gone.iter().for_each(|key| drop(state.runs.remove(key)));
        Ok(gone.len())
    }

    fn remove(&self, job: &str) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.schedules.remove(job);
        state.runs.retain(|_, run| run.job != job);
        Ok(())
    }
}
