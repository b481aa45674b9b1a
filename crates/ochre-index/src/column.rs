//! One metadata key over all records of a collection: typed values in chunks of [`CHUNK`] offsets.
//!
//! A chunk has a lane per type, since a key may hold different types in different records. A lane keeps
//! which offsets have a value, the values packed in their order, or just one where all are equal, and
//! the smallest and the largest of them, so that a filter that none or all of a chunk passes reads no
//! value (a zone map). Strings are codes into a dictionary per key. Chunks are shared between views and
//! copied on write.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use ochre_model::Value;
use parking_lot::RwLock;

use crate::bitmap::{Bits, CHUNK, WORDS, Words};

/// The values under one key, by offset.
#[derive(Clone, Default)]
pub(crate) struct Column {
    chunks: Vec<Option<Arc<Chunk>>>,
    dictionary: Arc<Dictionary>,
}

/// The values of [`CHUNK`] consecutive offsets.
#[derive(Clone, Default)]
pub(crate) struct Chunk {
    pub(crate) bools: Lane<bool>,
    pub(crate) ints: Lane<i64>,
    pub(crate) floats: Lane<f64>,
    pub(crate) strings: Lane<u32>,
    pub(crate) lists: BTreeMap<u16, Arc<Value>>,
}

/// The values of one type in a chunk.
#[derive(Clone)]
pub(crate) struct Lane<T> {
    /// Which offsets have a value; absent when none has.
    present: Option<Box<Words>>,
    /// No offset from here on ever had a value.
    end: u16,
    /// One value per present offset, in order; empty while all are equal to `constant`.
    values: Vec<T>,
    constant: Option<T>,
    /// No value is less than the first or greater than the second; wider than need be after removals.
    /// Absent when a value has no order.
    bounds: Option<(T, T)>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { present: None, end: 0, values: Vec::new(), constant: None, bounds: None }
    }
}

impl Column {
    pub(crate) fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    pub(crate) fn chunk(&self, chunk: usize) -> Option<&Chunk> {
        self.chunks.get(chunk)?.as_deref()
    }

    pub(crate) fn has(&self, offset: u32) -> bool {
        let local = local(offset);
        self.chunk(offset as usize / CHUNK).is_some_and(|chunk| {
            chunk.strings.rank(local).is_some()
                || chunk.ints.rank(local).is_some()
                || chunk.floats.rank(local).is_some()
                || chunk.bools.rank(local).is_some()
                || chunk.lists.contains_key(&local)
        })
    }

    /// Sets, replaces or, with `None`, removes the value at `offset`.
    pub(crate) fn set(&mut self, offset: u32, value: Option<&Value>) {
        let (index, local) = (offset as usize / CHUNK, local(offset));
        if self.chunks.len() <= index {
            self.chunks.resize(index + 1, None);
        }
        // Records mostly come in the order of their offsets: then there is nothing to replace.
        let had = self.chunk(index).is_some_and(|chunk| local < chunk.end()) && self.has(offset);
        let chunk = Arc::make_mut(self.chunks[index].get_or_insert_with(Arc::default));
        if had {
            chunk.clear(local);
        }
        match value {
            None => {}
            Some(Value::Bool(b)) => chunk.bools.set(local, *b),
            Some(Value::Int(i)) => chunk.ints.set(local, *i),
            Some(Value::Float(f)) => chunk.floats.set(local, *f),
            Some(Value::Str(s)) => chunk.strings.set(local, self.dictionary.code(s)),
            Some(list) => {
                chunk.lists.insert(local, Arc::new(list.clone()));
            }
        }
    }

    /// Bytes of the heap this column holds.
    pub(crate) fn heap_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().flatten().map(|chunk| chunk.heap_bytes()).sum();
        chunks + self.chunks.len() * 8 + self.dictionary.heap_bytes()
    }
}

impl Chunk {
    /// No offset from here on has a value.
    fn end(&self) -> u16 {
        let lists = self.lists.last_key_value().map_or(0, |(local, _)| local + 1);
        self.bools.end.max(self.ints.end).max(self.floats.end).max(self.strings.end).max(lists)
    }

    fn clear(&mut self, local: u16) {
        self.bools.unset(local);
        self.ints.unset(local);
        self.floats.unset(local);
        self.strings.unset(local);
        self.lists.remove(&local);
    }

    fn heap_bytes(&self) -> usize {
        let lanes =
            self.bools.heap_bytes() + self.ints.heap_bytes() + self.floats.heap_bytes() + self.strings.heap_bytes();
        size_of::<Self>() + lanes + self.lists.len() * 64
    }
}

impl<T: Copy + PartialOrd> Lane<T> {
    /// Where the value of an offset stands among the values, if it has one.
    fn rank(&self, local: u16) -> Option<usize> {
        let present = self.present.as_deref()?;
        let (word, bit) = (local as usize / 64, local % 64);
        if present[word] >> bit & 1 == 0 {
            return None;
        }
        let before: u32 = present[..word].iter().map(|word| word.count_ones()).sum();
        Some((before + (present[word] & ((1 << bit) - 1)).count_ones()) as usize)
    }

    fn count(&self) -> usize {
        self.present.as_deref().map_or(0, |words| words.iter().map(|word| word.count_ones() as usize).sum())
    }

    fn set(&mut self, local: u16, value: T) {
        self.bounds = match self.bounds {
            _ if value.partial_cmp(&value).is_none() => None,
            None if self.present.is_none() => Some((value, value)),
            None => None,
            Some((low, high)) => Some((if value < low { value } else { low }, if value > high { value } else { high })),
        };
        if self.constant != Some(value) {
            if let Some(constant) = self.constant.take() {
                self.values = vec![constant; self.count()];
            }
            if self.present.is_none() {
                self.constant = Some(value);
            }
        }
        if local >= self.end {
            self.mark(local);
            if self.constant.is_none() {
                self.values.push(value);
            }
            return;
        }
        match (self.rank(local), self.constant) {
            (_, Some(_)) => self.mark(local),
            (Some(rank), None) => self.values[rank] = value,
            (None, None) => {
                self.mark(local);
                let rank = self.rank(local).expect("just marked");
                self.values.insert(rank, value);
            }
        }
    }

    fn mark(&mut self, local: u16) {
        let present = self.present.get_or_insert_with(|| Box::new([0; WORDS]));
        present[local as usize / 64] |= 1 << (local % 64);
        self.end = self.end.max(local + 1);
    }

    fn unset(&mut self, local: u16) {
        let Some(rank) = self.rank(local) else { return };
        if self.constant.is_none() {
            self.values.remove(rank);
        }
        if let Some(present) = &mut self.present {
            present[local as usize / 64] &= !(1 << (local % 64));
        }
        if self.count() == 0 {
            *self = Self::default();
        }
    }

    /// Adds to `result` every offset whose value passes `test`.
    pub(crate) fn scan(&self, result: &mut Words, test: impl Fn(T) -> bool) {
        let Some(present) = self.present.as_deref() else { return };
        if let Some(constant) = self.constant {
            if test(constant) {
                result.iter_mut().zip(present).for_each(|(result, present)| *result |= present);
            }
            return;
        }
        let mut values = self.values.as_slice();
        for (result, present) in result.iter_mut().zip(present) {
            let (these, rest) = values.split_at(present.count_ones() as usize);
            values = rest;
            if *present == u64::MAX {
                // A full word: no gaps, so the compiler can compare many values at once.
                let bits = these.iter().enumerate().map(|(bit, value)| u64::from(test(*value)) << bit);
                *result |= bits.fold(0, |word, bit| word | bit);
            } else {
                for (bit, value) in Bits(*present).zip(these) {
                    *result |= u64::from(test(*value)) << bit;
                }
            }
        }
    }

    /// As [`Lane::scan`], for a test of how a value is ordered against an operand: passed if its order is
    /// one of `orders`. Reads no value where the lane's bounds decide.
    pub(crate) fn scan_ordered(
        &self, result: &mut Words, orders: &[Ordering], order: impl Fn(T) -> Option<Ordering>, test: impl Fn(T) -> bool,
    ) {
        if let Some((Some(low), Some(high))) = self.bounds.map(|(low, high)| (order(low), order(high))) {
            let mut possible = [Ordering::Less, Ordering::Equal, Ordering::Greater]
                .into_iter()
                .filter(|order| (low..=high).contains(order));
            let passing = possible.clone().filter(|order| orders.contains(order)).count();
            if passing == 0 {
                return;
            }
            if possible.all(|order| orders.contains(&order)) {
                return self.scan(result, |_| true);
            }
        }
        self.scan(result, test);
    }

    fn heap_bytes(&self) -> usize {
        self.values.capacity() * size_of::<T>() + self.present.as_ref().map_or(0, |_| size_of::<Words>())
    }
}

fn local(offset: u32) -> u16 {
    u16::try_from(offset as usize % CHUNK).expect("a chunk has fewer than 2¹⁶ offsets")
}

/// The distinct strings of a column, by code. Only grows, so views of any age can share it.
#[derive(Default)]
pub(crate) struct Dictionary(RwLock<Strings>);

#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`.
    ends: Vec<usize>,
    codes: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Strings {
    fn get(&self, code: u32) -> &[u8] {
        let start = (code as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[code as usize]]
    }

    fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text.as_bytes());
        self.codes.find(hash, |code| self.get(*code) == text.as_bytes()).copied()
    }
}

impl Dictionary {
    /// The code of a string, if any record ever had it.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.0.read().find(text)
    }

    /// The code of a string, given one if it is new.
    fn code(&self, text: &str) -> u32 {
        if let Some(code) = self.find(text) {
            return code;
        }
        let mut strings = self.0.write();
        if let Some(code) = strings.find(text) {
            return code;
        }
        let code = u32::try_from(strings.ends.len()).expect("one string a record, and offsets are u32");
        strings.bytes.extend_from_slice(text.as_bytes());
        let end = strings.bytes.len();
        strings.ends.push(end);
        let hash = strings.hasher.hash_one(text.as_bytes());
        let Strings { bytes, ends, codes, hasher } = &mut *strings;
        codes.insert_unique(hash, code, |code| {
            let start = (*code as usize).checked_sub(1).map_or(0, |before| ends[before]);
            hasher.hash_one(&bytes[start..ends[*code as usize]])
        });
        code
    }

    fn heap_bytes(&self) -> usize {
        let strings = self.0.read();
        strings.bytes.capacity() + strings.ends.capacity() * 8 + strings.codes.capacity() * 5
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Random sets and removals on a column against a map.
    #[test]
    fn a_column_holds_what_was_last_set() {
        let mut rng = fastrand::Rng::with_seed(11);
        let (mut column, mut map) = (Column::default(), BTreeMap::new());
        for round in 0..30_000u32 {
            let offset = rng.u32(0..9000);
            let value = match rng.u8(0..8) {
                0 => None,
                1 => Some(Value::Bool(rng.bool())),
                2 | 3 => Some(Value::Int(rng.i64(0..3))),
                4 => Some(Value::Float(f64::from(rng.u8(0..3)))),
                5 => Some(Value::Ints(vec![rng.i64(0..3)])),
                _ => Some(Value::Str(format!("s{}", rng.u8(0..4)))),
            };
            column.set(offset, value.as_ref());
            match value {
                Some(value) => map.insert(offset, value),
                None => map.remove(&offset),
            };
            if round % 5000 == 0 {
                same(&column, &map);
            }
        }
        same(&column, &map);
    }

    /// Bounds decide nothing that the values would not, also after values were replaced and removed.
    #[test]
    fn bounds_never_change_what_a_scan_finds() {
        let mut rng = fastrand::Rng::with_seed(12);
        for round in 0..200 {
            let (mut lane, spread) = (Lane::<i64>::default(), 1 + round % 7);
            for local in 0..300u16 {
                if rng.u8(0..4) > 0 {
                    lane.set(local, i64::from(local) / 100 + rng.i64(0..spread));
                }
            }
            (0..rng.u16(0..300)).for_each(|_| lane.unset(rng.u16(0..300)));
            for operand in -1..12 {
                for orders in [&[Ordering::Equal][..], &[Ordering::Less], &[Ordering::Greater, Ordering::Equal]] {
                    let (mut bounded, mut plain) = ([0; WORDS], [0; WORDS]);
                    let test = |v: i64| orders.contains(&v.cmp(&operand));
                    lane.scan_ordered(&mut bounded, orders, |v| Some(v.cmp(&operand)), test);
                    lane.scan(&mut plain, test);
                    assert_eq!(bounded, plain);
                }
            }
        }
        let mut unordered = Lane::<f64>::default();
        [1.0, f64::NAN, 3.0].into_iter().zip(0..).for_each(|(value, local)| unordered.set(local, value));
        assert!(unordered.bounds.is_none(), "a value without an order has no bounds");
    }

    fn same(column: &Column, map: &BTreeMap<u32, Value>) {
        let scan = |test: &dyn Fn(&Chunk, &mut Words)| {
            let mut found = Vec::new();
            for index in 0..column.chunks.len() {
                let mut words = [0; WORDS];
                if let Some(chunk) = column.chunk(index) {
                    test(chunk, &mut words);
                }
                for (word, bits) in words.iter().enumerate() {
                    found.extend(Bits(*bits).map(|bit| (index * CHUNK + word * 64) as u32 + bit));
                }
            }
            found
        };
        let expect = |value: &Value| map.iter().filter(|(_, v)| *v == value).map(|(o, _)| *o).collect::<Vec<_>>();
        assert_eq!(scan(&|chunk, words| chunk.ints.scan(words, |v| v == 1)), expect(&Value::Int(1)));
        assert_eq!(scan(&|chunk, words| chunk.floats.scan(words, |v| v == 2.0)), expect(&Value::Float(2.0)));
        assert_eq!(scan(&|chunk, words| chunk.bools.scan(words, |v| v)), expect(&Value::Bool(true)));
        let code = column.dictionary().find("s3").unwrap_or(u32::MAX);
        assert_eq!(scan(&|chunk, words| chunk.strings.scan(words, |v| v == code)), expect(&Value::Str("s3".into())));
        assert!((0..9000).all(|offset| column.has(offset) == map.contains_key(&offset)));
    }
}
