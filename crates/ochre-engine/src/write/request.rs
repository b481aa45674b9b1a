//! What writes and deletes are asked.

use ochre_model::{Embeddings, Filter, Metadata, MetadataPatch, RecordBatch, Value};

/// Records to add or upsert, put together part by part.
#[derive(Clone, Debug, Default)]
pub struct NewRecords {
    pub(super) batch: RecordBatch,
    pub(super) dimensions_differ: bool,
}

impl NewRecords {
    /// One embedding for each id.
    pub fn new<I, E>(ids: I, embeddings: E) -> Self
    where
        I: IntoIterator<Item: Into<String>>,
        E: IntoIterator<Item: AsRef<[f32]>>,
    {
        let mut records = Self::ids(ids);
        let (mut values, mut dimension) = (Vec::new(), 0);
        for (index, row) in embeddings.into_iter().enumerate() {
            let row = row.as_ref();
            if index == 0 {
                dimension = row.len();
            }
            records.dimensions_differ |= row.len() != dimension;
            values.extend_from_slice(row);
        }
        if !records.dimensions_differ {
            records.batch.embeddings = Some(Embeddings::from_rows(dimension, values));
        }
        records
    }

    /// Whether its metadata holds a number that no integer of 64 bits is as large as: of larger JSON integers the
    /// nearest float is taken.
    pub fn has_numbers_beyond_64_bits(&self) -> bool {
        let is_beyond = |float: &f64| float.abs() >= 2f64.powi(63);
        let patches = self.batch.metadatas.iter().flatten().flatten();
        patches.flat_map(MetadataPatch::iter).any(|(_, value)| match value {
            Some(Value::Float(float)) => is_beyond(float),
            Some(Value::Floats(list)) => list.iter().any(is_beyond),
            _ => false,
        })
    }

    /// Ids alone: for updates that leave embeddings as they are.
    pub fn ids(ids: impl IntoIterator<Item: Into<String>>) -> Self {
        let ids = ids.into_iter().map(Into::into).collect();
        Self { batch: RecordBatch { ids, ..RecordBatch::default() }, dimensions_differ: false }
    }

    /// One document for each id.
    #[must_use]
    pub fn documents(mut self, documents: impl IntoIterator<Item: Into<String>>) -> Self {
        self.batch.documents = Some(documents.into_iter().map(|document| Some(document.into())).collect());
        self
    }

    /// Metadata for each id.
    #[must_use]
    pub fn metadatas(mut self, metadatas: impl IntoIterator<Item = Metadata>) -> Self {
        self.batch.metadatas =
            Some(metadatas.into_iter().map(|metadata| Some(MetadataPatch::from(metadata))).collect());
        self
    }

    /// One URI for each id.
    #[must_use]
    pub fn uris(mut self, uris: impl IntoIterator<Item: Into<String>>) -> Self {
        self.batch.uris = Some(uris.into_iter().map(|uri| Some(uri.into())).collect());
        self
    }
}

impl From<RecordBatch> for NewRecords {
    fn from(batch: RecordBatch) -> Self {
        Self { batch, dimensions_differ: false }
    }
}

/// Which records to delete: those that satisfy everything that is given. Nothing given deletes nothing.
#[derive(Clone, Debug, Default)]
pub struct DeleteRequest {
    /// Only these ids.
    pub ids: Option<Vec<String>>,
    /// Only what passes this.
    pub filter: Option<Filter>,
    /// At most this many, oldest first; only with a filter.
    pub limit: Option<u32>,
}
