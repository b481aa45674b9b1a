//! Documents that are in no segment yet, analyzed when they are first searched: most of them in an index of terms that
//! is only in memory, the latest one by one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::analyzer::Analyzer;
use super::document::AnalyzedDocument;
use super::terms::TermsBuilder;
use crate::bitmap::Bitmap;
use crate::bytes::{first_from, u32_at};

/// The most documents that are searched one by one before all are indexed again, or a share of all if that is more.
const LOOSE_MAX: usize = 64;
const LOOSE_SHARE: usize = 8;
/// What a document takes beside itself.
const ENTRY_BYTES: usize = 48;

/// The documents of a view that are in none of its segments, ready to be searched.
#[derive(Clone, Default)]
pub struct RecentDocuments {
    /// By which analyzer.
    fingerprint: u64,
    documents: HashMap<u32, Arc<AnalyzedDocument>>,
    /// Words and characters of all of them.
    tokens: u64,
    /// Bytes that they take.
    bytes: usize,
    /// Those that are not in the index.
    loose: BTreeSet<u32>,
    index: Option<Arc<RecentIndex>>,
    /// A bit for each document of the index that is still as it was.
    current: Vec<u64>,
}

/// An index of terms in memory.
pub(super) struct RecentIndex {
    /// The offsets of its documents, ascending, little-endian.
    pub(super) offsets: Vec<u8>,
    pub(super) terms: Vec<u8>,
}

impl RecentDocuments {
    /// None yet, by this analyzer.
    pub(crate) fn new(fingerprint: u64) -> Self {
        Self { fingerprint, ..Self::default() }
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Of these documents those that are missing.
    pub(crate) fn missing(&self, offsets: &Bitmap) -> Bitmap {
        offsets.iter().filter(|offset| !self.documents.contains_key(offset)).collect()
    }

    /// Whether all of these are here, and no other.
    pub(crate) fn are_all(&self, offsets: &Bitmap) -> bool {
        // There are none that are not to be here: what changes is removed.
        self.documents.len() == offsets.len()
    }

    pub(crate) fn has(&self, offset: u32) -> bool {
        self.documents.contains_key(&offset)
    }

    /// Analyzes a document and keeps it, if the request that it is for may go on.
    pub(crate) fn add(&mut self, analyzer: &Analyzer, offset: u32, text: &str) {
        let Some(document) = AnalyzedDocument::of_request(analyzer, text) else { return };
        self.remove(offset);
        self.bytes += document.heap_bytes() + ENTRY_BYTES;
        self.tokens += u64::from(document.length());
        self.documents.insert(offset, Arc::new(document));
        self.loose.insert(offset);
    }

    /// A document changed, is gone, or is in a segment now.
    pub(crate) fn remove(&mut self, offset: u32) {
        let Some(document) = self.documents.remove(&offset) else { return };
        self.tokens -= u64::from(document.length());
        self.bytes -= document.heap_bytes() + ENTRY_BYTES;
        if self.loose.remove(&offset) {
            return;
        }
        let number = self.index.as_ref().and_then(|index| find_offset(&index.offsets, offset));
        if let Some(number) = number {
            self.current[number / 64] &= !(1 << (number % 64));
        }
    }

    /// Indexes all of them, if too many are not.
    pub(crate) fn index(&mut self) {
        if self.loose.len() <= LOOSE_MAX.max(self.documents.len() / LOOSE_SHARE) {
            return;
        }
        let mut offsets: Vec<u32> = self.documents.keys().copied().collect();
        offsets.sort_unstable();
        let mut builder = TermsBuilder::default();
        offsets.iter().for_each(|offset| builder.add(&self.documents[offset]));
        self.current = vec![u64::MAX; offsets.len().div_ceil(64)];
        let offsets = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        self.index = Some(Arc::new(RecentIndex { offsets, terms: builder.finish() }));
        self.loose.clear();
    }

    /// Words and characters of all of them.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The index, and a bit for each of its documents that is still as it was.
    pub(super) fn indexed(&self) -> Option<(&RecentIndex, &[u64])> {
        Some((self.index.as_deref()?, &self.current))
    }

    /// Those that are not in the index, by ascending offset.
    pub(super) fn loose(&self) -> impl Iterator<Item = (u32, &AnalyzedDocument)> {
        self.loose.iter().map(|offset| (*offset, &*self.documents[offset]))
    }

    /// Bytes of the heap they take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes + self.index.as_ref().map_or(0, |index| index.offsets.len() + index.terms.len())
    }
}

/// The number of the document with an offset.
pub(super) fn find_offset(offsets: &[u8], offset: u32) -> Option<usize> {
    let count = offsets.len() / 4;
    let number = first_from(0..count, |number| u32_at(offsets, number * 4) < offset);
    (number < count && u32_at(offsets, number * 4) == offset).then_some(number)
}
