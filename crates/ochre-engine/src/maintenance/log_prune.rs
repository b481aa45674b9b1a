//! `log-prune`: forgets log entries that every consumer has passed, and expired idempotency keys.

use ochre_scheduler::{Context, Defaults, Failure, Knob, KnobValue, Knobs, Look, Task};
use ochre_store::Upkeep;

use super::{Home, at, every};

pub(super) struct LogPrune(pub(super) Home);

impl Task for LogPrune {
    fn name(&self) -> &'static str {
        "log-prune"
    }

    fn about(&self) -> &'static str {
        "forgets log entries that no backup and no filter needs any more, and expired idempotency keys"
    }

    fn defaults(&self) -> Defaults {
        every(60, |_| {})
    }

    fn knobs(&self) -> &'static [Knob] {
        &[Knob { name: "entries", about: "run once there are this many to forget", default: KnobValue::Count(500) }]
    }

    fn look(&self, knobs: &Knobs) -> Result<Look, Failure> {
        let prunable = self.0.open()?.store.statistics()?.prunable_entries;
        let text = format!("{prunable} entries are not needed any more");
        Ok(if prunable > knobs.count("entries") { Look::Work(text) } else { Look::Nothing(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let before = inner.store.statistics()?.prunable_entries;
        let mut steps = 0;
        loop {
            context.step(at("slices forgotten", steps))?;
            if !inner.store.upkeep(Upkeep::PruneLog)? {
                break;
            }
            steps += 1;
        }
        let after = inner.store.statistics()?.prunable_entries;
        Ok(format!("forgot {} entries", before.saturating_sub(after)))
    }
}
