//! `backup`: copies the whole database to the backup target.

use ochre_scheduler::{Class, Context, Defaults, Failure, Readiness, Task, TaskSettings};

use crate::backup::manifest::BackupKind;
use crate::inner::WeakInner;
use crate::maintenance::job::cron;
use crate::maintenance::tasks::backup_target::{LOCKS, is_enabled, manifests, readiness_since, report, repository};

pub(crate) struct Backup(pub(crate) WeakInner);

impl Task for Backup {
    fn name(&self) -> &'static str {
        "backup"
    }

    fn description(&self) -> &'static str {
        "copies the whole database to the backup target; chunks that are there already are not copied again"
    }

    fn defaults(&self) -> Defaults {
        cron("0 2 * * *", is_enabled(&self.0), |policies| policies.class = Class::Normal)
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
        match manifests.iter().rev().find(|manifest| manifest.kind == BackupKind::Full) {
            None => Ok(Readiness::Ready("there is no full backup".into())),
            Some(last) => readiness_since(&inner, last),
        }
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        inner.backups.back_up(repository(&inner)?, BackupKind::Full, context).map(|manifest| report(&manifest))
    }
}
