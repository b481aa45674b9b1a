//! What the jobs that make, thin out and verify backups share: where backups go, and who keeps out of whose way.

use ochre_scheduler::Failure;

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

/// Whether a target is configured.
pub(super) fn is_enabled(home: &WeakInner) -> bool {
    home.open().is_ok_and(|inner| inner.settings.backup_target.as_deref().is_some_and(|target| !target.is_empty()))
}

/// What a run that took a backup says.
pub(super) fn report(manifest: &Manifest) -> String {
    let (id, shipped, bytes) = (&manifest.id, manifest.shipped_bytes, manifest.bytes);
    format!("took {id} at position {}: {bytes} bytes, {shipped} shipped", manifest.position)
}
