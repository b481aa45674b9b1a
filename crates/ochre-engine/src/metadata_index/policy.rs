//! What becomes of filters that no declared index answers.

use std::time::Duration;

use ochre_index::{Hints, View, is_answerable};
use ochre_model::Filter;
use ochre_store::CollectionRow;

use crate::error::Error;
use crate::metadata_index::definition::{ColumnDefinition, IndexDefinition};
use crate::metadata_index::unindexed::{UnindexedFilter, UnindexedRemedy};
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
    ) -> Result<Option<UnindexedFilter>, Error> {
        let policy = self.settings.unindexed_filters;
        let records = view.live().len();
        if policy == UnindexedFilters::Allow
            || records <= self.settings.unindexed_records_max
            || is_answerable(filter, view, hints)
        {
            return Ok(None);
        }
        let remedy = match shape(first_unanswered(filter, view, hints)) {
            None => UnindexedRemedy::OtherTests,
            Some(shape) => self.remedy(row, columns(&shape, view)),
        };
        let found = UnindexedFilter { records, remedy };
        match policy {
            UnindexedFilters::Deny => {
                // It is asked for all the same, and an index may be suggested or made for it, however many pass.
                self.registry.workload().note(row.number, filter, Duration::ZERO, 0, records, false);
                Err(Error::Unindexed(found))
            }
            _ => Ok(Some(found)),
        }
    }

    /// The index of these columns, if there is one, or a definition of it.
    fn remedy(&self, row: &CollectionRow, columns: Vec<ColumnDefinition>) -> UnindexedRemedy {
        for entry in self.registry.of(row.number) {
            let state = entry.state.lock();
            let IndexDefinition { index_name, columns: existing, hidden, .. } = &state.definition;
            if existing.starts_with(&columns) {
                let (index_name, status) = (index_name.clone(), state.status());
                return UnindexedRemedy::Existing { index_name, status, is_hidden: *hidden };
            }
        }
        UnindexedRemedy::Declare(Box::new(IndexDefinition {
            index_name: index_name(&row.name, &columns),
            tenant: row.tenant.clone(),
            database: row.database.clone(),
            collection: Some(row.name.clone()),
            columns,
            ..IndexDefinition::default()
        }))
    }
}
