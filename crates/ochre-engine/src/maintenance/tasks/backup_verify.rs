//! `backup-verify`: reads the last chain of backups and restores it, to see that it can be.

use std::sync::Arc;
use std::time::Duration;

use ochre_scheduler::{Context, Defaults, Failure, Interval, Progress, Readiness, Task, TaskSettings};

use crate::backup::folders::RESTORING;
use crate::backup::manifest::Manifest;
use crate::backup::repository::Repository;
use crate::backup::restore::RestoreAt;
use crate::inner::{Inner, WeakInner};
use crate::maintenance::job::cron;
use crate::maintenance::tasks::backup_target::{is_enabled, repository};

pub(crate) struct BackupVerify(pub(crate) WeakInner);

impl Task for BackupVerify {
    fn name(&self) -> &'static str {
        "backup-verify"
    }

    fn description(&self) -> &'static str {
        "reads every chunk of the last chain of backups, restores it beside the database, and checks that"
    }

    fn defaults(&self) -> Defaults {
        cron("0 4 * * SUN", is_enabled(&self.0), |policies| {
            policies.timeout = Interval(Duration::from_secs(6 * 3600));
            policies.retries = 0;
        })
    }

    fn locks(&self) -> &'static [&'static str] {
        &["backup"]
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        let repository = repository(&inner)?;
        let verified = repository.verified()?;
        Ok(match repository.manifests()?.0.last() {
            None => Readiness::Idle("there is no backup".into()),
            Some(last) if verified.contains(&last.id) => Readiness::Idle(format!("{} was verified", last.id)),
            Some(last) => Readiness::Ready(format!("{} was not verified", last.id)),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let repository = repository(&inner)?;
        repository.forget_manifests();
        let (manifests, mut faults) = repository.manifests()?;
        let Some(last) = manifests.last() else { return Ok("there is no backup".into()) };
        let chain = Repository::chain(&manifests, last)?;
        let verified = repository.verify(&chain, &|progress| context.step(progress))?;
        faults.0.extend(verified?.0);
        if !faults.0.is_empty() {
            return Err(Failure::Failed(faults.0.join("; ")));
        }
        context.step(Progress { done: 0, total: None, what: "restoring".into() })?;
        self.restore(&inner, repository, last, context)?;
        repository.note_verified(&last.id)?;
        Ok(format!("{} backups up to {} are sound, and it was restored and checked", chain.len(), last.id))
    }
}

impl BackupVerify {
    fn restore(
        &self, inner: &Arc<Inner>, repository: &Repository, last: &Manifest, context: &Context<'_>,
    ) -> Result<(), Failure> {
        let home = inner.directory.as_deref().ok_or_else(|| Failure::Failed("the database has no directory".into()))?;
        let folder = home.join(RESTORING);
        let _ = std::fs::remove_dir_all(&folder);
        let (at, known) = (RestoreAt::Id(last.id.clone()), inner.tables.lock().clone());
        let restored =
            repository.restore_whole(&at, &known, &folder, |_| Ok(())).map_err(Failure::from).and_then(|_| {
                context.step(Progress { done: 0, total: None, what: "checking what was restored".into() })?;
                let report = ochre_store::check(&folder, &known)?;
                let records: u64 = last.collections.iter().map(|collection| collection.records).sum();
                if let Some(finding) = report.findings.first() {
                    return Err(Failure::Failed(format!("restored, {} is damaged: {}", finding.file, finding.problem)));
                }
                if (report.collections, report.records) != (last.collections.len() as u64, records) {
                    return Err(Failure::Failed(format!(
                        "restored, there are {} collections with {} records, not {} with {records}",
                        report.collections,
                        report.records,
                        last.collections.len()
                    )));
                }
                Ok(())
            });
        let _ = std::fs::remove_dir_all(&folder);
        restored
    }
}
