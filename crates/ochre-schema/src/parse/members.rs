//! Members of the objects a schema is made of: which there are, and how to read the plain ones.

use ochre_model::Value;
use serde_json::{Map, Value as Json};

use super::at::{At, Parsed};
use crate::validate::nearest;

/// Members that only annotate: read by people, without effect.
pub(super) const ANNOTATIONS: [&str; 6] = ["$schema", "$id", "$comment", "title", "deprecated", "readOnly"];

/// Keywords of JSON Schema that are known and cannot be honoured, with what to do instead.
const UNHONOURED: [(&str, &str); 24] = [
    ("$ref", "write the property out"),
    ("$defs", "write the properties out"),
    ("definitions", "write the properties out"),
    ("$dynamicRef", "write the property out"),
    ("allOf", "write all rules into one property"),
    ("anyOf", "list the types: \"type\": [\"int\", \"string\"]"),
    ("oneOf", "list the types: \"type\": [\"int\", \"string\"]"),
    ("not", "use a CEL validator"),
    ("if", "use a CEL validator"),
    ("then", "use a CEL validator"),
    ("else", "use a CEL validator"),
    ("dependentRequired", "use a CEL validator"),
    ("dependentSchemas", "use a CEL validator"),
    ("dependencies", "use a CEL validator"),
    ("patternProperties", "give a property a name with * in it, such as \"price_*\""),
    ("propertyNames", "use a CEL validator"),
    ("unevaluatedProperties", "use additional"),
    ("unevaluatedItems", "use items"),
    ("prefixItems", "use items: lists hold values of one type"),
    ("contains", "use a CEL validator"),
    ("multipleOf", "use a CEL validator"),
    ("minProperties", "use a CEL validator"),
    ("maxProperties", "use a CEL validator"),
    ("contentEncoding", "use a pattern"),
];

/// Refuses a member that is not known here.
pub(super) fn refuse_unknown(members: &Map<String, Json>, known: &[&str], at: At<'_>) -> Parsed<()> {
    let is_known = |name: &str| known.contains(&name) || ANNOTATIONS.contains(&name);
    let Some(name) = members.keys().find(|name| !is_known(name)) else { return Ok(()) };
    let at = at.to(name);
    if let Some((_, remedy)) = UNHONOURED.iter().find(|(keyword, _)| keyword == name) {
        return at.error(format!("the keyword {name:?} of JSON Schema cannot be honoured; {remedy}"));
    }
    let near = nearest(name, known.iter().copied());
    let hint = near.map_or_else(|| format!("there are {}", known.join(", ")), |near| format!("did you mean {near:?}?"));
    at.error(format!("there is no member {name:?}; {hint}"))
}

/// A metadata value.
pub(super) fn value(given: &Json, at: At<'_>) -> Parsed<Value> {
    match Value::from_json(given.clone()) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => at.error("an empty list cannot be stored; leave it out"),
        Err(_) => at.error(format!("expected a string, number, boolean or list of one type, found {}", kind(given))),
    }
}

pub(super) fn text(members: &Map<String, Json>, name: &str, at: At<'_>) -> Parsed<Option<String>> {
    match members.get(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(other) => at.to(name).error(format!("expected a string, found {}", kind(other))),
    }
}

pub(super) fn flag(members: &Map<String, Json>, name: &str, at: At<'_>) -> Parsed<bool> {
    match members.get(name) {
        None => Ok(false),
        Some(Json::Bool(flag)) => Ok(*flag),
        Some(other) => at.to(name).error(format!("expected true or false, found {}", kind(other))),
    }
}

pub(super) fn count(members: &Map<String, Json>, name: &str, at: At<'_>) -> Parsed<Option<u64>> {
    match members.get(name) {
        None => Ok(None),
        Some(given) => match given.as_u64() {
            Some(count) => Ok(Some(count)),
            None => at.to(name).error(format!("expected a whole number of at least 0, found {given}")),
        },
    }
}

/// A count by our name or by that of JSON Schema.
pub(super) fn either(members: &Map<String, Json>, ours: &str, theirs: &str, at: At<'_>) -> Parsed<Option<u64>> {
    if members.contains_key(ours) && members.contains_key(theirs) {
        return at.to(theirs).error(format!("{ours} is given as well; give one of the two"));
    }
    Ok(count(members, ours, at)?.or(count(members, theirs, at)?))
}

pub(super) const fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}
