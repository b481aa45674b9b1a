//! Query parameters that nobody reads are refused where Ochre's own interfaces are served: a misspelt `dry_run` would
//! else do what it was to try. Chroma's routes ignore what they do not know, as Chroma does.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ochre_engine::scheduler::nearest;
use ochre_extension::{ApiExtension, Description, Parameter};

use crate::error::ApiError;
use crate::routes;

/// What every operation on a collection takes that its path may name without tenant and database.
const HOME: [&str; 2] = ["tenant", "database"];

/// The query parameters of each operation, by method and path.
#[derive(Clone)]
pub(crate) struct QueryParameters(Arc<HashMap<(&'static str, &'static str), &'static [Parameter]>>);

impl QueryParameters {
    /// Those of the server's own operations and of its extensions.
    pub(crate) fn of(extensions: &[Arc<dyn ApiExtension>]) -> Self {
        let own = extensions.iter().flat_map(|extension| Arc::clone(extension).operations());
        let all = routes::descriptions().chain(own.map(|operation| operation.description));
        let strict = all.filter(|description| is_strict(description.path));
        Self(Arc::new(strict.map(|Description { method, path, query, .. }| ((method.name(), path), query)).collect()))
    }

    /// Fails for a parameter that an operation does not have.
    fn check(&self, method: &str, path: &str, query: &str) -> Result<(), ApiError> {
        let method = if method == "HEAD" { "GET" } else { method };
        let operations: &HashMap<(&str, &str), &[Parameter]> = &self.0;
        let Some(parameters) = operations.get(&(method, path)) else { return Ok(()) };
        let names = || parameters.iter().map(|parameter| parameter.name);
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            if names().chain(HOME).any(|own| own == name) {
                continue;
            }
            let shown: String = name.chars().take(100).collect();
            let hint = match nearest(&name, names().chain(HOME)) {
                Some(near) => format!("did you mean '{near}'?"),
                None if parameters.is_empty() => "there are none.".to_owned(),
                None => format!("there are {}.", names().collect::<Vec<_>>().join(", ")),
            };
            return Err(ApiError::invalid(format!(
                "there is no query parameter '{shown}' here; {hint} Nothing was done"
            )));
        }
        Ok(())
    }
}

/// Whether a route is Ochre's own.
fn is_strict(path: &str) -> bool {
    path.starts_with("/_admin/") || path.split('/').any(|part| part == "schema" || part == "introspect")
}

/// Refuses requests with parameters that their operation does not have.
pub(crate) async fn check(State(parameters): State<QueryParameters>, request: Request, next: Next) -> Response {
    let query = request.uri().query().filter(|query| !query.is_empty());
    if let (Some(query), Some(route)) = (query, request.extensions().get::<MatchedPath>())
        && let Err(refused) = parameters.check(request.method().as_str(), route.as_str(), query)
    {
        return refused.into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::extensions::Extensions;

    #[test]
    fn parameters_that_an_operation_does_not_have_are_refused_with_the_nearest() {
        let loaded = Extensions::built_in().load(&Config::default()).unwrap();
        let parameters = QueryParameters::of(loaded.api());
        let check = |method, path, query| parameters.check(method, path, query).map_err(|error| error.to_string());
        let indexes = "/_admin/metadata_indexes";
        assert!(check("POST", indexes, "dryrun=true").unwrap_err().contains("did you mean 'dry_run'?"));
        assert!(check("DELETE", indexes, "colection=nix&confirm=true").unwrap_err().contains("'collection'"));
        assert!(check("GET", "/_admin/memory", "verbose").unwrap_err().contains("there are none"));
        assert_eq!(check("POST", indexes, "dry_run=true&tenant=t"), Ok(()));
        // Chroma's routes take anything.
        assert_eq!(check("GET", "/api/v2/tenants/{tenant}/databases/{database}/collections", "bogus=1"), Ok(()));
    }
}
