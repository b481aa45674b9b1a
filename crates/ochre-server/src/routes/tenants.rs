//! Tenants.

use axum::Json;
use axum::extract::{Path, State};
use ochre_extension::{Access, Description, Permission};
use ochre_wire::{CreateTenantPayload, UpdateTenantPayload};
use serde_json::{Value as Json_, json};

use super::served::Served;
use crate::app::App;
use crate::body::JsonBytes;
use crate::error::ApiError;

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(
            Description::post("/api/v2/tenants", "Create a tenant", Access::Scope(Permission::TenantWrite))
                .takes("CreateTenantPayload"),
            create,
        ),
        Served::new(
            Description::get("/api/v2/tenants/{tenant}", "Get a tenant", Access::Scope(Permission::TenantRead)),
            read,
        ),
        Served::new(
            Description::patch(
                "/api/v2/tenants/{tenant}",
                "Set the resource name of a tenant",
                Access::Scope(Permission::TenantWrite),
            )
            .takes("UpdateTenantPayload"),
            update,
        ),
    ]
}

async fn create(State(app): State<App>, body: JsonBytes) -> Result<Json<Json_>, ApiError> {
    app.run(move |database| {
        let payload: CreateTenantPayload = body.parse()?;
        Ok(database.create_tenant(&payload.name)?)
    })
    .await?;
    Ok(Json(json!({})))
}

async fn read(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Json_>, ApiError> {
    app.run(move |database| match database.tenant(&name)? {
        Some(tenant) => Ok(Json(json!({"name": tenant.name, "resource_name": tenant.resource_name}))),
        None => Err(ApiError::not_found(format!("Tenant [{name}] not found"))),
    })
    .await
}

async fn update(State(app): State<App>, Path(name): Path<String>, body: JsonBytes) -> Result<Json<Json_>, ApiError> {
    app.run(move |database| {
        let payload: UpdateTenantPayload = body.parse()?;
        match database.set_resource_name(&name, &payload.resource_name) {
            // Chroma accepts this for tenants that do not exist.
            Err(error) if error.not_found().is_some() => Ok(()),
            updated => Ok(updated?),
        }
    })
    .await?;
    Ok(Json(json!({})))
}
