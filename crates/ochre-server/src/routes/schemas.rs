//! The schema a collection declares: read, declared, removed, tried out, and in other tools' forms.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use ochre_engine::model::{DeclarationChange, Metadata, ValidatingParty, ValidationType, Value, check_key};
use ochre_engine::scheduler::nearest;
use ochre_engine::schema::{Compliance, InvalidSchema, doubled_member};
use ochre_engine::{Alteration, Candidate, CollectionRow, Error, IntrospectMode, StoreError, Validation};
use ochre_extension::{Access, Description, Parameter as P, Permission, parse_json};
use ochre_wire::admin::schemas::{DeclaredSchema, ValidateSchema};
use serde::Deserialize;
use serde_json::{Map, Value as Json_, json};

use super::served::Served;
use crate::app::App;
use crate::auth::{Audited, Caller};
use crate::body::{JsonBytes, Query};
use crate::error::ApiError;
use crate::finder;
use crate::paths::CollectionRef;

const BASE: &str = "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/schema";
const BASE_V1: &str = "/api/v1/collections/{collection}/schema";
const V1: &str = "As under /api/v2, of the default tenant and database unless the query names others";

pub(super) fn operations() -> Vec<Served> {
    vec![
        Served::new(Description::get(
        BASE,
        "Get the schema a collection declares, or its fields as json-schema, attribute-info, metadata-info, openapi or mcp",
        Access::Scope(Permission::SchemaRead),
    )
    .answers(200, "DeclaredSchema")
    .query(const { &[P::text("format")] }), read),
        Served::new(Description::put(
        BASE,
        "Declare a schema; the response says how many stored records violate it",
        Access::Scope(Permission::SchemaWrite),
    )
    .takes("DeclareSchema")
    .answers(200, "DeclaredSchema")
    .query(const { &[P::flag("require_clean")] }), declare),
        Served::new(Description::delete(BASE, "Remove the schema a collection declares", Access::Scope(Permission::SchemaWrite)), remove),
        Served::new(Description::post(
        "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/schema/validate",
        "Validate stored records, or a batch that is not stored, against a schema; nothing is changed",
        Access::Scope(Permission::IntrospectValues),
    )
    .takes("ValidateSchema"), validate),
        Served::new(Description::get(BASE_V1, V1, Access::Scope(Permission::SchemaRead)).unlisted(), read),
        Served::new(Description::put(BASE_V1, V1, Access::Scope(Permission::SchemaWrite)).unlisted(), declare),
        Served::new(Description::delete(BASE_V1, V1, Access::Scope(Permission::SchemaWrite)).unlisted(), remove),
        Served::new(Description::post("/api/v1/collections/{collection}/schema/validate", V1, Access::Scope(Permission::IntrospectValues))
        .unlisted(), validate),
    ]
}

fn shown(row: &CollectionRow) -> DeclaredSchema {
    let declaration = row.declaration.as_deref().cloned().unwrap_or_default();
    let schema = match declaration.schema.clone() {
        Some(Json_::String(text)) => serde_json::from_str(&text).ok(),
        schema => schema,
    };
    DeclaredSchema {
        schema,
        validation_type: declaration.mode().name().into(),
        validating_party: declaration.validating_party.unwrap_or_default().name().into(),
        stored_records: None,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    #[serde(default)]
    format: Form,
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    #[serde(rename = "database")]
    _database: Option<String>,
}

/// The forms in which a schema is given.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// As it was declared, and how it is enforced.
    #[default]
    Declared,
    JsonSchema,
    AttributeInfo,
    MetadataInfo,
    Openapi,
    Mcp,
}

async fn read(
    State(app): State<App>, caller: Caller, named: CollectionRef, Query(reading): Query<Reading>, headers: HeaderMap,
) -> Result<Json<Json_>, ApiError> {
    let server = &app.config().server;
    let url = if server.public_url.is_empty() {
        // Where the client found this server is where the tool that reads the document will find it.
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        format!("{}://{host}", if server.tls_certificate.is_empty() { "http" } else { "https" })
    } else {
        server.public_url.trim_end_matches('/').to_owned()
    };
    app.run(move |database| {
        let collection = named.find(database)?;
        if matches!(reading.format, Form::Declared) {
            return Ok(Json(json!(shown(&*collection.info()?))));
        }
        let mode = if sees_values(&caller, &*collection.info()?) { IntrospectMode::Auto } else { IntrospectMode::Fast };
        let fields = finder::fields(&collection, mode)?;
        Ok(Json(match reading.format {
            Form::JsonSchema => fields.json_schema(),
            Form::AttributeInfo => fields.attribute_info(),
            Form::MetadataInfo => fields.metadata_info(),
            Form::Openapi => super::find::document(&fields, named.home(), &url),
            Form::Mcp => json!({"tools": crate::extensions::tools_of(&fields)}),
            Form::Declared => unreachable!("answered above"),
        }))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaring {
    #[serde(default)]
    require_clean: bool,
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    #[serde(rename = "database")]
    _database: Option<String>,
}

/// How often a declaration that requires clean records is tried while others write.
const TRIES_MAX: usize = 16;
/// So many broken rules are listed.
const RULES_MAX: usize = 20;

/// A body that declares: the schema alone, or with how it is to be enforced.
fn change(body: Map<String, Json_>) -> Result<DeclarationChange, ApiError> {
    const MEMBERS: [&str; 3] = ["schema", "validation_type", "validating_party"];
    let is_mode = |value: &Json_| value.as_str().is_some_and(|name| ValidationType::from_name(name).is_some());
    let is_envelope = body.contains_key("schema")
        || body.get("validation_type").is_some_and(is_mode) && body.keys().all(|name| MEMBERS.contains(&name.as_str()));
    if !is_envelope {
        return Ok(DeclarationChange { schema: Some(Some(body.into())), ..DeclarationChange::default() });
    }
    if let Some(unknown) = body.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        let hint = nearest(unknown, MEMBERS.into_iter()).map(|near| format!("; did you mean '{near}'?"));
        let text = format!(
            "there is no member '{unknown}' beside the schema{} There are {}. Nothing was done",
            hint.unwrap_or_else(|| ".".to_owned()),
            MEMBERS.join(", ")
        );
        return Err(ApiError::invalid(text));
    }
    let refused = |name: &str, known: &str, found: &Json_| {
        ApiError::invalid(format!("{name}: expected one of {known}, found {found}"))
    };
    let mut change = DeclarationChange::default();
    for (name, value) in body {
        match name.as_str() {
            "schema" => change.schema = Some(Some(value)),
            "validation_type" => {
                let mode = value.as_str().and_then(ValidationType::from_name);
                let mode = mode.ok_or_else(|| refused(&name, "strict, lax, warn, none", &value))?;
                change.validation_type = Some(Some(mode));
            }
            _ => {
                let party = value.as_str().and_then(ValidatingParty::from_name);
                let party = party.ok_or_else(|| refused(&name, "server, both", &value))?;
                change.validating_party = Some(Some(party));
            }
        }
    }
    Ok(change)
}

/// Whether a caller may see values of a collection's records.
fn sees_values(caller: &Caller, row: &CollectionRow) -> bool {
    caller.may(Permission::IntrospectValues, &row.tenant, &row.database, &row.name)
}

async fn declare(
    State(app): State<App>, caller: Caller, named: CollectionRef, Query(declaring): Query<Declaring>, body: JsonBytes,
) -> Result<Response, ApiError> {
    app.run_write(move |database| {
        // First, since that counts what the body takes.
        let parsed = parse_json(body.bytes())?;
        if let Some(pointer) = doubled_member(body.bytes(), &|_| true) {
            return Err(Error::from(InvalidSchema::doubled(pointer)).into());
        }
        let change = match parsed {
            Json_::Object(members) => change(members)?,
            // What is no object is refused like any other schema, with its place.
            other => DeclarationChange { schema: Some(Some(other)), ..DeclarationChange::default() },
        };
        let collection = named.find(database)?;
        let after = change.apply(collection.info()?.declaration.as_deref().unwrap_or(&Default::default()));
        if after.schema.is_none() {
            return Err(ApiError::invalid("the collection has no schema yet; give one beside validation_type"));
        }
        let row = collection.info()?;
        if !sees_values(&caller, &row) {
            // How many records break a rule tells their values, letter by letter, to who may choose the rules.
            if declaring.require_clean {
                caller.check(Permission::IntrospectValues, &row.tenant, &row.database, &row.name)?;
            }
            let row = collection.alter(Alteration { declaration: change, ..Alteration::default() })?;
            return Ok(audited(&row, Some(shown(&row))));
        }
        let validation = Validation { schema: after.schema.clone(), mode: Some(after.mode()), batch: None };
        for _ in 0..TRIES_MAX {
            let found = collection.validate(&validation)?;
            if declaring.require_clean && found.compliant < found.validated {
                return Err(not_clean(&found));
            }
            // Validated and declared as one: a write in between starts it over.
            let at = declaring.require_clean.then_some(found.position);
            match collection.alter(Alteration { declaration: change.clone(), at, ..Alteration::default() }) {
                Err(Error::Store(StoreError::Stale { .. })) => {}
                Err(error) => return Err(error.into()),
                Ok(row) => return Ok(audited(&row, Some(declared(&row, found)))),
            }
        }
        Err(ApiError::unavailable("the collection is written to faster than it can be validated; try again later"))
    })
    .await
}

/// An answer, with what the audit log says of it.
fn audited(row: &CollectionRow, answer: Option<DeclaredSchema>) -> Response {
    let audited = json!({
        "tenant": row.tenant, "database": row.database, "collection": row.name,
        "validation_type": answer.as_ref().map(|declared| &declared.validation_type),
        "schema": row.declaration.as_ref().and_then(|declaration| declaration.schema.as_ref()),
    });
    let mut response = match answer {
        Some(declared) => Json(declared).into_response(),
        None => Json(json!({})).into_response(),
    };
    response.extensions_mut().insert(Audited(audited));
    response
}

/// What is answered to a declaration.
fn declared(row: &CollectionRow, mut found: Compliance) -> DeclaredSchema {
    found.rules.truncate(RULES_MAX);
    DeclaredSchema { stored_records: Some(json!(found)), ..shown(row) }
}

fn not_clean(found: &Compliance) -> ApiError {
    let rules = found.rules.iter().take(RULES_MAX).map(|rule| {
        let example = rule.ids.first().map_or("", String::as_str);
        format!("{} of {} in {} of them, such as {example:?}", rule.rule, rule.key, rule.count)
    });
    ApiError::invalid(format!(
        "the schema was not declared, since {} of {} stored records break it ({}); repair them, or declare it without require_clean",
        found.validated - found.compliant,
        found.validated,
        rules.collect::<Vec<_>>().join("; ")
    ))
}

async fn remove(State(app): State<App>, named: CollectionRef) -> Result<Response, ApiError> {
    app.run_write(move |database| {
        let declaration = DeclarationChange {
            schema: Some(None),
            validation_type: Some(None),
            validating_party: Some(None),
            ..DeclarationChange::default()
        };
        let row = named.find(database)?.alter(Alteration { declaration, ..Alteration::default() })?;
        Ok(audited(&row, None))
    })
    .await
}

/// The batch that is to be validated, if there is one.
fn batch(given: &ValidateSchema) -> Result<Option<Vec<Candidate>>, ApiError> {
    let count = given.metadatas.as_ref().map(Vec::len).or(given.documents.as_ref().map(Vec::len));
    let Some(count) = count.or(given.ids.as_ref().map(Vec::len)) else { return Ok(None) };
    let is_even = given.ids.as_ref().is_none_or(|ids| ids.len() == count)
        && given.documents.as_ref().is_none_or(|documents| documents.len() == count);
    if !is_even {
        return Err(ApiError::invalid("ids, metadatas and documents must be of one length where they are given"));
    }
    let mut batch = Vec::with_capacity(count);
    for index in 0..count {
        let id = given.ids.as_ref().map_or_else(|| index.to_string(), |ids| ids[index].clone());
        let metadata_given = given.metadatas.as_ref().and_then(|metadatas| metadatas[index].as_ref());
        let mut metadata = Metadata::new();
        for (key, value) in metadata_given.into_iter().flatten() {
            check_key(key).map_err(|error| ApiError::invalid(format!("metadatas: record {index}: {error}")))?;
            let value = Value::from_json(value.clone()).map_err(|_| {
                let text = format!("metadatas: record {index}, key {key:?}: {value} is no metadata value");
                ApiError::invalid(text)
            })?;
            metadata.set(key.clone(), value);
        }
        let document = given.documents.as_ref().and_then(|documents| documents[index].clone());
        batch.push(Candidate { id, metadata: Some(metadata), document });
    }
    Ok(Some(batch))
}

async fn validate(State(app): State<App>, named: CollectionRef, body: JsonBytes) -> Result<Response, ApiError> {
    app.run_read(move |database| {
        let given: ValidateSchema = body.parse_own()?;
        let batch = batch(&given)?;
        let validation = Validation { schema: given.schema, mode: given.validation_type, batch };
        let found = named.find(database)?.validate(&validation)?;
        let mut shown = serde_json::to_value(&found).unwrap_or_default();
        shown["valid"] = (found.compliant == found.validated).into();
        // The name it had before, for one version.
        shown["judged"] = found.validated.into();
        Ok(([(header::CONTENT_TYPE, "application/json")], shown.to_string()).into_response())
    })
    .await
}
