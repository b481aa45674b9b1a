//! Answering get, query and count, each from one committed state.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ochre_index::{Hints, Hit, Nearest, Plan, Trace, nearest};
use ochre_model::{DOCUMENT_KEY, DocumentTest, Filter, ValueType, budget};
use ochre_store::{CollectionRow, Error as StoreError};

use crate::collection::record::Include;
use crate::collection::snapshot::ReadSnapshot;
use crate::error::Error;
use crate::query::Queries;
use crate::query::explain::{Explain, Measurements};
use crate::query::filter::Restriction;
use crate::query::order::page;
use crate::query::request::{FilterWarnings, GetRequest, GetResults, QueryHit, QueryRequest, QueryResults};

/// Of a request with many query embeddings so many searches are logged.
const LOGGED_PLANS: usize = 3;
/// One answer holds at most this many hits over all its query embeddings.
pub(super) const HITS_MAX: usize = 10_000_000;
/// What a hit takes beside its record, in bytes.
pub(super) const HIT_BYTES: usize = 100;

impl Queries {
    pub(crate) fn count(&self, row: &CollectionRow) -> Result<u64, Error> {
        let _request = self.monitor.enter();
        let head = self.store.read()?.head(row.number)?;
        Ok(head.ok_or_else(|| Error::no_collection(row.id))?.records)
    }

    /// The records that satisfy a request.
    pub(crate) fn get(&self, row: &CollectionRow, request: &GetRequest) -> Result<GetResults, Error> {
        let _request = self.monitor.enter();
        let explained = request.explain;
        let mut warnings = self.check_filter(row, request.filter.as_ref())?;
        let snapshot = self.collections.snapshot(row)?;
        let limit = request.limit.map_or(usize::MAX, |limit| limit as usize);
        let enough = limit.saturating_add(request.offset as usize);
        let began = Instant::now();
        let mut trace = Trace::default();
        let hints = Hints { is_quiet: !explained, ..request.hints.clone() };
        if let (Some(filter), None) = (&request.filter, &request.ids) {
            warnings.unindexed = self.check_indexed(row, &snapshot.view, filter, &hints)?;
        }
        let lookup = Restriction { ids: request.ids.as_deref(), filter: request.filter.as_ref(), hints: &hints };
        let is_sorted = request.is_paged || !request.order_by.is_empty() || request.after.is_some();
        // To be sorted or explained all that pass are needed.
        let enough = if explained || is_sorted { usize::MAX } else { enough };
        let matches = snapshot.first_matches(&lookup, enough, &mut trace)?;
        let filter_time = began.elapsed();
        let passing = matches.as_ref().unwrap_or_else(|| snapshot.view.live());
        let (mut records, mut next) = (Vec::new(), None);
        if is_sorted {
            let page = page(&snapshot.view, passing, request)?;
            let mut sorted = page.offsets.clone();
            sorted.sort_unstable();
            let mut found = HashMap::with_capacity(sorted.len());
            snapshot.fetch(&sorted, request.include, &mut |offset, record| drop(found.insert(offset, record)))?;
            records.extend(page.offsets.iter().filter_map(|offset| found.remove(offset)));
            next = page.next;
            snapshot.check_unchanged(&sorted, request.unchanged_since)?;
        } else {
            let offsets: Vec<u32> = passing.iter().skip(request.offset as usize).take(limit).collect();
            snapshot.check_unchanged(&offsets, request.unchanged_since)?;
            records.reserve(offsets.len());
            snapshot.fetch(&offsets, request.include, &mut |_, record| records.push(record))?;
        }
        let matched = passing.len();
        log_decision(row, &trace, request.filter.is_some(), matched, &[]);
        let (view, filter, search_time) = (&*snapshot.view, request.filter.as_ref(), Duration::ZERO);
        let explain = explained.then(|| {
            Explain::new(&Measurements { view, filter, trace: &trace, matched, filter_time, search_time, plans: &[] })
        });
        Ok(GetResults { records, next, position: snapshot.view.position(), warnings, explain })
    }

    /// What is to be looked at in a filter; an error if it can be answered in no way.
    pub(crate) fn check_filter(&self, row: &CollectionRow, filter: Option<&Filter>) -> Result<FilterWarnings, Error> {
        let Some(filter) = filter else { return Ok(FilterWarnings::default()) };
        self.check_filterable(row, filter)?;
        Ok(FilterWarnings { never_match: self.schemas.lint(row, filter)?, unindexed: None })
    }

    /// The records nearest to each query embedding.
    pub(crate) fn query(&self, row: &CollectionRow, request: &QueryRequest) -> Result<QueryResults, Error> {
        let _request = self.monitor.enter();
        let explained = request.explain;
        let mut warnings = self.check_filter(row, request.filter.as_ref())?;
        let mut answer = QueryResults::default();
        let Some(dimension) = row.dimension else {
            answer.results = vec![Vec::new(); request.query.embeddings.len()];
            answer.warnings = warnings;
            return Ok(answer);
        };
        check_embeddings(&request.query.embeddings, dimension)?;
        let snapshot = self.collections.snapshot(row)?;
        let began = Instant::now();
        let mut trace = Trace::default();
        let hints = Hints { is_quiet: !explained, ..request.hints.clone() };
        if let (Some(filter), None) = (&request.filter, &request.ids) {
            warnings.unindexed = self.check_indexed(row, &snapshot.view, filter, &hints)?;
        }
        let lookup = Restriction { ids: request.ids.as_deref(), filter: request.filter.as_ref(), hints: &hints };
        let matches = snapshot.candidates(&lookup, &mut trace)?;
        let filter_time = began.elapsed();
        let each = request.query.k.min(matches.as_ref().unwrap_or_else(|| snapshot.view.live()).len());
        if request.query.embeddings.len().saturating_mul(each) > HITS_MAX {
            return Err(Error::invalid(format!(
                "{} query embeddings with {each} results each are more than the limit of {HITS_MAX} results in one answer; send fewer at once",
                request.query.embeddings.len()
            )));
        }
        let (ef_search, exact_max) = (row.schema.hnsw().ef_search, self.settings.exact_records_max);
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
            let (mut hits, plan) = nearest(&snapshot.view, wanted)?;
            if let Some(max_distance) = request.max_distance {
                hits.retain(|hit| hit.distance <= max_distance);
            }
            found.push(hits);
            answer.plans.push(plan);
        }
        let matched = matches.as_ref().unwrap_or_else(|| snapshot.view.live()).len();
        log_decision(row, &trace, request.filter.is_some(), matched, &answer.plans);
        if explained {
            answer.explain = Some(Explain::new(&Measurements {
                view: &snapshot.view,
                filter: request.filter.as_ref(),
                trace: &trace,
                matched,
                filter_time,
                search_time: began.elapsed().saturating_sub(filter_time),
                plans: &answer.plans,
            }));
        }
        answer.results = with_records(&snapshot, &found, request.include)?;
        answer.warnings = warnings;
        Ok(answer)
    }

    /// Compares what is in memory of each collection with what is stored, and unloads what differs; what was
    /// found.
    pub(crate) fn compare_views(&self) -> Result<Vec<String>, Error> {
        let loaded: Vec<_> = self.collections.all();
        let mut found = Vec::new();
        for loaded in loaded {
            let (Some(_), Ok(row)) = (loaded.view(), self.collections.catalog.row(loaded.id)) else { continue };
            let snapshot = self.collections.snapshot(&row)?;
            let Some(head) = snapshot.reader.head(row.number)? else { continue };
            let live = snapshot.view.live().len() as u64;
            if live != head.records {
                self.collections.discard(row.number);
                found.push(format!(
                    "collection '{}' had {live} records in memory and has {} on disk; it is read again",
                    row.name, head.records
                ));
            }
        }
        Ok(found)
    }

    /// The records that pass a filter, and the position at which they do.
    pub(crate) fn matching(&self, row: &CollectionRow, filter: &Filter) -> Result<(Vec<u32>, u64), Error> {
        let snapshot = self.collections.snapshot(row)?;
        let matches = snapshot.matches(None, Some(filter))?.unwrap_or_default();
        Ok((matches.iter().collect(), snapshot.view.position()))
    }

    /// Refuses filters on what the collection's schema says is not indexed.
    pub(crate) fn check_filterable(&self, row: &CollectionRow, filter: &Filter) -> Result<(), Error> {
        let mut refused = None;
        filter.for_each_leaf(&mut |leaf| match leaf {
            Filter::Key { key, test } => {
                if let Some(ty) = test.operand_type().filter(|ty| !row.schema.is_filterable(key, *ty)) {
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

/// Refuses embeddings that no distance can be taken to.
fn check_embeddings(embeddings: &[Vec<f32>], dimension: usize) -> Result<(), Error> {
    for (index, embedding) in embeddings.iter().enumerate() {
        if embedding.len() != dimension {
            return Err(StoreError::Dimension { expected: dimension, got: embedding.len() }.into());
        }
        if embedding.iter().any(|x| !x.is_finite()) {
            return Err(Error::invalid_field(
                "query_embeddings",
                format!("embedding {index} must not contain NaN or Infinity values"),
            ));
        }
    }
    Ok(())
}

/// The hits of each query embedding with their records, each of which is read once.
pub(super) fn with_records(
    snapshot: &ReadSnapshot<'_>, found: &[Vec<Hit>], include: Include,
) -> Result<Vec<Vec<QueryHit>>, Error> {
    let mut offsets: Vec<u32> = found.iter().flatten().map(|hit| hit.offset).collect();
    offsets.sort_unstable();
    offsets.dedup();
    let mut records = HashMap::with_capacity(offsets.len());
    snapshot.fetch(&offsets, include, &mut |offset, record| drop(records.insert(offset, record)))?;
    let single = found.len() == 1;
    if !single {
        // Each result has a copy of its own.
        let bytes = found.iter().flatten().filter_map(|hit| Some(records.get(&hit.offset)?.answer_bytes()));
        budget::charge(bytes.fold(0, usize::saturating_add))?;
    }
    Ok(found
        .iter()
        .map(|hits| {
            let hits = hits.iter().filter_map(|hit| {
                let record = if single { records.remove(&hit.offset) } else { records.get(&hit.offset).cloned() };
                Some(QueryHit { record: record?, distance: hit.distance })
            });
            hits.collect()
        })
        .collect())
}

/// For support: how a request was answered, and why indexes were used or not.
pub(super) fn log_decision(row: &CollectionRow, trace: &Trace, has_filter: bool, matched: usize, plans: &[Plan]) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let indexes: Vec<String> = trace
        .considered
        .iter()
        .map(|considered| format!("{}: {}", considered.index, considered.reason.text()))
        .collect();
    let search: Vec<String> = plans.iter().take(LOGGED_PLANS).map(Plan::phrase).collect();
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
