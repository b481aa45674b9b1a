//! Requests for nothing: below `/_admin` they are told what they probably meant. Elsewhere the answer is empty, as
//! Chroma's is.

use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ochre_engine::scheduler::nearest;

use crate::error::ApiError;

const ADMIN: &str = "/_admin";

/// Answers a request for a path that is not served, among `paths`.
pub(crate) fn not_found(uri: &Uri, paths: &[&'static str]) -> Response {
    let path = uri.path();
    if path != ADMIN && !path.starts_with("/_admin/") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let shown: String = path.chars().take(100).collect();
    let near = nearest_path(path, paths);
    let hint =
        near.map_or_else(|| "; /openapi.json lists what there is".to_owned(), |near| format!("; did you mean {near}?"));
    ApiError::new(StatusCode::NOT_FOUND, "NotFoundError", format!("there is nothing at {shown}{hint}")).into_response()
}

/// The path of as many parts that is most like this one; its parameters are like anything.
fn nearest_path(path: &str, paths: &[&'static str]) -> Option<&'static str> {
    let parts: Vec<&str> = path.split('/').collect();
    let filled = |known: &'static str| -> Option<(String, &'static str)> {
        let own: Vec<&str> = known.split('/').collect();
        let filled = own.iter().zip(&parts).map(|(own, part)| if own.starts_with('{') { *part } else { *own });
        (own.len() == parts.len()).then(|| (filled.collect::<Vec<_>>().join("/"), known))
    };
    let filled: Vec<(String, &'static str)> = paths.iter().filter_map(|known| filled(known)).collect();
    let near = nearest(path, filled.iter().map(|(text, _)| text.as_str()))?;
    filled.into_iter().find(|(text, _)| *text == near).map(|(_, known)| known)
}

/// Below `/_admin` a slash at the end of a path means nothing.
pub(crate) async fn without_slash_at_the_end(mut request: Request, next: Next) -> Response {
    let uri = request.uri();
    if uri.path().starts_with("/_admin/") && uri.path().ends_with('/') {
        let path = uri.path().trim_end_matches('/');
        let trimmed = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        if let Ok(trimmed) = trimmed.parse() {
            *request.uri_mut() = trimmed;
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_misspelt_finds_the_one_that_was_meant() {
        let paths =
            ["/_admin/jobs", "/_admin/jobs/{job}", "/_admin/jobs/{job}/run", "/_admin/metadata_index/{index_name}"];
        let near = |path| nearest_path(path, &paths);
        assert_eq!(near("/_admin/jbos"), Some("/_admin/jobs"));
        assert_eq!(near("/_admin/jobs/vacuum/rnu"), Some("/_admin/jobs/{job}/run"));
        assert_eq!(near("/_admin/metadata_indexes/color"), Some("/_admin/metadata_index/{index_name}"));
        assert_eq!(near("/_admin/jobs/vacuum/run/now"), None);
        assert_eq!(near("/_admin/quite-another-thing"), None);
    }
}
