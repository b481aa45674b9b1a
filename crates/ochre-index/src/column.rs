//! One metadata key over all records of a collection: typed values in chunks of [`CHUNK`] offsets.
//!
//! A chunk has a lane per type, since a key may hold different types in different records. A lane keeps
//! which offsets have a value, the values packed in their order, or just one where all are equal, and
//! the smallest and the largest of them, so that a filter that none or all of a chunk passes reads no
//! value (a zone map). Strings are codes into a dictionary per key. Chunks are shared between views and
//! copied on write.

mod bytes;
mod dictionary;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use ochre_model::budget::{self, Exceeded};
use ochre_model::{SparseVector, Value, ValueType};

pub(crate) use self::dictionary::Dictionary;
use crate::bitmap::{Bitmap, Bits, CHUNK, WORDS, Words};
use crate::postings::Postings;

/// Memory that making postings takes for each value of a sparse vector, in bytes: while they are sorted, and after.
const POSTING_BYTES: usize = 12 + 6;
/// Strings given between two questions whether the request may go on.
const STRINGS_AT_ONCE: usize = 1024;

/// The values under one key, by offset.
#[derive(Clone, Default)]
pub(crate) struct Column {
    chunks: Vec<Option<Arc<Chunk>>>,
    dictionary: Arc<Dictionary>,
    counts: TypeCounts,
    /// Bytes of strings that were replaced or removed since the dictionary was made: as many of it may be dead.
    replaced_bytes: usize,
}

/// A dictionary is made again no earlier than with so many bytes.
const DICTIONARY_BYTES_MIN: usize = 1 << 20;

/// How many records hold a value of each type, in the order of [`ValueType::ALL`].
pub type TypeCounts = [u64; ValueType::ALL.len()];

/// Takes the values of a key, in no particular order.
pub trait Values {
    /// Booleans of one value, in so many records.
    fn bools(&mut self, value: bool, records: u64);
    /// An integer.
    fn int(&mut self, value: i64);
    /// A float.
    fn float(&mut self, value: f64);
    /// A string, in so many records; each string once.
    fn strings(&mut self, value: &str, records: u64);
    /// A list. Sparse vectors are not given.
    fn list(&mut self, value: &Value);
}

/// The values of [`CHUNK`] consecutive offsets.
#[derive(Clone, Default)]
pub(crate) struct Chunk {
    pub(crate) bools: Lane<bool>,
    pub(crate) ints: Lane<i64>,
    pub(crate) floats: Lane<f64>,
    pub(crate) strings: Lane<u32>,
    /// Lists and, without their tokens, sparse vectors.
    pub(crate) lists: BTreeMap<u16, Arc<Value>>,
    /// The sparse vectors by their indices, made when they are first searched.
    postings: OnceLock<Arc<Postings>>,
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

    /// The value at `offset`.
    pub(crate) fn value(&self, offset: u32) -> Option<Value> {
        let (chunk, local) = (self.chunk(offset as usize / CHUNK)?, local(offset));
        if let Some(code) = chunk.strings.get(local) {
            let mut found = None;
            self.dictionary.with(code as usize, |text| found = Some(Value::Str(text.to_owned())));
            return found;
        }
        chunk.ints.get(local).map(Value::Int).or_else(|| chunk.floats.get(local).map(Value::Float)).or_else(|| {
            let flag = chunk.bools.get(local).map(Value::Bool);
            flag.or_else(|| chunk.lists.get(&local).map(|list| Value::clone(list)))
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
        if had && let Some(code) = self.chunk(index).and_then(|chunk| chunk.strings.get(local)) {
            self.replaced_bytes += self.dictionary.bytes_of(code);
            if self.is_mostly_dead() {
                self.renew_dictionary();
            }
        }
        let chunk = Arc::make_mut(self.chunks[index].get_or_insert_with(Arc::default));
        if had && let Some(ty) = chunk.clear(local) {
            self.counts[ty as usize] -= 1;
        }
        if let Some(value) = value {
            self.counts[value.value_type() as usize] += 1;
        }
        match value {
            None => {}
            Some(Value::Bool(b)) => chunk.bools.set(local, *b),
            Some(Value::Int(i)) => chunk.ints.set(local, *i),
            Some(Value::Float(f)) => chunk.floats.set(local, *f),
            Some(Value::Str(s)) => chunk.strings.set(local, self.dictionary.code(s)),
            Some(Value::Sparse(vector)) => {
                chunk.postings.take();
                chunk.lists.insert(local, Arc::new(Value::Sparse(Box::new(vector.without_tokens()))));
            }
            Some(list) => {
                chunk.lists.insert(local, Arc::new(list.clone()));
            }
        }
    }

    /// Whether so much of the dictionary may be dead that making it again costs less than it gives.
    fn is_mostly_dead(&self) -> bool {
        let values = usize::try_from(self.counts[ValueType::Str as usize]).unwrap_or(usize::MAX);
        let bytes = self.dictionary.text_bytes();
        bytes >= DICTIONARY_BYTES_MIN && self.replaced_bytes > bytes / 2 && self.replaced_bytes / 8 > values
    }

    /// Makes the dictionary again, of the strings that records have; views that were published keep the old one.
    fn renew_dictionary(&mut self) {
        let new = Dictionary::default();
        let mut codes = vec![None; self.dictionary.len()];
        for chunk in self.chunks.iter_mut().flatten().filter(|chunk| chunk.strings.present.is_some()) {
            Arc::make_mut(chunk).strings.map(|code| {
                *codes[code as usize].get_or_insert_with(|| {
                    let mut given = 0;
                    self.dictionary.with(code as usize, |text| given = new.code(text));
                    given
                })
            });
        }
        (self.dictionary, self.replaced_bytes) = (Arc::new(new), 0);
    }

    /// How many records hold a value of each type.
    pub(crate) fn counts(&self) -> &TypeCounts {
        &self.counts
    }

    /// As [`Column::counts`], of the offsets in `within`.
    pub(crate) fn counts_within(&self, within: &Bitmap) -> TypeCounts {
        let mut counts = TypeCounts::default();
        for index in 0..within.chunk_count() {
            let (Some(within), Some(chunk)) = (within.chunk(index), self.chunk(index)) else { continue };
            counts[ValueType::Bool as usize] += chunk.bools.count_within(within);
            counts[ValueType::Int as usize] += chunk.ints.count_within(within);
            counts[ValueType::Float as usize] += chunk.floats.count_within(within);
            counts[ValueType::Str as usize] += chunk.strings.count_within(within);
            for (_, list) in chunk.lists.iter().filter(|(local, _)| has(within, **local)) {
                counts[list.value_type() as usize] += 1;
            }
        }
        counts
    }

    /// Gives the values of the offsets in `within` to `values`.
    ///
    /// # Errors
    /// [`Exceeded`]: the request may not go on. Then some were not given.
    pub(crate) fn visit(&self, within: &Bitmap, values: &mut dyn Values) -> Result<(), Exceeded> {
        let (mut bools, mut strings) = ([0u64; 2], vec![0u64; self.dictionary.len()]);
        for index in 0..within.chunk_count() {
            budget::check()?;
            let (Some(within), Some(chunk)) = (within.chunk(index), self.chunk(index)) else { continue };
            chunk.bools.for_each(within, |_, value| bools[usize::from(value)] += 1);
            chunk.ints.for_each(within, |_, value| values.int(value));
            chunk.floats.for_each(within, |_, value| values.float(value));
            chunk.strings.for_each(within, |_, code| strings[code as usize] += 1);
            let lists = chunk.lists.iter().filter(|(local, _)| has(within, **local)).map(|(_, list)| list);
            lists.filter(|list| list.value_type() != ValueType::Sparse).for_each(|list| values.list(list));
        }
        for (value, records) in [(false, bools[0]), (true, bools[1])].into_iter().filter(|(_, records)| *records > 0) {
            values.bools(value, records);
        }
        let (mut asked, mut given) = (Ok(()), 0usize);
        self.dictionary.each(&strings, &mut |text, records| {
            if given.is_multiple_of(STRINGS_AT_ONCE) && asked.is_ok() {
                asked = budget::check();
            }
            given += 1;
            if asked.is_ok() {
                values.strings(text, records);
            }
        });
        asked
    }

    /// Calls `visit` with the offsets in `within` whose value has one of these types, ascending by chunk and
    /// type, until it breaks.
    ///
    /// # Errors
    /// [`Exceeded`]: the request may not go on.
    pub(crate) fn visit_typed(
        &self, within: &Bitmap, types: &[ValueType], visit: &mut dyn FnMut(u32, Value) -> ControlFlow<()>,
    ) -> Result<(), Exceeded> {
        for index in 0..within.chunk_count() {
            budget::check()?;
            let (Some(within), Some(chunk)) = (within.chunk(index), self.chunk(index)) else { continue };
            let mut found: Vec<(u16, Value)> = Vec::new();
            if types.contains(&ValueType::Bool) {
                chunk.bools.for_each(within, |local, value| found.push((local, Value::Bool(value))));
            }
            if types.contains(&ValueType::Int) {
                chunk.ints.for_each(within, |local, value| found.push((local, Value::Int(value))));
            }
            if types.contains(&ValueType::Float) {
                chunk.floats.for_each(within, |local, value| found.push((local, Value::Float(value))));
            }
            if types.contains(&ValueType::Str) {
                chunk.strings.for_each(within, |local, code| {
                    self.dictionary.with(code as usize, |text| found.push((local, Value::Str(text.to_owned()))));
                });
            }
            let lists =
                chunk.lists.iter().filter(|(local, list)| has(within, **local) && types.contains(&list.value_type()));
            found.extend(lists.map(|(local, list)| (*local, Value::clone(list))));
            found.sort_by_key(|(local, _)| *local);
            for (local, value) in found {
                let offset = u32::try_from(index * CHUNK).expect("offsets are u32") + u32::from(local);
                if visit(offset, value).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
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

    /// Removes the value of an offset; its type, if there was one.
    fn clear(&mut self, local: u16) -> Option<ValueType> {
        if self.bools.unset(local) {
            Some(ValueType::Bool)
        } else if self.ints.unset(local) {
            Some(ValueType::Int)
        } else if self.floats.unset(local) {
            Some(ValueType::Float)
        } else if self.strings.unset(local) {
            Some(ValueType::Str)
        } else {
            let ty = self.lists.remove(&local)?.value_type();
            if ty == ValueType::Sparse {
                self.postings.take();
            }
            Some(ty)
        }
    }

    /// The sparse vectors by their indices.
    ///
    /// # Errors
    /// [`Exceeded`]: the request may not have the memory that making them takes.
    pub(crate) fn postings(&self) -> Result<&Postings, Exceeded> {
        if self.postings.get().is_none() {
            let values: usize = self.sparse_vectors().map(|(_, vector)| vector.len()).sum();
            budget::charge(values.saturating_mul(POSTING_BYTES))?;
        }
        Ok(self.postings.get_or_init(|| Arc::new(Postings::of(self.sparse_vectors()))))
    }

    /// The sparse vector of a record, if its value is one.
    pub(crate) fn sparse_vector(&self, local: u16) -> Option<&SparseVector> {
        match &**self.lists.get(&local)? {
            Value::Sparse(vector) => Some(vector),
            _ => None,
        }
    }

    fn sparse_vectors(&self) -> impl Iterator<Item = (u16, &SparseVector)> {
        self.lists.iter().filter_map(|(local, value)| match &**value {
            Value::Sparse(vector) => Some((*local, &**vector)),
            _ => None,
        })
    }

    fn heap_bytes(&self) -> usize {
        let lanes =
            self.bools.heap_bytes() + self.ints.heap_bytes() + self.floats.heap_bytes() + self.strings.heap_bytes();
        let vectors = self.sparse_vectors().map(|(_, vector)| size_of::<SparseVector>() + vector.len() * 8);
        let postings = self.postings.get().map_or(0, |postings| postings.heap_bytes());
        size_of::<Self>() + lanes + self.lists.len() * 64 + vectors.sum::<usize>() + postings
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

    /// The value of an offset.
    fn get(&self, local: u16) -> Option<T> {
        let rank = self.rank(local)?;
        Some(self.constant.unwrap_or_else(|| self.values[rank]))
    }

    fn count(&self) -> usize {
        self.present.as_deref().map_or(0, |words| words.iter().map(|word| word.count_ones() as usize).sum())
    }

    fn count_within(&self, within: &Words) -> u64 {
        let Some(present) = self.present.as_deref() else { return 0 };
        present.iter().zip(within).map(|(present, within)| u64::from((present & within).count_ones())).sum()
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

    /// Puts another value in the place of each.
    fn map(&mut self, mut to: impl FnMut(T) -> T) {
        self.constant = self.constant.map(&mut to);
        self.values.iter_mut().for_each(|value| *value = to(*value));
        self.bounds = None;
        for value in self.constant.iter().chain(&self.values) {
            let (low, high) = self.bounds.get_or_insert((*value, *value));
            if value < low {
                *low = *value;
            }
            if value > high {
                *high = *value;
            }
        }
    }

    fn mark(&mut self, local: u16) {
        let present = self.present.get_or_insert_with(|| Box::new([0; WORDS]));
        present[local as usize / 64] |= 1 << (local % 64);
        self.end = self.end.max(local + 1);
    }

    /// Removes the value of an offset; whether there was one.
    fn unset(&mut self, local: u16) -> bool {
        let Some(rank) = self.rank(local) else { return false };
        if self.constant.is_none() {
            self.values.remove(rank);
        }
        if let Some(present) = &mut self.present {
            present[local as usize / 64] &= !(1 << (local % 64));
        }
        if self.count() == 0 {
            *self = Self::default();
        }
        true
    }

    /// Calls `visit` with each offset of `within` that has a value.
    fn for_each(&self, within: &Words, mut visit: impl FnMut(u16, T)) {
        let Some(present) = self.present.as_deref() else { return };
        let mut rank = 0;
        for (word, (present, within)) in present.iter().zip(within).enumerate() {
            for bit in Bits(present & within) {
                let place = rank + (present & ((1u64 << bit) - 1)).count_ones() as usize;
                let local = u16::try_from(word * 64 + bit as usize).expect("a chunk has fewer than 2¹⁶ offsets");
                visit(local, self.constant.unwrap_or_else(|| self.values[place]));
            }
            rank += present.count_ones() as usize;
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

fn has(words: &Words, local: u16) -> bool {
    words[local as usize / 64] >> (local % 64) & 1 == 1
}

fn local(offset: u32) -> u16 {
    u16::try_from(offset as usize % CHUNK).expect("a chunk has fewer than 2¹⁶ offsets")
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

    #[test]
    fn strings_that_no_record_has_any_more_do_not_stay_for_ever() {
        let mut column = Column::default();
        let text = |number: usize, bytes: usize| Some(Value::Str(format!("{number}-{}", "x".repeat(bytes))));
        let mut map = BTreeMap::new();
        for offset in 0..500u32 {
            let value = text(offset as usize % 50, 10);
            column.set(offset, value.as_ref());
            map.insert(offset, value.unwrap());
        }
        let old = column.clone();
        for number in 0..2000 {
            let value = text(number, 50_000);
            column.set(3, value.as_ref());
            map.insert(3, value.unwrap());
            assert!(column.heap_bytes() < 8 << 20, "{number}: {} bytes", column.heap_bytes());
        }
        for (offset, value) in &map {
            assert_eq!(column.value(*offset).as_ref(), Some(value));
        }
        assert_eq!(old.value(3), text(3, 10), "views of before see what they saw");
        let mut found = [0; WORDS];
        let code = column.dictionary().find(&format!("7-{}", "x".repeat(10))).unwrap();
        column.chunk(0).unwrap().strings.scan(&mut found, |own| own == code);
        assert_eq!(found.iter().map(|word| word.count_ones()).sum::<u32>(), 10);
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
            (0..rng.u16(0..300)).for_each(|_| {
                let _ = lane.unset(rng.u16(0..300));
            });
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
        let mut counts = TypeCounts::default();
        map.values().for_each(|value| counts[value.value_type() as usize] += 1);
        assert_eq!(column.counts(), &counts);
        let within: Bitmap = (0..9000).step_by(3).collect();
        let mut found = BTreeMap::new();
        let visited = column.visit_typed(&within, &ValueType::ALL, &mut |offset, value| {
            found.insert(offset, value);
            ControlFlow::Continue(())
        });
        visited.expect("nothing bounds a test");
        let expected: BTreeMap<u32, Value> =
            map.iter().filter(|(offset, _)| *offset % 3 == 0).map(|(offset, value)| (*offset, value.clone())).collect();
        assert_eq!(found, expected);
    }
}
