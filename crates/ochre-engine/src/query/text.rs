//! Ranked search in documents by the words of a query (BM25).

use ochre_index::{Analyzer, Bitmap, Hit, NearestText, Plan, Trace};
use ochre_model::Filter;
use ochre_store::CollectionRow;

use super::execute::{log_decision, with_records};
use super::filter::ReaderRows;
use crate::collection::record::{Include, Record};
use crate::collection::snapshot::ReadSnapshot;
use crate::error::Error;
use crate::query::Queries;

/// Of documents that are not indexed yet, so much is kept for the next search, for each collection.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// A record that a text search found.
#[derive(Clone, Debug, PartialEq)]
pub struct TextHit {
    /// The record.
    pub record: Record,
    /// Its score by BM25, the higher the better.
    pub score: f32,
}

impl Queries {
    pub(crate) fn search_text(
        &self, row: &CollectionRow, text: &str, filter: Option<&Filter>, limit: usize, include: Include,
    ) -> Result<Vec<TextHit>, Error> {
        let _request = self.monitor.enter();
        if !row.schema.is_text_searchable() {
            return Err(Error::NotFilterable(NOT_SEARCHABLE.into()));
        }
        if let Some(filter) = filter {
            self.check_filterable(row, filter)?;
        }
        let snapshot = self.collections.snapshot(row)?;
        let matches = snapshot.matches(None, filter)?;
        let (found, plan) =
            nearest_documents(&self.collections.analyzer(row), &snapshot, text, limit, matches.as_ref())?;
        log_decision(row, &Trace::default(), filter.is_some(), plan.matches, &[plan]);
        let hits = with_records(&snapshot, &[found], include)?.into_iter().flatten();
        Ok(hits.map(|hit| TextHit { record: hit.record, score: 1.0 - hit.distance }).collect())
    }
}

/// Why documents of a collection cannot be searched.
pub(super) const NOT_SEARCHABLE: &str = "Cannot search documents because FTS indexing is disabled";

/// The documents that fit a text best, among these.
pub(super) fn nearest_documents(
    analyzer: &Analyzer, snapshot: &ReadSnapshot<'_>, text: &str, k: usize, matches: Option<&Bitmap>,
) -> Result<(Vec<Hit>, Plan), Error> {
    let wanted = NearestText { analyzer, text, kept_bytes_max: KEPT_BYTES_MAX, k, matches };
    snapshot.view.nearest_text(&wanted, &mut ReaderRows(snapshot))
}
