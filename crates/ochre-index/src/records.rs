//! What a view knows of records, as bytes and back: who is live, whose vector and when it changed, who has a document,
//! and the columns. `docs/formats/snapshots.md`.
//!
//! Only a shortcut: whatever does not fit exactly makes it worthless, and records are read from the truth.

use std::io::{self, Write};

use ochre_model::Space;

use crate::bytes::{Sink, Source};
use crate::column::Column;
use crate::graph::SnapshotHeader;
use crate::view::View;

/// The version of the format.
pub const RECORDS_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"OCHREREC";

/// A live record, as far as it is not in columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// Its offset.
    pub offset: u32,
    /// The id of its vector.
    pub vector_id: u64,
    /// The position at which it was last changed.
    pub changed: u64,
}

/// What was read: a view of this position, in which no record has a vector yet.
pub struct StoredRecords {
    /// The view, without vectors, graph, text and indexes. Whoever loads it gives each record its vector, which makes
    /// it live.
    pub view: View,
    /// Every live record, by ascending offset.
    pub places: Vec<RecordPlace>,
}

impl View {
    /// Writes what the view knows of records. `changed` gives, by ascending offset, the position at which each live
    /// record was last changed.
    ///
    /// # Errors
    /// Whatever `out` fails with; or if `changed` is not of this view.
    pub fn write_records(
        &self, header: &SnapshotHeader, changed: &[(u32, u64)], out: &mut dyn Write,
    ) -> io::Result<()> {
        if changed.len() != self.live().len() {
            return Err(io::Error::other("the records are not those of the view"));
        }
        let mut out = Sink::new(out);
        out.bytes(&MAGIC)?;
        out.bytes(&RECORDS_VERSION.to_le_bytes())?;
        out.bytes(&header.epoch.to_le_bytes())?;
        out.bytes(&header.collection)?;
        out.bytes(&header.position.to_le_bytes())?;
        out.number(changed.len() as u64)?;
        let mut before = (0u32, 0u64, 0u64);
        for (offset, position) in changed {
            let vector_id = self.vector_id(*offset).ok_or_else(|| io::Error::other("a record is not in the view"))?;
            let has_document = self.with_document().contains(*offset);
            out.number(u64::from(offset - before.0) << 1 | u64::from(has_document))?;
            out.number(zigzag(vector_id, before.1))?;
            out.number(zigzag(*position, before.2))?;
            before = (*offset, vector_id, *position);
        }
        let columns: Vec<(&str, &Column)> = self.columns().collect();
        out.number(columns.len() as u64)?;
        for (key, column) in columns {
            out.text(key)?;
            column.write(&mut out)?;
        }
        out.finish()
    }

    /// Reads what [`View::write_records`] wrote, if it is of this epoch and collection.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read_records(
        bytes: &[u8], epoch: u64, collection: [u8; 16], space: Space,
    ) -> Result<StoredRecords, &'static str> {
        let mut from = Source::verified(bytes).ok_or("it does not match its checksum")?;
        if from.array() != Some(MAGIC) {
            return Err("it is no snapshot of records");
        }
        if from.array().map(u32::from_le_bytes) != Some(RECORDS_VERSION) {
            return Err("it has another format version");
        }
        if from.array().map(u64::from_le_bytes) != Some(epoch) || from.array() != Some(collection) {
            return Err("it is of another epoch or collection");
        }
        let found = read(&mut from, space).filter(|_| from.is_empty());
        found.ok_or("its parts contradict each other")
    }
}

fn read(from: &mut Source<'_>, space: Space) -> Option<StoredRecords> {
    let mut view = View::new(space);
    view.set_position(from.array().map(u64::from_le_bytes)?);
    let count = from.count(3)?;
    let mut places: Vec<RecordPlace> = Vec::with_capacity(count);
    let (mut offset, mut vector_id, mut changed) = (0u32, 0, 0);
    for _ in 0..count {
        let step = from.number()?;
        offset = offset.checked_add(u32::try_from(step >> 1).ok()?)?;
        (vector_id, changed) = (unzigzag(from.number()?, vector_id), unzigzag(from.number()?, changed));
        if step & 1 == 1 {
            view.set_document(offset, true, false);
        }
        if places.last().is_some_and(|last| last.offset >= offset) || vector_id == 0 {
            return None;
        }
        places.push(RecordPlace { offset, vector_id, changed });
    }
    for _ in 0..from.count(3)? {
        let key = from.text()?;
        view.put_column(key, Column::read(from)?);
    }
    Some(StoredRecords { view, places })
}

/// The difference to another number, small if that is small in either direction.
fn zigzag(number: u64, before: u64) -> u64 {
    let difference = number.wrapping_sub(before).cast_signed();
    ((difference << 1) ^ (difference >> 63)).cast_unsigned()
}

fn unzigzag(number: u64, before: u64) -> u64 {
    before.wrapping_add((number >> 1) ^ (number & 1).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use ochre_model::{Metadata, SparseVector, Value};

    use super::*;

    const HEADER: SnapshotHeader = SnapshotHeader { epoch: 3, collection: [9; 16], position: 77 };

    fn value(rng: &mut fastrand::Rng) -> Value {
        match rng.u8(0..9) {
            0 => Value::Bool(rng.bool()),
            1 => Value::Int(rng.i64(..)),
            2 => Value::Float(rng.f64()),
            3 => Value::Ints((0..rng.u8(0..3)).map(i64::from).collect()),
            4 => Value::Strs(vec!["a".into(), "ä\0".into()]),
            5 => Value::Bools(vec![true]),
            6 => Value::Floats(vec![0.5, -1e300]),
            7 => Value::Sparse(Box::new(SparseVector::new(vec![0, rng.u32(1..)], vec![0.5, -1e30], None).unwrap())),
            _ => Value::Str(format!("text {}", rng.u8(0..50))),
        }
    }

    /// A view of random records in three chunks, some of them changed and deleted.
    fn sample() -> (View, Vec<(u32, u64)>) {
        let (mut view, mut rng) = (View::new(Space::L2), fastrand::Rng::with_seed(4));
        for round in 0..9_000u64 {
            let offset = rng.u32(0..10_000);
            if rng.u8(0..5) == 0 {
                view.remove(offset);
                continue;
            }
            view.set_vector(offset, round + 1, None);
            let mut metadata: Vec<(&str, Value)> = vec![("same", Value::Str("always".into())), ("n", Value::Int(7))];
            if rng.bool() {
                metadata.push(("mixed", value(&mut rng)));
            }
            view.set_metadata(offset, &metadata.into_iter().collect::<Metadata>());
            view.set_document(offset, rng.bool(), true);
        }
        view.set_position(77);
        let changed = view.live().iter().map(|offset| (offset, u64::from(offset * 7919 % 80))).collect();
        (view, changed)
    }

    fn write(view: &View, changed: &[(u32, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        view.write_records(&HEADER, changed, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let (view, changed) = sample();
        let bytes = write(&view, &changed);
        let StoredRecords { view: mut read, places } = View::read_records(&bytes, 3, [9; 16], Space::L2).unwrap();
        assert_eq!(read.position(), 77);
        for (place, (offset, position)) in places.iter().zip(&changed) {
            assert_eq!((place.offset, place.changed), (*offset, *position));
            assert_eq!(Some(place.vector_id), view.vector_id(*offset));
            read.set_vector(place.offset, place.vector_id, None);
        }
        assert!(read.live().iter().eq(view.live().iter()));
        assert!(read.with_document().iter().eq(view.with_document().iter()));
        let counts = |view: &View| {
            let mut counts: Vec<_> = view.keys().map(|(key, counts)| (key.to_owned(), *counts)).collect();
            counts.sort();
            counts
        };
        assert_eq!(counts(&read), counts(&view));
        for offset in 0..10_000 {
            for key in ["same", "n", "mixed"] {
                let of = |view: &View| view.column(key).and_then(|column| column.value(offset));
                assert_eq!(of(&read), of(&view), "{key} of {offset}");
            }
        }
        // It goes on like the one it was written of.
        for view in [&mut read, &mut view.clone()] {
            view.set_metadata(5, &[("mixed", Value::Str("text 3".into()))].into_iter().collect());
            view.remove(6);
        }
        assert_eq!(read.column("mixed").and_then(|column| column.value(5)), Some(Value::Str("text 3".into())));
        assert!(write(&read, &changed_of(&read)).len() <= bytes.len() + 64);
    }

    fn changed_of(view: &View) -> Vec<(u32, u64)> {
        view.live().iter().map(|offset| (offset, 1)).collect()
    }

    #[test]
    fn strings_that_no_record_has_any_more_are_not_written() {
        let mut view = View::new(Space::L2);
        for (offset, text) in (0..).zip(["kept", "sentinel", "also kept"]) {
            view.set_vector(offset, u64::from(offset) + 1, None);
            view.set_value(offset, "key", &Value::Str(text.into()));
        }
        view.remove(1);
        let bytes = write(&view, &changed_of(&view));
        assert!(!bytes.windows(8).any(|window| window == b"sentinel"));
        let read = View::read_records(&bytes, 3, [9; 16], Space::L2).unwrap().view;
        let value = |offset| read.column("key").and_then(|column| column.value(offset));
        let text = |text: &str| Some(Value::Str(text.into()));
        assert_eq!((value(0), value(1), value(2)), (text("kept"), None, text("also kept")));
    }

    #[test]
    fn what_is_damaged_or_of_something_else_is_refused() {
        let (view, changed) = sample();
        let bytes = write(&view, &changed);
        let read = |bytes: &[u8], epoch, collection| View::read_records(bytes, epoch, collection, Space::L2).is_ok();
        assert!(read(&bytes, 3, [9; 16]) && !read(&bytes, 4, [9; 16]) && !read(&bytes, 3, [8; 16]));
        let mut rng = fastrand::Rng::with_seed(8);
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            if rng.bool() {
                damaged.truncate(rng.usize(0..bytes.len()));
            } else {
                damaged[rng.usize(0..bytes.len())] ^= 1 << rng.u8(0..8);
            }
            assert!(!read(&damaged, 3, [9; 16]));
            // Nor is anything believed that merely has the right checksum.
            let end = damaged.len().saturating_sub(4);
            damaged.truncate(end);
            damaged.extend(crc32c::crc32c(&damaged).to_le_bytes());
            let _ = read(&damaged, 3, [9; 16]);
        }
        assert!(view.write_records(&HEADER, &[], &mut Vec::new()).is_err(), "the records of another view");
    }
}
