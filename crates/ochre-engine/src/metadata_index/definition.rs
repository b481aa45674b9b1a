//! What a metadata index is declared to be, as requests give it and as it is stored.
//!
//! Not here: what it comes to in a collection, and what is refused of it (`shape`).

use ochre_model::{Filter, Scalar, Test, Value};
use ochre_store::{DEFAULT_DATABASE, DEFAULT_TENANT};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// An index has at most so many columns.
pub(crate) const COLUMNS_MAX: usize = 8;
/// The physical forms that may be asked for: there is one, which serves both.
pub(super) const KINDS: [&str; 2] = ["auto", "ordered"];

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
    pub columns: Vec<ColumnDefinition>,
    /// Only records that pass this are in it: equality, ranges and `$in` on metadata, all of which hold.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub partial: Option<PartialFilter>,
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

/// A column of an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "Json", try_from = "Json")]
pub struct ColumnDefinition {
    /// A metadata key; or `string_value`, `int_value`, `float_value` or `bool_value`, which are every key of a type.
    pub key: String,
    /// `string`, `int`, `float`, `bool`, `any`, or one of lists; absent if it is whatever the records have.
    pub ty: Option<String>,
    /// Whether it is given as an object: then its key is a metadata key, whatever its name.
    pub is_object: bool,
}

impl ColumnDefinition {
    /// A metadata key with values of any type.
    pub fn key(key: impl Into<String>) -> Self {
        Self { key: key.into(), ty: None, is_object: false }
    }

    /// A metadata key with values of a type; of `list`, each of its elements.
    pub fn typed(key: impl Into<String>, ty: impl Into<String>) -> Self {
        Self { key: key.into(), ty: Some(ty.into()), is_object: true }
    }
}

impl From<&str> for ColumnDefinition {
    fn from(key: &str) -> Self {
        Self::key(key)
    }
}

impl From<ColumnDefinition> for Json {
    fn from(column: ColumnDefinition) -> Self {
        match column {
            ColumnDefinition { key, is_object: false, .. } => Self::String(key),
            ColumnDefinition { key, ty: Some(ty), .. } => json!({"key": key, "type": ty}),
            ColumnDefinition { key, .. } => json!({"key": key}),
        }
    }
}

/// As a request would give it.
impl std::fmt::Display for ColumnDefinition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Json::from(self.clone()).fmt(f)
    }
}

impl TryFrom<Json> for ColumnDefinition {
    type Error = Refusal;

    fn try_from(json: Json) -> Result<Self, Refusal> {
        let refused = |reason: String| Err(Refusal("columns", reason));
        match json {
            Json::String(key) => Ok(Self::key(key)),
            Json::Object(mut members) => {
                let Some(key) = members.get("key").and_then(Json::as_str).map(str::to_owned) else {
                    let column = Json::Object(members);
                    return refused(format!("{column} names no key; write {{\"key\": \"year\", \"type\": \"int\"}}"));
                };
                members.remove("key");
                let ty = match members.remove("type") {
                    None => None,
                    Some(Json::String(ty)) => Some(ty),
                    Some(other) => return refused(format!("{key:?}: expected the name of a type, found {other}")),
                };
                if let Some(unknown) = members.keys().next() {
                    return refused(format!("there is no member {unknown:?} of a column; there are key and type"));
                }
                Ok(Self { key, ty, is_object: true })
            }
            other => refused(format!("expected a metadata key or an object with one, found {other}")),
        }
    }
}

/// The filter of a partial index: tests on metadata, all of which hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Json", try_from = "Json")]
pub struct PartialFilter {
    pub(super) tests: Vec<Filter>,
    /// As it was given.
    given: Json,
}

impl PartialEq for PartialFilter {
    fn eq(&self, other: &Self) -> bool {
        self.given == other.given
    }
}

impl From<PartialFilter> for Json {
    fn from(filter: PartialFilter) -> Self {
        filter.given
    }
}

impl TryFrom<Json> for PartialFilter {
    type Error = Refusal;

    fn try_from(given: Json) -> Result<Self, Refusal> {
        Ok(Self { tests: partial(&given)?, given })
    }
}

/// What is wrong with a member of a definition, and which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: {1}")]
pub struct Refusal(&'static str, String);

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

fn refused<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal("where", reason.into()))
}

/// The tests of a partial index: all of them hold.
fn partial(json: &Json) -> Result<Vec<Filter>, Refusal> {
    let Json::Object(members) = json else {
        return refused("expected a filter such as {\"status\": \"open\"}");
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
                return refused(format!(
                    "{name} cannot be in the filter of an index; use tests on metadata keys, joined by $and"
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
        return refused("an empty filter restricts nothing; leave it out");
    }
    Ok(tests)
}

fn test(operator: &str, operand: &Json) -> Result<Test, Refusal> {
    let number = || match scalar(operand)? {
        number @ (Scalar::Int(_) | Scalar::Float(_)) => Ok(number),
        _ => refused(format!("{operator} compares numbers, found {operand}")),
    };
    Ok(match operator {
        "$eq" => Test::Eq(scalar(operand)?),
        "$gt" => Test::Compare(Test::GREATER, number()?),
        "$gte" => Test::Compare(Test::GREATER_OR_EQUAL, number()?),
        "$lt" => Test::Compare(Test::LESS, number()?),
        "$lte" => Test::Compare(Test::LESS_OR_EQUAL, number()?),
        "$in" => match operand {
            Json::Array(list) if !list.is_empty() => Test::In(list.iter().map(scalar).collect::<Result<_, _>>()?),
            _ => return refused(format!("$in takes a list of values, found {operand}")),
        },
        "$exists" => match operand {
            Json::Bool(true) => Test::Exists,
            Json::Bool(false) => Test::Missing,
            _ => return refused(format!("$exists takes true or false, found {operand}")),
        },
        other => {
            return refused(format!(
                "the filter of an index knows no {other}; there are $eq, $gt, $gte, $lt, $lte, $in and $exists"
            ));
        }
    })
}

fn scalar(json: &Json) -> Result<Scalar, Refusal> {
    match Value::from_json(json.clone()) {
        Ok(Some(Value::Bool(b))) => Ok(Scalar::Bool(b)),
        Ok(Some(Value::Int(i))) => Ok(Scalar::Int(i)),
        Ok(Some(Value::Float(f))) => Ok(Scalar::Float(f)),
        Ok(Some(Value::Str(s))) => Ok(Scalar::Str(s)),
        _ => refused(format!("expected a string, number or boolean, found {json}")),
    }
}
