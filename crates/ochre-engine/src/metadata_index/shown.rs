//! What callers see of declared indexes, and of those that are suggested.

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::definition::IndexDefinition;

/// A declared index, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataIndex {
    /// Its tenant.
    pub tenant: String,
    /// Its database.
    pub database: String,
    /// The name of its collection; absent if every collection of the database has it, or if its collection is gone.
    pub collection: Option<String>,
    /// Its name within the database.
    pub name: String,
    /// `pending`, `building`, `ready`, `rebuilding`, `failed`, `cancelled` or `invalid`.
    pub status: String,
    /// All there is to say of it: definition, progress, statistics and use, as an object.
    pub details: Json,
}

impl MetadataIndex {
    pub(crate) fn new(definition: &IndexDefinition, collection: Option<String>, details: Json) -> Self {
        Self {
            tenant: definition.tenant.clone(),
            database: definition.database.clone(),
            collection,
            name: definition.index_name.clone(),
            status: details["status"].as_str().unwrap_or_default().to_owned(),
            details,
        }
    }
}

/// A member of what there is to say of it; null if it has none of this name.
impl std::ops::Index<&str> for MetadataIndex {
    type Output = Json;

    fn index(&self, member: &str) -> &Json {
        &self.details[member]
    }
}

impl Serialize for MetadataIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.details.serialize(serializer)
    }
}

impl std::fmt::Display for MetadataIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.details.fmt(f)
    }
}

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
    pub columns: Vec<Json>,
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
