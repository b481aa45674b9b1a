//! What searches of documents find out about a view, for the next ones: documents that no segment has, analyzed, and
//! which documents of the segments are as they were.

use std::sync::Arc;

use parking_lot::Mutex;

use super::analyzer::Analyzer;
use super::ranked::SegmentStatistics;
use super::recent::RecentDocuments;
use super::segment::TextSegment;
use crate::bitmap::Bitmap;
use crate::evaluate::Rows;
use crate::view::View;

/// How many documents are read at once to be kept.
const ADDED_AT_ONCE: usize = 1000;

/// A segment, how many of its documents were current, and its statistics.
type Known = (Arc<TextSegment>, usize, Arc<SegmentStatistics>);

/// A segment with its statistics.
pub(super) type KnownSegment = (Arc<TextSegment>, Arc<SegmentStatistics>);

/// The cache of a view. A copy of the view has one of its own, with what there was when it was copied.
#[derive(Default)]
pub(crate) struct TextCache {
    recent: Mutex<Arc<RecentDocuments>>,
    /// Held by the search that adds to them.
    adding: Mutex<()>,
    statistics: Mutex<Vec<Known>>,
}

impl Clone for TextCache {
    fn clone(&self) -> Self {
        // One after the other: nobody holds one of the locks and waits for another.
        let recent = Arc::clone(&self.recent.lock());
        let statistics = self.statistics.lock().clone();
        Self { recent: Mutex::new(recent), adding: Mutex::default(), statistics: Mutex::new(statistics) }
    }
}

impl TextCache {
    /// A document changed or is gone.
    pub(crate) fn change(&mut self, offset: u32) {
        let recent = self.recent.get_mut();
        if recent.has(offset) {
            Arc::make_mut(recent).remove(offset);
        }
    }

    /// Bytes of the heap it takes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let statistics: usize = self.statistics.lock().iter().map(|(.., statistics)| statistics.heap_bytes()).sum();
        let recent = self.recent.lock().heap_bytes();
        recent + statistics
    }
}

impl View {
    /// The documents that no segment of this analyzer has, ready to be searched, as far as they fit `bytes_max`; and
    /// those that are left, which have to be read for each search. What is missing of the first is read.
    ///
    /// # Errors
    /// Whatever `rows` fails with.
    pub fn recent_documents<R: Rows>(
        &self, analyzer: &Analyzer, bytes_max: usize, rows: &mut R,
    ) -> Result<(Arc<RecentDocuments>, Bitmap), R::Error> {
        let outside = self.outside_terms(analyzer);
        let known = || {
            let recent = Arc::clone(&self.text_cache.recent.lock());
            if recent.fingerprint() == analyzer.fingerprint() {
                recent
            } else {
                Arc::new(RecentDocuments::new(analyzer.fingerprint()))
            }
        };
        let recent = known();
        if recent.are_all(&outside) {
            return Ok((recent, Bitmap::new()));
        }
        // One search at a time adds to them; others read for themselves what is missing.
        let Some(_adding) = self.text_cache.adding.try_lock().filter(|_| recent.heap_bytes() < bytes_max) else {
            let missing = recent.missing(&outside);
            return Ok((recent, missing));
        };
        let mut recent = known();
        let missing: Vec<u32> = recent.missing(&outside).iter().collect();
        let added = Arc::make_mut(&mut recent);
        for part in missing.chunks(ADDED_AT_ONCE) {
            if added.heap_bytes() >= bytes_max {
                break;
            }
            let part: Bitmap = part.iter().copied().collect();
            let read = rows.documents(&part, &mut |offset, text| added.add(analyzer, offset, text));
            if read.is_err() {
                // What was read before is good for the next search.
                *self.text_cache.recent.lock() = Arc::clone(&recent);
                return read.map(|()| (recent, Bitmap::new()));
            }
        }
        added.index();
        *self.text_cache.recent.lock() = Arc::clone(&recent);
        let missing = recent.missing(&outside);
        Ok((recent, missing))
    }

    /// The documents that no segment of this analyzer has.
    fn outside_terms(&self, analyzer: &Analyzer) -> Bitmap {
        let fitting = |(segment, _): &&(Arc<TextSegment>, Bitmap)| segment.analyzer() == analyzer.fingerprint();
        if self.text().iter().all(|segment| fitting(&segment)) {
            return self.outside_text();
        }
        let fitting = self.text().iter().filter(fitting);
        fitting.fold(self.with_document().clone(), |outside, (_, current)| outside.and_not(current))
    }

    /// Whether a segment has the terms of another analyzer.
    pub fn has_other_terms(&self, analyzer: &Analyzer) -> bool {
        self.text().iter().any(|(segment, _)| segment.analyzer() != analyzer.fingerprint())
    }

    /// The segments of an analyzer, with which of their documents are current.
    pub(super) fn text_statistics<R: Rows>(
        &self, analyzer: &Analyzer, rows: &mut R,
    ) -> Result<Vec<KnownSegment>, R::Error> {
        let mut all = Vec::new();
        for (segment, current) in self.text().iter().filter(|(other, _)| other.analyzer() == analyzer.fingerprint()) {
            rows.check_budget()?;
            // Of a segment documents only ever cease to be current: as many are the same.
            let is_known = |(other, count, _): &&Known| Arc::ptr_eq(other, segment) && *count == current.len();
            let known = self.text_cache.statistics.lock().iter().find(is_known).map(|(.., known)| Arc::clone(known));
            let statistics = known.unwrap_or_else(|| {
                let made = Arc::new(SegmentStatistics::new(segment, current));
                let mut known = self.text_cache.statistics.lock();
                known.retain(|(other, ..)| !Arc::ptr_eq(other, segment));
                known.push((Arc::clone(segment), current.len(), Arc::clone(&made)));
                made
            });
            all.push((Arc::clone(segment), statistics));
        }
        Ok(all)
    }
}
