//! From `chroma:schema` to a [`MetadataSchema`]: the shorthand, the full form, and the subset of JSON Schema 2020-12
//! that can be honoured. What cannot be is refused, with the place and the remedy.

mod at;
mod doubled;
mod members;
mod property;
mod types;
mod validators;

use ochre_model::{ValueType, check_key};
use serde_json::{Map, Value as Json};

pub use self::at::InvalidSchema;
use self::at::{At, Parsed};
pub use self::doubled::doubled_member;
use self::members::{ANNOTATIONS, count, flag, kind, refuse_unknown, text};
use self::property::{PROPERTY_MEMBERS, property};
use self::validators::validators;
use crate::property::{Additional, EmbeddingRules, Property};
use crate::schema::{KeyPattern, MetadataSchema, PROPERTIES_MAX};

/// The longest schema, in bytes of JSON.
const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// How many patterns a schema has at most.
const PATTERNS_MAX: usize = 200;

impl MetadataSchema {
    /// Parses what stands under `chroma:schema`: a JSON object, or a string that holds one.
    ///
    /// # Errors
    /// [`InvalidSchema`] names the place, the problem and the remedy.
    pub fn parse(written: &Json) -> Parsed<Self> {
        Self::read(written, At::root(false))
    }

    /// As [`MetadataSchema::parse`], of one that was declared before: what only newer versions refuse is let pass.
    ///
    /// # Errors
    /// As there.
    pub fn parse_stored(written: &Json) -> Parsed<Self> {
        Self::read(written, At::root(true))
    }

    fn read(written: &Json, at: At<'_>) -> Parsed<Self> {
        let parsed;
        let json = match written {
            Json::String(text) if text.len() > SCHEMA_BYTES_MAX => {
                return at.error(format!("it has {} bytes, more than the limit of {SCHEMA_BYTES_MAX}", text.len()));
            }
            Json::String(text) => {
                if !at.is_stored
                    && let Some(pointer) = doubled_member(text.as_bytes(), &|_| true)
                {
                    return Err(InvalidSchema::doubled(pointer));
                }
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

/// What the names of dialects of JSON Schema contain that mean other things by some members.
const OLD_DIALECTS: [&str; 4] = ["draft-04", "draft-03", "draft-02", "draft-01"];
/// Members of the full form.
const ROOT_MEMBERS: [&str; 8] =
    ["description", "properties", "required", "additional", "additionalProperties", "version", "validators", "type"];

fn shorthand(members: &Map<String, Json>, at: At<'_>) -> Parsed<MetadataSchema> {
    let mut schema = MetadataSchema::default();
    properties(&mut schema, members, at)?;
    Ok(schema)
}

fn full(members: &Map<String, Json>, at: At<'_>) -> Parsed<MetadataSchema> {
    if let Some(Json::String(dialect)) = members.get("$schema")
        && !at.is_stored
        && OLD_DIALECTS.iter().any(|old| dialect.contains(old))
    {
        return at.to("$schema").error(format!(
            "{dialect} means other things by required and exclusiveMinimum: write the schema in 2020-12 (required as a list of keys beside properties, exclusiveMinimum as a number)"
        ));
    }
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
