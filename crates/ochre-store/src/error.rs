//! Why the store refused or failed, grouped by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// The store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a name that was not found, or was taken, stood for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Resource {
    Tenant,
    Database,
    Collection,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tenant => "Tenant",
            Self::Database => "Database",
            Self::Collection => "Collection",
        })
    }
}

/// Why the store refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing of this name or id.
    #[error("{kind} [{name}] does not exist")]
    NotFound {
        /// What was looked for.
        kind: Resource,
        /// Its name or id.
        name: String,
    },
    /// What a conditional write was to rely on has changed; nothing of it was kept.
    #[error("conditional write conflict")]
    WriteConflict,
    /// Whether what was read has changed cannot be told any more, or it has: read again.
    #[error("{0}")]
    StaleRead(String),
    /// The name is taken.
    #[error("{kind} [{name}] already exists")]
    AlreadyExists {
        /// What was to be made.
        kind: Resource,
        /// The taken name.
        name: String,
    },
    /// The embeddings do not have the collection's dimension.
    #[error("Collection expecting embedding with dimension of {expected}, got {got}")]
    Dimension {
        /// The collection's dimension.
        expected: usize,
        /// The dimension that was given.
        got: usize,
    },
    /// A documented limit was reached; the text names it.
    #[error("{0}")]
    Limit(String),
    /// The tables of an extension cannot be used.
    #[error("extension '{name}': {problem}")]
    Extension {
        /// The extension.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The write's validator refused what it would leave behind; the text is the validator's.
    #[error("{0}")]
    Refused(String),
    /// The view that a filter was resolved on is too old to be re-checked: resolve it again at `head`.
    #[error("the write was resolved on a view that is too old; the collection is at position {head}")]
    Stale {
        /// The collection's position now.
        head: u64,
    },
    /// The idempotency key was used before, with another request.
    #[error("idempotency key '{key}' was used for a different request; use a new key for a new request")]
    IdempotencyConflict {
        /// The key.
        key: String,
    },
    /// No space is left. Nothing of the request was kept; reads go on.
    #[error("no space left on the disk of {}: the write was refused and nothing of it was kept; free some space and retry", path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// A failure hid whether the write was committed. Read to find out before retrying.
    #[error(
        "the outcome of the write is unknown: {reason}; read the records back, or retry with the same idempotency key"
    )]
    OutcomeUnknown {
        /// What failed.
        reason: String,
    },
    /// Writes are stopped until the store can be reopened; reads go on.
    #[error(
        "writes are stopped after a storage failure: {reason}; they resume by themselves once the storage works again"
    )]
    WritesStopped {
        /// What failed.
        reason: String,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process: {owner}", path.display())]
    Locked {
        /// The database directory.
        path: PathBuf,
        /// What the lock file says of its owner.
        owner: String,
    },
    /// The files are newer than this program.
    #[error("{} has format version {found}, and this program reads up to {supported}: use a newer ochre", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version this program knows.
        supported: i64,
    },
    /// The disk contradicts itself.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong and where.
        reason: String,
    },
    /// What was acknowledged is not there any more: a file was lost, or put back from another time.
    #[error(
        "{} has lost what was acknowledged: {reason}; put the missing file back, restore a backup, or open it once with --accept-loss to go on with what is there",
        path.display()
    )]
    Lost {
        /// The database directory.
        path: PathBuf,
        /// What shows that something is missing, and what may have happened.
        reason: String,
    },
    /// The machine failed, not the request.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// Whether SQLite met a page that does not match its checksum.
fn is_damaged_page(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(failure, _) if failure.extended_code == rusqlite::ffi::SQLITE_IOERR_DATA)
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path: path.to_owned() }
            }
            _ => Self::Io { action, path: path.to_owned(), reason: error.to_string() },
        }
    }

    pub(crate) fn sqlite(action: &'static str, path: &Path, error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { path: path.to_owned() },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { path: path.to_owned(), reason: error.to_string() }
            }
            _ if is_damaged_page(error) => {
                let page =
                    crate::sqlite::checksums::last_damaged_page().map_or(String::new(), |page| format!(" {page}"));
                let reason = format!("page{page} does not match its checksum: run `ochre check`, and restore a backup");
                Self::Corrupt { path: path.to_owned(), reason }
            }
            _ => Self::Io { action, path: path.to_owned(), reason: error.to_string() },
        }
    }

    /// Whether the machine failed rather than the request, so that the whole group fails with it.
    pub(crate) const fn is_storage(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Io { .. } | Self::Corrupt { .. })
    }
}
