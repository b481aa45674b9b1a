//! Taking a backup.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ochre_scheduler::{Clock, Context, Failure, Progress, SystemClock, Timestamp};
use ochre_store::{CopiedFile, Copy, free_bytes};

use crate::backup::folders::{PREPARING, RESTORING, database_text, partial};
use crate::backup::manifest::{BACKUP_VERSION, BackedUpFile, BackupKind, CHUNK_BYTES, Manifest};
use crate::backup::repository::Repository;
use crate::backup::state::Backups;

/// How long locks are waited for without a step.
const WAIT: Duration = Duration::from_millis(200);
/// Who holds the log for the next increment.
pub(crate) const LOG_HOLDER: &str = "backup";

impl Backups {
    /// Takes a backup. An incremental one becomes a full one if there is nothing that it could continue.
    pub(crate) fn back_up(
        &self, repository: &Repository, kind: BackupKind, context: &Context<'_>,
    ) -> Result<Manifest, Failure> {
        let directory = self
            .directory
            .as_deref()
            .ok_or_else(|| Failure::Failed("a database in memory cannot be backed up: it has no files".into()))?;
        let _alone = loop {
            if let Some(guard) = self.alone.try_lock_for(WAIT) {
                break guard;
            }
            context.step(Progress { done: 0, total: None, what: "waiting for another backup".into() })?;
        };
        let folder = directory.join(PREPARING);
        let manifest = self.back_up_in(&folder, repository, kind, context);
        // What is left of it is removed at the next start at the latest.
        let _ = std::fs::remove_dir_all(&folder);
        manifest
    }

    fn back_up_in(
        &self, folder: &Path, repository: &Repository, kind: BackupKind, context: &Context<'_>,
    ) -> Result<Manifest, Failure> {
        context.step(Progress { done: 0, total: None, what: "copying the catalog and records".into() })?;
        let (manifests, faults) = repository.manifests()?;
        self.check_target(repository, &manifests)?;
        if let Some(fault) = faults.0.first() {
            tracing::warn!(fault, "a backup cannot be read; the next one does not continue it");
        }
        let (epoch, position) = (self.store.epoch(), self.store.position()?);
        let parent = if kind == BackupKind::Incremental { parent_of(&manifests, epoch, position) } else { None };
        if parent.is_none() {
            self.check_space(folder)?;
        }
        let taken_at = later_than_all(&manifests, SystemClock.now());
        // Compaction would remove what is to be copied: until it is kept under names of its own.
        let segments = self.segments.hold(context, "waiting for compaction")?;
        let mut copy = match parent {
            Some(parent) => self.store.copy_changes(&as_copy(parent), folder)?,
            None => self.store.copy_whole(folder)?,
        };
        let _unpinned = match pin(&mut copy, folder) {
            Ok(()) => {
                drop(segments);
                None
            }
            Err(error) => {
                tracing::debug!(%error, "files cannot be linked here: compaction waits until they are backed up");
                Some(segments)
            }
        };
        let mut existing_chunks = repository.chunks()?;
        let (mut files, mut uploaded, mut done) = (Vec::new(), 0, 0);
        let all: u64 = copy.files.iter().map(|file| file.bytes).sum();
        for file in &copy.files {
            let before = done;
            files.push(upload(repository, file, &mut existing_chunks, &mut uploaded, &mut |bytes| {
                done = before + bytes;
                context.step(Progress { done, total: Some(all), what: "bytes backed up".into() })
            })?);
            done = before + file.bytes;
        }
        let kind = if parent.is_some() { BackupKind::Incremental } else { BackupKind::Full };
        let manifest = Manifest {
            format: BACKUP_VERSION,
            id: id_of(taken_at, copy.position, kind),
            kind,
            parent: parent.map(|parent| parent.id.clone()),
            taken_at: taken_at.to_rfc3339(),
            ochre: env!("CARGO_PKG_VERSION").into(),
            position: copy.position,
            epoch: copy.epoch,
            database: Some(database_text(copy.database_id)),
            next_vector_id: copy.next_vector_id,
            collections: copy.collections.clone(),
            bytes: all,
            files,
            shipped_bytes: uploaded,
        };
        if Some(&manifest.id) == parent.map(|parent| &parent.id) {
            return Err(Failure::Failed(
                "the clock shows the same second as at the last backup; it is tried again".into(),
            ));
        }
        repository.put_manifest(&manifest)?;
        // The next increment goes to the configured target.
        if self.repository.get().is_some_and(|own| std::ptr::eq(own, repository)) {
            self.note_taken(taken_at);
            let positions: Vec<(u32, u64)> = copy.collections.iter().map(|row| (row.number, row.position)).collect();
            self.store.retain_log(LOG_HOLDER, &positions)?;
        }
        Ok(manifest)
    }

    /// Refuses to copy the database file where there is no room for it.
    fn check_space(&self, folder: &Path) -> Result<(), Failure> {
        let needed = self.store.statistics()?.database_bytes;
        match folder.parent().and_then(free_bytes).filter(|free| *free < needed) {
            Some(free) => Err(Failure::Failed(format!(
                "copying the database file takes {needed} bytes of disk, and {free} are free: free some space"
            ))),
            None => Ok(()),
        }
    }

    /// Removes what a backup or its verification left whose process was killed.
    pub(crate) fn remove_unfinished(&self) {
        for folder in [PREPARING, RESTORING] {
            if let Some(directory) = &self.directory {
                // It is tried again at the next start.
                let _ = std::fs::remove_dir_all(directory.join(folder));
                let _ = std::fs::remove_dir_all(partial(&directory.join(folder)));
            }
        }
    }

    /// How many changes the database has seen since its last backup here, if there is one.
    pub(crate) fn changes_since(&self, last: &Manifest) -> Result<u64, Failure> {
        Ok(self.store.position()?.saturating_sub(last.position))
    }
}

/// The id of a backup: its second in UTC, its position, its kind.
fn id_of(taken_at: Timestamp, position: u64, kind: BackupKind) -> String {
    let text = taken_at.to_rfc3339();
    let second = text.split('.').next().unwrap_or_default().trim_end_matches('Z').replace([':', '-'], "");
    format!("{second}Z-{position:012}-{}", kind.word())
}

/// The backup that an increment continues: the last one, if it is of this history and its chain is whole.
fn parent_of(manifests: &[Manifest], epoch: u64, position: u64) -> Option<&Manifest> {
    manifests
        .last()
        .filter(|last| last.epoch == epoch && last.position <= position && Repository::chain(manifests, last).is_ok())
}

/// Keeps files that may be removed under names of their own beside the copy: up to the lengths it records they never
/// change.
fn pin(copy: &mut Copy, folder: &Path) -> std::io::Result<()> {
    let pinned = folder.join("pinned");
    std::fs::create_dir_all(&pinned)?;
    for file in copy.files.iter_mut().filter(|file| !file.path.starts_with(folder)) {
        let own = pinned.join(file.path.file_name().unwrap_or_default());
        std::fs::hard_link(&file.path, &own)?;
        file.path = own;
    }
    Ok(())
}

/// Now, or a second after the last backup if the clock was put back: the newest one is the last that was taken.
fn later_than_all(manifests: &[Manifest], now: Timestamp) -> Timestamp {
    let taken = manifests.iter().filter_map(|manifest| manifest.taken_at.parse::<Timestamp>().ok());
    let last = taken.max().map_or(i64::MIN, Timestamp::as_micros);
    if now.as_micros() > last { now } else { Timestamp::from_micros(last.saturating_add(1_000_000)) }
}

/// Puts a file in chunks.
fn upload(
    repository: &Repository, file: &CopiedFile, existing_chunks: &mut BTreeSet<String>, uploaded: &mut u64,
    pace: &mut dyn FnMut(u64) -> Result<(), ochre_scheduler::Stop>,
) -> Result<BackedUpFile, Failure> {
    let failed =
        |path: &PathBuf, error: &std::io::Error| Failure::Failed(format!("cannot read {}: {error}", path.display()));
    let mut input = std::fs::File::open(&file.path).map_err(|error| failed(&file.path, &error))?.take(file.bytes);
    let (mut chunks, mut done, mut buffer) = (Vec::new(), 0, Vec::with_capacity(CHUNK_BYTES));
    loop {
        pace(done)?;
        buffer.clear();
        input.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut buffer).map_err(|error| failed(&file.path, &error))?;
        if buffer.is_empty() {
            break;
        }
        let (hash, bytes) = repository.put_chunk(existing_chunks, &buffer)?;
        chunks.push(hash);
        *uploaded += bytes;
        done += buffer.len() as u64;
    }
    if done != file.bytes {
        return Err(Failure::Failed(format!("{} has {done} bytes, not {}", file.path.display(), file.bytes)));
    }
    Ok(BackedUpFile { name: file.name.clone(), bytes: file.bytes, chunks })
}

fn as_copy(manifest: &Manifest) -> Copy {
    Copy {
        position: manifest.position,
        epoch: manifest.epoch,
        database_id: 0,
        next_vector_id: manifest.next_vector_id,
        collections: manifest.collections.clone(),
        files: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_later_than_the_last_one_whatever_the_clock_says() {
        let manifest = |taken_at: &str| Manifest { taken_at: taken_at.into(), ..Manifest::sample() };
        let manifests = [manifest("2026-11-27T10:00:00Z"), manifest("2026-11-27T12:00:00.5Z")];
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(later_than_all(&manifests, at("2026-11-27T13:00:00Z")), at("2026-11-27T13:00:00Z"));
        assert_eq!(later_than_all(&manifests, at("2026-11-27T11:00:00Z")), at("2026-11-27T12:00:01.5Z"));
        assert_eq!(later_than_all(&[], at("2026-11-27T11:00:00Z")), at("2026-11-27T11:00:00Z"));
    }
}
