//! A column as bytes, and back: `docs/formats/snapshots.md`. Strings that no record has any more are left out.

use std::io;
use std::sync::Arc;

use ochre_model::{SparseVector, Value, ValueType};

use super::{Chunk, Column, Dictionary, Lane, TypeCounts};
use crate::bitmap::{CHUNK, WORDS};
use crate::bytes::{Sink, Source};

/// No value of a type in a chunk, one for all that have it, or one each.
const NONE: u8 = 0;
const CONSTANT: u8 = 1;
const EACH: u8 = 2;
/// A string that no record has.
const UNUSED: u32 = u32::MAX;

/// A value as bytes of a fixed number.
pub(crate) trait Plain: Copy + PartialOrd {
    const BYTES: usize;
    fn put(self, out: &mut Vec<u8>);
    fn take(bytes: &[u8]) -> Option<Self>;
}

macro_rules! plain {
    ($type:ty) => {
        impl Plain for $type {
            const BYTES: usize = size_of::<$type>();

            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(<$type>::from_le_bytes)
            }
        }
    };
}

plain!(i64);
plain!(f64);
plain!(u32);

impl Plain for bool {
    const BYTES: usize = 1;

    fn put(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        matches!(bytes, [0 | 1]).then(|| bytes[0] == 1)
    }
}

impl Column {
    pub(crate) fn write(&self, out: &mut Sink<'_>) -> io::Result<()> {
        let codes = self.write_dictionary(out)?;
        out.number(self.chunks.len() as u64)?;
        for chunk in &self.chunks {
            let Some(chunk) = chunk else {
                out.bytes(&[NONE])?;
                continue;
            };
            out.bytes(&[EACH])?;
            chunk.bools.write(out, |value| value)?;
            chunk.ints.write(out, |value| value)?;
            chunk.floats.write(out, |value| value)?;
            chunk.strings.write(out, |code| codes[code as usize])?;
            out.number(chunk.lists.len() as u64)?;
            for (local, list) in &chunk.lists {
                out.number(u64::from(*local))?;
                write_list(list, out)?;
            }
        }
        Ok(())
    }

    /// Writes the strings that records have; for each code the one it has there.
    fn write_dictionary(&self, out: &mut Sink<'_>) -> io::Result<Vec<u32>> {
        let mut codes = vec![UNUSED; self.dictionary.len()];
        for chunk in self.chunks.iter().flatten() {
            chunk.strings.constant.iter().chain(&chunk.strings.values).for_each(|code| codes[*code as usize] = 0);
        }
        let used = codes.iter_mut().filter(|code| **code != UNUSED);
        let count = (0u32..).zip(used).map(|(new, code)| *code = new).count();
        out.number(count as u64)?;
        let mut written = Ok(());
        for (code, _) in codes.iter().enumerate().filter(|(_, new)| **new != UNUSED) {
            self.dictionary.with(code, |text| written = out.text(text));
            std::mem::replace(&mut written, Ok(()))?;
        }
        Ok(codes)
    }

    pub(crate) fn read(from: &mut Source<'_>) -> Option<Self> {
        let dictionary = Dictionary::default();
        let strings = u32::try_from(from.count(1)?).ok()?;
        for code in 0..strings {
            // A string that stands there twice would have two codes.
            if dictionary.code(from.text()?) != code {
                return None;
            }
        }
        let chunks = from.count(1)?;
        let mut column = Self { dictionary: Arc::new(dictionary), ..Self::default() };
        for _ in 0..chunks {
            let chunk = match from.array()? {
                [NONE] => None,
                _ => Some(Arc::new(Chunk::read(from, strings, &mut column.counts)?)),
            };
            column.chunks.push(chunk);
        }
        Some(column)
    }
}

impl Chunk {
    fn read(from: &mut Source<'_>, strings: u32, counts: &mut TypeCounts) -> Option<Self> {
        let mut chunk = Self {
            bools: Lane::read(from)?,
            ints: Lane::read(from)?,
            floats: Lane::read(from)?,
            strings: Lane::read(from)?,
            ..Self::default()
        };
        let codes = chunk.strings.constant.iter().chain(&chunk.strings.values);
        if codes.into_iter().any(|code| *code >= strings) {
            return None;
        }
        counts[ValueType::Bool as usize] += chunk.bools.count() as u64;
        counts[ValueType::Int as usize] += chunk.ints.count() as u64;
        counts[ValueType::Float as usize] += chunk.floats.count() as u64;
        counts[ValueType::Str as usize] += chunk.strings.count() as u64;
        for _ in 0..from.count(3)? {
            let local = u16::try_from(from.number()?).ok().filter(|local| usize::from(*local) < CHUNK)?;
            let list = read_list(from)?;
            counts[list.value_type() as usize] += 1;
            chunk.lists.insert(local, Arc::new(list));
        }
        Some(chunk)
    }
}

impl<T: Plain> Lane<T> {
    fn write(&self, out: &mut Sink<'_>, value: impl Fn(T) -> T) -> io::Result<()> {
        let Some(present) = self.present.as_deref() else { return out.bytes(&[NONE]) };
        out.bytes(&[if self.constant.is_some() { CONSTANT } else { EACH }])?;
        present.iter().try_for_each(|word| out.bytes(&word.to_le_bytes()))?;
        let mut bytes = Vec::with_capacity(self.values.len() * T::BYTES);
        self.constant.iter().chain(&self.values).for_each(|own| value(*own).put(&mut bytes));
        out.bytes(&bytes)
    }

    fn read(from: &mut Source<'_>) -> Option<Self> {
        let [kind] = from.array()?;
        if kind == NONE {
            return Some(Self::default());
        }
        let (words, _) = from.bytes(WORDS * 8)?.as_chunks::<8>();
        let mut present = Box::new([0; WORDS]);
        present.iter_mut().zip(words).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
        let mut lane = Self { present: Some(present), ..Self::default() };
        let last = lane.present.as_deref()?.iter().rposition(|word| *word != 0)?;
        let bit = 63 - lane.present.as_deref()?[last].leading_zeros() as usize;
        lane.end = u16::try_from(last * 64 + bit + 1).ok()?;
        let count = if kind == CONSTANT { 1 } else { lane.count() };
        let bytes = from.bytes(count * T::BYTES)?;
        let values = bytes.chunks_exact(T::BYTES).map(T::take).collect::<Option<Vec<T>>>()?;
        let is_ordered = values.iter().all(|value| value.partial_cmp(value).is_some());
        if is_ordered && let Some(first) = values.first() {
            let widen = |(low, high): (T, T), value: &T| {
                (if *value < low { *value } else { low }, if *value > high { *value } else { high })
            };
            lane.bounds = Some(values.iter().fold((*first, *first), widen));
        }
        match kind {
            CONSTANT => lane.constant = values.first().copied(),
            EACH => lane.values = values,
            _ => return None,
        }
        Some(lane)
    }
}

fn write_list(list: &Value, out: &mut Sink<'_>) -> io::Result<()> {
    let ty = list.value_type() as u8;
    out.bytes(&[ty])?;
    let mut bytes = Vec::new();
    let count = match list {
        Value::Bools(items) => items.iter().map(|item| item.put(&mut bytes)).count(),
        Value::Ints(items) => items.iter().map(|item| item.put(&mut bytes)).count(),
        Value::Floats(items) => items.iter().map(|item| item.put(&mut bytes)).count(),
        Value::Strs(items) => {
            out.number(items.len() as u64)?;
            return items.iter().try_for_each(|item| out.text(item));
        }
        Value::Sparse(vector) => {
            vector.indices().iter().for_each(|index| index.put(&mut bytes));
            vector.values().iter().for_each(|value| value.to_bits().put(&mut bytes));
            vector.len()
        }
        _ => unreachable!("only lists and sparse vectors stand among the lists"),
    };
    out.number(count as u64)?;
    out.bytes(&bytes)
}

fn read_list(from: &mut Source<'_>) -> Option<Value> {
    let [ty] = from.array()?;
    let ty = ValueType::ALL.into_iter().find(|known| *known as u8 == ty)?;
    let count = from.count(1)?;
    fn items<T: Plain>(from: &mut Source<'_>, count: usize) -> Option<Vec<T>> {
        from.bytes(count.checked_mul(T::BYTES)?)?.chunks_exact(T::BYTES).map(T::take).collect()
    }
    match ty {
        ValueType::Bools => items(from, count).map(Value::Bools),
        ValueType::Ints => items(from, count).map(Value::Ints),
        ValueType::Floats => items(from, count).map(Value::Floats),
        ValueType::Strs => {
            (0..count).map(|_| from.text().map(str::to_owned)).collect::<Option<Vec<_>>>().map(Value::Strs)
        }
        ValueType::Sparse => {
            let indices = items(from, count)?;
            let values = items::<u32>(from, count)?.into_iter().map(f32::from_bits).collect();
            SparseVector::new(indices, values, None).ok().map(|vector| Value::Sparse(Box::new(vector)))
        }
        _ => None,
    }
}
