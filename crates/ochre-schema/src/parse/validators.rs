//! Custom validators: regular expressions, CEL expressions and functions by name.

use regex::RegexBuilder;
use serde_json::{Map, Value as Json};

use super::at::{At, Parsed};
use super::members::{kind, refuse_unknown, text};
use crate::validator::{Expression, Test, Validator};

/// How much a pattern may take in memory once it is compiled, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;

pub(super) fn validators(members: &Map<String, Json>, at: At<'_>, of_key: bool) -> Parsed<Vec<Validator>> {
    let Some(given) = members.get("validators") else { return Ok(Vec::new()) };
    let at = at.to("validators");
    let Json::Array(list) = given else {
        return at.error(format!("expected a list such as [{{\"cel\": \"value > 0\"}}], found {}", kind(given)));
    };
    list.iter().enumerate().map(|(index, given)| validator(given, at.to(&index.to_string()), of_key)).collect()
}

fn validator(given: &Json, at: At<'_>, of_key: bool) -> Parsed<Validator> {
    let Json::Object(members) = given else {
        return at.error(format!("expected an object such as {{\"cel\": \"value > 0\"}}, found {}", kind(given)));
    };
    refuse_unknown(members, &["regex", "cel", "function", "message", "on_error"], at)?;
    let tests: Vec<&str> =
        ["regex", "cel", "function"].into_iter().filter(|name| members.contains_key(*name)).collect();
    let [name] = tests[..] else {
        return at.error(format!("expected exactly one of regex, cel and function, found {}", tests.len()));
    };
    let here = at.to(name);
    let test = match (name, text(members, name, at)?.unwrap_or_default()) {
        ("regex", _) if !of_key => return here.error("a regex is for the value of a key; put it into a property"),
        ("regex", _) => Test::Regex(regex(&members["regex"], here)?),
        ("cel", expression) => match Expression::parse(&expression) {
            Ok(expression) if !of_key && expression.names_value() => {
                return here.error("value is the value of a key; here name it through record, such as record.year");
            }
            Ok(expression) => match expression.gives_instead_of_a_boolean() {
                Some(instead) if !at.is_stored => {
                    return here.error(format!(
                        "the expression gives {instead}, never true or false: compare it with something, such as size(value) > 0"
                    ));
                }
                _ => Test::Cel(expression.into()),
            },
            Err(problem) => return here.error(problem),
        },
        (_, function) => Test::Function(function),
    };
    let accepts_on_error = match text(members, "on_error", at)?.as_deref() {
        None | Some("refuse") => false,
        Some("accept") => true,
        Some(other) => return at.to("on_error").error(format!("expected refuse or accept, found {other:?}")),
    };
    Ok(Validator { test, message: text(members, "message", at)?, accepts_on_error })
}

pub(super) fn regex(given: &Json, at: At<'_>) -> Parsed<regex::Regex> {
    let Json::String(pattern) = given else {
        return at.error(format!("expected a regular expression, found {}", kind(given)));
    };
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().or_else(|error| {
        at.error(format!("the regular expression cannot be used (no look-around, no back-references): {error}"))
    })
}
