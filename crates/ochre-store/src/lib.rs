//! The truth on disk: catalog, records, log and vectors.
//!
//! [`Store`] is the seam: the engine above knows nothing of files or SQL. [`SqliteStore`] is the embedded
//! default, [`MemoryStore`] serves ephemeral databases and tests; one contract suite runs on both.
//!
//! Not here: anything derived from the truth (columns, graphs, snapshots: `ochre-index`), and when
//! upkeep runs (`ochre-engine`).

mod block;
mod check;
mod definitions;
mod disk;
mod error;
mod extension;
mod head;
mod lock;
mod mapping;
mod memory;
mod quarantine;
mod report;
mod reserve;
mod resolve;
mod segment;
mod segments;
mod sqlite;
mod store;

pub use block::{Damage, VectorBlock};
pub use check::check;
pub use definitions::ExtensionTables;
pub use disk::{Disk, DiskFile, DiskWriter, RealDisk, free_bytes};
pub use error::{Error, Resource, Result};
pub use extension::TableWork;
pub use lock::Owner;
pub use mapping::{SharedBytes, read_shared};
pub use memory::MemoryStore;
pub use report::{Finding, Report};
pub use rusqlite;
pub use segment::SEGMENT_VERSION;
pub use sqlite::{SCHEMA_VERSION, SqliteOptions, SqliteStore};
pub use store::{
    Alteration, Change, CollectionNumber, CollectionRow, Committed, Conditional, CopiedCollection, CopiedFile, Copy,
    DEFAULT_DATABASE, DEFAULT_TENANT, DatabaseRow, Debt, FORKS_MAX, Head, HeldByForks, Idempotency, NewCollection,
    Observer, Operation, Outcome, Page, PartialWrite, Parts, PendingRecord, Put, Reader, Reads, RecordValidator,
    RowRef, Selection, Statistics, Store, Tenant, Upkeep, Write,
};
