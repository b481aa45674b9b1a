//! Metadata values as clients send them.

use std::collections::HashMap;
use std::marker::PhantomData;

use ochre_model::{
    Declaration, DeclarationChange, InvalidSparseVector, Metadata, MetadataPatch, SCHEMA_KEY, TEXT_ANALYZER_KEY,
    TextAnalyzer, VALIDATING_PARTY_KEY, VALIDATION_TYPE_KEY, ValidatingParty, ValidationType, Value,
};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value as Json};

use crate::Refused;

/// A value on create and add: anything but null.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue {
    /// A plain value; `None` for an empty list, which is stored as nothing.
    Plain(Option<Value>),
    /// A sparse vector.
    Sparse(SparseVector),
}

/// A value on update and upsert: null removes the key.
#[derive(Clone, Debug, PartialEq)]
pub enum UpdateMetadataValue {
    /// Remove the key.
    Null,
    /// Set it.
    Value(MetadataValue),
}

/// A sparse vector, not checked yet.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct SparseVector {
    /// Strictly ascending.
    pub indices: Vec<u32>,
    /// One for each index.
    pub values: Vec<f32>,
    /// The tokens the indices stand for.
    #[serde(default)]
    pub tokens: Option<Vec<String>>,
}

impl SparseVector {
    /// The vector.
    pub(super) fn into_vector(self) -> Result<ochre_model::SparseVector, InvalidSparseVector> {
        ochre_model::SparseVector::new(self.indices, self.values, self.tokens)
    }
}

fn parse(json: serde_json::Value) -> Option<MetadataValue> {
    if json.get("indices").is_some() {
        return serde_json::from_value(json).ok().map(MetadataValue::Sparse);
    }
    Value::from_json(json).ok().map(MetadataValue::Plain)
}

impl<'de> Deserialize<'de> for MetadataValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse(serde_json::Value::deserialize(deserializer)?)
            .ok_or_else(|| D::Error::custom("data did not match any variant of untagged enum MetadataValue"))
    }
}

impl<'de> Deserialize<'de> for UpdateMetadataValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Null => Ok(Self::Null),
            json => parse(json)
                .map(Self::Value)
                .ok_or_else(|| D::Error::custom("data did not match any variant of untagged enum UpdateMetadataValue")),
        }
    }
}

impl From<MetadataValue> for UpdateMetadataValue {
    fn from(value: MetadataValue) -> Self {
        Self::Value(value)
    }
}

/// The patches of a batch.
pub(crate) fn patches<V: Into<UpdateMetadataValue>>(
    metadatas: Vec<Option<HashMap<String, V>>>,
) -> Result<Vec<Option<MetadataPatch>>, Refused> {
    let patches = metadatas.into_iter().enumerate().map(|(index, metadata)| {
        let invalid = || Refused::Invalid(format!("Validation error: metadatas: Invalid metadata at index {index}"));
        let Some(metadata) = metadata else { return Ok(None) };
        let mut pairs = Vec::with_capacity(metadata.len());
        for (key, value) in metadata {
            match value.into() {
                UpdateMetadataValue::Null => pairs.push((key, None)),
                UpdateMetadataValue::Value(MetadataValue::Plain(Some(value))) => pairs.push((key, Some(value))),
                // An empty list: the key is checked, nothing is stored.
                UpdateMetadataValue::Value(MetadataValue::Plain(None)) => {
                    pairs.push((key, Some(Value::Ints(Vec::new()))))
                }
                UpdateMetadataValue::Value(MetadataValue::Sparse(vector)) => {
                    let vector = vector.into_vector().map_err(|error| {
                        Refused::Invalid(format!(
                            "Validation error: metadatas: Invalid metadata at index {index}: {key}: {error}"
                        ))
                    })?;
                    pairs.push((key, Some(Value::Sparse(Box::new(vector)))));
                }
            }
        }
        MetadataPatch::parse(pairs).map(Some).map_err(|_| invalid())
    });
    patches.collect()
}

/// Keys that begin so are Ochre's own.
const OWN_PREFIX: &str = "ochre:";

/// A collection's metadata as clients send it: the keys that declare a schema or an analyzer may hold any JSON.
#[derive(Clone, Debug)]
pub struct MetadataPayload<V> {
    values: HashMap<String, V>,
    declared: Map<String, Json>,
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for MetadataPayload<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
            type Value = MetadataPayload<V>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut payload = MetadataPayload { values: HashMap::new(), declared: Map::new() };
                while let Some(key) = map.next_key::<String>()? {
                    if key.starts_with(SCHEMA_KEY) || key.starts_with(OWN_PREFIX) {
                        payload.declared.insert(key, map.next_value()?);
                    } else {
                        payload.values.insert(key, map.next_value()?);
                    }
                }
                Ok(payload)
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

impl<V> MetadataPayload<V> {
    /// Whether it has no key at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.declared.is_empty()
    }

    /// What the keys that declare a schema or an analyzer ask for.
    pub(crate) fn declaration(&self, field: &str) -> Result<DeclarationChange, Refused> {
        let mut change = DeclarationChange::default();
        for (key, value) in &self.declared {
            let refused = |text: String| Err(Refused::Invalid(format!("Validation error: {field}: {key}: {text}")));
            let is_removed = value.is_null() || *value == "";
            match key.as_str() {
                SCHEMA_KEY => {
                    change.schema = Some(match value {
                        _ if is_removed || *value == "none" => None,
                        Json::Object(_) | Json::String(_) => Some(value.clone()),
                        other => {
                            return refused(format!("expected an object, or a string that holds one, found {other}"));
                        }
                    });
                }
                VALIDATION_TYPE_KEY => {
                    let mode = value.as_str().and_then(ValidationType::from_name);
                    if mode.is_none() && !is_removed {
                        return refused(format!("expected strict, lax, warn or none, found {value}"));
                    }
                    change.validation_type = Some(mode);
                }
                VALIDATING_PARTY_KEY => {
                    let party = value.as_str().and_then(ValidatingParty::from_name);
                    if party.is_none() && !is_removed {
                        return refused(format!("expected server or both, found {value}"));
                    }
                    change.validating_party = Some(party);
                }
                TEXT_ANALYZER_KEY => {
                    change.text_analyzer = Some(match value {
                        _ if is_removed => None,
                        value => match TextAnalyzer::parse(value) {
                            Ok(analyzer) => Some(analyzer),
                            Err(error) => return refused(error.to_string()),
                        },
                    });
                }
                _ => {
                    return refused(format!(
                        "there are {SCHEMA_KEY}, {VALIDATION_TYPE_KEY}, {VALIDATING_PARTY_KEY} and {TEXT_ANALYZER_KEY}; other keys must not begin like them"
                    ));
                }
            }
        }
        Ok(change)
    }
}

impl MetadataPayload<MetadataValue> {
    /// The metadata, `None` if it consists of nothing but a declaration, and the declaration.
    pub(crate) fn into_parts(self, field: &str) -> Result<(Option<Metadata>, Declaration), Refused> {
        let declaration = self.declaration(field)?.apply(&Declaration::default());
        if self.values.is_empty() && !self.declared.is_empty() {
            return Ok((None, declaration));
        }
        Ok((Some(collection_metadata(field, self.values)?), declaration))
    }
}

impl MetadataPayload<Option<MetadataValue>> {
    /// The metadata that replaces the old; `None` if nothing is left of it.
    pub(crate) fn into_metadata(self, field: &str) -> Result<Option<Metadata>, Refused> {
        let kept: HashMap<_, _> = self.values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        if kept.is_empty() { Ok(None) } else { collection_metadata(field, kept).map(Some) }
    }
}

/// A collection's metadata.
fn collection_metadata(field: &str, metadata: HashMap<String, MetadataValue>) -> Result<Metadata, Refused> {
    let refused = |text: String| Refused::Invalid(format!("Validation error: {field}: {text}"));
    let mut result = Metadata::new();
    if metadata.is_empty() {
        return Err(refused("Metadata cannot be empty".into()));
    }
    for (key, value) in metadata {
        ochre_model::check_key(&key).map_err(|error| refused(error.to_string()))?;
        match value {
            MetadataValue::Plain(Some(value)) => result.set(key, Some(value)),
            MetadataValue::Plain(None) => {}
            MetadataValue::Sparse(_) => {
                return Err(refused(format!("a sparse vector is no collection metadata: {key}")));
            }
        }
    }
    Ok(result)
}
