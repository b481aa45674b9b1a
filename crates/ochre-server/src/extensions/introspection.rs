//! What a collection's records look like: `…/introspect`.

use std::sync::Arc;
use std::time::Duration;

use ochre_engine::schema::SuggestedTypes;
use ochre_engine::{Against, IntrospectMode, IntrospectRequest};
use ochre_extension::{Access, Answer, ApiExtension, Call, Description, Failure, Operation, Parameter, Permission};
use ochre_wire::metadata_filter;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::error::failure;

/// The parameters of a report.
const PARAMETERS: &[Parameter] = &[
    Parameter::one_of("mode", &["auto", "fast", "full", "sample"]),
    Parameter::count("sample"),
    Parameter::count("seed"),
    Parameter::count("max_ms"),
    Parameter::text("keys"),
    Parameter::text("where"),
    Parameter::flag("values"),
    Parameter::count("offenders"),
    Parameter::count("top"),
    Parameter::flag("quantiles"),
    Parameter::text("format"),
    Parameter::one_of("against", &["declared", "majority"]),
    Parameter::one_of("types", &["majority", "union"]),
    Parameter::text("tenant"),
    Parameter::text("database"),
];
/// So many of them, the last, say where the collection is: unless the path does.
const HOME: usize = 2;
const READ: Access = Access::Scope(Permission::IntrospectRead);

/// The extension.
pub(super) struct Introspection;

impl ApiExtension for Introspection {
    fn name(&self) -> &'static str {
        "introspection"
    }

    fn description(&self) -> &'static str {
        "what a collection's records look like"
    }

    fn operations(self: Arc<Self>) -> Vec<Operation> {
        let description = "What a collection's records look like: keys, types, values, and what is wrong with them";
        let whole = "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/introspect";
        let (own, _) = PARAMETERS.split_at(PARAMETERS.len() - HOME);
        vec![
            Description::get(whole, description, READ).query(own).answers(200, "IntrospectionReport").does(introspect),
            Description::get("/api/v1/collections/{collection}/introspect", description, READ)
                .query(PARAMETERS)
                .answers(200, "IntrospectionReport")
                .does(introspect),
        ]
    }

    fn schemas(&self) -> Map<String, Json> {
        let schema = json!({
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
        Map::from_iter([("IntrospectionReport".to_owned(), schema)])
    }
}

/// Most offending records that are listed for a key.
const OFFENDERS_MAX: usize = 10_000;
/// Most frequent values that are listed for a key.
const TOP_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    #[serde(default)]
    mode: IntrospectMode,
    sample: Option<usize>,
    #[serde(default)]
    seed: u64,
    max_ms: Option<u64>,
    keys: Option<String>,
    #[serde(rename = "where")]
    filter: Option<String>,
    #[serde(default = "yes")]
    values: bool,
    #[serde(default = "twenty")]
    offenders: usize,
    #[serde(default = "ten")]
    top: usize,
    #[serde(default = "yes")]
    quantiles: bool,
    #[serde(default)]
    format: Form,
    #[serde(default)]
    against: Against,
    #[serde(default)]
    types: SuggestedTypes,
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    #[serde(rename = "database")]
    _database: Option<String>,
}

const fn yes() -> bool {
    true
}

const fn ten() -> usize {
    10
}

const fn twenty() -> usize {
    20
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    #[default]
    Json,
    Markdown,
}

impl Parameters {
    fn request(self) -> Result<IntrospectRequest, Failure> {
        if self.sample == Some(0) {
            return Err(Failure::invalid("sample must be at least 1; leave it out to look at every record"));
        }
        for (name, value, most) in [("offenders", self.offenders, OFFENDERS_MAX), ("top", self.top, TOP_MAX)] {
            if value > most {
                return Err(Failure::invalid(format!("{name} is {value}, more than the limit of {most}")));
            }
        }
        let filter = match &self.filter {
            None => None,
            Some(text) => {
                let json = serde_json::from_str(text).map_err(|error| {
                    Failure::invalid(format!("where is not JSON: {error}; in a URL its characters have to be encoded"))
                })?;
                Some(metadata_filter(&json).map_err(failure)?)
            }
        };
        Ok(IntrospectRequest {
            mode: self.mode,
            sample: self.sample,
            seed: self.seed,
            time: self.max_ms.map(Duration::from_millis),
            keys: self.keys.map(|keys| keys.split(',').map(|key| key.trim().to_owned()).collect()),
            filter,
            values: self.values,
            sensitive_keys: true,
            compliance: true,
            offenders: self.offenders,
            top: self.top,
            quantiles: self.quantiles,
            against: self.against,
            types: self.types,
        })
    }
}

fn introspect(call: &Call<'_>) -> Result<Answer, Failure> {
    let parameters: Parameters = call.query()?;
    let form = parameters.format;
    let mut request = parameters.request()?;
    let collection = call.collection()?;
    let row = collection.info()?;
    if request.filter.is_some() {
        // Counts of what passes a filter tell values.
        call.caller().check(Permission::IntrospectValues, &row.tenant, &row.database, &row.name)?;
    }
    let sees_values = call.caller().may(Permission::IntrospectValues, &row.tenant, &row.database, &row.name);
    request.values &= sees_values;
    let mut report = collection.introspect(&request)?;
    if !sees_values {
        // Ids are as much the records' own as their values.
        report.hide_ids();
    }
    match form {
        Form::Json => Answer::json(&report),
        Form::Markdown => Ok(Answer::text("text/markdown; charset=utf-8", report.to_markdown())),
    }
}
