//! Finds records by flat typed parameters, made from a collection's schema and from what its records look like: what
//! GPT actions and tools of language models can fill in.

use std::collections::BTreeMap;
use std::time::Duration;

use ochre_engine::model::{Filter, Scalar, Test, ValueType};
use ochre_engine::schema::{Comparison, Fields, Format, Parameter};
use ochre_engine::{
    Collection, GetRequest, Include, IntrospectMode, IntrospectRequest, QueryHit, QueryRequest, Record, TextHit,
};
use ochre_wire::admin::find::{FoundRecord, FoundRecords, Ranking};
use serde_json::{Map, Value as Json, json};

use crate::app::App;
use crate::error::ApiError;
use crate::paths::CollectionRef;

/// How many records are returned unless the request says.
pub(crate) const RECORDS: usize = 10;
/// How many records a request may ask for.
pub(crate) const RECORDS_MAX: usize = 50;
/// How many records a request may skip.
pub(crate) const OFFSET_MAX: usize = 1000;
/// An answer ends before it has more bytes than this: a limit of GPT actions is 100,000 characters.
const ANSWER_BYTES_MAX: usize = 90_000;
/// Documents longer than this, in bytes, are cut.
const DOCUMENT_BYTES_MAX: usize = 20_000;
/// Fields are described by so many values.
const VALUES: usize = 30;
/// How long to look at values to describe fields; what is not looked at by then is described by its type.
const LOOKING: Duration = Duration::from_millis(500);

/// The fields of a collection, by which its records can be searched: in the mode `Fast` without descriptions of their
/// values.
pub(crate) fn fields(collection: &Collection, mode: IntrospectMode) -> Result<Fields, ApiError> {
    let request = IntrospectRequest {
        mode,
        offenders: 0,
        top: VALUES,
        time: Some(LOOKING),
        compliance: false,
        ..IntrospectRequest::default()
    };
    let report = collection.introspect(&request)?;
    Ok(Fields::new(collection.schema()?.as_deref(), &report))
}

/// What to find.
#[derive(Debug, Default)]
pub(crate) struct Search {
    text: Option<String>,
    limit: usize,
    offset: usize,
    filter: Option<Filter>,
}

impl Search {
    /// Reads parameters, each a string or of its own type.
    pub(crate) fn parse(fields: &Fields, given: &Map<String, Json>) -> Result<Self, ApiError> {
        let parameters: BTreeMap<String, Parameter> =
            fields.parameters().into_iter().map(|parameter| (parameter.name.clone(), parameter)).collect();
        let mut search = Self { limit: RECORDS, ..Self::default() };
        let mut filters = Vec::new();
        for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "q" => search.text = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
                "n" => search.limit = count(name, value, 1, RECORDS_MAX)?,
                "offset" => search.offset = count(name, value, 0, OFFSET_MAX)?,
                name => {
                    let Some(parameter) = parameters.get(name) else {
                        let known = parameters.keys().map(String::as_str).chain(["q", "n", "offset"]);
                        let near = ochre_engine::scheduler::nearest(name, known.clone());
                        let hint = near.map_or_else(
                            || format!("there are {}", known.collect::<Vec<_>>().join(", ")),
                            |near| format!("did you mean {near:?}?"),
                        );
                        return Err(ApiError::invalid(format!("there is no parameter {name:?}; {hint}")));
                    };
                    filters.push(filter(parameter, value)?);
                }
            }
        }
        search.filter = match filters.len() {
            0 => None,
            1 => filters.pop(),
            _ => Some(Filter::All(filters)),
        };
        search.text = search.text.filter(|text| !text.trim().is_empty());
        Ok(search)
    }
}

fn count(name: &str, value: &Json, least: usize, most: usize) -> Result<usize, ApiError> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let number =
        number.and_then(|number| usize::try_from(number).ok()).filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| ApiError::invalid(format!("{name} is a whole number from {least} to {most}, found {value}")))
}

/// What a value can be read as, of the types a parameter takes.
fn readings(parameter: &Parameter, value: &Json) -> Vec<Scalar> {
    let text = value.as_str();
    let read = |ty: &ValueType| match ty {
        ValueType::Bool => value.as_bool().or_else(|| text?.parse().ok()).map(Scalar::Bool),
        ValueType::Int => {
            let int = value.as_i64().or_else(|| text?.parse().ok()).map(Scalar::Int);
            // An integer that none can be equal to compares all the same.
            int.or_else(|| whole(value.as_f64().or_else(|| text?.parse().ok())?))
        }
        ValueType::Float => {
            let number = value.as_f64().or_else(|| text?.parse().ok());
            number.filter(|number: &f64| number.is_finite()).map(Scalar::Float)
        }
        _ => text.map(|text| Scalar::Str(text.to_owned())),
    };
    parameter.operands.iter().filter_map(read).collect()
}

/// A number without a fraction.
fn whole(number: f64) -> Option<Scalar> {
    (number.is_finite() && number.fract() == 0.0).then_some(Scalar::Float(number))
}

fn filter(parameter: &Parameter, value: &Json) -> Result<Filter, ApiError> {
    let operands = readings(parameter, value);
    if operands.is_empty() {
        let kind = &parameter.schema["type"];
        return Err(ApiError::invalid(format!("{}: expected a value of type {kind}, found {value}", parameter.name)));
    }
    let known = parameter.schema["enum"].as_array();
    if known.is_some_and(|known| !known.contains(value)) {
        let known = Json::from(known.cloned().unwrap_or_default());
        return Err(ApiError::invalid(format!("{}: expected one of {known}, found {value}", parameter.name)));
    }
    if let Some(format) = parameter.schema["format"].as_str().and_then(Format::from_name)
        && let Some(text) = value.as_str().filter(|text| !format.matches(text))
    {
        let text: String = text.chars().take(100).collect();
        return Err(ApiError::invalid(format!("{}: expected {}, found {text:?}", parameter.name, format.about())));
    }
    let test = |operand: Scalar| match parameter.comparison {
        Comparison::Equal => Test::Eq(operand),
        Comparison::AtLeast => Test::Compare(Test::GREATER_OR_EQUAL, operand),
        Comparison::AtMost => Test::Compare(Test::LESS_OR_EQUAL, operand),
        Comparison::Contains => Test::Contains(operand),
    };
    let mut tests: Vec<Filter> =
        operands.into_iter().map(|operand| Filter::Key { key: parameter.key.clone(), test: test(operand) }).collect();
    Ok(if tests.len() == 1 { tests.remove(0) } else { Filter::Any(tests) })
}

const SHOWN: Include = Include { embeddings: false, documents: true, metadatas: true, uris: false };

/// Finds records: by embedding if the server can make one, else by words; without a text, in the order they were
/// inserted.
pub(crate) async fn find(app: &App, named: CollectionRef, given: Map<String, Json>) -> Result<FoundRecords, ApiError> {
    let home = named.clone();
    let search = app
        .run_read(move |database| Search::parse(&fields(&home.find(database)?, IntrospectMode::Fast)?, &given))
        .await?;
    let embedding = match (&search.text, app.embedding_function()) {
        (Some(text), Some(function)) => Some(function.embed(text).await?),
        _ => None,
    };
    app.run_read(move |database| execute_find(&named.find(database)?, search, embedding)).await
}

/// A record that was found, with its distance or score.
struct Found {
    record: Record,
    rank: Option<f64>,
}

fn execute_find(
    collection: &Collection, search: Search, embedding: Option<Vec<f32>>,
) -> Result<FoundRecords, ApiError> {
    let wanted = search.limit + search.offset;
    let (ranking, found): (Ranking, Vec<Found>) = match (search.text, embedding) {
        (Some(_), Some(embedding)) => {
            let dimension = collection.info()?.dimension;
            if let Some(dimension) = dimension.filter(|dimension| *dimension != embedding.len()) {
                return Err(ApiError::bad_gateway(format!(
                    "the model in [embedding] makes embeddings of {} dimensions, and those of the collection have {dimension}; configure the model that they come from",
                    embedding.len()
                )));
            }
            let mut request = QueryRequest::nearest_to(embedding).k(wanted).include(SHOWN);
            request.filter = search.filter;
            let answer = collection.query(&request)?;
            let hits = answer.results.into_iter().flatten();
            let found = |hit: QueryHit| Found { record: hit.record, rank: Some(f64::from(hit.distance)) };
            (Ranking::Distance, hits.map(found).collect())
        }
        (Some(text), None) => {
            let hits = collection.search_text(&text, search.filter.as_ref(), wanted, SHOWN)?;
            let found = |hit: TextHit| Found { record: hit.record, rank: Some(f64::from(hit.score)) };
            (Ranking::Words, hits.into_iter().map(found).collect())
        }
        (None, _) => {
            let limit = u32::try_from(wanted).ok();
            let request = GetRequest { filter: search.filter, limit, include: SHOWN, ..GetRequest::default() };
            (Ranking::None, collection.get(&request)?.into_iter().map(|record| Found { record, rank: None }).collect())
        }
    };
    let schema = collection.schema()?;
    let is_sensitive =
        |key: &str| schema.as_ref().and_then(|schema| schema.property(key)).is_some_and(|property| property.sensitive);
    let is_sensitive_document =
        schema.as_ref().and_then(|schema| schema.document.as_ref()).is_some_and(|property| property.sensitive);
    let (mut records, mut bytes, mut truncated) = (Vec::new(), 0, false);
    for Found { record, rank } in found.into_iter().skip(search.offset) {
        let metadata = record.metadata.and_then(|metadata| serde_json::from_str(metadata.as_json()).ok());
        let metadata = metadata.map(|mut metadata: Map<String, Json>| {
            metadata.retain(|key, _| !is_sensitive(key));
            metadata
        });
        let mut document = record.document.filter(|_| !is_sensitive_document);
        if let Some(long) = document.as_mut().filter(|text| text.len() > DOCUMENT_BYTES_MAX) {
            // One long document must not hide all that come after it.
            *long = long.chars().take(DOCUMENT_BYTES_MAX / 4).chain(['…']).collect();
            truncated = true;
        }
        let distance = rank.filter(|_| ranking == Ranking::Distance);
        let score = rank.filter(|_| ranking == Ranking::Words);
        let found = FoundRecord { id: record.id, document, metadata, distance, score };
        bytes += json!(found).to_string().len();
        if bytes > ANSWER_BYTES_MAX {
            truncated = true;
            break;
        }
        records.push(found);
    }
    Ok(FoundRecords { records, ranking, truncated })
}
