//! `log-prune`: forgets log entries that every consumer has passed, and expired idempotency keys.

use std::sync::atomic::{AtomicU64, Ordering};

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Setting, SettingValue, Task, TaskSettings};
use ochre_store::Upkeep;

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};

pub(crate) struct LogPrune {
    home: WeakInner,
    /// The database's position when it was last looked at.
    looked: AtomicU64,
}

impl LogPrune {
    pub(crate) fn new(home: WeakInner) -> Self {
        Self { home, looked: AtomicU64::new(u64::MAX) }
    }
}

impl Task for LogPrune {
    fn name(&self) -> &'static str {
        "log-prune"
    }

    fn description(&self) -> &'static str {
        "forgets log entries that no backup and no filter needs any more, and expired idempotency keys"
    }

    fn defaults(&self) -> Defaults {
        every(60, |_| {})
    }

    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            name: "entries",
            description: "run once there are this many to forget; any number while nothing is written",
            default: SettingValue::Count(500),
        }]
    }

    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.home.open()?;
        let (position, prunable) = (inner.store.position()?, inner.store.debt()?.prunable_entries);
        let is_idle = self.looked.swap(position, Ordering::Relaxed) == position;
        let text = format!("{prunable} entries are not needed any more");
        let is_due = prunable > settings.count("entries") || (is_idle && prunable > 0);
        Ok(if is_due { Readiness::Ready(text) } else { Readiness::Idle(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.home.open()?;
        let before = inner.store.debt()?.prunable_entries;
        let mut steps = 0;
        loop {
            context.step(at("slices forgotten", steps))?;
            if !inner.store.upkeep(Upkeep::PruneLog)? {
                break;
            }
            steps += 1;
        }
        let after = inner.store.debt()?.prunable_entries;
        Ok(format!("forgot {} entries", before.saturating_sub(after)))
    }
}
