//! What other tools read of a collection: JSON Schema, LangChain's and LlamaIndex's descriptions of metadata. The
//! parameters of searches are made from the same fields (`parameters`).
//!
//! All of it comes from one list of fields, merged from what is declared and what is found in the records. Sensitive
//! keys are named nowhere.

use std::collections::HashSet;

use ochre_model::{Scalar, Value, ValueType};
use serde_json::{Map, Value as Json, json};

use crate::format::Format;
use crate::property::{Additional, Bound, Property, element_of, type_name};
use crate::report::{KeyReport, Report};
use crate::schema::MetadataSchema;
use crate::validate::VALUE_CHARACTERS_MAX;

/// A key with at most so many values is described by all of them.
const VALUES_MAX: u64 = 30;
/// The longest description of a parameter, in characters (a limit of GPT actions).
const DESCRIPTION_MAX: usize = 700;
/// A key as other tools are told of it.
#[derive(Clone, Debug, Default)]
pub struct Field {
    /// The metadata key.
    pub name: String,
    /// The types its values have; not empty.
    pub types: Vec<ValueType>,
    /// Whether every record has it.
    pub required: bool,
    /// What it is.
    pub description: Option<String>,
    /// All values there are, if there are few.
    pub values: Vec<Json>,
    /// Whether the schema allows no others.
    pub is_closed: bool,
    /// The smallest and largest number.
    pub range: Option<(Json, Json)>,
    /// The format of its strings.
    pub format: Option<Format>,
    /// What is declared of it.
    pub(crate) property: Option<Property>,
}

/// The fields of a collection, and what it holds.
#[derive(Clone, Debug)]
pub struct Fields {
    /// The collection's name.
    pub collection: String,
    /// What it holds, in a sentence.
    pub description: String,
    /// By name.
    pub fields: Vec<Field>,
    additional: Option<bool>,
}

impl Fields {
    /// Merges what is declared and what a report found. Keys that the schema refuses are left out.
    pub fn new(schema: Option<&MetadataSchema>, report: &Report) -> Self {
        let declared = |name: &str| schema.and_then(|schema| schema.property(name));
        let is_strict = report.validation_type == Some("strict");
        let refuses_others = schema.is_some_and(|schema| match schema.additional {
            Additional::Deny => true,
            Additional::ByMode => is_strict,
            _ => false,
        });
        let seen = report.keys.iter().filter(|key| declared(&key.name).is_some() || !refuses_others);
        let mut fields: Vec<Field> = seen.map(|key| merge(observed(key, report), declared(&key.name))).collect();
        let names: HashSet<String> = fields.iter().map(|field| field.name.clone()).collect();
        let unseen =
            schema.into_iter().flat_map(|schema| &schema.properties).filter(|(name, _)| !names.contains(*name));
        fields.extend(unseen.map(|(name, property)| {
            let field = Field { name: name.clone(), types: vec![ValueType::Str], ..Field::default() };
            merge(field, Some(property))
        }));
        // Nothing is filtered by sparse vectors.
        fields.retain(|field| field.types != [ValueType::Sparse]);
        fields.iter_mut().for_each(|field| field.types.retain(|ty| *ty != ValueType::Sparse));
        let is_hidden = |field: &Field| field.property.as_ref().is_some_and(|property| property.sensitive);
        let all = fields.len();
        fields.retain(|field| !is_hidden(field));
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let described = schema.and_then(|schema| schema.description.clone());
        // What is named nowhere must not be ruled out either.
        let is_complete = fields.len() == all && schema.is_none_or(|schema| schema.patterns.is_empty());
        Self {
            collection: report.collection.clone(),
            description: described.unwrap_or_else(|| format!("Records of the collection {}", report.collection)),
            fields,
            additional: schema.map(|_| !(refuses_others && is_complete)),
        }
    }

    #[cfg(test)]
    pub(crate) fn of(fields: Vec<Field>) -> Self {
        Self { collection: String::new(), description: String::new(), fields, additional: None }
    }

    /// A JSON Schema (2020-12) of a record's metadata.
    pub fn json_schema(&self) -> Json {
        let properties: Map<String, Json> =
            self.fields.iter().map(|field| (field.name.clone(), field.json_schema())).collect();
        let required: Vec<&str> =
            self.fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
        let mut schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.collection,
            "description": self.description,
            "type": "object",
            "properties": properties,
            "required": required,
        });
        if let Some(additional) = self.additional {
            schema["additionalProperties"] = additional.into();
        }
        schema
    }

    /// What LangChain's self-query retriever takes: `document_contents` and `metadata_field_info`, as plain objects,
    /// since those keep their `enum` in the prompt.
    pub fn attribute_info(&self) -> Json {
        let attributes: Vec<Json> = self
            .fields
            .iter()
            .map(|field| {
                let mut attribute = json!({
                    "name": field.name, "description": field.sentence(false), "type": field.type_text(),
                });
                if !field.values.is_empty() {
                    attribute["enum"] = field.values.clone().into();
                }
                attribute
            })
            .collect();
        json!({"document_contents": self.description, "metadata_field_info": attributes})
    }

    /// What LlamaIndex's auto-retriever takes: a `VectorStoreInfo`, in which all is text.
    pub fn metadata_info(&self) -> Json {
        let infos: Vec<Json> = self
            .fields
            .iter()
            .map(|field| json!({"name": field.name, "type": field.type_text(), "description": field.sentence(true)}))
            .collect();
        json!({"content_info": self.description, "metadata_info": infos})
    }
}

fn observed(key: &KeyReport, report: &Report) -> Field {
    let is_all = report.sample.is_none() && key.cardinality.is_some_and(|count| count <= VALUES_MAX);
    let values: Vec<Json> = key.top.iter().filter_map(|top| top.get("value").cloned()).collect();
    // A value that was cut is none.
    let is_whole = |value: &Json| value.as_str().is_none_or(|text| text.chars().count() <= VALUE_CHARACTERS_MAX);
    let values = if is_all && values.iter().all(is_whole) { values } else { Vec::new() };
    Field {
        name: key.name.clone(),
        types: ValueType::ALL.into_iter().filter(|ty| key.types.contains_key(type_name(*ty))).collect(),
        values,
        range: key.numbers.as_ref().and_then(|n| Some((n.get("min")?.clone(), n.get("max")?.clone()))),
        ..Field::default()
    }
}

fn merge(mut field: Field, property: Option<&Property>) -> Field {
    let Some(property) = property else { return field };
    if !property.types.is_empty() {
        field.types.clone_from(&property.types);
    }
    field.required = property.required;
    field.description.clone_from(&property.description);
    field.format = property.format;
    if let Some(allowed) = &property.allowed {
        field.values = allowed.values().iter().map(Value::to_json).collect();
        field.is_closed = true;
    }
    let number = |bound: &Bound| match &bound.value {
        Scalar::Int(int) if !bound.exclusive => Some(json!(int)),
        Scalar::Float(float) if !bound.exclusive => Some(json!(float)),
        _ => None,
    };
    let bounds = property.min.as_ref().zip(property.max.as_ref());
    if let Some(range) = bounds.and_then(|(min, max)| number(min).zip(number(max))) {
        field.range = Some(range);
    }
    field.property = Some(property.clone());
    field
}

impl Field {
    fn json_schema(&self) -> Json {
        let values = (!self.values.is_empty())
            .then(|| (if self.is_closed { "enum" } else { "examples" }, Json::from(self.values.clone())));
        let of = |ty: ValueType| {
            // What is demanded of a value is demanded of each element of a list.
            let mut scalar = json!({"type": json_type(element_of(ty).unwrap_or(ty))});
            if let Some((name, values)) =
                values.as_ref().filter(|(name, _)| element_of(ty).is_none() || *name == "enum")
            {
                scalar[*name] = values.clone();
            }
            self.property.as_ref().inspect(|property| demand(property, ty, &mut scalar));
            let Some(property) = self.property.as_ref().filter(|_| element_of(ty).is_some()) else {
                return if element_of(ty).is_some() { json!({"type": "array", "items": scalar}) } else { scalar };
            };
            let mut list = json!({"type": "array", "items": scalar});
            let counts = [("minItems", property.min_items), ("maxItems", property.max_items)];
            counts.into_iter().for_each(|(name, count)| set(&mut list, name, count));
            set(&mut list, "uniqueItems", property.unique_items.then_some(true));
            list
        };
        let scalars = self.types.iter().all(|ty| element_of(*ty).is_none());
        let mut schema = match self.types[..] {
            [one] => of(one),
            _ if scalars => {
                let mut schema = of(self.types[0]);
                schema["type"] = self.types.iter().map(|ty| json_type(*ty)).collect();
                schema
            }
            _ => json!({"anyOf": self.types.iter().map(|ty| of(*ty)).collect::<Vec<_>>()}),
        };
        set(&mut schema, "description", self.description.clone());
        set(
            &mut schema,
            "default",
            self.property.as_ref().and_then(|property| Some(property.default.as_ref()?.to_json())),
        );
        schema
    }

    /// Types as prompts put them.
    fn type_text(&self) -> String {
        if matches!(self.format, Some(Format::Date | Format::DateTime)) {
            return "date".into();
        }
        let name = |ty: &ValueType| match ty {
            ValueType::Int => "integer",
            ValueType::Bool => "boolean",
            ty => type_name(*ty),
        };
        self.types.iter().map(name).collect::<Vec<_>>().join(" or ")
    }

    /// The description, with the range and, where they have no place of their own, the values.
    pub(crate) fn sentence(&self, with_values: bool) -> String {
        let mut text = self.description.clone().unwrap_or_else(|| format!("The {} of the record", self.name));
        if let Some((min, max)) = &self.range {
            text += &format!("; from {min} to {max}");
        }
        if with_values && !self.values.is_empty() {
            let values: Vec<String> = self.values.iter().map(Json::to_string).collect();
            text += &format!("; one of {}", values.join(", "));
        }
        cut(&text)
    }
}

/// Sets a member if there is a value.
fn set(object: &mut Json, name: &str, value: Option<impl Into<Json>>) {
    if let Some(value) = value {
        object[name] = value.into();
    }
}

/// The keywords of a bound: inclusive and exclusive.
pub(crate) const MINIMUM: [&str; 2] = ["minimum", "exclusiveMinimum"];
pub(crate) const MAXIMUM: [&str; 2] = ["maximum", "exclusiveMaximum"];

/// A bound of numbers, as JSON Schema puts it.
pub(crate) fn bound(bound: Option<&Bound>, names: [&str; 2], schema: &mut Json) {
    let Some(bound) = bound else { return };
    let number = match bound.value {
        Scalar::Int(int) => Some(json!(int)),
        Scalar::Float(float) => Some(json!(float)),
        _ => None,
    };
    set(schema, names[usize::from(bound.exclusive)], number);
}

/// The rules for strings and numbers, as JSON Schema puts them.
pub(crate) fn demand(property: &Property, ty: ValueType, schema: &mut Json) {
    match element_of(ty).unwrap_or(ty) {
        ValueType::Str => {
            set(schema, "minLength", property.min_length);
            set(schema, "maxLength", property.max_length);
            set(schema, "pattern", property.pattern.as_ref().map(|pattern| pattern.as_str().to_owned()));
            set(schema, "format", property.format.map(Format::name));
        }
        ValueType::Int | ValueType::Float => {
            bound(property.min.as_ref(), MINIMUM, schema);
            bound(property.max.as_ref(), MAXIMUM, schema);
        }
        _ => {}
    }
}

pub(crate) fn json_type(ty: ValueType) -> &'static str {
    match ty {
        ValueType::Bool => "boolean",
        ValueType::Int => "integer",
        ValueType::Float => "number",
        ValueType::Str => "string",
        _ => "array",
    }
}

pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(DESCRIPTION_MAX - 1) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
