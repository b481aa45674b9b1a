//! `backup`, `backup-incremental`, `backup-retention`, `backup-verify`: copies of the database at a target.

use std::sync::Arc;
use std::time::Duration;

use ochre_scheduler::{
    Class, Clock, Context, Defaults, Failure, Knob, KnobValue, Knobs, Look, Progress, Span, SystemClock, Task,
};

use super::{Home, cron, every};
use crate::backup::{BackupKind, Manifest, RESTORING, Repository, RestoreAt, RestoreOptions};
use crate::database::Inner;

/// Backups exclude each other, and compaction, which removes what they copy.
const LOCKS: &[&str] = &["backup", "segments"];

fn repository(inner: &Inner) -> Result<&Repository, Failure> {
    if let Some(repository) = inner.repository.get() {
        return Ok(repository);
    }
    let target = inner.options.backup_target.as_deref().filter(|target| !target.is_empty());
    let Some(target) = target else {
        return Err(Failure::Failed("no target is configured: set `target` in the section [backup]".into()));
    };
    let repository = Repository::new(inner.options.backup_targets.open(target)?);
    Ok(inner.repository.get_or_init(|| repository))
}

fn manifests(inner: &Inner) -> Result<Vec<Manifest>, Failure> {
    Ok(repository(inner)?.manifests()?.0)
}

fn is_enabled(home: &Home) -> bool {
    home.open().is_ok_and(|inner| inner.options.backup_target.as_deref().is_some_and(|target| !target.is_empty()))
}

fn report(manifest: &Manifest) -> String {
    let (id, shipped, bytes) = (&manifest.id, manifest.shipped_bytes, manifest.bytes);
    format!("took {id} at position {}: {bytes} bytes, {shipped} shipped", manifest.position)
}

pub(super) struct Backup(pub(super) Home);

impl Task for Backup {
    fn name(&self) -> &'static str {
        "backup"
    }

    fn about(&self) -> &'static str {
        "copies the whole database to the backup target; chunks that are there already are not copied again"
    }

    fn defaults(&self) -> Defaults {
        cron("0 2 * * *", is_enabled(&self.0), |policies| policies.class = Class::Normal)
    }

    fn locks(&self) -> &'static [&'static str] {
        LOCKS
    }

    fn look(&self, _: &Knobs) -> Result<Look, Failure> {
        let inner = self.0.open()?;
        let manifests = manifests(&inner)?;
        Ok(match manifests.iter().rev().find(|manifest| manifest.kind == BackupKind::Full) {
            None => Look::Work("there is no full backup".into()),
            Some(last) if inner.changes_since(last)? == 0 => Look::Nothing("nothing has changed".into()),
            Some(last) => Look::Work(format!("{} changes since {}", inner.changes_since(last)?, last.id)),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        inner.back_up(repository(&inner)?, BackupKind::Full, context).map(|manifest| report(&manifest))
    }
}

pub(super) struct BackupIncremental(pub(super) Home);

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

    fn look(&self, _: &Knobs) -> Result<Look, Failure> {
        let inner = self.0.open()?;
        let manifests = manifests(&inner)?;
        Ok(match manifests.last() {
            None => Look::Work("there is no backup".into()),
            Some(last) if inner.changes_since(last)? == 0 => Look::Nothing("nothing has changed".into()),
            Some(last) => Look::Work(format!("{} changes since {}", inner.changes_since(last)?, last.id)),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let manifests = manifests(&inner)?;
        let increments = manifests.iter().rev().take_while(|manifest| manifest.kind == BackupKind::Incremental).count();
        let is_long = increments as u64 >= context.knobs().count("chain_max");
        let kind = if is_long { BackupKind::Full } else { BackupKind::Incremental };
        inner.back_up(repository(&inner)?, kind, context).map(|manifest| report(&manifest))
    }
}

pub(super) struct BackupRetention(pub(super) Home);

impl Task for BackupRetention {
    fn name(&self) -> &'static str {
        "backup-retention"
    }

    fn about(&self) -> &'static str {
        "removes backups that are older than need be, never the last chain nor the last that was verified"
    }

    fn defaults(&self) -> Defaults {
        cron("0 4 * * *", is_enabled(&self.0), |policies| policies.class = Class::Normal)
    }

    fn knobs(&self) -> &'static [Knob] {
        &[
            Knob { name: "chains", about: "full backups kept, with their increments", default: KnobValue::Count(7) },
            Knob {
                name: "age",
                about: "chains that begin earlier go, however few there are",
                default: KnobValue::Seconds(30 * 86_400),
            },
        ]
    }

    fn locks(&self) -> &'static [&'static str] {
        LOCKS
    }

    fn look(&self, _: &Knobs) -> Result<Look, Failure> {
        let backups = manifests(&*self.0.open()?)?.len();
        let text = format!("there are {backups} backups");
        Ok(if backups > 1 { Look::Work(text) } else { Look::Nothing(text) })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let not_before = (SystemClock.now() - context.knobs().span("age")).to_rfc3339();
        let keep = usize::try_from(context.knobs().count("chains")).unwrap_or(usize::MAX).max(1);
        let thinned = repository(&inner)?.thin_out(keep, &not_before, &|progress| context.step(progress))?;
        let (backups, chunks) = thinned?;
        Ok(format!("removed {backups} backups and {chunks} chunks"))
    }
}

pub(super) struct BackupVerify(pub(super) Home);

impl Task for BackupVerify {
    fn name(&self) -> &'static str {
        "backup-verify"
    }

    fn about(&self) -> &'static str {
        "reads every chunk of the last chain of backups, restores it beside the database, and checks that"
    }

    fn defaults(&self) -> Defaults {
        cron("0 4 * * SUN", is_enabled(&self.0), |policies| {
            policies.timeout = Span(Duration::from_secs(6 * 3600));
            policies.retries = 0;
        })
    }

    fn locks(&self) -> &'static [&'static str] {
        &["backup"]
    }

    fn look(&self, _: &Knobs) -> Result<Look, Failure> {
        let inner = self.0.open()?;
        let repository = repository(&inner)?;
        let verified = repository.verified()?;
        Ok(match repository.manifests()?.0.last() {
            None => Look::Nothing("there is no backup".into()),
            Some(last) if verified.contains(&last.id) => Look::Nothing(format!("{} was verified", last.id)),
            Some(last) => Look::Work(format!("{} was not verified", last.id)),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let repository = repository(&inner)?;
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
        let options = RestoreOptions { at: RestoreAt::Id(last.id.clone()), ..RestoreOptions::default() };
        let restored = repository.restore(&options, &folder).map_err(Failure::from).and_then(|_| {
            context.step(Progress { done: 0, total: None, what: "checking what was restored".into() })?;
            let report = ochre_store::check(&folder)?;
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
