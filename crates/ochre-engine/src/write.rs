//! The way in: checks a request, waits if too much is waiting to be indexed, commits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ochre_model::{Embeddings, Filter, Metadata, MetadataPatch, RecordBatch, Value, WriteKind};
use ochre_store::{Error as StoreError, Idempotency, Operation, Outcome, Selection, Write};
use uuid::Uuid;

use crate::database::Inner;
use crate::error::Error;
use crate::schemas::{RequestJudge, Violations};

/// The largest dimension of an embedding.
const DIMENSION_MAX: usize = 65_535;
/// How often a delete by filter is resolved anew because the collection moved on too far.
const STALE_MAX: usize = 16;

/// Records to add or upsert, put together part by part.
#[derive(Clone, Debug, Default)]
pub struct NewRecords {
    batch: RecordBatch,
    dimensions_differ: bool,
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

    /// Whether its metadata holds a number that no integer of 64 bits is as large as: of larger JSON integers the nearest
    /// float is taken.
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

impl Inner {
    pub(crate) fn write_records(
        &self, id: Uuid, kind: WriteKind, records: NewRecords, idempotency: Option<Idempotency>,
    ) -> Result<(Outcome, Violations), Error> {
        let _visit = self.traffic.visit();
        if records.dimensions_differ {
            return Err(Error::Invalid("Inconsistent dimensions in provided embeddings".into()));
        }
        let mut batch = records.batch;
        check(kind, &batch)?;
        batch.lift_reserved_keys();
        self.wait_for_room(id)?;
        let judge = RequestJudge::new(&self.schemas);
        let operation = Operation::Records { kind, batch };
        let write = Write { collection: id, operation, idempotency, judge: Some(Arc::clone(&judge) as _) };
        if judge.is_costly(&*self.row(id)?) {
            judge.judge_early(|| self.store.preview(&write))?;
        }
        let outcome = self.store.commit(write);
        let reported = judge.conclude(outcome.is_ok()).map_err(Error::Violations)?;
        Ok((outcome?, reported))
    }

    pub(crate) fn delete_records(
        &self, id: Uuid, request: DeleteRequest, idempotency: Option<Idempotency>,
    ) -> Result<Outcome, Error> {
        let _visit = self.traffic.visit();
        let row = self.row(id)?;
        let DeleteRequest { ids, filter, limit } = request;
        if limit.is_some() && filter.is_none() {
            return Err(Error::Invalid(
                "Validation error: limit, where: limit can only be specified when a where clause is provided".into(),
            ));
        }
        let Some(filter) = filter else {
            let ids = ids.unwrap_or_default();
            let operation = Operation::Delete(Selection::Ids(ids));
            return Ok(self.store.commit(Write { collection: id, operation, idempotency, judge: None })?);
        };
        if ids.is_none() && filter.is_without_conditions() {
            return Err(Error::Invalid(
                "the filter holds for every record, since it is a list of no conditions: nothing was deleted; give conditions or ids, or delete the collection".into(),
            ));
        }
        self.check_filterable(&row, &filter)?;
        self.lint(&row, &filter)?;
        let filter = match ids {
            Some(ids) => Filter::All(vec![Filter::Ids(ids.into_iter().collect()), filter]),
            None => filter,
        };
        let mut tries = 0;
        loop {
            let (offsets, at) = self.matching(&row, &filter)?;
            let selection = Selection::Matching { offsets, at, filter: filter.clone(), limit };
            let operation = Operation::Delete(selection);
            match self.store.commit(Write { collection: id, operation, idempotency: idempotency.clone(), judge: None })
            {
                Err(StoreError::Stale { .. }) if tries < STALE_MAX => tries += 1,
                other => return Ok(other?),
            }
        }
    }

    /// Waits while the collection has too many vectors outside its graph, and loads it, so that its index
    /// grows along with it.
    fn wait_for_room(&self, id: Uuid) -> Result<(), Error> {
        let row = self.row(id)?;
        // A collection that cannot be loaded can still be written to: that is how it is repaired.
        let Ok(_) = self.view(&row) else { return Ok(()) };
        let deadline = Instant::now() + Duration::from_millis(self.options.tail_wait_ms);
        loop {
            let surplus = self.keep_within_memory();
            if surplus > 0 && Instant::now() > deadline {
                return Err(Error::MemoryFull { limit_bytes: self.memory_limit() });
            }
            let waiting = self.slot(&row).view().map_or(0, |view| {
                // Without a graph nothing is waiting: all vectors are searched exactly, from sealed segments.
                if view.graph().is_some() { view.tail_len() * row.dimension.unwrap_or(0) * 4 } else { 0 }
            });
            if waiting <= self.options.tail_bytes_max && surplus == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Busy { waiting_bytes: waiting, limit_bytes: self.options.tail_bytes_max });
            }
            self.signals.index(row.number);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What Chroma refuses about the shape of a batch, in its words.
fn check(kind: WriteKind, batch: &RecordBatch) -> Result<(), Error> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    if !batch.is_even() {
        return invalid("Inconsistent number of IDs, embeddings, documents, URIs and metadatas");
    }
    if batch.ids.iter().any(String::is_empty) {
        return invalid("Empty ID, ID must have at least one character");
    }
    match &batch.embeddings {
        None if kind != WriteKind::Update && !batch.ids.is_empty() => {
            return invalid("Validation error: embeddings: every record needs an embedding");
        }
        Some(embeddings) if embeddings.dimension() > DIMENSION_MAX => {
            return Err(Error::Invalid(format!(
                "Validation error: embeddings: {} dimensions are more than the limit of {DIMENSION_MAX}",
                embeddings.dimension()
            )));
        }
        Some(embeddings) => {
            if kind != WriteKind::Update
                && (0..embeddings.len()).any(|index| embeddings.row(index).is_none())
                && embeddings.dimension() > 0
            {
                return invalid("Validation error: embeddings: every record needs an embedding");
            }
            for row in (0..embeddings.len()).filter_map(|index| embeddings.row(index)) {
                if row.is_empty() {
                    return invalid("Validation error: embeddings: Each embedding must have at least 1 dimension");
                }
                if row.iter().any(|x| !x.is_finite()) {
                    return invalid("Validation error: embeddings: Embeddings must not contain NaN or Infinity values");
                }
            }
        }
        None => {}
    }
    Ok(())
}
