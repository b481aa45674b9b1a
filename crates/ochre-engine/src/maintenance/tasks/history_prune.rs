//! `history-prune`: forgets runs of jobs that are older than their policies keep.

use ochre_scheduler::{Clock, Context, Defaults, Failure, Readiness, SystemClock, Task, TaskSettings};

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};

/// Runs forgotten in one step.
const STEP: usize = 500;

pub(crate) struct HistoryPrune(pub(crate) WeakInner);

impl Task for HistoryPrune {
    fn name(&self) -> &'static str {
        "history-prune"
    }

    fn description(&self) -> &'static str {
        "forgets runs of jobs that are older, or more, than their policies keep"
    }

    fn defaults(&self) -> Defaults {
        every(3600, |_| {})
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        Ok(match inner.jobs() {
            Some(_) => Readiness::Ready("an hour has passed".into()),
            None => Readiness::Idle("runs are not kept".into()),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let Some(store) = inner.jobs() else { return Ok("runs are not kept".into()) };
        let mut forgotten = 0;
        for schedule in store.load()? {
            let policies = schedule.policies;
            let before = SystemClock.now() - policies.history_age.0;
            loop {
                context.step(at("runs forgotten", forgotten))?;
                let step = store.prune(&schedule.name, before, policies.history_max as usize, STEP)?;
                forgotten += step;
                if step < STEP {
                    break;
                }
            }
        }
        Ok(format!("forgot {forgotten} runs"))
    }
}
