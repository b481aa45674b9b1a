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

/// A segment, how many of its documents were current, and its statistics.
type Known = (Arc<TextSegment>, usize, Arc<SegmentStatistics>);

/// The cache of a view. A copy of the view has one of its own, with what there was when it was copied.
#[derive(Default)]
pub(crate) struct TextCache {
    recent: Mutex<Arc<RecentDocuments>>,
    statistics: Mutex<Vec<Known>>,
}

impl Clone for TextCache {
    fn clone(&self) -> Self {
        Self {
            recent: Mutex::new(Arc::clone(&self.recent.lock())),
            statistics: Mutex::new(self.statistics.lock().clone()),
        }
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
        let statistics = self.statistics.lock();
        let statistics: usize = statistics.iter().map(|(_, _, statistics)| statistics.heap_bytes()).sum();
        self.recent.lock().heap_bytes() + statistics
    }
}

impl View {
    /// The documents that no segment of this analyzer has, ready to be searched. What is missing of them is read.
    ///
    /// # Errors
    /// Whatever `rows` fails with.
    pub fn recent_documents<R: Rows>(
        &self, analyzer: &Analyzer, rows: &mut R,
    ) -> Result<Arc<RecentDocuments>, R::Error> {
        let mut recent = Arc::clone(&self.text_cache.recent.lock());
        if recent.fingerprint() != analyzer.fingerprint() {
            recent = Arc::new(RecentDocuments::new(analyzer.fingerprint()));
        }
        let outside = self.outside_terms(analyzer);
        if recent.len() == outside.len() {
            return Ok(recent);
        }
        let missing = recent.missing(&outside);
        let added = Arc::make_mut(&mut recent);
        let read = rows.documents(&missing, &mut |offset, text| added.add(analyzer, offset, text));
        added.index();
        // What was read before a failure is good for the next search.
        *self.text_cache.recent.lock() = Arc::clone(&recent);
        read.map(|()| recent)
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
    pub(super) fn text_statistics(&self, analyzer: &Analyzer) -> Vec<(Arc<TextSegment>, Arc<SegmentStatistics>)> {
        let mut known = self.text_cache.statistics.lock();
        let segments = self.text().iter().filter(|(segment, _)| segment.analyzer() == analyzer.fingerprint());
        let all = segments.map(|(segment, current)| {
            // Of a segment documents only ever cease to be current: as many are the same.
            let own = known.iter_mut().find(|(other, ..)| Arc::ptr_eq(other, segment));
            let statistics = match own {
                Some((_, count, statistics)) if *count == current.len() => Arc::clone(statistics),
                Some((_, count, statistics)) => {
                    *statistics = Arc::new(SegmentStatistics::new(segment, current));
                    *count = current.len();
                    Arc::clone(statistics)
                }
                None => {
                    let made = Arc::new(SegmentStatistics::new(segment, current));
                    known.push((Arc::clone(segment), current.len(), Arc::clone(&made)));
                    made
                }
            };
            (Arc::clone(segment), statistics)
        });
        all.collect()
    }
}
