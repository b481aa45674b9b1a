//! `metadata-indexes`: builds declared indexes and keeps them up to date.

use ochre_scheduler::{Context, Defaults, Failure, Knob, KnobValue, Knobs, Look, Task};

use crate::inner::WeakInner;
use crate::maintenance::job::every;
use crate::metadata_index::registry::METADATA_INDEXES;

pub(crate) struct BuildIndexes(pub(crate) WeakInner);

impl Task for BuildIndexes {
    fn name(&self) -> &'static str {
        METADATA_INDEXES
    }

    fn about(&self) -> &'static str {
        "builds declared metadata indexes and keeps them up to date"
    }

    fn defaults(&self) -> Defaults {
        every(5, |policies| (policies.priority, policies.jitter) = (8, 0.0))
    }

    fn knobs(&self) -> &'static [Knob] {
        &[
            Knob {
                name: "create",
                about: "create the indexes that past filters would have profited from, and delete those of them that nothing uses",
                default: KnobValue::Flag(false),
            },
            Knob {
                name: "budget_bytes",
                about: "bytes on disk, by estimate, that indexes created so take at most",
                default: KnobValue::Count(256 << 20),
            },
        ]
    }

    fn locks(&self) -> &'static [&'static str] {
        &["metadata-indexes"]
    }

    fn look(&self, knobs: &Knobs) -> Result<Look, Failure> {
        let inner = self.0.open()?;
        if knobs.flag("create") {
            let (create, delete) = inner.metadata_indexes.automatic_indexes(knobs.count("budget_bytes"));
            if create.len() + delete.len() > 0 {
                let text = format!("{} indexes would pay, {} are of no use", create.len(), delete.len());
                return Ok(Look::Work(text));
            }
        }
        Ok(match inner.metadata_indexes.index_debt() {
            Some(debt) => Look::Work(debt),
            None => {
                inner.metadata_indexes.save_usage()?;
                Look::Nothing("every metadata index is up to date".into())
            }
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let (inner, knobs) = (self.0.open()?, context.knobs());
        let mut changed = String::new();
        if knobs.flag("create") {
            let (created, deleted) = inner.metadata_indexes.change_automatic_indexes(knobs.count("budget_bytes"));
            if created + deleted > 0 {
                changed = format!("created {created} and deleted {deleted} by itself, ");
            }
        }
        Ok(changed + &inner.metadata_indexes.work_on_indexes(false, context)?)
    }
}
