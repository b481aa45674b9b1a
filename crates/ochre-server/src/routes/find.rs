//! Finding records by flat parameters: `…/find?q=…&year_gte=1990`, and the OpenAPI document that describes it for one
//! collection, within the limits of GPT actions.

use axum::Json;
use axum::extract::{RawQuery, State};
use ochre_engine::schema::Fields;
use ochre_extension::{Access, Description, Parameter as P, Permission};
use ochre_wire::admin::find::FoundRecords;
use serde_json::{Map, Value as Json_, json};

use super::served::Served;
use crate::app::App;
use crate::error::ApiError;
use crate::finder::{OFFSET_MAX, RECORDS, RECORDS_MAX, find};
use crate::paths::CollectionRef;

const PATH: &str = "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/find";
/// The longest summary or description of an operation, in characters (a limit of GPT actions).
const SUMMARY_MAX: usize = 300;

pub(super) fn operations() -> Vec<Served> {
    vec![Served::new(
        Description::get(
            PATH,
            "Find records by text and by parameters made from the collection's keys",
            Access::Scope(Permission::RecordRead),
        )
        .answers(200, "FoundRecords")
        .query(const { &[P::text("q"), P::count("n"), P::count("offset")] }),
        find_records,
    )]
}

async fn find_records(
    State(app): State<App>, named: CollectionRef, RawQuery(query): RawQuery,
) -> Result<Json<FoundRecords>, ApiError> {
    let mut given = Map::new();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if given.insert(name.to_string(), value.as_ref().into()).is_some() {
            return Err(ApiError::invalid(format!("{name} is given twice")));
        }
    }
    Ok(Json(find(&app, named, given).await?))
}

/// The schema of an answer.
pub(crate) fn found_schema() -> Json_ {
    json!({
        "type": "object",
        "required": ["records", "ranking", "truncated"],
        "properties": {
            "records": {"type": "array", "items": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": {"type": "string"},
                    "document": {"type": ["string", "null"]},
                    "metadata": {"type": ["object", "null"]},
                    "distance": {"type": "number", "description": "Smaller is nearer"},
                    "score": {"type": "number", "description": "Larger fits better"},
                },
            }},
            "ranking": {"type": "string", "enum": ["distance", "words", "none"]},
            "truncated": {"type": "boolean", "description": "Whether records were left out to keep the answer short"},
        },
    })
}

/// The schemas of the parameters that every collection has.
pub(crate) fn common_parameters() -> [(&'static str, Json_); 3] {
    [
        ("q", json!({"type": "string", "description": "What to look for, in words"})),
        (
            "n",
            json!({"type": "integer", "minimum": 1, "maximum": RECORDS_MAX, "default": RECORDS, "description": "How many records"}),
        ),
        (
            "offset",
            json!({"type": "integer", "minimum": 0, "maximum": OFFSET_MAX, "default": 0, "description": "How many to skip"}),
        ),
    ]
}

/// An OpenAPI 3.1 document for one collection.
pub(super) fn document(fields: &Fields, [tenant, database]: [&str; 2], server: &str) -> Json_ {
    let encode = |part: &str| form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>().replace('+', "%20");
    let path = format!(
        "/api/v2/tenants/{}/databases/{}/collections/{}/find",
        encode(tenant),
        encode(database),
        encode(&fields.collection)
    );
    let own = fields.parameters().into_iter().map(|parameter| (parameter.name, parameter.schema));
    let common = common_parameters().into_iter().map(|(name, schema)| (name.to_owned(), schema));
    let parameters: Vec<Json_> = common
        .chain(own)
        .map(|(name, mut schema)| {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema})
        })
        .collect();
    let name: String = fields.collection.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let error = |description: &str| {
        let schema = json!({"$ref": "#/components/schemas/ErrorResponse"});
        json!({"description": description, "content": {"application/json": {"schema": schema}}})
    };
    let cut = |text: &str| text.chars().take(SUMMARY_MAX).collect::<String>();
    json!({
        "openapi": "3.1.0",
        "info": {"title": fields.collection, "description": cut(&fields.description), "version": crate::API_VERSION},
        "servers": [{"url": server}],
        "paths": {path: {"get": {
            "operationId": format!("find_{name}"),
            "summary": cut(&format!("Find records of {}", fields.collection)),
            "description": cut(&fields.description),
            "x-openai-isConsequential": false,
            // A key may be sent; nobody asks for one while the server has no authentication.
            "security": [{"key": []}, {}],
            "parameters": parameters,
            "responses": {
                "200": {
                    "description": "The records that fit, best first",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FoundRecords"}}},
                },
                "400": error("A parameter is wrong; the message says which and why"),
                "404": error("The collection is gone"),
            },
        }}},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"FoundRecords": found_schema(), "ErrorResponse": crate::error::error_schema()},
        },
    })
}
