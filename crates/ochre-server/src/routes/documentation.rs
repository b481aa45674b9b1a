//! The API's own description: `/openapi.json`, and a page that shows it at `/docs`.

use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value as Json_;

use crate::app::App;

const PAGE: &str = include_str!("../../assets/docs.html");

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/openapi.json", get(async || Json::<Json_>(crate::openapi::document())))
        .route("/docs", get(async || Html(PAGE)))
        .route("/docs/", get(async || Html(PAGE)))
}
