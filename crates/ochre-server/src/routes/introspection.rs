//! What a collection's records look like: `…/introspect`.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ochre_engine::{Against, IntrospectMode, IntrospectRequest};
use ochre_wire::metadata_filter;
use serde::Deserialize;

use super::Operation;
use crate::app::{App, Named};
use crate::auth::Caller;
use crate::body::Query;
use crate::error::ApiError;
use ochre_auth::Permission;

/// The parameters of a report.
const PARAMETERS: &[&str] = &[
    "mode",
    "sample",
    "seed",
    "max_ms",
    "keys",
    "where",
    "values",
    "offenders",
    "top",
    "quantiles",
    "format",
    "against",
];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "get",
        path: "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/introspect",
        summary: "What a collection's records look like: keys, types, values, and what is wrong with them",
        request: None,
        response: (200, "IntrospectionReport"),
        query: PARAMETERS,
    },
    Operation {
        method: "get",
        path: "/api/v1/collections/{collection}/introspect",
        summary: "What a collection's records look like; of the default tenant and database unless named",
        request: None,
        response: (200, "IntrospectionReport"),
        query: &[
            "tenant",
            "database",
            "mode",
            "sample",
            "seed",
            "max_ms",
            "keys",
            "where",
            "values",
            "offenders",
            "top",
            "quantiles",
            "format",
            "against",
        ],
    },
];

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/api/v2/tenants/{tenant}/databases/{database}/collections/{collection}/introspect", get(introspect))
        .route("/api/v1/collections/{collection}/introspect", get(introspect))
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
    fn request(self) -> Result<IntrospectRequest, ApiError> {
        if self.sample == Some(0) {
            return Err(ApiError::invalid("sample must be at least 1; leave it out to look at every record"));
        }
        for (name, value, most) in [("offenders", self.offenders, OFFENDERS_MAX), ("top", self.top, TOP_MAX)] {
            if value > most {
                return Err(ApiError::invalid(format!("{name} is {value}, more than the limit of {most}")));
            }
        }
        let filter = match &self.filter {
            None => None,
            Some(text) => {
                let json = serde_json::from_str(text).map_err(|error| {
                    ApiError::invalid(format!("where is not JSON: {error}; in a URL its characters have to be encoded"))
                })?;
                Some(metadata_filter(&json)?)
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
        })
    }
}

async fn introspect(
    State(app): State<App>, caller: Caller, named: Named, Query(parameters): Query<Parameters>,
) -> Result<Response, ApiError> {
    let form = parameters.format;
    let mut request = parameters.request()?;
    app.run(move |database| {
        let collection = named.find(database)?;
        let row = collection.info()?;
        if request.filter.is_some() {
            // Counts of what passes a filter tell values.
            caller.check(Permission::IntrospectValues, &row.tenant, &row.database, &row.name)?;
        }
        request.values &= caller.may(Permission::IntrospectValues, &row.tenant, &row.database, &row.name);
        let report = collection.introspect(&request)?;
        Ok(match form {
            Form::Json => axum::Json(report).into_response(),
            Form::Markdown => {
                ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], report.to_markdown()).into_response()
            }
        })
    })
    .await
}
