//! Records that `find` finds.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use utoipa::ToSchema;

/// Records that were found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FoundRecords {
    /// The best first.
    pub records: Vec<FoundRecord>,
    /// What ranks them.
    pub ranking: Ranking,
    /// Whether records were left out, or documents cut, to keep the answer short.
    pub truncated: bool,
}

/// What ranks records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ranking {
    /// The distance of their embeddings.
    Distance,
    /// The words of their documents (BM25).
    Words,
    /// Nothing: the order in which they were inserted.
    None,
}

/// A record that was found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FoundRecord {
    /// Its id.
    pub id: String,
    /// Its document.
    #[schema(required = false)]
    pub document: Option<String>,
    /// Its metadata.
    #[schema(value_type = Option<Object>, required = false)]
    pub metadata: Option<Map<String, Json>>,
    /// Smaller is nearer; if embeddings rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub distance: Option<f64>,
    /// Larger fits better; if words rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub score: Option<f64>,
}
