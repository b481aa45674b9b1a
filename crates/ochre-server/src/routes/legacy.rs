//! The v1 API, which Chroma retired: 410, as its own server answers.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use ochre_extension::{Description, Method, Needs};

use crate::app::App;
use crate::error::ApiError;

const PATH: &str = "/api/v1/{*rest}";
const ABOUT: &str = "What Chroma retired";

pub(super) const OPERATIONS: &[Description] = &[
    Description::get(PATH, ABOUT, Needs::Nothing).unlisted(),
    Description::put(PATH, ABOUT, Needs::Nothing).unlisted(),
    Description::patch(PATH, ABOUT, Needs::Nothing).unlisted(),
    Description::delete(PATH, ABOUT, Needs::Nothing).unlisted(),
    Description::new(Method::Options, PATH, ABOUT, Needs::Nothing).unlisted(),
];

pub(super) fn router() -> Router<App> {
    Router::new().route(PATH, get(gone).put(gone).patch(gone).delete(gone).options(gone))
}

async fn gone() -> ApiError {
    ApiError::new(StatusCode::GONE, "Unimplemented", "The v1 API is deprecated. Please use /v2 apis")
}
