//! `backup-incremental`: copies what changed since the last backup to the backup target.

use ochre_scheduler::{Context, Defaults, Failure, Readiness, Setting, SettingValue, Task, TaskSettings};

use crate::backup::manifest::BackupKind;
use crate::inner::WeakInner;
use crate::maintenance::job::every;
use crate::maintenance::tasks::backup_target::{LOCKS, is_enabled, manifests, readiness_since, report, repository};

pub(crate) struct BackupIncremental(pub(crate) WeakInner);

impl Task for BackupIncremental {
    fn name(&self) -> &'static str {
        "backup-incremental"
    }

    fn description(&self) -> &'static str {
        "copies what changed since the last backup to the backup target"
    }

    fn defaults(&self) -> Defaults {
        Defaults { is_enabled: is_enabled(&self.0), ..every(300, |_| {}) }
    }

    fn settings(&self) -> &'static [Setting] {
        &[Setting {
            name: "chain_max",
            description: "after this many increments the next backup is a full one",
            default: SettingValue::Count(500),
        }]
    }

    fn locks(&self) -> &'static [&'static str] {
        LOCKS
    }

    fn warning(&self) -> Option<String> {
        self.0.open().ok()?.backups.problem()
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        let manifests = manifests(&inner)?;
        match manifests.last() {
            None => Ok(Readiness::Ready("there is no backup".into())),
            Some(last) => readiness_since(&inner, last),
        }
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let manifests = manifests(&inner)?;
        let increments = manifests.iter().rev().take_while(|manifest| manifest.kind == BackupKind::Incremental).count();
        let is_long = increments as u64 >= context.settings().count("chain_max");
        let kind = if is_long { BackupKind::Full } else { BackupKind::Incremental };
        inner.backups.back_up(repository(&inner)?, kind, context).map(|manifest| report(&manifest))
    }
}
