//! The API's own description: `/openapi.json`, and a page that shows it at `/docs`.

use std::sync::Arc;

use axum::Extension;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use ochre_extension::{Access, Description};

use super::served::Served;

const PAGE: &str = include_str!("../../assets/docs.html");

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(
            Description::get("/openapi.json", "Get the OpenAPI description", Access::Public).unlisted(),
            document,
        ),
        Served::new(Description::get("/docs", "A page that shows it", Access::Public).unlisted(), page),
        Served::new(Description::get("/docs/", "A page that shows it", Access::Public).unlisted(), page),
    ]
}

/// The description of the API as it is served: with what extensions add.
#[derive(Clone)]
pub(crate) struct Document(pub(crate) Arc<str>);

async fn document(Extension(Document(document)): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string())
}

async fn page() -> Html<&'static str> {
    Html(PAGE)
}
