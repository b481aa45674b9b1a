//! Indexing the text of documents: segments of trigrams and terms, built from what no segment has yet.
//!
//! Whoever does it holds the lock `graphs`. Killed at any point it leaves what there was: documents outside
//! any segment are read when one is looked for.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ochre_index::{Analyzer, Bitmap, TextBuilder, TextHeader, TextSegment, View};
use ochre_store::{CollectionRow, Parts};

use crate::collection::state::CollectionState;
use crate::error::Error;
use crate::indexing::Indexing;

/// A segment with this many documents is full.
const FULL_DOCUMENTS: usize = 1 << 17;
/// A segment is full once it took this many bytes to build.
const FULL_BYTES: usize = 64 << 20;
/// A segment is merged with new documents if it has at most so many times as many as there are new ones.
const MERGE_RATIO: usize = 4;

/// Tells one round of indexing from any other.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

impl Indexing {
    /// Indexes documents that are in no segment, if enough are. With `all`, any number in a collection
    /// large enough.
    pub(crate) fn sync_text(&self, number: u32, all: bool) -> Result<(), Error> {
        let Some(loaded) = self.collections.get(number) else { return Ok(()) };
        let (Some(view), Ok(row)) = (loaded.view(), self.collections.catalog.row(loaded.id)) else { return Ok(()) };
        let outside = view.outside_text().len();
        let enough = self.settings.text_unindexed_max;
        let is_large = view.with_document().len() > enough;
        let analyzer = loaded.analyzer(&row);
        let is_due = outside > enough || outside > 0 && all || view.has_other_terms(&analyzer);
        if !is_large || !row.schema.is_text_searchable() || !is_due {
            return Ok(());
        }
        let gone = worn(&view, outside, &analyzer);
        self.replace_text(&loaded, &row, &gone)
    }

    /// Builds every segment again that holds anything of documents that are deleted or replaced.
    pub(crate) fn rewrite_text(&self, number: u32) -> Result<(), Error> {
        let Some(loaded) = self.collections.get(number) else { return Ok(()) };
        let (Some(view), Ok(row)) = (loaded.view(), self.collections.catalog.row(loaded.id)) else { return Ok(()) };
        let gone: Vec<Arc<TextSegment>> = view
            .text()
            .iter()
            .filter(|(segment, current)| current.len() < segment.len())
            .map(|(segment, _)| Arc::clone(segment))
            .collect();
        self.replace_text(&loaded, &row, &gone)
    }

    /// Puts new segments in the place of those that go: over their documents, and over those that are in none.
    fn replace_text(
        &self, loaded: &CollectionState, row: &CollectionRow, gone: &[Arc<TextSegment>],
    ) -> Result<(), Error> {
        // Whatever changes from here on is noted; the rows are read after that.
        let token = NEXT_TOKEN.fetch_add(1, Ordering::Relaxed);
        loaded.change(|view| view.begin_text(token));
        let Some(view) = loaded.view() else { return Ok(()) };
        let kept = view.text().iter().filter(|(segment, _)| gone.iter().all(|gone| !Arc::ptr_eq(gone, segment)));
        let outside = kept.fold(view.with_document().clone(), |all, (_, current)| all.and_not(current));
        let mut new = Vec::new();
        let indexed = self.index_text(row, &outside, &mut new);
        if !matches!(indexed, Ok(true)) {
            self.discard(loaded, &new);
            return indexed.map(drop);
        }
        let mut is_replaced = false;
        loaded.change(|view| is_replaced = view.replace_text(token, gone, &new));
        if is_replaced {
            self.cache.remove_text(row.id, gone, &new);
        } else {
            // The next round tries again.
            self.discard(loaded, &new);
            return Ok(());
        }
        tracing::debug!(collection = row.name, documents = outside.len(), "indexed the text of documents");
        Ok(())
    }

    /// Removes the files of segments that nothing uses.
    fn discard(&self, loaded: &CollectionState, unused: &[Arc<TextSegment>]) {
        let used: Vec<Arc<TextSegment>> = loaded
            .view()
            .map(|view| view.text().iter().map(|(segment, _)| Arc::clone(segment)).collect())
            .unwrap_or_default();
        self.cache.remove_text(loaded.id, unused, &used);
    }

    /// Makes segments over the documents of these offsets; `false` if maintenance has to stop or the disk does
    /// not take them.
    fn index_text(
        &self, row: &CollectionRow, offsets: &Bitmap, segments: &mut Vec<Arc<TextSegment>>,
    ) -> Result<bool, Error> {
        let reader = self.store.read()?;
        let Some(head) = reader.head(row.number)? else { return Ok(false) };
        let (epoch, collection) = (self.store.epoch(), row.family.into_bytes());
        let header = TextHeader { epoch, collection, position: head.position };
        let analyzer = self.collections.analyzer(row);
        let mut builder = TextBuilder::new(Arc::clone(&analyzer));
        let mut finish = |builder: &mut TextBuilder| {
            let first = builder.first().unwrap_or(0);
            let full = std::mem::replace(builder, TextBuilder::new(Arc::clone(&analyzer)));
            let bytes = full.finish(&header);
            self.cache.write_text(row.id, &header, first, bytes).map(|segment| segments.push(Arc::new(segment)))
        };
        let offsets: Vec<u32> = offsets.iter().collect();
        let mut failed = None;
        let parts = Parts { document: true, ..Parts::default() };
        for chunk in offsets.chunks(10_000) {
            if self.dirty.stopped().load(Ordering::Relaxed) {
                return Ok(false);
            }
            reader.rows(row.number, chunk, parts, &mut |record| {
                if let Some(document) = record.document {
                    builder.add(record.offset, document);
                }
                if (builder.len() >= FULL_DOCUMENTS || builder.heap_bytes() >= FULL_BYTES)
                    && let Err(error) = finish(&mut builder)
                {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            if failed.is_some() {
                break;
            }
        }
        let finished =
            failed.map_or(Ok(()), Err).and_then(|()| if builder.is_empty() { Ok(()) } else { finish(&mut builder) });
        if let Err(error) = finished {
            tracing::warn!(collection = row.name, %error, "could not write a text segment; documents are read instead");
            return Ok(false);
        }
        Ok(true)
    }
}

/// Segments to be rebuilt along with the `outside` documents: small ones, those that are mostly out of date, and those
/// with the terms of another analyzer.
fn worn(view: &View, outside: usize, analyzer: &Analyzer) -> Vec<Arc<TextSegment>> {
    let is_worn = |segment: &TextSegment, current: &Bitmap| {
        let is_small = segment.len() <= outside.saturating_mul(MERGE_RATIO).min(FULL_DOCUMENTS / 2);
        is_small || current.len() < segment.len() / 2 || segment.analyzer() != analyzer.fingerprint()
    };
    let worn = view.text().iter().filter(|(segment, current)| is_worn(segment, current));
    worn.map(|(segment, _)| Arc::clone(segment)).collect()
}
