//! `checkpoint`: copies the write-ahead log back into the database file, so that it stays short.

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Setting, SettingValue, Task, TaskSettings};
use ochre_store::Upkeep;

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};

pub(crate) struct Checkpoint(pub(crate) WeakInner);

impl Task for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn description(&self) -> &'static str {
        "copies SQLite's write-ahead log back into the database file"
    }

    fn defaults(&self) -> Defaults {
        every(30, |_| {})
    }

    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "wal_bytes",
                description: "copy once the write-ahead log has this many bytes",
                default: SettingValue::Count(1 << 20),
            },
            Setting {
                name: "wal_bytes_urgent",
                description: "wait for readers and cut the file once it has this many bytes",
                default: SettingValue::Count(256 << 20),
            },
        ]
    }

    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure> {
        let bytes = self.0.open()?.store.statistics()?.wal_bytes;
        Ok(if bytes >= settings.count("wal_bytes_urgent") {
            Readiness::Urgent(format!("the write-ahead log has {bytes} bytes"))
        } else if bytes > settings.count("wal_bytes") {
            Readiness::Ready(format!("the write-ahead log has {bytes} bytes"))
        } else {
            Readiness::Idle(format!("the write-ahead log has {bytes} bytes"))
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        context.step(at("copying", 0))?;
        let before = inner.store.statistics()?.wal_bytes;
        let truncate = before >= context.settings().count("wal_bytes_urgent");
        inner.store.upkeep(Upkeep::Checkpoint { truncate })?;
        let after = inner.store.statistics()?.wal_bytes;
        Ok(format!("{before} bytes of write-ahead log, {after} afterwards"))
    }
}
