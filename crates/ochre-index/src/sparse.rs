//! Searches of sparse vectors: by chunk, the postings of the query's indices are added up, but for those that bring too
//! little to matter; what may be among the best together with these is measured exactly. The answer is exact.
//!
//! Sources: Turtle and Flood, "Query evaluation: strategies and optimizations" (1995), for what is left out; Ding and
//! Suel, "Faster Top-k Document Retrieval Using Block-Max Indexes" (SIGIR 2011), with the chunks of columns as blocks.

use ochre_model::SparseVector;
use ochre_model::budget::{self, Exceeded};

use crate::bitmap::{Bitmap, Bits, CHUNK, WORDS, Words};
use crate::column::Chunk;
use crate::planner::{Best, Hit, Plan, Strategy};
use crate::postings::Postings;
use crate::view::View;

/// A query for sparse vectors.
#[derive(Clone, Copy, Debug)]
pub struct NearestSparse<'a> {
    /// The metadata key that they are under.
    pub key: &'a str,
    /// What they are compared with.
    pub query: &'a SparseVector,
    /// Whether its values are multiplied by the inverse document frequency of their indices, as BM25 has it:
    /// ln(1 + (n − d + 0.5) / (d + 0.5)), with n records of which d have the index. Source: Robertson and Zaragoza,
    /// "The Probabilistic Relevance Framework: BM25 and Beyond" (2009).
    pub is_bm25: bool,
    /// How many to find.
    pub k: usize,
    /// Only these offsets, if given; they must be live.
    pub matches: Option<&'a Bitmap>,
}

impl View {
    /// The `k` matches whose sparse vectors are nearest to the query, nearest first, ties by offset: exactly, of those
    /// that share an index with it. The distance is 1 less the inner product, added up in `f32` by ascending index.
    ///
    /// # Errors
    /// [`Exceeded`]: the request may not go on.
    pub fn nearest_sparse(&self, wanted: &NearestSparse<'_>) -> Result<(Vec<Hit>, Plan), Exceeded> {
        let matches = wanted.matches.unwrap_or_else(|| self.live());
        let mut plan = Plan::of(Strategy::Postings, matches.len());
        let Some(column) = self.column(wanted.key).filter(|_| wanted.k > 0 && !wanted.query.is_empty()) else {
            return Ok((Vec::new(), plan));
        };
        let query =
            if wanted.is_bm25 { self.weighted(wanted.key, wanted.query)? } else { wanted.query.iter().collect() };
        let mut search = ChunkSearch::new(&query, wanted.k, &mut plan);
        for index in 0..matches.chunk_count() {
            budget::check()?;
            if let (Some(within), Some(chunk)) = (matches.chunk(index), column.chunk(index)) {
                search.run(chunk, index, within)?;
            }
        }
        let best = search.best;
        Ok((best.into_sorted(), plan))
    }

    /// A query with its values multiplied by how rare their indices are.
    fn weighted(&self, key: &str, query: &SparseVector) -> Result<Vec<(u32, f32)>, Exceeded> {
        let records = self.live().len() as f32;
        let mut having = vec![0_usize; query.len()];
        let column = self.column(key);
        for index in 0..self.live().chunk_count() {
            budget::check()?;
            let Some(chunk) = column.and_then(|column| column.chunk(index)) else { continue };
            let postings = chunk.postings()?;
            for (having, index) in having.iter_mut().zip(query.indices()) {
                *having += postings.place(*index).map_or(0, |place| postings.len(place));
            }
        }
        let rarity = |having: &usize| ((records - *having as f32 + 0.5) / (*having as f32 + 0.5)).ln_1p();
        Ok(query.iter().zip(&having).map(|((index, value), having)| (index, rarity(having) * value)).collect())
    }
}

/// Indices are left out that together bring at most this share of what a record needs to be among the best: the more
/// are, the fewer postings are read, and the more records have to be measured.
const LEFT_OUT_SHARE: f64 = 0.1;

/// An index of the query in the chunk that is searched.
struct Term {
    /// Where its postings stand.
    place: usize,
    weight: f32,
    /// What it adds at most.
    bound: f64,
}

/// A search of one chunk after the other.
struct ChunkSearch<'a> {
    /// By ascending index.
    query: &'a [(u32, f32)],
    best: Best,
    plan: &'a mut Plan,
    terms: Vec<Term>,
    /// What was added up so far for each record, in any order.
    sums: Box<[f32; CHUNK]>,
}

impl<'a> ChunkSearch<'a> {
    fn new(query: &'a [(u32, f32)], k: usize, plan: &'a mut Plan) -> Self {
        Self { query, best: Best::new(k), plan, terms: Vec::new(), sums: Box::new([0.0; CHUNK]) }
    }

    /// Searches a chunk: adds up the postings of the indices that can bring a record among the best by themselves, and
    /// measures exactly what may be among them together with the others.
    fn run(&mut self, chunk: &Chunk, number: usize, within: &Words) -> Result<(), Exceeded> {
        let postings = chunk.postings()?;
        self.terms.clear();
        // How large what is added up may be: rounding errs by a small share of that.
        let mut size = 0.0;
        for (index, weight) in self.query {
            let Some(place) = postings.place(*index) else { continue };
            let (low, high) = postings.bounds(place);
            let (low, high) = (f64::from(*weight) * f64::from(low), f64::from(*weight) * f64::from(high));
            size += low.abs().max(high.abs());
            self.terms.push(Term { place, weight: *weight, bound: low.max(high).max(0.0) });
        }
        let margin = size * 1e-6 * (self.terms.len() + 2) as f64 + f64::from(f32::EPSILON) * (1.0 + size);
        self.terms.sort_by(|a, b| a.bound.total_cmp(&b.bound));
        let (mut rest, mut first) = (0.0, 0);
        let is_none = is_too_far(self.terms.iter().map(|term| term.bound).sum::<f64>() + margin, &self.best);
        // Nothing is left out before there are enough, or where records that bring nothing are among them.
        let worst = self.best.worst().map(|worst| (1.0 - f64::from(worst.distance)) * LEFT_OUT_SHARE);
        let left_out = worst.filter(|share| *share > 0.0);
        for term in &self.terms {
            if !is_none && left_out.is_none_or(|left_out| rest + term.bound > left_out) {
                break;
            }
            rest += term.bound;
            first += 1;
        }
        // What a record has to bring by the others, to be worth measuring.
        let least = self.best.worst().map(|worst| 1.0 - f64::from(worst.distance) - rest - margin);
        let start = u32::try_from(number * CHUNK).expect("offsets are u32");
        for term in &self.terms[first..] {
            self.plan.scanned += postings.len(term.place);
        }
        match least.filter(|least| *least > 0.0) {
            // Records without any of the indices bring nothing, so that it need not be noted which have some.
            Some(least) => {
                add_up(postings, &self.terms[first..], &mut self.sums, |_| {});
                #[expect(clippy::cast_possible_truncation, reason = "rounded down")]
                let least = (least as f32).next_down();
                let chunks = self.sums.as_chunks_mut::<64>().0;
                for ((word, sums), within) in chunks.iter_mut().enumerate().zip(within) {
                    // What is not a number may be anything.
                    let passes = |sum: f32| u64::from(sum >= least) | u64::from(sum.is_nan());
                    let passing = sums.iter().enumerate().fold(0, |bits, (bit, sum)| bits | passes(*sum) << bit);
                    *sums = [0.0; 64];
                    let wanted = Bits(passing & within).map(|bit| word * 64 + bit as usize);
                    wanted.for_each(|at| measure(chunk, start, at, self.query, &mut self.best, self.plan));
                }
            }
            None => {
                let mut found: Words = [0; WORDS];
                add_up(postings, &self.terms[first..], &mut self.sums, |at| found[at / 64] |= 1 << (at % 64));
                let wanted =
                    found.iter().zip(within).enumerate().flat_map(|(word, (found, within))| {
                        Bits(found & within).map(move |bit| word * 64 + bit as usize)
                    });
                let mut wanted: Vec<(f32, usize)> = wanted.map(|at| (self.sums[at], at)).collect();
                self.sums.fill(0.0);
                // Of these alone, those that may be among the best: both sums may be off by the margin.
                let k = self.best.k();
                let kth = (wanted.len() > k).then(|| {
                    let (_, (kth, _), _) = wanted.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0));
                    f64::from(*kth) - 2.0 * margin
                });
                wanted.retain(|(sum, _)| {
                    kth.is_none_or(|kth| f64::from(*sum) >= kth || !kth.is_finite() || sum.is_nan())
                });
                wanted.iter().for_each(|(_, at)| measure(chunk, start, *at, self.query, &mut self.best, self.plan));
            }
        }
        Ok(())
    }
}

/// Adds up what terms bring to the records of a chunk, and tells which have any.
fn add_up(postings: &Postings, terms: &[Term], sums: &mut [f32; CHUNK], mut found: impl FnMut(usize)) {
    for term in terms {
        for (local, value) in postings.get(term.place) {
            let at = usize::from(local) % CHUNK;
            sums[at] += term.weight * value;
            found(at);
        }
    }
}

/// Offers a record of a chunk with its exact distance.
fn measure(chunk: &Chunk, start: u32, at: usize, query: &[(u32, f32)], best: &mut Best, plan: &mut Plan) {
    let local = u16::try_from(at).expect("a chunk has fewer than 2¹⁶ records");
    if let Some(vector) = chunk.sparse_vector(local) {
        plan.reranked += 1;
        best.offer(Hit { offset: start + u32::from(local), distance: distance(query, vector) });
    }
}

/// Whether a record whose inner product is this at most comes after the worst of the best.
fn is_too_far(product: f64, best: &Best) -> bool {
    best.worst().is_some_and(|worst| 1.0 - product > f64::from(worst.distance))
}

/// 1 less the inner product, which is added up by ascending index.
fn distance(query: &[(u32, f32)], vector: &SparseVector) -> f32 {
    let (mut sum, mut values) = (0.0, vector.iter().peekable());
    for (index, weight) in query {
        while values.next_if(|(other, _)| other < index).is_some() {}
        if let Some((_, value)) = values.next_if(|(other, _)| other == index) {
            sum += weight * value;
        }
    }
    // Products that are too large for a number in both directions add up to none: those come last.
    if sum.is_nan() { f32::INFINITY } else { 1.0 - sum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ochre_model::{Space, Value};

    fn vector(pairs: &[(u32, f32)]) -> SparseVector {
        SparseVector::new(pairs.iter().map(|pair| pair.0).collect(), pairs.iter().map(|pair| pair.1).collect(), None)
            .expect("is well-formed")
    }

    fn value(pairs: &[(u32, f32)]) -> Value {
        Value::Sparse(Box::new(vector(pairs)))
    }

    fn found(view: &View, query: &SparseVector, k: usize) -> Vec<(u32, f32)> {
        let wanted = NearestSparse { key: "words", query, is_bm25: false, k, matches: None };
        let (hits, _) = view.nearest_sparse(&wanted).expect("may go on");
        hits.iter().map(|hit| (hit.offset, hit.distance)).collect()
    }

    #[test]
    fn changed_and_removed_vectors_are_found_as_they_are_now() {
        let mut view = View::new(Space::L2);
        for offset in 0..3 {
            view.set_vector(offset, u64::from(offset) + 1, None);
            view.set_value(offset, "words", &value(&[(1, 1.0)]));
        }
        let query = vector(&[(1, 2.0), (7, 1.0)]);
        assert_eq!(found(&view, &query, 9), [(0, -1.0), (1, -1.0), (2, -1.0)]);
        let before = view.clone();
        view.set_value(1, "words", &value(&[(7, 9.0)]));
        view.set_value(2, "words", &Value::Int(1));
        view.remove(0);
        assert_eq!(found(&view, &query, 9), [(1, -8.0)]);
        assert_eq!(found(&before, &query, 2), [(0, -1.0), (1, -1.0)]);
    }

    #[test]
    fn what_brings_less_than_nothing_is_found_too() {
        let mut view = View::new(Space::L2);
        for offset in 0..4 {
            view.set_vector(offset, u64::from(offset) + 1, None);
            view.set_value(offset, "words", &value(&[(offset % 2, 1.0), (5, 0.0)]));
        }
        assert_eq!(found(&view, &vector(&[(0, -1.0), (1, 1.0)]), 9), [(1, 0.0), (3, 0.0), (0, 2.0), (2, 2.0)]);
        assert_eq!(found(&view, &vector(&[(0, -1.0)]), 9), [(0, 2.0), (2, 2.0)]);
        assert_eq!(found(&view, &vector(&[(0, -1.0), (5, 1.0)]), 3), [(1, 1.0), (3, 1.0), (0, 2.0)]);
    }

    #[test]
    fn blocks_that_hold_none_of_the_best_are_passed_over_and_sums_beyond_all_numbers_come_last() {
        let mut view = View::new(Space::L2);
        let far = u32::try_from(3 * CHUNK).expect("is small");
        for (offset, weight) in [(0, f32::MAX), (1, 2.0), (far, 1.0)] {
            view.set_vector(offset, u64::from(offset) + 1, None);
            let pairs = [(1, weight), (2, if weight == f32::MAX { -weight } else { weight })];
            view.set_value(offset, "words", &value(&pairs));
        }
        let query = vector(&[(1, 8.0), (2, 8.0)]);
        assert_eq!(found(&view, &query, 9), [(1, -31.0), (far, -15.0), (0, f32::INFINITY)]);
        let wanted = NearestSparse { key: "words", query: &query, is_bm25: false, k: 1, matches: None };
        let (hits, plan) = view.nearest_sparse(&wanted).expect("may go on");
        assert_eq!((hits[0].offset, plan.scanned), (1, 4));
    }
}
