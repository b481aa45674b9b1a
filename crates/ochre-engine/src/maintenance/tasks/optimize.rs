//! `optimize`: refreshes the statistics by which SQLite plans its queries.

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Task, TaskSettings};
use ochre_store::Upkeep;

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};

pub(crate) struct Optimize(pub(crate) WeakInner);

impl Task for Optimize {
    fn name(&self) -> &'static str {
        "optimize"
    }

    fn description(&self) -> &'static str {
        "refreshes the statistics by which SQLite plans its queries"
    }

    fn defaults(&self) -> Defaults {
        every(6 * 3600, |_| {})
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        // SQLite itself decides whether enough has changed.
        self.0.open().map(|_| Readiness::Ready("six hours have passed".into()))
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        context.step(at("analysing", 0))?;
        inner.store.upkeep(Upkeep::Optimize)?;
        Ok("statistics are fresh".into())
    }
}
