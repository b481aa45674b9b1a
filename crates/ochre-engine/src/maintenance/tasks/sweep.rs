//! `sweep`: removes the records of deleted collections, a slice at a time.

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Task, TaskSettings};
use ochre_store::Upkeep;

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};

pub(crate) struct Sweep(pub(crate) WeakInner);

impl Task for Sweep {
    fn name(&self) -> &'static str {
        crate::collection::dirty::SWEEP
    }

    fn description(&self) -> &'static str {
        "removes what is left of deleted collections"
    }

    fn defaults(&self) -> Defaults {
        every(60, |_| {})
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let deleted = self.0.open()?.store.debt()?.deleted_collections;
        let text = format!("{deleted} deleted collections take space");
        Ok(if deleted > 0 { Readiness::Ready(text) } else { Readiness::Idle(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let before = inner.store.debt()?.deleted_collections;
        let mut slices = 0;
        loop {
            context.step(at("slices of records removed", slices))?;
            if !inner.store.upkeep(Upkeep::SweepDeleted)? {
                break;
            }
            slices += 1;
        }
        Ok(format!("removed {before} collections"))
    }
}
