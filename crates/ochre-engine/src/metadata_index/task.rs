//! `metadata-indexes`: builds declared indexes and keeps them up to date.

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Setting, SettingValue, Task, TaskSettings};

use crate::inner::WeakInner;
use crate::maintenance::job::every;
use crate::metadata_index::registry::METADATA_INDEXES;

pub(crate) struct BuildIndexes(pub(crate) WeakInner);

impl Task for BuildIndexes {
    fn name(&self) -> &'static str {
        METADATA_INDEXES
    }

    fn description(&self) -> &'static str {
        "builds declared metadata indexes and keeps them up to date"
    }

    fn defaults(&self) -> Defaults {
        every(5, |policies| (policies.priority, policies.jitter) = (8, 0.0))
    }

    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "create",
                description: "create the indexes that past filters would have profited from, and delete those of them that nothing uses",
                default: SettingValue::Flag(false),
            },
            Setting {
                name: "budget_bytes",
                description: "bytes on disk, by estimate, that indexes created so take at most",
                default: SettingValue::Count(256 << 20),
            },
        ]
    }

    fn locks(&self) -> &'static [&'static str] {
        &["metadata-indexes"]
    }

    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        if settings.flag("create") {
            let (create, delete) = inner.metadata_indexes.automatic_indexes(settings.count("budget_bytes"));
            if create.len() + delete.len() > 0 {
                let text = format!("{} indexes would pay, {} are of no use", create.len(), delete.len());
                return Ok(Readiness::Ready(text));
            }
        }
        Ok(match inner.metadata_indexes.index_debt() {
            Some(debt) => Readiness::Ready(debt),
            None => {
                inner.metadata_indexes.save_usage()?;
                Readiness::Idle("every metadata index is up to date".into())
            }
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let (inner, settings) = (self.0.open()?, context.settings());
        let mut changed = String::new();
        if settings.flag("create") {
            let (created, deleted) = inner.metadata_indexes.change_automatic_indexes(settings.count("budget_bytes"));
            if created + deleted > 0 {
                changed = format!("created {created} and deleted {deleted} by itself, ");
            }
        }
        Ok(changed + &inner.metadata_indexes.work_on_indexes(false, context)?)
    }
}
