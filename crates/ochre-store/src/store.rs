//! The seam between the engine and where the truth is kept.
//!
//! What every implementation promises:
//! - A commit concerns one collection, is all-or-nothing and independent of other commits; the store
//!   assigns offsets, vector ids and a dense position per collection. Grouping is its own affair.
//! - [`Observer::committed`] is called in commit order, after the commit is durable and before its
//!   caller gets an answer.
//! - A [`Reader`] is one committed state.
//! - Ids, documents and metadata are ordered bytewise; U+0000 is a character like any other.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use ochre_model::{
    Declaration, DeclarationChange, Filter, HnswConfiguration, IndexSchema, Metadata, RecordBatch, ValueType, WriteKind,
};
use uuid::Uuid;

use crate::block::VectorBlock;
use crate::error::{Error, Result};
use crate::extension::TableWork;
use crate::report::Report;

/// A collection's number: small, internal, never reused within a database.
pub type CollectionNumber = u32;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its unique name.
    pub name: String,
    /// The resource name clients may attach, once.
    pub resource_name: Option<String>,
}

/// A database of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRow {
    /// Its id.
    pub id: Uuid,
    /// Its name, unique within the tenant.
    pub name: String,
    /// The tenant's name.
    pub tenant: String,
}

/// A collection as the catalog has it.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionRow {
    /// Its internal number.
    pub number: CollectionNumber,
    /// Its id for clients.
    pub id: Uuid,
    /// The tenant's name.
    pub tenant: String,
    /// The database's name.
    pub database: String,
    /// Its name, unique within the database.
    pub name: String,
    /// Its metadata, if it has any; what it declares of its records is not in here.
    pub metadata: Option<Metadata>,
    /// What it declares of its records.
    pub declaration: Option<Arc<Declaration>>,
    /// How it is indexed.
    pub schema: IndexSchema,
    /// Floats per embedding; unknown until the first one is written.
    pub dimension: Option<usize>,
    /// The collection that it and its forks descend from, which may be deleted by now; its own id, if it is no fork.
    pub family: Uuid,
}

/// A collection to be made.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "as in CollectionRow")]
pub struct NewCollection {
    pub tenant: String,
    pub database: String,
    pub name: String,
    pub metadata: Option<Metadata>,
    pub declaration: Option<Declaration>,
    pub schema: IndexSchema,
}

/// What to change of a collection; `None` leaves a part as it is.
#[derive(Clone, Debug, Default)]
pub struct Alteration {
    /// The new name.
    pub name: Option<String>,
    /// The new metadata, replacing all of the old; the inner `None` removes it.
    pub metadata: Option<Option<Metadata>>,
    /// New graph parameters.
    pub hnsw: Option<HnswConfiguration>,
    /// A new description of the embedding function, verbatim.
    pub embedding_function: Option<serde_json::Value>,
    /// Changes to what is declared of records.
    pub declaration: DeclarationChange,
    /// Keys that the index schema shall know, with their types.
    pub keys: Vec<(String, ValueType)>,
    /// Only if the collection is at this position still; `Stale` otherwise.
    pub at: Option<u64>,
}

impl Alteration {
    /// Applies the parts that concern the schema to it, keeping what it learned from records.
    pub(crate) fn apply_to_schema(&self, schema: &mut IndexSchema) {
        if let Some(hnsw) = &self.hnsw {
            schema.set_hnsw(hnsw);
        }
        if let Some(function) = &self.embedding_function {
            schema.set_embedding_function(Some(function));
        }
        for (key, ty) in &self.keys {
            schema.learn(key, *ty);
        }
    }

    /// What is declared afterwards.
    pub(crate) fn declared(&self, before: Option<&Arc<Declaration>>) -> Option<Arc<Declaration>> {
        if self.declaration.is_empty() {
            return before.cloned();
        }
        let after = self.declaration.apply(before.map_or(&Declaration::default(), |before| before));
        (!after.is_empty()).then(|| Arc::new(after))
    }
}

/// A slice of a listing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page {
    /// At most this many; all if absent.
    pub limit: Option<u32>,
    /// Skip this many first.
    pub offset: u32,
}

/// A write to one collection.
#[derive(Clone, Debug)]
pub struct Write {
    /// The collection's id.
    pub collection: Uuid,
    /// What to do.
    pub operation: Operation,
    /// Makes repeating the request harmless, for 24 hours.
    pub idempotency: Option<Idempotency>,
    /// Asked within the transaction whether the records may be as the write would leave them.
    pub validator: Option<Arc<dyn RecordValidator>>,
}

/// Decides whether a write may leave records as it would.
pub trait RecordValidator: std::fmt::Debug + Send + Sync {
    /// Looks at every record that the write changes, as it will be; may change its metadata.
    ///
    /// # Errors
    /// Why the write is refused: nothing of it is kept.
    fn validate(
        &self, collection: &CollectionRow, records: &mut [PendingRecord<'_>],
    ) -> std::result::Result<(), String>;
}

/// A record that a write is about to leave behind.
#[derive(Debug)]
pub struct PendingRecord<'a> {
    /// Where it stands in the batch; the last place, if it stands there more than once.
    pub index: usize,
    /// Its id.
    pub id: &'a str,
    /// Metadata and document as they are now; absent for a new record.
    pub before: Option<(Option<&'a Metadata>, Option<&'a str>)>,
    /// All of its metadata afterwards.
    pub metadata: &'a mut Option<Metadata>,
    /// Its document afterwards.
    pub document: Option<&'a str>,
    /// The embedding, if the write brings a new one.
    pub embedding: Option<&'a [f32]>,
}

/// What a write does.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Add, update or upsert records.
    Records {
        /// Which of the three.
        kind: WriteKind,
        /// The records.
        batch: RecordBatch,
    },
    /// Delete records.
    Delete(Selection),
    /// Several writes as one, if what was read before is as it was.
    Conditional(Conditional),
}

impl Operation {
    /// Whether it may add records, or change them.
    pub(crate) fn adds(&self) -> bool {
        match self {
            Self::Records { .. } => true,
            Self::Delete(_) => false,
            Self::Conditional(Conditional { writes, .. }) => {
                writes.iter().any(|write| matches!(write, PartialWrite::Records { .. }))
            }
        }
    }

    /// The batches of records that it brings.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        let (own, writes) = match self {
            Self::Records { batch, .. } => (Some(batch), [].as_slice()),
            Self::Delete(_) => (None, [].as_slice()),
            Self::Conditional(Conditional { writes, .. }) => (None, writes.as_slice()),
        };
        let of_writes = writes.iter().filter_map(|write| match write {
            PartialWrite::Records { batch, .. } => Some(batch),
            PartialWrite::Delete(_) => None,
        });
        own.into_iter().chain(of_writes)
    }
}

/// Several writes as one, if what was read before is as it was.
#[derive(Clone, Debug)]
pub struct Conditional {
    /// What was read, and when.
    pub reads: Option<Reads>,
    /// What to write; no id stands in two of them.
    pub writes: Vec<PartialWrite>,
}

/// Records that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    /// Their ids; those of records that were not there as well.
    pub ids: Vec<String>,
    /// The collection's position at the first of the reads.
    pub at: u64,
}

/// One of several writes.
#[derive(Clone, Debug)]
pub enum PartialWrite {
    /// Add, update or upsert records.
    Records {
        /// Which of the three.
        kind: WriteKind,
        /// The records.
        batch: RecordBatch,
    },
    /// Delete the records of these ids; unknown ones are counted as deleted too.
    Delete(Vec<String>),
}

/// Which records to delete.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These ids; unknown ones are counted as deleted too, as Chroma does.
    Ids(Vec<String>),
    /// What a filter matched on a view of the collection; re-checked for whatever changed since.
    Matching {
        /// The offsets that matched, ascending.
        offsets: Vec<u32>,
        /// The position of the view they matched on.
        at: u64,
        /// The filter itself.
        filter: Filter,
        /// Delete at most this many, oldest first.
        limit: Option<u32>,
    },
}

/// A client's key for one request, and what the request was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, chosen by the client.
    pub key: String,
    /// A hash of the whole request.
    pub request: u128,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The collection's position after it. A write that changes nothing takes no position.
    pub position: u64,
    /// How many records it deleted, by Chroma's way of counting.
    pub deleted: u64,
    /// Whether this is the stored outcome of an earlier request with the same idempotency key.
    pub replayed: bool,
}

/// A commit, as observers see it.
#[derive(Debug)]
pub struct Committed {
    /// The collection.
    pub collection: CollectionNumber,
    /// Its id.
    pub id: Uuid,
    /// Its position after this commit; one more than before it.
    pub position: u64,
    /// What became of each touched record.
    pub changes: Vec<Change>,
    /// The vectors that were appended.
    pub blocks: Vec<Arc<VectorBlock>>,
    /// The catalog row, if the commit changed it (first dimension, new metadata keys).
    pub row: Option<Arc<CollectionRow>>,
}

/// What became of one record.
#[derive(Debug)]
pub enum Change {
    /// It was inserted or changed.
    Put(Put),
    /// It was deleted.
    Delete {
        /// Its offset.
        offset: u32,
    },
}

/// A record after it was inserted or changed.
#[derive(Debug)]
pub struct Put {
    /// Its offset.
    pub offset: u32,
    /// The id of its vector.
    pub vector_id: u64,
    /// Where the vector lies, if it is new: block in [`Committed::blocks`], and row.
    pub vector: Option<(usize, usize)>,
    /// All of its metadata, if that changed (always for a new record).
    pub metadata: Option<Metadata>,
    /// Whether it has a document.
    pub has_document: bool,
    /// Whether the document changed.
    pub document_changed: bool,
}

/// Told of every commit, in order.
pub trait Observer: Send + Sync {
    /// A commit is durable; its answer is sent after this returns.
    fn committed(&self, commit: &Arc<Committed>);
    /// Vectors of these collections lie elsewhere now: fetch the blocks again.
    fn relocated(&self, collections: &[CollectionNumber]);
    /// A collection was made with the records of another one; no commit to either came in between.
    fn forked(&self, source: &CollectionRow, fork: &CollectionRow);
    /// After a storage failure the store was reopened: forget every view.
    fn reopened(&self);
}

/// Which parts of rows to read.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Parts {
    pub metadata: bool,
    pub document: bool,
    pub uri: bool,
}

/// A record as read; parts that were not asked for are `None`.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RowRef<'a> {
    pub offset: u32,
    pub id: &'a str,
    pub vector_id: u64,
    /// The position of the commit that last changed the record.
    pub position: u64,
    /// Canonical text, see [`Metadata::from_text`].
    pub metadata: Option<&'a str>,
    pub uri: Option<&'a str>,
    pub document: Option<&'a str>,
    /// Whether there is a document, read or not. Only set by [`Reader::scan`].
    pub has_document: bool,
}

/// Where a collection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The position of its last commit; 0 before the first.
    pub position: u64,
    /// How many records it holds.
    pub records: u64,
    /// The offset its next record will get.
    pub next_offset: u32,
    /// How many records its commits inserted, changed or deleted so far.
    pub operations: u64,
}

/// One committed state of the database.
pub trait Reader {
    /// Where a collection stands; `None` if there is none of this number.
    fn head(&self, collection: CollectionNumber) -> Result<Option<Head>>;
    /// The rows at these offsets, in their order; offsets without a row are skipped.
    fn rows(
        &self, collection: CollectionNumber, offsets: &[u32], parts: Parts,
        visit: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> Result<()>;
    /// The documents at these ascending offsets; offsets without one are skipped.
    fn documents(&self, collection: CollectionNumber, offsets: &[u32], visit: &mut dyn FnMut(u32, &str)) -> Result<()>;
    /// Every row with its metadata, by offset.
    fn scan(&self, collection: CollectionNumber, visit: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>) -> Result<()>;
    /// All vector blocks of a collection: those of this state, except vectors that newer commits
    /// replaced, and maybe those of newer commits. Damaged blocks say so when a vector is read from them.
    fn vector_blocks(&self, collection: CollectionNumber) -> Result<Vec<Arc<VectorBlock>>>;
    /// The offsets that commits after a position touched, ascending; `None` if the log does not reach back so far.
    fn changed_since(&self, collection: CollectionNumber, position: u64) -> Result<Option<Vec<u32>>>;
    /// The offsets of these ids; unknown ids are skipped.
    fn offsets(&self, collection: CollectionNumber, ids: &mut dyn Iterator<Item = &str>) -> Result<Vec<u32>>;
}

/// One bounded step of upkeep. Each may be killed anywhere and changes no answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Upkeep {
    /// Removes a slice of the rows of deleted collections, and of what only they read.
    SweepDeleted,
    /// Moves some rows of a layer that is the only one above another, since forks were deleted, into the layer below.
    MergeLayers,
    /// Removes some records that forks share and each of them has deleted or replaced. Looks at all that forks wrote.
    PurgeUnread,
    /// Forgets log entries, some at a time: those that every consumer has passed, but for those of the last minutes,
    /// of which the last thousand of each collection are kept; and idempotency keys older than 24 hours.
    PruneLog,
    /// Copies the write-ahead log back into the database file.
    Checkpoint {
        /// Also wait for readers, up to two seconds, and cut the file to nothing.
        truncate: bool,
    },
    /// Refreshes the statistics by which the database plans its own queries.
    Optimize,
    /// Gives free pages back to the file system, some at a time.
    Vacuum {
        /// How many pages of 4 KiB.
        pages: u64,
    },
    /// Rewrites the whole database file, for one that grew without being able to shrink. Writes wait.
    FullVacuum,
    /// Rewrites the live vectors of a sealed segment whose dead share passed this.
    CompactVectors {
        /// Between 0 and 1.
        dead_share_max: f64,
    },
    /// Seals the segment being written, so that it can be mapped and compacted: if it holds at least this
    /// many bytes, or at least a MiB of dead vectors that are more than this share of it.
    SealVectors {
        /// In bytes.
        min_bytes: u64,
        /// Between 0 and 1.
        dead_share_max: f64,
    },
}

/// Sizes on disk, in bytes unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Statistics {
    pub database_bytes: u64,
    pub wal_bytes: u64,
    pub free_bytes: u64,
    pub segment_bytes: u64,
    pub dead_vector_bytes: u64,
    /// Dead bytes in the segment that has the largest share of them, and that share.
    pub most_dead_bytes: u64,
    pub most_dead_share: f64,
    /// Bytes in the segment that is being written, and how many of them are dead.
    pub open_segment_bytes: u64,
    pub open_segment_dead_bytes: u64,
    pub segment_count: u64,
    /// Whether every page of the database file has a checksum.
    pub has_checksums: bool,
}

/// What is left to be removed of the log and the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debt {
    /// Entries of the log, and idempotency keys, that no one needs any more.
    pub prunable_entries: u64,
    /// Collections that were deleted and still take space.
    pub deleted_collections: u64,
    /// Whether anything is left to [`Upkeep::MergeLayers`].
    pub has_mergeable_layers: bool,
    /// Whether any collection shares records with forks, or did.
    pub has_forks: bool,
}

/// Records that a collection deleted or replaced, and that its forks or its source still read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldByForks {
    /// The collection's name.
    pub collection: String,
    /// How many records.
    pub records: u64,
    /// The names of those that read them.
    pub forks: Vec<String>,
}

/// A copy of the database at one moment, or of what changed since another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// How many changes the database has seen: commits, and changes of the catalog.
    pub position: u64,
    /// The database's epoch.
    pub epoch: u64,
    /// The database's id: another one after a restore.
    pub database_id: u64,
    /// The id that the next new vector gets.
    pub next_vector_id: u64,
    /// Where each collection stands.
    pub collections: Vec<CopiedCollection>,
    /// What has to be kept.
    pub files: Vec<CopiedFile>,
}

/// A collection in a copy, and in the manifest of a backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "as in CollectionRow and Head")]
pub struct CopiedCollection {
    pub number: CollectionNumber,
    pub id: Uuid,
    pub tenant: String,
    pub database: String,
    pub name: String,
    pub position: u64,
    pub records: u64,
}

/// A file that belongs to a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedFile {
    /// Its name within a database directory.
    pub name: String,
    /// Where it is now.
    pub path: std::path::PathBuf,
    /// So many of its bytes, which do not change any more.
    pub bytes: u64,
}

/// The truth: catalog, records, vectors, log.
pub trait Store: Send + Sync {
    /// Makes a tenant.
    fn create_tenant(&self, name: &str) -> Result<()>;
    /// A tenant by name.
    fn tenant(&self, name: &str) -> Result<Option<Tenant>>;
    /// The tenant a resource name is attached to.
    fn tenant_by_resource_name(&self, resource_name: &str) -> Result<Option<Tenant>>;
    /// Attaches a resource name to a tenant; `NotFound` if there is none.
    fn set_resource_name(&self, tenant: &str, resource_name: &str) -> Result<()>;
    /// Makes a database.
    fn create_database(&self, tenant: &str, name: &str) -> Result<DatabaseRow>;
    /// A database by name.
    fn database(&self, tenant: &str, name: &str) -> Result<Option<DatabaseRow>>;
    /// The databases of a tenant, by name.
    fn databases(&self, tenant: &str, page: Page) -> Result<Vec<DatabaseRow>>;
    /// Deletes a database and its collections.
    fn delete_database(&self, tenant: &str, name: &str) -> Result<()>;
    /// Makes a collection; its database must exist.
    fn create_collection(&self, new: NewCollection) -> Result<CollectionRow>;
    /// Makes a collection with the records and the descriptions of another one, in the same database, at the same
    /// position. Nothing is copied: what either writes afterwards, the other does not see.
    fn fork_collection(&self, source: Uuid, name: &str) -> Result<CollectionRow>;
    /// How many collections descend from one, itself among them if it is there still.
    fn count_family(&self, family: Uuid) -> Result<u64>;
    /// For each collection the records that it deleted or replaced and that others of its family still read.
    fn held_by_forks(&self) -> Result<Vec<HeldByForks>>;
    /// A collection by name.
    fn collection(&self, tenant: &str, database: &str, name: &str) -> Result<Option<CollectionRow>>;
    /// A collection by id.
    fn collection_by_id(&self, id: Uuid) -> Result<Option<CollectionRow>>;
    /// The collections of a database, by id.
    fn collections(&self, tenant: &str, database: &str, page: Page) -> Result<Vec<CollectionRow>>;
    /// The collections of all databases.
    fn all_collections(&self) -> Result<Vec<CollectionRow>>;
    /// How many changes the database has seen: commits, and changes of the catalog.
    fn position(&self) -> Result<u64>;
    /// How many collections a database has.
    fn count_collections(&self, tenant: &str, database: &str) -> Result<u64>;
    /// Changes a collection.
    fn alter_collection(&self, id: Uuid, alteration: Alteration) -> Result<CollectionRow>;
    /// Deletes a collection. Its rows and vectors go in slices, by upkeep.
    fn delete_collection(&self, id: Uuid) -> Result<()>;
    /// Deletes everything and begins a new epoch.
    fn reset(&self) -> Result<()>;
    /// A number that changes when history does; snapshots of another epoch are worthless.
    fn epoch(&self) -> u64;
    /// The database's id, the same for as long as it lives; a restored one has another.
    fn database_id(&self) -> Result<u64>;
    /// Lets the validator of a write see what it would leave behind, on what is committed now and without keeping
    /// anybody from writing. Its verdict is not returned: it is asked again when the write is committed.
    fn preview(&self, write: &Write) -> Result<()>;
    /// Commits one write.
    fn commit(&self, write: Write) -> Result<Outcome>;
    /// A consistent view of everything committed so far. Do not commit while holding one.
    fn read(&self) -> Result<Box<dyn Reader + '_>>;
    /// Sets who is told of commits.
    fn observe(&self, observer: Arc<dyn Observer>);
    /// One step of upkeep; whether there is more to do.
    fn upkeep(&self, upkeep: Upkeep) -> Result<bool>;
    /// Sizes on disk.
    fn statistics(&self) -> Result<Statistics>;
    /// What is left to be removed; looks at every collection.
    fn debt(&self) -> Result<Debt>;
    /// Keeps log entries past these positions for a consumer, instead of those it held before. Collections
    /// not named are not held.
    fn retain_log(&self, holder: &str, positions: &[(CollectionNumber, u64)]) -> Result<()>;
    /// As [`Store::retain_log`], for the snapshot of one collection, whatever is held of others; `None` lets go. Much
    /// less is held for it: what it saves is read again in the end.
    fn retain_log_for_snapshot(&self, collection: CollectionNumber, position: Option<u64>) -> Result<()>;
    /// Copies the database as it is now into `folder`, for a backup. What is not copied there is named where
    /// it lies, and stays as it is while no compaction runs.
    fn copy_whole(&self, folder: &std::path::Path) -> Result<Copy>;
    /// As [`Store::copy_whole`], but only what changed since another copy was made.
    fn copy_changes(&self, before: &Copy, folder: &std::path::Path) -> Result<Copy>;
    /// Checks everything that is stored against itself and its checksums, while it is in use. `pace` is asked
    /// before each step, with what it is about and how many were done; once it says `false`, the check stops
    /// and the answer is `None`. Compaction must not run meanwhile.
    fn scrub(&self, pace: &mut dyn FnMut(&str, u64) -> bool) -> Result<Option<Report>>;
    /// How long requests have waited for a step of upkeep that kept the writer, in all.
    fn waited_for_upkeep(&self) -> Duration;
    /// Lets go of mapped pages, which are read again where they are needed.
    fn drop_pages(&self);
    /// Makes the tables of an extension, or brings them to the newest version: `migrations[n]` brings version `n` to
    /// `n + 1`. What they make is named `<name>_…`.
    fn extend(&self, name: &str, migrations: &[&str]) -> Result<()>;
    /// Changes tables of extensions, in one transaction. The database's position moves, so that backups take it.
    fn change_tables(&self, work: TableWork<'_>) -> Result<()>;
    /// As [`Store::change_tables`], for what is no reason to take a backup.
    fn touch_tables(&self, work: TableWork<'_>) -> Result<()>;
    /// Reads tables of extensions, in one state.
    fn read_tables(&self, work: TableWork<'_>) -> Result<()>;
}

/// How many distinct metadata keys a collection may have.
pub(crate) const KEYS_PER_COLLECTION_MAX: usize = 10_000;
/// Collections of a database in all its life, layers of forks among them.
pub(crate) const COLLECTIONS_MAX: u32 = 1 << 31;
/// Why there can be no more of them.
pub(crate) const NO_NUMBER_LEFT: &str = "a database makes at most 2³¹ collections in its life";
/// Forks that share records with each other and their source.
pub const FORKS_MAX: usize = 256;

/// Refuses one more fork beside those there are.
pub(crate) fn refuse_more_forks(name: &str, forks: u64) -> Result<()> {
    if forks < FORKS_MAX as u64 {
        return Ok(());
    }
    Err(Error::Limit(format!(
        "'{name}' and the collections it shares records with have {forks} forks, which is the limit: delete some of them"
    )))
}

/// How many log entries a collection keeps: a filter that was resolved on an older state is resolved again.
pub(crate) const LOG_ENTRIES_KEPT: u64 = 1_000;
/// How many log entries a consumer can hold back; past it the consumer has to begin again.
pub(crate) const LOG_ENTRIES_HELD_MAX: u64 = 1_000_000;
/// How many log entries the snapshot of a collection can hold back.
pub(crate) const LOG_ENTRIES_HELD_FOR_SNAPSHOT_MAX: u64 = 20_000;
/// How long idempotency keys are kept, in seconds.
pub(crate) const IDEMPOTENCY_SECONDS: i64 = 24 * 60 * 60;
/// The tenant that always exists.
pub const DEFAULT_TENANT: &str = "default_tenant";
/// The database that always exists, with the nil UUID as id.
pub const DEFAULT_DATABASE: &str = "default_database";
