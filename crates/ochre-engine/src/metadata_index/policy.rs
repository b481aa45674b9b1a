//! What becomes of filters that no declared index answers.

use std::time::Duration;

use ochre_index::{Hints, View, is_answerable};
use ochre_model::Filter;
use ochre_store::CollectionRow;
use serde_json::json;

use crate::error::Error;
use crate::metadata_index::workload::{columns, index_name, shape};
use crate::query::Queries;
use crate::settings::UnindexedFilters;

/// The part of a filter that stands in the way: of alternatives the first that no index answers.
fn first_unanswered<'f>(filter: &'f Filter, view: &View, hints: &Hints) -> &'f Filter {
    let Filter::Any(parts) = filter else { return filter };
    let first = parts.iter().find(|part| !is_answerable(part, view, hints));
    first.map_or(filter, |part| first_unanswered(part, view, hints))
}

impl Queries {
    /// What is to be told of a filter that no index answers; an error if such are refused.
    pub(crate) fn check_indexed(
        &self, row: &CollectionRow, view: &View, filter: &Filter, hints: &Hints,
    ) -> Result<Option<String>, Error> {
        let policy = self.settings.unindexed_filters;
        let records = view.live().len();
        if policy == UnindexedFilters::Allow
            || records <= self.settings.unindexed_records_max
            || is_answerable(filter, view, hints)
        {
            return Ok(None);
        }
        let remedy = match shape(first_unanswered(filter, view, hints)) {
            None => {
                "no index answers such tests; add one for equality or a range on a key that has an index".to_owned()
            }
            Some(shape) => {
                let columns = columns(&shape, view);
                let existing = self.registry.of(row.number).into_iter().find_map(|entry| {
                    let state = entry.state.lock().clone();
                    let is_hidden = if state.definition.hidden { ", hidden" } else { "" };
                    let is_it = state.definition.columns.starts_with(&columns);
                    is_it.then(|| format!("'{}' ({}{is_hidden})", state.definition.index_name, state.status()))
                });
                let body = json!({
                    "index_name": index_name(&row.name, &columns), "tenant": row.tenant, "database": row.database,
                    "collection": row.name, "columns": columns,
                });
                match existing {
                    Some(index) => format!(
                        "index {index} has its keys: wait until it is ready, show it, or ask for at most 1,000 values of at most 512 bytes"
                    ),
                    None => format!("declare one: POST /_admin/metadata_indexes {body}"),
                }
            }
        };
        let told =
            format!("where: no metadata index answers this filter, and the collection has {records} records; {remedy}");
        match policy {
            UnindexedFilters::Deny => {
                // It is asked for all the same, and an index may be suggested or made for it, however many pass.
                self.registry.workload().note(row.number, filter, Duration::ZERO, 0, records, false);
                Err(Error::Invalid(told))
            }
            _ => Ok(Some(told)),
        }
    }
}
