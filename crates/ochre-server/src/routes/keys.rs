//! Administration of keys.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value as Json_, json};

use super::Operation;
use crate::app::App;
use crate::auth::{Auth, Caller, NewKey};
use crate::body::JsonBytes;
use crate::error::ApiError;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "get",
        path: "/_admin/keys",
        summary: "The keys there are, without what they are",
        request: None,
        response: (200, "object"),
        query: &[],
    },
    Operation {
        method: "post",
        path: "/_admin/keys",
        summary: "Make a key; it is in the answer, and never shown again",
        request: Some("NewKey"),
        response: (201, "object"),
        query: &[],
    },
    Operation {
        method: "get",
        path: "/_admin/keys/{id}",
        summary: "A key, without what it is",
        request: None,
        response: (200, "object"),
        query: &[],
    },
    Operation {
        method: "delete",
        path: "/_admin/keys/{id}",
        summary: "Revoke a key: from now on it is refused",
        request: None,
        response: (200, "object"),
        query: &[],
    },
];

pub(super) fn router() -> Router<App> {
    Router::new().route("/_admin/keys", get(list).post(create)).route("/_admin/keys/{id}", get(show).delete(revoke))
}

/// The keys, where there is authentication.
fn auth(app: &App) -> Result<&std::sync::Arc<Auth>, ApiError> {
    app.check_local()?;
    app.auth().ok_or_else(|| {
        ApiError::invalid(
            "authentication is off: set auth.enabled = true, or make keys with `ochre keys create NAME --offline`",
        )
    })
}

fn missing(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no key '{id}'"))
}

async fn list(State(app): State<App>) -> Result<Json<Json_>, ApiError> {
    Ok(Json(json!({"keys": auth(&app)?.keys().list()})))
}

async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Json_>, ApiError> {
    auth(&app)?.keys().show(&id).map(Json).ok_or_else(|| missing(&id))
}

async fn create(
    State(app): State<App>, caller: Caller, body: JsonBytes,
) -> Result<(StatusCode, Json<Json_>), ApiError> {
    let auth = auth(&app)?.clone();
    app.run(move |database| {
        let new: NewKey = body.parse()?;
        caller.check_grants(auth.roles(), &new.grants)?;
        let made = auth.keys().create(database, auth.roles(), new)?;
        tracing::info!(key = %made["id"], by = caller.principal().name, "made a key");
        Ok((StatusCode::CREATED, Json(made)))
    })
    .await
}

async fn revoke(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Json_>, ApiError> {
    let auth = auth(&app)?.clone();
    app.run(move |database| {
        if !auth.keys().revoke(database, auth.roles(), &id)? {
            return Err(missing(&id));
        }
        Ok(Json(json!({"revoked": id})))
    })
    .await
}
