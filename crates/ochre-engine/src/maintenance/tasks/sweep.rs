//! `sweep`: removes the records of deleted collections, and makes one of what only one fork still reads; a slice at a
//! time.

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
        "removes what is left of deleted collections, and merges what forks no longer share"
    }

    fn defaults(&self) -> Defaults {
        every(60, |_| {})
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let debt = self.0.open()?.store.debt()?;
        let deleted = debt.deleted_collections;
        let text = if deleted == 0 && debt.has_mergeable_layers {
            "records are left that forks no longer share".into()
        } else {
            format!("{deleted} deleted collections take space")
        };
        Ok(if deleted > 0 || debt.has_mergeable_layers { Readiness::Ready(text) } else { Readiness::Idle(text) })
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
        let mut merged = 0;
        loop {
            context.step(at("slices of records merged", merged))?;
            if !inner.store.upkeep(Upkeep::MergeLayers)? {
                break;
            }
            merged += 1;
        }
        Ok(format!(
            "removed {before} collections{}",
            if merged > 0 { ", and merged what forks no longer share" } else { "" }
        ))
    }
}
