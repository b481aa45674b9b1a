//! What a schema demands of one key, of documents and of embeddings.

use std::cmp::Ordering;
use std::collections::HashSet;

use ochre_model::{Scalar, Value, ValueType, compare_int_float};
use regex::Regex;

use crate::format::Format;
use crate::validator::Validator;

/// How bad it is to break a rule of a property. Only the mode `lax` tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    /// The write is refused.
    #[default]
    Error,
    /// The write is accepted and the violation reported.
    Warning,
}

/// The demands on the value under a key, or on the elements of a list. What is absent demands nothing.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names are those of the schema language, docs/guide/schemas.md")]
pub struct Property {
    /// The types a value may have; any if empty. An integer is also a float.
    pub types: Vec<ValueType>,
    pub description: Option<String>,
    pub required: bool,
    pub allowed: Option<Allowed>,
    pub min: Option<Bound>,
    pub max: Option<Bound>,
    /// In characters.
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Regex>,
    pub format: Option<Format>,
    /// For each element of a list.
    pub items: Option<Box<Property>>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    /// Stored in new records that lack the key.
    pub default: Option<Value>,
    pub severity: Severity,
    pub examples: Vec<serde_json::Value>,
    /// Values never stand in reports, messages or exports.
    pub sensitive: bool,
    pub validators: Vec<Validator>,
}

/// The values of an enum, found by hashing however many there are.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    values: Vec<Value>,
    texts: HashSet<String>,
    ints: HashSet<i64>,
    /// Bits of floats, zero only as the positive one.
    floats: HashSet<u64>,
}

impl Allowed {
    /// The values, as they were listed.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Whether a value is one of them; integers are also floats.
    pub(crate) fn contains(&self, value: &Value) -> bool {
        let has_float = |float: f64| self.floats.contains(&bits(float));
        match value {
            Value::Str(text) => self.texts.contains(text),
            Value::Int(int) => self.ints.contains(int) || same_float(*int).is_some_and(has_float),
            Value::Float(float) => has_float(*float) || same_int(*float).is_some_and(|int| self.ints.contains(&int)),
            other => self.values.contains(other),
        }
    }
}

impl From<Vec<Value>> for Allowed {
    fn from(values: Vec<Value>) -> Self {
        let mut allowed = Self::default();
        for value in &values {
            match value {
                Value::Str(text) => drop(allowed.texts.insert(text.clone())),
                Value::Int(int) => drop(allowed.ints.insert(*int)),
                Value::Float(float) => drop(allowed.floats.insert(bits(*float))),
                _ => {}
            }
        }
        Self { values, ..allowed }
    }
}

fn bits(float: f64) -> u64 {
    if float == 0.0 { 0 } else { float.to_bits() }
}

#[expect(clippy::cast_precision_loss, reason = "checked: only used if it is exact")]
fn same_float(int: i64) -> Option<f64> {
    let float = int as f64;
    (compare_int_float(int, float) == Some(Ordering::Equal)).then_some(float)
}

#[expect(clippy::cast_possible_truncation, reason = "checked: only used if it is exact")]
fn same_int(float: f64) -> Option<i64> {
    let int = float as i64;
    (compare_int_float(int, float) == Some(Ordering::Equal)).then_some(int)
}

/// A smallest or largest value: a number, or a string such as a date, which compares bytewise.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Bound {
    pub value: Scalar,
    pub exclusive: bool,
}

/// The demands on embeddings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingRules {
    /// What the embeddings are of.
    pub description: Option<String>,
    /// How many floats each has.
    pub dimension: Option<usize>,
    /// The smallest Euclidean norm.
    pub min_norm: Option<f64>,
    /// The largest Euclidean norm.
    pub max_norm: Option<f64>,
    /// Whether an embedding of zeros alone is refused.
    pub nonzero: bool,
}

/// What is done about keys that are not declared.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// The mode decides: `strict` refuses them, `warn` reports them, the others accept them.
    #[default]
    ByMode,
    /// They are accepted.
    Allow,
    /// They are accepted and reported.
    Warn,
    /// They are refused.
    Deny,
    /// They are accepted if their values satisfy this.
    Typed(Box<Property>),
}

/// The name of a type, as schemas spell it.
pub const fn type_name(ty: ValueType) -> &'static str {
    match ty {
        ValueType::Bool => "bool",
        ValueType::Int => "int",
        ValueType::Float => "float",
        ValueType::Str => "string",
        ValueType::Bools => "list[bool]",
        ValueType::Ints => "list[int]",
        ValueType::Floats => "list[float]",
        ValueType::Strs => "list[string]",
        ValueType::Sparse => "sparse_vector",
    }
}

/// The type of a list of these; `None` for lists.
pub const fn list_of(ty: ValueType) -> Option<ValueType> {
    match ty {
        ValueType::Bool => Some(ValueType::Bools),
        ValueType::Int => Some(ValueType::Ints),
        ValueType::Float => Some(ValueType::Floats),
        ValueType::Str => Some(ValueType::Strs),
        _ => None,
    }
}

/// The type of the elements of a list; `None` for scalars.
pub const fn element_of(ty: ValueType) -> Option<ValueType> {
    match ty {
        ValueType::Bools => Some(ValueType::Bool),
        ValueType::Ints => Some(ValueType::Int),
        ValueType::Floats => Some(ValueType::Float),
        ValueType::Strs => Some(ValueType::Str),
        _ => None,
    }
}

/// Types joined for a message: `int or string`.
pub(crate) fn type_names(types: &[ValueType]) -> String {
    types.iter().map(|ty| type_name(*ty)).collect::<Vec<_>>().join(" or ")
}

impl Property {
    /// Whether a value of type `ty` may stand here. Integers are floats: JSON from JavaScript has no others.
    pub fn takes(&self, ty: ValueType) -> bool {
        self.types.is_empty()
            || self.types.contains(&ty)
            || match ty {
                ValueType::Int => self.types.contains(&ValueType::Float),
                ValueType::Ints => self.types.contains(&ValueType::Floats),
                _ => false,
            }
    }

    /// Whether a filter with an operand of type `ty` can match what may stand here. Numbers compare across
    /// their types.
    pub(crate) fn compares_with(&self, ty: ValueType) -> bool {
        let number = |ty: ValueType| matches!(ty, ValueType::Int | ValueType::Float);
        self.types.is_empty() || self.types.iter().any(|own| *own == ty || (number(*own) && number(ty)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_an_enum_are_found_by_what_they_equal() {
        let texts = (0..90_000).map(|number| Value::Str(format!("v{number}")));
        let numbers = [Value::Int(3), Value::Float(2.5), Value::Float(0.0), Value::Float(4.0), Value::Bool(true)];
        let allowed = Allowed::from(texts.chain(numbers).collect::<Vec<_>>());
        for value in [
            Value::Str("v89999".into()),
            Value::Int(3),
            Value::Float(3.0),
            Value::Float(2.5),
            Value::Float(-0.0),
            Value::Int(0),
            Value::Int(4),
            Value::Bool(true),
        ] {
            assert!(allowed.contains(&value), "{value:?}");
        }
        for value in [Value::Str("v90000".into()), Value::Int(2), Value::Float(3.5), Value::Bool(false)] {
            assert!(!allowed.contains(&value), "{value:?}");
        }
        assert!(!allowed.contains(&Value::Int(i64::MAX)) && !allowed.contains(&Value::Float(1e300)));
    }
}
