//! A handle on one collection.

use std::sync::Arc;

use ochre_index::{Graph, IndexShape, Memory, View};
use ochre_model::{Filter, WriteKind};
use ochre_schema::{self as schema, MetadataSchema};
use ochre_store::{Alteration, CollectionRow, Head, Idempotency, Outcome};
use uuid::Uuid;

use crate::catalog::CachedRow;
use crate::collection::record::{Include, Record};
use crate::error::Error;
use crate::functions::attached::{AttachedFunction, Function};
use crate::inner::Inner;
use crate::introspect::IntrospectRequest;
use crate::introspect::validate::Validation;
use crate::maintenance::Maintenance;
use crate::metadata_index::definition::IndexDefinition;
use crate::query::request::{FilterWarnings, GetRequest, GetResults, QueryRequest, QueryResults};
use crate::query::search_request::{SearchRequest, SearchResults};
use crate::query::text::TextHit;
use crate::violations::Violations;
use crate::write::conditional::ConditionalCommit;
use crate::write::request::{DeleteRequest, NewRecords};

/// How much of what was written to a collection is indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexingStatus {
    /// How many records were inserted, changed or deleted, each as often as that happened.
    pub operations: u64,
    /// How many of these operations wait for the graph.
    pub unindexed: u64,
}

/// A collection of an open database. Cheap to clone. If the collection is deleted, every call says so.
#[derive(Clone)]
pub struct Collection {
    inner: Arc<Inner>,
    /// What the catalog says of it, kept up to date by commits.
    row: Arc<CachedRow>,
    /// Maintenance goes on for as long as anybody has a handle.
    _maintenance: Option<Arc<Maintenance>>,
}

impl Collection {
    pub(crate) fn new(inner: Arc<Inner>, row: Arc<CachedRow>, maintenance: Option<Arc<Maintenance>>) -> Self {
        Self { inner, row, _maintenance: maintenance }
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.row.id()
    }

    /// What the catalog says of it: name, metadata, configuration, dimension.
    ///
    /// # Errors
    /// [`Error::Store`] if it was deleted.
    pub fn info(&self) -> Result<Arc<CollectionRow>, Error> {
        self.inner.catalog.current(&self.row)
    }

    /// Changes name, metadata or configuration.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, [`Error::Store`] if the name is taken or the collection gone.
    pub fn alter(&self, alteration: Alteration) -> Result<Arc<CollectionRow>, Error> {
        if let Some(name) = &alteration.name {
            ochre_model::check_collection_name(name)
                .map_err(|error| Error::invalid_field("new_name", error.to_string()))?;
        }
        let row = self.inner.catalog.alter(self.id(), alteration)?;
        self.inner.collections.dirty.mark_dirty(row.number);
        Ok(row)
    }

    /// Makes a collection of another name, in the same database, with the same records, metadata, configuration and
    /// schema. Nothing is copied, whatever the size: records and indexes are shared until one of the two changes them.
    /// Metadata indexes that were declared for this collection alone are not declared for the fork.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name; [`Error::Store`] if it is taken, this collection was deleted, or it has 256
    /// forks.
    pub fn fork(&self, name: &str) -> Result<Self, Error> {
        let row = self.inner.catalog.fork(self.id(), name)?;
        self.inner.metadata_indexes.note_new_collection(&row.tenant, &row.database);
        let row = self.inner.catalog.cached(row.id)?;
        Ok(Self { inner: Arc::clone(&self.inner), row, _maintenance: self._maintenance.clone() })
    }

    /// Attaches a function, whose output is kept in a collection that is made for it, by the job `functions`; whether
    /// it was not attached before. A collection has at most one function.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it has another function or there is a collection of the output's name, [`Error::Invalid`]
    /// if it is the output of a function itself, [`Error::Store`].
    pub fn attach_function(
        &self, name: &str, function: Function, output_collection: &str,
    ) -> Result<(AttachedFunction, bool), Error> {
        let row = self.info()?;
        let attached = self.inner.functions.attach(&row, name, function, output_collection)?;
        self.inner.metadata_indexes.note_new_collection(&row.tenant, &row.database);
        Ok(attached)
    }

    /// The function of this name that is attached to it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if none is.
    pub fn attached_function(&self, name: &str) -> Result<AttachedFunction, Error> {
        self.inner.functions.find(self.id(), name)
    }

    /// Detaches a function; its output collection stays as it is.
    ///
    /// # Errors
    /// As [`Collection::attached_function`].
    pub fn detach_function(&self, name: &str) -> Result<AttachedFunction, Error> {
        self.inner.functions.detach(self.id(), name)
    }

    /// How many other collections descend from the same one: its forks, their forks, and what it was forked from.
    ///
    /// # Errors
    /// [`Error::Store`] if it was deleted.
    pub fn fork_count(&self) -> Result<u64, Error> {
        Ok(self.inner.store.count_family(self.info()?.family)?.saturating_sub(1))
    }

    /// Adds records; ids that exist are left as they are, silently. Of an id that stands twice in the
    /// batch the first counts.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad batch, [`Error::Store`] for a wrong dimension or a failing disk. In
    /// either case nothing of the batch is kept.
    pub fn add(&self, records: NewRecords) -> Result<Outcome, Error> {
        self.write(WriteKind::Add, records, None)
    }

    /// Changes existing records: metadata is merged, other parts are replaced where given. Unknown ids
    /// are skipped, silently.
    ///
    /// # Errors
    /// As [`Collection::add`].
    pub fn update(&self, records: NewRecords) -> Result<Outcome, Error> {
        self.write(WriteKind::Update, records, None)
    }

    /// Changes existing records as [`Collection::update`] does and adds the others. Of an id that stands
    /// twice the last counts.
    ///
    /// # Errors
    /// As [`Collection::add`].
    pub fn upsert(&self, records: NewRecords) -> Result<Outcome, Error> {
        self.write(WriteKind::Upsert, records, None)
    }

    /// Any of the three, with an idempotency key if repeating the request must be harmless.
    ///
    /// # Errors
    /// As [`Collection::add`]; also if the key was used for another request.
    pub fn write(&self, kind: WriteKind, records: NewRecords, key: Option<Idempotency>) -> Result<Outcome, Error> {
        self.write_and_report(kind, records, key).map(|(outcome, _)| outcome)
    }

    /// As [`Collection::write`]; also what the records break of the collection's schema and were accepted with.
    ///
    /// # Errors
    /// As [`Collection::write`].
    pub fn write_and_report(
        &self, kind: WriteKind, records: NewRecords, key: Option<Idempotency>,
    ) -> Result<(Outcome, Violations), Error> {
        self.inner.writes.write_records(self.id(), kind, records, key)
    }

    /// Commits several writes as one, if the records that were read before are as they were.
    ///
    /// # Errors
    /// [`Error::Store`] with [`WriteConflict`](crate::StoreError::WriteConflict) if one of them was changed, inserted
    /// or deleted since, and with [`StaleRead`](crate::StoreError::StaleRead) if that cannot be told any more: read
    /// again in either case. [`Error::Invalid`] if two writes name the same id, and as [`Collection::add`]. Nothing is
    /// kept.
    pub fn commit(&self, commit: ConditionalCommit, key: Option<Idempotency>) -> Result<(Outcome, Violations), Error> {
        self.inner.writes.write_conditionally(self.id(), commit, key)
    }

    /// The schema it declares; `None` if it declares none.
    ///
    /// # Errors
    /// [`Error::Store`] if it was deleted, [`Error::InvalidSchema`] if what is stored cannot be used.
    pub fn schema(&self) -> Result<Option<Arc<MetadataSchema>>, Error> {
        Ok(self.inner.schemas.of(&*self.info()?)?)
    }

    /// Finds out what its records look like, whether it declares a schema or not.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::NotFilterable`], [`Error::Damaged`].
    pub fn introspect(&self, request: &IntrospectRequest) -> Result<schema::Report, Error> {
        self.inner.introspection.introspect(&*self.info()?, request)
    }

    /// Validates its records, or a batch that is not written, by a schema, without changing anything.
    ///
    /// # Errors
    /// [`Error::InvalidSchema`], [`Error::Invalid`] if there is no schema to validate by, [`Error::Store`].
    pub fn validate(&self, validation: &Validation) -> Result<schema::Compliance, Error> {
        self.inner.introspection.validate(&*self.info()?, validation)
    }

    /// Deletes records; the outcome says how many.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit without a filter, [`Error::NotFilterable`], [`Error::Store`].
    pub fn delete(&self, request: DeleteRequest) -> Result<Outcome, Error> {
        self.delete_and_report(request, None).map(|(outcome, _)| outcome)
    }

    /// Deletes records, with an idempotency key; also what the filter should be looked at for.
    ///
    /// # Errors
    /// As [`Collection::delete`]; also if the key was used for another request.
    pub fn delete_and_report(
        &self, request: DeleteRequest, key: Option<Idempotency>,
    ) -> Result<(Outcome, FilterWarnings), Error> {
        self.inner.writes.delete_records(self.id(), request, key)
    }

    /// The records that satisfy the request, in the order they were first inserted.
    ///
    /// # Errors
    /// [`Error::NotFilterable`], [`Error::Damaged`], [`Error::Store`].
    pub fn get(&self, request: &GetRequest) -> Result<Vec<Record>, Error> {
        self.get_results(request).map(|results| results.records)
    }

    /// As [`Collection::get`], with what the filter should be looked at for, and how the records were found if that is
    /// asked.
    ///
    /// # Errors
    /// As [`Collection::get`].
    pub fn get_results(&self, request: &GetRequest) -> Result<GetResults, Error> {
        self.inner.queries.get(&*self.info()?, request)
    }

    /// The records nearest to each query embedding: always exactly min(k, matches) of them.
    ///
    /// Distances are in the collection's space: squared units for `l2`, `1 − cos` for `cosine`,
    /// `1 − ⟨a, b⟩` for `ip`. Large collections are searched approximately, through a graph; distances
    /// are exact all the same.
    ///
    /// # Errors
    /// [`Error::Store`] for a wrong dimension, [`Error::Invalid`] for a NaN or infinity,
    /// [`Error::NotFilterable`], [`Error::Damaged`].
    pub fn query(&self, request: &QueryRequest) -> Result<QueryResults, Error> {
        self.inner.queries.query(&*self.info()?, request)
    }

    /// For each search the records that pass its filter, scored by its rank expression, best first: all from one
    /// committed state.
    ///
    /// # Errors
    /// [`Error::Store`] for an embedding of a wrong dimension, [`Error::Invalid`] for a NaN or infinity, a limit of 0
    /// or a group that cannot be made, [`Error::NotFilterable`], [`Error::Unindexed`], [`Error::Damaged`].
    pub fn search(&self, request: &SearchRequest) -> Result<SearchResults, Error> {
        self.inner.queries.search(&*self.info()?, request)
    }

    /// The names of the metadata indexes declared for it.
    ///
    /// # Errors
    /// [`Error::Store`] if it was deleted.
    pub fn metadata_index_names(&self) -> Result<Vec<String>, Error> {
        Ok(self.inner.metadata_indexes.registry.names(self.info()?.number))
    }

    /// An index that does not exist, whatever collection its definition names, for `Hints::hypothetical`: explanations
    /// say what would become of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad definition, [`Error::Store`] if the collection was deleted.
    pub fn hypothetical_index(&self, definition: &IndexDefinition) -> Result<Arc<IndexShape>, Error> {
        self.info()?;
        Ok(Arc::new(definition.shape(Uuid::nil())?))
    }

    /// The records whose documents fit a text best, by their words (BM25): for queries in words where there is no
    /// embedding of them. At most `limit`; only what passes `filter`.
    ///
    /// # Errors
    /// [`Error::NotFilterable`], [`Error::Store`].
    pub fn search_text(
        &self, text: &str, filter: Option<&Filter>, limit: usize, include: Include,
    ) -> Result<Vec<TextHit>, Error> {
        self.inner.queries.search_text(&*self.info()?, text, filter, limit, include)
    }

    /// How many records there are.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn count(&self) -> Result<u64, Error> {
        self.inner.queries.count(&*self.info()?)
    }

    /// The first `limit` records, whole.
    ///
    /// # Errors
    /// As [`Collection::get`].
    pub fn peek(&self, limit: u32) -> Result<Vec<Record>, Error> {
        self.get(&GetRequest { limit: Some(limit), include: Include::ALL, ..GetRequest::default() })
    }

    /// The view, if the collection is in memory. Asking does not bring it there.
    fn loaded_view(&self, row: &CollectionRow) -> Option<Arc<View>> {
        self.inner.collections.loaded_view(row.number)
    }

    /// How many records there are, if the collection is in memory; reading is slower the first time.
    pub fn loaded_records(&self) -> Option<usize> {
        let row = self.info().ok()?;
        self.loaded_view(&row).map(|view| view.live().len())
    }

    /// Bytes of memory it holds.
    ///
    /// # Errors
    /// [`Error::Store`] if it was deleted.
    pub fn memory(&self) -> Result<Memory, Error> {
        let row = self.info()?;
        Ok(self.loaded_view(&row).map_or_else(Memory::default, |view| view.memory()))
    }

    /// How many vectors are in the graph, and how many wait to be. None wait before the collection is first used, nor
    /// while it is so small that it has no need of a graph ([`Options::graph_records_min`](crate::Options)).
    ///
    /// # Errors
    /// [`Error::Store`] if it was deleted.
    pub fn index_progress(&self) -> Result<(usize, usize), Error> {
        let row = self.info()?;
        let records_min = self.inner.settings.graph_records_min;
        let progress = |view: Arc<View>| {
            let waiting = if view.live().len() < records_min { 0 } else { view.pending_len() };
            (view.in_graph().len(), waiting)
        };
        Ok(self.loaded_view(&row).map_or((0, 0), progress))
    }

    /// How much of what was written is indexed. What is not is found all the same, only slower.
    ///
    /// # Errors
    /// [`Error::Store`] if it was deleted.
    pub fn indexing_status(&self) -> Result<IndexingStatus, Error> {
        let head = self.head()?;
        let (_, waiting) = self.index_progress()?;
        Ok(IndexingStatus { operations: head.operations, unindexed: (waiting as u64).min(head.operations) })
    }

    fn head(&self) -> Result<Head, Error> {
        let head = self.inner.store.read()?.head(self.info()?.number)?;
        head.ok_or_else(|| Error::no_collection(self.id()))
    }

    /// How many nodes the graph has, those of replaced and deleted vectors included.
    ///
    /// # Errors
    /// [`Error::Store`] if it was deleted.
    pub fn graph_nodes(&self) -> Result<usize, Error> {
        let row = self.info()?;
        let view = self.loaded_view(&row);
        Ok(view.and_then(|view| view.graph().map(|graph| Graph::len(graph))).unwrap_or(0))
    }
}
