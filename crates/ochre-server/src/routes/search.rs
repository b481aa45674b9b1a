//! Search by rank expressions: several searches a request, answered from one state of the collection.

use axum::extract::{Path, State};
use axum::response::Response;
use ochre_engine::model::{Filter, KnnQuery};
use ochre_engine::{Collection, Database, Include, Search, SearchHit, SearchRequest, Select};
use ochre_extension::{Access, Description, Permission};
use ochre_wire::{SearchPayload, SearchRequestPayload, Selected, search_response};

use super::explain::explained_each;
use super::planning::{PLANNING, Planning, RowView, is_short, json_bytes, with_warnings};
use super::served::Served;
use crate::app::App;
use crate::body::{JsonBytes, Query};
use crate::error::ApiError;
use crate::paths::{CollectionPath, collection, collection_in_memory, not_found_as};

pub(super) fn operations() -> Vec<Served> {
    vec![Served::new(
        Description::post(
            "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/search",
            "Find records by rank expressions: scored, filtered, grouped",
            Access::Scope(Permission::RecordRead),
        )
        .takes("SearchRequestPayload")
        .query(PLANNING),
        search,
    )]
}

async fn search(
    State(app): State<App>, Path(path): Path<CollectionPath>, Query(planning): Query<Planning>, body: JsonBytes,
) -> Result<Response, ApiError> {
    if !body.is_small() {
        let work = move |database: &Database| {
            let searches = parsed(&body)?;
            execute(&collection(database, &path)?, &path, searches, &planning)
        };
        return app.run_read(work).await;
    }
    let searches = parsed(&body)?;
    let known = collection_in_memory(app.database(), &path)?;
    let is_short = searches.iter().all(|(search, _)| {
        let (knns, most) = extent(search);
        is_short(known.as_ref(), search.filter.as_ref(), searches.len() * knns, most)
    });
    let work = move |database: &Database| {
        let collection = known.map_or_else(|| collection(database, &path), Ok)?;
        execute(&collection, &path, searches, &planning)
    };
    if is_short { app.run_short_read(work).await } else { app.run_read(work).await }
}

/// How many queries a search has, and how many records each of them finds at most, or the search without any.
fn extent(search: &Search) -> (usize, usize) {
    let (mut knns, mut most) = (0, 0_usize);
    search.rank.iter().for_each(|rank| {
        rank.for_each_knn(&mut |knn| {
            knns += 1;
            // Postings of sparse vectors may have to be made first, and documents to be analyzed.
            let is_vector = matches!(knn.query, KnnQuery::Embedding(_));
            most = most.max(if is_vector { knn.limit as usize } else { usize::MAX });
        });
    });
    // Searching vectors takes time, however few records are found.
    let found = if knns > 0 { most.max(10) } else { search.limit.map_or(usize::MAX, |limit| limit as usize) };
    (knns.max(1), found)
}

fn parsed(body: &JsonBytes) -> Result<Vec<(Search, Selected)>, ApiError> {
    let payload: SearchRequestPayload = body.parse()?;
    let searches = payload.searches.into_iter().enumerate();
    searches.map(|(number, search)| one(&search, &format!("searches[{number}]"))).collect()
}

fn one(payload: &SearchPayload, place: &str) -> Result<(Search, Selected), ApiError> {
    let filter: Option<Filter> = payload.filter(place)?;
    let (rank, group_by) = (payload.rank(place)?, payload.group_by(place)?);
    let mut selected = payload.selected();
    // There are no scores where nothing is scored.
    selected.score &= rank.is_some();
    let include = Include {
        embeddings: selected.embedding,
        documents: selected.document,
        metadatas: selected.metadata,
        uris: false,
    };
    let select = Select { include, keys: selected.metadata_keys.clone() };
    Ok((Search { filter, rank, group_by, limit: payload.limit(), offset: payload.offset(), select }, selected))
}

fn execute(
    collection: &Collection, path: &CollectionPath, searches: Vec<(Search, Selected)>, planning: &Planning,
) -> Result<Response, ApiError> {
    let (searches, selected): (Vec<_>, Vec<_>) = searches.into_iter().unzip();
    let request = SearchRequest {
        searches,
        hint: planning.strategy()?,
        hints: planning.hints(collection)?,
        explain: planning.is_explained(),
    };
    let answer = collection.search(&request).map_err(not_found_as(path))?;
    let shown = |hit: SearchHit| RowView { record: hit.record, distance: hit.score };
    let rows = answer.results.into_iter().map(|hits| hits.into_iter().map(shown).collect());
    let results: Vec<(Selected, Vec<RowView>)> = selected.into_iter().zip(rows).collect();
    let body = explained_each(search_response(&results), answer.explain.as_deref());
    Ok(with_warnings(json_bytes(body), &answer.warnings))
}
