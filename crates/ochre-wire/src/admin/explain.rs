//! How a request was answered: the member `explain` of answers to get and query.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a request was answered.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Explain {
    /// The declared index that answered the filter; of several the first.
    pub index: Option<String>,
    /// `index`, `trigrams`, `scan` or `none` for the filter of a get; for queries how vectors were searched: `exact`,
    /// `scan` (of quantized vectors), `graph`, `graph-then-scan`, `empty`.
    pub strategy: String,
    /// How many records were expected to pass.
    pub matches_estimated: usize,
    /// How many do.
    pub matches_actual: usize,
    /// Entries of indexes, values and documents that were looked at.
    pub rows_examined: u64,
    /// The share of the records that the index used shows as they are; 0 without one.
    pub coverage: f64,
    /// Every index of the collection: which of its columns the filter can use, and why it was used or not.
    pub indexes: Vec<ConsideredIndex>,
    /// How long evaluating the filter took, in microseconds.
    pub filter_micros: u64,
    /// How long searching vectors took, in microseconds; 0 for a get.
    pub search_micros: u64,
    /// How each query embedding was searched for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<SearchPlan>,
    /// All of it in a sentence.
    pub text: String,
}

/// What became of an index when a filter was planned.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConsideredIndex {
    /// Its name.
    pub index: String,
    /// Which of its columns the filter can use, in their order.
    pub columns_used: Vec<String>,
    /// Entries in the ranges of keys: no fewer than match.
    pub estimated: usize,
    /// Whether it was used.
    pub used: bool,
    /// Why.
    pub reason: String,
}

/// How vectors were searched for one query embedding or sparse query.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SearchPlan {
    /// `exact`, `scan`, `graph`, `graph-then-scan`, `postings` (of sparse vectors) or `empty`.
    pub strategy: String,
    /// Nodes of the graph that were measured by their quantized vectors.
    pub visited: usize,
    /// Quantized vectors that were scanned; of sparse vectors the postings that were read.
    pub scanned: usize,
    /// Vectors that were compared exactly.
    pub reranked: usize,
    /// Vectors that the graph does not have, which were scanned.
    pub unindexed: usize,
    /// Vectors of the collection that the last check of its graph could not reach; they are scanned, too.
    pub unreachable: usize,
    /// Whether the graph was searched first, and all quantized vectors scanned after all.
    pub fell_back: bool,
    /// The former name of `reranked`.
    pub measured: usize,
    /// The former name of `unindexed`.
    pub tail: usize,
}
