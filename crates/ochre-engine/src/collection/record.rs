//! A record as it is read, and which parts of it are wanted.

use std::collections::HashSet;

use ochre_model::{HIDDEN_PREFIX, InvalidMetadata, Metadata};

/// What a record takes beside its texts, in bytes: as itself, and as JSON.
const RECORD_BYTES: usize = 200;
/// What a float of an embedding takes, in bytes: as itself, and as JSON.
const FLOAT_BYTES: usize = 20;

/// Which parts of records to return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Include {
    pub embeddings: bool,
    pub documents: bool,
    pub metadatas: bool,
    pub uris: bool,
}

impl Include {
    /// Only ids.
    pub const NONE: Self = Self { embeddings: false, documents: false, metadatas: false, uris: false };
    /// Everything.
    pub const ALL: Self = Self { embeddings: true, documents: true, metadatas: true, uris: true };
}

/// Metadata in its stored text form: returned as it is, or parsed when someone looks inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMetadata(String);

impl StoredMetadata {
    /// A JSON object with sorted keys; keys beginning `chroma:` are left out.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Only what is under these keys; `None` if nothing is.
    ///
    /// # Errors
    /// As [`StoredMetadata::parse`].
    pub(crate) fn only(&self, keys: &HashSet<&str>) -> Result<Option<Self>, InvalidMetadata> {
        let metadata = self.parse()?;
        let kept = metadata.iter().filter(|(key, _)| keys.contains(key)).map(|(key, value)| (key, value.clone()));
        let kept: Metadata = kept.collect();
        Ok((!kept.is_empty()).then(|| Self(kept.to_text())))
    }

    /// The values.
    ///
    /// # Errors
    /// [`InvalidMetadata`] if the stored text is damaged.
    pub fn parse(&self) -> Result<Metadata, InvalidMetadata> {
        Metadata::from_text(&self.0)
    }
}

/// A record as read. Parts that were not asked for, or that it does not have, are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Record {
    pub id: String,
    pub embedding: Option<Vec<f32>>,
    pub metadata: Option<StoredMetadata>,
    pub document: Option<String>,
    pub uri: Option<String>,
}

impl Record {
    /// About how many bytes it takes until it is answered: as it is, and as JSON.
    pub(crate) fn answer_bytes(&self) -> usize {
        let texts = [Some(self.id.len()), self.document.as_ref().map(String::len), self.uri.as_ref().map(String::len)];
        let texts: usize = texts.into_iter().flatten().sum();
        let metadata = self.metadata.as_ref().map_or(0, |metadata| metadata.as_json().len());
        let embedding = self.embedding.as_ref().map_or(0, |embedding| embedding.len() * FLOAT_BYTES);
        RECORD_BYTES + (texts + metadata) * 5 / 2 + embedding
    }
}

/// Metadata as clients see it: without hidden keys; empty rather than absent if that hid something.
pub(crate) fn visible(text: Option<&str>, hides_uri: bool) -> Option<StoredMetadata> {
    let empty = || hides_uri.then(|| StoredMetadata("{}".into()));
    let Some(text) = text else { return empty() };
    if !text.contains("\"chroma:") {
        return Some(StoredMetadata(text.to_owned()));
    }
    let Ok(metadata) = Metadata::from_text(text) else { return Some(StoredMetadata(text.to_owned())) };
    let shown: Metadata = metadata
        .iter()
        .filter(|(key, _)| !key.starts_with(HIDDEN_PREFIX))
        .map(|(key, value)| (key, value.clone()))
        .collect();
    Some(StoredMetadata(shown.to_text()))
}
