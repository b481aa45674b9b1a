//! What callers see of declared indexes: what they are declared to be, how far they are, what they come to.

use std::collections::BTreeMap;

use ochre_model::ValueType;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::definition::{ColumnDefinition, IndexDefinition};

/// A declared index, as it is now. Times are in seconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataIndex {
    /// Its own for as long as it exists, whatever its name.
    pub id: Uuid,
    /// What it is declared to be; its collection by name, absent if every collection of the database has it, or if the
    /// collection is gone.
    pub definition: IndexDefinition,
    /// The collection; absent if every collection of the database has it.
    pub collection_id: Option<Uuid>,
    /// How far it is; of all collections of a database, the one that is least well.
    pub status: IndexStatus,
    /// Who declared it.
    pub origin: IndexOrigin,
    /// How far the build is, while there is one.
    pub progress: Option<IndexProgress>,
    /// Why the last build failed.
    pub error: Option<String>,
    /// When it was declared.
    pub created_at: i64,
    /// When it was last built.
    pub built_at: Option<i64>,
    /// When it was last compared with the records.
    pub verified_at: Option<i64>,
    /// The columns that queries use, if they are others than those of the definition, which are being built.
    pub serving_columns: Option<Vec<ColumnDefinition>>,
    /// What it comes to.
    pub statistics: IndexStatistics,
    /// How often it was used.
    pub usage: IndexUsage,
    /// Of an index of a database: what became of it in each collection.
    pub collections: Option<Vec<CollectionIndex>>,
}

/// What became of an index of a database in one collection. Times are in seconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "as those of a MetadataIndex")]
pub struct CollectionIndex {
    pub collection: String,
    pub collection_id: Uuid,
    pub status: IndexStatus,
    pub progress: Option<IndexProgress>,
    pub error: Option<String>,
    pub built_at: Option<i64>,
    pub verified_at: Option<i64>,
    /// Absent for a collection that was made just now.
    pub statistics: Option<IndexStatistics>,
}

/// How far an index is. In the order of precedence: what is said of an index of many collections is the first of these
/// that one of them has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexStatus {
    /// No build succeeded.
    Failed,
    /// It differs from the records, and is used no more until it is rebuilt.
    Invalid,
    /// The first build is under way.
    Building,
    /// A build is under way or waits; the index before it is used.
    Rebuilding,
    /// The first build waits.
    Pending,
    /// The first build was cancelled.
    Cancelled,
    /// It is used.
    Ready,
}

impl IndexStatus {
    /// All there are.
    pub const ALL: [Self; 7] =
        [Self::Failed, Self::Invalid, Self::Building, Self::Rebuilding, Self::Pending, Self::Cancelled, Self::Ready];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Building => "building",
            Self::Rebuilding => "rebuilding",
            Self::Pending => "pending",
            Self::Cancelled => "cancelled",
            Self::Ready => "ready",
        }
    }
}

/// Who declared an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexOrigin {
    /// Somebody did, or changed one that was created automatically: it stays until somebody deletes it.
    #[default]
    Declared,
    /// The job that builds indexes did, from a suggestion; it deletes what nothing uses.
    Automatic,
}

impl IndexOrigin {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Automatic => "automatic",
        }
    }
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexProgress {
    /// Records that are done …
    pub done: u64,
    /// … of so many.
    pub total: u64,
    /// When it began, in seconds since 1970, UTC.
    pub started: i64,
    /// Seconds since then.
    pub elapsed_seconds: i64,
}

impl IndexProgress {
    /// Seconds that it takes still, by what was done.
    pub fn eta_seconds(&self) -> Option<i64> {
        let left = self.total.saturating_sub(self.done).cast_signed();
        (self.done > 0).then(|| self.elapsed_seconds.saturating_mul(left) / self.done.cast_signed())
    }
}

/// What an index comes to; over all collections of a database the sums. What is absent is not known while the
/// collection is not loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexStatistics {
    /// Whether the collection is in memory, with the index: if not, the numbers are those of its last update.
    pub loaded: bool,
    /// Bytes of its files.
    pub bytes_on_disk: u64,
    /// Bytes in memory.
    pub bytes_in_memory: Option<u64>,
    /// Pairs of a key and a record.
    pub entries: Option<u64>,
    /// Different keys.
    pub distinct_keys: Option<u64>,
    /// Records of the key that most have.
    pub largest_key: Option<u64>,
    /// Parts that it consists of.
    pub segments: Option<u64>,
    /// Records that it covers …
    pub records_indexed: Option<u64>,
    /// … of so many.
    pub records: Option<u64>,
}

/// How often an index was used. Times are in seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexUsage {
    /// Filters that used it.
    pub uses: u64,
    /// Records that these found.
    pub rows: u64,
    /// When the last did.
    pub last_used: Option<u64>,
    /// Since when that is counted.
    pub since: Option<u64>,
}

/// What an index would come to.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexEstimate {
    /// Its name.
    pub index_name: String,
    /// The name of its collection; absent if every collection of the database would have it.
    pub collection: Option<String>,
    /// How many collections would have it, if all of a database.
    pub collections: Option<usize>,
    /// How many records there are.
    pub records: u64,
    /// What its columns are of, in a collection.
    pub columns: Vec<ColumnEstimate>,
    /// Pairs of a key and a record, about.
    pub entries: u64,
    /// Bytes, about.
    pub bytes: u64,
    /// Seconds that the build takes, about.
    pub seconds: f64,
    /// Indexes that begin with the same column.
    pub overlaps: Vec<String>,
    /// Whether there is an index of this name.
    pub exists: bool,
}

/// What a column of an index would be of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnEstimate {
    /// The metadata key.
    pub key: String,
    /// How many records have it.
    pub records: u64,
    /// How many values of each type there are.
    pub types: BTreeMap<ValueType, u64>,
}

/// How an index compares with the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexVerification {
    /// Its name.
    pub index_name: String,
    /// How far it is now.
    pub status: IndexStatus,
    /// Records that were compared.
    pub records_compared: usize,
    /// Records of which the index says something else.
    pub records_wrong: usize,
    /// Records that it does not cover, which are looked up in columns.
    pub records_outside: usize,
    /// Collections in which its files were missing or damaged: filters are answered from columns there.
    pub discarded: Vec<String>,
}

impl IndexVerification {
    /// Whether nothing is wrong.
    pub const fn is_valid(&self) -> bool {
        self.records_wrong == 0 && self.discarded.is_empty()
    }
}
