//! Records sorted by values in columns, a page at a time.

use std::cmp::Ordering;

use ochre_index::{Bitmap, View};
use ochre_model::budget;
use ochre_model::{Cursor, OrderBy, OrderKey, Value, order_value};

use super::request::GetRequest;
use crate::error::Error;

/// The most keys that records are sorted by.
const ORDER_KEYS_MAX: usize = 4;
/// Records that are compared between two questions whether the request may go on.
const RECORDS_AT_ONCE: usize = 1024;

/// Some of the records that pass, in order.
pub(super) struct Page {
    pub(super) offsets: Vec<u32>,
    /// The place of the last of them, if others come after it.
    pub(super) next: Option<Cursor>,
}

/// The page of `passing` that a request asks for.
pub(super) fn page(view: &View, passing: &Bitmap, request: &GetRequest) -> Result<Page, Error> {
    let order_by = &request.order_by;
    if order_by.len() > ORDER_KEYS_MAX {
        let text = format!("{} keys are more than the limit of {ORDER_KEYS_MAX}: name fewer", order_by.len());
        return Err(Error::invalid_field("order_by", text));
    }
    if let Some(after) = request.after.as_ref().filter(|after| after.values.len() != order_by.len()) {
        let text = format!("it is of records sorted by {} keys, not {}", after.values.len(), order_by.len());
        return Err(Error::invalid_field("cursor", text));
    }
    let mut members: Vec<Cursor> = Vec::new();
    for (number, offset) in passing.iter().enumerate() {
        if number % RECORDS_AT_ONCE == 0 {
            budget::check()?;
        }
        let values = order_by.iter().map(|order| value(view, &order.key, offset)).collect();
        let member = Cursor { values, offset };
        if request.after.as_ref().is_none_or(|after| compare(order_by, &member, after).is_gt()) {
            let texts =
                member.values.iter().map(|value| if let Some(Value::Str(text)) = value { text.len() } else { 0 });
            budget::charge(size_of::<Cursor>() + order_by.len() * size_of::<Option<Value>>() + texts.sum::<usize>())?;
            members.push(member);
        }
    }
    budget::check()?;
    let limit = request.limit.map_or(usize::MAX, |limit| limit as usize);
    let end = limit.saturating_add(request.offset as usize);
    let has_more = end < members.len();
    if has_more {
        // Only what is returned needs to be in order.
        if end > 0 {
            members.select_nth_unstable_by(end - 1, |a, b| compare(order_by, a, b));
        }
        members.truncate(end);
    }
    members.sort_unstable_by(|a, b| compare(order_by, a, b));
    let page = members.split_off((request.offset as usize).min(members.len()));
    let offsets = page.iter().map(|member| member.offset).collect();
    Ok(Page { offsets, next: page.into_iter().next_back().filter(|_| has_more) })
}

/// What a record is sorted by; nothing where that is a list.
fn value(view: &View, key: &OrderKey, offset: u32) -> Option<Value> {
    match key {
        OrderKey::Inserted => Some(Value::Int(offset.into())),
        OrderKey::Metadata(key) => view
            .value(key, offset)
            .filter(|value| matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_))),
    }
}

fn compare(order_by: &[OrderBy], a: &Cursor, b: &Cursor) -> Ordering {
    let mut orders = order_by.iter().zip(&a.values).zip(&b.values).map(|((order, a), b)| {
        let compared = order_value(a.as_ref(), b.as_ref());
        if order.is_descending { compared.reverse() } else { compared }
    });
    orders.find(|order| order.is_ne()).unwrap_or_else(|| a.offset.cmp(&b.offset))
}
