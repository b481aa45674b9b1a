//! Declared metadata indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

/// What a metadata index is declared to be, and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IndexAnswer {
    /// Its own for as long as it exists, whatever its name.
    pub id: String,
    /// Unique within its database.
    pub index_name: String,
    /// The tenant.
    pub tenant: String,
    /// The database.
    pub database: String,
    /// The name of its collection; null if every collection of the database has it.
    pub collection: Option<String>,
    /// The id of its collection.
    pub collection_id: Option<String>,
    /// The metadata keys, in the order in which they are looked up.
    pub columns: Vec<Column>,
    /// Only records that pass this filter are in it.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub partial: Option<Json>,
    /// Kept up to date, but not used by queries.
    pub hidden: bool,
    /// For people.
    pub comment: String,
    /// `auto` or `ordered`.
    pub kind: String,
    /// `pending`, `building`, `ready`, `rebuilding`, `failed`, `cancelled` or `invalid`.
    pub status: String,
    /// `declared`, or `automatic` if the server created it from a suggestion, and deletes it when nothing uses it.
    pub origin: String,
    /// How far the build is, while there is one.
    pub progress: Option<Progress>,
    /// Why the last build failed.
    pub error: Option<String>,
    /// When it was declared.
    pub created_at: String,
    /// When it was last built.
    pub built_at: Option<String>,
    /// When it was last compared with the records.
    pub verified_at: Option<String>,
    /// The columns that queries use while others are being built.
    pub serving_columns: Option<Vec<Column>>,
    /// What it comes to.
    pub statistics: Statistics,
    /// How often it was used.
    pub usage: Usage,
    /// Of an index of a database: what became of it in each collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collections: Option<Vec<InCollection>>,
    /// What the request did: `building`, `changed`, `cancelled` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// The indexes that were deleted to make room for it, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Vec<String>>,
}

/// A column of an index: a metadata key, alone or with the type of its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = IndexColumn)]
pub enum Column {
    /// A metadata key with values of any type.
    Key(String),
    /// A metadata key with values of a type.
    Typed {
        /// The metadata key.
        key: String,
        /// `string`, `int`, `float`, `bool`, `any`, or one of lists such as `list[string]`.
        #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
        ty: Option<String>,
    },
}

impl Column {
    /// The metadata key.
    pub fn key(&self) -> &str {
        match self {
            Self::Key(key) | Self::Typed { key, .. } => key,
        }
    }
}

/// What became of an index of a database in one collection.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = IndexInCollection)]
pub struct InCollection {
    /// The name of the collection.
    pub collection: String,
    /// Its id.
    pub collection_id: String,
    /// As that of an index.
    pub status: String,
    /// How far the build is, while there is one.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// Why the last build failed.
    #[serde(default)]
    pub error: Option<String>,
    /// When it was last built.
    #[serde(default)]
    pub built_at: Option<String>,
    /// When it was last compared with the records.
    #[serde(default)]
    pub verified_at: Option<String>,
    /// What it comes to; null for a collection that was created just now.
    #[serde(default)]
    pub statistics: Option<Statistics>,
}

/// How far a build is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = IndexProgress)]
pub struct Progress {
    /// What is done now.
    pub phase: String,
    /// Records that are done.
    pub done: u64,
    /// Of so many.
    pub total: u64,
    /// When the build began.
    pub started: String,
    /// Seconds since then.
    pub elapsed_seconds: i64,
    /// Seconds that it takes still, by what was done.
    pub eta_seconds: Option<i64>,
}

/// What an index comes to; over all collections of a database the sums. Null is not known while the collection is not
/// loaded.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = IndexStatistics)]
pub struct Statistics {
    /// Whether the index is in memory: if not, the numbers are those of its last update.
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
    /// Records that it covers.
    pub records_indexed: Option<u64>,
    /// Records of the collection.
    pub records: Option<u64>,
}

/// How often an index was used.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = IndexUsage)]
pub struct Usage {
    /// Filters that used it.
    pub uses: u64,
    /// Records that these found.
    pub rows: u64,
    /// When the last did.
    pub last_used: Option<String>,
    /// Since when that is counted.
    pub since: Option<String>,
}

/// The declared indexes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IndexList {
    /// By tenant, database and name.
    pub indexes: Vec<IndexAnswer>,
}

/// What an index would come to, if it were declared.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IndexEstimate {
    /// True: nothing was declared.
    pub dry_run: bool,
    /// Its name.
    pub index_name: String,
    /// The name of its collection; null if every collection of the database would have it.
    pub collection: Option<String>,
    /// How many collections would have it, if all of a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collections: Option<usize>,
    /// How many records there are.
    pub records: u64,
    /// What its columns are of, in a collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<ColumnEstimate>>,
    /// Pairs of a key and a record, about.
    pub estimated_entries: u64,
    /// Bytes, about.
    pub estimated_bytes: u64,
    /// Seconds that the build takes, about.
    pub estimated_seconds: f64,
    /// Indexes that begin with the same column.
    pub overlaps: Vec<String>,
    /// Whether there is an index of this name.
    pub exists: bool,
}

/// What a column of an index would be of.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ColumnEstimate {
    /// The metadata key.
    pub key: String,
    /// How many records have it.
    pub records: u64,
    /// How many values of each type there are.
    pub types: BTreeMap<String, u64>,
}

/// How an index compares with the records.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct IndexVerification {
    /// Its name.
    pub index_name: String,
    /// Whether nothing is wrong.
    pub valid: bool,
    /// Records that were compared.
    pub records_compared: usize,
    /// Records of which the index says something else.
    pub records_wrong: usize,
    /// Records that it does not cover, which are looked up in columns.
    pub records_outside: usize,
    /// As that of an index.
    pub status: String,
    /// Collections in which its files were missing or damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<String>,
    /// What that means, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What could be done about metadata indexes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SuggestionList {
    /// What most time was spent on first.
    pub suggestions: Vec<Suggestion>,
}

/// What could be done about a metadata index, and the request that does it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = IndexSuggestion)]
pub struct Suggestion {
    /// `missing`, `redundant` or `unused`.
    pub kind: String,
    /// The tenant.
    pub tenant: String,
    /// The database.
    pub database: String,
    /// The name of the collection; null for an index of a database.
    pub collection: Option<String>,
    /// The index that there is; absent if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_name: Option<String>,
    /// Why, in a sentence.
    pub reason: String,
    /// What is said of an index that is missing.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingIndex>,
    /// The request that follows the suggestion.
    pub request: ReadyRequest,
}

/// An index that filters of past requests would have profited from.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct MissingIndex {
    /// Its columns.
    pub columns: Vec<Column>,
    /// How many filters asked for it.
    pub asked: u64,
    /// How long they took on average, in microseconds.
    pub average_micros: u64,
    /// What would be gained.
    pub expected_gain: String,
    /// How large it would be, about, in bytes.
    pub estimated_bytes: usize,
}

/// A request to send as it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReadyRequest {
    /// `POST` or `DELETE`.
    pub method: String,
    /// Path and query string.
    pub path: String,
    /// The body, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub body: Option<Json>,
}
