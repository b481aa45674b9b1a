//! The v1 API, which Chroma retired: 410, as its own server answers.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::app::App;
use crate::error::ApiError;

pub(super) fn router() -> Router<App> {
    Router::new().route("/api/v1/{*rest}", get(gone).put(gone).patch(gone).delete(gone).options(gone))
}

async fn gone() -> ApiError {
    ApiError::new(StatusCode::GONE, "Unimplemented", "The v1 API is deprecated. Please use /v2 apis")
}
