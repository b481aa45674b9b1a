//! An immutable part of a composite index, as bytes: sorted keys with the offsets of the records that have them.
//! The layout is in `docs/formats/snapshots.md`.

use std::ops::Range;
use std::sync::Arc;

use crate::bitmap::{Bitmap, Bits};
use crate::bytes::u32_at;
use crate::coverage::Segment;

/// The version of the format.
pub const COMPOSITE_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"OCHREIDX";
/// Bytes before the covered records.
const HEAD: usize = 96;

/// What a segment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompositeHeader {
    /// The database's epoch.
    pub epoch: u64,
    /// The collection's id.
    pub collection: [u8; 16],
    /// The index's id.
    pub index: [u8; 16],
    /// Which build of the index it belongs to.
    pub generation: u64,
    /// The position that its records were read at.
    pub position: u64,
}

/// Collects records for a segment.
#[derive(Default)]
pub struct CompositeBuilder {
    covered: Bitmap,
    keys: Vec<u8>,
    /// Where each entry's key is, and the record it is of.
    entries: Vec<(Range<usize>, u32)>,
}

impl CompositeBuilder {
    /// Says that a record is looked at, whether or not it has keys.
    pub(super) fn cover(&mut self, offset: u32) {
        self.covered.insert(offset);
    }

    pub(super) fn add(&mut self, offset: u32, key: &[u8]) {
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.entries.push((start..self.keys.len(), offset));
    }

    /// How many records it covers.
    pub fn len(&self) -> usize {
        self.covered.len()
    }

    /// Whether it covers none.
    pub fn is_empty(&self) -> bool {
        self.covered.is_empty()
    }

    /// The first record it covers.
    pub fn first(&self) -> Option<u32> {
        self.covered.iter().next()
    }

    /// Bytes of the heap it holds, about.
    pub fn heap_bytes(&self) -> usize {
        self.keys.len() + self.entries.len() * size_of::<(Range<usize>, u32)>()
    }

    /// The segment as bytes.
    pub fn finish(mut self, header: &CompositeHeader) -> Vec<u8> {
        let keys = &self.keys;
        let compare = |a: &(Range<usize>, u32), b: &(Range<usize>, u32)| {
            keys[a.0.clone()].cmp(&keys[b.0.clone()]).then(a.1.cmp(&b.1))
        };
        self.entries.sort_unstable_by(compare);
        self.entries.dedup_by(|b, a| compare(a, b).is_eq());
        // Of each distinct key where it ends among the keys, and where its offsets begin.
        let (mut text, mut ends, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (key, _)) in self.entries.iter().enumerate() {
            let key = &keys[key.clone()];
            let before = ends.len().checked_sub(2).map_or(0, |last| ends[last] as usize);
            if ends.is_empty() || &text[before..] != key {
                text.extend_from_slice(key);
                ends.push(count(text.len()));
                starts.push(count(number));
            }
        }
        starts.push(count(self.entries.len()));
        let (first_word, words) = words_of(&self.covered);
        let mut bytes =
            Vec::with_capacity(HEAD + words.len() * 8 + (ends.len() * 2 + self.entries.len()) * 4 + text.len());
        bytes.extend(MAGIC);
        bytes.extend(COMPOSITE_VERSION.to_le_bytes());
        bytes.extend(count(self.covered.len()).to_le_bytes());
        bytes.extend(header.epoch.to_le_bytes());
        bytes.extend(header.collection);
        bytes.extend(header.index);
        bytes.extend(header.generation.to_le_bytes());
        bytes.extend(header.position.to_le_bytes());
        for number in
            [first_word, count(words.len()), count(ends.len()), count(self.entries.len()), count(text.len()), 0]
        {
            bytes.extend(number.to_le_bytes());
        }
        debug_assert_eq!(bytes.len(), HEAD, "the head has a fixed size");
        words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        ends.iter().chain(&starts).for_each(|number| bytes.extend(number.to_le_bytes()));
        self.entries.iter().for_each(|(_, offset)| bytes.extend(offset.to_le_bytes()));
        bytes.extend(&text);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).expect("segments are small")
}

/// The words of a set from the first that has any, and which that is.
fn words_of(set: &Bitmap) -> (u32, Vec<u64>) {
    let Some(first) = set.iter().next() else { return (0, Vec::new()) };
    let mut words = Vec::new();
    for offset in set.iter() {
        let word = (offset / 64 - first / 64) as usize;
        words.resize(words.len().max(word + 1), 0u64);
        words[word] |= 1 << (offset % 64);
    }
    (first / 64, words)
}

/// A segment that can be asked.
pub struct CompositeSegment {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    header: CompositeHeader,
    covered: usize,
    words: Range<usize>,
    first_word: u32,
    keys: usize,
    entries: usize,
    ends_at: usize,
}

impl CompositeSegment {
    /// A segment of this epoch, collection and index. All of it is checked here.
    ///
    /// # Errors
    /// Why it cannot be used: rebuild it.
    pub fn open(
        bytes: Arc<dyn AsRef<[u8]> + Send + Sync>, epoch: u64, collection: [u8; 16],
    ) -> Result<Self, &'static str> {
        let all = (*bytes).as_ref();
        if all.len() < HEAD + 4 || all[..8] != MAGIC {
            return Err("it is no segment of an index");
        }
        let (body, checksum) = all.split_at(all.len() - 4);
        if checksum != crc32c::crc32c(body).to_le_bytes() {
            return Err("it does not match its checksum");
        }
        if u32_at(all, 8) != COMPOSITE_VERSION {
            return Err("it has another format version");
        }
        let whole = |at: usize| u64::from_le_bytes(all[at..at + 8].try_into().expect("eight bytes"));
        let id = |at: usize| -> [u8; 16] { all[at..at + 16].try_into().expect("sixteen bytes") };
        let header = CompositeHeader {
            epoch: whole(16),
            collection: id(24),
            index: id(40),
            generation: whole(56),
            position: whole(64),
        };
        if header.epoch != epoch || header.collection != collection {
            return Err("it is of another epoch or collection");
        }
        let [words, keys, entries, text] = [76, 80, 84, 88].map(|at| u32_at(all, at) as usize);
        let ends_at = HEAD + words * 8;
        if ends_at + (2 * keys + 1 + entries) * 4 + text + 4 != all.len() {
            return Err("it is cut off");
        }
        let (covered, first_word) = (u32_at(all, 12) as usize, u32_at(all, 72));
        Ok(Self { bytes, header, covered, words: HEAD..ends_at, first_word, keys, entries, ends_at })
    }

    /// What it is of.
    pub fn header(&self) -> &CompositeHeader {
        &self.header
    }

    /// How many records it covers.
    pub fn len(&self) -> usize {
        self.covered
    }

    /// Whether it covers none.
    pub fn is_empty(&self) -> bool {
        self.covered == 0
    }

    /// The offset of the first record it covers.
    pub fn first(&self) -> Option<u32> {
        self.offsets().next()
    }

    /// How many pairs of a key and a record it has.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// How many different keys.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// How many records have the key that most have.
    pub fn largest(&self) -> usize {
        (0..self.keys).map(|key| self.start(key + 1) - self.start(key)).max().unwrap_or(0)
    }

    /// Bytes it takes, in memory or in a mapped file.
    pub fn bytes(&self) -> usize {
        (*self.bytes).as_ref().len()
    }

    /// The offsets it covers, ascending.
    pub fn offsets(&self) -> impl Iterator<Item = u32> {
        let words = (*self.bytes).as_ref()[self.words.clone()].chunks_exact(8);
        words.zip(self.first_word..).flat_map(|(word, index)| {
            Bits(u64::from_le_bytes(word.try_into().expect("eight bytes"))).map(move |bit| index * 64 + bit)
        })
    }

    fn at(&self, index: usize) -> usize {
        u32_at((*self.bytes).as_ref(), self.ends_at + index * 4) as usize
    }

    fn start(&self, key: usize) -> usize {
        self.at(self.keys + key)
    }

    /// A key by its rank.
    pub(super) fn key(&self, key: usize) -> &[u8] {
        let text = self.ends_at + (2 * self.keys + 1 + self.entries) * 4;
        let start = key.checked_sub(1).map_or(0, |before| self.at(before));
        (*self.bytes).as_ref().get(text + start..text + self.at(key)).unwrap_or_default()
    }

    /// Which entries have a key from `low` to before `high`.
    pub(super) fn span(&self, low: &[u8], high: &[u8]) -> Range<usize> {
        let rank = |wanted: &[u8]| {
            let (mut low, mut high) = (0, self.keys);
            while low < high {
                let middle = usize::midpoint(low, high);
                if self.key(middle) < wanted {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        };
        let first = rank(low);
        self.start(first)..self.start(rank(high).max(first))
    }

    /// The record of an entry.
    pub(super) fn offset(&self, entry: usize) -> u32 {
        u32_at((*self.bytes).as_ref(), self.ends_at + (2 * self.keys + 1 + entry) * 4)
    }

    /// Each key with its records, for verification.
    pub(super) fn each(&self, visit: &mut dyn FnMut(&[u8], u32)) {
        for key in 0..self.keys {
            for entry in self.start(key)..self.start(key + 1) {
                visit(self.key(key), self.offset(entry));
            }
        }
    }
}

impl Segment for CompositeSegment {
    fn position(&self) -> u64 {
        self.header.position
    }

    fn covered(&self) -> Bitmap {
        self.offsets().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: CompositeHeader =
        CompositeHeader { epoch: 3, collection: [7; 16], index: [9; 16], generation: 2, position: 11 };

    #[test]
    fn a_segment_fits_only_what_it_is_of_and_every_byte_counts() {
        let mut builder = CompositeBuilder::default();
        for (offset, key) in [(200, "b"), (70, "a"), (70, "a"), (70, "c"), (5000, "b")] {
            builder.cover(offset);
            builder.add(offset, key.as_bytes());
        }
        builder.cover(71);
        assert_eq!((builder.len(), builder.first()), (4, Some(70)));
        let bytes = builder.finish(&HEADER);
        let open =
            |bytes: &[u8], epoch, collection| CompositeSegment::open(Arc::new(bytes.to_vec()), epoch, collection);
        let segment = open(&bytes, 3, [7; 16]).map_err(str::to_owned).unwrap();
        assert_eq!(segment.header(), &HEADER);
        assert_eq!(segment.offsets().collect::<Vec<_>>(), [70, 71, 200, 5000]);
        assert_eq!((segment.len(), segment.keys(), segment.entries(), segment.largest()), (4, 3, 4, 2));
        let of = |low: &str, high: &str| -> Vec<u32> {
            segment.span(low.as_bytes(), high.as_bytes()).map(|entry| segment.offset(entry)).collect()
        };
        assert_eq!(of("a", "b"), [70]);
        assert_eq!(of("b", "bb"), [200, 5000]);
        assert_eq!(of("a", "z"), [70, 200, 5000, 70]);
        assert_eq!((of("z", "zz"), of("c", "a")), (vec![], vec![]));
        assert!(open(&bytes, 4, [7; 16]).is_err());
        assert!(open(&bytes, 3, [8; 16]).is_err());
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1;
            assert!(open(&damaged, 3, [7; 16]).is_err(), "byte {index}");
            assert!(open(&bytes[..index], 3, [7; 16]).is_err(), "cut at {index}");
        }
        let nothing = CompositeBuilder::default().finish(&HEADER);
        assert!(open(&nothing, 3, [7; 16]).is_ok_and(|segment| segment.span(b"", b"z").is_empty()));
    }
}
