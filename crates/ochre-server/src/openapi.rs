//! The OpenAPI document, put together from operations and the wire types' schemas.

use std::sync::Arc;

use ochre_extension::{Access, ApiExtension, Description, Kind, Parameter};
use ochre_wire as wire;
use serde_json::{Map, Value as Json, json};
use utoipa::OpenApi;

use crate::error::error_schema;
use crate::routes::descriptions;

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
    wire::ForkCountResponse,
    wire::IndexStatusResponse,
    wire::AttachFunctionRequest,
    wire::AttachFunctionResponse,
    wire::GetAttachedFunctionResponse,
    wire::DetachFunctionRequest,
    wire::DetachFunctionResponse,
    wire::ConditionalGetPayload,
    wire::ConditionalCommitPayload,
    wire::ConditionalCommitResult,
    wire::Include,
    wire::admin::memory::MemoryAnswer,
    wire::admin::keys::KeyAnswer,
    wire::admin::keys::KeyList,
    wire::admin::schemas::DeclaredSchema,
    wire::admin::schemas::DeclareSchema,
    wire::admin::schemas::ValidateSchema,
)))]
struct Schemas;

/// The names of the server's own schemas.
pub(crate) fn schemas() -> Vec<String> {
    let own = document(&[])["components"]["schemas"].as_object().map(|schemas| schemas.keys().cloned().collect());
    own.unwrap_or_default()
}

/// The document served at `/openapi.json`.
pub(crate) fn document(extensions: &[Arc<dyn ApiExtension>]) -> Json {
    let mut paths = Map::new();
    let own = extensions.iter().flat_map(|extension| Arc::clone(extension).operations());
    let descriptions = descriptions().chain(own.map(|operation| operation.description));
    for description in descriptions.filter(|description| description.is_listed) {
        let path = paths.entry(description.path).or_insert_with(|| json!({}));
        path[description.method.name().to_lowercase()] = describe(&description);
    }
    let schemas = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    let mut components = schemas["components"].clone();
    components["schemas"]["ErrorResponse"] = error_schema();
    components["schemas"]["FoundRecords"] = crate::routes::find::found_schema();
    components["schemas"]["NewKey"] = new_key_schema();
    components["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer"},
        "token": {"type": "apiKey", "in": "header", "name": "x-chroma-token"},
        "basic": {"type": "http", "scheme": "basic"},
    });
    for extension in extensions {
        for (name, schema) in extension.schemas() {
            components["schemas"][name] = schema;
        }
    }
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

/// What a key is to be.
fn new_key_schema() -> Json {
    json!({
        "type": "object",
        "required": ["name", "grants"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 128},
            "grants": {
                "type": "array", "minItems": 1, "items": {"type": "string"},
                "description": "role:tenant/database/collection, with * for any characters",
            },
            "expires_at": {
                "type": ["string", "integer"], "format": "date-time",
                "description": "From then on it is refused: RFC 3339, or seconds since 1970",
            },
            "requests_per_second": {"type": "integer", "minimum": 1},
            "concurrent_requests": {"type": "integer", "minimum": 1},
            "batch_records": {"type": "integer", "minimum": 1},
            "collections": {"type": "integer", "minimum": 1},
            "collection_records": {"type": "integer", "minimum": 1},
        },
    })
}

fn parameter(Parameter { name, kind }: &Parameter) -> Json {
    let schema = match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Count => json!({"type": "integer", "minimum": 0}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::OneOf(values) => json!({"enum": values}),
    };
    json!({"name": name, "in": "query", "required": false, "schema": schema})
}

fn describe(operation: &Description) -> Json {
    let mut parameters: Vec<Json> = operation
        .path
        .split(['{', '}'])
        .skip(1)
        .step_by(2)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(operation.query.iter().map(parameter));
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
    match operation.access {
        Access::Public => {}
        Access::Authenticated => described["security"] = security(),
        Access::Scope(permission) | Access::Any(permission) | Access::Either(permission, _) => {
            described["security"] = security();
            described["x-permission"] = permission.name().into();
            if let Access::Either(_, instead) = operation.access {
                described["x-permission-to-change-nothing"] = instead.name().into();
            }
        }
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
