//! What becomes of filters that no declared index answers.

use std::str::FromStr;

use ochre_index::{Hints, View, is_answerable};
use ochre_model::Filter;
use ochre_store::CollectionRow;
use serde_json::json;

use super::advice::{columns, shape};
use crate::database::Inner;
use crate::error::Error;

/// What becomes of a filter that no declared index answers, in a collection that is not small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnindexedFilters {
    /// It is answered by scanning columns.
    #[default]
    Allow,
    /// It is answered, and told.
    Warn,
    /// It is refused.
    Deny,
}

impl FromStr for UnindexedFilters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "allow" => Self::Allow,
            "warn" => Self::Warn,
            "deny" => Self::Deny,
            _ => return Err("must be allow, warn or deny".into()),
        })
    }
}

impl Inner {
    /// What is to be told of a filter that no index answers; an error if such are refused.
    pub(crate) fn check_indexed(
        &self, row: &CollectionRow, view: &View, filter: &Filter, hints: &Hints,
    ) -> Result<Option<String>, Error> {
        let policy = self.options.unindexed_filters;
        let records = view.live().len();
        if policy == UnindexedFilters::Allow
            || records <= self.options.unindexed_records_max
            || is_answerable(filter, view, hints)
        {
            return Ok(None);
        }
        let remedy = match shape(filter) {
            None => {
                "no index answers such tests; add one for equality or a range on a key that has an index".to_owned()
            }
            Some(shape) => {
                let (names, mut keys) = (columns(&shape, view), Vec::new());
                keys.extend(
                    names.iter().map(|column| column.as_str().or_else(|| column["key"].as_str()).unwrap_or_default()),
                );
                let body = json!({
                    "index_name": format!("by_{}", keys.join("_")), "tenant": row.tenant, "database": row.database,
                    "collection": row.name, "columns": names,
                });
                format!("declare one: POST /_admin/metadata_indexes {body}")
            }
        };
        let told =
            format!("where: no metadata index answers this filter, and the collection has {records} records; {remedy}");
        match policy {
            UnindexedFilters::Deny => Err(Error::Invalid(told)),
            _ => Ok(Some(told)),
        }
    }
}
