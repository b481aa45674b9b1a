//! Metadata values as clients send them.

use std::collections::HashMap;

use ochre_model::{Metadata, MetadataPatch, Value};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

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

/// A sparse vector: parsed and checked, not served yet.
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
    fn is_valid(&self) -> bool {
        self.indices.len() == self.values.len()
            && self.indices.windows(2).all(|pair| pair[0] < pair[1])
            && self.values.iter().all(|value| value.is_finite())
            && self.tokens.as_ref().is_none_or(|tokens| tokens.len() == self.indices.len())
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
    let mut sparse = None;
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
                UpdateMetadataValue::Value(MetadataValue::Sparse(vector)) if vector.is_valid() => sparse = Some(key),
                UpdateMetadataValue::Value(MetadataValue::Sparse(_)) => return Err(invalid()),
            }
        }
        MetadataPatch::parse(pairs).map(Some).map_err(|_| invalid())
    });
    let patches = patches.collect::<Result<Vec<_>, _>>()?;
    match sparse {
        Some(key) => Err(Refused::Unimplemented(format!(
            "Unimplemented: Sparse vector is not supported for local chroma: {key}. Until sparse vectors are served, use a dense embedding and a where_document filter"
        ))),
        None => Ok(patches),
    }
}

/// A collection's metadata.
pub(crate) fn collection_metadata(field: &str, metadata: HashMap<String, MetadataValue>) -> Result<Metadata, Refused> {
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
