//! Validates records: what breaks which rule, and, by the mode, whether that refuses the write.
//!
//! Pure: the same record, schema and mode give the same verdict on any machine.

use std::borrow::Cow;
use std::cmp::Ordering;

use ochre_model::{Metadata, Scalar, ValidationType, Value, ValueType, compare_int_float};

use crate::property::{Additional, Bound, EmbeddingRules, Property, Severity, type_name, type_names};
use crate::schema::MetadataSchema;
use crate::validator::{Finding, Functions, Validator};

/// Names longer than this, in bytes, are not compared with others.
const COMPARED_MAX: usize = 64;
/// Texts of violations are cut to so many characters.
const TEXT_CHARACTERS_MAX: usize = 300;

/// Of a value that breaks a rule, reports show at most this many characters.
pub const VALUE_CHARACTERS_MAX: usize = 100;

/// A record to be validated.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Subject<'a> {
    pub id: &'a str,
    pub metadata: Option<&'a Metadata>,
    pub document: Option<&'a str>,
    /// Absent if it is not at hand: then nothing is said of it.
    pub embedding: Option<&'a [f32]>,
}

/// A rule that a record breaks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// The metadata key, `#document`, `#embedding`, or `#record` for validators of the whole record.
    pub key: String,
    /// Which rule: `type`, `required`, `additional`, `enum`, `min`, …
    pub rule: &'static str,
    /// What the schema demands.
    pub expected: String,
    /// The type that was found, or `absent`.
    pub actual_type: &'static str,
    /// The value, cut to [`VALUE_CHARACTERS_MAX`] characters; absent if the key is sensitive or missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// All of it in one sentence.
    pub message: String,
    #[serde(skip)]
    severity: Severity,
}

/// What a mode makes of the violations of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Refuse the write: any of these is reason enough.
    pub refused: Vec<Violation>,
    /// Accept these, and report them.
    pub reported: Vec<Violation>,
}

/// Brings metadata that is about to be stored into the form the schema wants: missing keys that have a default get it,
/// if the record is new; in the mode `lax`, floats without a fraction become integers where only integers are wanted.
pub fn prepare(schema: &MetadataSchema, mode: ValidationType, is_new: bool, metadata: &mut Option<Metadata>) {
    if mode != ValidationType::None && is_new {
        fill_defaults(schema, metadata);
    }
    if mode == ValidationType::Lax {
        coerce(schema, metadata);
    }
}

/// Validates a record as it will be, against what it was before if it existed.
pub fn validate(
    schema: &MetadataSchema, mode: ValidationType, functions: &Functions, before: Option<Subject<'_>>,
    after: Subject<'_>,
) -> Verdict {
    if mode == ValidationType::None {
        return Verdict::default();
    }
    let found = violations(schema, mode, functions, &after);
    let mut verdict = Verdict::default();
    if found.is_empty() || mode == ValidationType::Warn {
        verdict.reported = found;
        return verdict;
    }
    let had = before.map(|before| (violations(schema, mode, functions, &before), before));
    // What was broken before and was not touched.
    let is_carried = |violation: &Violation| {
        had.as_ref().is_some_and(|(had, before)| {
            had.iter().any(|old| same(old, violation)) && is_untouched(&violation.key, before, &after)
        })
    };
    if mode == ValidationType::Strict {
        // What the schema itself says to warn about refuses nothing.
        let (mild, grave): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|violation| violation.rule == "additional" && violation.severity == Severity::Warning);
        let is_old =
            |violation: &Violation| had.as_ref().is_some_and(|(had, _)| had.iter().any(|old| same(old, violation)));
        let improves = had.as_ref().is_some_and(|(had, _)| mild.len() + grave.len() < had.len());
        verdict.reported = mild;
        if improves && grave.iter().all(is_old) {
            verdict.reported.extend(grave);
        } else {
            verdict.refused = grave;
        }
        return verdict;
    }
    for violation in found {
        let is_mild = violation.severity == Severity::Warning;
        if is_mild || is_carried(&violation) {
            verdict.reported.push(violation)
        } else {
            verdict.refused.push(violation)
        }
    }
    verdict
}

/// Whether two violations are of the same demand.
fn same(a: &Violation, b: &Violation) -> bool {
    (&a.key, a.rule, &a.expected) == (&b.key, b.rule, &b.expected)
}

/// Whether a write left alone what stands under a key.
fn is_untouched(key: &str, before: &Subject<'_>, after: &Subject<'_>) -> bool {
    match key {
        "#document" => before.document == after.document,
        "#embedding" => after.embedding.is_none(),
        // Which keys a validator of the whole record is about cannot be told.
        "#record" => true,
        key => {
            before.metadata.and_then(|metadata| metadata.get(key))
                == after.metadata.and_then(|metadata| metadata.get(key))
        }
    }
}

fn fill_defaults(schema: &MetadataSchema, metadata: &mut Option<Metadata>) {
    for (key, default) in schema.properties.iter().filter_map(|(key, property)| Some((key, property.default.as_ref()?)))
    {
        if metadata.as_ref().is_none_or(|metadata| metadata.get(key).is_none()) {
            metadata.get_or_insert_default().set(key.clone(), Some(default.clone()));
        }
    }
}

/// Floats without a fraction become integers where only integers are wanted.
fn coerce(schema: &MetadataSchema, metadata: &mut Option<Metadata>) {
    let Some(metadata) = metadata else { return };
    let whole: Vec<(String, Value)> = metadata
        .iter()
        .filter_map(|(key, value)| {
            let property = schema.property(key)?;
            if property.takes(value.value_type()) {
                return None;
            }
            let value = match value {
                Value::Float(float) if property.takes(ValueType::Int) => Value::Int(as_int(*float)?),
                Value::Floats(list) if property.takes(ValueType::Ints) => {
                    Value::Ints(list.iter().map(|float| as_int(*float)).collect::<Option<_>>()?)
                }
                _ => return None,
            };
            Some((key.to_owned(), value))
        })
        .collect();
    for (key, value) in whole {
        metadata.set(key, Some(value));
    }
}

fn as_int(float: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "checked: only kept if it is exact")]
    let int = float as i64;
    (compare_int_float(int, float) == Some(Ordering::Equal)).then_some(int)
}

/// Everything a record breaks under a mode, which only decides whether undeclared keys may be there.
pub fn violations(
    schema: &MetadataSchema, mode: ValidationType, functions: &Functions, subject: &Subject<'_>,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, value) in subject.metadata.into_iter().flat_map(Metadata::iter) {
        match schema.property(key) {
            Some(property) => validate_value(property, key, value, subject, functions, &mut found),
            None if key.starts_with(ochre_model::HIDDEN_PREFIX) => {}
            None => validate_additional(schema, mode, key, value, &mut found),
        }
    }
    for (key, property) in schema.properties.iter().filter(|(_, property)| property.required) {
        if subject.metadata.is_none_or(|metadata| metadata.get(key).is_none()) {
            found.push(missing(key, property));
        }
    }
    if let Some(property) = &schema.document {
        match subject.document {
            None if property.required => found.push(missing("#document", property)),
            None => {}
            Some(text) => {
                let value = Value::Str(text.to_owned());
                validate_value(property, "#document", &value, subject, functions, &mut found);
            }
        }
    }
    if let (Some(rules), Some(embedding)) = (&schema.embedding, subject.embedding) {
        validate_embedding(rules, embedding, &mut found);
    }
    for validator in &schema.validators {
        // Any value of the record could be in its words.
        let property = Property { sensitive: schema.has_sensitive(), ..Property::default() };
        ask(validator, &property, "#record", None, subject, functions, &mut found);
    }
    found
}

fn validate_additional(
    schema: &MetadataSchema, mode: ValidationType, key: &str, value: &Value, found: &mut Vec<Violation>,
) {
    let severity = match (&schema.additional, mode) {
        (Additional::Allow | Additional::Typed(_), _)
        | (Additional::ByMode, ValidationType::Lax | ValidationType::None) => return,
        (Additional::Warn, _) => Severity::Warning,
        (Additional::Deny | Additional::ByMode, _) => Severity::Error,
    };
    found.push(Violation {
        key: key.to_owned(),
        rule: "additional",
        expected: "only declared keys".into(),
        actual_type: type_name(value.value_type()),
        value: Some(shown(value)),
        message: format!("key {key:?} is not declared"),
        severity,
    });
}

/// The name that was most likely meant.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Long names are no slips of the pen, and comparing them takes long.
    let is_short = |text: &str| text.len() <= COMPARED_MAX;
    let known = known.filter(|known| is_short(known) && is_short(name));
    let scored = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    scored.filter(|(distance, known)| *distance <= known.chars().count() / 3 + 1).min().map(|(_, known)| known)
}

fn missing(key: &str, property: &Property) -> Violation {
    let expected = if property.types.is_empty() { "a value".to_owned() } else { type_names(&property.types) };
    Violation {
        key: key.to_owned(),
        rule: "required",
        message: format!("key {key:?} is required and missing; expected {expected}"),
        expected,
        actual_type: "absent",
        value: None,
        severity: Severity::Error,
    }
}

/// A value as reports show it.
pub(crate) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Str(text) => Cow::Borrowed(text.as_str()),
        other => Cow::Owned(other.to_json().to_string()),
    };
    match text.char_indices().nth(VALUE_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// A text cut to [`TEXT_CHARACTERS_MAX`] characters.
fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Collects what a value breaks of a property.
struct Case<'a> {
    property: &'a Property,
    key: &'a str,
    value: &'a Value,
    found: &'a mut Vec<Violation>,
}

impl Case<'_> {
    fn add(&mut self, rule: &'static str, expected: String, severity: Severity) {
        let expected = cut(expected);
        let actual_type = type_name(self.value.value_type());
        let value = (!self.property.sensitive).then(|| shown(self.value));
        let of = value.as_ref().map_or(String::new(), |value| format!(" {value:?}"));
        self.found.push(Violation {
            key: self.key.to_owned(),
            rule,
            message: format!("key {:?}: {rule}: expected {expected}, found {actual_type}{of}", self.key),
            expected,
            actual_type,
            value,
            severity,
        });
    }

    /// A rule that a warning is enough for, if the property says so.
    fn mild(&mut self, rule: &'static str, expected: String) {
        self.add(rule, expected, self.property.severity);
    }
}

fn validate_value(
    property: &Property, key: &str, value: &Value, subject: &Subject<'_>, functions: &Functions,
    found: &mut Vec<Violation>,
) {
    let mut case = Case { property, key, value, found };
    if !property.takes(value.value_type()) {
        // The other rules speak of values of the right type.
        return case.add("type", type_names(&property.types), Severity::Error);
    }
    validate_scalar_rules(property, value, &mut case);
    let count = list_len(value);
    if let Some(count) = count {
        if property.min_items.is_some_and(|min| count < min) {
            case.mild("min_items", format!("at least {} elements", property.min_items.unwrap_or(0)));
        }
        if property.max_items.is_some_and(|max| count > max) {
            case.mild("max_items", format!("at most {} elements", property.max_items.unwrap_or(0)));
        }
        if property.unique_items && !are_unique(value) {
            case.mild("unique_items", "no element twice".into());
        }
    }
    if let Some(items) = &property.items {
        let mut of_items = Vec::new();
        for_each_element(value, &mut |element| {
            if of_items.is_empty() {
                validate_value(items, key, element, subject, functions, &mut of_items);
            }
        });
        if let Some(first) = of_items.into_iter().next() {
            let demand = if property.sensitive {
                "as declared".into()
            } else {
                format!("with {}: {}", first.rule, first.expected)
            };
            case.mild("items", format!("elements {demand}"));
        }
    }
    for validator in &property.validators {
        ask(validator, property, key, Some(value), subject, functions, found);
    }
}

/// The first rule of a property, validators aside, that a value breaks.
pub(crate) fn breaks(property: &Property, value: &Value) -> Option<Violation> {
    let bare = (!property.validators.is_empty()).then(|| Property { validators: Vec::new(), ..property.clone() });
    let mut found = Vec::new();
    validate_value(
        bare.as_ref().unwrap_or(property),
        "",
        value,
        &Subject::default(),
        &Functions::default(),
        &mut found,
    );
    found.into_iter().next()
}

/// Enum, bounds, length, pattern and format; of a list, for each of its elements.
fn validate_scalar_rules(property: &Property, value: &Value, case: &mut Case<'_>) {
    let holds = |test: &dyn Fn(&Value) -> bool| {
        let mut holds = true;
        for_each_element(value, &mut |element| holds = holds && test(element));
        holds && (list_len(value).is_some() || test(value))
    };
    if let Some(allowed) = &property.allowed
        && !holds(&|value| allowed.contains(value))
    {
        // More would be cut off anyway.
        let spelled = allowed.values().iter().take(TEXT_CHARACTERS_MAX).map(shown);
        let list = if property.sensitive { "…".into() } else { spelled.collect::<Vec<_>>().join(", ") };
        case.mild("enum", format!("one of {list}"));
    }
    for (rule, bound, wanted) in [("min", &property.min, Ordering::Greater), ("max", &property.max, Ordering::Less)] {
        let Some(bound) = bound else { continue };
        let is_within = |value: &Value| match order(value, &bound.value) {
            Some(Ordering::Equal) => !bound.exclusive,
            Some(order) => order == wanted,
            None => true,
        };
        if !holds(&is_within) {
            case.mild(rule, bound_text(bound, wanted));
        }
    }
    let (min, max) = (property.min_length, property.max_length);
    if (min.is_some() || max.is_some()) && !holds(&|value| has_length(value, min, max)) {
        let is_short = min.is_some() && !holds(&|value| has_length(value, min, None));
        let (rule, limit, word) =
            if is_short { ("min_length", min, "at least") } else { ("max_length", max, "at most") };
        case.mild(rule, format!("{word} {} characters", limit.unwrap_or(0)));
    }
    if let Some(pattern) = &property.pattern
        && !holds(&|value| !matches!(value, Value::Str(text) if !pattern.is_match(text)))
    {
        case.mild("pattern", format!("a match of {}", pattern.as_str()));
    }
    if let Some(format) = property.format
        && !holds(&|value| !matches!(value, Value::Str(text) if !format.matches(text)))
    {
        case.mild("format", format!("{} ({})", format.name(), format.about()));
    }
}

fn has_length(value: &Value, min: Option<u64>, max: Option<u64>) -> bool {
    let Value::Str(text) = value else { return true };
    // Bytes are an upper bound of characters, and a quarter of them a lower one.
    let bytes = text.len() as u64;
    if min.is_none_or(|min| bytes / 4 >= min) && max.is_none_or(|max| bytes <= max) {
        return true;
    }
    let characters = text.chars().count() as u64;
    min.is_none_or(|min| characters >= min) && max.is_none_or(|max| characters <= max)
}

pub(crate) fn bound_text(bound: &Bound, wanted: Ordering) -> String {
    let words = match (wanted, bound.exclusive) {
        (Ordering::Greater, false) => "at least",
        (Ordering::Greater, true) => "more than",
        (_, false) => "at most",
        (_, true) => "less than",
    };
    let value = match &bound.value {
        Scalar::Bool(b) => b.to_string(),
        Scalar::Int(i) => i.to_string(),
        Scalar::Float(f) => f.to_string(),
        Scalar::Str(s) => s.clone(),
    };
    format!("{words} {value}")
}

/// How a value stands to a bound; `None` where they do not compare.
pub(crate) fn order(value: &Value, bound: &Scalar) -> Option<Ordering> {
    match (value, bound) {
        (Value::Int(a), Scalar::Int(b)) => Some(a.cmp(b)),
        (Value::Int(a), Scalar::Float(b)) => compare_int_float(*a, *b),
        (Value::Float(a), Scalar::Int(b)) => compare_int_float(*b, *a).map(Ordering::reverse),
        (Value::Float(a), Scalar::Float(b)) => a.partial_cmp(b),
        (Value::Str(a), Scalar::Str(b)) => Some(a.as_str().cmp(b)),
        _ => None,
    }
}

/// How many elements a list has; `None` for what is no list.
pub(crate) fn list_len(value: &Value) -> Option<u64> {
    match value {
        Value::Bools(list) => Some(list.len() as u64),
        Value::Ints(list) => Some(list.len() as u64),
        Value::Floats(list) => Some(list.len() as u64),
        Value::Strs(list) => Some(list.len() as u64),
        _ => None,
    }
}

pub(crate) fn for_each_element(value: &Value, visit: &mut dyn FnMut(&Value)) {
    match value {
        Value::Bools(list) => list.iter().for_each(|element| visit(&Value::Bool(*element))),
        Value::Ints(list) => list.iter().for_each(|element| visit(&Value::Int(*element))),
        Value::Floats(list) => list.iter().for_each(|element| visit(&Value::Float(*element))),
        Value::Strs(list) => list.iter().for_each(|element| visit(&Value::Str(element.clone()))),
        _ => {}
    }
}

fn are_unique(value: &Value) -> bool {
    let mut seen = std::collections::HashSet::new();
    let mut unique = true;
    for_each_element(value, &mut |element| unique = unique && seen.insert(element.to_json().to_string()));
    unique
}

fn validate_embedding(rules: &EmbeddingRules, embedding: &[f32], found: &mut Vec<Violation>) {
    let mut add = |rule, expected: String, is: String| {
        found.push(Violation {
            key: "#embedding".into(),
            rule,
            message: format!("the embedding breaks {rule}: expected {expected}, found {is}"),
            expected,
            actual_type: "list[float]",
            value: None,
            severity: Severity::Error,
        });
    };
    if let Some(dimension) = rules.dimension.filter(|dimension| *dimension != embedding.len()) {
        add("dimension", format!("{dimension} floats"), embedding.len().to_string());
    }
    let norm = f64::from(ochre_model::norm(embedding));
    if rules.nonzero && norm == 0.0 {
        add("nonzero", "something other than zeros".into(), "only zeros".into());
    }
    if let Some(min) = rules.min_norm.filter(|min| norm < *min) {
        add("min_norm", format!("a norm of at least {min}"), norm.to_string());
    }
    if let Some(max) = rules.max_norm.filter(|max| norm > *max) {
        add("max_norm", format!("a norm of at most {max}"), norm.to_string());
    }
}

fn ask(
    validator: &Validator, property: &Property, key: &str, value: Option<&Value>, subject: &Subject<'_>,
    functions: &Functions, found: &mut Vec<Violation>,
) {
    let (words, rule) = match validator.validate(subject, value, functions) {
        Finding::Passed => return,
        Finding::Refused(words) => (words, validator.rule()),
        Finding::Broken(reason) => {
            let reason = if property.sensitive { String::new() } else { format!(": {}", cut(reason)) };
            let text = format!(
                "the validator {:?} failed{reason}; a key that may be missing is asked for first, as in 'year' in record && record.year > 0, or on_error is accept",
                validator.expected()
            );
            (Some(text), "validator")
        }
    };
    let of = if key.starts_with('#') { String::new() } else { format!("key {key:?}: ") };
    let words = words.unwrap_or_else(|| format!("{rule} {} does not hold", validator.expected()));
    found.push(Violation {
        key: key.to_owned(),
        rule,
        expected: cut(validator.expected().to_owned()),
        actual_type: value.map_or("record", |value| type_name(value.value_type())),
        value: value.filter(|_| !property.sensitive).map(shown),
        message: format!("{of}{words}"),
        severity: property.severity,
    });
}
