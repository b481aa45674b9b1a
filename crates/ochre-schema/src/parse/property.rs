//! A property: its type and its rules, which must not contradict each other.

use ochre_model::{Scalar, Value, ValueType};
use serde_json::{Map, Value as Json};

use super::at::{At, Parsed};
use super::members::{ANNOTATIONS, either, flag, kind, refuse_unknown, text, value};
use super::types::{scalar_or_list, types, types_text};
use super::validators::{regex, validators};
use crate::format::Format;
use crate::property::{Allowed, Bound, Property, Severity, element_of, list_of, type_name};
use crate::validate::nearest;

/// Members of a property.
pub(super) const PROPERTY_MEMBERS: [&str; 31] = [
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

/// Whether a name is a member's with a letter or two wrong.
fn is_slip(name: &str, known: &str) -> bool {
    name.len() > 2 && nearest(name, std::iter::once(known)).is_some()
}

/// A property: a type, a list of types, or an object.
pub(super) fn property(given: &Json, at: At<'_>) -> Parsed<Property> {
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
    refuse_keys(members, at)?;
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
        property.allowed = Some(allowed(given, at.to("enum"))?.into());
    }
    if let Some(given) = members.get("const") {
        property.allowed = Some(vec![value(given, at.to("const"))?].into());
    }
    if let Some(given) = members.get("examples") {
        property.examples = examples(&property, given, at)?;
    }
    if let Some(given) = members.get("default") {
        property.default = Some(value(given, at.to("default"))?);
    }
    consistent(&property, at)?;
    Ok(property)
}

/// Refuses keys of an object where a property is declared: metadata values are flat.
fn refuse_keys(members: &Map<String, Json>, at: At<'_>) -> Parsed<()> {
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
    Ok(())
}

/// The values of `enum`.
fn allowed(given: &Json, here: At<'_>) -> Parsed<Vec<Value>> {
    let Json::Array(list) = given else {
        return here.error(format!("expected a list of values, found {}", kind(given)));
    };
    if list.is_empty() {
        return here.error("an empty list allows no value at all; leave enum out to allow any");
    }
    list.iter().enumerate().map(|(index, json)| value(json, here.to(&index.to_string()))).collect()
}

/// The values of `examples`, which are of the property's type.
fn examples(property: &Property, given: &Json, at: At<'_>) -> Parsed<Vec<Json>> {
    let Json::Array(list) = given else {
        return at.to("examples").error(format!("expected a list, found {}", kind(given)));
    };
    // What was stored by older versions is not refused.
    for (index, example) in list.iter().enumerate().filter(|_| !at.is_stored) {
        let (examples, index) = (at.to("examples"), index.to_string());
        let here = examples.to(&index);
        let ty = value(example, here)?.value_type();
        if !property.takes(ty) {
            let text = format!("the example is {}, and the type is {}", type_name(ty), types_text(property));
            return here.error(text);
        }
    }
    Ok(list.clone())
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
    for (index, allowed) in property.allowed.iter().flat_map(Allowed::values).enumerate() {
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
        if let Some(broken) = crate::validate::breaks(property, default) {
            return at
                .to("default")
                .error(format!("the default breaks the rule {} of the property itself", broken.rule));
        }
    }
    Ok(())
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
            // Of an integer beyond 64 bits JSON keeps the nearest float.
            let is_integers = !property.types.is_empty()
                && property.types.iter().all(|ty| element_of(*ty).unwrap_or(*ty) == ValueType::Int);
            if let Scalar::Float(float) = value
                && is_integers
                && !at.is_stored
                && float.abs() >= 2f64.powi(63)
            {
                return here
                    .error(format!("the bound {given} is beyond the integers of 64 bits, so it would bound nothing"));
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
