//! From Chroma's `where` and `where_document` to filters.

use std::collections::HashSet;

use ochre_model::budget;
use ochre_model::{DOCUMENT_KEY, DocumentTest, Filter, Scalar, Test};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value as Json};

use crate::Refused;

/// The key that means the document inside `where`.
const DOCUMENT: &str = "#document";
/// The key that means the id in the filter of a search.
const ID: &str = "#id";

fn bad_where() -> Refused {
    Refused::Invalid("Invalid where clause".into())
}

fn bad_document() -> Refused {
    Refused::Invalid("Invalid where document clause".into())
}

/// The filter that a `where` object stands for.
///
/// # Errors
/// [`Refused::Invalid`] in Chroma's words for anything that is no `where`.
pub fn metadata_filter(json: &Json) -> Result<Filter, Refused> {
    let (key, value) = only_entry(json).ok_or_else(bad_where)?;
    match key {
        "$and" => parts(value, metadata_filter, bad_where).map(Filter::All),
        "$or" => parts(value, metadata_filter, bad_where).map(Filter::Any),
        key if key.starts_with('$') => Err(bad_where()),
        DOCUMENT => match value {
            Json::Object(_) => document_filter(value).map_err(|refused| match refused {
                // An operator that documents do not have.
                refused if refused == bad_document() => not_searchable_by_value(),
                refused => refused,
            }),
            _ => Err(not_searchable_by_value()),
        },
        DOCUMENT_KEY => stored_document_filter(value),
        key => Ok(Filter::Key { key: key.to_owned(), test: test(value)? }),
    }
}

/// The filter that the `filter` of a search stands for: a `where` in which `#id` is the record's id.
///
/// # Errors
/// As [`metadata_filter`]; also for a test of ids that is no equality of strings.
pub fn search_filter(json: &Json) -> Result<Filter, Refused> {
    let (key, value) = only_entry(json).ok_or_else(bad_where)?;
    match key {
        "$and" => parts(value, search_filter, bad_where).map(Filter::All),
        "$or" => parts(value, search_filter, bad_where).map(Filter::Any),
        ID => id_filter(value),
        _ => metadata_filter(json),
    }
}

fn id_filter(value: &Json) -> Result<Filter, Refused> {
    let id = |operand: &Scalar| match operand {
        Scalar::Str(id) => Ok(id.clone()),
        _ => Err(Refused::Invalid(format!("Invalid where clause: {ID} is compared with strings"))),
    };
    Ok(match test(value)? {
        Test::Eq(operand) => Filter::Ids([id(&operand)?].into()),
        Test::Ne(operand) => Filter::NotIds([id(&operand)?].into()),
        Test::In(list) => Filter::Ids(list.iter().map(id).collect::<Result<_, _>>()?),
        Test::NotIn(list) => Filter::NotIds(list.iter().map(id).collect::<Result<_, _>>()?),
        _ => {
            return Err(Refused::Invalid(format!("Invalid where clause: {ID} takes $eq, $ne, $in and $nin")));
        }
    })
}

/// The filter that a `where_document` object stands for.
///
/// # Errors
/// [`Refused::Invalid`] in Chroma's words, for a bad pattern with what is wrong in it.
pub fn document_filter(json: &Json) -> Result<Filter, Refused> {
    let (key, value) = only_entry(json).ok_or_else(bad_document)?;
    if key == "$and" {
        return parts(value, document_filter, bad_document).map(Filter::All);
    }
    if key == "$or" {
        return parts(value, document_filter, bad_document).map(Filter::Any);
    }
    if key == "$exists" {
        return value.as_bool().map(has_document).ok_or_else(bad_document);
    }
    let text = value.as_str().ok_or_else(bad_document)?;
    let regex = || compile(text);
    let in_any_case = || {
        compile(&format!("(?i){}", regex::escape(text))).map_err(|_| {
            let length = text.chars().count();
            Refused::Invalid(format!("{key}: a text of {length} characters is too long to be looked for in any case"))
        })
    };
    Ok(Filter::Document(match key {
        "$contains" => DocumentTest::Contains(text.to_owned()),
        "$not_contains" => DocumentTest::NotContains(text.to_owned()),
        "$regex" => DocumentTest::Matches(regex()?),
        "$not_regex" => DocumentTest::NotMatches(regex()?),
        "$icontains" => DocumentTest::Matches(in_any_case()?),
        "$not_icontains" => DocumentTest::NotMatches(in_any_case()?),
        _ => return Err(bad_document()),
    }))
}

/// How large a pattern may be once it is compiled, in bytes: tried from the smallest, so that each counts for about
/// what it takes.
const PATTERN_BYTES: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// How much a pattern may keep in memory while it is used, in bytes.
const PATTERN_CACHE_BYTES_MAX: usize = 256 << 10;

fn compile(text: &str) -> Result<Regex, Refused> {
    for bytes in PATTERN_BYTES {
        let mut pattern = RegexBuilder::new(text);
        match pattern.size_limit(bytes).dfa_size_limit(PATTERN_CACHE_BYTES_MAX).build() {
            Ok(regex) => {
                budget::charge_pattern(bytes).map_err(|exceeded| Refused::Invalid(exceeded.to_string()))?;
                return Ok(regex);
            }
            Err(regex::Error::CompiledTooBig(_)) => {}
            Err(error) => return Err(Refused::Invalid(format!("Regex syntax errror: {error}"))),
        }
    }
    let shown: String = text.chars().take(100).collect();
    Err(Refused::Invalid(format!(
        "the pattern {shown:?} takes more than {} bytes once it is compiled: use shorter repetitions, and [0-9A-Za-z_] for \\w",
        PATTERN_BYTES[PATTERN_BYTES.len() - 1]
    )))
}

/// Records that have a document, or that have none: every document contains the empty text.
fn has_document(wanted: bool) -> Filter {
    let any = String::new();
    Filter::Document(if wanted { DocumentTest::Contains(any) } else { DocumentTest::NotContains(any) })
}

fn not_searchable_by_value() -> Refused {
    Refused::Invalid(format!(
        "Cannot filter using metadata key '{DOCUMENT}' with type 'Str' because indexing is disabled"
    ))
}

/// Equality on the document, as Chroma has it under its stored key.
fn stored_document_filter(value: &Json) -> Result<Filter, Refused> {
    let is = |operand: &Scalar| match operand {
        Scalar::Str(text) => Filter::Document(DocumentTest::Is(text.clone())),
        // A document is a string, so it equals nothing else.
        _ => Filter::Any(Vec::new()),
    };
    let is_not = |operand: &Scalar| match operand {
        Scalar::Str(text) => Filter::Document(DocumentTest::IsNot(text.clone())),
        _ => Filter::All(Vec::new()),
    };
    Ok(match test(value)? {
        Test::Eq(operand) => is(&operand),
        Test::Ne(operand) => is_not(&operand),
        Test::In(list) => Filter::Any(list.iter().map(is).collect()),
        Test::NotIn(list) => Filter::All(list.iter().map(is_not).collect()),
        Test::NotContains(_) => Filter::All(Vec::new()),
        Test::Compare(_, Scalar::Str(_)) | Test::Prefix(_) => {
            return Err(Refused::Invalid(format!(
                "Invalid where clause: {DOCUMENT_KEY} takes $eq, $ne, $in, $nin and $exists"
            )));
        }
        // A document is a string: no number, and no list.
        Test::Compare(..) | Test::Contains(_) | Test::ContainsAll(_) | Test::ContainsAny(_) | Test::Size(_) => {
            Filter::Any(Vec::new())
        }
        Test::Exists => has_document(true),
        Test::Missing => has_document(false),
    })
}

fn test(value: &Json) -> Result<Test, Refused> {
    if !value.is_object() {
        return scalar(value).map(Test::Eq);
    }
    let (operator, operand) = only_entry(value).ok_or_else(bad_where)?;
    let bound = || match scalar(operand)? {
        Scalar::Bool(_) => Err(bad_where()),
        bound => Ok(bound),
    };
    Ok(match operator {
        "$eq" => Test::Eq(scalar(operand)?),
        "$ne" => Test::Ne(scalar(operand)?),
        "$gt" => Test::Compare(Test::GREATER, bound()?),
        "$gte" => Test::Compare(Test::GREATER_OR_EQUAL, bound()?),
        "$lt" => Test::Compare(Test::LESS, bound()?),
        "$lte" => Test::Compare(Test::LESS_OR_EQUAL, bound()?),
        "$in" => Test::In(scalars(operand)?),
        "$nin" => Test::NotIn(scalars(operand)?),
        "$contains" => Test::Contains(scalar(operand)?),
        "$not_contains" => Test::NotContains(scalar(operand)?),
        "$all" => Test::ContainsAll(elements(operand)?),
        "$any" => Test::ContainsAny(elements(operand)?),
        "$prefix" => Test::Prefix(operand.as_str().ok_or_else(bad_where)?.to_owned()),
        "$size" => Test::Size(operand.as_u64().ok_or_else(bad_where)?),
        "$exists" => match operand.as_bool().ok_or_else(bad_where)? {
            true => Test::Exists,
            false => Test::Missing,
        },
        _ => return Err(bad_where()),
    })
}

fn scalar(value: &Json) -> Result<Scalar, Refused> {
    match value {
        Json::Bool(b) => Ok(Scalar::Bool(*b)),
        Json::String(s) => Ok(Scalar::Str(s.clone())),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Ok(Scalar::Int(i)),
            None => n.as_f64().map(Scalar::Float).ok_or_else(bad_where),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => Err(bad_where()),
    }
}

/// A non-empty list of one type, that of its first element; integers may stand among floats.
fn scalars(value: &Json) -> Result<Vec<Scalar>, Refused> {
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(bad_where)?;
    let list = list.iter().map(scalar).collect::<Result<Vec<_>, _>>()?;
    let first = list[0].value_type();
    let fits = |operand: &Scalar| {
        operand.value_type() == first || matches!((&list[0], operand), (Scalar::Float(_), Scalar::Int(_)))
    };
    if list.iter().all(fits) { Ok(list) } else { Err(bad_where()) }
}

/// What is looked for in lists, each once: elements equal only what is of their own type.
fn elements(value: &Json) -> Result<Vec<Scalar>, Refused> {
    let mut operands = scalars(value)?;
    let is_float = matches!(operands.first(), Some(Scalar::Float(_)));
    for operand in &mut operands {
        if let (Scalar::Int(int), true) = (&operand, is_float) {
            #[expect(clippy::cast_precision_loss, reason = "as the first element asks for")]
            let float = *int as f64;
            *operand = Scalar::Float(float);
        }
    }
    let mut seen = HashSet::new();
    operands.retain(|operand| seen.insert(ochre_model::Value::from(operand.clone()).to_json().to_string()));
    Ok(operands)
}

fn parts(
    value: &Json, parse: fn(&Json) -> Result<Filter, Refused>, bad: fn() -> Refused,
) -> Result<Vec<Filter>, Refused> {
    value.as_array().ok_or_else(bad)?.iter().map(parse).collect()
}

fn only_entry(json: &Json) -> Option<(&str, &Json)> {
    let map: &Map<String, Json> = json.as_object().filter(|map| map.len() == 1)?;
    map.iter().next().map(|(key, value)| (key.as_str(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_chroma_accepts_is_accepted() {
        for good in [
            json!({"a": 1}),
            json!({"a": {"$in": [1.5, 1]}}),
            json!({"$and": []}),
            json!({"$or": [{"a": "x"}, {"b": {"$not_contains": true}}]}),
            json!({"#document": {"$regex": "x+"}}),
            json!({"chroma:document": "x"}),
        ] {
            assert!(metadata_filter(&good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_chroma_does_not_have_is_read() {
        let key = |test| format!("{:?}", Filter::Key { key: "a".into(), test });
        let read = |json: Json| metadata_filter(&json).map(|filter| format!("{filter:?}"));
        for (json, test) in [
            (json!({"$gt": "x"}), Test::Compare(Test::GREATER, Scalar::Str("x".into()))),
            (json!({"$prefix": "x"}), Test::Prefix("x".into())),
            (json!({"$size": 2}), Test::Size(2)),
            (json!({"$exists": true}), Test::Exists),
            (json!({"$exists": false}), Test::Missing),
        ] {
            assert_eq!(read(json!({"a": json})), Ok(key(test)));
        }
        let two = vec![Scalar::Float(1.5), Scalar::Float(2.0)];
        assert_eq!(read(json!({"a": {"$all": [1.5, 2, 1.5]}})), Ok(key(Test::ContainsAll(two.clone()))));
        assert_eq!(read(json!({"a": {"$any": [1.5, 2, 2.0]}})), Ok(key(Test::ContainsAny(two))));
        assert_eq!(read(json!({"chroma:document": {"$exists": true}})), read(json!({"#document": {"$exists": true}})));
        let icontains = document_filter(&json!({"$icontains": "É.x"})).expect("is well-formed");
        assert!(icontains.matches("", None, Some("aé.Xb")) && !icontains.matches("", None, Some("éxx")));
    }

    #[test]
    fn what_chroma_refuses_is_refused() {
        for bad in [
            json!({}),
            json!([]),
            json!({"a": 1, "b": 2}),
            json!({"a": null}),
            json!({"a": {}}),
            json!({"a": {"$eq": null}}),
            json!({"a": {"$lt": true}}),
            json!({"a": {"$all": []}}),
            json!({"a": {"$any": [1, "x"]}}),
            json!({"a": {"$prefix": 1}}),
            json!({"a": {"$size": -1}}),
            json!({"a": {"$exists": 1}}),
            json!({"chroma:document": {"$prefix": "x"}}),
            json!({"#document": {"$exists": "x"}}),
            json!({"a": {"$in": []}}),
            json!({"a": {"$in": [1, 1.5]}}),
            json!({"a": {"$in": [1, "x"]}}),
            json!({"a": {"$near": 1}}),
            json!({"$not": []}),
            json!({"#document": "x"}),
        ] {
            assert!(metadata_filter(&bad).is_err(), "{bad}");
        }
        for bad in [json!({}), json!({"$contains": 1}), json!({"$eq": "x"}), json!({"$regex": "("}), json!("x")] {
            assert!(document_filter(&bad).is_err(), "{bad}");
        }
    }
}
