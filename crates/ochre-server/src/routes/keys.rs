//! Administration of keys.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use ochre_extension::{Description, Needs, Permission};
use serde_json::{Value as Json_, json};

use crate::app::App;
use crate::auth::{Auth, Caller, NewKey};
use crate::body::JsonBytes;
use crate::error::ApiError;

pub(super) const OPERATIONS: &[Description] = &[
    Description::get("/_admin/keys", "The keys there are, without what they are", Needs::All(Permission::KeyRead)),
    Description::post(
        "/_admin/keys",
        "Make a key; it is in the answer, and never shown again",
        Needs::All(Permission::KeyWrite),
    )
    .takes("NewKey")
    .answers(201, "object"),
    Description::get("/_admin/keys/{id}", "A key, without what it is", Needs::All(Permission::KeyRead)),
    Description::delete(
        "/_admin/keys/{id}",
        "Revoke a key: from now on it is refused",
        Needs::All(Permission::KeyWrite),
    ),
];

pub(super) fn router() -> Router<App> {
    Router::new().route("/_admin/keys", get(list).post(create)).route("/_admin/keys/{id}", get(show).delete(revoke))
}

/// The keys, where there is authentication.
fn auth(app: &App) -> Result<&std::sync::Arc<Auth>, ApiError> {
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
