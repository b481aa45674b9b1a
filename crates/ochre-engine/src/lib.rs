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
mod cache_dir;
mod catalog;
mod check;
mod collection;
mod database;
mod error;
mod extension;
mod functions;
mod indexing;
mod inner;
mod introspect;
mod maintenance;
mod metadata_index;
mod options;
mod query;
mod schemas;
mod settings;
mod throttle;
mod violations;
mod write;

pub use backup::manifest::{BACKUP_VERSION, BackedUpFile, BackupKind, BackupTrust, Manifest};
pub use backup::repository::{Faults, Repository};
pub use backup::restore::RestoreAt;
pub use backup::restore_request::RestoreOptions;
pub use backup::target::{BackupTarget, BackupTargets, DirectoryTarget};
pub use catalog::CollectionOptions;
pub use check::{check, check_with};
pub use collection::handle::{Collection, IndexingStatus};
pub use collection::record::{Include, Record, StoredMetadata};
pub use database::Database;
pub use error::{Error, Invalid};
pub use extension::{StoreExtension, WeakDatabase};
pub use functions::attached::{AttachedFunction, Function};
pub use introspect::validate::{Candidate, Validation};
pub use introspect::{Against, IntrospectMode, IntrospectRequest};
pub use metadata_index::definition::{ColumnDefinition, IndexDefinition, PartialFilter};
pub use metadata_index::extension::metadata_indexes;
pub use metadata_index::registry::{IndexChange, IndexSelection};
pub use metadata_index::status::{
    CollectionIndex, ColumnEstimate, IndexEstimate, IndexOrigin, IndexProgress, IndexStatistics, IndexStatus,
    IndexUsage, IndexVerification, MetadataIndex,
};
pub use metadata_index::suggestion::{MissingIndex, Suggestion, SuggestionKind};
pub use metadata_index::unindexed::{UnindexedFilter, UnindexedRemedy};
pub use options::Options;
pub use query::explain::Explain;
pub use query::request::{FilterWarnings, GetRequest, GetResults, Query, QueryHit, QueryRequest, QueryResults};
pub use query::search_request::{Search, SearchHit, SearchRequest, SearchResults, Select};
pub use query::text::TextHit;
pub use settings::UnindexedFilters;
pub use violations::{RecordViolation, ViolationCount, ViolationOutcome, Violations};
pub use write::conditional::{ConditionalCommit, ConditionalWrite};
pub use write::publish::Commit;
pub use write::request::{DeleteRequest, NewRecords};

pub use ochre_index::{Considered, Hints, IndexColumn, IndexShape, Memory, Plan, Reason, Strategy};
pub use ochre_kernels::set_mmap_threshold;
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
