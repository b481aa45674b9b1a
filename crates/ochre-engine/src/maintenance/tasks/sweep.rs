//! `sweep`: removes the records of deleted collections, a slice at a time.

use ochre_scheduler::{Context, Defaults, Failure, Knobs, Look, Task};
use ochre_store::Upkeep;

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};

pub(crate) struct Sweep(pub(crate) WeakInner);

impl Task for Sweep {
    fn name(&self) -> &'static str {
        crate::collection::dirty::SWEEP
    }

    fn about(&self) -> &'static str {
        "removes what is left of deleted collections"
    }

    fn defaults(&self) -> Defaults {
        every(60, |_| {})
    }

    fn look(&self, _: &Knobs) -> Result<Look, Failure> {
        let deleted = self.0.open()?.store.debt()?.deleted_collections;
        let text = format!("{deleted} deleted collections take space");
        Ok(if deleted > 0 { Look::Work(text) } else { Look::Nothing(text) })
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
