//! Databases of a tenant.

use axum::Json;
use axum::extract::{Path, State};
use ochre_engine::{DatabaseRow, Error, Invalid, Page};
use ochre_extension::{Access, Description, Parameter as P, Permission, Target};
use ochre_wire::{CreateDatabasePayload, Database};
use serde_json::{Value as Json_, json};

use super::served::Served;
use crate::app::App;
use crate::auth::Caller;
use crate::body::{JsonBytes, PageQuery, Query};
use crate::error::ApiError;
use crate::paths::DatabasePath;

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases",
                "List the databases of a tenant, by name",
                Access::Any(Permission::DatabaseRead),
            )
            .answers(200, "Vec_Database")
            .query(const { &[P::count("limit"), P::count("offset")] }),
            list,
        ),
        Served::new(
            Description::post(
                "/api/v2/tenants/{tenant}/databases",
                "Create a database",
                Access::Any(Permission::DatabaseWrite),
            )
            .takes("CreateDatabasePayload"),
            create,
        ),
        Served::new(
            Description::get(
                "/api/v2/tenants/{tenant}/databases/{database}",
                "Get a database",
                Access::Scope(Permission::DatabaseRead),
            )
            .answers(200, "Database"),
            read,
        ),
        Served::new(
            Description::delete(
                "/api/v2/tenants/{tenant}/databases/{database}",
                "Delete a database with its collections",
                Access::Scope(Permission::DatabaseWrite),
            ),
            delete,
        ),
    ]
}

fn shown(row: DatabaseRow) -> Database {
    Database { id: row.id.to_string(), name: row.name, tenant: row.tenant }
}

async fn list(
    State(app): State<App>, caller: Caller, Path(tenant): Path<String>, Query(page): Query<PageQuery>,
) -> Result<Json<Vec<Database>>, ApiError> {
    app.run(move |database| {
        let page = Page::from(page);
        let rows = database.databases(&tenant, Page::default())?.into_iter();
        let is_seen = |row: &DatabaseRow| {
            let target = Target { tenant: Some(&row.tenant), database: Some(&row.name), collection: None };
            caller.principal().may(Permission::DatabaseRead, target)
        };
        let seen = rows.filter(is_seen).skip(page.offset as usize);
        Ok(Json(seen.take(page.limit.map_or(usize::MAX, |limit| limit as usize)).map(shown).collect()))
    })
    .await
}

async fn create(
    State(app): State<App>, caller: Caller, Path(tenant): Path<String>, body: JsonBytes,
) -> Result<Json<Json_>, ApiError> {
    app.run(move |database| {
        let payload: CreateDatabasePayload = body.parse()?;
        let target = Target { tenant: Some(&tenant), database: Some(&payload.name), collection: None };
        caller.check_in(Permission::DatabaseWrite, target)?;
        database.create_database(&tenant, &payload.name).map_err(|error| match error {
            // Chroma names the member for tenants and collections, and not here.
            Error::Invalid(Invalid { reason, .. }) => ApiError::invalid(reason),
            error => error.into(),
        })?;
        Ok(Json(json!({})))
    })
    .await
}

async fn read(State(app): State<App>, Path(path): Path<DatabasePath>) -> Result<Json<Database>, ApiError> {
    if path.database.chars().count() < 3 {
        return Err(ApiError::invalid("database name must be at least 3 characters"));
    }
    app.run(move |database| {
        let row = database.database(&path.tenant, &path.database)?;
        row.map(|row| Json(shown(row))).ok_or_else(|| {
            ApiError::not_found(format!("Database [{}] not found. Are you sure it exists?", path.database))
        })
    })
    .await
}

async fn delete(State(app): State<App>, Path(path): Path<DatabasePath>) -> Result<Json<Json_>, ApiError> {
    app.run(move |database| {
        let deleted = database.delete_database(&path.tenant, &path.database);
        deleted.map_err(|error| match error.not_found() {
            Some(_) => ApiError::not_found(format!("Database [{}] not found", path.database)),
            None => error.into(),
        })?;
        Ok(Json(json!({})))
    })
    .await
}
