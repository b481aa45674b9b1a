//! Searches by rank expressions: the filter becomes a bitmap, each query of the expression a scored set of what passes
//! it, and the expression is evaluated over those sets.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ochre_index::{Hit, Nearest, NearestSparse, Plan, Scores, Strategy, Trace, evaluate_rank, nearest};
use ochre_model::{IndexSchema, Knn, KnnQuery, SparseIndex, budget};
use ochre_store::{CollectionRow, Error as StoreError};

use super::execute::{HIT_BYTES, HITS_MAX, log_decision, with_records};
use super::explain::{Explain, Measurements};
use super::filter::Restriction;
use super::group::grouped;
use super::request::FilterWarnings;
use super::search_request::{Search, SearchHit, SearchRequest, SearchResults};
use super::text::{NOT_SEARCHABLE, nearest_documents};
use crate::collection::snapshot::ReadSnapshot;
use crate::error::{Error, Invalid};
use crate::query::Queries;

/// Groups are made by at most this many keys, and ordered by at most this many.
const GROUP_KEYS_MAX: usize = 16;

/// What passes a filter.
type Matches = Option<ochre_index::Bitmap>;

impl Queries {
    pub(crate) fn search(&self, row: &CollectionRow, request: &SearchRequest) -> Result<SearchResults, Error> {
        let _request = self.monitor.enter();
        let snapshot = self.collections.snapshot(row)?;
        let mut answer = SearchResults { explain: request.explain.then(Vec::new), ..SearchResults::default() };
        for (number, search) in request.searches.iter().enumerate() {
            budget::check()?;
            check(search).map_err(|error| at(number, error))?;
            let answered = self.search_one(row, &snapshot, search, request).map_err(|error| at(number, error))?;
            let FilterWarnings { never_match, unindexed } = answered.warnings;
            for text in never_match {
                if !answer.warnings.never_match.contains(&text) {
                    answer.warnings.never_match.push(text);
                }
            }
            answer.warnings.unindexed = answer.warnings.unindexed.take().or(unindexed);
            answer.results.push(answered.hits);
            if let Some(all) = &mut answer.explain {
                all.extend(answered.explain);
            }
        }
        Ok(answer)
    }

    fn search_one(
        &self, row: &CollectionRow, snapshot: &ReadSnapshot<'_>, search: &Search, request: &SearchRequest,
    ) -> Result<Answered, Error> {
        let mut warnings = self.check_filter(row, search.filter.as_ref())?;
        let began = Instant::now();
        let mut trace = Trace::default();
        let hints = ochre_index::Hints { is_quiet: !request.explain, ..request.hints.clone() };
        if let Some(filter) = &search.filter {
            warnings.unindexed = self.check_indexed(row, &snapshot.view, filter, &hints)?;
        }
        let restriction = Restriction { ids: None, filter: search.filter.as_ref(), hints: &hints };
        // Without scores the first ones do, but to be explained all that pass are needed.
        let matches = match &search.rank {
            None if !request.explain => {
                let enough = search.limit.map_or(usize::MAX, |limit| limit as usize);
                snapshot.first_matches(&restriction, enough.saturating_add(search.offset as usize), &mut trace)?
            }
            _ => snapshot.candidates(&restriction, &mut trace)?,
        };
        let filter_time = began.elapsed();
        let mut plans = Vec::new();
        let found = self.ranked(row, snapshot, search, &matches, request, &mut plans)?;
        let search_time =
            if search.rank.is_some() { began.elapsed().saturating_sub(filter_time) } else { Duration::ZERO };
        let matched = matches.as_ref().unwrap_or_else(|| snapshot.view.live()).len();
        log_decision(row, &trace, search.filter.is_some(), matched, &plans);
        let explain = request.explain.then(|| {
            Explain::new(&Measurements {
                view: &snapshot.view,
                filter: search.filter.as_ref(),
                trace: &trace,
                matched,
                filter_time,
                search_time,
                plans: &plans,
            })
        });
        Ok(Answered { hits: with_selected(snapshot, found, search)?, warnings, explain })
    }

    /// The records of the answer, in its order, with their scores.
    fn ranked(
        &self, row: &CollectionRow, snapshot: &ReadSnapshot<'_>, search: &Search, matches: &Matches,
        request: &SearchRequest, plans: &mut Vec<Plan>,
    ) -> Result<Vec<Hit>, Error> {
        let passing = matches.as_ref().unwrap_or_else(|| snapshot.view.live());
        let limit = search.limit.map_or(usize::MAX, |limit| limit as usize);
        let page = |found: &mut dyn Iterator<Item = (u32, f32)>| {
            let page = found.skip(search.offset as usize).take(limit);
            page.map(|(offset, distance)| Hit { offset, distance }).collect()
        };
        let Some(rank) = &search.rank else { return Ok(page(&mut passing.iter().map(|offset| (offset, 0.0)))) };
        let (mut knns, mut wanted) = (0, 0_usize);
        rank.for_each_knn(&mut |knn| {
            knns += 1;
            wanted = wanted.saturating_add(passing.len().min(knn.limit as usize));
        });
        if wanted > HITS_MAX {
            return Err(Error::invalid_field(
                "rank",
                format!(
                    "its {knns} $knn find {wanted} records, more than the limit of {HITS_MAX} for one search: lower their limits"
                ),
            ));
        }
        budget::charge(wanted.saturating_mul(HIT_BYTES))?;
        let mut number = 0;
        let mut find = |knn: &Knn| {
            number += 1;
            budget::check()?;
            let (mut hits, plan) = self.nearest(row, snapshot, knn, number, matches.as_ref(), request.hint)?;
            if let Some(max_distance) = knn.max_distance {
                hits.retain(|hit| hit.distance <= max_distance);
            }
            plans.push(plan);
            #[expect(clippy::cast_precision_loss, reason = "places are scores, which are floats")]
            let score =
                |(place, hit): (usize, Hit)| (hit.offset, if knn.return_rank { place as f32 } else { hit.distance });
            Ok::<_, Error>(Scores::new(hits.into_iter().enumerate().map(score), knn.default))
        };
        let scores = evaluate_rank(rank, &mut find)?;
        let scored = match scores.default_score().filter(|_| knns == 0) {
            // Nothing of the expression looks at records: it is the same for all.
            Some(score) if search.group_by.is_none() => {
                return Ok(page(&mut passing.iter().map(|offset| (offset, score))));
            }
            Some(score) => {
                budget::charge(passing.len().saturating_mul(HIT_BYTES))?;
                passing.iter().map(|offset| (offset, score)).collect()
            }
            None => scores.into_sorted(),
        };
        let scored = match &search.group_by {
            Some(group_by) => grouped(&snapshot.view, scored, group_by)?,
            None => scored,
        };
        Ok(page(&mut scored.into_iter()))
    }

    /// What a `$knn` finds among `matches`; `number` counts those of the expression from 1.
    fn nearest(
        &self, row: &CollectionRow, snapshot: &ReadSnapshot<'_>, knn: &Knn, number: usize,
        matches: Option<&ochre_index::Bitmap>, hint: Option<Strategy>,
    ) -> Result<(Vec<Hit>, Plan), Error> {
        let k = knn.limit as usize;
        match &knn.query {
            KnnQuery::Embedding(query) => {
                check_query(query, row.dimension, number)?;
                if row.dimension.is_none() {
                    return Ok((Vec::new(), Plan::of(Strategy::Empty, 0)));
                }
                let (ef_search, exact_max) = (row.schema.hnsw().ef_search, self.settings.exact_records_max);
                Ok(nearest(&snapshot.view, Nearest { query, k, ef_search, exact_max, matches, hint })?)
            }
            KnnQuery::Sparse { key, vector } => {
                let Some(SparseIndex { is_bm25 }) = row.schema.sparse_index(key) else {
                    return Err(not_indexed(key, &row.schema, number));
                };
                Ok(snapshot.view.nearest_sparse(&NearestSparse { key, query: vector, is_bm25, k, matches })?)
            }
            KnnQuery::Text(text) => {
                if !row.schema.is_text_searchable() {
                    let text = format!("$knn number {number} searches documents: {NOT_SEARCHABLE}");
                    return Err(Error::invalid_field("rank", text));
                }
                nearest_documents(&self.collections.analyzer(row), snapshot, text, k, matches)
            }
        }
    }
}

/// The answer to one search.
struct Answered {
    hits: Vec<SearchHit>,
    warnings: FilterWarnings,
    explain: Option<Explain>,
}

/// The records with what was selected of them.
fn with_selected(snapshot: &ReadSnapshot<'_>, found: Vec<Hit>, search: &Search) -> Result<Vec<SearchHit>, Error> {
    let (mut include, keys) = (search.select.include, &search.select.keys);
    let is_partial = !include.metadatas && !keys.is_empty();
    include.metadatas |= is_partial;
    let hits = with_records(snapshot, &[found], include)?.pop().unwrap_or_default();
    let keys: HashSet<&str> = keys.iter().map(String::as_str).collect();
    let selected = hits.into_iter().map(|mut hit| {
        if is_partial && let Some(metadata) = hit.record.metadata.take() {
            budget::check()?;
            hit.record.metadata = metadata.only(&keys).map_err(|error| {
                Error::Damaged(format!("the metadata of record '{}' cannot be read: {error}", hit.record.id))
            })?;
        }
        Ok(SearchHit { record: hit.record, score: search.rank.is_some().then_some(hit.distance) })
    });
    selected.collect()
}

/// Says of which search of a request a member is wrong.
fn at(number: usize, error: Error) -> Error {
    match error {
        Error::Invalid(Invalid { field: Some(field), reason }) => {
            Error::invalid(format!("searches[{number}].{field}: {reason}"))
        }
        other => other,
    }
}

fn check(search: &Search) -> Result<(), Error> {
    let mut is_zero = false;
    search.rank.iter().for_each(|rank| rank.for_each_knn(&mut |knn| is_zero |= knn.limit == 0));
    if is_zero {
        return Err(Error::invalid_field("rank", "the limit of a $knn must be at least 1"));
    }
    let Some(group_by) = &search.group_by else { return Ok(()) };
    let invalid = |field, reason: &str| Err(Error::invalid_field(field, reason));
    if search.rank.is_none() {
        return invalid("group_by", "groups are made of scored records: give a rank, too");
    }
    if group_by.keys.is_empty() {
        return invalid("group_by.keys", "give at least one metadata key");
    }
    if group_by.order_by.is_empty() {
        return invalid("group_by.aggregate", "give at least one key, such as #score");
    }
    for (field, count) in [("group_by.keys", group_by.keys.len()), ("group_by.aggregate", group_by.order_by.len())] {
        if count > GROUP_KEYS_MAX {
            let text = format!("{count} keys are more than the limit of {GROUP_KEYS_MAX}: name fewer");
            return Err(Error::invalid_field(field, text));
        }
    }
    if group_by.k == 0 {
        return invalid("group_by.aggregate", "k must be at least 1");
    }
    Ok(())
}

/// Refuses a query that no distance can be taken to; `number` counts the queries of the expression from 1.
fn check_query(query: &[f32], dimension: Option<usize>, number: usize) -> Result<(), Error> {
    let invalid =
        |reason: &str| Err(Error::invalid_field("rank", format!("the query of $knn number {number} {reason}")));
    if query.is_empty() {
        return invalid("has no dimension: give an embedding");
    }
    if query.iter().any(|x| !x.is_finite()) {
        return invalid("must not contain NaN or Infinity values");
    }
    match dimension {
        Some(expected) if expected != query.len() => Err(StoreError::Dimension { expected, got: query.len() }.into()),
        _ => Ok(()),
    }
}

/// The error for a key without an index of sparse vectors.
fn not_indexed(key: &str, schema: &IndexSchema, number: usize) -> Error {
    let keys = schema.sparse_keys();
    let has =
        if keys.is_empty() { "no key has one".to_owned() } else { format!("there is one of {}", keys.join(", ")) };
    Error::invalid_field(
        "rank",
        format!(
            "$knn number {number} searches '{key}', which has no enabled index of sparse vectors ({has}): declare it in the schema with which the collection is created"
        ),
    )
}
