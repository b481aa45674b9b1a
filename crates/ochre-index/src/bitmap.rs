//! A set of record offsets, in chunks that clones share until one of them changes.

use std::sync::Arc;

/// Offsets per chunk. Small enough that copying a changed chunk of a column costs microseconds.
pub const CHUNK: usize = 4096;
/// 64-bit words per chunk.
pub(crate) const WORDS: usize = CHUNK / 64;
/// One chunk's bits.
pub(crate) type Words = [u64; WORDS];

/// A set of offsets (`u32`). Cloning is cheap: chunks are shared and copied on write.
#[derive(Clone, Debug, Default)]
pub struct Bitmap {
    chunks: Vec<Option<Arc<Words>>>,
    len: usize,
}

impl Bitmap {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many offsets are in the set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `offset` is in the set.
    pub fn contains(&self, offset: u32) -> bool {
        let (chunk, word, bit) = place(offset);
        matches!(self.chunks.get(chunk), Some(Some(words)) if words[word] >> bit & 1 == 1)
    }

    /// Adds `offset`; whether it was new.
    pub fn insert(&mut self, offset: u32) -> bool {
        let (chunk, word, bit) = place(offset);
        if self.chunks.len() <= chunk {
            self.chunks.resize(chunk + 1, None);
        }
        let words = Arc::make_mut(self.chunks[chunk].get_or_insert_with(|| Arc::new([0; WORDS])));
        let is_new = words[word] >> bit & 1 == 0;
        words[word] |= 1 << bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// Removes `offset`; whether it was there.
    pub fn remove(&mut self, offset: u32) -> bool {
        if !self.contains(offset) {
            return false;
        }
        let (chunk, word, bit) = place(offset);
        if let Some(Some(words)) = self.chunks.get_mut(chunk) {
            Arc::make_mut(words)[word] &= !(1 << bit);
        }
        self.len -= 1;
        true
    }

    /// The offsets, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.chunks.iter().enumerate().flat_map(|(chunk, words)| {
            let words = words.as_deref().map_or(&[][..], |words| &words[..]);
            words.iter().enumerate().flat_map(move |(word, bits)| Bits(*bits).map(move |bit| offset(chunk, word, bit)))
        })
    }

    /// What is in both sets.
    pub fn and(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// What is in either set.
    pub fn or(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// What is in this set but not in `other`.
    pub fn and_not(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    /// The part of the set that lies in these chunks of [`CHUNK`] offsets.
    pub fn within(&self, chunks: std::ops::Range<usize>) -> Self {
        let mut part = Self::new();
        for chunk in 0..chunks.end.min(self.chunks.len()) {
            part.push_chunk(self.chunk(chunk).filter(|_| chunks.contains(&chunk)).unwrap_or(&[0; WORDS]));
        }
        part
    }

    fn combine(&self, other: &Self, op: impl Fn(u64, u64) -> u64) -> Self {
        const EMPTY: Words = [0; WORDS];
        let mut result = Self::new();
        for chunk in 0..self.chunks.len().max(other.chunks.len()) {
            let (a, b) = (self.chunk(chunk), other.chunk(chunk));
            if a.is_none() && (b.is_none() || op(0, u64::MAX) == 0) || b.is_none() && op(u64::MAX, 0) == 0 {
                result.chunks.push(None);
                continue;
            }
            let mut words = EMPTY;
            for (word, bits) in words.iter_mut().enumerate() {
                *bits = op(a.unwrap_or(&EMPTY)[word], b.unwrap_or(&EMPTY)[word]);
            }
            result.push_chunk(&words);
        }
        result
    }

    /// How many chunks of [`CHUNK`] offsets the set spans.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The bits of one chunk, if any are set.
    pub(crate) fn chunk(&self, chunk: usize) -> Option<&Words> {
        self.chunks.get(chunk)?.as_deref()
    }

    /// Appends the next chunk.
    pub(crate) fn push_chunk(&mut self, words: &Words) {
        let count: usize = words.iter().map(|word| word.count_ones() as usize).sum();
        self.len += count;
        self.chunks.push((count > 0).then(|| Arc::new(*words)));
    }
}

impl FromIterator<u32> for Bitmap {
    fn from_iter<I: IntoIterator<Item = u32>>(offsets: I) -> Self {
        let mut bitmap = Self::new();
        for offset in offsets {
            bitmap.insert(offset);
        }
        bitmap
    }
}

/// The positions of the set bits of a word, ascending.
pub(crate) struct Bits(pub(crate) u64);

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

/// Chunk, word and bit of an offset.
pub(crate) fn place(offset: u32) -> (usize, usize, u32) {
    let local = offset as usize % CHUNK;
    (offset as usize / CHUNK, local / 64, offset % 64)
}

fn offset(chunk: usize, word: usize, bit: u32) -> u32 {
    u32::try_from(chunk * CHUNK + word * 64).expect("an offset fits u32") + bit
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn behaves_as_a_set_of_numbers() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut a, mut b) = (BTreeSet::new(), BTreeSet::new());
        let (mut x, mut y) = (Bitmap::new(), Bitmap::new());
        for _ in 0..20_000 {
            let offset = rng.u32(0..30_000);
            if rng.u8(0..4) == 0 {
                assert_eq!(x.remove(offset), a.remove(&offset));
            } else {
                assert_eq!(x.insert(offset), a.insert(offset));
            }
            if rng.bool() {
                y.insert(offset);
                b.insert(offset);
            }
        }
        let same = |bitmap: &Bitmap, set: &BTreeSet<u32>| {
            assert!(bitmap.iter().eq(set.iter().copied()));
            assert_eq!(bitmap.len(), set.len());
        };
        same(&x, &a);
        same(&x.and(&y), &(&a & &b));
        same(&x.or(&y), &(&a | &b));
        same(&x.and_not(&y), &(&a - &b));
    }

    #[test]
    fn a_clone_does_not_see_later_changes() {
        let mut bitmap: Bitmap = [1, 5000].into_iter().collect();
        let before = bitmap.clone();
        bitmap.insert(2);
        bitmap.remove(5000);
        assert!(before.iter().eq([1, 5000]));
    }
}
