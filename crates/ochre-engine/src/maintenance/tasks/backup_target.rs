//! What the jobs that make, thin out and verify backups share: where backups go, and who keeps out of whose way.

use ochre_scheduler::{Failure, Readiness};

use crate::backup::manifest::Manifest;
use crate::backup::repository::Repository;
use crate::inner::{Inner, WeakInner};

/// Backups exclude each other.
pub(super) const LOCKS: &[&str] = &["backup"];

/// Where backups go.
pub(super) fn repository(inner: &Inner) -> Result<&Repository, Failure> {
    inner.backups.repository()
}

/// The backups there are, oldest first.
pub(super) fn manifests(inner: &Inner) -> Result<Vec<Manifest>, Failure> {
    Ok(repository(inner)?.manifests()?.0)
}

/// Whether anything has changed since a backup.
pub(super) fn readiness_since(inner: &Inner, last: &Manifest) -> Result<Readiness, Failure> {
    Ok(match inner.backups.changes_since(last)? {
        0 => Readiness::Idle("nothing has changed".into()),
        changes => Readiness::Ready(format!("{changes} changes since {}", last.id)),
    })
}

/// Whether a target is configured.
pub(super) fn is_enabled(home: &WeakInner) -> bool {
    home.open().is_ok_and(|inner| inner.settings.backup_target.as_deref().is_some_and(|target| !target.is_empty()))
}

/// What a run that took a backup says.
pub(super) fn report(manifest: &Manifest) -> String {
    let (id, shipped, bytes) = (&manifest.id, manifest.shipped_bytes, manifest.bytes);
    format!("took {id} at position {}: {bytes} bytes, {shipped} shipped", manifest.position)
}
