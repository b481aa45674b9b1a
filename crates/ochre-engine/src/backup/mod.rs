//! Backups: consistent copies of an open database, whole or what changed since the one before, in chunks that
//! are compressed, checksummed and kept once (`docs/formats/backups.md`).
//!
//! A chain is a full backup and the increments that follow it. A backup exists once its manifest does, which
//! is written last; chunks that no manifest names are removed by retention.
//!
//! A target is a place where others may write: nothing read from it is believed before it was checked.

mod beneath;
mod manifest;
mod repository;
mod restore;
mod state;
mod target;
mod write;

pub(crate) use restore::UNFINISHED_RESTORE;
pub(crate) use state::{Backups, examine_target};
pub(crate) use write::RESTORING;

pub use manifest::{BACKUP_VERSION, BackedUpFile, BackupKind, BackupTrust, Manifest};
pub use repository::{Faults, Repository};
pub use restore::{RestoreAt, RestoreOptions};
pub use target::{BackupTarget, BackupTargets, DirectoryTarget};
