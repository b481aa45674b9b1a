//! Validation against a naive one, on random schemas and records.

use ochre_model::{Filter, Metadata, Scalar, Test, ValidationType, Value};
use ochre_schema::{Functions, MetadataSchema, Subject, lint, prepare, type_name, validate, violations};
use serde_json::{Map, Value as Json, json};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn random_value(rng: &mut fastrand::Rng) -> Value {
    match rng.u8(0..8) {
        0 => Value::Bool(rng.bool()),
        1 | 2 => Value::Int(rng.i64(-2..4)),
        3 => Value::Float(f64::from(rng.i8(-4..8)) / 2.0),
        4 | 5 => Value::Str(["", "x", "xy", "xyz", "y"][rng.usize(0..5)].into()),
        6 => Value::Ints((0..rng.usize(1..4)).map(|_| rng.i64(0..3)).collect()),
        _ => Value::Strs((0..rng.usize(1..4)).map(|_| ["x", "y"][rng.usize(0..2)].into()).collect()),
    }
}

fn random_property(rng: &mut fastrand::Rng) -> Json {
    let mut property = Map::new();
    let types = ["int", "float", "string", "bool", "list[int]", "list[string]"];
    let first = types[rng.usize(0..types.len())];
    property.insert("type".into(), if rng.u8(0..4) == 0 { json!([first, "int"]) } else { json!(first) });
    if rng.bool() {
        property.insert("required".into(), json!(rng.bool()));
    }
    if first == "int" || first == "float" {
        if rng.bool() {
            property.insert(["min", "exclusive_min"][rng.usize(0..2)].into(), json!(rng.i64(-1..2)));
        }
        if rng.bool() {
            property.insert(["max", "exclusive_max"][rng.usize(0..2)].into(), json!(rng.i64(2..4)));
        }
    }
    if first == "string" {
        if rng.bool() {
            property.insert("min_length".into(), json!(rng.u8(0..3)));
        }
        if rng.bool() {
            property.insert("pattern".into(), json!("^x"));
        }
        if rng.u8(0..3) == 0 {
            property.insert("enum".into(), json!(["x", "xy"]));
        }
    }
    if first.starts_with("list") && rng.bool() {
        property.insert("max_items".into(), json!(rng.u8(1..3)));
    }
    property.into()
}

/// The broken rules of a record, straight from the words of the schema.
fn naive(schema: &Json, is_strict: bool, metadata: &Metadata) -> Vec<(String, String)> {
    let mut broken = Vec::new();
    let properties = schema["properties"].as_object().unwrap();
    for (key, property) in properties {
        if property["required"] == json!(true) && metadata.get(key).is_none() {
            broken.push((key.clone(), "required".to_owned()));
        }
    }
    for (key, value) in metadata.iter() {
        let mut add = |rule: &str| broken.push((key.to_owned(), rule.to_owned()));
        let Some(property) = properties.get(key) else {
            if is_strict {
                add("additional");
            }
            continue;
        };
        let types: Vec<&str> = match &property["type"] {
            Json::Array(list) => list.iter().filter_map(Json::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let name = type_name(value.value_type());
        if !(types.contains(&name) || name == "int" && types.contains(&"float")) {
            add("type");
            continue;
        }
        let number = match value {
            Value::Int(int) => Some(*int as f64),
            Value::Float(float) => Some(*float),
            _ => None,
        };
        if let Some(number) = number {
            let below = |bound: &str| property[bound].as_f64().is_some_and(|bound| number < bound);
            let above = |bound: &str| property[bound].as_f64().is_some_and(|bound| number > bound);
            let on = |bound: &str| property[bound].as_f64() == Some(number);
            if below("min") || below("exclusive_min") || on("exclusive_min") {
                add("min");
            }
            if above("max") || above("exclusive_max") || on("exclusive_max") {
                add("max");
            }
        }
        if let Value::Str(text) = value {
            if property["min_length"].as_u64().is_some_and(|min| (text.len() as u64) < min) {
                add("min_length");
            }
            if property["pattern"] == "^x" && !text.starts_with('x') {
                add("pattern");
            }
            if property["enum"].as_array().is_some_and(|list| !list.contains(&json!(text))) {
                add("enum");
            }
        } else if property.get("enum").is_some() {
            // A number is in no list of strings.
            add("enum");
        }
        let length = match value {
            Value::Ints(list) => Some(list.len() as u64),
            Value::Strs(list) => Some(list.len() as u64),
            _ => None,
        };
        if length.zip(property["max_items"].as_u64()).is_some_and(|(length, max)| length > max) {
            add("max_items");
        }
    }
    broken.sort();
    broken
}

#[test]
fn the_validation_finds_what_a_naive_one_finds() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut found_any = 0;
    for _ in 0..20_000 {
        let mut properties = Map::new();
        for key in KEYS {
            if rng.bool() {
                properties.insert(key.into(), random_property(&mut rng));
            }
        }
        let written = json!({"properties": properties});
        let schema = MetadataSchema::parse(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
        let mut metadata = Metadata::new();
        for key in KEYS {
            if rng.bool() {
                metadata.set(key.into(), Some(random_value(&mut rng)));
            }
        }
        for mode in [ValidationType::Strict, ValidationType::Lax] {
            let subject = Subject { id: "i", metadata: Some(&metadata), ..Subject::default() };
            let found = violations(&schema, mode, &Functions::default(), &subject);
            let mut found: Vec<(String, String)> = found.into_iter().map(|v| (v.key, v.rule.to_owned())).collect();
            found.sort();
            let expected = naive(&written, mode == ValidationType::Strict, &metadata);
            found_any += usize::from(!expected.is_empty());
            assert_eq!(found, expected, "{written} on {metadata:?}");
        }
    }
    assert!(found_any > 5000, "the records must break rules: {found_any}");
}

fn check_cel(expression: &str, expected: &[&str]) {
    let written = json!({
        "properties": {"n": {"type": "int", "validators": [{"cel": expression}]}, "tags": "list[string]"},
    });
    let schema = MetadataSchema::parse_stored(&written).unwrap();
    let metadata: Metadata =
        [("n", Value::Int(7)), ("tags", Value::Strs(vec!["a".into(), "b".into()]))].into_iter().collect();
    let subject = Subject { id: "id-7", metadata: Some(&metadata), document: Some("text"), embedding: None };
    let found = violations(&schema, ValidationType::Strict, &Functions::default(), &subject);
    assert_eq!(found.iter().map(|v| v.rule).collect::<Vec<_>>(), expected, "{expression}: {found:?}");
}

#[test]
fn cel_sees_the_value_the_record_the_id_and_the_document() {
    check_cel("value > 5 && record.n == value && id.endsWith('7') && document.contains('ex')", &[]);
    check_cel("value > 7", &["cel"]);
    check_cel("record.tags.exists(t, t == 'b')", &[]);
    check_cel("'missing' in record", &["cel"]);
    check_cel("record.missing == 1", &["validator"]);
    check_cel("value + 1", &["validator"]);
}

#[test]
fn what_only_newer_versions_refuse_goes_on_where_it_is_stored() {
    for schema in [
        json!({"n": {"type": "int", "examples": ["x"], "max": 1e30}}),
        json!({"n": {"validators": [{"cel": "value + 1"}]}}),
        json!({"$schema": "http://json-schema.org/draft-04/schema#", "properties": {"n": "int"}}),
        json!("{\"n\": \"int\", \"n\": \"string\"}"),
    ] {
        assert!(MetadataSchema::parse(&schema).is_err(), "{schema}");
        assert!(MetadataSchema::parse_stored(&schema).is_ok(), "{schema}");
    }
}

#[test]
fn a_registered_function_validates_and_a_missing_one_refuses() {
    let schema = MetadataSchema::parse(&json!({"properties": {"n": {"validators": [{"function": "even"}]}}})).unwrap();
    let mut functions = Functions::default();
    assert_eq!(schema.missing_functions(&functions), ["even"]);
    let metadata: Metadata = [("n", Value::Int(7))].into_iter().collect();
    let subject = Subject { id: "a", metadata: Some(&metadata), ..Subject::default() };
    let rules = |functions: &Functions| -> Vec<(&'static str, String)> {
        let found = violations(&schema, ValidationType::Lax, functions, &subject);
        found.into_iter().map(|v| (v.rule, v.message)).collect()
    };
    assert_eq!(rules(&functions)[0].0, "validator");
    functions.register("even", |_, value| match value {
        Some(Value::Int(n)) if n % 2 == 0 => Ok(()),
        _ => Err("it is odd".into()),
    });
    assert_eq!(rules(&functions), [("function", "key \"n\": it is odd".to_owned())]);
}

#[test]
fn defaults_fill_new_records_and_whole_floats_become_integers_in_lax_mode() {
    let schema = MetadataSchema::parse(&json!({"n": {"type": "int", "default": 3}, "l": "list[int]"})).unwrap();
    let validated = |mode, metadata: Option<Metadata>, before: Option<Subject<'_>>| {
        let mut metadata = metadata;
        prepare(&schema, mode, before.is_none(), &mut metadata);
        let after = Subject { id: "a", metadata: metadata.as_ref(), ..Subject::default() };
        let verdict = validate(&schema, mode, &Functions::default(), before, after);
        (metadata, verdict.refused.len())
    };
    let of = |pairs: &[(&str, Value)]| -> Metadata { pairs.iter().cloned().collect() };
    assert_eq!(validated(ValidationType::Strict, None, None), (Some(of(&[("n", Value::Int(3))])), 0));
    let floats = of(&[("n", Value::Float(7.0)), ("l", Value::Floats(vec![1.0, 2.0]))]);
    let ints = of(&[("n", Value::Int(7)), ("l", Value::Ints(vec![1, 2]))]);
    assert_eq!(validated(ValidationType::Lax, Some(floats.clone()), None), (Some(ints), 0));
    assert_eq!(validated(ValidationType::Strict, Some(floats), None).1, 2);
    let existing = Subject { id: "a", ..Subject::default() };
    assert_eq!(validated(ValidationType::Strict, None, Some(existing)).0, None);
}

#[test]
fn a_filter_that_is_said_never_to_match_matches_no_record_that_complies() {
    let mut rng = fastrand::Rng::with_seed(11);
    let scalar = |rng: &mut fastrand::Rng| loop {
        match random_value(rng) {
            Value::Bool(b) => return Scalar::Bool(b),
            Value::Int(i) => return Scalar::Int(i),
            Value::Float(f) => return Scalar::Float(f),
            Value::Str(s) => return Scalar::Str(s),
            _ => {}
        }
    };
    let mut told = 0;
    for _ in 0..20_000 {
        let written = json!({"a": random_property(&mut rng)});
        let schema = MetadataSchema::parse(&written).unwrap();
        let test = match rng.u8(0..7) {
            0 | 1 => Test::Eq(scalar(&mut rng)),
            2 => Test::In((0..3).map(|_| scalar(&mut rng)).collect()),
            3 => Test::Compare(Test::GREATER, scalar(&mut rng)),
            4 => Test::Compare(Test::GREATER_OR_EQUAL, scalar(&mut rng)),
            5 => Test::Compare(Test::LESS, scalar(&mut rng)),
            _ => Test::Compare(Test::LESS_OR_EQUAL, scalar(&mut rng)),
        };
        let filter = Filter::Key { key: "a".into(), test: test.clone() };
        let found = lint(&schema, ValidationType::Strict, &filter);
        // In lists one operand of a wrong type is enough to be told.
        if found.is_empty() || matches!(test, Test::In(_)) && found[0].contains("of type") {
            continue;
        }
        told += 1;
        for _ in 0..20 {
            let value = random_value(&mut rng);
            let metadata: Metadata = [("a", value.clone())].into_iter().collect();
            let subject = Subject { metadata: Some(&metadata), ..Subject::default() };
            let complies = violations(&schema, ValidationType::Strict, &Functions::default(), &subject).is_empty();
            assert!(!(complies && test.matches(Some(&value))), "{written} {test:?} {value:?}: {found:?}");
        }
    }
    assert!(told > 2000, "{told}");
}

#[test]
fn filters_past_the_rules_of_a_property_are_told() {
    let schema = MetadataSchema::parse(&json!({
        "year": {"type": "int", "min": 1900, "max": 2100}, "genre": {"type": "string", "enum": ["drama", "comedy"]},
        "secret": {"type": "string", "enum": ["x"], "sensitive": true},
    }))
    .unwrap();
    let text = |text: &str| Scalar::Str(text.into());
    let told =
        |key: &str, test: Test| lint(&schema, ValidationType::Lax, &Filter::Key { key: key.into(), test }).join("");
    for (key, test, words) in [
        ("year", Test::Eq(Scalar::Int(1800)), "at least 1900"),
        ("year", Test::Compare(Test::GREATER, Scalar::Int(2100)), "at most 2100"),
        ("year", Test::Compare(Test::LESS, Scalar::Float(1900.0)), "at least 1900"),
        ("genre", Test::Eq(text("dramma")), "one of drama, comedy"),
        ("genre", Test::In(vec![text("a"), text("b")]), "every operand"),
        ("secret", Test::Eq(text("y")), "one of …"),
        ("year", Test::Prefix("19".into()), "only strings have a beginning"),
        ("year", Test::Size(2), "only lists have a $size"),
    ] {
        let found = told(key, test);
        assert!(found.contains(words), "{key}: {found:?}");
    }
    for (key, test) in [
        ("year", Test::Compare(Test::GREATER_OR_EQUAL, Scalar::Int(2100))),
        ("year", Test::Compare(Test::LESS_OR_EQUAL, Scalar::Int(1900))),
        ("year", Test::Ne(Scalar::Int(1800))),
        ("year", Test::Missing),
        ("genre", Test::Prefix("dra".into())),
        ("genre", Test::In(vec![text("a"), text("drama")])),
    ] {
        assert_eq!(told(key, test), "");
    }
}
