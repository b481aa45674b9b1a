//! `backup-retention`: removes backups that are older than need be.

use ochre_scheduler::{
    Class, Clock, Context, Defaults, Failure, Readiness, Setting, SettingValue, SystemClock, Task, TaskSettings,
};

use crate::inner::WeakInner;
use crate::maintenance::job::cron;
use crate::maintenance::tasks::backup_target::{LOCKS, is_enabled, manifests, repository};

pub(crate) struct BackupRetention(pub(crate) WeakInner);

impl Task for BackupRetention {
    fn name(&self) -> &'static str {
        "backup-retention"
    }

    fn description(&self) -> &'static str {
        "removes backups that are older than need be, never the last chain nor the last that was verified"
    }

    fn defaults(&self) -> Defaults {
        cron("0 4 * * *", is_enabled(&self.0), |policies| policies.class = Class::Normal)
    }

    fn settings(&self) -> &'static [Setting] {
        &[
            Setting {
                name: "chains",
                description: "full backups kept, with their increments",
                default: SettingValue::Count(7),
            },
            Setting {
                name: "age",
                description: "chains that begin earlier go, however few there are",
                default: SettingValue::Seconds(30 * 86_400),
            },
        ]
    }

    fn locks(&self) -> &'static [&'static str] {
        LOCKS
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let backups = manifests(&*self.0.open()?)?.len();
        let text = format!("there are {backups} backups");
        Ok(if backups > 1 { Readiness::Ready(text) } else { Readiness::Idle(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let not_before = (SystemClock.now() - context.settings().span("age")).to_rfc3339();
        let keep = usize::try_from(context.settings().count("chains")).unwrap_or(usize::MAX).max(1);
        let thinned = repository(&inner)?.prune(keep, &not_before, &|progress| context.step(progress))?;
        let (backups, chunks) = thinned?;
        Ok(format!("removed {backups} backups and {chunks} chunks"))
    }
}
