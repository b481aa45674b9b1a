//! Flat typed parameters by which records can be searched: `year_gte=1990`. OpenAPI documents and MCP tools list them.

use std::collections::HashSet;

use ochre_model::ValueType;
use serde_json::{Value as Json, json};

use crate::export::{Field, Fields, MAXIMUM, MINIMUM, bound, cut, demand, json_type};
use crate::format::Format;
use crate::property::element_of;

/// A search has at most so many parameters of a collection's own: those of the first keys.
pub const PARAMETERS_MAX: usize = 200;
/// The longest name of a parameter, in characters (a limit of tools for language models).
const NAME_MAX: usize = 64;
/// Names that parameters of a search have anyway.
const RESERVED: [&str; 3] = ["q", "n", "offset"];

/// How a parameter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The value is equal to the operand.
    Equal,
    /// The number or date is at least the operand.
    AtLeast,
    /// The number or date is at most the operand.
    AtMost,
    /// The list has the operand as an element.
    Contains,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// ASCII letters, digits and `_`.
    pub name: String,
    /// The metadata key it is about.
    pub key: String,
    /// How it compares.
    pub comparison: Comparison,
    /// The types its operand may have: no lists. What can be read as several of them is.
    pub operands: Vec<ValueType>,
    /// Its JSON Schema, with a description.
    pub schema: Json,
}

impl Fields {
    /// The parameters by which records can be searched for, in the order of the fields; at most [`PARAMETERS_MAX`].
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut namer = Namer {
            taken: RESERVED.map(str::to_owned).into(),
            // A key that can be a name is the name of its own parameter.
            own: self.fields.iter().map(|field| field.name.clone()).collect(),
        };
        let mut parameters = Vec::new();
        for field in self.fields.iter().take(PARAMETERS_MAX) {
            let of = |wanted: &[ValueType]| -> Vec<ValueType> {
                field.types.iter().copied().filter(|ty| wanted.contains(ty)).collect()
            };
            let scalars = of(&[ValueType::Bool, ValueType::Int, ValueType::Float, ValueType::Str]);
            let mut ordered = of(&[ValueType::Int, ValueType::Float]);
            if matches!(field.format, Some(Format::Date | Format::DateTime)) && field.types == [ValueType::Str] {
                // Dates in one notation sort as their texts do.
                ordered = vec![ValueType::Str];
            }
            let mut elements: Vec<ValueType> = field.types.iter().filter_map(|ty| element_of(*ty)).collect();
            if elements.contains(&ValueType::Float) && !elements.contains(&ValueType::Int) {
                // A list of integers may stand where floats are declared, and elements are compared by their type.
                elements.push(ValueType::Int);
            }
            let wanted = [
                ("", Comparison::Equal, scalars, ""),
                ("_gte", Comparison::AtLeast, ordered.clone(), "At least this. "),
                ("_lte", Comparison::AtMost, ordered, "At most this. "),
                ("_contains", Comparison::Contains, elements, "An element of the list. "),
            ];
            for (suffix, comparison, operands, words) in wanted {
                if !operands.is_empty() {
                    let name = namer.name(&field.name, suffix);
                    let schema = field.operand_schema(&operands, comparison, words);
                    parameters.push(Parameter { name, key: field.name.clone(), comparison, operands, schema });
                }
            }
        }
        parameters.truncate(PARAMETERS_MAX);
        parameters
    }
}

/// Gives each parameter a name of its own.
struct Namer {
    taken: HashSet<String>,
    own: HashSet<String>,
}

impl Namer {
    fn name(&mut self, key: &str, suffix: &str) -> String {
        let plain = plain_name(key, suffix);
        let is_free = |name: &str| !self.taken.contains(name) && (name == key || !self.own.contains(name));
        let name = if is_free(&plain) {
            plain
        } else {
            (2..).map(|number| format!("{plain}_{number}")).find(|name| is_free(name)).expect("numbers do not end")
        };
        self.taken.insert(name.clone());
        name
    }
}

/// A key as a parameter's name.
fn plain_name(key: &str, suffix: &str) -> String {
    let plain = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    let plain: String = plain.take(NAME_MAX - suffix.len() - 4).collect();
    format!("{plain}{suffix}")
}

impl Field {
    fn operand_schema(&self, operands: &[ValueType], comparison: Comparison, words: &str) -> Json {
        let mut types: Vec<&str> = operands.iter().map(|ty| json_type(*ty)).collect();
        types.retain(|name| *name != "integer" || !operands.contains(&ValueType::Float));
        let ty = if let [one] = types[..] { json!(one) } else { json!(types) };
        let is_text = operands == [ValueType::Str];
        // Values that were merely seen are no promise that there are no others.
        let sentence = self.sentence(!self.is_closed && is_text);
        let mut schema = json!({"type": ty, "description": cut(&format!("{words}{sentence}"))});
        let is_range = matches!(comparison, Comparison::AtLeast | Comparison::AtMost);
        if is_range && is_text {
            schema["format"] = if self.format == Some(Format::Date) { "date" } else { "date-time" }.into();
        } else if self.is_closed && is_text {
            schema["enum"] = self.values.iter().filter(|value| value.is_string()).cloned().collect();
        }
        if let Some(property) = &self.property {
            // What the lint says can never match is no operand.
            match comparison {
                Comparison::Equal => operands.iter().for_each(|ty| demand(property, *ty, &mut schema)),
                Comparison::AtLeast => bound(property.max.as_ref(), MAXIMUM, &mut schema),
                Comparison::AtMost => bound(property.min.as_ref(), MINIMUM, &mut schema),
                Comparison::Contains => {}
            }
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&str], expected: &[(&str, &str)]) {
        let fields =
            keys.iter().map(|key| Field { name: (*key).to_owned(), types: vec![ValueType::Int], ..Field::default() });
        let fields = Fields::of(fields.collect());
        let parameters = fields.parameters();
        for (name, key) in expected {
            let found = parameters.iter().find(|parameter| parameter.name == *name);
            assert_eq!(found.map(|parameter| parameter.key.as_str()), Some(*key), "{name} of {keys:?}");
        }
    }

    #[test]
    fn a_key_that_can_be_a_name_keeps_it_and_others_get_a_number() {
        check(&["a b", "a-b", "a_b"], &[("a_b", "a_b"), ("a_b_2", "a b"), ("a_b_3", "a-b")]);
        check(&["year", "year_gte"], &[("year_gte", "year_gte"), ("year_gte_2", "year"), ("year", "year")]);
        check(&["q", "größe"], &[("q_2", "q"), ("gr__e", "größe")]);
    }
}
