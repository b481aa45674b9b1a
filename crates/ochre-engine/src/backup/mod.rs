//! Backups: consistent copies of an open database, whole or what changed since the one before, in chunks that
//! are compressed, checksummed and kept once (`docs/formats/backups.md`).
//!
//! A chain is a full backup and the increments that follow it. A backup exists once its manifest does, which
//! is written last; chunks that no manifest names are removed by retention.

mod repository;
mod restore;
mod target;
mod write;

use ochre_store::CopiedCollection;
use serde::{Deserialize, Serialize};

pub use repository::{Faults, Repository};
pub(crate) use write::RESTORING;

pub use restore::{RestoreAt, RestoreOptions};
pub use target::{BackupTarget, BackupTargets, DirectoryTarget};

/// The version of the format of backups.
pub const BACKUP_VERSION: u32 = 1;

/// What a backup holds, and when it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// Names the backup; ascending by time.
    pub id: String,
    /// Whole, or what changed since the parent.
    pub kind: BackupKind,
    /// The backup that this one continues.
    pub parent: Option<String>,
    /// When it was taken, as RFC 3339.
    pub taken_at: String,
    /// The version of ochre that took it.
    pub ochre: String,
    /// How many changes the database had seen: it holds exactly these.
    pub position: u64,
    /// The database's epoch.
    pub epoch: u64,
    /// The id that the next new vector would have got.
    pub next_vector_id: u64,
    /// Where each collection stood.
    pub collections: Vec<CopiedCollection>,
    /// The files, in chunks.
    pub files: Vec<BackedUpFile>,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes that had to be put for this backup, compressed: chunks that were there already are not counted.
    pub shipped_bytes: u64,
}

/// Whether a backup is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupKind {
    /// It is.
    Full,
    /// It holds what changed since its parent.
    Incremental,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpFile {
    /// Its name within the database directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its pieces, in order: the hash of each, which is its name.
    pub chunks: Vec<String>,
}
