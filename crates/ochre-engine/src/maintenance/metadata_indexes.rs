//! `metadata-indexes`: builds declared indexes and keeps them up to date.

use ochre_scheduler::{Context, Defaults, Failure, Knobs, Look, Task};

use super::{Home, every};

pub(crate) struct MetadataIndexes(pub(crate) Home);

impl Task for MetadataIndexes {
    fn name(&self) -> &'static str {
        crate::metadata_indexes::METADATA_INDEXES
    }

    fn about(&self) -> &'static str {
        "builds declared metadata indexes and keeps them up to date"
    }

    fn defaults(&self) -> Defaults {
        every(5, |policies| (policies.priority, policies.jitter) = (8, 0.0))
    }

    fn locks(&self) -> &'static [&'static str] {
        &["metadata-indexes"]
    }

    fn look(&self, _: &Knobs) -> Result<Look, Failure> {
        let inner = self.0.open()?;
        Ok(match inner.index_debt() {
            Some(debt) => Look::Work(debt),
            None => {
                inner.save_usage()?;
                Look::Nothing("every metadata index is up to date".into())
            }
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        self.0.open()?.work_on_indexes(false, context)
    }
}
