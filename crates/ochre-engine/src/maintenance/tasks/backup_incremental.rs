//! `backup-incremental`: copies what changed since the last backup to the backup target.

use ochre_scheduler::{Context, Defaults, Failure, Knob, KnobValue, Knobs, Look, Task};

use crate::backup::manifest::BackupKind;
use crate::inner::WeakInner;
use crate::maintenance::job::every;
use crate::maintenance::tasks::backup_target::{LOCKS, is_enabled, manifests, report, repository};

pub(crate) struct BackupIncremental(pub(crate) WeakInner);

impl Task for BackupIncremental {
    fn name(&self) -> &'static str {
        "backup-incremental"
    }

    fn about(&self) -> &'static str {
        "copies what changed since the last backup to the backup target"
    }

    fn defaults(&self) -> Defaults {
        Defaults { is_enabled: is_enabled(&self.0), ..every(300, |_| {}) }
    }

    fn knobs(&self) -> &'static [Knob] {
        &[Knob {
            name: "chain_max",
            about: "after this many increments the next backup is a full one",
            default: KnobValue::Count(500),
        }]
    }

    fn locks(&self) -> &'static [&'static str] {
        LOCKS
    }

    fn warning(&self) -> Option<String> {
        self.0.open().ok()?.backups.problem()
    }

    fn look(&self, _: &Knobs) -> Result<Look, Failure> {
        let inner = self.0.open()?;
        let manifests = manifests(&inner)?;
        Ok(match manifests.last() {
            None => Look::Work("there is no backup".into()),
            Some(last) if inner.backups.changes_since(last)? == 0 => Look::Nothing("nothing has changed".into()),
            Some(last) => Look::Work(format!("{} changes since {}", inner.backups.changes_since(last)?, last.id)),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let manifests = manifests(&inner)?;
        let increments = manifests.iter().rev().take_while(|manifest| manifest.kind == BackupKind::Incremental).count();
        let is_long = increments as u64 >= context.knobs().count("chain_max");
        let kind = if is_long { BackupKind::Full } else { BackupKind::Incremental };
        inner.backups.back_up(repository(&inner)?, kind, context).map(|manifest| report(&manifest))
    }
}
