//! Groups of scored records, by the values in columns.

use std::cmp::Ordering;

use ochre_index::View;
use ochre_model::budget;
use ochre_model::{GroupBy, GroupOrder, Value, compare_int_float};

use crate::error::Error;

/// Records that are grouped between two questions whether the request may go on.
const RECORDS_AT_ONCE: usize = 1024;

/// The records that are kept of each group, best first; they were best first before.
pub(super) fn grouped(view: &View, scored: Vec<(u32, f32)>, group_by: &GroupBy) -> Result<Vec<(u32, f32)>, Error> {
    struct Member {
        place: usize,
        record: (u32, f32),
        group: Vec<Option<Value>>,
        order: Vec<Option<Value>>,
    }
    let single = |field, key: &str, offset| match view.value(key, offset) {
        Some(Value::Bools(_) | Value::Ints(_) | Value::Floats(_) | Value::Strs(_) | Value::Sparse(_)) => {
            Err(Error::invalid_field(
                field,
                format!(
                    "records have lists or sparse vectors under '{key}', which are in no order: use a key with single values"
                ),
            ))
        }
        value => Ok(value),
    };
    let mut members = Vec::with_capacity(scored.len());
    for (place, record) in scored.into_iter().enumerate() {
        if place % RECORDS_AT_ONCE == 0 {
            budget::check()?;
        }
        let (offset, score) = record;
        let group: Vec<Option<Value>> =
            group_by.keys.iter().map(|key| single("group_by.keys", key, offset)).collect::<Result<_, _>>()?;
        let order = group_by.order_by.iter().map(|order| match order {
            GroupOrder::Score => Ok(Some(Value::Float(f64::from(score)))),
            GroupOrder::Key(key) => single("group_by.aggregate", key, offset),
        });
        let order = order.collect::<Result<Vec<_>, _>>()?;
        let bytes = |value: &Option<Value>| {
            let text = if let Some(Value::Str(text)) = value { text.len() } else { 0 };
            size_of::<Option<Value>>() + text
        };
        budget::charge(size_of::<Member>() + group.iter().chain(&order).map(bytes).sum::<usize>())?;
        members.push(Member { place, record, group, order });
    }
    budget::check()?;
    members.sort_by(|a, b| {
        let order = order_all(&a.order, &b.order);
        let order = if group_by.keeps_largest { order.reverse() } else { order };
        order_all(&a.group, &b.group).then(order).then(a.place.cmp(&b.place))
    });
    let groups = members.chunk_by(|a, b| order_all(&a.group, &b.group).is_eq());
    let mut kept: Vec<&Member> = groups.flat_map(|group| group.iter().take(group_by.k as usize)).collect();
    kept.sort_unstable_by_key(|member| member.place);
    Ok(kept.into_iter().map(|member| member.record).collect())
}

fn order_all(a: &[Option<Value>], b: &[Option<Value>]) -> Ordering {
    let mut orders = a.iter().zip(b).map(|(a, b)| match (a, b) {
        (Some(a), Some(b)) => order(a, b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Booleans, then numbers by their value, then strings byte by byte.
fn order(a: &Value, b: &Value) -> Ordering {
    let class = |value: &Value| match value {
        Value::Bool(_) => 0,
        Value::Int(_) | Value::Float(_) => 1,
        _ => 2,
    };
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
