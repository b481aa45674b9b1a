//! Requests that help, as errors and suggestions name them.

use ochre_engine::{IndexDefinition, UnindexedFilter, UnindexedRemedy};
use ochre_wire::admin::indexes::ReadyRequest;
use serde_json::json;

/// The request that declares an index.
pub(crate) fn declaring(definition: &IndexDefinition) -> ReadyRequest {
    let body = json!({
        "index_name": definition.index_name, "tenant": definition.tenant, "database": definition.database,
        "collection": definition.collection, "columns": definition.columns,
    });
    ReadyRequest { method: "POST".into(), path: "/_admin/metadata_indexes".into(), body: Some(body) }
}

/// That no index answers a filter, with the request that helps.
pub(crate) fn unindexed_text(found: &UnindexedFilter) -> String {
    let UnindexedRemedy::Declare(definition) = &found.remedy else { return found.to_string() };
    let request = declaring(definition);
    let body = request.body.unwrap_or_default();
    format!(
        "where: no metadata index answers this filter, and the collection has {} records; declare one: {} {} {body}",
        found.records, request.method, request.path
    )
}
