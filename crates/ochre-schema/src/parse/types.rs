//! The types a property may have, by any of their names.

use ochre_model::ValueType;
use serde_json::Value as Json;

use super::at::{At, Parsed};
use super::members::kind;
use crate::format::Format;
use crate::property::{Property, list_of};
use crate::validate::nearest;

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

pub(super) fn types(property: &mut Property, given: &Json, at: At<'_>) -> Parsed<()> {
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
        "sparse_vector" => {
            return at.error("sparse vectors have no type that can be declared: leave the type of the key out");
        }
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
pub(super) fn scalar_or_list(name: &str) -> Option<ValueType> {
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

pub(super) fn types_text(property: &Property) -> String {
    crate::property::type_names(&property.types)
}
