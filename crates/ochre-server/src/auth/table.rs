//! Which permission each operation needs: the one table.
//!
//! What is not in it needs every permission there is. A test holds it against the routes.

use ochre_auth::Permission;

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: it tells nothing.
    Nothing,
    /// To be somebody.
    Identity,
    /// A permission in the whole place that the path names.
    All(Permission),
    /// A permission somewhere in the place that the path names; the handler asks for the part it acts on.
    Some(Permission),
}

use Needs::{All, Identity, Nothing, Some};
use Permission as P;

/// Method, route and what it needs. Routes are patterns as the router has them; a route of v1 needs what that of v2 does.
const TABLE: &[(&str, &str, Needs)] = &[
    ("GET", "/api/v2", Nothing),
    ("GET", "/api/v2/heartbeat", Nothing),
    ("GET", "/api/v2/healthcheck", Nothing),
    ("GET", "/api/v2/version", Identity),
    ("GET", "/api/v2/pre-flight-checks", Identity),
    ("GET", "/api/v2/auth/identity", Identity),
    ("POST", "/api/v2/reset", All(P::SystemReset)),
    ("POST", "/api/v2/tenants", All(P::TenantWrite)),
    ("GET", "/api/v2/tenants/{tenant}", All(P::TenantRead)),
    ("PATCH", "/api/v2/tenants/{tenant}", All(P::TenantWrite)),
    ("GET", "/api/v2/tenants/{tenant}/databases", Some(P::DatabaseRead)),
    ("POST", "/api/v2/tenants/{tenant}/databases", Some(P::DatabaseWrite)),
    ("GET", "/api/v2/tenants/{tenant}/databases/{database}", All(P::DatabaseRead)),
    ("DELETE", "/api/v2/tenants/{tenant}/databases/{database}", All(P::DatabaseWrite)),
    ("GET", "/api/v2/tenants/{tenant}/databases/{database}/collections", Some(P::CollectionRead)),
    ("POST", "/api/v2/tenants/{tenant}/databases/{database}/collections", Some(P::CollectionWrite)),
    ("GET", "/api/v2/tenants/{tenant}/databases/{database}/collections_count", Some(P::CollectionRead)),
    ("GET", "/api/v2/tenants/{tenant}/databases/{database}/collections/by-id/{collection}", All(P::CollectionRead)),
    ("GET", "/api/v2/collections/{crn}", Some(P::CollectionRead)),
    ("GET", "…", All(P::CollectionRead)),
    ("PUT", "…", All(P::CollectionWrite)),
    ("DELETE", "…", All(P::CollectionWrite)),
    ("POST", "…/add", All(P::RecordWrite)),
    ("POST", "…/update", All(P::RecordWrite)),
    ("POST", "…/upsert", All(P::RecordWrite)),
    ("POST", "…/delete", All(P::RecordWrite)),
    ("POST", "…/get", All(P::RecordRead)),
    ("POST", "…/query", All(P::RecordRead)),
    ("GET", "…/count", All(P::RecordRead)),
    ("GET", "…/find", All(P::RecordRead)),
    ("POST", "…/search", All(P::RecordRead)),
    ("POST", "…/fork", All(P::CollectionWrite)),
    ("GET", "…/fork_count", All(P::CollectionRead)),
    ("GET", "…/indexing_status", All(P::CollectionRead)),
    ("POST", "…/functions/attach", All(P::CollectionWrite)),
    ("GET", "…/functions/{function}", All(P::CollectionRead)),
    ("POST", "…/attached_functions/{function}/detach", All(P::CollectionWrite)),
    ("GET", "…/schema", All(P::SchemaRead)),
    ("PUT", "…/schema", All(P::SchemaWrite)),
    ("DELETE", "…/schema", All(P::SchemaWrite)),
    ("POST", "…/schema/validate", All(P::IntrospectValues)),
    ("GET", "…/introspect", All(P::IntrospectRead)),
    ("GET", "/_admin/memory", All(P::SystemRead)),
    ("GET", "/metrics", All(P::SystemRead)),
    ("GET", "/_admin/jobs", All(P::JobRead)),
    ("GET", "/_admin/jobs/{name}", All(P::JobRead)),
    ("PATCH", "/_admin/jobs/{name}", All(P::JobWrite)),
    ("POST", "/_admin/jobs/{name}/{action}", All(P::JobWrite)),
    // As the description of the API names them.
    ("POST", "/_admin/jobs/{name}/run", All(P::JobWrite)),
    ("POST", "/_admin/jobs/{name}/cancel", All(P::JobWrite)),
    ("POST", "/_admin/jobs/{name}/pause", All(P::JobWrite)),
    ("POST", "/_admin/jobs/{name}/resume", All(P::JobWrite)),
    ("GET", "/_admin/metadata_indexes", Some(P::IndexRead)),
    ("POST", "/_admin/metadata_indexes", Some(P::IndexWrite)),
    ("DELETE", "/_admin/metadata_indexes", Some(P::IndexWrite)),
    ("GET", "/_admin/metadata_indexes/suggestions", Some(P::IndexRead)),
    ("GET", "/_admin/metadata_index/{index_name}", Some(P::IndexRead)),
    ("PUT", "/_admin/metadata_index/{index_name}", Some(P::IndexWrite)),
    ("DELETE", "/_admin/metadata_index/{index_name}", Some(P::IndexWrite)),
    ("POST", "/_admin/metadata_index/{index_name}/rebuild", Some(P::IndexWrite)),
    ("POST", "/_admin/metadata_index/{index_name}/cancel", Some(P::IndexWrite)),
    ("GET", "/_admin/metadata_index/{index_name}/verify", Some(P::IndexRead)),
    ("GET", "/_admin/keys", All(P::KeyRead)),
    ("POST", "/_admin/keys", All(P::KeyWrite)),
    ("GET", "/_admin/keys/{id}", All(P::KeyRead)),
    ("DELETE", "/_admin/keys/{id}", All(P::KeyWrite)),
    ("GET", "/mcp", All(P::ToolUse)),
    ("POST", "/mcp", All(P::ToolUse)),
    ("DELETE", "/mcp", All(P::ToolUse)),
    ("GET", "/openapi.json", Nothing),
    ("GET", "/docs", Nothing),
    ("GET", "/docs/", Nothing),
    ("GET", "/api/v1/{*rest}", Nothing),
    ("PUT", "/api/v1/{*rest}", Nothing),
    ("PATCH", "/api/v1/{*rest}", Nothing),
    ("DELETE", "/api/v1/{*rest}", Nothing),
    ("OPTIONS", "/api/v1/{*rest}", Nothing),
];

/// What `…` stands for.
const COLLECTION: &str = "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}";
const COLLECTION_V1: &str = "/api/v1/collections/{collection}";

/// What a request by this method to this route needs; absent if it is in no table.
pub(crate) fn needs(method: &str, route: &str) -> Option<Needs> {
    let method = if method == "HEAD" { "GET" } else { method };
    let under = route.strip_prefix(COLLECTION).or_else(|| route.strip_prefix(COLLECTION_V1));
    let found = TABLE.iter().find(|(own_method, own_route, _)| {
        *own_method == method
            && match (own_route.strip_prefix('…'), under) {
                (Option::Some(own), Option::Some(under)) => own == under,
                _ => *own_route == route,
            }
    });
    found.map(|(_, _, needs)| *needs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::operations;

    #[test]
    fn every_operation_is_in_the_table() {
        for operation in operations() {
            let needs = needs(&operation.method.to_uppercase(), operation.path);
            assert!(needs.is_some(), "{} {}", operation.method, operation.path);
        }
        assert_eq!(needs("GET", "/api/v2/nothing"), None);
        assert_eq!(needs("PATCH", COLLECTION), None);
    }
}
