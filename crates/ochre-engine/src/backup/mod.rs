//! Backups: consistent copies of an open database, whole or what changed since the one before, in chunks that
//! are compressed, checksummed and kept once (`docs/formats/backups.md`).
//!
//! A chain is a full backup and the increments that follow it. A backup exists once its manifest does, which
//! is written last; chunks that no manifest names are removed by retention.
//!
//! A target is a place where others may write: nothing read from it is believed before it was checked.

pub(crate) mod contained_dir;
pub(crate) mod folders;
pub(crate) mod manifest;
pub(crate) mod repository;
pub(crate) mod restore;
pub(crate) mod restore_request;
pub(crate) mod state;
pub(crate) mod target;
pub(crate) mod write;
