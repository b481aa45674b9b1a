//! Administration of keys.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ochre_extension::{Access, Description, Permission};
use ochre_wire::admin::keys::{KeyAnswer, KeyList};
use serde_json::json;

use super::served::Served;
use crate::app::App;
use crate::auth::{Audited, Auth, Caller, Maker, NewKey};
use crate::body::JsonBytes;
use crate::error::ApiError;

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(
            Description::get(
                "/_admin/keys",
                "List the keys; their secret parts are not shown",
                Access::Scope(Permission::KeyRead),
            ),
            list,
        ),
        Served::new(
            Description::post(
                "/_admin/keys",
                "Create a key; the response is the only place where it is shown",
                Access::Scope(Permission::KeyWrite),
            )
            .takes("NewKey")
            .answers(201, "object"),
            create,
        ),
        Served::new(
            Description::get(
                "/_admin/keys/{id}",
                "Get a key; the secret part is not shown",
                Access::Scope(Permission::KeyRead),
            ),
            show,
        ),
        Served::new(
            Description::delete(
                "/_admin/keys/{id}",
                "Revoke a key; it is rejected from then on",
                Access::Scope(Permission::KeyWrite),
            ),
            revoke,
        ),
    ]
}

/// The keys; there are some before anybody is asked for them.
fn auth(app: &App) -> Result<&std::sync::Arc<Auth>, ApiError> {
    app.keys().ok_or_else(|| ApiError::internal("the server was started without its keys"))
}

/// Notes in the audit log which key it was.
fn audited(mut response: Response, key: &KeyAnswer) -> Response {
    response.extensions_mut().insert(Audited(json!({"key": key.id, "name": key.name, "grants": key.grants})));
    response
}

fn missing(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no key '{id}'"))
}

async fn list(State(app): State<App>) -> Result<Json<KeyList>, ApiError> {
    Ok(Json(KeyList { keys: auth(&app)?.keys().list() }))
}

async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<KeyAnswer>, ApiError> {
    auth(&app)?.keys().show(&id).map(Json).ok_or_else(|| missing(&id))
}

async fn create(State(app): State<App>, caller: Caller, body: JsonBytes) -> Result<Response, ApiError> {
    let (auth, is_asked) = (auth(&app)?.clone(), app.auth().is_some());
    app.run(move |database| {
        let new: NewKey = body.parse_own()?;
        caller.check_grants(auth.roles(), &new.grants)?;
        let maker = if is_asked { Maker::Entitled } else { Maker::Anybody };
        let mut made = auth.keys().create(database, auth.roles(), new, maker)?;
        if !is_asked {
            let text =
                "authentication is off, so nobody is asked for a key: set auth.enabled = true and restart the server";
            made.warning = Some(text.into());
        }
        tracing::info!(key = made.id, by = caller.principal().name, "made a key");
        let shown = made.clone();
        Ok(audited((StatusCode::CREATED, Json(made)).into_response(), &shown))
    })
    .await
}

async fn revoke(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let auth = auth(&app)?.clone();
    app.run(move |database| {
        if !auth.keys().revoke(database, auth.roles(), &id)? {
            return Err(missing(&id));
        }
        let key = auth.keys().show(&id).ok_or_else(|| missing(&id))?;
        Ok(audited(Json(json!({"revoked": id})).into_response(), &key))
    })
    .await
}
