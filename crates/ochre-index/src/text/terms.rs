//! An inverted index of the terms of some documents, as bytes: `docs/formats/snapshots.md`.
//!
//! Documents are numbered from 0. The postings of a term are divided into blocks of [`BLOCK`] consecutive numbers, each
//! with the largest count and the shortest document in it: no document of the block can score higher than these two
//! together, and searches pass over blocks that cannot hold one of the best (Ding and Suel, "Faster Top-k Document
//! Retrieval Using Block-Max Indexes", SIGIR 2011).

use std::collections::HashMap;
use std::ops::Range;

use super::document::AnalyzedDocument;
use crate::bytes::{first_from, u32_at};

/// Documents whose postings are one block.
pub(crate) const BLOCK: usize = 1024;
/// Bytes before the lengths of the documents.
const HEAD: usize = 32;
/// Bytes of a block: its number, the largest count in it, where its postings begin, the shortest document in it.
const BLOCK_BYTES: usize = 12;
/// A count that did not fit a byte: it stands among the large ones.
const LARGE: u8 = u8::MAX;

/// Collects documents for an index of terms.
#[derive(Default)]
pub(crate) struct TermsBuilder {
    lengths: Vec<u32>,
    ids: HashMap<Box<str>, u32>,
    term_bytes: usize,
    /// Term, number of the document, count; by ascending document.
    postings: Vec<(u32, u32, u16)>,
}

impl TermsBuilder {
    /// Adds the next document.
    pub(crate) fn add(&mut self, document: &AnalyzedDocument) {
        let number = to_u32(self.lengths.len());
        self.lengths.push(document.length());
        for (term, count) in document.terms() {
            let next = to_u32(self.ids.len());
            let id = match self.ids.get(term) {
                Some(id) => *id,
                None => {
                    self.term_bytes += term.len();
                    self.ids.insert(term.into(), next);
                    next
                }
            };
            self.postings.push((id, number, count));
        }
    }

    /// Bytes of the heap it holds, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.postings.len() * 12 + self.ids.len() * 48 + self.term_bytes + self.lengths.len() * 4
    }

    /// The index as bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        let Self { lengths, ids, term_bytes, postings } = self;
        let mut terms: Vec<(Box<str>, u32)> = ids.into_iter().collect();
        terms.sort_unstable();
        let mut order = vec![0_u32; terms.len()];
        (0..).zip(&terms).for_each(|(place, (_, id))| order[*id as usize] = place);
        // Sorted by term; within a term they stay in the order of documents.
        let mut places = vec![0_usize; terms.len() + 1];
        postings.iter().for_each(|(id, ..)| places[order[*id as usize] as usize + 1] += 1);
        (1..places.len()).for_each(|place| places[place] += places[place - 1]);
        let mut sorted = vec![(0_u32, 0_u16); postings.len()];
        let mut next = places.clone();
        for (id, number, count) in &postings {
            let at = &mut next[order[*id as usize] as usize];
            sorted[*at] = (*number, *count);
            *at += 1;
        }
        let (mut blocks, mut block_ends) = (Vec::new(), Vec::with_capacity(terms.len()));
        for term in places.windows(2) {
            let mut at = term[0];
            for postings in sorted[term[0]..term[1]].chunk_by(|a, b| a.0 as usize / BLOCK == b.0 as usize / BLOCK) {
                let block = u16::try_from(postings[0].0 as usize / BLOCK).expect("an index has few documents");
                let largest = postings.iter().map(|(_, count)| *count).max().unwrap_or(0);
                let shortest = postings.iter().map(|(number, _)| lengths[*number as usize]).min().unwrap_or(0);
                blocks.extend(block.to_le_bytes());
                blocks.extend(largest.to_le_bytes());
                blocks.extend(to_u32(at).to_le_bytes());
                blocks.extend(shortest.to_le_bytes());
                at += postings.len();
            }
            block_ends.push(to_u32(blocks.len() / BLOCK_BYTES));
        }
        let mut bytes =
            Vec::with_capacity(HEAD + lengths.len() * 4 + terms.len() * 8 + blocks.len() + sorted.len() * 3);
        let tokens: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        let large: Vec<(u32, u16)> = (0..)
            .zip(&sorted)
            .filter(|(_, (_, count))| *count >= u16::from(LARGE))
            .map(|(posting, (_, count))| (posting, *count))
            .collect();
        bytes.extend(tokens.to_le_bytes());
        for count in [lengths.len(), terms.len(), blocks.len() / BLOCK_BYTES, sorted.len(), large.len(), term_bytes] {
            bytes.extend(to_u32(count).to_le_bytes());
        }
        debug_assert_eq!(bytes.len(), HEAD, "the head has a fixed size");
        lengths.iter().for_each(|length| bytes.extend(length.to_le_bytes()));
        let mut end = 0;
        for (term, _) in &terms {
            end += term.len();
            bytes.extend(to_u32(end).to_le_bytes());
        }
        block_ends.iter().for_each(|end| bytes.extend(end.to_le_bytes()));
        bytes.extend(blocks);
        #[expect(clippy::cast_possible_truncation, reason = "a block has fewer than 2¹⁶ documents")]
        sorted.iter().for_each(|(number, _)| bytes.extend(((*number as usize % BLOCK) as u16).to_le_bytes()));
        sorted.iter().for_each(|(_, count)| bytes.push(u8::try_from(*count).unwrap_or(LARGE)));
        for (posting, count) in large {
            bytes.extend(posting.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
        terms.iter().for_each(|(term, _)| bytes.extend(term.as_bytes()));
        bytes
    }
}

/// An index of terms that can be asked.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    tokens: u64,
    postings_count: usize,
    lengths: &'a [u8],
    term_ends: &'a [u8],
    block_ends: &'a [u8],
    blocks: &'a [u8],
    locals: &'a [u8],
    counts: &'a [u8],
    large: &'a [u8],
    text: &'a [u8],
}

impl<'a> Terms<'a> {
    /// The index that these bytes are; `None` if they are none.
    pub(crate) fn open(bytes: &'a [u8]) -> Option<Self> {
        let (head, mut rest) = bytes.split_at_checked(HEAD)?;
        let count = |index: usize| u32_at(head, 8 + index * 4) as usize;
        let mut take = |bytes: Option<usize>| {
            let (part, left) = rest.split_at_checked(bytes?)?;
            rest = left;
            Some(part)
        };
        let terms = Self {
            tokens: u64::from_le_bytes(head[..8].try_into().ok()?),
            postings_count: count(3),
            lengths: take(count(0).checked_mul(4))?,
            term_ends: take(count(1).checked_mul(4))?,
            block_ends: take(count(1).checked_mul(4))?,
            blocks: take(count(2).checked_mul(BLOCK_BYTES))?,
            locals: take(count(3).checked_mul(2))?,
            counts: take(Some(count(3)))?,
            large: take(count(4).checked_mul(6))?,
            text: take(Some(count(5)))?,
        };
        rest.is_empty().then_some(terms)
    }

    /// How many words and characters its documents have.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How many documents it has.
    pub(crate) fn documents(&self) -> usize {
        self.lengths.len() / 4
    }

    /// How many words and characters a document has.
    #[inline]
    pub(crate) fn length(&self, document: usize) -> u32 {
        u32_at(self.lengths, document * 4)
    }

    /// The lengths of the documents of a block, little-endian.
    pub(crate) fn block_lengths(&self, block: usize) -> &'a [u8] {
        let end = ((block + 1) * BLOCK * 4).min(self.lengths.len());
        self.lengths.get(block * BLOCK * 4..end).unwrap_or_default()
    }

    fn term(&self, index: usize) -> &'a [u8] {
        let start = index.checked_sub(1).map_or(0, |before| u32_at(self.term_ends, before * 4));
        self.text.get(start as usize..u32_at(self.term_ends, index * 4) as usize).unwrap_or_default()
    }

    /// The blocks of a term; none if no document has it.
    pub(crate) fn find(&self, term: &str) -> Range<usize> {
        let count = self.term_ends.len() / 4;
        let place = first_from(0..count, |place| self.term(place) < term.as_bytes());
        if place == count || self.term(place) != term.as_bytes() {
            return 0..0;
        }
        let start = place.checked_sub(1).map_or(0, |before| u32_at(self.block_ends, before * 4));
        start as usize..u32_at(self.block_ends, place * 4) as usize
    }

    /// The block at an index.
    #[inline]
    pub(crate) fn block(&self, index: usize) -> TermBlock {
        let bytes = self.blocks.get(index * BLOCK_BYTES..(index + 1) * BLOCK_BYTES).unwrap_or(&[0; BLOCK_BYTES]);
        let start = u32_at(bytes, 4) as usize;
        let end = match self.blocks.get((index + 1) * BLOCK_BYTES + 4..(index + 1) * BLOCK_BYTES + 8) {
            Some(next) => u32_at(next, 0) as usize,
            None => self.postings_count,
        };
        TermBlock {
            number: usize::from(u16::from_le_bytes([bytes[0], bytes[1]])),
            count_max: u16::from_le_bytes([bytes[2], bytes[3]]),
            length_min: u32_at(bytes, 8),
            postings: start..end,
        }
    }

    /// How many postings some blocks, which are those of one term, have.
    pub(crate) fn postings_len(&self, blocks: &Range<usize>) -> usize {
        if blocks.is_empty() {
            0
        } else {
            self.block(blocks.end - 1).postings.end - self.block(blocks.start).postings.start
        }
    }

    /// The postings of a block: for each its document's number in the block, and how often the term is there.
    #[inline]
    pub(crate) fn postings(&self, postings: Range<usize>) -> impl Iterator<Item = (u16, u16)> {
        let locals = self.locals.get(postings.start * 2..postings.end * 2).unwrap_or_default().chunks_exact(2);
        let counts = self.counts.get(postings.clone()).unwrap_or_default();
        let locals = locals.map(|local| u16::from_le_bytes([local[0], local[1]]));
        let both = locals.zip(counts).zip(postings);
        both.map(|((local, count), posting)| {
            (local, if *count == LARGE { self.large(posting) } else { u16::from(*count) })
        })
    }

    /// Where in `postings`, which are some of a block, those of the document `local` or of later ones begin.
    pub(crate) fn seek(&self, postings: &Range<usize>, local: u16) -> usize {
        let at = |posting: usize| {
            let bytes = self.locals.get(posting * 2..posting * 2 + 2).unwrap_or(&[0xFF, 0xFF]);
            u16::from_le_bytes([bytes[0], bytes[1]])
        };
        // What is looked for is near, as a rule: ever larger steps until it is passed.
        let (mut low, mut step) = (postings.start, 1);
        while low + step < postings.end && at(low + step) < local {
            low += step;
            step *= 2;
        }
        first_from(low..(low + step).min(postings.end), |posting| at(posting) < local)
    }

    /// How often a term is in the document `local` of a block, if `posting` is of it.
    pub(crate) fn count_at(&self, postings: &Range<usize>, posting: usize, local: u16) -> Option<u16> {
        if posting >= postings.end {
            return None;
        }
        self.postings(posting..posting + 1).next().filter(|(own, _)| *own == local).map(|(_, count)| count)
    }

    #[cold]
    fn large(&self, posting: usize) -> u16 {
        let place = first_from(0..self.large.len() / 6, |place| (u32_at(self.large, place * 6) as usize) < posting);
        let count = self.large.get(place * 6 + 4..place * 6 + 6);
        count.map_or(u16::from(LARGE), |count| u16::from_le_bytes([count[0], count[1]]))
    }
}

/// The postings of a term in some consecutive documents.
pub(crate) struct TermBlock {
    /// Which documents: those from this times [`BLOCK`] on.
    pub(crate) number: usize,
    /// How often the term is in one of them at most.
    pub(crate) count_max: u16,
    /// How long the shortest of them is that has it.
    pub(crate) length_min: u32,
    /// Where its postings are.
    pub(crate) postings: Range<usize>,
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("an index of terms is far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use ochre_model::TextAnalyzer;

    use super::super::analyzer::Analyzer;
    use super::*;

    fn index(documents: &[String]) -> (Vec<u8>, Vec<AnalyzedDocument>) {
        let analyzer = Analyzer::new(&TextAnalyzer::default());
        let documents: Vec<_> = documents.iter().map(|text| AnalyzedDocument::new(&analyzer, text)).collect();
        let mut builder = TermsBuilder::default();
        documents.iter().for_each(|document| builder.add(document));
        (builder.finish(), documents)
    }

    #[test]
    fn every_posting_is_there_with_its_count() {
        let mut rng = fastrand::Rng::with_seed(3);
        let words = ["a", "bb", "ccc", "東", "é", "zebra"];
        let mut texts: Vec<String> = (0..10_000)
            .map(|_| (0..rng.usize(0..6)).map(|_| *rng.choice(&words).unwrap()).collect::<Vec<_>>().join(" "))
            .collect();
        texts[7] = "a ".repeat(300) + &"bb ".repeat(255) + &"ccc ".repeat(70_000);
        let (bytes, documents) = index(&texts);
        let terms = Terms::open(&bytes).unwrap();
        assert_eq!(terms.documents(), documents.len());
        assert_eq!(terms.tokens(), documents.iter().map(|document| u64::from(document.length())).sum::<u64>());
        assert!((0..documents.len()).all(|number| terms.length(number) == documents[number].length()));
        for term in ["a", "bb", "ccc", "東", "e", "zebra"] {
            let blocks = terms.find(term);
            let mut found = Vec::new();
            for block in blocks.clone().map(|index| terms.block(index)) {
                for (local, count) in terms.postings(block.postings.clone()) {
                    let document = block.number * BLOCK + usize::from(local);
                    assert!(count <= block.count_max && terms.length(document) >= block.length_min);
                    let posting = terms.seek(&block.postings, local);
                    assert_eq!(terms.count_at(&block.postings, posting, local), Some(count));
                    found.push((document, count));
                }
            }
            let expected: Vec<_> = documents.iter().map(|document| document.count(term)).enumerate().collect();
            let expected: Vec<_> = expected.into_iter().filter_map(|(n, count)| Some((n, count?))).collect();
            assert_eq!(found, expected, "{term}");
            assert_eq!(terms.postings_len(&blocks), expected.len());
        }
        assert!(terms.find("absent").is_empty() && terms.find("").is_empty() && terms.find("zz").is_empty());
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_no_index() {
        let (mut bytes, _) = index(&["a b".into(), String::new()]);
        assert!(Terms::open(&bytes).is_some());
        assert!((0..bytes.len()).all(|end| Terms::open(&bytes[..end]).is_none()));
        bytes.push(0);
        assert!(Terms::open(&bytes).is_none());
        let (empty, _) = index(&[]);
        assert!(Terms::open(&empty).is_some_and(|terms| terms.documents() == 0 && terms.find("a").is_empty()));
    }
}
