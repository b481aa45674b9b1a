//! How a read is planned and answered: its parameters in the query string, whether it is short, and the headers
//! and rows of its answer.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ochre_engine::model::Filter;
use ochre_engine::{Collection, FilterWarnings, Hints, IndexDefinition, Record, Strategy};
use ochre_extension::{Parameter as P, unindexed_text};
use ochre_wire::Row;
use serde_json::Value as Json_;

use crate::error::ApiError;
use crate::sending::charged;

/// What in a filter can never match what the schema declares.
const WARNINGS_HEADER: HeaderName = HeaderName::from_static("x-schema-warnings");
/// That no declared index answers a filter.
const INDEXES_HEADER: HeaderName = HeaderName::from_static("x-index-warnings");
/// The longest value of such a header, in characters.
const WARNING_CHARACTERS_MAX: usize = 1000;
/// A read that is started on the thread that took the request returns at most this many records.
const RETURNED_IN_PLACE_MAX: usize = 300;
/// How a query may be answered and explained; the last is about vectors, and not for get.
pub(super) const PLANNING: &[P] = &[
    P::flag("explain"),
    P::flag("analyze"),
    P::text("use_index"),
    P::text("ignore_index"),
    P::text("hypothetical_indexes"),
    P::one_of("strategy", &["auto", "exact", "scan", "graph"]),
];

/// How a read is to be planned and whether it is to be explained: parts of the query string.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(super) struct Planning {
    #[serde(default)]
    explain: bool,
    #[serde(default)]
    analyze: bool,
    use_index: Option<String>,
    ignore_index: Option<String>,
    hypothetical_indexes: Option<String>,
    strategy: Option<String>,
}

impl Planning {
    pub(super) fn is_explained(&self) -> bool {
        self.explain || self.analyze
    }

    pub(super) fn hints(&self, collection: &Collection) -> Result<Hints, ApiError> {
        let ignored = self.ignore_index.iter().flat_map(|names| names.split(',')).map(str::to_owned).collect();
        let mut hints = Hints { use_index: self.use_index.clone(), ignore_indexes: ignored, ..Hints::default() };
        let named = hints.use_index.iter().map(|name| ("use_index", name));
        let ignored = hints.ignore_indexes.iter().filter(|name| *name != "*").map(|name| ("ignore_index", name));
        for (parameter, name) in named.chain(ignored) {
            check_index_name(collection, parameter, name)?;
        }
        if let Some(text) = &self.hypothetical_indexes {
            let list: Vec<Json_> = serde_json::from_str(text).map_err(|error| {
                ApiError::invalid(format!("hypothetical_indexes: expected a list of indexes as JSON: {error}"))
            })?;
            for mut definition in list {
                if let Some(members) = definition.as_object_mut() {
                    members.entry("index_name").or_insert_with(|| "hypothetical".into());
                }
                hints.hypothetical.push(collection.hypothetical_index(&IndexDefinition::from_json(definition)?)?);
            }
        }
        Ok(hints)
    }

    pub(super) fn strategy(&self) -> Result<Option<Strategy>, ApiError> {
        Ok(match self.strategy.as_deref() {
            None | Some("auto") => None,
            Some("exact") => Some(Strategy::Exact),
            Some("scan") => Some(Strategy::Scan),
            Some("graph") => Some(Strategy::Graph),
            Some(other) => {
                return Err(ApiError::invalid(format!(
                    "strategy: there is no {other:?}; there are auto, exact, scan and graph"
                )));
            }
        })
    }
}

/// Whoever names an index means one that there is.
fn check_index_name(collection: &Collection, parameter: &str, name: &str) -> Result<(), ApiError> {
    let names = collection.metadata_index_names()?;
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let known = if names.is_empty() { "has none".to_owned() } else { format!("has {}", names.join(", ")) };
    Err(ApiError::invalid(format!("{parameter}: the collection has no metadata index '{name}'; it {known}")))
}

/// Whether a read probably takes at most some milliseconds: the collection is in memory, few records are returned,
/// `each` for each of the `searches`, and no pattern is matched, since nothing bounds what one step of that takes.
pub(super) fn is_short(collection: Option<&Collection>, filter: Option<&Filter>, searches: usize, each: usize) -> bool {
    if filter.is_some_and(Filter::has_pattern) {
        return false;
    }
    let Some(records) = collection.and_then(Collection::loaded_records) else { return false };
    searches <= RETURNED_IN_PLACE_MAX && searches.saturating_mul(each.min(records)) <= RETURNED_IN_PLACE_MAX
}

/// Tells beside an answer what in the filter can never match, and that no index answers it.
pub(super) fn with_warnings(mut response: Response, warnings: &FilterWarnings) -> Response {
    let never_match = Some(warnings.never_match.join("; ")).filter(|text| !text.is_empty());
    for (header, found) in
        [(WARNINGS_HEADER, never_match), (INDEXES_HEADER, warnings.unindexed.as_ref().map(unindexed_text))]
    {
        let Some(found) = found else { continue };
        let text: String = found.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect();
        let text: String = text.chars().take(WARNING_CHARACTERS_MAX).collect();
        if let Ok(text) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header, text);
        }
    }
    response
}

pub(super) fn json_bytes(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], charged(bytes)).into_response()
}

/// A record in an answer.
pub(super) struct RowView {
    pub(super) record: Record,
    pub(super) distance: Option<f32>,
}

impl Row for RowView {
    fn id(&self) -> &str {
        &self.record.id
    }

    fn embedding(&self) -> Option<&[f32]> {
        self.record.embedding.as_deref()
    }

    fn document(&self) -> Option<&str> {
        self.record.document.as_deref()
    }

    fn metadata(&self) -> Option<&str> {
        self.record.metadata.as_ref().map(ochre_engine::StoredMetadata::as_json)
    }

    fn uri(&self) -> Option<&str> {
        self.record.uri.as_deref()
    }

    fn distance(&self) -> Option<f32> {
        self.distance
    }
}
