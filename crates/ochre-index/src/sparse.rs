//! Searches of sparse vectors: by chunk, the postings of the query's indices are added up, and chunks that cannot hold
//! one of the best are passed over. The answer is exact.
//!
//! Related: block-max pruning (Ding and Suel, "Faster Top-k Document Retrieval Using Block-Max Indexes", SIGIR 2011),
//! with the chunks of columns as the blocks.

use ochre_model::SparseVector;
use ochre_model::budget::{self, Exceeded};

use crate::bitmap::{Bitmap, CHUNK};
use crate::planner::{Best, Hit, Plan, Strategy};
use crate::view::View;

/// The sparse vectors of a chunk, by their indices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Postings {
    /// The indices that any of them has, ascending.
    indices: Vec<u32>,
    /// Where the postings of each begin, and where the last end.
    starts: Vec<u32>,
    /// The smallest and the largest value under each.
    bounds: Vec<(f32, f32)>,
    /// The offsets in the chunk, ascending for each index …
    locals: Vec<u16>,
    /// … and the values.
    values: Vec<f32>,
}

impl Postings {
    /// Those of some vectors, by ascending offset.
    pub(crate) fn of<'v>(vectors: impl Iterator<Item = (u16, &'v SparseVector)>) -> Self {
        let mut all: Vec<(u32, u16, f32)> = vectors
            .flat_map(|(local, vector)| vector.iter().map(move |(index, value)| (index, local, value)))
            .collect();
        all.sort_unstable_by_key(|(index, local, _)| (*index, *local));
        let mut postings =
            Self { locals: Vec::with_capacity(all.len()), values: Vec::with_capacity(all.len()), ..Self::default() };
        for (index, local, value) in all {
            match (postings.indices.last(), postings.bounds.last_mut()) {
                (Some(last), Some((low, high))) if *last == index => (*low, *high) = (low.min(value), high.max(value)),
                _ => {
                    postings.indices.push(index);
                    postings.starts.push(to_u32(postings.locals.len()));
                    postings.bounds.push((value, value));
                }
            }
            postings.locals.push(local);
            postings.values.push(value);
        }
        postings.starts.push(to_u32(postings.locals.len()));
        postings
    }

    fn place(&self, index: u32) -> Option<usize> {
        self.indices.binary_search(&index).ok()
    }

    fn len(&self, place: usize) -> usize {
        (self.starts[place + 1] - self.starts[place]) as usize
    }

    /// The offsets and values under an index, by its place.
    fn get(&self, place: usize) -> impl Iterator<Item = (u16, f32)> {
        let range = self.starts[place] as usize..self.starts[place + 1] as usize;
        self.locals[range.clone()].iter().copied().zip(self.values[range].iter().copied())
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.indices.len() * 16 + self.locals.len() * 6
    }
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("a chunk has fewer than 2³² postings")
}

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
            let postings = chunk.postings();
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
                    best.offer(Hit { offset: first + u32::from(local), distance: 1.0 - sum });
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
            let postings = chunk.postings();
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
        let (low, high) = postings.bounds[*place];
        f64::from((weight * low).max(weight * high).max(0.0))
    });
    // The sums are rounded: by less than this share of what is added up.
    let most = most.sum::<f64>();
    let margin = most * 1e-6 * (terms.len() + 2) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "a bound, with a margin")]
    let nearest = (1.0 - most - margin) as f32;
    nearest - nearest.abs() * f32::EPSILON
}
