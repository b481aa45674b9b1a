//! Names that backups and restores use on disk.

use std::path::{Path, PathBuf};

/// The folder, within the database directory, where a backup is prepared.
pub(crate) const PREPARING: &str = "backup.preparing";
/// The folder, within the database directory, where a backup is restored to be checked.
pub(crate) const RESTORING: &str = "backup.restoring";
/// The file that says that a directory is not whole yet: such a database is not opened.
pub(crate) const UNFINISHED_RESTORE: &str = "restore.unfinished";

/// Where a directory is restored before it is whole.
pub(crate) fn partial(directory: &Path) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    directory.with_file_name(name)
}

/// A database's id as manifests have it.
pub(crate) fn database_text(id: u64) -> String {
    format!("{id:016x}")
}
