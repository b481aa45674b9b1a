//! Why the engine refused or failed, grouped by what the caller can do about it.

use std::sync::Arc;

use ochre_model::budget::Exceeded;
use ochre_store::{Error as StoreError, Resource};

use crate::metadata_index::unindexed::UnindexedFilter;
use crate::violations::Violations;

/// Why the engine refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Never succeeds as written: fix the request.
    #[error(transparent)]
    Invalid(Invalid),
    /// The definition of a metadata index never comes to an index as written: fix it.
    #[error(transparent)]
    InvalidIndex(Invalid),
    /// There is nothing of this name: the text says what and where.
    #[error("{0}")]
    NotFound(String),
    /// Something is in the way: the text says what.
    #[error("{0}")]
    Conflict(String),
    /// The collection was configured not to be filtered like this.
    #[error("{0}")]
    NotFilterable(String),
    /// No metadata index answers the filter, and the options refuse such filters.
    #[error("{0}")]
    Unindexed(UnindexedFilter),
    /// Records break the schema that their collection declares; nothing of the batch was kept.
    #[error("{0}")]
    Violations(Arc<Violations>),
    /// The schema that is to be declared cannot be: the text says where and why.
    #[error("{0}")]
    InvalidSchema(#[from] ochre_schema::InvalidSchema),
    /// Vectors that the request needs cannot be read: restore them from a backup, or write them again.
    /// Counting, fetching without embeddings and filtering still work.
    #[error("{0}")]
    Damaged(String),
    /// Too many vectors wait to be indexed: try again later.
    #[error(
        "the collection has {waiting_bytes} bytes of vectors waiting to be indexed, more than the limit of {limit_bytes}: try again later"
    )]
    Busy {
        /// Bytes waiting.
        waiting_bytes: usize,
        /// The limit, see `Options::unindexed_bytes_max`.
        limit_bytes: usize,
    },
    /// The request may not go on: it needs more memory or time than one may have, or nobody waits for it any more.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The process is at its limit of memory, with nothing left to unload: try again later, or raise the limit.
    #[error(
        "more memory is in use than the limit of {limit_bytes} bytes, and nothing is left to unload: try again later, write smaller batches, or raise `memory.limit_bytes`"
    )]
    MemoryFull {
        /// The limit, see `Options::memory_limit`.
        limit_bytes: u64,
    },
    /// A backup cannot be taken, read or restored: the text says which, what and why.
    #[error("{0}")]
    Backup(String),
    /// A backup is not whole: the text says which part is missing or damaged.
    #[error("{0}")]
    DamagedBackup(String),
    /// Maintenance could not do its work.
    #[error("{job}: {reason}")]
    Maintenance {
        /// The job.
        job: String,
        /// What went wrong.
        reason: String,
    },
    /// A job cannot be scheduled, changed or found like this.
    #[error(transparent)]
    Schedule(Arc<ochre_scheduler::Error>),
    /// The database cannot be opened with these options: the text says which and why.
    #[error("{0}")]
    Options(String),
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// What the store says: names, conflicts, the state of the disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What of a request is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// The member of the request, such as `embeddings`; absent if it is the request as a whole.
    pub field: Option<&'static str>,
    /// What is wrong with it, which of several, and what to do.
    pub reason: String,
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.field {
            Some(field) => write!(f, "{field}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl Error {
    /// The request as a whole cannot be carried out.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid(Invalid { field: None, reason: reason.into() })
    }

    /// A member of the request is not what it should be.
    pub fn invalid_field(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid(Invalid { field: Some(field), reason: reason.into() })
    }

    /// A member of the definition of a metadata index is not what it should be.
    pub(crate) fn invalid_index(field: &'static str, reason: impl Into<String>) -> Self {
        Self::InvalidIndex(Invalid { field: Some(field), reason: reason.into() })
    }

    pub(crate) fn no_collection(name: impl std::fmt::Display) -> Self {
        Self::Store(StoreError::NotFound { kind: Resource::Collection, name: name.to_string() })
    }
}

impl From<ochre_index::Damaged> for Error {
    fn from(damaged: ochre_index::Damaged) -> Self {
        Self::Damaged(damaged.0)
    }
}

impl From<ochre_scheduler::Error> for Error {
    fn from(error: ochre_scheduler::Error) -> Self {
        Self::Schedule(Arc::new(error))
    }
}

impl Error {
    /// Whether this says that something does not exist, and what.
    pub fn not_found(&self) -> Option<(Resource, &str)> {
        match self {
            Self::Store(StoreError::NotFound { kind, name }) => Some((*kind, name)),
            _ => None,
        }
    }
}
