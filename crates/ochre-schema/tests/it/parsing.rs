//! Every way to write a schema, and every way to write it wrongly.

use ochre_model::ValueType;
use ochre_schema::{Additional, MetadataSchema, Severity};
use serde_json::{Value as Json, json};

fn parse(json: &Json) -> MetadataSchema {
    MetadataSchema::parse(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

#[test]
fn shorthand_full_form_and_json_schema_say_the_same() {
    let shorthand =
        parse(&json!({"year": "int", "genre": "string", "tags": "list[string]", "mixed": ["int", "string"]}));
    let full = parse(&json!({"properties": {
        "year": {"type": "integer"}, "genre": {"type": "text"}, "tags": {"type": "string[]"},
        "mixed": {"type": ["int", "str"]},
    }}));
    let standard = parse(&json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": {
            "year": {"type": "integer"}, "genre": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}}, "mixed": {"type": ["integer", "string"]},
        },
    }));
    let types = |schema: &MetadataSchema| -> Vec<(String, Vec<ValueType>)> {
        schema.properties.iter().map(|(key, property)| (key.clone(), property.types.clone())).collect()
    };
    assert_eq!(types(&shorthand), types(&full));
    assert_eq!(types(&shorthand), types(&standard));
}

#[test]
fn a_string_holds_a_schema_as_well() {
    let schema = parse(&json!("{\"year\": \"int\"}"));
    assert_eq!(schema.properties["year"].types, [ValueType::Int]);
}

#[test]
fn everything_a_property_can_say_is_read() {
    let schema = parse(&json!({
        "description": "Films", "version": 3, "additional": "warn", "required": ["title"],
        "properties": {
            "title": {"type": "string", "min_length": 1, "maxLength": 200, "pattern": "^[A-Z]", "sensitive": true},
            "year": {"type": "int", "min": 1888, "exclusive_max": 2100, "severity": "warning", "default": 2000},
            "genre": {"enum": ["drama", "comedy"], "description": "What kind", "examples": ["drama"]},
            "tags": {"type": "list[string]", "min_items": 1, "max_items": 9, "unique_items": true,
                     "items": {"max_length": 20}},
            "released": {"type": "date"},
            "price_*": "float",
            "#document": {"required": true, "min_length": 3},
            "#embedding": {"dimension": 3, "nonzero": true, "max_norm": 2},
        },
        "validators": [{"cel": "!('year' in record) || record.year > 1900 || id.startsWith('old')", "message": "too old"}],
    }));
    assert!(schema.properties["title"].required && schema.properties["title"].sensitive);
    assert_eq!(schema.properties["year"].severity, Severity::Warning);
    assert!(schema.properties["year"].max.as_ref().unwrap().exclusive);
    assert_eq!(schema.property("price_eur").unwrap().types, [ValueType::Float]);
    assert_eq!(schema.properties["released"].format.unwrap().name(), "date");
    assert!(matches!(schema.additional, Additional::Warn));
    assert!(schema.document.unwrap().required && schema.embedding.unwrap().nonzero);
}

#[test]
fn a_key_with_a_star_in_it_is_validated_by_its_own_pattern_before_others() {
    let schema = parse(&json!({"properties": {"*": {"type": "string"}, "a*": {"type": "int"}}}));
    assert_eq!(schema.property("a*").unwrap().types, [ValueType::Int]);
    assert_eq!(schema.property("abc").unwrap().types, [ValueType::Str]);
}

#[test]
fn keys_named_like_members_of_the_full_form_are_keys_in_the_shorthand() {
    let schema = parse(&json!({"properties": "string", "description": "string", "required": "bool", "type": "string"}));
    assert_eq!(schema.properties.len(), 4);
    let schema = parse(&json!({"properties": {"type": "string", "max_length": 3}, "year": "int"}));
    assert_eq!(schema.properties["properties"].max_length, Some(3));
    // Alone it is the full form, whose keys may have any name.
    let schema = parse(&json!({"properties": {"type": "string", "source": "string"}}));
    assert_eq!(schema.properties.keys().collect::<Vec<_>>(), ["source", "type"]);
    let schema = parse(&json!({"properties": {"type": "string"}}));
    assert_eq!(schema.properties.keys().collect::<Vec<_>>(), ["type"]);
}

/// Each with the place of the fault, and a word that the message must have.
#[test]
fn a_malformed_schema_is_refused_with_the_place_and_the_remedy() {
    let cases = [
        (json!(5), "", "expected an object"),
        (json!(null), "", "found null"),
        (json!([]), "", "found a list"),
        (json!("{"), "", "holds no JSON"),
        (json!("[1]"), "", "found a list"),
        (json!({"year": "integr"}), "/year", "did you mean \"integer\""),
        (json!({"year": "decimal128"}), "/year", "there are string"),
        (json!({"year": 5}), "/year", "found a number"),
        (json!({"year": null}), "/year", "found null"),
        (json!({"year": []}), "/year", "empty list"),
        (json!({"year": ["int", 5]}), "/year/1", "found a number"),
        (json!({"year": {"typ": "int"}}), "/year/typ", "did you mean \"type\""),
        (json!({"a/b": {"typ": "int"}}), "/a~1b/typ", "type"),
        (json!({"author": "object"}), "/author", "flat"),
        (json!({"x": "null"}), "/x", "missing key"),
        (json!({"x": "list"}), "/x", "list[string]"),
        (json!({"x": "list[list[int]]"}), "/x", "no type"),
        (json!({"x": "sparse_vector"}), "/x", "sparse"),
        (json!({"x": {"type": "array"}}), "/x/type", "items"),
        (json!({"": "int"}), "/", "empty"),
        (json!({"$x": "int"}), "/$x", "#document"),
        (json!({"#x": "int"}), "/#x", "#document"),
        (json!({"chroma:x": "int"}), "/chroma:x", "reserved"),
        (json!({"x": {"type": "int", "pattern": "a"}}), "/x/pattern", "strings"),
        (json!({"x": {"type": "string", "pattern": "("}}), "/x/pattern", "regular expression"),
        (json!({"x": {"type": "string", "pattern": "(?=a)"}}), "/x/pattern", "look-around"),
        (json!({"x": {"type": "string", "pattern": 5}}), "/x/pattern", "found a number"),
        (json!({"x": {"type": "string", "format": "dat"}}), "/x/format", "there are date"),
        (json!({"x": {"type": "int", "format": "date"}}), "/x/format", "strings"),
        (json!({"x": {"type": "int", "min": "a"}}), "/x/min", "compared"),
        (json!({"x": {"type": "int", "min": 5, "max": 1}}), "/x/min", "larger than max"),
        (json!({"x": {"type": "int", "min": 5, "minimum": 5}}), "/x/minimum", "twice"),
        (json!({"x": {"type": "bool", "max": 1}}), "/x/max", "compared"),
        (json!({"x": {"type": "string", "min_length": -1}}), "/x/min_length", "at least 0"),
        (json!({"x": {"type": "string", "min_length": 5, "max_length": 2}}), "/x/min_length", "larger"),
        (json!({"x": {"type": "string", "min_length": 5, "minLength": 5}}), "/x/minLength", "one of the two"),
        (json!({"x": {"type": "string", "min_items": 5}}), "/x/min_items", "lists"),
        (json!({"x": {"type": "string", "unique_items": "yes"}}), "/x/unique_items", "true or false"),
        (json!({"x": {"type": "int", "enum": []}}), "/x/enum", "empty"),
        (json!({"x": {"type": "int", "enum": 5}}), "/x/enum", "list of values"),
        (json!({"x": {"type": "int", "enum": [1, "a"]}}), "/x/enum/1", "the type is int"),
        (json!({"x": {"type": "int", "default": "a"}}), "/x/default", "the type is int"),
        (json!({"x": {"type": "int", "default": null}}), "/x/default", "found null"),
        (json!({"x": {"enum": ["a"], "default": "b"}}), "/x/default", "enum"),
        (json!({"x": {"whatever": "int"}}), "/x", "flat"),
        (json!({"x": ["date", "string"]}), "/x/1", "one format"),
        (json!({"x": ["date", "uuid"]}), "/x/1", "one format"),
        (json!({"x": {"type": "list[string]", "enum": [["a"]]}}), "/x/enum/0", "elements"),
        (json!({"#embedding": {"required": "banana"}}), "/#embedding/required", "true or false"),
        (json!({"x": {"validators": [{"cel": "lenght(value) > 1"}]}}), "/x/validators/0/cel", "no function"),
        (json!({"x": {"validators": [{"cel": "value.matches('a')"}]}}), "/x/validators/0/cel", "regex"),
        (
            json!({"x": {"validators": [{"cel": "value.all(a, document.contains(a))"}]}}),
            "/x/validators/0/cel",
            "only the element",
        ),
        (json!({"x": {"pattern": "\\w{60}"}}), "/x/pattern", "size limit"),
        (json!({"propertis": {"y": "int"}}), "/propertis", "did you mean \"properties\""),
        (json!({"type": "object", "allOf": []}), "/allOf", "one property"),
        (json!({"properties": {}, "validators": [{"cel": "value > 1"}]}), "/validators/0/cel", "record.year"),
        (json!({"x": {"type": "int", "severity": "fatal"}}), "/x/severity", "error or warning"),
        (json!({"x": {"type": "int", "required": "yes"}}), "/x/required", "true or false"),
        (json!({"x": {"type": "int", "description": 5}}), "/x/description", "found a number"),
        (json!({"x_*": {"type": "int", "required": true}}), "/x_*", "cannot be required"),
        (json!({"x": {"$ref": "#/y"}}), "/x/$ref", "write the property out"),
        (json!({"x": {"anyOf": []}}), "/x/anyOf", "list the types"),
        (json!({"x": {"multipleOf": 2}}), "/x/multipleOf", "CEL"),
        (json!({"properties": {"x": "int"}, "required": ["y"]}), "/required/0", "not among the properties"),
        (json!({"properties": {"x": "int"}, "required": "x"}), "/required", "list of keys"),
        (json!({"properties": {"x": "int"}, "additional": "maybe"}), "/additional", "allow, warn, deny"),
        (json!({"properties": {"x": "int"}, "additional": true, "additionalProperties": true}), "", "not both"),
        (json!({"properties": {"x": "int"}, "patternProperties": {}}), "/patternProperties", "price_*"),
        (json!({"properties": {"x": "int"}, "strict": true}), "/strict", "there are"),
        (json!({"$schema": "x", "type": "array"}), "/type", "object"),
        (json!({"x": {"validators": {}}}), "/x/validators", "list"),
        (json!({"x": {"validators": [{}]}}), "/x/validators/0", "exactly one"),
        (json!({"x": {"validators": [{"cel": "value >"}]}}), "/x/validators/0/cel", "not CEL"),
        (json!({"x": {"validators": [{"cel": "vale > 5"}]}}), "/x/validators/0/cel", "names vale"),
        (
            json!({"x": {"validators": [{"cel": "value.all(a, value.all(b, a == b))"}]}}),
            "/x/validators/0/cel",
            "inside",
        ),
        (json!({"x": {"validators": [{"cel": "true", "on_error": "explode"}]}}), "/x/validators/0/on_error", "refuse"),
        (json!({"properties": {}, "validators": [{"regex": "a"}]}), "/validators/0/regex", "property"),
        (json!({"#document": "int"}), "/#document", "strings"),
        (json!({"#embedding": "int"}), "/#embedding", "dimension"),
        (json!({"#embedding": {"min_norm": 2, "max_norm": 1}}), "/#embedding", "no embedding"),
        (json!({"#embedding": {"dimension": "many"}}), "/#embedding/dimension", "whole number"),
    ];
    assert!(cases.len() >= 40);
    for (schema, pointer, words) in cases {
        let error = MetadataSchema::parse(&schema).expect_err(&schema.to_string());
        assert_eq!(error.pointer, pointer, "{schema}: {error}");
        assert!(error.to_string().contains(words), "{schema}: {error}");
    }
}
