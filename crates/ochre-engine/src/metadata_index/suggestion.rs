//! What could be done about metadata indexes.

use super::definition::{ColumnDefinition, IndexDefinition};

/// What could be done about the metadata indexes of a collection or a database, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// Its tenant.
    pub tenant: String,
    /// Its database.
    pub database: String,
    /// The name of the collection; absent for an index of a database.
    pub collection: Option<String>,
    /// The index that there is, or a name for the one that is missing.
    pub index_name: String,
    /// Why, in a sentence.
    pub reason: String,
    /// What it is about.
    pub kind: SuggestionKind,
}

/// What a suggestion is about.
#[derive(Clone, Debug, PartialEq)]
pub enum SuggestionKind {
    /// Filters of past requests would have profited from an index.
    Missing(MissingIndex),
    /// Another index answers the same filters.
    Redundant,
    /// Nothing used the index for long.
    Unused,
}

/// An index that filters of past requests would have profited from.
#[derive(Clone, Debug, PartialEq)]
pub struct MissingIndex {
    /// Its columns, as in a definition.
    pub columns: Vec<ColumnDefinition>,
    /// How many filters asked for it.
    pub asked: u64,
    /// How long they took on average, in microseconds.
    pub average_micros: u64,
    /// By which factor fewer values would have been looked at.
    pub gain: u64,
    /// How large it would be, about, in bytes.
    pub estimated_bytes: usize,
}

impl Suggestion {
    /// The definition of an index that is missing.
    pub fn definition(&self) -> Option<IndexDefinition> {
        let SuggestionKind::Missing(MissingIndex { columns, .. }) = &self.kind else { return None };
        Some(IndexDefinition {
            index_name: self.index_name.clone(),
            tenant: self.tenant.clone(),
            database: self.database.clone(),
            collection: self.collection.clone(),
            columns: columns.clone(),
            ..IndexDefinition::default()
        })
    }
}
