//! Metadata: typed values under keys, and their one text form (JSON with sorted keys) in the store.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::sparse::SparseVector;

/// One metadata value. Lists are homogeneous and never empty.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`; not a number.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A finite 64-bit float, never −0.0.
    Float(f64),
    /// Any string, U+0000 included.
    Str(String),
    /// A list of booleans.
    Bools(Vec<bool>),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A list of finite floats.
    Floats(Vec<f64>),
    /// A list of strings.
    Strs(Vec<String>),
    /// A sparse vector, for searches; no filter looks inside.
    Sparse(Box<SparseVector>),
}

/// The type of a [`Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ValueType {
    Bool,
    Int,
    Float,
    Str,
    Bools,
    Ints,
    Floats,
    Strs,
    Sparse,
}

impl ValueType {
    /// Every type, in a fixed order.
    pub const ALL: [Self; 9] = [
        Self::Bool,
        Self::Int,
        Self::Float,
        Self::Str,
        Self::Bools,
        Self::Ints,
        Self::Floats,
        Self::Strs,
        Self::Sparse,
    ];

    /// The type's name, as reports and stored catalogues spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Str => "string",
            Self::Bools => "bool_list",
            Self::Ints => "int_list",
            Self::Floats => "float_list",
            Self::Strs => "string_list",
            Self::Sparse => "sparse_vector",
        }
    }

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.name() == name)
    }
}

impl Value {
    /// This value's type.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::Bool(_) => ValueType::Bool,
            Self::Int(_) => ValueType::Int,
            Self::Float(_) => ValueType::Float,
            Self::Str(_) => ValueType::Str,
            Self::Bools(_) => ValueType::Bools,
            Self::Ints(_) => ValueType::Ints,
            Self::Floats(_) => ValueType::Floats,
            Self::Strs(_) => ValueType::Strs,
            Self::Sparse(_) => ValueType::Sparse,
        }
    }

    /// The value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Bool(b) => (*b).into(),
            Self::Int(i) => (*i).into(),
            Self::Float(f) => (*f).into(),
            Self::Str(s) => s.as_str().into(),
            Self::Bools(list) => list.clone().into(),
            Self::Ints(list) => list.clone().into(),
            Self::Floats(list) => list.clone().into(),
            Self::Strs(list) => list.clone().into(),
            Self::Sparse(vector) => serde_json::to_value(vector).unwrap_or_default(),
        }
    }

    /// How many elements it has; `None` if it is no list.
    pub fn list_len(&self) -> Option<usize> {
        match self {
            Self::Bools(list) => Some(list.len()),
            Self::Ints(list) => Some(list.len()),
            Self::Floats(list) => Some(list.len()),
            Self::Strs(list) => Some(list.len()),
            _ => None,
        }
    }

    /// The value that `json` stands for: `Ok(None)` for an empty list, which is stored as nothing; an error for null,
    /// objects that are no sparse vectors, and mixed lists. Integers outside `i64` become floats; a list that mixes
    /// integers and floats becomes a float list.
    ///
    /// # Errors
    /// [`NotAValue`] for null, other objects, nested and mixed lists.
    pub fn from_json(json: serde_json::Value) -> Result<Option<Self>, NotAValue> {
        use serde_json::Value as Json;
        Ok(Some(match json {
            Json::Bool(b) => Self::Bool(b),
            Json::Number(n) => match n.as_i64() {
                Some(i) => Self::Int(i),
                None => Self::Float(float(&n)?),
            },
            Json::String(s) => Self::Str(s),
            Json::Array(list) => return Self::from_list(list),
            Json::Object(_) => Self::Sparse(serde_json::from_value(json).map_err(|_| NotAValue)?),
            Json::Null => return Err(NotAValue),
        }))
    }

    fn from_list(list: Vec<serde_json::Value>) -> Result<Option<Self>, NotAValue> {
        use serde_json::Value as Json;
        let Some(first) = list.first() else { return Ok(None) };
        Ok(Some(match first {
            Json::Bool(_) => Self::Bools(list.iter().map(|x| x.as_bool().ok_or(NotAValue)).collect::<Result<_, _>>()?),
            Json::String(_) => Self::Strs(
                list.into_iter()
                    .map(|x| if let Json::String(s) = x { Ok(s) } else { Err(NotAValue) })
                    .collect::<Result<_, _>>()?,
            ),
            Json::Number(_) => {
                if let Some(ints) = list.iter().map(Json::as_i64).collect::<Option<Vec<_>>>() {
                    Self::Ints(ints)
                } else {
                    let floats = list.iter().map(|x| if let Json::Number(n) = x { float(n) } else { Err(NotAValue) });
                    Self::Floats(floats.collect::<Result<_, _>>()?)
                }
            }
            Json::Null | Json::Array(_) | Json::Object(_) => return Err(NotAValue),
        }))
    }
}

/// JSON that is no metadata value: null, an object that is no sparse vector, a nested or a mixed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAValue;

fn float(number: &serde_json::Number) -> Result<f64, NotAValue> {
    let float = number.as_f64().filter(|f| f.is_finite()).ok_or(NotAValue)?;
    Ok(float + 0.0) // −0.0 + 0.0 is 0.0: one zero, so equal values have equal text.
}

/// Why metadata was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    /// The key is empty.
    #[error("Metadata key cannot be empty")]
    EmptyKey,
    /// The key starts with a reserved character.
    #[error("Metadata key cannot start with '#' or '$': {0}")]
    ReservedKey(String),
    /// A float is NaN or infinite.
    #[error("Metadata value of key '{0}' must be a finite number")]
    NotFinite(String),
    /// The stored text is not metadata.
    #[error("stored metadata is not valid: {0}")]
    Text(String),
}

/// Checks a metadata key: not empty, and not starting with `#` or `$`.
///
/// # Errors
/// [`InvalidMetadata::EmptyKey`], [`InvalidMetadata::ReservedKey`].
pub fn check_key(key: &str) -> Result<(), InvalidMetadata> {
    match key.as_bytes().first() {
        None => Err(InvalidMetadata::EmptyKey),
        Some(b'#' | b'$') => Err(InvalidMetadata::ReservedKey(key.to_owned())),
        Some(_) => Ok(()),
    }
}

/// A record's (or a collection's) metadata: values by key, sorted by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// No keys at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All keys with their values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Sets or, with `None`, removes a key.
    pub fn set(&mut self, key: String, value: Option<Value>) {
        match value {
            Some(value) => self.0.insert(key, value),
            None => self.0.remove(&key),
        };
    }

    /// Applies a patch: its values replace, its nulls remove, other keys stay.
    pub fn merge(&mut self, patch: &MetadataPatch) {
        for (key, value) in patch.iter() {
            self.set(key.to_owned(), value.cloned());
        }
    }

    /// The canonical text: a JSON object with sorted keys. Equal metadata has equal text.
    pub fn to_text(&self) -> String {
        let pairs = self.0.iter().map(|(key, value)| (key, Written(value)));
        let mut text = Vec::with_capacity(32 * self.0.len() + 2);
        let written = serde_json::Serializer::new(&mut text).collect_map(pairs);
        written.expect("keys are strings, and memory takes all that is written");
        String::from_utf8(text).expect("JSON is written as UTF-8")
    }

    /// Reads what [`Metadata::to_text`] wrote.
    ///
    /// # Errors
    /// [`InvalidMetadata::Text`] if it is anything else.
    pub fn from_text(text: &str) -> Result<Self, InvalidMetadata> {
        let mut pairs = Vec::new();
        Self::visit_text(text, &mut |key, value| pairs.push((key.to_owned(), value)))?;
        Ok(Self(pairs.into_iter().collect()))
    }

    /// Reads the text form without keeping it: calls `visit` for each key with its value.
    ///
    /// # Errors
    /// As [`Metadata::from_text`]; keys before the bad one were visited.
    pub fn visit_text(text: &str, visit: &mut dyn FnMut(&str, Value)) -> Result<(), InvalidMetadata> {
        let failed = |error: serde_json::Error| InvalidMetadata::Text(error.to_string());
        let mut deserializer = serde_json::Deserializer::from_str(text);
        deserializer.deserialize_map(PairsVisitor(visit)).map_err(failed)?;
        deserializer.end().map_err(failed)
    }
}

/// A value that writes itself as JSON.
struct Written<'a>(&'a Value);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bool(b) => to.serialize_bool(*b),
            Value::Int(i) => to.serialize_i64(*i),
            Value::Float(f) => to.serialize_f64(*f),
            Value::Str(s) => to.serialize_str(s),
            Value::Bools(list) => to.collect_seq(list),
            Value::Ints(list) => to.collect_seq(list),
            Value::Floats(list) => to.collect_seq(list),
            Value::Strs(list) => to.collect_seq(list),
            Value::Sparse(vector) => vector.serialize(to),
        }
    }
}

/// Visits the pairs of an object.
struct PairsVisitor<'v>(&'v mut dyn FnMut(&str, Value));

impl<'de> Visitor<'de> for PairsVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of metadata values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let StoredValue(value) = map.next_value()?;
            if let Some(value) = value {
                (self.0)(&key.0, value);
            }
        }
        Ok(())
    }
}

/// A key, borrowed from the text unless it has escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A value as stored; none for an empty list.
struct StoredValue(Option<Value>);

impl<'de> Deserialize<'de> for StoredValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Option<Value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a boolean, number, string, list or sparse vector")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Option<Value>, E> {
                Ok(Some(Value::Bool(value)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Option<Value>, E> {
                Ok(Some(Value::Int(value)))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Option<Value>, E> {
                self.visit_number(value.into())
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Option<Value>, E> {
                let number = serde_json::Number::from_f64(value).ok_or_else(|| E::custom("a number is not finite"))?;
                self.visit_number(number)
            }

            fn visit_str<E>(self, value: &str) -> Result<Option<Value>, E> {
                Ok(Some(Value::Str(value.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Value>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Value::from_list(items).map_err(|NotAValue| serde::de::Error::custom("a list is mixed or nested"))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<Value>, A::Error> {
                SparseVector::deserialize(MapAccessDeserializer::new(map))
                    .map(|vector| Some(Value::Sparse(Box::new(vector))))
            }
        }
        impl ValueVisitor {
            fn visit_number<E: serde::de::Error>(self, number: serde_json::Number) -> Result<Option<Value>, E> {
                let json = serde_json::Value::Number(number);
                Value::from_json(json).map_err(|NotAValue| E::custom("a number is not finite"))
            }
        }
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

impl<K: Into<String>> FromIterator<(K, Value)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

/// A change to metadata: values to set, and `None` for keys to remove. Its keys and floats are checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataPatch(BTreeMap<String, Option<Value>>);

impl MetadataPatch {
    /// Checks every key and value. Empty lists are dropped: they are stored as nothing.
    ///
    /// # Errors
    /// [`InvalidMetadata`] for the first bad key or value.
    pub fn parse(pairs: impl IntoIterator<Item = (String, Option<Value>)>) -> Result<Self, InvalidMetadata> {
        let mut patch = BTreeMap::new();
        for (key, mut value) in pairs {
            check_key(&key)?;
            match &mut value {
                Some(Value::Float(f)) if f.is_finite() => *f += 0.0,
                Some(Value::Float(_)) => return Err(InvalidMetadata::NotFinite(key)),
                Some(Value::Floats(list)) if list.iter().all(|f| f.is_finite()) => {
                    list.iter_mut().for_each(|f| *f += 0.0);
                }
                Some(Value::Floats(_)) => return Err(InvalidMetadata::NotFinite(key)),
                _ => {}
            }
            let empty = match &value {
                Some(Value::Bools(list)) => list.is_empty(),
                Some(Value::Ints(list)) => list.is_empty(),
                Some(Value::Floats(list)) => list.is_empty(),
                Some(Value::Strs(list)) => list.is_empty(),
                _ => false,
            };
            if !empty {
                patch.insert(key, value);
            }
        }
        Ok(Self(patch))
    }

    /// All keys with what to set, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Value>)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_ref()))
    }

    /// Takes a key out of the patch: the outer `None` if it was not in it.
    pub fn take(&mut self, key: &str) -> Option<Option<Value>> {
        self.0.remove(key)
    }

    /// What a new record gets: the values, without the nulls.
    pub fn to_metadata(&self) -> Metadata {
        Metadata(self.0.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect())
    }
}

impl From<Metadata> for MetadataPatch {
    fn from(metadata: Metadata) -> Self {
        Self(metadata.0.into_iter().map(|(key, value)| (key, Some(value))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_types_and_exact_numbers() {
        let metadata: Metadata = [
            ("b", Value::Bool(true)),
            ("i", Value::Int(i64::MAX)),
            ("f", Value::Float(1.0)),
            ("g", Value::Float(0.1 + 0.2)),
            ("s", Value::Str("a\0\"ü\u{2603}".into())),
            ("fl", Value::Floats(vec![1.0, 2.5])),
            ("il", Value::Ints(vec![i64::MIN, 2])),
            ("sl", Value::Strs(vec!["x".into()])),
            ("bl", Value::Bools(vec![true, false])),
            (
                "sv",
                Value::Sparse(Box::new(
                    SparseVector::new(vec![0, 9], vec![0.1, -2.5], Some(vec!["a".into(), "b".into()])).unwrap(),
                )),
            ),
            ("sn", Value::Sparse(Box::default())),
        ]
        .into_iter()
        .collect();
        assert_eq!(Metadata::from_text(&metadata.to_text()), Ok(metadata));
    }

    #[test]
    fn a_patch_sets_removes_and_keeps() {
        let mut metadata: Metadata = [("a", Value::Int(1)), ("b", Value::Int(2))].into_iter().collect();
        let patch = MetadataPatch::parse([("a".into(), None), ("c".into(), Some(Value::Bool(true)))]).unwrap();
        metadata.merge(&patch);
        assert_eq!(metadata.to_text(), r#"{"b":2,"c":true}"#);
    }

    #[test]
    fn negative_zero_is_zero_and_empty_lists_are_nothing() {
        let patch =
            MetadataPatch::parse([("z".into(), Some(Value::Float(-0.0))), ("e".into(), Some(Value::Ints(vec![])))])
                .unwrap();
        assert_eq!(patch.to_metadata().to_text(), r#"{"z":0.0}"#);
    }

    #[test]
    fn bad_keys_and_numbers_are_refused_by_name() {
        let parse = |key: &str, value| MetadataPatch::parse([(key.to_owned(), Some(value))]);
        assert_eq!(parse("", Value::Int(1)), Err(InvalidMetadata::EmptyKey));
        assert_eq!(parse("#a", Value::Int(1)), Err(InvalidMetadata::ReservedKey("#a".into())));
        assert_eq!(parse("x", Value::Float(f64::NAN)), Err(InvalidMetadata::NotFinite("x".into())));
    }
}
