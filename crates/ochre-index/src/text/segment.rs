//! An immutable index of the trigrams and the terms of some documents, as bytes: `docs/formats/snapshots.md`.

use std::sync::Arc;

use super::analyzer::Analyzer;
use super::document::AnalyzedDocument;
use super::terms::{Terms, TermsBuilder};
use super::{END, Needs, key};
use crate::bitmap::Bitmap;
use crate::bytes::{first_from, u32_at};

/// The version of the format.
pub const TEXT_VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"OCHRETXT";
/// Bytes before the documents.
const HEAD: usize = 60;
/// A trigram with so many more documents than are left already tells less than reading those would.
const TELLING_MAX: usize = 16;

/// What a segment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextHeader {
    /// The database's epoch.
    pub epoch: u64,
    /// The collection's id.
    pub collection: [u8; 16],
    /// The position that its documents were read at.
    pub position: u64,
}

/// Collects documents for a segment.
pub struct TextBuilder {
    analyzer: Arc<Analyzer>,
    terms: TermsBuilder,
    documents: Vec<u32>,
    /// Trigram in the high half, number of the document in the low one.
    pairs: Vec<u64>,
    trigrams: Vec<u32>,
}

impl TextBuilder {
    /// Of no documents yet, whose terms this analyzer finds.
    pub fn new(analyzer: Arc<Analyzer>) -> Self {
        Self {
            analyzer,
            terms: TermsBuilder::default(),
            documents: Vec::new(),
            pairs: Vec::new(),
            trigrams: Vec::new(),
        }
    }

    /// Adds a document; offsets come in ascending order.
    pub fn add(&mut self, offset: u32, document: &str) {
        let number = self.documents.len() as u64;
        self.documents.push(offset);
        self.terms.add(&AnalyzedDocument::new(&self.analyzer, document));
        let bytes = document.as_bytes();
        let at = |index: usize| bytes.get(index).copied().unwrap_or(END);
        self.trigrams.clear();
        self.trigrams.extend((0..bytes.len()).map(|index| key([bytes[index], at(index + 1), at(index + 2)])));
        self.trigrams.sort_unstable();
        self.trigrams.dedup();
        self.pairs.extend(self.trigrams.iter().map(|trigram| u64::from(*trigram) << 32 | number));
    }

    /// How many documents were added.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// The offset of the first document.
    pub fn first(&self) -> Option<u32> {
        self.documents.first().copied()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Bytes of the heap it holds, about.
    pub fn heap_bytes(&self) -> usize {
        self.pairs.len() * 8 + self.documents.len() * 4 + self.terms.heap_bytes()
    }

    /// The segment as bytes.
    pub fn finish(mut self, header: &TextHeader) -> Vec<u8> {
        self.pairs.sort_unstable();
        let (mut keys, mut ends, mut postings) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = 0;
        for pair in &self.pairs {
            #[expect(clippy::cast_possible_truncation, reason = "the two halves of the pair")]
            let (trigram, number) = ((pair >> 32) as u32, *pair as u32);
            if keys.last() != Some(&trigram) {
                keys.push(trigram);
                ends.push(0u32);
                before = 0;
            }
            // The first is its number plus one, the others are how much further they are: none is 0.
            let mut gap = number + 1 - before;
            before = number + 1;
            while gap >= 0x80 {
                postings.push(gap.to_le_bytes()[0] | 0x80);
                gap >>= 7;
            }
            postings.push(gap.to_le_bytes()[0]);
            *ends.last_mut().expect("a key was pushed") = u32::try_from(postings.len()).expect("segments are small");
        }
        let terms = self.terms.finish();
        let trigrams = (self.documents.len() + 2 * keys.len()) * 4 + postings.len();
        let mut bytes = Vec::with_capacity(HEAD + trigrams + terms.len() + 4);
        bytes.extend(MAGIC);
        bytes.extend(TEXT_VERSION.to_le_bytes());
        bytes.extend(u32::try_from(self.documents.len()).expect("offsets are u32").to_le_bytes());
        bytes.extend(header.epoch.to_le_bytes());
        bytes.extend(header.collection);
        bytes.extend(header.position.to_le_bytes());
        bytes.extend(self.analyzer.fingerprint().to_le_bytes());
        bytes.extend(u32::try_from(keys.len()).expect("trigrams are 24 bits").to_le_bytes());
        debug_assert_eq!(bytes.len(), HEAD, "the head has a fixed size");
        for number in self.documents.iter().chain(&keys).chain(&ends) {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(&postings);
        bytes.extend(terms);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }
}

impl crate::coverage::Segment for TextSegment {
    fn position(&self) -> u64 {
        self.position
    }

    fn covered(&self) -> Bitmap {
        self.offsets().collect()
    }
}

/// A segment that can be asked.
pub struct TextSegment {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    documents: usize,
    keys: usize,
    position: u64,
    analyzer: u64,
    /// Where its index of terms begins.
    terms_at: usize,
}

impl TextSegment {
    /// A segment of this epoch and collection. All of it is checked here.
    ///
    /// # Errors
    /// Why it cannot be used: rebuild it.
    pub fn open(
        bytes: Arc<dyn AsRef<[u8]> + Send + Sync>, epoch: u64, collection: [u8; 16],
    ) -> Result<Self, &'static str> {
        let all = (*bytes).as_ref();
        if all.len() < HEAD + 4 || all[..8] != MAGIC {
            return Err("it is no text segment");
        }
        let (body, checksum) = all.split_at(all.len() - 4);
        if checksum != crc32c::crc32c(body).to_le_bytes() {
            return Err("it does not match its checksum");
        }
        if u32_at(all, 8) != TEXT_VERSION {
            return Err("it has another format version");
        }
        if all[16..24] != epoch.to_le_bytes() || all[24..40] != collection {
            return Err("it is of another epoch or collection");
        }
        let position = u64::from_le_bytes(all[40..48].try_into().map_err(|_| "it is cut off")?);
        let analyzer = u64::from_le_bytes(all[48..56].try_into().map_err(|_| "it is cut off")?);
        let (documents, keys) = (u32_at(all, 12) as usize, u32_at(all, 56) as usize);
        let postings = HEAD + (documents + 2 * keys) * 4;
        let postings_bytes = keys.checked_sub(1).map_or(0, |last| u32_at(all, postings - keys * 4 + last * 4) as usize);
        let terms_at = postings + postings_bytes;
        if Terms::open(body.get(terms_at..).unwrap_or_default()).is_none_or(|terms| terms.documents() != documents) {
            return Err("it is cut off");
        }
        Ok(Self { bytes, documents, keys, position, analyzer, terms_at })
    }

    /// The fingerprint of the analyzer that found its terms.
    pub fn analyzer(&self) -> u64 {
        self.analyzer
    }

    /// Its index of terms.
    pub(crate) fn terms(&self) -> Terms<'_> {
        let all = (*self.bytes).as_ref();
        Terms::open(&all[self.terms_at..all.len() - 4]).expect("was looked at when it was opened")
    }

    /// The offsets of its documents, ascending, little-endian.
    pub(crate) fn offset_bytes(&self) -> &[u8] {
        &(*self.bytes).as_ref()[HEAD..HEAD + self.documents * 4]
    }

    /// The position that its documents were read at.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many documents it has.
    pub fn len(&self) -> usize {
        self.documents
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.documents == 0
    }

    /// Bytes it takes, in memory or in a mapped file.
    pub fn bytes(&self) -> usize {
        (*self.bytes).as_ref().len()
    }

    /// The offsets of its documents, ascending.
    pub fn offsets(&self) -> impl Iterator<Item = u32> {
        (0..self.documents).map(|document| self.offset(document))
    }

    fn offset(&self, document: usize) -> u32 {
        u32_at((*self.bytes).as_ref(), HEAD + document * 4)
    }

    fn key(&self, index: usize) -> u32 {
        u32_at((*self.bytes).as_ref(), HEAD + (self.documents + index) * 4)
    }

    /// The documents under the trigram at `index`, as bytes.
    fn posting(&self, index: usize) -> &[u8] {
        let all = (*self.bytes).as_ref();
        let ends = HEAD + (self.documents + self.keys) * 4;
        let postings = ends + self.keys * 4;
        let end = |index: usize| u32_at(all, ends + index * 4) as usize;
        let start = index.checked_sub(1).map_or(0, end);
        all.get(postings + start..postings + end(index)).unwrap_or_default()
    }

    /// The indexes of the trigrams between two keys, both included.
    fn range(&self, low: u32, high: u32) -> std::ops::Range<usize> {
        let from = |wanted: u64| first_from(0..self.keys, |key| u64::from(self.key(key)) < wanted);
        from(u64::from(low))..from(u64::from(high) + 1)
    }

    /// The offsets of the documents that meet a condition, and maybe some more.
    pub(crate) fn find(&self, needs: &Needs) -> Bitmap {
        let (set, mut found) = (self.meeting(needs), Bitmap::new());
        for (word, bits) in set.iter().enumerate() {
            for bit in crate::bitmap::Bits(*bits) {
                found.insert(self.offset(word * 64 + bit as usize));
            }
        }
        found
    }

    /// A bit for each document that meets a condition.
    fn meeting(&self, needs: &Needs) -> Vec<u64> {
        let mut set = vec![0u64; self.documents.div_ceil(64)];
        let all = |set: &mut [u64]| (0..self.documents).for_each(|document| set[document / 64] |= 1 << (document % 64));
        match needs {
            Needs::Anything => all(&mut set),
            Needs::Trigram(low, high) => {
                self.range(*low, *high).for_each(|index| self.collect(self.posting(index), &mut set));
            }
            Needs::Any(parts) => {
                for part in parts {
                    set.iter_mut().zip(self.meeting(part)).for_each(|(set, other)| *set |= other);
                }
            }
            Needs::All(parts) => {
                // The rarest first; once few are left, common trigrams are not worth decoding.
                let mut parts: Vec<(usize, &Needs)> = parts.iter().map(|part| (self.weight(part), part)).collect();
                parts.sort_by_key(|(weight, _)| *weight);
                all(&mut set);
                let mut left = self.documents;
                for (weight, part) in parts {
                    if left == 0 || weight / TELLING_MAX > left {
                        break;
                    }
                    set.iter_mut().zip(self.meeting(part)).for_each(|(set, other)| *set &= other);
                    left = set.iter().map(|bits| bits.count_ones() as usize).sum();
                }
            }
        }
        set
    }

    /// Bytes of postings to decode for a condition.
    fn weight(&self, needs: &Needs) -> usize {
        match needs {
            Needs::Anything => usize::MAX,
            Needs::Trigram(low, high) => self.range(*low, *high).map(|index| self.posting(index).len()).sum(),
            Needs::Any(parts) => parts.iter().map(|part| self.weight(part)).sum(),
            Needs::All(parts) => parts.iter().map(|part| self.weight(part)).min().unwrap_or(usize::MAX),
        }
    }

    fn collect(&self, posting: &[u8], set: &mut [u64]) {
        let (mut number, mut gap, mut shift) = (0usize, 0usize, 0u32);
        for byte in posting {
            gap |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                number += gap;
                (gap, shift) = (0, 0);
                if let Some(word) = set.get_mut((number - 1) / 64) {
                    *word |= 1 << ((number - 1) % 64);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ochre_model::DocumentTest;
    use regex::Regex;

    use super::*;

    const HEADER: TextHeader = TextHeader { epoch: 3, collection: [7; 16], position: 9 };

    fn builder() -> TextBuilder {
        TextBuilder::new(Arc::new(Analyzer::new(&ochre_model::TextAnalyzer::default())))
    }

    fn segment(documents: &[String]) -> TextSegment {
        let mut builder = builder();
        (0u32..).zip(documents).for_each(|(index, document)| builder.add(index * 3, document));
        TextSegment::open(Arc::new(builder.finish(&HEADER)), 3, [7; 16]).map_err(str::to_owned).unwrap()
    }

    /// Documents of words out of few letters and scripts, so that chance finds overlaps.
    fn documents(count: usize) -> Vec<String> {
        let mut rng = fastrand::Rng::with_seed(4);
        let letters: Vec<char> = "abAB 1é日本語ß\n.".chars().collect();
        (0..count).map(|_| (0..rng.usize(0..30)).map(|_| *rng.choice(&letters).unwrap()).collect()).collect()
    }

    #[test]
    fn no_document_that_passes_is_left_out() {
        let documents = documents(500);
        let segment = segment(&documents);
        let texts = ["a", "ab", "abA", "abAB", "é", "日", "日本", "本語é", "a b", "\n", "zz", "ß.a1"];
        let patterns = [
            "ab+A",
            "(?i)aba",
            "a.*b",
            "^日",
            "(ab|BA)1",
            "[ab]{3}",
            "語$",
            "a?b?c?",
            "(?s)a.b",
            "é(本|語)",
            "(?i)É日",
            "x",
            "[^a]b",
            "a{2,}",
            "(?:a|b|)1",
        ];
        let tests = texts.iter().map(|text| DocumentTest::Contains((*text).into()));
        let tests = tests.chain(patterns.iter().map(|text| DocumentTest::Matches(Regex::new(text).unwrap())));
        let (mut narrowed, mut exact) = (0, 0);
        for test in tests {
            let (needs, is_exact) = Needs::of(&test);
            let found = segment.find(&needs);
            let passing = (0u32..).zip(&documents).filter(|(_, document)| test.matches(Some(document)));
            let passing: Vec<u32> = passing.map(|(index, _)| index * 3).collect();
            assert!(passing.iter().all(|offset| found.contains(*offset)), "{test:?} needs {needs:?}");
            if is_exact {
                assert_eq!(found.len(), passing.len(), "{test:?}");
                exact += 1;
            }
            narrowed += usize::from(found.len() < documents.len() / 2);
        }
        assert!(exact >= 6 && narrowed >= 14, "{exact} exact, {narrowed} narrowed");
    }

    #[test]
    fn a_segment_fits_only_what_it_is_of_and_every_byte_counts() {
        let mut builder = builder();
        builder.add(5, "hello");
        builder.add(9, "");
        let bytes = builder.finish(&HEADER);
        let open = |bytes: &[u8], epoch, collection| TextSegment::open(Arc::new(bytes.to_vec()), epoch, collection);
        let sound = open(&bytes, 3, [7; 16]).map_err(str::to_owned).unwrap();
        assert_eq!((sound.offsets().collect::<Vec<_>>(), sound.position()), (vec![5, 9], 9));
        assert!(open(&bytes, 4, [7; 16]).is_err());
        assert!(open(&bytes, 3, [8; 16]).is_err());
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1;
            assert!(open(&damaged, 3, [7; 16]).is_err(), "byte {index}");
            assert!(open(&bytes[..index], 3, [7; 16]).is_err(), "cut at {index}");
        }
    }
}
