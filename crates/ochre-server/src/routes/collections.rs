//! Collections: made, listed, read, changed, deleted.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use ochre_engine::model::SCHEMA_KEY;
use ochre_engine::schema::{InvalidSchema, doubled_member};
use ochre_engine::{Alteration, CollectionOptions, CollectionRow, Database, Page, Resource};
use ochre_extension::{Access, Description, Parameter as P, Permission, Target};
use ochre_wire::{
    Collection, CreateCollectionPayload, CreateOptions, UpdateCollectionPayload, create_options, shown_metadata,
};
use serde_json::{Value as Json_, json};
use uuid::Uuid;

use super::served::Served;
use crate::app::App;
use crate::auth::{Audited, Caller};
use crate::body::{JsonBytes, PageQuery, Query};
use crate::error::ApiError;
use crate::paths::{CollectionPath, DatabasePath, collection, not_found_as};

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases/{database}/collections",
                "List the collections of a database, by id",
                Access::Any(Permission::CollectionRead),
            )
            .answers(200, "Vec_Collection")
            .query(const { &[P::count("limit"), P::count("offset")] }),
            list,
        ),
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases/{database}/collections",
                "Create a collection",
                Access::Either(Permission::CollectionWrite, Permission::CollectionRead),
            )
            .takes("CreateCollectionPayload")
            .answers(200, "Collection"),
            create,
        ),
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases/{database}/collections_count",
                "Count the collections of a database",
                Access::Any(Permission::CollectionRead),
            )
            .answers(200, "integer"),
            count,
        ),
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}",
                "Get a collection by name",
                Access::Scope(Permission::CollectionRead),
            )
            .answers(200, "Collection"),
            read,
        ),
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/by-id/{collection}",
                "Get a collection by id",
                Access::Scope(Permission::CollectionRead),
            )
            .answers(200, "Collection"),
            read_by_id,
        ),
        Served::new(
            Description::put(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}",
                "Change a collection, by id",
                Access::Scope(Permission::CollectionWrite),
            )
            .takes("UpdateCollectionPayload"),
            update,
        ),
        Served::new(
            Description::delete(
                "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}",
                "Delete a collection, by name",
                Access::Scope(Permission::CollectionWrite),
            ),
            delete,
        ),
        Served::new(
            Description::get(
                "/api/v2/collections/{crn}",
                "Get a collection by its resource name tenant_resource_name:database:collection",
                Access::Any(Permission::CollectionRead),
            )
            .answers(200, "Collection"),
            read_by_crn,
        ),
    ]
}

pub(super) fn shown(database: &Database, row: &CollectionRow) -> Result<Collection, ApiError> {
    let shown = shown_all(database, std::slice::from_ref(row))?;
    Ok(shown.into_iter().next().expect("one for each row"))
}

fn shown_all(database: &Database, rows: &[CollectionRow]) -> Result<Vec<Collection>, ApiError> {
    let versions = database.versions(rows)?;
    Ok(rows.iter().zip(versions).map(|(row, version)| new(row).at_version(version)).collect())
}

fn new(row: &CollectionRow) -> Collection {
    let metadata = shown_metadata(row.metadata.as_ref(), row.declaration.as_deref());
    Collection::new(row.id, [&row.tenant, &row.database, &row.name], metadata, &row.schema, row.dimension)
}

fn missing(name: &str) -> ApiError {
    ApiError::not_found(format!("Collection [{name}] does not exist"))
}

/// Whether a caller may read every collection of a database, so that none has to be left out.
fn reads_all(caller: &Caller, path: &DatabasePath) -> bool {
    let target = Target { tenant: Some(&path.tenant), database: Some(&path.database), collection: None };
    caller.principal().may(Permission::CollectionRead, target)
}

/// The collections of a database that a caller may read.
fn readable(database: &Database, caller: &Caller, path: &DatabasePath) -> Result<Vec<CollectionRow>, ApiError> {
    let mut rows = database.collections(&path.tenant, &path.database, Page::default())?;
    rows.retain(|row| caller.may(Permission::CollectionRead, &row.tenant, &row.database, &row.name));
    Ok(rows)
}

async fn list(
    State(app): State<App>, caller: Caller, Path(path): Path<DatabasePath>, Query(page): Query<PageQuery>,
) -> Result<Json<Vec<Collection>>, ApiError> {
    app.run(move |database| {
        let page = Page::from(page);
        let rows = if reads_all(&caller, &path) {
            database.collections(&path.tenant, &path.database, page)?
        } else {
            let rows = readable(database, &caller, &path)?.into_iter().skip(page.offset as usize);
            rows.take(page.limit.map_or(usize::MAX, |limit| limit as usize)).collect()
        };
        Ok(Json(shown_all(database, &rows)?))
    })
    .await
}

async fn create(
    State(app): State<App>, caller: Caller, Path(path): Path<DatabasePath>, body: JsonBytes,
) -> Result<Response, ApiError> {
    let counting = caller.count_collections().await;
    app.run(move |database| {
        let _counting = counting;
        let payload: CreateCollectionPayload = body.parse()?;
        check_doubled(&body)?;
        let name = payload.name.clone();
        let may = |permission| caller.may(permission, &path.tenant, &path.database, &name);
        let is_reader = !may(Permission::CollectionWrite) && may(Permission::CollectionRead);
        if payload.get_or_create && is_reader {
            let existing = database.collection_in(&path.tenant, &path.database, &name);
            if let Ok(existing) = existing.and_then(|collection| collection.info()) {
                // What is there is only read.
                create_options(payload)?;
                let mut response = Json(shown(database, &existing)?).into_response();
                response.extensions_mut().insert(Audited(json!({"collection": name, "changed": false})));
                return Ok(response);
            }
        }
        caller.check(Permission::CollectionWrite, &path.tenant, &path.database, &name)?;
        // The name is validated first, as Chroma does.
        ochre_engine::model::check_collection_name(&name)
            .map_err(|error| ApiError::invalid(format!("Validation error: name: {error}")))?;
        let CreateOptions { metadata, declaration, schema, get_or_create } = create_options(payload)?;
        if !declaration.is_empty() {
            caller.check(Permission::SchemaWrite, &path.tenant, &path.database, &name)?;
        }
        let options = CollectionOptions { metadata, declaration, schema: Some(schema), get_or_create };
        caller.check_collections(database, &path.tenant, &path.database, &name)?;
        let made = database.make_collection(&path.tenant, &path.database, &name, options);
        let row = made.map_err(|error| match error.not_found() {
            Some((Resource::Database, _)) => ApiError::invalid(error.to_string()),
            _ => error.into(),
        })?;
        Ok(Json(shown(database, &row)?).into_response())
    })
    .await
}

/// Refuses a schema in a body that has a member twice: only one of them would count.
fn check_doubled(body: &JsonBytes) -> Result<(), ApiError> {
    if memchr::memmem::find(body.bytes(), SCHEMA_KEY.as_bytes()).is_none() {
        return Ok(());
    }
    let within = format!("/{SCHEMA_KEY}/");
    let doubled = doubled_member(body.bytes(), &|pointer| pointer.contains(&within));
    match doubled.as_ref().and_then(|pointer| pointer.split_once(&within)) {
        Some((_, pointer)) => Err(ochre_engine::Error::from(InvalidSchema::doubled(format!("/{pointer}"))).into()),
        None => Ok(()),
    }
}

async fn count(State(app): State<App>, caller: Caller, Path(path): Path<DatabasePath>) -> Result<Json<u64>, ApiError> {
    app.run(move |database| {
        Ok(Json(if reads_all(&caller, &path) {
            database.count_collections(&path.tenant, &path.database)?
        } else {
            readable(database, &caller, &path)?.len() as u64
        }))
    })
    .await
}

async fn read(State(app): State<App>, Path(path): Path<CollectionPath>) -> Result<Json<Collection>, ApiError> {
    app.run(move |database| {
        let found = database.collection_in(&path.tenant, &path.database, &path.collection);
        let found = found.and_then(|collection| collection.info());
        let row = found
            .map_err(|error| if error.not_found().is_some() { missing(&path.collection) } else { error.into() })?;
        Ok(Json(shown(database, &row)?))
    })
    .await
}

async fn read_by_id(State(app): State<App>, Path(path): Path<CollectionPath>) -> Result<Json<Collection>, ApiError> {
    let id = Uuid::parse_str(&path.collection).map_err(|_| {
        ApiError::invalid("Validation error: collection_id: Invalid collection ID format, expected UUID")
    })?;
    app.run(move |database| {
        let found = database.collection_by_id(id).and_then(|collection| collection.info());
        let row =
            found.map_err(|error| if error.not_found().is_some() { missing(&id.to_string()) } else { error.into() })?;
        if row.tenant != path.tenant || row.database != path.database {
            return Err(missing(&id.to_string()));
        }
        Ok(Json(shown(database, &row)?))
    })
    .await
}

async fn read_by_crn(
    State(app): State<App>, caller: Caller, Path(crn): Path<String>,
) -> Result<Json<Collection>, ApiError> {
    let parts: Vec<&str> = crn.split(':').collect();
    let [resource, database_name, name] = parts[..] else { return Err(bad_crn()) };
    if resource.is_empty() || database_name.is_empty() || name.is_empty() {
        return Err(bad_crn());
    }
    let (resource, database_name, name) = (resource.to_owned(), database_name.to_owned(), name.to_owned());
    app.run(move |database| {
        let tenant = database.tenant_by_resource_name(&resource)?.ok_or_else(|| missing(&crn))?;
        let found =
            database.collection_in(&tenant.name, &database_name, &name).and_then(|collection| collection.info());
        let row = found.map_err(|error| if error.not_found().is_some() { missing(&crn) } else { error.into() })?;
        if !caller.may(Permission::CollectionRead, &row.tenant, &row.database, &row.name) {
            return Err(missing(&crn));
        }
        Ok(Json(shown(database, &row)?))
    })
    .await
}

fn bad_crn() -> ApiError {
    ApiError::invalid(
        "Validation error: crn: CRN must be in the format <tenant_resource_name>:<database_name>:<collection_name> with non-empty parts",
    )
}

async fn update(
    State(app): State<App>, caller: Caller, Path(path): Path<CollectionPath>, body: JsonBytes,
) -> Result<Json<Json_>, ApiError> {
    app.run(move |database| {
        let mut payload: UpdateCollectionPayload = body.parse()?;
        check_doubled(&body)?;
        path.uuid()?;
        if let Some(name) = &payload.new_name {
            ochre_engine::model::check_collection_name(name)
                .map_err(|error| ApiError::invalid(format!("Validation error: new_name: {error}")))?;
            // Nobody takes a collection to where they may not write.
            caller.check(Permission::CollectionWrite, &path.tenant, &path.database, name)?;
        }
        let (metadata, declaration) = payload.metadata()?;
        let collection = collection(database, &path)?;
        if !declaration.is_empty() {
            caller.check(Permission::SchemaWrite, &path.tenant, &path.database, &collection.info()?.name)?;
        }
        let alteration = Alteration {
            metadata,
            declaration,
            keys: Vec::new(),
            at: None,
            hnsw: payload.hnsw(&collection.info()?.schema)?,
            embedding_function: payload.embedding_function(),
            name: payload.new_name,
        };
        collection.alter(alteration).map_err(not_found_as(&path))?;
        Ok(Json(json!({})))
    })
    .await
}

async fn delete(State(app): State<App>, Path(path): Path<CollectionPath>) -> Result<Json<Json_>, ApiError> {
    app.run(move |database| {
        let deleted = database.delete_collection_in(&path.tenant, &path.database, &path.collection);
        deleted.map_err(|error| if error.not_found().is_some() { missing(&path.collection) } else { error.into() })?;
        Ok(Json(json!({})))
    })
    .await
}
