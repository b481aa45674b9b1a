//! Sparse vectors: numbers under few of very many indices, such as weights of the words of a text.

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the JSON form says that it is.
const TYPE: &str = "sparse_vector";

/// A sparse vector, well-formed by construction. Its JSON form is Chroma's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseVector {
    indices: Vec<u32>,
    values: Vec<f32>,
    tokens: Option<Vec<String>>,
}

/// Why a sparse vector was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSparseVector {
    /// Indices, values and tokens go together.
    #[error("a sparse vector has as many values, and tokens if it has any, as indices: {indices} indices, {values} values{}", tokens.map(|tokens| format!(", {tokens} tokens")).unwrap_or_default())]
    Lengths {
        /// How many indices it has.
        indices: usize,
        /// How many values.
        values: usize,
        /// How many tokens.
        tokens: Option<usize>,
    },
    /// An index is no greater than the one before.
    #[error("the indices of a sparse vector ascend, each once: {0} does not follow {1}")]
    Order(u32, u32),
    /// A value is NaN or infinite.
    #[error("the values of a sparse vector are finite numbers: the one of index {0} is not")]
    NotFinite(u32),
}

impl SparseVector {
    /// A vector of these values under these indices, with the tokens that the indices stand for if they are known.
    ///
    /// # Errors
    /// [`InvalidSparseVector`] if indices do not ascend strictly, lengths differ, or a value is not finite.
    pub fn new(
        indices: Vec<u32>, mut values: Vec<f32>, tokens: Option<Vec<String>>,
    ) -> Result<Self, InvalidSparseVector> {
        let lengths = (values.len(), tokens.as_ref().map_or(values.len(), Vec::len));
        if lengths != (indices.len(), indices.len()) {
            let (indices, values, tokens) = (indices.len(), values.len(), tokens.map(|tokens| tokens.len()));
            return Err(InvalidSparseVector::Lengths { indices, values, tokens });
        }
        if let Some(pair) = indices.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(InvalidSparseVector::Order(pair[1], pair[0]));
        }
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(InvalidSparseVector::NotFinite(indices[place]));
        }
        // One zero, so that equal vectors have equal text.
        values.iter_mut().for_each(|value| *value += 0.0);
        Ok(Self { indices, values, tokens })
    }

    /// The indices, ascending.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The values, one for each index.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The tokens that the indices stand for, one for each, if it has any.
    pub fn tokens(&self) -> Option<&[String]> {
        self.tokens.as_deref()
    }

    /// Each index with its value.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f32)> {
        self.indices.iter().copied().zip(self.values.iter().copied())
    }

    /// How many indices it has.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The same without tokens.
    #[must_use]
    pub fn without_tokens(&self) -> Self {
        Self { indices: self.indices.clone(), values: self.values.clone(), tokens: None }
    }
}

impl Serialize for SparseVector {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("#type", TYPE)?;
        map.serialize_entry("indices", &self.indices)?;
        map.serialize_entry("values", &self.values)?;
        if let Some(tokens) = &self.tokens {
            map.serialize_entry("tokens", tokens)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for SparseVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            #[serde(rename = "#type")]
            ty: Option<String>,
            indices: Vec<u32>,
            values: Vec<f32>,
            tokens: Option<Vec<String>>,
        }
        let Parts { ty, indices, values, tokens } = Parts::deserialize(deserializer)?;
        if let Some(ty) = ty.filter(|ty| ty != TYPE) {
            return Err(D::Error::custom(format!("expected the #type '{TYPE}', found '{ty}'")));
        }
        Self::new(indices, values, tokens).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_sparse_vector_is_refused() {
        let vector = |indices: &[u32], values: &[f32]| SparseVector::new(indices.to_vec(), values.to_vec(), None);
        assert!(vector(&[], &[]).is_ok_and(|vector| vector.is_empty()));
        assert!(matches!(vector(&[1], &[]), Err(InvalidSparseVector::Lengths { .. })));
        assert_eq!(vector(&[1, 1], &[1.0, 2.0]), Err(InvalidSparseVector::Order(1, 1)));
        assert_eq!(vector(&[1, 7], &[1.0, f32::NAN]), Err(InvalidSparseVector::NotFinite(7)));
        assert!(SparseVector::new(vec![1], vec![1.0], Some(Vec::new())).is_err());
        assert!(vector(&[1], &[-0.0]).is_ok_and(|vector| vector.values()[0].is_sign_positive()));
    }
}
