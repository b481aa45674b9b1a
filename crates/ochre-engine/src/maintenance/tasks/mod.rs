//! The jobs of the database, a file each.

pub(crate) mod backup;
pub(crate) mod backup_incremental;
pub(crate) mod backup_retention;
pub(crate) mod backup_target;
pub(crate) mod backup_verify;
pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod compact;
pub(crate) mod erase;
pub(crate) mod full_vacuum;
pub(crate) mod history_prune;
pub(crate) mod index_rebuild;
pub(crate) mod index_sync;
pub(crate) mod log_prune;
pub(crate) mod memory;
pub(crate) mod optimize;
pub(crate) mod orphans;
pub(crate) mod schema_audit;
pub(crate) mod sweep;
pub(crate) mod vacuum;
