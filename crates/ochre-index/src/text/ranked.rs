//! The documents that fit the words of a query best (BM25). The answer is exact.
//!
//! By blocks of documents, the postings of the query's terms are added up. Once the `k` best so far are known, terms
//! that cannot bring a document among them by themselves are only looked up for documents that others found, and blocks
//! that cannot hold one of the best are passed over.
//!
//! Sources: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009); Turtle and Flood,
//! "Query evaluation: strategies and optimizations" (1995), for terms that are only looked up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

use super::analyzer::Analyzer;
use super::recent::find_offset;
use super::segment::TextSegment;
use super::terms::{BLOCK, Terms};
use crate::bitmap::{Bitmap, Bits};
use crate::bytes::{first_from, u32_at};
use crate::evaluate::Rows;
use crate::planner::{Hit, Plan, Strategy};
use crate::view::View;

/// How fast further occurrences of a term count less.
const K1: f32 = 1.2;
/// How much long documents are held back.
const B: f32 = 0.75;
/// Scores are sums of multiples of 1 / `UNIT`: whatever order the terms are added up in, the sum is the same.
/// The largest one, 256 terms of 50.4, fits 32 bits.
const UNIT: f32 = 262_144.0;
/// Of a term in this many documents or more, what it adds where it occurs once is calculated ahead …
const FREQUENT: usize = 512;
/// … for documents of fewer words and characters than this.
const SHORT: usize = 128;
/// How many documents that are not kept are read at once.
const READ_AT_ONCE: usize = 1000;
/// What looking up a term of one document costs, in postings that could be read meanwhile.
const LOOK_UP_COST: usize = 16;

/// A query for the documents that fit a text best.
pub struct NearestText<'a> {
    /// How texts are split into terms.
    pub analyzer: &'a Analyzer,
    /// What is looked for.
    pub text: &'a str,
    /// Documents that no segment has are kept, ready for the next search, up to this many bytes.
    pub kept_bytes_max: usize,
    /// How many to find.
    pub k: usize,
    /// Only these offsets, if given; they must be live.
    pub matches: Option<&'a Bitmap>,
}

/// Of the documents of a segment, those that are as they were when it was made.
pub(crate) struct SegmentStatistics {
    /// A bit for each; `None` if all are.
    current: Option<Vec<u64>>,
    /// The numbers of the others.
    stale: Vec<u32>,
    /// How many words and characters they have.
    tokens: u64,
}

impl SegmentStatistics {
    pub(crate) fn new(segment: &TextSegment, current: &Bitmap) -> Self {
        let terms = segment.terms();
        if current.len() == segment.len() {
            return Self { current: None, stale: Vec::new(), tokens: terms.tokens() };
        }
        let (mut bits, mut stale, mut tokens) = (vec![0_u64; segment.len().div_ceil(64)], Vec::new(), 0);
        for (number, offset) in segment.offsets().enumerate() {
            if current.contains(offset) {
                bits[number / 64] |= 1 << (number % 64);
                tokens += u64::from(terms.length(number));
            } else {
                stale.push(u32::try_from(number).expect("offsets are u32"));
            }
        }
        Self { current: Some(bits), stale, tokens }
    }

    /// Bytes of the heap it takes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.current.as_ref().map_or(0, |bits| bits.len() * 8) + self.stale.len() * 4
    }
}

/// An index of terms, and which of its documents count.
struct Source<'a> {
    terms: Terms<'a>,
    /// The offsets of its documents, little-endian.
    offsets: &'a [u8],
    current: Option<&'a [u64]>,
    /// The numbers of those that do not count, if that is known.
    stale: Option<&'a [u32]>,
    /// Of each term of the query, its blocks.
    blocks: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    fn is_current(&self, number: usize) -> bool {
        self.current.is_none_or(|bits| bits.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1))
    }

    fn offset(&self, number: usize) -> u32 {
        u32_at(self.offsets, number * 4)
    }

    /// How many of its documents have a term of the query.
    fn having(&self, term: usize) -> usize {
        let blocks = &self.blocks[term];
        let all = self.terms.postings_len(blocks);
        if self.current.is_none() {
            return all;
        }
        if let Some(stale) = self.stale.filter(|stale| stale.len() * LOOK_UP_COST < all) {
            return all - stale.iter().filter(|number| self.count(blocks, **number as usize).is_some()).count();
        }
        let blocks = blocks.clone().map(|index| self.terms.block(index));
        let current = blocks.map(|block| {
            let postings = self.terms.postings(block.postings.clone());
            postings.filter(|(local, _)| self.is_current(block.number * BLOCK + usize::from(*local))).count()
        });
        current.sum()
    }

    /// How often a term, by its blocks, is in a document.
    fn count(&self, blocks: &Range<usize>, number: usize) -> Option<u16> {
        let index = first_from(blocks.clone(), |index| self.terms.block(index).number < number / BLOCK);
        let block =
            (index < blocks.end).then(|| self.terms.block(index)).filter(|block| block.number == number / BLOCK)?;
        let local = u16::try_from(number % BLOCK).expect("a block has fewer than 2¹⁶ documents");
        self.terms.count_at(&block.postings, self.terms.seek(&block.postings, local), local)
    }

    /// The score of one document; 0 if it has no term of the query.
    fn score(&self, number: usize, scoring: &Scoring) -> u32 {
        let parts = self.blocks.iter().zip(&scoring.terms).filter_map(|(blocks, term)| {
            Some(scoring.part(term, self.count(blocks, number)?, self.terms.length(number)))
        });
        parts.sum()
    }
}

/// How scores are made of counts and lengths.
struct Scoring {
    terms: Vec<TermScoring>,
    base: f32,
    slope: f32,
}

/// What a term of the query is worth.
struct TermScoring {
    /// How rare it is, times how often it is asked for.
    weight: f32,
    /// What it adds where it is there once, by the length of the document, as far as that was calculated ahead.
    once: Vec<u32>,
}

impl Scoring {
    #[expect(clippy::cast_precision_loss, reason = "scores are floats")]
    fn new(query: &[(String, u32)], having: &[usize], documents: usize, tokens: u64) -> Self {
        let mean = tokens as f32 / documents as f32;
        let mut scoring = Self { terms: Vec::with_capacity(query.len()), base: K1 * (1.0 - B), slope: K1 * B / mean };
        for ((_, times), having) in query.iter().zip(having) {
            let is_frequent = *having >= FREQUENT;
            let (all, having) = (documents as f32, *having as f32);
            let rarity = ((all - having + 0.5) / (having + 0.5)).ln_1p();
            let weight = rarity * *times as f32 * (K1 + 1.0) * UNIT;
            let lengths = 0..if is_frequent { SHORT as u32 } else { 0 };
            let once = lengths.map(|length| scoring.calculate(weight, 1, length)).collect();
            scoring.terms.push(TermScoring { weight, once });
        }
        scoring
    }

    /// What a term adds to the score of a document, in units.
    #[inline]
    fn part(&self, term: &TermScoring, count: u16, length: u32) -> u32 {
        match term.once.get(length as usize) {
            Some(part) if count == 1 => *part,
            _ => self.calculate(term.weight, count, length),
        }
    }

    /// The more often a term is there and the shorter the document, the more, whatever is rounded: every step is of one
    /// operand that changes.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as defined"
    )]
    #[inline]
    fn calculate(&self, weight: f32, count: u16, length: u32) -> u32 {
        let norm = self.base + self.slope * length as f32;
        (weight / (1.0 + norm / f32::from(count)) + 0.5).max(1.0) as u32
    }
}

/// The `k` best so far: the highest scores, of equal ones those of the lowest offsets.
struct BestScores {
    k: usize,
    kept: BinaryHeap<Reverse<(u32, Reverse<u32>)>>,
}

impl BestScores {
    /// Takes a document, if it has any term of the query.
    fn offer(&mut self, score: u32, offset: u32) {
        if score == 0 {
            return;
        }
        let offered = Reverse((score, Reverse(offset)));
        if self.kept.len() < self.k {
            self.kept.push(offered);
        } else if let Some(mut worst) = self.kept.peek_mut().filter(|worst| offered < **worst) {
            *worst = offered;
        }
    }

    /// All of them, best first.
    fn into_hits(self) -> Vec<Hit> {
        #[expect(clippy::cast_possible_truncation, reason = "distances are f32")]
        let distance = |score: u32| (1.0 - f64::from(score) / f64::from(UNIT)) as f32;
        let kept = self.kept.into_sorted_vec().into_iter();
        kept.map(|Reverse((score, Reverse(offset)))| Hit { offset, distance: distance(score) }).collect()
    }

    /// What the score of a document at this offset or a later one has to be at least to be among them.
    fn least(&self, offset: u32) -> u32 {
        match self.kept.peek() {
            Some(Reverse((score, Reverse(worst)))) if self.kept.len() == self.k => score + u32::from(offset > *worst),
            _ => 0,
        }
    }
}

impl View {
    /// The `k` matches whose documents have the highest scores, best first, ties by offset: exactly, of those that
    /// share a term with the text. The distance is 1 less the score.
    ///
    /// A term that d of n documents have, that is `c` times in a document of `l` words and characters (`m` on average),
    /// and `t` times in the query, adds
    ///
    /// ```text
    /// ln(1 + (n − d + 0.5) / (d + 0.5)) · t · 2.2 / (1 + 1.2 · (0.25 + 0.75 · l / m) / c),
    /// ```
    ///
    /// calculated in `f32` and rounded to 2⁻¹⁸, which is also the least.
    ///
    /// # Errors
    /// Whatever `rows` fails with.
    pub fn nearest_text<R: Rows>(&self, wanted: &NearestText<'_>, rows: &mut R) -> Result<(Vec<Hit>, Plan), R::Error> {
        let matches = wanted.matches.map_or_else(|| self.with_document().len(), Bitmap::len);
        let mut plan = Plan::of(Strategy::Terms, matches);
        let query = wanted.analyzer.query_terms(wanted.text);
        if query.is_empty() || wanted.k == 0 || matches == 0 {
            return Ok((Vec::new(), plan));
        }
        let (recent, left) = self.recent_documents(wanted.analyzer, wanted.kept_bytes_max, rows)?;
        let read = ReadDocuments::read(wanted.analyzer, &query, &left, rows)?;
        let segments = self.text_statistics(wanted.analyzer, rows)?;
        let mut tokens = recent.tokens() + read.tokens;
        let mut sources = Vec::with_capacity(segments.len() + 1);
        let blocks = |terms: &Terms<'_>| query.iter().map(|(term, _)| terms.find(term)).collect::<Vec<_>>();
        for (segment, statistics) in &segments {
            tokens += statistics.tokens;
            let terms = segment.terms();
            sources.push(Source {
                blocks: blocks(&terms),
                terms,
                offsets: segment.offset_bytes(),
                current: statistics.current.as_deref(),
                stale: Some(&statistics.stale),
            });
        }
        if let Some((index, current)) = recent.indexed()
            && let Some(terms) = Terms::open(&index.terms)
        {
            let offsets = &index.offsets;
            sources.push(Source { blocks: blocks(&terms), terms, offsets, current: Some(current), stale: None });
        }
        let mut having = read.having.clone();
        for (term, having) in having.iter_mut().enumerate() {
            for source in &sources {
                rows.check_budget()?;
                *having += source.having(term);
            }
            *having += recent.loose().filter(|(_, document)| document.count(&query[term].0).is_some()).count();
        }
        let scoring = Scoring::new(&query, &having, self.with_document().len(), tokens);
        let mut best = BestScores { k: wanted.k, kept: BinaryHeap::with_capacity(wanted.k.min(1024) + 1) };
        let is_wanted = |offset| wanted.matches.is_none_or(|matches| matches.contains(offset));
        for (offset, document) in recent.loose().filter(|(offset, _)| is_wanted(*offset)) {
            let terms = query.iter().zip(&scoring.terms);
            let parts = terms
                .filter_map(|((term, _), scored)| Some(scoring.part(scored, document.count(term)?, document.length())));
            plan.reranked += 1;
            best.offer(parts.sum(), offset);
        }
        for document in read.found.iter().filter(|document| is_wanted(document.offset)) {
            let counts = document.counts.iter();
            let parts = counts.map(|(term, count)| scoring.part(&scoring.terms[*term], *count, document.length));
            plan.reranked += 1;
            best.offer(parts.sum(), document.offset);
        }
        let postings: usize = having.iter().sum();
        match wanted.matches {
            Some(few) if few.len().saturating_mul(query.len() * LOOK_UP_COST) < postings => {
                look_up(&sources, few, &scoring, &mut best, &mut plan, rows)?;
            }
            _ => {
                let mut search = BlockSearch::new(&scoring, wanted.matches, &mut best, &mut plan);
                sources.iter().try_for_each(|source| search.run(source, rows))?;
            }
        }
        Ok((best.into_hits(), plan))
    }
}

/// Documents that were read for one query, which are not kept: what it asks of them.
#[derive(Default)]
struct ReadDocuments {
    found: Vec<ReadDocument>,
    /// How many have each term of the query.
    having: Vec<usize>,
    /// Words and characters of all.
    tokens: u64,
}

/// A document that has a term of the query.
struct ReadDocument {
    offset: u32,
    length: u32,
    /// Terms of the query, and how often they are there.
    counts: Box<[(usize, u16)]>,
}

impl ReadDocuments {
    fn read<R: Rows>(
        analyzer: &Analyzer, query: &[(String, u32)], offsets: &Bitmap, rows: &mut R,
    ) -> Result<Self, R::Error> {
        let mut read = Self { having: vec![0; query.len()], ..Self::default() };
        if offsets.is_empty() {
            return Ok(read);
        }
        let places: HashMap<&str, usize> =
            query.iter().enumerate().map(|(place, (term, _))| (&**term, place)).collect();
        let (offsets, mut counts, mut charged) = (offsets.iter().collect::<Vec<u32>>(), vec![0_u16; query.len()], 0);
        for part in offsets.chunks(READ_AT_ONCE) {
            rows.documents(&part.iter().copied().collect(), &mut |offset, text| {
                let mut length = 0_u32;
                analyzer.document_terms(text, &mut |term, is_counted| {
                    length = length.saturating_add(u32::from(is_counted));
                    if let Some(place) = places.get(term) {
                        counts[*place] = counts[*place].saturating_add(1);
                    }
                    true
                });
                read.tokens += u64::from(length);
                let own = counts.iter().copied().enumerate().filter(|(_, count)| *count > 0);
                let own: Box<[(usize, u16)]> = own.collect();
                counts.fill(0);
                own.iter().for_each(|(place, _)| read.having[*place] += 1);
                if !own.is_empty() {
                    charged += size_of::<ReadDocument>() + own.len() * size_of::<(usize, u16)>();
                    read.found.push(ReadDocument { offset, length, counts: own });
                }
            })?;
            rows.charge(std::mem::take(&mut charged))?;
        }
        Ok(read)
    }
}

/// Scores a few documents one by one.
fn look_up<R: Rows>(
    sources: &[Source<'_>], few: &Bitmap, scoring: &Scoring, best: &mut BestScores, plan: &mut Plan, rows: &mut R,
) -> Result<(), R::Error> {
    for (done, offset) in few.iter().enumerate() {
        if done % BLOCK == 0 {
            rows.check_budget()?;
        }
        for source in sources {
            let number = find_offset(source.offsets, offset).filter(|number| source.is_current(*number));
            if let Some(number) = number {
                plan.reranked += 1;
                best.offer(source.score(number, scoring), offset);
            }
        }
    }
    Ok(())
}

/// A term of the query in the block that is searched.
struct Active {
    term: usize,
    postings: Range<usize>,
    /// What it adds at most.
    bound: u32,
}

/// A search of one source after the other.
struct BlockSearch<'a> {
    scoring: &'a Scoring,
    matches: Option<&'a Bitmap>,
    best: &'a mut BestScores,
    plan: &'a mut Plan,
    /// The scores of the documents of a block so far …
    sums: Vec<u32>,
    /// … and a bit for each that has one.
    found: [u64; BLOCK / 64],
    active: Vec<Active>,
    /// What the terms up to each add together at most.
    bounds: Vec<u32>,
}

impl<'a> BlockSearch<'a> {
    fn new(scoring: &'a Scoring, matches: Option<&'a Bitmap>, best: &'a mut BestScores, plan: &'a mut Plan) -> Self {
        Self {
            scoring,
            matches,
            best,
            plan,
            sums: vec![0; BLOCK],
            found: [0; BLOCK / 64],
            active: Vec::new(),
            bounds: Vec::new(),
        }
    }

    fn run<R: Rows>(&mut self, source: &Source<'_>, rows: &mut R) -> Result<(), R::Error> {
        let mut next: Vec<usize> = source.blocks.iter().map(|blocks| blocks.start).collect();
        for block in 0..source.terms.documents().div_ceil(BLOCK) {
            rows.check_budget()?;
            self.active.clear();
            for (term, blocks) in source.blocks.iter().enumerate() {
                if next[term] >= blocks.end {
                    continue;
                }
                let found = source.terms.block(next[term]);
                if found.number == block {
                    next[term] += 1;
                    let bound = self.scoring.part(&self.scoring.terms[term], found.count_max, found.length_min);
                    self.active.push(Active { term, postings: found.postings, bound });
                }
            }
            self.search(source, block);
        }
        Ok(())
    }

    fn search(&mut self, source: &Source<'_>, block: usize) {
        self.active.sort_unstable_by_key(|active| active.bound);
        self.bounds.clear();
        let mut sum = 0;
        for active in &self.active {
            sum += active.bound;
            self.bounds.push(sum);
        }
        // Documents that have only terms before this one are not among the best.
        let least = self.best.least(source.offset(block * BLOCK));
        let first = self.bounds.iter().take_while(|bound| **bound < least).count();
        if first == self.active.len() {
            return;
        }
        let lengths = source.terms.block_lengths(block);
        let length = |at: usize| u32_at(lengths, at * 4);
        let rest = first.checked_sub(1).map_or(0, |last| self.bounds[last]);
        if let [active] = &self.active[first..] {
            // Nothing is to be added up: most documents are passed over at once.
            let term = &self.scoring.terms[active.term];
            self.plan.scanned += active.postings.len();
            let mut least = least;
            for (local, count) in source.terms.postings(active.postings.clone()) {
                let at = usize::from(local) % BLOCK;
                let score = self.scoring.part(term, count, length(at));
                if score + rest >= least {
                    self.complete(source, block * BLOCK + at, score, first);
                    least = self.best.least(source.offset(block * BLOCK + at));
                }
            }
            return;
        }
        for active in &self.active[first..] {
            let term = &self.scoring.terms[active.term];
            self.plan.scanned += active.postings.len();
            for (local, count) in source.terms.postings(active.postings.clone()) {
                let at = usize::from(local) % BLOCK;
                self.sums[at] += self.scoring.part(term, count, length(at));
                self.found[at / 64] |= 1 << (at % 64);
            }
        }
        for word in 0..self.found.len() {
            for bit in Bits(std::mem::take(&mut self.found[word])) {
                let at = word * 64 + bit as usize;
                let score = std::mem::take(&mut self.sums[at]);
                let number = block * BLOCK + at;
                if score + rest >= self.best.least(source.offset(number)) {
                    self.complete(source, number, score, first);
                }
            }
        }
    }

    /// Adds to the score of a document what the terms before `first` bring, as far as it may be among the best.
    fn complete(&mut self, source: &Source<'_>, number: usize, mut score: u32, first: usize) {
        let offset = source.offset(number);
        if !source.is_current(number) || self.matches.is_some_and(|matches| !matches.contains(offset)) {
            return;
        }
        let local = u16::try_from(number % BLOCK).expect("a block has fewer than 2¹⁶ documents");
        for index in (0..first).rev() {
            if score + self.bounds[index] < self.best.least(offset) {
                return;
            }
            let active = &mut self.active[index];
            // Documents come in ascending order: what is before this one is not needed again.
            active.postings.start = source.terms.seek(&active.postings, local);
            if let Some(count) = source.terms.count_at(&active.postings, active.postings.start, local) {
                let term = &self.scoring.terms[active.term];
                score += self.scoring.part(term, count, source.terms.length(number));
            }
        }
        self.plan.reranked += 1;
        self.best.offer(score, offset);
    }
}
