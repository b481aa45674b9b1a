//! The OpenAPI document, put together from the routes' operations and the wire types' schemas.

use ochre_wire as wire;
use serde_json::{Map, Value as Json, json};
use utoipa::OpenApi;

use crate::auth::{self, Needs};
use crate::routes::{Operation, operations};

#[derive(OpenApi)]
#[openapi(components(schemas(
    wire::CreateTenantPayload,
    wire::UpdateTenantPayload,
    wire::CreateDatabasePayload,
    wire::Database,
    wire::CreateCollectionPayload,
    wire::UpdateCollectionPayload,
    wire::Collection,
    wire::AddCollectionRecordsPayload,
    wire::UpdateCollectionRecordsPayload,
    wire::UpsertCollectionRecordsPayload,
    wire::DeleteCollectionRecordsPayload,
    wire::GetRequestPayload,
    wire::QueryRequestPayload,
    wire::SearchRequestPayload,
    wire::ForkCollectionPayload,
    wire::Include,
)))]
struct Schemas;

/// The document served at `/openapi.json` and kept in `docs/reference/openapi.json`.
pub fn document() -> Json {
    let mut paths = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    let schemas = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    let mut components = schemas["components"].clone();
    components["schemas"]["ErrorResponse"] = error_schema();
    components["schemas"]["FoundRecords"] = crate::routes::find::found_schema();
    components["schemas"]["IntrospectionReport"] = json!({
        "type": "object",
        "required": ["collection", "records", "keys", "warnings", "suggested_schema"],
        "properties": {
            "collection": {"type": "string"},
            "records": {"type": "integer"},
            "mode": {"enum": ["fast", "full", "sample"]},
            "truncated": {"type": "boolean"},
            "keys": {"type": "array", "items": {"type": "object"}},
            "warnings": {"type": "array", "items": {"type": "object"}},
            "suggested_schema": {"type": "object"},
        },
    });
    let modes = json!({"enum": ["strict", "lax", "warn", "none"]});
    components["schemas"]["DeclaredSchema"] = json!({
        "type": "object",
        "required": ["schema", "validation_type", "validating_party"],
        "properties": {
            "schema": {"type": ["object", "null"]},
            "validation_type": modes,
            "validating_party": {"enum": ["server", "both"]},
            "stored_records": {"type": "object", "description": "How the stored records stand to it; after declaring"},
        },
    });
    components["schemas"]["DeclareSchema"] = json!({
        "type": "object",
        "description": "The schema alone, or with how it is to be enforced",
        "properties": {
            "schema": {"type": "object"},
            "validation_type": modes,
            "validating_party": {"enum": ["server", "both"]},
        },
    });
    components["schemas"]["ValidateSchema"] = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "schema": {"type": "object", "description": "The declared one if absent"},
            "validation_type": modes,
            "ids": {"type": "array", "items": {"type": "string"}},
            "metadatas": {"type": "array", "items": {"type": ["object", "null"]}, "description": "A batch; the stored records if absent"},
            "documents": {"type": "array", "items": {"type": ["string", "null"]}},
        },
    });
    components["schemas"]["MetadataIndex"] = metadata_index();
    components["schemas"]["MetadataIndexes"] = json!({
        "oneOf": [
            {"$ref": "#/components/schemas/MetadataIndex"},
            {"type": "array", "items": {"$ref": "#/components/schemas/MetadataIndex"}},
        ],
    });
    components["schemas"]["NewKey"] = json!({
        "type": "object",
        "required": ["name", "grants"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 128},
            "grants": {
                "type": "array", "minItems": 1, "items": {"type": "string"},
                "description": "role:tenant/database/collection, with * for any characters",
            },
            "expires_at": {"type": "integer", "description": "Seconds since 1970"},
            "requests_per_second": {"type": "integer", "minimum": 1},
            "concurrent_requests": {"type": "integer", "minimum": 1},
            "batch_records": {"type": "integer", "minimum": 1},
        },
    });
    components["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer"},
        "token": {"type": "apiKey", "in": "header", "name": "x-chroma-token"},
        "basic": {"type": "http", "scheme": "basic"},
    });
    components["schemas"]["JobChange"] = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "interval": {"type": "string", "description": "Every so often: 30s, 5m, 2h, 7d"},
            "cron": {"type": "string", "description": "By calendar: five fields, six with seconds first, seven with a year last"},
            "zone": {"type": "string", "description": "The IANA time zone of the cron expression; UTC unless given"},
            "once": {"type": "string", "format": "date-time"},
            "enabled": {"type": "boolean"},
            "policies": {"type": "object", "description": "Those named are changed; null means the default"},
            "knobs": {"type": "object", "description": "Those named are changed; null means the default"},
        },
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ochre",
            "description": "An embedding database that looks after itself, speaking Chroma's HTTP API.",
            "version": crate::API_VERSION,
            "license": {"name": "Apache-2.0"},
        },
        "paths": paths,
        "components": components,
    })
}

/// What a metadata index is declared to be.
fn metadata_index() -> Json {
    json!({
        "type": "object",
        "required": ["index_name", "columns", "collection"],
        "additionalProperties": false,
        "properties": {
            "index_name": {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$"},
            "tenant": {"type": "string"},
            "database": {"type": "string"},
            "collection": {"type": "string", "description": "By name or id; PUT keeps it if it is left out"},
            "columns": {
                "type": "array",
                "minItems": 1,
                "maxItems": 8,
                "items": {"oneOf": [
                    {"type": "string"},
                    {
                        "type": "object", "required": ["key"], "additionalProperties": false,
                        "properties": {"key": {"type": "string"}, "type": {"type": "string"}},
                    },
                ]},
                "description": "Metadata keys in the order of lookups; string_value, int_value, float_value and bool_value are every key of a type",
            },
            "where": {"type": "object", "description": "Only records that pass this filter"},
            "hidden": {"type": "boolean"},
            "comment": {"type": "string"},
            "kind": {"enum": ["auto", "ordered"]},
        },
    })
}

/// The schema of every answer that is an error.
pub(crate) fn error_schema() -> Json {
    json!({
        "type": "object",
        "required": ["error", "message"],
        "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    })
}

/// The type of a query parameter, by its name.
fn parameter_schema(name: &str) -> Json {
    match name {
        "limit" | "offset" | "history" | "sample" | "seed" | "max_ms" | "offenders" | "top" | "n" => {
            json!({"type": "integer", "minimum": 0})
        }
        "values" | "quantiles" | "require_clean" | "dry_run" | "replace" | "confirm" | "explain" | "analyze" => {
            json!({"type": "boolean"})
        }
        "mode" => json!({"enum": ["auto", "fast", "full", "sample"]}),
        "against" => json!({"enum": ["declared", "majority"]}),
        "strategy" => json!({"enum": ["auto", "exact", "scan", "graph"]}),
        _ => json!({"type": "string"}),
    }
}

fn describe(operation: &Operation) -> Json {
    let mut parameters: Vec<Json> = operation
        .path
        .split(['{', '}'])
        .skip(1)
        .step_by(2)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(
        operation
            .query
            .iter()
            .map(|name| json!({"name": name, "in": "query", "required": false, "schema": parameter_schema(name)})),
    );
    let (status, answer) = operation.response;
    let error = json!({
        "description": "What was wrong",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}},
    });
    let mut described = json!({
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            status.to_string(): {"description": operation.summary, "content": {"application/json": {"schema": schema(answer)}}},
            "default": error,
        },
    });
    match auth::needs(&operation.method.to_uppercase(), operation.path) {
        Some(Needs::Nothing) => {}
        Some(Needs::Identity) => described["security"] = security(),
        Some(Needs::All(permission) | Needs::Some(permission)) => {
            described["security"] = security();
            described["x-permission"] = permission.name().into();
        }
        None => described["security"] = security(),
    }
    if let Some(request) = operation.request {
        let reference = format!("#/components/schemas/{request}");
        described["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": {"$ref": reference}}}});
    }
    described
}

/// Any of the ways to say who asks; on a server that asks.
fn security() -> Json {
    json!([{"bearer": []}, {"token": []}, {"basic": []}])
}

fn schema(name: &str) -> Json {
    match name {
        "object" | "string" | "integer" | "boolean" => json!({"type": name}),
        name => match name.strip_prefix("Vec_") {
            Some(item) => json!({"type": "array", "items": {"$ref": format!("#/components/schemas/{item}")}}),
            None => json!({"$ref": format!("#/components/schemas/{name}")}),
        },
    }
}
