//! Searches of sparse vectors: by chunk, the postings of the query's indices are added up, and chunks that cannot hold
//! one of the best are passed over. The answer is exact.
//!
//! Related: block-max pruning (Ding and Suel, "Faster Top-k Document Retrieval Using Block-Max Indexes", SIGIR 2011),
//! with the chunks of columns as the blocks.

use ochre_model::SparseVector;
use ochre_model::budget::{self, Exceeded};

use crate::bitmap::{Bitmap, CHUNK};
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
        let mut best = Best::new(wanted.k);
        let (mut sums, mut is_found) = (vec![0.0_f32; CHUNK], vec![false; CHUNK]);
        let mut found: Vec<u16> = Vec::new();
        for index in 0..matches.chunk_count() {
            budget::check()?;
            let (Some(within), Some(chunk)) = (matches.chunk(index), column.chunk(index)) else { continue };
            let postings = chunk.postings()?;
            let terms: Vec<(usize, f32)> =
                query.iter().filter_map(|(index, weight)| Some((postings.place(*index)?, *weight))).collect();
            if terms.is_empty() || best.worst().is_some_and(|worst| nearest_possible(postings, &terms) > worst.distance)
            {
                continue;
            }
            for (place, weight) in &terms {
                plan.scanned += postings.len(*place);
                for (local, value) in postings.get(*place) {
                    let at = usize::from(local);
                    sums[at] += weight * value;
                    if !is_found[at] {
                        is_found[at] = true;
                        found.push(local);
                    }
                }
            }
            let first = u32::try_from(index * CHUNK).expect("offsets are u32");
            for local in found.drain(..) {
                let at = usize::from(local);
                let sum = std::mem::take(&mut sums[at]);
                is_found[at] = false;
                if within[at / 64] >> (at % 64) & 1 == 1 {
                    plan.reranked += 1;
                    // Products that are too large for a number in both directions add up to none: those come last.
                    let distance = if sum.is_nan() { f32::INFINITY } else { 1.0 - sum };
                    best.offer(Hit { offset: first + u32::from(local), distance });
                }
            }
        }
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

/// A distance that no vector of a chunk is below.
fn nearest_possible(postings: &Postings, terms: &[(usize, f32)]) -> f32 {
    let most = terms.iter().map(|(place, weight)| {
        let (low, high) = postings.bounds(*place);
        f64::from((weight * low).max(weight * high).max(0.0))
    });
    // The sums are rounded: by less than this share of what is added up.
    let most = most.sum::<f64>();
    let margin = most * 1e-6 * (terms.len() + 2) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "a bound, with a margin")]
    let nearest = (1.0 - most - margin) as f32;
    nearest - nearest.abs() * f32::EPSILON
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
