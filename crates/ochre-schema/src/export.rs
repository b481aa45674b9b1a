//! What other tools read of a collection: JSON Schema, LangChain's and LlamaIndex's descriptions of metadata, and the
//! flat typed parameters from which OpenAPI documents and MCP tools are made.
//!
//! All of it comes from one list of fields, merged from what is declared and what is found in the records. Sensitive
//! keys are named nowhere.

use ochre_model::{Scalar, Value, ValueType};
use serde_json::{Map, Value as Json, json};

use crate::format::Format;
use crate::property::{Additional, Property, element_of, type_name};
use crate::report::Report;
use crate::schema::MetadataSchema;

/// A key with at most so many values is described by all of them.
const VALUES_MAX: u64 = 30;
/// The longest description of a parameter, in characters (a limit of GPT actions).
const DESCRIPTION_MAX: usize = 700;
/// The longest name of a parameter, in characters (a limit of tools for language models).
const NAME_MAX: usize = 64;
/// Names that parameters of a search have anyway.
const RESERVED: [&str; 3] = ["q", "n", "offset"];

/// A key as other tools are told of it.
#[derive(Clone, Debug, PartialEq)]
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
}

/// The fields of a collection, and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields {
    /// The collection's name.
    pub collection: String,
    /// What it holds, in a sentence.
    pub description: String,
    /// By name.
    pub fields: Vec<Field>,
    additional: Option<bool>,
}

/// How a parameter of a search compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The value is equal to the operand.
    Equal,
    /// The number is at least the operand.
    AtLeast,
    /// The number is at most the operand.
    AtMost,
    /// The list has the operand as an element.
    Contains,
}

/// A flat parameter of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Letters, digits and `_`.
    pub name: String,
    /// The metadata key it is about.
    pub key: String,
    /// How it compares.
    pub comparison: Comparison,
    /// The type of its operand: no list.
    pub operand: ValueType,
    /// Its JSON Schema, with a description.
    pub schema: Json,
}

impl Fields {
    /// Merges what is declared and what a report found.
    pub fn new(schema: Option<&MetadataSchema>, report: &Report) -> Self {
        let mut fields: Vec<Field> = Vec::new();
        for key in &report.keys {
            let property = schema.and_then(|schema| schema.property(&key.name));
            if property.is_some_and(|property| property.sensitive) {
                continue;
            }
            let observed = ValueType::ALL.into_iter().filter(|ty| key.types.contains_key(type_name(*ty))).collect();
            let is_all = report.sample.is_none() && key.cardinality.is_some_and(|count| count <= VALUES_MAX);
            let values =
                if is_all { key.top.iter().filter_map(|top| top.get("value").cloned()).collect() } else { Vec::new() };
            let range = key.numbers.as_ref().and_then(|n| Some((n.get("min")?.clone(), n.get("max")?.clone())));
            let found = Field {
                name: key.name.clone(),
                types: observed,
                required: false,
                description: None,
                values,
                is_closed: false,
                range,
                format: None,
            };
            fields.push(merge(found, property));
        }
        let declared = schema.into_iter().flat_map(|schema| &schema.properties);
        for (name, property) in declared.filter(|(_, property)| !property.sensitive) {
            if !fields.iter().any(|field| field.name == *name) {
                let empty = Field {
                    name: name.clone(),
                    types: vec![ValueType::Str],
                    required: false,
                    description: None,
                    values: Vec::new(),
                    is_closed: false,
                    range: None,
                    format: None,
                };
                fields.push(merge(empty, Some(property)));
            }
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let described = schema.and_then(|schema| schema.description.clone());
        Self {
            collection: report.collection.clone(),
            description: described.unwrap_or_else(|| format!("Records of the collection {}", report.collection)),
            fields,
            additional: schema.map(|schema| !matches!(schema.additional, Additional::Deny | Additional::ByMode)),
        }
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

    /// The parameters by which records can be searched for, in the order of the fields.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let mut add = |field: &Field, suffix: &str, comparison, operand: ValueType, schema: Json| {
            let plain = plain_name(&field.name, suffix);
            let is_taken =
                |name: &str| RESERVED.contains(&name) || parameters.iter().any(|other: &Parameter| other.name == name);
            let name = if is_taken(&plain) {
                (2..)
                    .map(|number| format!("{plain}_{number}"))
                    .find(|name| !is_taken(name))
                    .expect("numbers do not end")
            } else {
                plain
            };
            parameters.push(Parameter { name, key: field.name.clone(), comparison, operand, schema });
        };
        for field in &self.fields {
            let number = if field.types.contains(&ValueType::Float) { ValueType::Float } else { ValueType::Int };
            let is_number = field.types.iter().any(|ty| matches!(ty, ValueType::Int | ValueType::Float));
            if field.types.contains(&ValueType::Str) {
                add(field, "", Comparison::Equal, ValueType::Str, field.operand_schema(ValueType::Str, ""));
            } else if field.types.contains(&ValueType::Bool) {
                add(field, "", Comparison::Equal, ValueType::Bool, field.operand_schema(ValueType::Bool, ""));
            } else if is_number {
                add(field, "", Comparison::Equal, number, field.operand_schema(number, ""));
            }
            if is_number {
                add(field, "_gte", Comparison::AtLeast, number, field.operand_schema(number, "At least this. "));
                add(field, "_lte", Comparison::AtMost, number, field.operand_schema(number, "At most this. "));
            }
            if let Some(element) = field.types.iter().find_map(|ty| element_of(*ty)) {
                let schema = field.operand_schema(element, "An element of the list. ");
                add(field, "_contains", Comparison::Contains, element, schema);
            }
        }
        parameters
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
        field.values = allowed.iter().map(Value::to_json).collect();
        field.is_closed = true;
    }
    let number = |scalar: &Scalar| match scalar {
        Scalar::Int(int) => Some(json!(int)),
        Scalar::Float(float) => Some(json!(float)),
        _ => None,
    };
    let declared = property.min.as_ref().zip(property.max.as_ref());
    if let Some(range) = declared.and_then(|(min, max)| number(&min.value).zip(number(&max.value))) {
        field.range = Some(range);
    }
    field
}

impl Field {
    fn json_schema(&self) -> Json {
        let of = |ty: ValueType| match element_of(ty) {
            Some(element) => json!({"type": "array", "items": {"type": json_type(element)}}),
            None => json!({"type": json_type(ty)}),
        };
        let mut schema = match self.types[..] {
            [one] => of(one),
            _ => json!({"anyOf": self.types.iter().map(|ty| of(*ty)).collect::<Vec<_>>()}),
        };
        if let Some(description) = &self.description {
            schema["description"] = description.as_str().into();
        }
        if !self.values.is_empty() {
            schema[if self.is_closed { "enum" } else { "examples" }] = self.values.clone().into();
        }
        if let Some(format) = self.format {
            schema["format"] = format.name().into();
        }
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
    fn sentence(&self, with_values: bool) -> String {
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

    fn operand_schema(&self, operand: ValueType, prefix: &str) -> Json {
        let mut schema =
            json!({"type": json_type(operand), "description": cut(&format!("{prefix}{}", self.sentence(false)))});
        let is_value = |value: &&Json| match operand {
            ValueType::Str => value.is_string(),
            ValueType::Bool => value.is_boolean(),
            _ => value.is_number(),
        };
        let values: Vec<&Json> = self.values.iter().filter(is_value).collect();
        if operand == ValueType::Str && !values.is_empty() && values.len() == self.values.len() {
            schema["enum"] = json!(values);
        }
        schema
    }
}

fn json_type(ty: ValueType) -> &'static str {
    match ty {
        ValueType::Bool => "boolean",
        ValueType::Int => "integer",
        ValueType::Float => "number",
        ValueType::Str => "string",
        _ => "array",
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(DESCRIPTION_MAX - 1) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A key as a parameter's name.
fn plain_name(key: &str, suffix: &str) -> String {
    let plain: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let plain: String = plain.chars().take(NAME_MAX - suffix.len() - 4).collect();
    format!("{plain}{suffix}")
}
