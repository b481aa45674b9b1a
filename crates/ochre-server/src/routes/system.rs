//! What a client asks before anything else: is it there, which version, what can it take.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ochre_extension::{Access, Description, Permission};
use serde_json::{Value as Json_, json};

use super::served::Served;
use crate::API_VERSION;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use ochre_engine::{DEFAULT_DATABASE, DEFAULT_TENANT};

/// Records that clients should put into one batch at most. Larger ones are taken too.
const BATCH_ADVISED: u32 = 5461;

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(Description::get("/api/v2", "Heartbeat", Access::Public), heartbeat),
        Served::new(
            Description::get("/api/v2/heartbeat", "Heartbeat: nanoseconds since the Unix epoch", Access::Public),
            heartbeat,
        ),
        Served::new(
            Description::get("/api/v2/healthcheck", "Check whether requests are served", Access::Public),
            healthcheck,
        ),
        Served::new(
            Description::get("/api/v2/version", "Get the version of the API", Access::Authenticated)
                .answers(200, "string"),
            version,
        ),
        Served::new(
            Description::get("/api/v2/pre-flight-checks", "Get the limits of the server", Access::Authenticated),
            pre_flight_checks,
        ),
        Served::new(
            Description::get("/api/v2/auth/identity", "Get the identity of the caller", Access::Authenticated),
            identity,
        ),
        Served::new(
            Description::post(
                "/api/v2/reset",
                "Delete everything; only if the configuration allows it",
                Access::Scope(Permission::SystemReset),
            )
            .answers(200, "boolean"),
            reset,
        ),
    ]
}

async fn heartbeat() -> Json<Json_> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Json(json!({"nanosecond heartbeat": u64::try_from(now).unwrap_or(u64::MAX)}))
}

async fn healthcheck() -> Json<Json_> {
    Json(json!({"is_executor_ready": true, "is_log_client_ready": true}))
}

async fn pre_flight_checks() -> Json<Json_> {
    Json(json!({"max_batch_size": BATCH_ADVISED, "supports_base64_encoding": true}))
}

async fn identity(caller: Caller) -> Json<Json_> {
    let who = caller.principal();
    let mut databases = who.databases();
    if databases.is_empty() {
        databases.push(DEFAULT_DATABASE);
    }
    Json(json!({"user_id": who.name, "tenant": who.tenant().unwrap_or(DEFAULT_TENANT), "databases": databases}))
}

async fn reset(State(app): State<App>) -> Result<Json<bool>, ApiError> {
    if !app.config().server.allow_reset {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "ChromaError", "Reset is disabled by config"));
    }
    app.run(|database| Ok(database.reset()?)).await?;
    Ok(Json(true))
}

async fn version() -> Json<&'static str> {
    Json(API_VERSION)
}
