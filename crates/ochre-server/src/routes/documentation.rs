//! The API's own description: `/openapi.json`, and a page that shows it at `/docs`.

use std::sync::Arc;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Extension, Router};
use ochre_extension::{Description, Needs};

use crate::app::App;

const PAGE: &str = include_str!("../../assets/docs.html");

pub(super) const OPERATIONS: &[Description] = &[
    Description::get("/openapi.json", "The description of the API", Needs::Nothing).unlisted(),
    Description::get("/docs", "A page that shows it", Needs::Nothing).unlisted(),
    Description::get("/docs/", "A page that shows it", Needs::Nothing).unlisted(),
];

/// The description of the API as it is served: with what extensions add.
#[derive(Clone)]
pub(crate) struct Document(pub(crate) Arc<str>);

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/openapi.json", get(document))
        .route("/docs", get(async || Html(PAGE)))
        .route("/docs/", get(async || Html(PAGE)))
}

async fn document(Extension(Document(document)): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string())
}
