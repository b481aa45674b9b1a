//! Groups of scored records, by the values in columns.

use ochre_index::View;
use ochre_model::budget;
use ochre_model::{GroupBy, GroupOrder, Value, order_values};

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
        let order = order_values(&a.order, &b.order);
        let order = if group_by.keeps_largest { order.reverse() } else { order };
        order_values(&a.group, &b.group).then(order).then(a.place.cmp(&b.place))
    });
    let groups = members.chunk_by(|a, b| order_values(&a.group, &b.group).is_eq());
    let mut kept: Vec<&Member> = groups.flat_map(|group| group.iter().take(group_by.k as usize)).collect();
    kept.sort_unstable_by_key(|member| member.place);
    Ok(kept.into_iter().map(|member| member.record).collect())
}
