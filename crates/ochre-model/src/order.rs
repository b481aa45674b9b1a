//! The order of values, and by what records are sorted.

use std::cmp::Ordering;

use crate::number::compare_int_float;
use crate::value::Value;

/// What records are sorted by; ties by the order in which they were first inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBy {
    /// What is compared.
    pub key: OrderKey,
    /// Whether the largest come first.
    pub is_descending: bool,
}

/// What is compared to sort records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderKey {
    /// When they were first inserted.
    Inserted,
    /// Their values under a metadata key: missing ones, and lists, before booleans before numbers before strings.
    Metadata(String),
}

/// A place among sorted records: that of one that was returned. It stays what it is while others are written.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    /// The record's values of what was sorted by.
    pub values: Vec<Option<Value>>,
    /// Its offset: the order in which records were first inserted.
    pub offset: u32,
}

/// Orders several values of two records: by the first that differ. A missing one is less than any other.
pub fn order_values(a: &[Option<Value>], b: &[Option<Value>]) -> Ordering {
    let mut orders = a.iter().zip(b).map(|(a, b)| order_value(a.as_ref(), b.as_ref()));
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Nothing, then booleans, then numbers by their value, then strings byte by byte.
pub fn order_value(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let class = |value: &Value| match value {
        Value::Bool(_) => 0,
        Value::Int(_) | Value::Float(_) => 1,
        _ => 2,
    };
    let (Some(a), Some(b)) = (a, b) else { return a.is_some().cmp(&b.is_some()) };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Str(a), Value::Str(b)) => a.cmp(b),
        // A score may be what is not a number.
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
        (Value::Int(a), Value::Float(b)) => compare_int_float(*a, *b).unwrap_or(Ordering::Less),
        (Value::Float(a), Value::Int(b)) => compare_int_float(*b, *a).map_or(Ordering::Greater, Ordering::reverse),
        (a, b) => class(a).cmp(&class(b)),
    }
}
