//! Records: added, changed, deleted, fetched, searched, counted.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use ochre_engine::model::{Filter, WriteKind};
use ochre_engine::{
    Collection, Database, DeleteRequest, Error, FilterWarnings, GetRequest, GetResults, Include as Parts, NewRecords,
    Outcome, Query as Search, QueryHit, QueryRequest, Violations,
};
use ochre_extension::{Access, Description, Parameter as P, Permission, violation_members};
use ochre_wire::{
    AddCollectionRecordsPayload, DeleteCollectionRecordsPayload, GetRequestPayload, Include, IncludeList,
    IndexStatusResponse, QueryRequestPayload, UpdateCollectionRecordsPayload, UpsertCollectionRecordsPayload,
    get_response, query_response,
};
use serde_json::{Value as Json_, json};

use super::explain::explained;
use super::planning::{PLANNING, Planning, RowView, is_short, json_bytes, with_warnings};
use super::served::Served;
use crate::app::App;
use crate::auth::Caller;
use crate::body::{JsonBytes, Query};
use crate::error::ApiError;
use crate::paths::{CollectionPath, collection, collection_in_memory, not_found_as};

/// How many rules of the schema a write breaks that was accepted.
const VIOLATIONS_HEADER: HeaderName = HeaderName::from_static("x-schema-violations");
/// The body of an accepted write shows so many violations.
const WARNINGS_MAX: usize = 10;

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/add",
                "Add records; records with existing ids are left unchanged",
                Access::Scope(Permission::RecordWrite),
            )
            .takes("AddCollectionRecordsPayload")
            .answers(201, "object"),
            add,
        ),
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/update",
                "Change records; unknown ids are skipped",
                Access::Scope(Permission::RecordWrite),
            )
            .takes("UpdateCollectionRecordsPayload"),
            update,
        ),
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/upsert",
                "Add or change records",
                Access::Scope(Permission::RecordWrite),
            )
            .takes("UpsertCollectionRecordsPayload"),
            upsert,
        ),
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/delete",
                "Delete records by id, filter or both",
                Access::Scope(Permission::RecordWrite),
            )
            .takes("DeleteCollectionRecordsPayload"),
            delete,
        ),
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/get",
                "Fetch records by id, filter or both",
                Access::Scope(Permission::RecordRead),
            )
            .takes("GetRequestPayload")
            .query(PLANNING.split_at(PLANNING.len() - 1).0),
            fetch,
        ),
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/query",
                "Find the records nearest to each query embedding",
                Access::Scope(Permission::RecordRead),
            )
            .takes("QueryRequestPayload")
            .query(PLANNING),
            query,
        ),
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/count",
                "Count the records of a collection",
                Access::Scope(Permission::RecordRead),
            )
            .answers(200, "integer")
            .query(const { &[P::text("read_level")] }),
            count,
        ),
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/indexing_status",
                "Get how much of a collection is indexed",
                Access::Scope(Permission::CollectionRead),
            )
            .answers(200, "IndexStatusResponse"),
            indexing_status,
        ),
    ]
}

/// Tells that an integer was stored as a float.
const ROUNDED_HEADER: HeaderName = HeaderName::from_static("x-metadata-warnings");
/// Of such an integer so many characters are shown.
const ROUNDED_CHARACTERS_MAX: usize = 60;

async fn add(
    State(app): State<App>, caller: Caller, Path(path): Path<CollectionPath>, body: JsonBytes,
) -> Result<Response, ApiError> {
    write::<AddCollectionRecordsPayload>(app, caller, path, body).await
}

async fn update(
    State(app): State<App>, caller: Caller, Path(path): Path<CollectionPath>, body: JsonBytes,
) -> Result<Response, ApiError> {
    write::<UpdateCollectionRecordsPayload>(app, caller, path, body).await
}

async fn upsert(
    State(app): State<App>, caller: Caller, Path(path): Path<CollectionPath>, body: JsonBytes,
) -> Result<Response, ApiError> {
    write::<UpsertCollectionRecordsPayload>(app, caller, path, body).await
}

/// What a request to write sends, and what it means.
trait WriteBody: serde::de::DeserializeOwned + Send {
    const KIND: WriteKind;
    const STATUS: StatusCode = StatusCode::OK;

    fn ids(&self) -> &[String];
    fn into_records(self) -> Result<NewRecords, ApiError>;
}

impl WriteBody for AddCollectionRecordsPayload {
    const KIND: WriteKind = WriteKind::Add;
    const STATUS: StatusCode = StatusCode::CREATED;

    fn ids(&self) -> &[String] {
        &self.ids
    }

    fn into_records(self) -> Result<NewRecords, ApiError> {
        Ok(self.into_batch()?.into())
    }
}

impl WriteBody for UpdateCollectionRecordsPayload {
    const KIND: WriteKind = WriteKind::Update;

    fn ids(&self) -> &[String] {
        &self.ids
    }

    fn into_records(self) -> Result<NewRecords, ApiError> {
        Ok(self.into_batch()?.into())
    }
}

impl WriteBody for UpsertCollectionRecordsPayload {
    const KIND: WriteKind = WriteKind::Upsert;

    fn ids(&self) -> &[String] {
        &self.ids
    }

    fn into_records(self) -> Result<NewRecords, ApiError> {
        Ok(self.into_batch()?.into())
    }
}

async fn write<B: WriteBody>(
    app: App, caller: Caller, path: CollectionPath, body: JsonBytes,
) -> Result<Response, ApiError> {
    // An update makes no records that could be too many.
    let adds = B::KIND != WriteKind::Update;
    let counting = if adds { Some(caller.count_records().await) } else { None };
    app.run_write(move |database| {
        let _counting = counting;
        let payload: B = body.parse()?;
        caller.check_batch(payload.ids().len())?;
        let ids = (adds && caller.limits_records()).then(|| payload.ids().to_vec());
        let records = payload.into_records()?;
        let rounded = rounded_integers(&records, &body);
        let collection = collection(database, &path)?;
        ids.map_or(Ok(()), |ids| caller.check_records(&collection, &ids))?;
        let written = collection.write_and_report(B::KIND, records, body.idempotency());
        let (_, violations) = without_hidden_values(&caller, &path, &collection, written)?;
        Ok(with_rounded(written_response(B::STATUS, &violations), rounded))
    })
    .await
}

/// What came of a write, without values of stored records for who may not read them: an update that breaks a schema is
/// refused for values that it did not bring, too.
pub(super) fn without_hidden_values(
    caller: &Caller, path: &CollectionPath, collection: &Collection, written: Result<(Outcome, Violations), Error>,
) -> Result<(Outcome, Violations), ApiError> {
    let may_read = || {
        let row = collection.info();
        row.is_ok_and(|row| caller.may(Permission::RecordRead, &row.tenant, &row.database, &row.name))
    };
    match written {
        Ok((outcome, violations)) if violations.counts.is_empty() || may_read() => Ok((outcome, violations)),
        Ok((outcome, violations)) => Ok((outcome, violations.without_values())),
        Err(Error::Violations(violations)) if !may_read() => {
            Err(Error::Violations(Arc::new(violations.without_values())).into())
        }
        Err(error) => Err(not_found_as(path)(error)),
    }
}

/// The answer to a write: what was accepted although it breaks the schema is told beside it.
fn written_response(status: StatusCode, violations: &Violations) -> Response {
    if violations.counts.is_empty() {
        return (status, Json(json!({}))).into_response();
    }
    let mut members = violation_members(violations);
    let listed = members.remove("violations").and_then(|listed| match listed {
        Json_::Array(listed) => Some(listed.into_iter().take(WARNINGS_MAX).collect()),
        _ => None,
    });
    let body = json!({"warnings": listed.unwrap_or(Json_::Null), "counts": members.remove("counts")});
    let header = [(VIOLATIONS_HEADER, violations.total().to_string())];
    (status, header, Json(body)).into_response()
}

/// The first integer of a body's metadata that is beyond 64 bits, as it stands there: of it the nearest float is
/// stored.
fn rounded_integers(records: &NewRecords, body: &JsonBytes) -> Option<String> {
    // Only a number that large can be one; then the body is looked through, where floats are written otherwise.
    records.has_numbers_beyond_64_bits().then(|| integer_beyond_64_bits(body.bytes())).flatten()
}

/// The first number in a JSON document that is written as an integer and is none of 64 bits.
fn integer_beyond_64_bits(json: &[u8]) -> Option<String> {
    let mut at = 0;
    while let Some(sign) = json.get(at) {
        match sign {
            b'"' => {
                at += 1;
                while json.get(at).is_some_and(|sign| *sign != b'"') {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let is_part = |sign: &u8| matches!(sign, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let end = json[at..].iter().position(|sign| !is_part(sign)).map_or(json.len(), |length| at + length);
                let number = std::str::from_utf8(&json[at..end]).ok()?;
                if !number.contains(['.', 'e', 'E']) && number.parse::<i64>().is_err() {
                    return Some(number.chars().take(ROUNDED_CHARACTERS_MAX).collect());
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    None
}

/// Tells beside the answer to a write that an integer was stored as a float.
fn with_rounded(mut response: Response, rounded: Option<String>) -> Response {
    let text = rounded.map(|number| {
        format!("metadata: {number} is beyond the integers of 64 bits and was stored as the nearest float; store it as a string to keep it exact")
    });
    if let Some(text) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(ROUNDED_HEADER, text);
    }
    response
}

async fn delete(
    State(app): State<App>, Path(path): Path<CollectionPath>, body: JsonBytes,
) -> Result<Response, ApiError> {
    app.run_write(move |database| {
        let payload: DeleteCollectionRecordsPayload = body.parse()?;
        let filter = payload.filter()?;
        if payload.ids.as_ref().is_some_and(Vec::is_empty) && filter.is_none() {
            return Err(ApiError::invalid("Validation error: ids, where: Either ids or where must be specified"));
        }
        let collection = collection(database, &path)?;
        let request = DeleteRequest { ids: payload.ids, filter, limit: payload.limit };
        let (outcome, warnings) =
            collection.delete_and_report(request, body.idempotency()).map_err(not_found_as(&path))?;
        Ok(with_warnings(Json(json!({"deleted": outcome.deleted})).into_response(), &warnings))
    })
    .await
}

async fn fetch(
    State(app): State<App>, Path(path): Path<CollectionPath>, Query(planning): Query<Planning>, body: JsonBytes,
) -> Result<Response, ApiError> {
    if !body.is_small() {
        let work = move |database: &Database| {
            let payload: GetRequestPayload = body.parse()?;
            let filter = payload.filter()?;
            Ok(execute_get(&collection(database, &path)?, &path, payload, filter, None, &planning)?.response())
        };
        return app.run_read(work).await;
    }
    let payload: GetRequestPayload = body.parse()?;
    let filter = payload.filter()?;
    let returned = payload.ids.as_ref().map_or(usize::MAX, Vec::len);
    let returned = returned.min(payload.limit.map_or(usize::MAX, |limit| limit as usize));
    let known = collection_in_memory(app.database(), &path)?;
    // Sorting takes time for each record that passes.
    let is_short = !payload.is_paged() && is_short(known.as_ref(), filter.as_ref(), 1, returned);
    let work = move |database: &Database| {
        let collection = known.map_or_else(|| collection(database, &path), Ok)?;
        Ok(execute_get(&collection, &path, payload, filter, None, &planning)?.response())
    };
    if is_short { app.run_short_read(work).await } else { app.run_read(work).await }
}

/// What a get found.
pub(super) struct Got {
    /// The body of the answer.
    pub(super) body: Vec<u8>,
    /// The position of the collection that it is of.
    pub(super) position: u64,
    warnings: FilterWarnings,
}

impl Got {
    /// The answer.
    pub(super) fn response(self) -> Response {
        with_warnings(json_bytes(self.body), &self.warnings)
    }
}

/// Gets records; only if they are as they were at the position `unchanged_since`, if it is given.
pub(super) fn execute_get(
    collection: &Collection, path: &CollectionPath, mut payload: GetRequestPayload, filter: Option<Filter>,
    unchanged_since: Option<u64>, planning: &Planning,
) -> Result<Got, ApiError> {
    let request = GetRequest {
        // A cursor is of the ids, too.
        ids: if payload.is_paged() { payload.ids.clone() } else { payload.ids.take() },
        filter,
        limit: payload.limit,
        offset: payload.offset.unwrap_or(0),
        order_by: payload.order_by()?,
        after: payload.after()?,
        is_paged: payload.is_paged(),
        unchanged_since,
        include: parts(&payload.include),
        hints: planning.hints(collection)?,
        explain: planning.is_explained(),
    };
    let GetResults { records, next, position, warnings, explain } =
        collection.get_results(&request).map_err(not_found_as(path))?;
    let rows: Vec<RowView> = records.into_iter().map(|record| RowView { record, distance: None }).collect();
    let next = next.map(|place| payload.cursor_after(&place));
    let body = get_response(&rows, &payload.include, payload.is_paged().then_some(next.as_deref()));
    Ok(Got { body: explained(body, explain.as_ref()), position, warnings })
}

async fn query(
    State(app): State<App>, Path(path): Path<CollectionPath>, Query(planning): Query<Planning>, body: JsonBytes,
) -> Result<Response, ApiError> {
    if !body.is_small() {
        let work = move |database: &Database| {
            let payload: QueryRequestPayload = body.parse()?;
            let filter = payload.filter()?;
            execute_query(&collection(database, &path)?, &path, payload, filter, &planning)
        };
        return app.run_read(work).await;
    }
    let payload: QueryRequestPayload = body.parse()?;
    let filter = payload.filter()?;
    // Searching takes time for each embedding, however few records it finds.
    let each = (payload.n_results.unwrap_or(10) as usize).max(10);
    let known = collection_in_memory(app.database(), &path)?;
    let is_short = is_short(known.as_ref(), filter.as_ref(), payload.query_embeddings.len(), each);
    let work = move |database: &Database| {
        let collection = known.map_or_else(|| collection(database, &path), Ok)?;
        execute_query(&collection, &path, payload, filter, &planning)
    };
    if is_short { app.run_short_read(work).await } else { app.run_read(work).await }
}

fn execute_query(
    collection: &Collection, path: &CollectionPath, payload: QueryRequestPayload, filter: Option<Filter>,
    planning: &Planning,
) -> Result<Response, ApiError> {
    let include = payload.include;
    let embeddings = payload.query_embeddings.iter().map(|row| row.iter().map(|number| number.0).collect()).collect();
    let request = QueryRequest {
        query: Search { embeddings, k: payload.n_results.unwrap_or(10) as usize },
        ids: payload.ids,
        filter,
        max_distance: payload.max_distance.map(|distance| distance.0),
        include: parts(&include),
        hint: planning.strategy()?,
        hints: planning.hints(collection)?,
        explain: planning.is_explained(),
    };
    let answer = collection.query(&request).map_err(not_found_as(path))?;
    let shown = |hit: QueryHit| RowView { record: hit.record, distance: Some(hit.distance) };
    let results: Vec<Vec<RowView>> =
        answer.results.into_iter().map(|hits| hits.into_iter().map(shown).collect()).collect();
    let body = explained(query_response(&results, &include), answer.explain.as_ref());
    Ok(with_warnings(json_bytes(body), &answer.warnings))
}

#[derive(serde::Deserialize)]
struct CountQuery {
    #[serde(default, rename = "read_level")]
    _read_level: Option<ochre_wire::ReadLevel>,
}

async fn count(
    State(app): State<App>, Path(path): Path<CollectionPath>, Query(_): Query<CountQuery>,
) -> Result<Json<u64>, ApiError> {
    app.run_read(move |database| Ok(Json(collection(database, &path)?.count().map_err(not_found_as(&path))?))).await
}

/// Every write is visible at once; indexing only changes how fast it is found.
async fn indexing_status(
    State(app): State<App>, Path(path): Path<CollectionPath>,
) -> Result<Json<IndexStatusResponse>, ApiError> {
    app.run(move |database| {
        let status = collection(database, &path)?.indexing_status().map_err(not_found_as(&path))?;
        Ok(Json(IndexStatusResponse::new(status.operations, status.unindexed)))
    })
    .await
}

fn parts(include: &IncludeList) -> Parts {
    Parts {
        embeddings: include.has(Include::Embeddings),
        documents: include.has(Include::Documents),
        metadatas: include.has(Include::Metadatas),
        uris: include.has(Include::Uris),
    }
}
