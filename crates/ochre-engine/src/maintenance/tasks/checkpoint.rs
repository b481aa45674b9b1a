//! `checkpoint`: copies the write-ahead log back into the database file, so that it stays short.

use ochre_scheduler::{Context, Defaults, Failure, Knob, KnobValue, Knobs, Look, Task};
use ochre_store::Upkeep;

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};

pub(crate) struct Checkpoint(pub(crate) WeakInner);

impl Task for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn about(&self) -> &'static str {
        "copies SQLite's write-ahead log back into the database file"
    }

    fn defaults(&self) -> Defaults {
        every(30, |_| {})
    }

    fn knobs(&self) -> &'static [Knob] {
        &[
            Knob {
                name: "wal_bytes",
                about: "copy once the write-ahead log has this many bytes",
                default: KnobValue::Count(1 << 20),
            },
            Knob {
                name: "wal_bytes_urgent",
                about: "wait for readers and cut the file once it has this many bytes",
                default: KnobValue::Count(256 << 20),
            },
        ]
    }

    fn look(&self, knobs: &Knobs) -> Result<Look, Failure> {
        let bytes = self.0.open()?.store.statistics()?.wal_bytes;
        Ok(if bytes >= knobs.count("wal_bytes_urgent") {
            Look::Urgent(format!("the write-ahead log has {bytes} bytes"))
        } else if bytes > knobs.count("wal_bytes") {
            Look::Work(format!("the write-ahead log has {bytes} bytes"))
        } else {
            Look::Nothing(format!("the write-ahead log has {bytes} bytes"))
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        context.step(at("copying", 0))?;
        let before = inner.store.statistics()?.wal_bytes;
        let truncate = before >= context.knobs().count("wal_bytes_urgent");
        inner.store.upkeep(Upkeep::Checkpoint { truncate })?;
        let after = inner.store.statistics()?.wal_bytes;
        Ok(format!("{before} bytes of write-ahead log, {after} afterwards"))
    }
}
