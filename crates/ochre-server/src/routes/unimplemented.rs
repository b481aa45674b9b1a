//! What Chroma's clients have methods for and this version does not serve: a clear 501 with what to use
//! until then.

use axum::Json;
use axum::extract::{Path, State};
use ochre_extension::{Access, Description, Permission};
use serde_json::{Value as Json_, json};

use super::served::Served;
use crate::app::App;
use crate::error::ApiError;
use crate::paths::{CollectionPath, collection};

pub(super) fn operations() -> Vec<Served> {
    vec![
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
