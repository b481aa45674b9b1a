//! Conditional transactions: what is written is kept only if what was read before is as it was.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use ochre_engine::model::WriteKind;
use ochre_engine::{Collection, ConditionalCommit, ConditionalWrite};
use ochre_extension::{Access, Description, Permission};
use ochre_wire::{
    ConditionalCommitPayload, ConditionalCommitResult, ConditionalGetPayload, ConditionalOperation, read_position,
    read_token,
};

use super::explain::with_member;
use super::planning::Planning;
use super::records::{execute_get, without_hidden_values};
use super::served::Served;
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::paths::{CollectionPath, collection, not_found_as};

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/conditional/get",
                "Fetch records within a conditional transaction",
                Access::Scope(Permission::RecordRead),
            )
            .takes("ConditionalGetPayload"),
            get,
        ),
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/conditional/commit",
                "Write records if those that were read are as they were",
                Access::Scope(Permission::RecordWrite),
            )
            .takes("ConditionalCommitPayload")
            .answers(200, "ConditionalCommitResult"),
            commit,
        ),
    ]
}

async fn get(State(app): State<App>, Path(path): Path<CollectionPath>, body: JsonBytes) -> Result<Response, ApiError> {
    app.run_read(move |database| {
        let ConditionalGetPayload { get, read_token: given } = body.parse()?;
        let filter = get.filter()?;
        let collection = collection(database, &path)?;
        let since = given.map(|token| read_position(collection.id(), token)).transpose()?;
        let mut got = execute_get(&collection, &path, get, filter, since, &Planning::default())?;
        // All reads of a transaction are of the state of its first.
        let token = read_token(collection.id(), since.unwrap_or(got.position));
        got.body = with_member(std::mem::take(&mut got.body), "read_token", Some(token));
        Ok(got.response())
    })
    .await
}

async fn commit(
    State(app): State<App>, caller: Caller, Path(path): Path<CollectionPath>, body: JsonBytes,
) -> Result<Json<ConditionalCommitResult>, ApiError> {
    let counting = caller.count_records().await;
    app.run_write(move |database| {
        let _counting = counting;
        let payload: ConditionalCommitPayload = body.parse()?;
        let record_count = payload.operations.iter().map(|operation| operation.ids().len()).sum();
        caller.check_batch(record_count)?;
        let collection = collection(database, &path)?;
        check_limits(&caller, &collection, &payload.operations)?;
        let info = collection.info().map_err(not_found_as(&path))?;
        if !payload.read_ids.is_empty() {
            // A conflict tells what others wrote.
            caller.check(Permission::RecordRead, &path.tenant, &path.database, &info.name)?;
        }
        let read_at = payload.read_token.map(|token| read_position(collection.id(), token)).transpose()?;
        let writes = payload.operations.into_iter().map(write_of).collect::<Result<_, _>>()?;
        let commit = ConditionalCommit { read_ids: payload.read_ids, read_at, writes };
        let committed = collection.commit(commit, body.idempotency());
        let (outcome, _) = without_hidden_values(&caller, &path, &collection, committed)?;
        let first_inserted_record_offset = (record_count > 0).then_some(outcome.position);
        Ok(Json(ConditionalCommitResult { first_inserted_record_offset, record_count }))
    })
    .await
}

/// Refuses records beyond what the caller's key allows.
fn check_limits(caller: &Caller, collection: &Collection, operations: &[ConditionalOperation]) -> Result<(), ApiError> {
    if !caller.limits_records() {
        return Ok(());
    }
    let adds = operations
        .iter()
        .filter(|operation| matches!(operation, ConditionalOperation::Add(_) | ConditionalOperation::Upsert(_)));
    let ids: Vec<String> = adds.flat_map(|operation| operation.ids().iter().cloned()).collect();
    caller.check_records(collection, &ids)
}

fn write_of(operation: ConditionalOperation) -> Result<ConditionalWrite, ApiError> {
    let (kind, batch) = match operation {
        ConditionalOperation::Add(payload) => (WriteKind::Add, payload.into_batch()?),
        ConditionalOperation::Update(payload) => (WriteKind::Update, payload.into_batch()?),
        ConditionalOperation::Upsert(payload) => (WriteKind::Upsert, payload.into_batch()?),
        ConditionalOperation::Delete(payload) => {
            if payload.filter.is_some() || payload.where_document.is_some() || payload.limit.is_some() {
                return Err(ApiError::invalid(
                    "Validation error: operations: a conditional delete takes ids only: get the ids by the filter first",
                ));
            }
            return Ok(ConditionalWrite::Delete(payload.ids.unwrap_or_default()));
        }
    };
    Ok(ConditionalWrite::Records(kind, batch.into()))
}
