//! The sparse vectors of some consecutive records, by their indices.

use ochre_model::SparseVector;

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

    /// Where the postings of an index stand, if there are any.
    pub(crate) fn place(&self, index: u32) -> Option<usize> {
        self.indices.binary_search(&index).ok()
    }

    /// How many there are at a place.
    pub(crate) fn len(&self, place: usize) -> usize {
        (self.starts[place + 1] - self.starts[place]) as usize
    }

    /// The offsets and values under an index, by its place.
    pub(crate) fn get(&self, place: usize) -> impl Iterator<Item = (u16, f32)> {
        let range = self.starts[place] as usize..self.starts[place + 1] as usize;
        self.locals[range.clone()].iter().copied().zip(self.values[range].iter().copied())
    }

    /// The smallest and the largest value at a place.
    pub(crate) fn bounds(&self, place: usize) -> (f32, f32) {
        self.bounds[place]
    }

    /// Bytes of the heap they take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.indices.len() * 16 + self.locals.len() * 6
    }
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("a chunk has fewer than 2³² postings")
}
