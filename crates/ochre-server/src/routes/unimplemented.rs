//! What Chroma's clients have methods for and this version does not serve: a clear 501 with what to use
//! until then.

use axum::Json;
use axum::extract::{Path, State};
use ochre_extension::{Access, Description, Permission};
use ochre_wire::ForkCollectionPayload;
use serde_json::{Value as Json_, json};

use super::served::Served;
use crate::app::App;
use crate::body::JsonBytes;
use crate::error::ApiError;
use crate::paths::{CollectionPath, collection};

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(Description::post(
        "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/fork",
        "Fork a collection; not implemented yet",
        Access::Scope(Permission::CollectionWrite),
    )
    .takes("ForkCollectionPayload")
    .answers(501, "object"), fork),
        Served::new(Description::get(
        "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/fork_count",
        "Count the forks of a collection; not implemented yet",
        Access::Scope(Permission::CollectionRead),
    )
    .answers(501, "object"), fork_count),
        Served::new(Description::get(
        "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/indexing_status",
        "Get how much of a collection is indexed",
        Access::Scope(Permission::CollectionRead),
    ), indexing_status),
        Served::new(Description::post(
        "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/functions/attach",
        "Attach a function; not implemented",
        Access::Scope(Permission::CollectionWrite),
    )
    .answers(501, "object"), functions),
        Served::new(Description::get(
        "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/functions/{function}",
        "Get an attached function",
        Access::Scope(Permission::CollectionRead),
    ), no_function),
        Served::new(Description::post(
        "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/attached_functions/{function}/detach",
        "Detach a function; not implemented",
        Access::Scope(Permission::CollectionWrite),
    )
    .answers(501, "object"), functions),
    ]
}

async fn fork(body: JsonBytes) -> Result<Json<Json_>, ApiError> {
    body.parse::<ForkCollectionPayload>()?;
    Err(ApiError::unimplemented(
        "fork is not served by this version: create a collection and copy the records with get() and add()",
    ))
}

async fn fork_count() -> Result<Json<Json_>, ApiError> {
    Err(ApiError::unimplemented(
        "fork_count is not served by this version: no collection has copies, since fork is not served",
    ))
}

/// Every write is visible at once; indexing only changes how fast it is found.
async fn indexing_status(State(app): State<App>, Path(path): Path<CollectionPath>) -> Result<Json<Json_>, ApiError> {
    app.run(move |database| {
        let collection = collection(database, &path)?;
        let total = collection.count()?;
        let (_, waiting) = collection.index_progress()?;
        let indexed = total.saturating_sub(waiting as u64);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let progress = if total == 0 { 1.0 } else { indexed as f64 / total as f64 };
        Ok(Json(json!({
            "op_indexing_progress": progress,
            "num_unindexed_ops": total - indexed,
            "num_indexed_ops": indexed,
            "total_ops": total,
        })))
    })
    .await
}

async fn functions() -> Result<Json<Json_>, ApiError> {
    Err(ApiError::unimplemented(
        "attached functions are not served: compute in the client, and write the results with upsert()",
    ))
}

async fn no_function() -> Result<Json<Json_>, ApiError> {
    Err(ApiError::not_found("Attached function not found"))
}
