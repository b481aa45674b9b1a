//! `vacuum`: gives free pages of the database file back to the file system, a slice at a time.

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Setting, SettingValue, Task, TaskSettings};
use ochre_store::Upkeep;

use crate::inner::WeakInner;
use crate::maintenance::job::{at, every};

/// Free pages worth less than this are left in the file, where the next writes use them.
const FREE_BYTES_MIN: u64 = 1 << 20;

pub(crate) struct Vacuum(pub(crate) WeakInner);

impl Task for Vacuum {
    fn name(&self) -> &'static str {
        "vacuum"
    }

    fn description(&self) -> &'static str {
        "gives free pages of the database file back to the file system"
    }

    fn defaults(&self) -> Defaults {
        every(30, |_| {})
    }

    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "free_share",
                description: "run once this share of the file, and at least 1 MiB, is free",
                default: SettingValue::Share(0.02),
            },
            Setting {
                name: "free_share_urgent",
                description: "put off no longer once this share of the file is free",
                default: SettingValue::Share(0.5),
            },
            Setting {
                name: "step_pages",
                description: "pages of 4 KiB given back in a step",
                default: SettingValue::Count(128),
            },
        ]
    }

    fn positive_settings(&self) -> &'static [&'static str] {
        &["step_pages"]
    }

    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure> {
        let sizes = self.0.open()?.store.statistics()?;
        let share = sizes.free_bytes as f64 / sizes.database_bytes.max(1) as f64;
        let text = format!("{} of {} bytes are free", sizes.free_bytes, sizes.database_bytes);
        Ok(if sizes.free_bytes <= FREE_BYTES_MIN || share < settings.share("free_share") {
            Readiness::Idle(text)
        } else if share > settings.share("free_share_urgent") {
            Readiness::Urgent(text)
        } else {
            Readiness::Ready(text)
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let pages = context.settings().count("step_pages").max(1);
        let before = inner.store.statistics()?.database_bytes;
        let mut steps = 0;
        loop {
            context.step(at("pages given back", steps * pages as usize))?;
            if !inner.store.upkeep(Upkeep::Vacuum { pages })? {
                break;
            }
            steps += 1;
        }
        // The pages go from the file when the write-ahead log is copied into it.
        inner.store.upkeep(Upkeep::Checkpoint { truncate: false })?;
        let after = inner.store.statistics()?.database_bytes;
        Ok(format!("gave back {} bytes", before.saturating_sub(after)))
    }
}
