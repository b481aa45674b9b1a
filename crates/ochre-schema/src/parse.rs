//! From `chroma:schema` to a [`MetadataSchema`]: the shorthand, the full form, and the subset of JSON Schema 2020-12
//! that can be honoured. What cannot be is refused, with the place and the remedy.

use ochre_model::{Scalar, Value, ValueType, check_key};
use regex::RegexBuilder;
use serde_json::{Map, Value as Json};

use crate::format::Format;
use crate::judge::nearest;
use crate::property::{Additional, Bound, EmbeddingRules, Property, Severity, element_of, list_of, type_name};
use crate::schema::{KeyPattern, MetadataSchema, PROPERTIES_MAX};
use crate::validator::{Expression, Test, Validator};

/// The longest schema, in bytes of JSON.
const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// How much a pattern may take in memory once it is compiled, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// How many patterns a schema has at most.
const PATTERNS_MAX: usize = 200;

/// Why a schema was refused: where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chroma:schema is not valid at {}: {problem}", if pointer.is_empty() { "its root" } else { pointer })]
pub struct InvalidSchema {
    /// A JSON pointer into the schema (RFC 6901).
    pub pointer: String,
    /// What is wrong there, and what to do about it.
    pub problem: String,
}

type Parsed<T> = Result<T, InvalidSchema>;

/// Where in the schema the parser is.
#[derive(Clone, Copy)]
struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
}

impl<'a> At<'a> {
    const ROOT: At<'static> = At { parent: None, name: "" };

    fn to(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), name }
    }

    fn pointer(&self) -> String {
        let Some(parent) = self.parent else { return String::new() };
        format!("{}/{}", parent.pointer(), self.name.replace('~', "~0").replace('/', "~1"))
    }

    fn error<T>(&self, problem: impl Into<String>) -> Parsed<T> {
        Err(InvalidSchema { pointer: self.pointer(), problem: problem.into() })
    }
}

impl MetadataSchema {
    /// Parses what stands under `chroma:schema`: a JSON object, or a string that holds one.
    ///
    /// # Errors
    /// [`InvalidSchema`] names the place, the problem and the remedy.
    pub fn parse(written: &Json) -> Parsed<Self> {
        let at = At::ROOT;
        let parsed;
        let json = match written {
            Json::String(text) if text.len() > SCHEMA_BYTES_MAX => {
                return at.error(format!("it has {} bytes, more than the limit of {SCHEMA_BYTES_MAX}", text.len()));
            }
            Json::String(text) => {
                parsed = match serde_json::from_str::<Json>(text) {
                    Ok(json) => json,
                    Err(error) => return at.error(format!("the string holds no JSON: {error}")),
                };
                &parsed
            }
            json => {
                let bytes = json.to_string().len();
                if bytes > SCHEMA_BYTES_MAX {
                    return at.error(format!("it has {bytes} bytes, more than the limit of {SCHEMA_BYTES_MAX}"));
                }
                json
            }
        };
        let Json::Object(members) = json else {
            return at.error(format!("expected an object such as {{\"year\": \"int\"}}, found {}", kind(json)));
        };
        let schema = if is_full_form(members) { full(members, at)? } else { shorthand(members, at)? };
        match schema.pattern_count() {
            count if count > PATTERNS_MAX => {
                at.error(format!("{count} regular expressions are more than the limit of {PATTERNS_MAX}"))
            }
            _ => Ok(schema),
        }
    }
}

/// Whether the members are those of the full form, rather than keys with their types. A key may well be named
/// `properties`: then it is described as keys are, and other keys stand beside it.
fn is_full_form(members: &Map<String, Json>) -> bool {
    let is_root = |name: &str| ROOT_MEMBERS.contains(&name) || ANNOTATIONS.contains(&name);
    let is_object = members.get("type").is_some_and(|ty| *ty == "object") && !members.contains_key("properties");
    let has_properties = members.get("properties").and_then(Json::as_object).is_some_and(|properties| {
        let looks_like_key =
            properties.contains_key("type") && properties.keys().all(|name| PROPERTY_MEMBERS.contains(&name.as_str()));
        !looks_like_key || members.keys().all(|name| is_root(name))
    });
    members.contains_key("$schema") || is_object || has_properties
}

/// Members of the full form.
const ROOT_MEMBERS: [&str; 8] =
    ["description", "properties", "required", "additional", "additionalProperties", "version", "validators", "type"];
/// Members that only annotate: read by people, without effect.
const ANNOTATIONS: [&str; 6] = ["$schema", "$id", "$comment", "title", "deprecated", "readOnly"];
/// Members of a property.
const PROPERTY_MEMBERS: [&str; 31] = [
    "type",
    "description",
    "required",
    "enum",
    "const",
    "min",
    "max",
    "minimum",
    "maximum",
    "exclusive_min",
    "exclusive_max",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "min_length",
    "max_length",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "items",
    "min_items",
    "max_items",
    "minItems",
    "maxItems",
    "unique_items",
    "uniqueItems",
    "default",
    "severity",
    "examples",
    "sensitive",
    "validators",
];
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
fn refuse_unknown(members: &Map<String, Json>, known: &[&str], at: At<'_>) -> Parsed<()> {
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

fn shorthand(members: &Map<String, Json>, at: At<'_>) -> Parsed<MetadataSchema> {
    let mut schema = MetadataSchema::default();
    properties(&mut schema, members, at)?;
    Ok(schema)
}

fn full(members: &Map<String, Json>, at: At<'_>) -> Parsed<MetadataSchema> {
    refuse_unknown(members, &ROOT_MEMBERS, at)?;
    let mut schema = MetadataSchema {
        description: text(members, "description", at)?,
        version: members.get("version").cloned(),
        validators: validators(members, at, false)?,
        ..MetadataSchema::default()
    };
    if let Some(ty) = members.get("type").filter(|ty| *ty != "object") {
        return at.to("type").error(format!("a record's metadata is an object; found {ty}"));
    }
    match members.get("properties") {
        None => {}
        Some(Json::Object(members)) => properties(&mut schema, members, at.to("properties"))?,
        Some(other) => return at.to("properties").error(format!("expected an object, found {}", kind(other))),
    }
    if let Some(required) = members.get("required") {
        let here = at.to("required");
        let Json::Array(names) = required else {
            return here.error(format!("expected a list of keys, found {}", kind(required)));
        };
        for (index, name) in names.iter().enumerate() {
            let index = index.to_string();
            let Json::String(name) = name else {
                return here.to(&index).error(format!("expected a key, found {}", kind(name)));
            };
            match (name.as_str(), schema.properties.get_mut(name), &mut schema.document) {
                (_, Some(property), _) | ("#document", None, Some(property)) => property.required = true,
                _ => return here.to(&index).error(format!("{name:?} is not among the properties; declare it there")),
            }
        }
    }
    match (members.get("additional"), members.get("additionalProperties")) {
        (Some(_), Some(_)) => return at.error("give additional or additionalProperties, not both"),
        (Some(given), None) => schema.additional = additional(given, at.to("additional"))?,
        (None, Some(given)) => schema.additional = additional(given, at.to("additionalProperties"))?,
        (None, None) => {}
    }
    Ok(schema)
}

fn properties(schema: &mut MetadataSchema, members: &Map<String, Json>, at: At<'_>) -> Parsed<()> {
    if members.len() > PROPERTIES_MAX {
        return at.error(format!("{} properties are more than the limit of {PROPERTIES_MAX}", members.len()));
    }
    for (key, given) in members {
        let here = at.to(key);
        match key.as_str() {
            "#document" => schema.document = Some(document(given, here)?),
            "#embedding" => schema.embedding = Some(embedding(given, here)?),
            name => {
                check_key(name).or_else(|error| {
                    here.error(format!("{error}; of such names there are only #document and #embedding"))
                })?;
                if name.starts_with(ochre_model::HIDDEN_PREFIX) {
                    return here.error("keys that begin with chroma: are reserved; choose another name");
                }
                let property = property(given, here)?;
                match KeyPattern::new(name) {
                    Some(_) if property.required || property.default.is_some() => {
                        return here.error("a name with * in it cannot be required or have a default; name the key");
                    }
                    Some(pattern) => schema.patterns.push((pattern, property)),
                    None => drop(schema.properties.insert(key.clone(), property)),
                }
            }
        }
    }
    Ok(())
}

fn document(given: &Json, at: At<'_>) -> Parsed<Property> {
    let property = property(given, at)?;
    if property.types.iter().any(|ty| *ty != ValueType::Str) {
        return at.error("documents are strings; leave the type out or make it \"string\"");
    }
    if property.default.is_some() {
        return at.to("default").error("a document has no default; send it with the record");
    }
    Ok(property)
}

fn embedding(given: &Json, at: At<'_>) -> Parsed<EmbeddingRules> {
    let Json::Object(members) = given else {
        return at.error(format!("expected an object such as {{\"dimension\": 384}}, found {}", kind(given)));
    };
    refuse_unknown(members, &["description", "dimension", "min_norm", "max_norm", "nonzero", "required"], at)?;
    // Every record has an embedding anyway.
    flag(members, "required", at)?;
    let norm = |name: &str| match members.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|norm| *norm >= 0.0) {
            Some(norm) => Ok(Some(norm)),
            None => at.to(name).error(format!("expected a number of at least 0, found {value}")),
        },
    };
    let (min_norm, max_norm) = (norm("min_norm")?, norm("max_norm")?);
    if min_norm.zip(max_norm).is_some_and(|(min, max)| min > max) {
        return at.error("min_norm is larger than max_norm: no embedding could satisfy both");
    }
    let dimension = count(members, "dimension", at)?;
    Ok(EmbeddingRules {
        description: text(members, "description", at)?,
        dimension: dimension.map(|dimension| usize::try_from(dimension).unwrap_or(usize::MAX)),
        min_norm,
        max_norm,
        nonzero: flag(members, "nonzero", at)?,
    })
}

fn additional(given: &Json, at: At<'_>) -> Parsed<Additional> {
    match given {
        Json::Bool(true) => Ok(Additional::Allow),
        Json::Bool(false) => Ok(Additional::Deny),
        Json::String(word) => match word.as_str() {
            "allow" => Ok(Additional::Allow),
            "warn" => Ok(Additional::Warn),
            "deny" => Ok(Additional::Deny),
            _ => property(given, at)
                .map(|property| Additional::Typed(Box::new(property)))
                .or_else(|_| at.error(format!("expected allow, warn, deny or a type, found {word:?}"))),
        },
        Json::Object(members) if members.is_empty() => Ok(Additional::Allow),
        given => Ok(Additional::Typed(Box::new(property(given, at)?))),
    }
}

/// Whether a name is a member's with a letter or two wrong.
fn is_slip(name: &str, known: &str) -> bool {
    name.len() > 2 && nearest(name, std::iter::once(known)).is_some()
}

/// A property: a type, a list of types, or an object.
fn property(given: &Json, at: At<'_>) -> Parsed<Property> {
    match given {
        Json::String(_) | Json::Array(_) => {
            let mut property = Property::default();
            types(&mut property, given, at)?;
            Ok(property)
        }
        Json::Object(members) => property_object(members, at),
        other => at.error(format!(
            "expected a type such as \"int\", a list of types or an object with a type, found {}",
            kind(other)
        )),
    }
}

fn property_object(members: &Map<String, Json>, at: At<'_>) -> Parsed<Property> {
    let is_known = |name: &str| PROPERTY_MEMBERS.contains(&name) || ANNOTATIONS.contains(&name);
    let is_slip_of_member = |name: &str| PROPERTY_MEMBERS.iter().any(|known| is_slip(name, known));
    let is_property =
        |value: &Json| value.is_object() || value.as_str().is_some_and(|name| scalar_or_list(name).is_some());
    let looks_like_keys = !members.is_empty()
        && members.iter().all(|(name, value)| !is_known(name) && is_property(value))
        // A single misspelt member is told by its own name.
        && (members.len() > 1 || is_slip(at.name, "properties") || !members.keys().any(|name| is_slip_of_member(name)));
    if looks_like_keys {
        let meant = nearest(at.name, ["properties"].into_iter());
        return at.error(match meant {
            Some(meant) => format!("this looks like keys with their types; did you mean {meant:?}?"),
            None => "this looks like keys of an object, and metadata values are flat: use keys such as \"author_name\""
                .into(),
        });
    }
    refuse_unknown(members, &PROPERTY_MEMBERS, at)?;
    let mut property = Property {
        description: text(members, "description", at)?,
        required: flag(members, "required", at)?,
        sensitive: flag(members, "sensitive", at)?,
        min_length: either(members, "min_length", "minLength", at)?,
        max_length: either(members, "max_length", "maxLength", at)?,
        min_items: either(members, "min_items", "minItems", at)?,
        max_items: either(members, "max_items", "maxItems", at)?,
        unique_items: flag(members, "unique_items", at)? || flag(members, "uniqueItems", at)?,
        validators: validators(members, at, true)?,
        ..Property::default()
    };
    // The items of a list first: JSON Schema says the type of the elements there.
    if let Some(given) = members.get("items") {
        property.items = Some(Box::new(self::property(given, at.to("items"))?));
    }
    if let Some(given) = members.get("type") {
        types(&mut property, given, at.to("type"))?;
    }
    if let Some(given) = members.get("format") {
        let here = at.to("format");
        let Json::String(name) = given else {
            return here.error(format!("expected the name of a format, found {}", kind(given)));
        };
        let Some(format) = Format::from_name(name) else {
            let known = Format::ALL.map(Format::name).join(", ");
            return here.error(format!("there is no format {name:?}; there are {known}"));
        };
        property.format = Some(format);
    }
    if let Some(given) = members.get("pattern") {
        property.pattern = Some(regex(given, at.to("pattern"))?);
    }
    property.severity = match members.get("severity") {
        None => Severity::Error,
        Some(given) if *given == "error" => Severity::Error,
        Some(given) if *given == "warning" => Severity::Warning,
        Some(given) => return at.to("severity").error(format!("expected error or warning, found {given}")),
    };
    bounds(&mut property, members, at)?;
    if let Some(given) = members.get("enum") {
        let here = at.to("enum");
        let Json::Array(list) = given else {
            return here.error(format!("expected a list of values, found {}", kind(given)));
        };
        if list.is_empty() {
            return here.error("an empty list allows no value at all; leave enum out to allow any");
        }
        let values = list.iter().enumerate().map(|(index, json)| value(json, here.to(&index.to_string())));
        property.allowed = Some(values.collect::<Parsed<_>>()?);
    }
    if let Some(given) = members.get("const") {
        property.allowed = Some(vec![value(given, at.to("const"))?]);
    }
    if let Some(given) = members.get("examples") {
        let Json::Array(list) = given else {
            return at.to("examples").error(format!("expected a list, found {}", kind(given)));
        };
        property.examples.clone_from(list);
    }
    if let Some(given) = members.get("default") {
        property.default = Some(value(given, at.to("default"))?);
    }
    consistent(&property, at)?;
    Ok(property)
}

/// Refuses rules that contradict each other or could never apply.
fn consistent(property: &Property, at: At<'_>) -> Parsed<()> {
    let has = |test: fn(ValueType) -> bool| {
        property.types.is_empty() || property.types.iter().any(|ty| test(element_of(*ty).unwrap_or(*ty)))
    };
    let is_list = property.types.is_empty() || property.types.iter().any(|ty| element_of(*ty).is_some());
    let text_rules = [
        ("min_length", property.min_length.is_some()),
        ("max_length", property.max_length.is_some()),
        ("pattern", property.pattern.is_some()),
        ("format", property.format.is_some()),
    ];
    for (rule, is_set) in text_rules {
        if is_set && !has(|ty| ty == ValueType::Str) {
            return at.to(rule).error(format!("{rule} is for strings, and the type is {}", types_text(property)));
        }
    }
    let list_rules = [
        ("items", property.items.is_some()),
        ("min_items", property.min_items.is_some()),
        ("max_items", property.max_items.is_some()),
        ("unique_items", property.unique_items),
    ];
    for (rule, is_set) in list_rules {
        if is_set && !is_list {
            return at.to(rule).error(format!("{rule} is for lists, and the type is {}", types_text(property)));
        }
    }
    for (low, high, min, max) in [
        ("min_length", "max_length", property.min_length, property.max_length),
        ("min_items", "max_items", property.min_items, property.max_items),
    ] {
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            return at.to(low).error(format!("{low} is larger than {high}: no value could satisfy both"));
        }
    }
    for (index, allowed) in property.allowed.iter().flatten().enumerate() {
        let ty = allowed.value_type();
        if element_of(ty).is_some() {
            return at.to("enum").to(&index.to_string()).error("the enum of a list is of its elements; list those");
        }
        let fits = property.takes(ty) || list_of(ty).is_some_and(|list| property.takes(list));
        if !fits {
            let text = format!("the value is {}, and the type is {}", type_name(ty), types_text(property));
            return at.to("enum").to(&index.to_string()).error(text);
        }
    }
    if let Some(default) = &property.default {
        let ty = default.value_type();
        if !property.takes(ty) {
            let text = format!("the default is {}, and the type is {}", type_name(ty), types_text(property));
            return at.to("default").error(text);
        }
        if let Some(broken) = crate::judge::breaks(property, default) {
            return at
                .to("default")
                .error(format!("the default breaks the rule {} of the property itself", broken.rule));
        }
    }
    Ok(())
}

fn types_text(property: &Property) -> String {
    crate::property::type_names(&property.types)
}

fn bounds(property: &mut Property, members: &Map<String, Json>, at: At<'_>) -> Parsed<()> {
    let names = [
        (["min", "minimum"], ["exclusive_min", "exclusiveMinimum"]),
        (["max", "maximum"], ["exclusive_max", "exclusiveMaximum"]),
    ];
    let mut found = [None, None];
    for (slot, (plain, exclusive)) in found.iter_mut().zip(names) {
        for (name, is_exclusive) in
            plain.into_iter().map(|name| (name, false)).chain(exclusive.map(|name| (name, true)))
        {
            let Some(given) = members.get(name) else { continue };
            let here = at.to(name);
            if slot.is_some() {
                return here.error("the bound is given twice; give one of its names");
            }
            let value = match value(given, here)? {
                Value::Int(int) => Scalar::Int(int),
                Value::Float(float) => Scalar::Float(float),
                Value::Str(text) => Scalar::Str(text),
                other => {
                    let ty = type_name(other.value_type());
                    return here.error(format!("a bound is a number, or a string for strings that sort, found {ty}"));
                }
            };
            let is_text = matches!(value, Scalar::Str(_));
            let fits = property.types.is_empty()
                || property.types.iter().any(|ty| match element_of(*ty).unwrap_or(*ty) {
                    ValueType::Int | ValueType::Float => !is_text,
                    ValueType::Str => is_text,
                    _ => false,
                });
            if !fits {
                let text = format!("the bound {given} cannot be compared with the type {}", types_text(property));
                return here.error(text);
            }
            *slot = Some(Bound { value, exclusive: is_exclusive });
        }
    }
    let [min, max] = found;
    if let (Some(min), Some(max)) = (&min, &max) {
        let number = |bound: &Bound| match &bound.value {
            #[expect(clippy::cast_precision_loss, reason = "only to find bounds that are the wrong way round")]
            Scalar::Int(int) => Some(*int as f64),
            Scalar::Float(float) => Some(*float),
            _ => None,
        };
        if number(min).zip(number(max)).is_some_and(|(min, max)| min > max) {
            return at.to("min").error("min is larger than max: no value could satisfy both");
        }
    }
    (property.min, property.max) = (min, max);
    Ok(())
}

fn types(property: &mut Property, given: &Json, at: At<'_>) -> Parsed<()> {
    let list = match given {
        Json::Array(list) if list.is_empty() => {
            return at.error("an empty list allows no type at all; leave type out to allow any");
        }
        Json::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let given_is_list = given.is_array();
    for (index, given) in list.iter().enumerate() {
        let index = index.to_string();
        let here = if given_is_list { at.to(&index) } else { at };
        let Json::String(name) = given else {
            return here.error(format!("expected the name of a type, found {}", kind(given)));
        };
        one_type(property, name, here)?;
    }
    Ok(())
}

/// The types, as messages list them.
const TYPE_NAMES: [&str; 11] = [
    "string",
    "int",
    "float",
    "bool",
    "list[string]",
    "list[int]",
    "list[float]",
    "list[bool]",
    "date",
    "datetime",
    "uuid",
];

const TWO_STRINGS: &str = "a date, uuid and the like is a string with a format, and a key has one format; list each type once, or leave the format out";

/// Adds the type of this name, which may also stand for a format.
fn one_type(property: &mut Property, name: &str, at: At<'_>) -> Parsed<()> {
    let ty = match name {
        "array" | "list" => {
            let of_items: Vec<ValueType> =
                property.items.iter().flat_map(|items| &items.types).filter_map(|ty| list_of(*ty)).collect();
            if of_items.is_empty() {
                let text =
                    format!("say what the list holds: \"list[string]\", or {name:?} with items that have a type");
                return at.error(text);
            }
            property.types.extend(of_items);
            return Ok(());
        }
        "date" | "datetime" | "date-time" | "time" | "uuid" | "email" | "url" => {
            if property.types.contains(&ValueType::Str) {
                return at.error(TWO_STRINGS);
            }
            property.format = Format::from_name(name);
            ValueType::Str
        }
        "string" | "str" | "text" if property.format.is_some() => return at.error(TWO_STRINGS),
        "object" | "dict" | "map" => {
            return at.error("metadata values are flat: use keys such as \"author_name\" instead of an object");
        }
        "null" => return at.error("a missing value is a missing key; leave required out instead"),
        "sparse_vector" => return at.error("sparse vectors are not stored; use a dense embedding"),
        name => match scalar_or_list(name) {
            Some(ty) => ty,
            None => {
                let near = nearest(name, TYPE_NAMES.into_iter().chain(["integer", "number", "boolean", "text"]));
                let hint = near.map_or_else(
                    || format!("there are {}", TYPE_NAMES.join(", ")),
                    |near| format!("did you mean {near:?}?"),
                );
                return at.error(format!("there is no type {name:?}; {hint}"));
            }
        },
    };
    if !property.types.contains(&ty) {
        property.types.push(ty);
    }
    Ok(())
}

/// A type by any of its names.
fn scalar_or_list(name: &str) -> Option<ValueType> {
    Some(match name {
        "string" | "str" | "text" => ValueType::Str,
        "int" | "integer" => ValueType::Int,
        "float" | "number" | "double" => ValueType::Float,
        "bool" | "boolean" => ValueType::Bool,
        name => {
            let inner = name
                .strip_suffix(']')
                .and_then(|name| name.strip_prefix("list[").or_else(|| name.strip_prefix("array[")));
            let inner = inner.or_else(|| name.strip_suffix("[]")).or_else(|| name.strip_suffix("_list"))?;
            return scalar_or_list(inner.trim()).and_then(list_of);
        }
    })
}

fn validators(members: &Map<String, Json>, at: At<'_>, of_key: bool) -> Parsed<Vec<Validator>> {
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
            Ok(expression) => Test::Cel(expression.into()),
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

fn regex(given: &Json, at: At<'_>) -> Parsed<regex::Regex> {
    let Json::String(pattern) = given else {
        return at.error(format!("expected a regular expression, found {}", kind(given)));
    };
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().or_else(|error| {
        at.error(format!("the regular expression cannot be used (no look-around, no back-references): {error}"))
    })
}

/// A metadata value.
fn value(given: &Json, at: At<'_>) -> Parsed<Value> {
    match Value::from_json(given.clone()) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => at.error("an empty list cannot be stored; leave it out"),
        Err(_) => at.error(format!("expected a string, number, boolean or list of one type, found {}", kind(given))),
    }
}

fn text(members: &Map<String, Json>, name: &str, at: At<'_>) -> Parsed<Option<String>> {
    match members.get(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.clone())),
        Some(other) => at.to(name).error(format!("expected a string, found {}", kind(other))),
    }
}

fn flag(members: &Map<String, Json>, name: &str, at: At<'_>) -> Parsed<bool> {
    match members.get(name) {
        None => Ok(false),
        Some(Json::Bool(flag)) => Ok(*flag),
        Some(other) => at.to(name).error(format!("expected true or false, found {}", kind(other))),
    }
}

fn count(members: &Map<String, Json>, name: &str, at: At<'_>) -> Parsed<Option<u64>> {
    match members.get(name) {
        None => Ok(None),
        Some(given) => match given.as_u64() {
            Some(count) => Ok(Some(count)),
            None => at.to(name).error(format!("expected a whole number of at least 0, found {given}")),
        },
    }
}

/// A count by our name or by that of JSON Schema.
fn either(members: &Map<String, Json>, ours: &str, theirs: &str, at: At<'_>) -> Parsed<Option<u64>> {
    if members.contains_key(ours) && members.contains_key(theirs) {
        return at.to(theirs).error(format!("{ours} is given as well; give one of the two"));
    }
    Ok(count(members, ours, at)?.or(count(members, theirs, at)?))
}

const fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}
