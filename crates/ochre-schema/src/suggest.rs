//! From what was found in data to a schema that accepts it, to indexes, and to names that look alike.

use std::collections::BTreeMap;

use ochre_model::ValueType;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::format::Format;
use crate::property::{Property, type_name};
use crate::report::KeyReport;
use crate::schema::MetadataSchema;

/// A key is called required, or given a format, if so many records say so and none says otherwise.
const SURE_RECORDS: u64 = 20;
/// A string key with at most so many values is shown with examples of them.
const EXAMPLES_MAX: usize = 5;

/// A key that filters would profit from having indexed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IndexSuggestion {
    /// The metadata keys, in order.
    pub columns: Vec<String>,
    /// `equality` or `range`.
    pub kind: &'static str,
    /// Why.
    pub reason: String,
}

/// Which types a suggested schema gives to a key whose values are of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SuggestedTypes {
    /// The one that most records have; the others break the schema. Integers beside floats are floats.
    #[default]
    Majority,
    /// All of them: every record satisfies the schema.
    Union,
}

/// The schema that the reports suggest. `formats` are those that all values of a key have. What `declared` calls
/// sensitive stays so.
pub fn suggest_schema(
    keys: &[KeyReport], records: u64, formats: &BTreeMap<String, Format>, declared: Option<&MetadataSchema>,
    of: SuggestedTypes,
) -> Json {
    let mut properties = Map::new();
    for key in keys {
        let is_suggested = |name: &&str| match (of, key.majority) {
            (SuggestedTypes::Union, _) => true,
            (SuggestedTypes::Majority, "int" | "float") => matches!(*name, "int" | "float"),
            (SuggestedTypes::Majority, "list[int]" | "list[float]") => matches!(*name, "list[int]" | "list[float]"),
            (SuggestedTypes::Majority, majority) => *name == majority,
        };
        let types: Vec<&str> = key.types.keys().copied().filter(is_suggested).collect();
        // Integers are floats, so float alone takes both.
        let types: Vec<&str> =
            types.iter().copied().filter(|name| *name != "int" || !types.contains(&"float")).collect();
        let types: Vec<&str> =
            types.iter().copied().filter(|name| *name != "list[int]" || !types.contains(&"list[float]")).collect();
        let mut property = Map::new();
        // No type that is declared stands for sparse vectors.
        if !types.contains(&type_name(ValueType::Sparse)) {
            property.insert("type".into(), if let [one] = types[..] { one.into() } else { json!(types) });
        }
        // A name with `*` in it is a pattern, which cannot be required.
        if key.count == records && records >= SURE_RECORDS && !key.name.contains('*') {
            property.insert("required".into(), true.into());
        }
        if let Some(format) = formats.get(&key.name)
            && types == ["string"]
            && key.count >= SURE_RECORDS
        {
            property.insert("format".into(), format.name().into());
        }
        if declared.and_then(|declared| declared.property(&key.name)).is_some_and(|property| property.sensitive) {
            property.insert("sensitive".into(), true.into());
        }
        let takes = |value: &Json| match value {
            Json::Bool(_) => types.contains(&"bool"),
            Json::Number(number) if number.is_f64() => types.contains(&"float"),
            Json::Number(_) => types.contains(&"int") || types.contains(&"float"),
            Json::String(_) => types.contains(&"string"),
            _ => false,
        };
        let values = key.top.iter().filter_map(|top| top.get("value")).filter(|value| takes(value));
        let examples: Vec<Json> = values.take(EXAMPLES_MAX).cloned().collect();
        if !examples.is_empty() {
            property.insert("examples".into(), examples.into());
        }
        properties.insert(key.name.clone(), property.into());
    }
    json!({"properties": properties})
}

/// Which types are expected under a key, by what is declared of it if something is.
pub fn expected_types(report: &KeyReport, declared: Option<&Property>) -> Vec<ValueType> {
    if let Some(property) = declared.filter(|property| !property.types.is_empty()) {
        return ValueType::ALL.into_iter().filter(|ty| property.takes(*ty)).collect();
    }
    let is_expected = |ty: &ValueType| {
        let name = type_name(*ty);
        name == report.majority || (report.majority == "float" && *ty == ValueType::Int)
    };
    ValueType::ALL.into_iter().filter(is_expected).collect()
}

/// Keys worth an index: in many records, and telling them apart. Values of `looked_at` records were looked at.
pub fn suggest_indexes(keys: &[KeyReport], records: u64, looked_at: u64) -> Vec<IndexSuggestion> {
    let mut found = Vec::new();
    for key in keys.iter().filter(|key| records >= 1000 && key.presence >= 0.1) {
        let Some(cardinality) = key.cardinality.filter(|cardinality| *cardinality >= 2) else { continue };
        let (kind, what) = match key.majority {
            "int" | "float" if cardinality > 50 => ("range", "numbers of a wide range"),
            "list[string]" | "list[int]" | "list[float]" | "list[bool]" => ("equality", "list elements"),
            _ if cardinality.saturating_mul(2) <= key.count.min(looked_at) => {
                ("equality", "values that many records share")
            }
            _ => continue,
        };
        found.push(IndexSuggestion {
            columns: vec![key.name.clone()],
            kind,
            reason: format!("{what}: {cardinality} different in {} records", key.count),
        });
    }
    found
}

/// Groups of keys whose names differ only in case and separators: `created_at`, `createdAt`.
pub fn similar_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in names {
        let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        groups.entry(plain).or_default().push(name);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}
