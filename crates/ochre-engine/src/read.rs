//! The way out: get and query, each answered from one committed state.
//!
//! A store snapshot is taken first; it names the collection's position, and the view of exactly that
//! position answers together with it.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ochre_index::{Bitmap, Hints, Nearest, Plan, Rows, Strategy, Trace, View, evaluate_with, nearest};
use ochre_model::budget;
use ochre_model::{
    DOCUMENT_KEY, DocumentTest, Filter, HIDDEN_PREFIX, InvalidMetadata, Metadata, Scalar, Test, ValueType,
};
use ochre_store::{CollectionRow, Error as StoreError, Parts, Reader, Resource};

use crate::database::Inner;
use crate::error::Error;
use crate::loaded::{Positions, read_view, read_view_since};
use crate::metadata_indexes::{Explain, Indexes, Measured};

/// Of a request with many query embeddings so many searches are logged.
const LOGGED_PLANS: usize = 3;
/// How often a read starts over because its snapshot was too old for any view that is kept.
const RETRIES_MAX: usize = 100;

/// One answer holds at most this many hits over all its query embeddings.
const HITS_MAX: usize = 10_000_000;

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

/// Which records to get: all that satisfy everything given, in the order they were first inserted.
#[derive(Clone, Debug, Default)]
pub struct GetRequest {
    /// Only these ids; unknown ones are skipped.
    pub ids: Option<Vec<String>>,
    /// Only what passes this.
    pub filter: Option<Filter>,
    /// At most this many.
    pub limit: Option<u32>,
    /// Skip this many first.
    pub offset: u32,
    /// What to return of each.
    pub include: Include,
    /// How declared indexes may be used.
    pub hints: Hints,
}

impl GetRequest {
    /// The records of these ids.
    pub fn of<Id: Into<String>>(ids: impl IntoIterator<Item = Id>) -> Self {
        Self { ids: Some(ids.into_iter().map(Into::into).collect()), ..Self::default() }
    }
}

/// What to search for, and among which records.
#[derive(Clone, Debug)]
pub struct Query {
    /// The query embeddings; each has an answer of its own.
    pub embeddings: Vec<Vec<f32>>,
    /// How many records to find for each; fewer come back only if fewer match.
    pub k: usize,
}

/// A search: [`Query`] plus what restricts and shapes the answer.
#[derive(Clone, Debug)]
pub struct QueryRequest {
    /// What to search for.
    pub query: Query,
    /// Only these ids; unknown ones are ignored.
    pub ids: Option<Vec<String>>,
    /// Only what passes this.
    pub filter: Option<Filter>,
    /// What to return of each record found.
    pub include: Include,
    /// How to search, whatever it costs, as far as that is possible; the planner's choice if absent.
    pub hint: Option<Strategy>,
    /// How declared indexes may be used.
    pub hints: Hints,
}

impl QueryRequest {
    /// The ten records nearest to one embedding, ids and distances only.
    pub fn nearest_to(embedding: impl Into<Vec<f32>>) -> Self {
        let query = Query { embeddings: vec![embedding.into()], k: 10 };
        Self { query, ids: None, filter: None, include: Include::NONE, hint: None, hints: Hints::default() }
    }

    /// How many to find.
    #[must_use]
    pub fn k(mut self, k: usize) -> Self {
        self.query.k = k;
        self
    }

    /// Only what passes this.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// What to return.
    #[must_use]
    pub fn include(mut self, include: Include) -> Self {
        self.include = include;
        self
    }
}

/// A record that a query found.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryHit {
    /// The record.
    pub record: Record,
    /// Its exact distance, in the collection's space. Smaller is nearer.
    pub distance: f32,
}

/// The answer to a query.
#[derive(Clone, Debug, Default)]
pub struct QueryResults {
    /// For each query embedding its hits, nearest first, ties by insertion order.
    pub results: Vec<Vec<QueryHit>>,
    /// How each was found.
    pub plans: Vec<Plan>,
    /// How all of it was found, if that was asked for.
    pub explain: Option<Explain>,
}

/// What restricts a read.
struct Lookup<'a> {
    ids: Option<&'a [String]>,
    filter: Option<&'a Filter>,
    hints: &'a Hints,
}

/// A store snapshot with the view of the same position.
pub(crate) struct Pinned<'a> {
    pub(crate) reader: Box<dyn Reader + 'a>,
    pub(crate) view: Arc<View>,
    pub(crate) number: u32,
    indexes: &'a Indexes,
}

impl Inner {
    /// The current view of a collection, loaded if need be.
    pub(crate) fn view(&self, row: &CollectionRow) -> Result<Arc<View>, Error> {
        let slot = self.slot(row);
        slot.touch();
        let view = match slot.view() {
            Some(view) => view,
            None => {
                self.keep_within_memory();
                self.note_memory_freed();
                let loaded = slot.load(|| self.load_view(row));
                if loaded.is_err() {
                    // Nobody must go on collecting commits for a load that failed.
                    self.loaded.write().remove(&row.number);
                }
                let view = loaded?;
                self.signals.index(row.number);
                if self.show_all_builds(row.number) { slot.view().unwrap_or(view) } else { view }
            }
        };
        Ok(view)
    }

    /// Reads a collection: its records on this thread, its graph meanwhile on another.
    fn load_view(&self, row: &CollectionRow) -> Result<View, Error> {
        let reader = self.store.read()?;
        let records = reader.head(row.number)?.map_or(0, |head| head.records);
        std::thread::scope(|scope| {
            let read_graph = || self.read_graph(row, records);
            let graph = std::thread::Builder::new().spawn_scoped(scope, read_graph);
            let read = self.read_records(row, &*reader);
            let graph = match graph {
                // A snapshot is only a shortcut: whatever went wrong with it was logged.
                Ok(graph) => graph.join().unwrap_or_default(),
                Err(_) => read_graph(),
            };
            let (mut view, positions) = read?;
            self.load_text(row, &mut view, &positions);
            self.load_indexes(row, &mut view, &positions);
            if let Some(graph) = graph {
                view.set_graph(Some(graph));
            }
            Ok(view)
        })
    }

    /// The records of a collection that is being loaded: from their snapshot and what changed since, or all of them.
    fn read_records(&self, row: &CollectionRow, reader: &dyn Reader) -> Result<(View, Positions), Error> {
        let space = row.schema.hnsw().space;
        if let Some(stored) = self.snapshots.read_records(self.store.epoch(), row.id, space) {
            let position = stored.view.position();
            if let Some((view, positions, changed)) = read_view_since(reader, row, stored)? {
                tracing::info!(collection = row.name, position, changed, "loaded records from their snapshot");
                self.slot(row).note_changes(changed as u64);
                self.signals.remember(row.number, |remembered| {
                    (remembered.records, remembered.records_position) = (0, position);
                });
                return Ok((view, positions));
            }
            self.snapshots.remove_records(row.id);
        }
        // What was remembered is of a snapshot that is gone, and of changes counted before this load.
        self.signals.remember(row.number, |remembered| (remembered.records, remembered.records_position) = (0, 0));
        read_view(reader, row)
    }

    pub(crate) fn pin(&self, row: &CollectionRow) -> Result<Pinned<'_>, Error> {
        self.keep_within_memory();
        for _ in 0..RETRIES_MAX {
            self.view(row)?;
            let reader = self.store.read()?;
            let head = reader.head(row.number)?.ok_or_else(|| Error::no_collection(row.id))?;
            if let Some(view) = self.slot(row).view_at(head.position) {
                return Ok(Pinned { reader, view, number: row.number, indexes: &self.indexes });
            }
        }
        Err(Error::Store(StoreError::Limit(format!(
            "collection '{}' changes faster than it can be read; try again",
            row.name
        ))))
    }

    pub(crate) fn count(&self, row: &CollectionRow) -> Result<u64, Error> {
        let _visit = self.traffic.visit();
        let head = self.store.read()?.head(row.number)?;
        Ok(head.ok_or_else(|| Error::no_collection(row.id))?.records)
    }

    /// The records that satisfy a request; with `explained`, also how they were found.
    pub(crate) fn get(
        &self, row: &CollectionRow, request: &GetRequest, explained: bool,
    ) -> Result<(Vec<Record>, Option<Explain>), Error> {
        let _visit = self.traffic.visit();
        if let Some(filter) = &request.filter {
            self.check_filterable(row, filter)?;
            self.lint(row, filter)?;
        }
        let pinned = self.pin(row)?;
        let limit = request.limit.map_or(usize::MAX, |limit| limit as usize);
        let enough = limit.saturating_add(request.offset as usize);
        let began = Instant::now();
        let mut trace = Trace::default();
        let hints = Hints { is_quiet: !explained, ..request.hints.clone() };
        if let (Some(filter), None) = (&request.filter, &request.ids) {
            self.check_indexed(row, &pinned.view, filter, &hints)?;
        }
        let lookup = Lookup { ids: request.ids.as_deref(), filter: request.filter.as_ref(), hints: &hints };
        // To be explained all that pass are needed.
        let enough = if explained { usize::MAX } else { enough };
        let matches = pinned.first_matches(&lookup, enough, &mut trace)?;
        let filter_time = began.elapsed();
        let offsets = matches.as_ref().unwrap_or_else(|| pinned.view.live()).iter();
        let offsets: Vec<u32> = offsets.skip(request.offset as usize).take(limit).collect();
        let mut records = Vec::with_capacity(offsets.len());
        pinned.fetch(&offsets, request.include, &mut |_, record| records.push(record))?;
        let matched = matches.as_ref().unwrap_or_else(|| pinned.view.live()).len();
        log_decision(row, &trace, request.filter.is_some(), matched, &[]);
        let (view, filter, search_time) = (&*pinned.view, request.filter.as_ref(), Duration::ZERO);
        let explain = explained.then(|| {
            Explain::new(&Measured { view, filter, trace: &trace, matched, filter_time, search_time, plans: &[] })
        });
        Ok((records, explain))
    }

    /// The records nearest to each query embedding; with `explained`, also how they were found.
    pub(crate) fn query(
        &self, row: &CollectionRow, request: &QueryRequest, explained: bool,
    ) -> Result<QueryResults, Error> {
        let _visit = self.traffic.visit();
        if let Some(filter) = &request.filter {
            self.check_filterable(row, filter)?;
            self.lint(row, filter)?;
        }
        let mut answer = QueryResults::default();
        let Some(dimension) = row.dimension else {
            answer.results = vec![Vec::new(); request.query.embeddings.len()];
            return Ok(answer);
        };
        for (index, embedding) in request.query.embeddings.iter().enumerate() {
            if embedding.len() != dimension {
                return Err(StoreError::Dimension { expected: dimension, got: embedding.len() }.into());
            }
            if embedding.iter().any(|x| !x.is_finite()) {
                return Err(Error::Invalid(format!(
                    "Validation error: query_embeddings: embedding {index} must not contain NaN or Infinity values"
                )));
            }
        }
        let pinned = self.pin(row)?;
        let began = Instant::now();
        let mut trace = Trace::default();
        let hints = Hints { is_quiet: !explained, ..request.hints.clone() };
        if let (Some(filter), None) = (&request.filter, &request.ids) {
            self.check_indexed(row, &pinned.view, filter, &hints)?;
        }
        let lookup = Lookup { ids: request.ids.as_deref(), filter: request.filter.as_ref(), hints: &hints };
        let matches = pinned.look_up(&lookup, &mut trace)?;
        let filter_time = began.elapsed();
        let each = request.query.k.min(matches.as_ref().unwrap_or_else(|| pinned.view.live()).len());
        if request.query.embeddings.len().saturating_mul(each) > HITS_MAX {
            return Err(Error::Invalid(format!(
                "{} query embeddings with {each} results each are more than the limit of {HITS_MAX} results in one answer; send fewer at once",
                request.query.embeddings.len()
            )));
        }
        let (ef_search, exact_max) = (row.schema.hnsw().ef_search, self.options.exact_records_max);
        let mut found = Vec::with_capacity(request.query.embeddings.len());
        budget::charge(request.query.embeddings.len().saturating_mul(each).saturating_mul(HIT_BYTES))?;
        for embedding in &request.query.embeddings {
            budget::check()?;
            let wanted = Nearest {
                query: embedding,
                k: request.query.k,
                ef_search,
                exact_max,
                matches: matches.as_ref(),
                hint: request.hint,
            };
            let (hits, plan) = nearest(&pinned.view, wanted)?;
            found.push(hits);
            answer.plans.push(plan);
        }
        let matched = matches.as_ref().unwrap_or_else(|| pinned.view.live()).len();
        log_decision(row, &trace, request.filter.is_some(), matched, &answer.plans);
        if explained {
            answer.explain = Some(Explain::new(&Measured {
                view: &pinned.view,
                filter: request.filter.as_ref(),
                trace: &trace,
                matched,
                filter_time,
                search_time: began.elapsed().saturating_sub(filter_time),
                plans: &answer.plans,
            }));
        }
        let mut offsets: Vec<u32> = found.iter().flatten().map(|hit| hit.offset).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let mut records = HashMap::with_capacity(offsets.len());
        pinned.fetch(&offsets, request.include, &mut |offset, record| drop(records.insert(offset, record)))?;
        let single = request.query.embeddings.len() == 1;
        if !single {
            // Each result has a copy of its own.
            let bytes = found.iter().flatten().filter_map(|hit| Some(records.get(&hit.offset)?.answer_bytes()));
            budget::charge(bytes.fold(0, usize::saturating_add))?;
        }
        answer.results = found
            .iter()
            .map(|hits| {
                let hits = hits.iter().filter_map(|hit| {
                    let record = if single { records.remove(&hit.offset) } else { records.get(&hit.offset).cloned() };
                    Some(QueryHit { record: record?, distance: hit.distance })
                });
                hits.collect()
            })
            .collect();
        Ok(answer)
    }

    /// Compares what is in memory of each collection with what is stored, and unloads what differs; what was
    /// found.
    pub(crate) fn compare_views(&self) -> Result<Vec<String>, Error> {
        let loaded: Vec<_> = self.loaded.read().values().cloned().collect();
        let mut found = Vec::new();
        for loaded in loaded {
            let (Some(_), Ok(row)) = (loaded.view(), self.row(loaded.id)) else { continue };
            let pinned = self.pin(&row)?;
            let Some(head) = pinned.reader.head(row.number)? else { continue };
            let live = pinned.view.live().len() as u64;
            if live != head.records {
                self.loaded.write().remove(&row.number);
                found.push(format!(
                    "collection '{}' had {live} records in memory and has {} on disk; it is read anew",
                    row.name, head.records
                ));
            }
        }
        Ok(found)
    }

    /// The records that pass a filter, and the position at which they do.
    pub(crate) fn matching(&self, row: &CollectionRow, filter: &Filter) -> Result<(Vec<u32>, u64), Error> {
        let pinned = self.pin(row)?;
        let matches = pinned.matches(None, Some(filter))?.unwrap_or_default();
        Ok((matches.iter().collect(), pinned.view.position()))
    }

    /// Refuses filters on what the collection's schema says is not indexed.
    pub(crate) fn check_filterable(&self, row: &CollectionRow, filter: &Filter) -> Result<(), Error> {
        let mut refused = None;
        filter.for_each_leaf(&mut |leaf| match leaf {
            Filter::Key { key, test } => {
                let ty = operand_type(test);
                if !row.schema.is_filterable(key, ty) {
                    let ty = match ty {
                        ValueType::Str => "Str",
                        ValueType::Int => "Int",
                        ValueType::Float => "Float",
                        _ => "Bool",
                    };
                    refused.get_or_insert_with(|| {
                        format!(
                            "Cannot filter using metadata key '{key}' with type '{ty}' because indexing is disabled"
                        )
                    });
                }
            }
            Filter::Document(test) if !row.schema.is_text_searchable() => {
                refused.get_or_insert_with(|| match test {
                    DocumentTest::Is(_) | DocumentTest::IsNot(_) => {
                        format!("Cannot filter using metadata key '{DOCUMENT_KEY}' because indexing is disabled")
                    }
                    _ => "Cannot filter using full-text search because FTS indexing is disabled".into(),
                });
            }
            _ => {}
        });
        refused.map_or(Ok(()), |text| Err(Error::NotFilterable(text)))
    }
}

/// For support: how a request was answered, and why indexes were used or not.
fn log_decision(row: &CollectionRow, trace: &Trace, has_filter: bool, matched: usize, plans: &[Plan]) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let indexes: Vec<String> = trace
        .considered
        .iter()
        .map(|considered| format!("{}: {}", considered.index, considered.reason.text()))
        .collect();
    let search: Vec<String> = plans
        .iter()
        .take(LOGGED_PLANS)
        .map(|plan| {
            let Plan { strategy, visited, scanned, measured, .. } = plan;
            format!("{strategy:?}: {visited} nodes visited, {scanned} codes scanned, {measured} vectors measured")
        })
        .collect();
    tracing::debug!(
        collection = row.name,
        has_filter,
        matched,
        by_trigram = trace.by_trigram,
        by_column = trace.by_column,
        by_document = trace.by_document,
        indexes = indexes.join("; "),
        search = search.join("; "),
        "planned a read"
    );
}

fn operand_type(test: &Test) -> ValueType {
    match test {
        Test::Eq(operand)
        | Test::Ne(operand)
        | Test::Compare(_, operand)
        | Test::Contains(operand)
        | Test::NotContains(operand) => operand.value_type(),
        Test::In(list) | Test::NotIn(list) => list.first().map_or(ValueType::Str, Scalar::value_type),
    }
}

impl Pinned<'_> {
    /// What passes; `None` if nothing restricts.
    pub(crate) fn matches(&self, ids: Option<&[String]>, filter: Option<&Filter>) -> Result<Option<Bitmap>, Error> {
        let hints = Hints { is_quiet: true, ..Hints::default() };
        self.look_up(&Lookup { ids, filter, hints: &hints }, &mut Trace::default())
    }

    /// As [`Pinned::matches`], with hints, and saying what it took.
    fn look_up(&self, lookup: &Lookup<'_>, trace: &mut Trace) -> Result<Option<Bitmap>, Error> {
        let Lookup { ids, filter, hints } = *lookup;
        if ids.is_none() && filter.is_none() {
            return Ok(None);
        }
        let mut candidates = self.view.live().clone();
        if let Some(ids) = ids {
            let offsets = self.reader.offsets(self.number, &mut ids.iter().map(String::as_str))?;
            candidates = candidates.and(&offsets.into_iter().collect());
        }
        match filter {
            None => Ok(Some(candidates)),
            Some(filter) => self.evaluate(filter, &candidates, hints, trace).map(Some),
        }
    }

    /// Evaluates a filter, and notes what it used and took.
    fn evaluate(
        &self, filter: &Filter, candidates: &Bitmap, hints: &Hints, trace: &mut Trace,
    ) -> Result<Bitmap, Error> {
        let began = Instant::now();
        let passed = evaluate_with(filter, &self.view, candidates, &mut ReaderRows(self), hints, trace)?;
        let by_index = trace.coverage.is_some();
        if by_index {
            self.indexes.used(self.number, &trace.considered, passed.len());
        }
        let (matched, records) = (passed.len(), candidates.len());
        self.indexes.workload().note(self.number, filter, began.elapsed(), matched, records, by_index);
        Ok(passed)
    }

    /// As [`Pinned::matches`], but maybe only the first ones, if those are `enough`: documents are read from
    /// the front, in steps that double.
    fn first_matches(&self, lookup: &Lookup<'_>, enough: usize, trace: &mut Trace) -> Result<Option<Bitmap>, Error> {
        let reading = lookup.filter.filter(|filter| filter.reads_documents() && enough < self.view.live().len());
        let Some(filter) = reading else { return self.look_up(lookup, trace) };
        let candidates = self.matches(lookup.ids, None)?;
        let candidates = candidates.as_ref().unwrap_or_else(|| self.view.live());
        let (mut passed, mut done, mut step) = (Bitmap::new(), 0, 1);
        while done < candidates.chunk_count() && passed.len() < enough {
            let part = candidates.within(done..done + step);
            if !part.is_empty() {
                passed =
                    passed.or(&evaluate_with(filter, &self.view, &part, &mut ReaderRows(self), lookup.hints, trace)?);
            }
            (done, step) = (done + step, step * 2);
        }
        Ok(Some(passed))
    }

    pub(crate) fn fetch(
        &self, offsets: &[u32], include: Include, visit: &mut dyn FnMut(u32, Record),
    ) -> Result<(), Error> {
        let parts =
            Parts { metadata: include.metadatas, document: include.documents, uri: include.uris || include.metadatas };
        let mut damaged = None;
        let mut seen = 0;
        self.reader.rows(self.number, offsets, parts, &mut |row| {
            seen += 1;
            if let Err(exceeded) = budget::check() {
                damaged = Some(exceeded.into());
                return ControlFlow::Break(());
            }
            let embedding = if include.embeddings {
                match self.view.vector(row.offset) {
                    Ok((vector, _)) => Some(vector.to_vec()),
                    Err(error) => {
                        damaged = Some(Error::Damaged(format!(
                            "the embedding of record '{}' cannot be read: {error}",
                            row.id
                        )));
                        return ControlFlow::Break(());
                    }
                }
            } else {
                None
            };
            let record = Record {
                id: row.id.to_owned(),
                embedding,
                metadata: if include.metadatas { visible(row.metadata, row.uri.is_some()) } else { None },
                document: row.document.map(str::to_owned),
                uri: row.uri.filter(|_| include.uris).map(str::to_owned),
            };
            if let Err(exceeded) = budget::charge(record.answer_bytes()) {
                damaged = Some(exceeded.into());
                return ControlFlow::Break(());
            }
            visit(row.offset, record);
            ControlFlow::Continue(())
        })?;
        match damaged {
            Some(error) => Err(error),
            // The view and the rows are of one position, so this would be a bug or damage, never a race.
            None if seen != offsets.len() => Err(Error::Damaged(format!(
                "{} of {} records are missing from the database",
                offsets.len() - seen,
                offsets.len()
            ))),
            None => Ok(()),
        }
    }
}

/// Metadata as clients see it: without hidden keys; empty rather than absent if that hid something.
fn visible(text: Option<&str>, hides_uri: bool) -> Option<StoredMetadata> {
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

/// Documents that are asked of the store in one step.
const DOCUMENTS_AT_ONCE: usize = 1024;
/// After so many bytes of documents it is asked whether to go on.
const BYTES_BETWEEN_QUESTIONS: usize = 16 << 10;
/// What a hit takes beside its record, in bytes.
const HIT_BYTES: usize = 100;
/// What a record takes beside its texts, in bytes: as itself, and as JSON.
const RECORD_BYTES: usize = 200;
/// What a float of an embedding takes, in bytes: as itself, and as JSON.
const FLOAT_BYTES: usize = 20;

impl Record {
    /// About how many bytes it takes until it is answered: as it is, and as JSON.
    fn answer_bytes(&self) -> usize {
        let texts = [Some(self.id.len()), self.document.as_ref().map(String::len), self.uri.as_ref().map(String::len)];
        let texts: usize = texts.into_iter().flatten().sum();
        let metadata = self.metadata.as_ref().map_or(0, |metadata| metadata.as_json().len());
        let embedding = self.embedding.as_ref().map_or(0, |embedding| embedding.len() * FLOAT_BYTES);
        RECORD_BYTES + (texts + metadata) * 5 / 2 + embedding
    }
}

struct ReaderRows<'a, 'b>(&'a Pinned<'b>);

impl Rows for ReaderRows<'_, '_> {
    type Error = Error;

    fn documents(&mut self, offsets: &Bitmap, visit: &mut dyn FnMut(u32, &str)) -> Result<(), Error> {
        let offsets: Vec<u32> = offsets.iter().collect();
        for part in offsets.chunks(DOCUMENTS_AT_ONCE) {
            // One document can take long, so it is asked after some bytes; the rest of the part is then passed over.
            let (mut asked, mut bytes) = (budget::check(), 0);
            self.0.reader.documents(self.0.number, part, &mut |offset, document| {
                if asked.is_ok() {
                    visit(offset, document);
                    bytes += document.len();
                    if bytes >= BYTES_BETWEEN_QUESTIONS {
                        (asked, bytes) = (budget::check(), 0);
                    }
                }
            })?;
            asked?;
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<(), Error> {
        Ok(budget::check()?)
    }

    fn offsets(&mut self, ids: &HashSet<String>) -> Result<Bitmap, Error> {
        let offsets = self.0.reader.offsets(self.0.number, &mut ids.iter().map(String::as_str))?;
        Ok(offsets.into_iter().collect())
    }
}

impl Error {
    /// Whether this says that something does not exist, and what.
    pub fn not_found(&self) -> Option<(Resource, &str)> {
        match self {
            Self::Store(StoreError::NotFound { kind, name }) => Some((*kind, name)),
            _ => None,
        }
    }
}
