//! Forks: collections that share the records of others.

use axum::Json;
use axum::extract::{Path, State};
use ochre_extension::{Access, Description, Permission};
use ochre_wire::{Collection, ForkCollectionPayload, ForkCountResponse};

use super::collections::shown;
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
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/fork",
                "Fork a collection: make another one with its records, without copying them",
                Access::Scope(Permission::CollectionWrite),
            )
            .takes("ForkCollectionPayload")
            .answers(200, "Collection"),
            fork,
        ),
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/fork_count",
                "Count the collections that a collection shares its origin with: forks, their forks, and their source",
                Access::Scope(Permission::CollectionRead),
            )
            .answers(200, "ForkCountResponse"),
            fork_count,
        ),
    ]
}

async fn fork(
    State(app): State<App>, caller: Caller, Path(path): Path<CollectionPath>, body: JsonBytes,
) -> Result<Json<Collection>, ApiError> {
    let counting = caller.count_collections().await;
    app.run(move |database| {
        let _counting = counting;
        let ForkCollectionPayload { new_name } = body.parse()?;
        let source = collection(database, &path)?;
        let info = source.info().map_err(not_found_as(&path))?;
        // Whoever may not read its records must not get them in another collection.
        caller.check(Permission::RecordRead, &path.tenant, &path.database, &info.name)?;
        // It is as if the new collection were made, and everything written to it.
        caller.check(Permission::CollectionWrite, &path.tenant, &path.database, &new_name)?;
        caller.check(Permission::RecordWrite, &path.tenant, &path.database, &new_name)?;
        if info.declaration.is_some() {
            caller.check(Permission::SchemaWrite, &path.tenant, &path.database, &new_name)?;
        }
        caller.check_count(source.count().map_err(not_found_as(&path))?)?;
        ochre_engine::model::check_collection_name(&new_name)
            .map_err(|error| ApiError::invalid(format!("Validation error: new_name: {error}")))?;
        caller.check_collections(database, &path.tenant, &path.database, &new_name)?;
        let fork = source.fork(&new_name).map_err(not_found_as(&path))?;
        Ok(Json(shown(database, &*fork.info()?)?))
    })
    .await
}

async fn fork_count(
    State(app): State<App>, Path(path): Path<CollectionPath>,
) -> Result<Json<ForkCountResponse>, ApiError> {
    app.run(move |database| {
        let count = collection(database, &path)?.fork_count().map_err(not_found_as(&path))?;
        Ok(Json(ForkCountResponse { count }))
    })
    .await
}
