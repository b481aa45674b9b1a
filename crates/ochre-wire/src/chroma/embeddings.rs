//! Embeddings as clients send them: arrays of numbers, or base64 of little-endian `f32`.
//!
//! Read straight into one flat array. What is wrong with the JSON's shape is an error of the parser;
//! what is wrong with the content is kept, and refused when the request is put together.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ochre_model::Embeddings;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::Refused;

/// How many bytes of base64 are decoded at once: whole groups of four characters, and whole numbers.
const DECODED_AT_ONCE: usize = 12 * 256;

/// Embeddings of add and upsert.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingsPayload(Rows);

/// Embeddings of update: entries may be null.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateEmbeddingsPayload(Rows);

#[derive(Clone, Debug, Default, PartialEq)]
struct Rows {
    values: Vec<f32>,
    /// The length of each row; `None` for null.
    lengths: Vec<Option<usize>>,
    /// The first thing wrong with a base64 string.
    problem: Option<String>,
}

impl EmbeddingsPayload {
    /// The embeddings, if they are of one dimension and finite.
    ///
    /// # Errors
    /// [`Refused::Invalid`] in Chroma's words.
    pub fn into_embeddings(self) -> Result<Embeddings, Refused> {
        self.0.into_embeddings()
    }
}

impl UpdateEmbeddingsPayload {
    /// As [`EmbeddingsPayload::into_embeddings`].
    ///
    /// # Errors
    /// [`Refused::Invalid`] in Chroma's words.
    pub fn into_embeddings(self) -> Result<Embeddings, Refused> {
        self.0.into_embeddings()
    }
}

impl Rows {
    fn into_embeddings(self) -> Result<Embeddings, Refused> {
        let invalid = |text: &str| Err(Refused::Invalid(text.to_owned()));
        if let Some(problem) = self.problem {
            return Err(Refused::Invalid(problem));
        }
        let mut lengths = self.lengths.iter().flatten();
        let dimension = lengths.next().copied().unwrap_or(0);
        if self.lengths.iter().flatten().any(|length| *length == 0) {
            return invalid("Validation error: embeddings: Each embedding must have at least 1 dimension");
        }
        if self.values.iter().any(|value| !value.is_finite()) {
            return invalid("Validation error: embeddings: Embeddings must not contain NaN or Infinity values");
        }
        if lengths.any(|length| *length != dimension) {
            return invalid("Inconsistent dimensions in provided embeddings");
        }
        if self.lengths.iter().all(Option::is_some) {
            return Ok(Embeddings::from_rows(dimension, self.values));
        }
        let present: Vec<bool> = self.lengths.iter().map(Option::is_some).collect();
        Ok(Embeddings::from_some_rows(dimension, self.values, &present))
    }

    /// Decodes through a small buffer straight into the array of numbers, never into bytes of its own.
    fn push_base64(&mut self, text: &str) {
        let start = self.values.len();
        self.values.reserve(text.len() / 16 * 3 + 3);
        let mut buffer = [0; DECODED_AT_ONCE];
        let mut decoded = 0;
        let mut pieces = text.as_bytes().chunks(DECODED_AT_ONCE / 3 * 4).peekable();
        while let Some(piece) = pieces.next() {
            let bytes = match STANDARD.decode_slice(piece, &mut buffer) {
                // Only the end of the text may be padded.
                Ok(count) if count == DECODED_AT_ONCE || pieces.peek().is_none() => &buffer[..count],
                _ => return self.note_undecodable(text),
            };
            decoded += bytes.len();
            self.values.extend(bytes.as_chunks::<4>().0.iter().map(|float| f32::from_le_bytes(*float)));
        }
        if decoded % 4 != 0 {
            return self.note(format!(
                "Invalid byte length: {decoded} bytes cannot be converted to f32 values (must be divisible by 4)"
            ));
        }
        if let Some(index) = self.values[start..].iter().position(|value| !value.is_finite()) {
            self.note(format!("Non-finite float value at embedding index {index}: {}", self.values[start + index]));
        }
        self.lengths.push(Some(decoded / 4));
    }

    /// Reports what is wrong at its place in the whole text.
    fn note_undecodable(&mut self, text: &str) {
        if let Err(error) = STANDARD.decode(text) {
            self.note(format!("Invalid base64 string: {error}"));
        }
    }

    fn note(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }
}

/// What an entry of the list was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Numbers,
    Base64,
    Null,
    Bad,
}

impl<'de> Deserialize<'de> for EmbeddingsPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = deserializer.deserialize_any(RowsVisitor { nullable: false })?;
        rows.map(Self)
            .ok_or_else(|| D::Error::custom("data did not match any variant of untagged enum EmbeddingsPayload"))
    }
}

impl<'de> Deserialize<'de> for UpdateEmbeddingsPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = deserializer.deserialize_any(RowsVisitor { nullable: true })?;
        rows.map(Self)
            .ok_or_else(|| D::Error::custom("data did not match any variant of untagged enum UpdateEmbeddingsPayload"))
    }
}

/// Reads the whole list before it is refused (`None`), so that the error points behind it, as Chroma's does.
struct RowsVisitor {
    nullable: bool,
}

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Option<Rows>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of embeddings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Rows>, A::Error> {
        let mut rows = Rows::default();
        let mut form = Entry::Null;
        let mut fits = true;
        while let Some(entry) = seq.next_element_seed(RowSeed(&mut rows))? {
            match entry {
                Entry::Null => fits &= self.nullable,
                Entry::Bad => fits = false,
                entry if form == Entry::Null => form = entry,
                entry => fits &= entry == form,
            }
        }
        Ok(fits.then_some(rows))
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Option<Rows>, E> {
        Ok(None)
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Option<Rows>, E> {
        Ok(None)
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Option<Rows>, E> {
        Ok(None)
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Option<Rows>, E> {
        Ok(None)
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Option<Rows>, E> {
        Ok(None)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Option<Rows>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Rows>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

struct RowSeed<'a>(&'a mut Rows);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Entry;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Entry, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Entry;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an embedding")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entry, A::Error> {
        let start = self.0.values.len();
        let mut fits = true;
        while let Some(Number(value)) = seq.next_element()? {
            match value {
                Some(value) => self.0.values.push(value),
                None => fits = false,
            }
        }
        self.0.lengths.push(Some(self.0.values.len() - start));
        Ok(if fits { Entry::Numbers } else { Entry::Bad })
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Entry, E> {
        self.0.push_base64(text);
        Ok(Entry::Base64)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Entry, E> {
        self.0.lengths.push(None);
        Ok(Entry::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Entry, E> {
        Ok(Entry::Bad)
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Entry, E> {
        Ok(Entry::Bad)
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Entry, E> {
        Ok(Entry::Bad)
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Entry, E> {
        Ok(Entry::Bad)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Entry::Bad)
    }
}

/// A number of a query embedding: as `f32`, infinite if it is too large for one.
#[derive(Clone, Copy, Debug)]
pub struct QueryNumber(pub f32);

impl<'de> Deserialize<'de> for QueryNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[expect(clippy::cast_possible_truncation, reason = "embeddings are f32")]
        f64::deserialize(deserializer).map(|number| Self(number as f32))
    }
}

/// A number as `f32`, or `None` for anything else, consumed.
struct Number(Option<f32>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "embeddings are f32")]
impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number")
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Number, E> {
        Ok(Number(Some(value as f32)))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Number, E> {
        Ok(Number(Some(value as f32)))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Number, E> {
        Ok(Number(Some(value as f32)))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Number, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Number, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Rows {
        let mut rows = Rows::default();
        rows.push_base64(text);
        rows
    }

    #[test]
    fn base64_of_any_length_is_read_as_it_was_written() {
        for count in [0, 1, 2, 3, 767, 768, 769, 1536, 5000] {
            let values: Vec<f32> = (0..count).map(|i| i as f32 * 0.37 - 9.0).collect();
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let rows = read(&STANDARD.encode(bytes));
            assert_eq!((rows.values, rows.lengths, rows.problem), (values, vec![Some(count)], None));
        }
    }

    #[test]
    fn bad_base64_is_refused_wherever_the_fault_is() {
        let good = STANDARD.encode(vec![0; 4 * 2000]);
        for at in [0, 4095, 4096, 9000] {
            for fault in ["*", "="] {
                let mut text = good.clone();
                text.replace_range(at..=at, fault);
                let problem = read(&text).problem.expect("a fault");
                assert!(problem.starts_with("Invalid base64 string: "), "{problem}");
                assert!(problem.contains(&at.to_string()), "{problem}");
            }
        }
        // Padding of its own in the middle, where one piece ends.
        let padded = [&STANDARD.encode(vec![0; 3071]), good.as_str()].concat();
        assert!(read(&padded).problem.is_some());
        let uneven = read(&STANDARD.encode(vec![0; 3075])).problem.expect("not whole numbers");
        assert!(uneven.contains("3075 bytes"), "{uneven}");
    }
}
