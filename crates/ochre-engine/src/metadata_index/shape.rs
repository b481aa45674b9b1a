//! What a definition comes to in a collection, and what is refused of it.

use ochre_index::{IndexColumn, IndexShape};
use ochre_model::{HIDDEN_PREFIX, ValueType, check_key};
use serde_json::Value as Json;
use uuid::Uuid;

use super::definition::{COLUMNS_MAX, ColumnDefinition, IndexDefinition, KINDS};
use crate::error::Error;

/// The longest name of an index, in characters.
const NAME_MAX: usize = 128;
/// The longest comment, in bytes.
const COMMENT_MAX: usize = 1024;
/// The columns that mean every key of a type.
const EVERY: [(&str, ValueType); 4] = [
    ("string_value", ValueType::Str),
    ("int_value", ValueType::Int),
    ("float_value", ValueType::Float),
    ("bool_value", ValueType::Bool),
];
fn invalid<T>(field: &'static str, reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::invalid_index(field, reason))
}

impl IndexDefinition {
    /// Reads a definition as a request gives it.
    ///
    /// # Errors
    /// [`Error::InvalidIndex`] names the member and what it should be.
    pub fn from_json(json: Json) -> Result<Self, Error> {
        if !json.is_object() {
            return Err(Error::invalid(
                "an index is an object such as {\"index_name\": \"by_year\", \"columns\": [\"year\"], \"collection\": \"films\"}",
            ));
        }
        serde_json::from_value(json).map_err(|error| {
            let text = error.to_string();
            for field in ["columns", "where"] {
                if let Some(reason) = text.strip_prefix(field).and_then(|rest| rest.strip_prefix(": ")) {
                    return Error::invalid_index(field, reason);
                }
            }
            let text = ochre_scheduler::unknown_member(&text).unwrap_or(text);
            Error::invalid(format!("the index is not valid: {text}"))
        })
    }

    /// Whether another definition has the same entries: if not, the index is rebuilt.
    pub(crate) fn has_same_entries(&self, other: &Self) -> bool {
        self.columns == other.columns && self.partial == other.partial && self.collection == other.collection
    }

    /// Checks everything that can be checked without the collection.
    pub(crate) fn check_name(&self) -> Result<(), Error> {
        let name = &self.index_name;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_plain) || name.starts_with('.') {
            return invalid(
                "index_name",
                format!(
                    "{name:?} is no name of an index; it has 1 to {NAME_MAX} letters, digits, '.', '_' or '-', and does not begin with '.'"
                ),
            );
        }
        if self.comment.len() > COMMENT_MAX {
            return invalid(
                "comment",
                format!("it has {} bytes, more than the limit of {COMMENT_MAX}", self.comment.len()),
            );
        }
        if !KINDS.contains(&self.kind.as_str()) {
            return invalid("kind", format!("there is no kind {:?}; there are {}", self.kind, KINDS.join(" and ")));
        }
        Ok(())
    }

    /// What the index is of, in a collection.
    pub(crate) fn shape(&self, id: Uuid) -> Result<IndexShape, Error> {
        self.check_name()?;
        let name = &self.index_name;
        if self.columns.is_empty() {
            return invalid("columns", format!("index {name:?} has none; give at least one metadata key"));
        }
        if self.columns.len() > COLUMNS_MAX {
            let count = self.columns.len();
            return invalid("columns", format!("index {name:?} has {count}, more than the limit of {COLUMNS_MAX}"));
        }
        let alone = self.columns.len() == 1;
        let columns: Vec<IndexColumn> =
            self.columns.iter().map(|column| column.resolved(alone)).collect::<Result<_, _>>()?;
        for (number, column) in columns.iter().enumerate() {
            if columns[..number].contains(column) {
                return invalid("columns", format!("{} stands twice in index {name:?}", self.columns[number]));
            }
        }
        let multiple: Vec<String> = columns
            .iter()
            .zip(&self.columns)
            .filter(|(column, _)| column.is_multiple())
            .map(|(_, column)| column.to_string())
            .collect();
        if multiple.len() > 1 {
            return invalid(
                "columns",
                format!(
                    "{} each have several values per record, and an index has at most one such column; make an index for each",
                    multiple.join(" and ")
                ),
            );
        }
        let partial = self.partial.as_ref().map_or(Vec::new(), |partial| partial.tests.clone());
        Ok(IndexShape { id: id.into_bytes(), name: name.clone(), columns, partial })
    }
}

impl ColumnDefinition {
    /// What it is of; as the only column of an index, of the elements of lists, too, if no type is given.
    fn resolved(&self, alone: bool) -> Result<IndexColumn, Error> {
        let key = self.key.as_str();
        if let Some((_, ty)) = EVERY.iter().find(|(every, _)| *every == key && !self.is_object) {
            return Ok(IndexColumn::Every(*ty));
        }
        check_key(key).map_err(|error| Error::invalid_index("columns", format!("{key:?}: {error}")))?;
        if key.starts_with(HIDDEN_PREFIX) {
            return invalid("columns", format!("{key:?}: keys that begin with {HIDDEN_PREFIX} are reserved"));
        }
        let is_list = match self.ty.as_deref() {
            None => alone,
            Some("string" | "int" | "integer" | "float" | "number" | "bool" | "boolean" | "any") => false,
            Some("list" | "array") => true,
            Some(ty) if ty.starts_with("list[") || ty.ends_with("_list") || ty.ends_with("[]") => true,
            Some(ty) => {
                return invalid(
                    "columns",
                    format!(
                        "{key:?}: there is no type {ty:?}; there are string, int, float, bool, any and list[string], list[int], list[float], list[bool]"
                    ),
                );
            }
        };
        Ok(if is_list { IndexColumn::Elements(key.into()) } else { IndexColumn::Key(key.into()) })
    }
}
