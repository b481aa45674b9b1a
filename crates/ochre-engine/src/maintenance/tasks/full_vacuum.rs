//! `full-vacuum`: rewrites the whole database file. Off unless enabled: writes wait meanwhile.

use ochre_scheduler::{
    Context, Defaults, Failure, Interval, Misfire, Readiness, Setting, SettingValue, Task, TaskSettings,
};
use ochre_store::{Upkeep, free_bytes};

use crate::inner::WeakInner;
use crate::maintenance::job::{at, cron};

pub(crate) struct FullVacuum(pub(crate) WeakInner);

impl Task for FullVacuum {
    fn name(&self) -> &'static str {
        "full-vacuum"
    }

    fn description(&self) -> &'static str {
        "rewrites the whole database file, without gaps; writes wait meanwhile, reads go on"
    }

    fn defaults(&self) -> Defaults {
        cron("0 3 * * SUN", false, |policies| {
            policies.misfire = Misfire::Skip;
            policies.grace = Interval(std::time::Duration::from_secs(3600));
            policies.retries = 0;
        })
    }

    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            name: "free_share",
            description: "run once this share of the file is free",
            default: SettingValue::Share(0.3),
        }]
    }

    fn locks(&self) -> &'static [&'static str] {
        &["backup"]
    }

    fn check(&self, settings: &TaskSettings) -> Result<Readiness, Failure> {
        let sizes = self.0.open()?.store.statistics()?;
        let share = sizes.free_bytes as f64 / sizes.database_bytes.max(1) as f64;
        let text = format!("{} of {} bytes are free", sizes.free_bytes, sizes.database_bytes);
        if !sizes.has_checksums {
            return Ok(Readiness::Ready(
                "pages have no checksums yet: the file was written by an older version".into(),
            ));
        }
        Ok(if share >= settings.share("free_share") { Readiness::Ready(text) } else { Readiness::Idle(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let before = inner.store.statistics()?.database_bytes;
        // The new file is written beside the old one, and once more into the log.
        let needed = before.saturating_mul(22) / 10;
        if let Some(free) = inner.directory.as_deref().and_then(free_bytes).filter(|free| *free < needed) {
            return Err(Failure::Failed(format!(
                "rewriting the database file takes {needed} bytes of disk, and {free} are free: free some space"
            )));
        }
        context.step(at("rewriting", 0))?;
        inner.store.upkeep(Upkeep::FullVacuum)?;
        inner.store.upkeep(Upkeep::Checkpoint { truncate: true })?;
        let after = inner.store.statistics()?.database_bytes;
        Ok(format!("{before} bytes before, {after} after"))
    }
}
