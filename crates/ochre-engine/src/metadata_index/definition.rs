//! What a metadata index is declared to be.

use ochre_index::{IndexColumn, IndexShape};
use ochre_model::{Filter, HIDDEN_PREFIX, Scalar, Test, Value, ValueType, check_key};
use ochre_store::{DEFAULT_DATABASE, DEFAULT_TENANT};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::error::Error;

/// An index has at most so many columns.
pub(crate) const COLUMNS_MAX: usize = 8;
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
/// The physical forms that may be asked for: there is one, which serves both.
const KINDS: [&str; 2] = ["auto", "ordered"];

/// What a metadata index is declared to be, as requests and answers have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexDefinition {
    /// Unique within its database: letters, digits, `.`, `_` and `-`.
    pub index_name: String,
    /// The tenant; the default one if absent.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// The database; the default one if absent.
    #[serde(default = "default_database")]
    pub database: String,
    /// The collection, by name or id. Without one the index is of every collection of the database, present and future.
    #[serde(default)]
    pub collection: Option<String>,
    /// The metadata keys, in the order in which they are looked up: as strings, or as objects with `key` and `type`.
    #[serde(default)]
    pub columns: Vec<Json>,
    /// Only records that pass this are in it: equality, ranges and `$in` on metadata, all of which hold.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub partial: Option<Json>,
    /// Kept up to date, but not used by queries.
    #[serde(default)]
    pub hidden: bool,
    /// For people.
    #[serde(default)]
    pub comment: String,
    /// `auto` or `ordered`: the form it has.
    #[serde(default = "default_kind")]
    pub kind: String,
}

impl Default for IndexDefinition {
    fn default() -> Self {
        Self {
            index_name: String::new(),
            tenant: default_tenant(),
            database: default_database(),
            collection: None,
            columns: Vec::new(),
            partial: None,
            hidden: false,
            comment: String::new(),
            kind: default_kind(),
        }
    }
}

fn default_tenant() -> String {
    DEFAULT_TENANT.into()
}

fn default_database() -> String {
    DEFAULT_DATABASE.into()
}

fn default_kind() -> String {
    KINDS[0].into()
}

fn invalid<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid(text.into()))
}

impl IndexDefinition {
    /// Reads a definition as a request gives it.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the member and what it should be.
    pub fn from_json(json: Json) -> Result<Self, Error> {
        if !json.is_object() {
            return invalid(
                "an index is an object such as {\"index_name\": \"by_year\", \"columns\": [\"year\"], \"collection\": \"films\"}",
            );
        }
        serde_json::from_value(json).map_err(|error| {
            let text = error.to_string();
            let text = ochre_scheduler::unknown_member(&text).unwrap_or(text);
            Error::Invalid(format!("the index is not valid: {text}"))
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
            return invalid(format!(
                "index_name: {name:?} is no name of an index; it has 1 to {NAME_MAX} letters, digits, '.', '_' or '-', and does not begin with '.'"
            ));
        }
        if self.comment.len() > COMMENT_MAX {
            return invalid(format!(
                "comment: it has {} bytes, more than the limit of {COMMENT_MAX}",
                self.comment.len()
            ));
        }
        if !KINDS.contains(&self.kind.as_str()) {
            return invalid(format!("kind: there is no kind {:?}; there are {}", self.kind, KINDS.join(" and ")));
        }
        Ok(())
    }

    /// What the index is of, in a collection.
    pub(crate) fn shape(&self, id: Uuid) -> Result<IndexShape, Error> {
        self.check_name()?;
        let name = &self.index_name;
        if self.columns.is_empty() {
            return invalid(format!("columns: index {name:?} has none; give at least one metadata key"));
        }
        if self.columns.len() > COLUMNS_MAX {
            let count = self.columns.len();
            return invalid(format!("columns: index {name:?} has {count}, more than the limit of {COLUMNS_MAX}"));
        }
        let alone = self.columns.len() == 1;
        let columns: Vec<IndexColumn> =
            self.columns.iter().map(|column| self.column(column, alone)).collect::<Result<_, _>>()?;
        for (number, column) in columns.iter().enumerate() {
            if columns[..number].contains(column) {
                return invalid(format!("columns: {} stands twice in index {name:?}", self.columns[number]));
            }
        }
        let multiple: Vec<String> = columns
            .iter()
            .zip(&self.columns)
            .filter(|(column, _)| column.is_multiple())
            .map(|(_, json)| json.to_string())
            .collect();
        if multiple.len() > 1 {
            return invalid(format!(
                "columns: {} each have several values per record, and an index has at most one such column; make an index for each",
                multiple.join(" and ")
            ));
        }
        let partial = self.partial.as_ref().map_or(Ok(Vec::new()), partial)?;
        Ok(IndexShape { id: id.into_bytes(), name: name.clone(), columns, partial })
    }

    fn column(&self, column: &Json, alone: bool) -> Result<IndexColumn, Error> {
        let (key, ty) = match column {
            Json::String(name) => {
                if let Some((_, ty)) = EVERY.iter().find(|(every, _)| every == name) {
                    return Ok(IndexColumn::Every(*ty));
                }
                (name.as_str(), None)
            }
            Json::Object(members) => match members.get("key") {
                Some(Json::String(key)) => {
                    if let Some(unknown) = members.keys().find(|name| !matches!(name.as_str(), "key" | "type")) {
                        return invalid(format!(
                            "columns: there is no member {unknown:?} of a column; there are key and type"
                        ));
                    }
                    (key.as_str(), members.get("type"))
                }
                _ => {
                    return invalid(format!(
                        "columns: {column} names no key; write {{\"key\": \"year\", \"type\": \"int\"}}"
                    ));
                }
            },
            other => return invalid(format!("columns: expected a metadata key or an object with one, found {other}")),
        };
        check_key(key).map_err(|error| Error::Invalid(format!("columns: {key:?}: {error}")))?;
        if key.starts_with(HIDDEN_PREFIX) {
            return invalid(format!("columns: {key:?}: keys that begin with {HIDDEN_PREFIX} are reserved"));
        }
        let is_list = match ty {
            None => alone,
            Some(Json::String(ty)) => match ty.as_str() {
                "string" | "int" | "integer" | "float" | "number" | "bool" | "boolean" | "any" => false,
                "list" | "array" => true,
                ty if ty.starts_with("list[") || ty.ends_with("_list") || ty.ends_with("[]") => true,
                ty => {
                    return invalid(format!(
                        "columns: {key:?}: there is no type {ty:?}; there are string, int, float, bool, any and list[string], list[int], list[float], list[bool]"
                    ));
                }
            },
            Some(other) => return invalid(format!("columns: {key:?}: expected the name of a type, found {other}")),
        };
        Ok(if is_list { IndexColumn::Elements(key.into()) } else { IndexColumn::Key(key.into()) })
    }
}

/// The tests of a partial index: all of them hold.
fn partial(json: &Json) -> Result<Vec<Filter>, Error> {
    let Json::Object(members) = json else {
        return invalid("where: expected a filter such as {\"status\": \"open\"}");
    };
    let mut tests = Vec::new();
    for (key, value) in members {
        match (key.as_str(), value) {
            ("$and", Json::Array(parts)) => {
                for part in parts {
                    tests.extend(partial(part)?);
                }
            }
            (name, _) if name.starts_with('$') || name.starts_with('#') => {
                return invalid(format!(
                    "where: {name} cannot be in the filter of an index; use tests on metadata keys, joined by $and"
                ));
            }
            (key, Json::Object(operators)) => {
                for (operator, operand) in operators {
                    tests.push(Filter::Key { key: key.into(), test: test(operator, operand)? });
                }
            }
            (key, operand) => tests.push(Filter::Key { key: key.into(), test: Test::Eq(scalar(operand)?) }),
        }
    }
    if tests.is_empty() {
        return invalid("where: an empty filter restricts nothing; leave it out");
    }
    Ok(tests)
}

fn test(operator: &str, operand: &Json) -> Result<Test, Error> {
    let number = || match scalar(operand)? {
        number @ (Scalar::Int(_) | Scalar::Float(_)) => Ok(number),
        _ => invalid(format!("where: {operator} compares numbers, found {operand}")),
    };
    Ok(match operator {
        "$eq" => Test::Eq(scalar(operand)?),
        "$gt" => Test::Compare(Test::GREATER, number()?),
        "$gte" => Test::Compare(Test::GREATER_OR_EQUAL, number()?),
        "$lt" => Test::Compare(Test::LESS, number()?),
        "$lte" => Test::Compare(Test::LESS_OR_EQUAL, number()?),
        "$in" => match operand {
            Json::Array(list) if !list.is_empty() => Test::In(list.iter().map(scalar).collect::<Result<_, _>>()?),
            _ => return invalid(format!("where: $in takes a list of values, found {operand}")),
        },
        other => {
            return invalid(format!(
                "where: the filter of an index knows no {other}; there are $eq, $gt, $gte, $lt, $lte and $in"
            ));
        }
    })
}

fn scalar(json: &Json) -> Result<Scalar, Error> {
    match Value::from_json(json.clone()) {
        Ok(Some(Value::Bool(b))) => Ok(Scalar::Bool(b)),
        Ok(Some(Value::Int(i))) => Ok(Scalar::Int(i)),
        Ok(Some(Value::Float(f))) => Ok(Scalar::Float(f)),
        Ok(Some(Value::Str(s))) => Ok(Scalar::Str(s)),
        _ => invalid(format!("where: expected a string, number or boolean, found {json}")),
    }
}
