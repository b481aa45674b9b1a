//! The embedded database: open one, write to it, read from it; it maintains itself meanwhile.
//!
//! ```
//! use ochre_engine::{Database, Include, NewRecords, QueryRequest};
//!
//! # fn main() -> Result<(), ochre_engine::Error> {
//! let database = Database::ephemeral()?;
//! let notes = database.create_collection("notes")?;
//! notes.add(NewRecords::new(["a", "b"], [[1.0, 0.0], [0.0, 1.0]]).documents(["apples", "bears"]))?;
//!
//! let answer = notes.query(&QueryRequest::nearest_to([0.9, 0.1]).k(1).include(Include::ALL))?;
//! assert_eq!(answer.results[0][0].record.document.as_deref(), Some("apples"));
//! # Ok(())
//! # }
//! ```
//!
//! Synchronous, and knows nothing of HTTP: async begins in `ochre-server`. Every answer is one committed
//! state of its collection; a write that was acknowledged survives kill -9 and power loss.

mod backup;
mod block;
mod check;
mod collection;
mod database;
mod error;
mod extension;
mod governor;
mod index_sync;
mod introspect;
mod loaded;
mod machine;
mod maintenance;
mod metadata_indexes;
mod options;
mod read;
mod records_sync;
mod residence;
mod schemas;
mod signals;
mod snapshot;
mod text_search;
mod text_sync;
mod traffic;
mod write;

pub use backup::{
    BACKUP_VERSION, BackedUpFile, BackupKind, BackupTarget, BackupTargets, BackupTrust, DirectoryTarget, Faults,
    Manifest, Repository, RestoreAt, RestoreOptions,
};
pub use check::{check, check_with};
pub use collection::Collection;
pub use database::{CollectionOptions, Database};
pub use error::Error;
pub use extension::{Commit, StoreExtension, WeakDatabase, metadata_indexes};
pub use introspect::{Against, Candidate, IntrospectMode, IntrospectRequest, Validation};
pub use metadata_indexes::{Explain, IndexChange, IndexDefinition, IndexSelection, UnindexedFilters};
pub use options::Options;
pub use read::{GetRequest, Include, Query, QueryHit, QueryRequest, QueryResults, Record, StoredMetadata};
pub use schemas::{RecordViolation, ViolationCount, Violations};
pub use text_search::TextHit;
pub use write::{DeleteRequest, NewRecords};

pub use ochre_index::{Hints, IndexColumn, IndexShape, Memory, Plan, Strategy};
pub use ochre_kernels::give_back_large_buffers;
pub use ochre_model as model;
pub use ochre_scheduler as scheduler;
pub use ochre_schema as schema;
pub use ochre_store::rusqlite as tables;
pub use ochre_store::{
    Alteration, CollectionRow, CopiedCollection, DEFAULT_DATABASE, DEFAULT_TENANT, DatabaseRow, Debt, Disk, DiskFile,
    Error as StoreError, ExtensionTables, Finding, Idempotency, Outcome, Page, RealDisk, Report, Resource, Statistics,
    Store, Tenant,
};
pub use uuid::Uuid;
