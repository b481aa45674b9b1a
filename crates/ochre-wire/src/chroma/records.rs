//! Bodies of the record routes.

use std::collections::HashMap;

use ochre_model::{Filter, RecordBatch};
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::embeddings::{EmbeddingsPayload, QueryNumber, UpdateEmbeddingsPayload};
use super::filter::{document_filter, metadata_filter};
use super::metadata::{MetadataValue, UpdateMetadataValue, patches};
use super::order::OrderByPayload;
use crate::Refused;

/// Body of add: columns of one length.
#[derive(Debug, Deserialize, ToSchema)]
pub struct AddCollectionRecordsPayload {
    /// One non-empty id per record.
    pub ids: Vec<String>,
    /// One embedding per record: numbers, or base64 of little-endian float32.
    #[schema(value_type = Vec<Vec<f32>>)]
    pub embeddings: EmbeddingsPayload,
    /// One document or null per record.
    pub documents: Option<Vec<Option<String>>>,
    /// One URI or null per record.
    pub uris: Option<Vec<Option<String>>>,
    /// One object or null per record.
    #[schema(value_type = Option<Vec<Option<Object>>>)]
    pub metadatas: Option<Vec<Option<HashMap<String, MetadataValue>>>>,
}

/// Body of upsert: as add, and null values in metadata remove their keys.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UpsertCollectionRecordsPayload {
    /// One non-empty id per record.
    pub ids: Vec<String>,
    /// One embedding per record: numbers, or base64 of little-endian float32.
    #[schema(value_type = Vec<Vec<f32>>)]
    pub embeddings: EmbeddingsPayload,
    /// One document or null per record; null leaves the one there is.
    pub documents: Option<Vec<Option<String>>>,
    /// One URI or null per record; null leaves the one there is.
    pub uris: Option<Vec<Option<String>>>,
    /// Metadata to merge.
    #[schema(value_type = Option<Vec<Option<Object>>>)]
    pub metadatas: Option<Vec<Option<HashMap<String, UpdateMetadataValue>>>>,
}

/// Body of update.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UpdateCollectionRecordsPayload {
    /// The records to change; unknown ids are skipped.
    pub ids: Vec<String>,
    /// New embeddings; null leaves one as it is.
    #[schema(value_type = Option<Vec<Option<Vec<f32>>>>)]
    pub embeddings: Option<UpdateEmbeddingsPayload>,
    /// New documents; null leaves one as it is.
    pub documents: Option<Vec<Option<String>>>,
    /// New URIs; null leaves one as it is.
    pub uris: Option<Vec<Option<String>>>,
    /// Metadata to merge; a null value removes its key.
    #[schema(value_type = Option<Vec<Option<Object>>>)]
    pub metadatas: Option<Vec<Option<HashMap<String, UpdateMetadataValue>>>>,
}

impl AddCollectionRecordsPayload {
    /// The batch.
    ///
    /// # Errors
    /// [`Refused`] for content that Chroma refuses.
    pub fn into_batch(self) -> Result<RecordBatch, Refused> {
        let embeddings = Some(self.embeddings.into_embeddings()?);
        let metadatas = self.metadatas.map(patches).transpose()?;
        Ok(RecordBatch { ids: self.ids, embeddings, metadatas, documents: self.documents, uris: self.uris })
    }
}

impl UpsertCollectionRecordsPayload {
    /// The batch.
    ///
    /// # Errors
    /// [`Refused`] for content that Chroma refuses.
    pub fn into_batch(self) -> Result<RecordBatch, Refused> {
        let embeddings = Some(self.embeddings.into_embeddings()?);
        let metadatas = self.metadatas.map(patches).transpose()?;
        Ok(RecordBatch { ids: self.ids, embeddings, metadatas, documents: self.documents, uris: self.uris })
    }
}

impl UpdateCollectionRecordsPayload {
    /// The batch.
    ///
    /// # Errors
    /// [`Refused`] for content that Chroma refuses.
    pub fn into_batch(self) -> Result<RecordBatch, Refused> {
        let embeddings = self.embeddings.map(UpdateEmbeddingsPayload::into_embeddings).transpose()?;
        let metadatas = self.metadatas.map(patches).transpose()?;
        Ok(RecordBatch { ids: self.ids, embeddings, metadatas, documents: self.documents, uris: self.uris })
    }
}

/// Body of delete.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DeleteCollectionRecordsPayload {
    /// Only these.
    pub ids: Option<Vec<String>>,
    /// Only what passes this filter on metadata.
    #[serde(rename = "where")]
    #[schema(value_type = Option<Object>)]
    pub filter: Option<Json>,
    /// Only what passes this filter on documents.
    #[schema(value_type = Option<Object>)]
    pub where_document: Option<Json>,
    /// At most this many, oldest first; only with a filter.
    pub limit: Option<u32>,
}

/// Body of get.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct GetRequestPayload {
    /// Only these.
    pub ids: Option<Vec<String>>,
    /// Only what passes this filter on metadata.
    #[serde(rename = "where")]
    #[schema(value_type = Option<Object>)]
    pub filter: Option<Json>,
    /// Only what passes this filter on documents.
    #[schema(value_type = Option<Object>)]
    pub where_document: Option<Json>,
    /// At most this many.
    pub limit: Option<u32>,
    /// Skip this many.
    pub offset: Option<u32>,
    /// What to sort by: metadata keys, `#inserted` for the order of insertion, or objects with `key` and `order` (`asc`
    /// or `desc`).
    #[schema(value_type = Option<Vec<Object>>)]
    pub order_by: Option<Vec<OrderByPayload>>,
    /// The `next_cursor` of the page before; empty for the first page.
    pub cursor: Option<String>,
    /// Which columns to return.
    #[serde(default = "IncludeList::get_default")]
    #[schema(value_type = Vec<Include>)]
    pub include: IncludeList,
}

/// Body of query.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct QueryRequestPayload {
    /// The query vectors; each has its own list in the answer.
    #[schema(value_type = Vec<Vec<f32>>)]
    pub query_embeddings: Vec<Vec<QueryNumber>>,
    /// How many to find for each; 10 if absent.
    pub n_results: Option<u32>,
    /// None that are farther.
    #[schema(value_type = Option<f32>)]
    pub max_distance: Option<QueryNumber>,
    /// Only these.
    pub ids: Option<Vec<String>>,
    /// Only what passes this filter on metadata.
    #[serde(rename = "where")]
    #[schema(value_type = Option<Object>)]
    pub filter: Option<Json>,
    /// Only what passes this filter on documents.
    #[schema(value_type = Option<Object>)]
    pub where_document: Option<Json>,
    /// Which columns to return.
    #[serde(default = "IncludeList::query_default")]
    #[schema(value_type = Vec<Include>)]
    pub include: IncludeList,
}

/// A column of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Include {
    Distances,
    Documents,
    Embeddings,
    Metadatas,
    Uris,
}

impl Include {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Distances => "distances",
            Self::Documents => "documents",
            Self::Embeddings => "embeddings",
            Self::Metadatas => "metadatas",
            Self::Uris => "uris",
        }
    }
}

/// Columns in the order they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct IncludeList(pub Vec<Include>);

impl IncludeList {
    fn get_default() -> Self {
        Self(vec![Include::Documents, Include::Metadatas])
    }

    fn query_default() -> Self {
        Self(vec![Include::Documents, Include::Metadatas, Include::Distances])
    }

    /// Whether a column was asked for.
    pub fn has(&self, include: Include) -> bool {
        self.0.contains(&include)
    }
}

/// Both filters as one; `None` if neither is given.
pub(crate) fn both_filters(filter: Option<&Json>, document: Option<&Json>) -> Result<Option<Filter>, Refused> {
    let filter = filter.map(metadata_filter).transpose()?;
    let document = document.map(document_filter).transpose()?;
    Ok(match (filter, document) {
        (Some(filter), Some(document)) => Some(Filter::All(vec![filter, document])),
        (filter, document) => filter.or(document),
    })
}

impl DeleteCollectionRecordsPayload {
    /// Both filters as one.
    ///
    /// # Errors
    /// [`Refused`] for what is no filter.
    pub fn filter(&self) -> Result<Option<Filter>, Refused> {
        both_filters(self.filter.as_ref(), self.where_document.as_ref())
    }
}

impl GetRequestPayload {
    /// Both filters as one.
    ///
    /// # Errors
    /// [`Refused`] for what is no filter.
    pub fn filter(&self) -> Result<Option<Filter>, Refused> {
        both_filters(self.filter.as_ref(), self.where_document.as_ref())
    }
}

impl QueryRequestPayload {
    /// Both filters as one.
    ///
    /// # Errors
    /// [`Refused`] for what is no filter.
    pub fn filter(&self) -> Result<Option<Filter>, Refused> {
        both_filters(self.filter.as_ref(), self.where_document.as_ref())
    }
}
