//! Metadata schemas and CEL expressions: parsed, and used to validate records.

use fastrand::Rng;
use ochre_engine::model::{Metadata, ValidationType, Value as Held};
use ochre_engine::schema::{Functions, MetadataSchema, Subject, validate};
use serde_json::{Value, json};

use crate::json::{any, disturb, number, pattern, text};
use crate::{Fed, State};

fn property(rng: &mut Rng) -> Value {
    let kind = rng.choice(["int", "string", "float", "bool", "list[string]", "nothing"]).unwrap_or("int");
    match rng.u8(0..7) {
        0 => json!(kind),
        1 => json!({"type": kind, "min": number(rng), "max": number(rng)}),
        2 => json!({"type": "string", "pattern": pattern(rng, 3), "min_length": rng.u32(0..9)}),
        3 => json!({"type": kind, "enum": (0..rng.usize(0..5)).map(|_| any(rng, 0)).collect::<Vec<_>>()}),
        4 => json!({"type": kind, "required": rng.bool(), "validators": [{"cel": expression(rng, 4)}]}),
        5 => json!({"type": "string", "format": text(rng), "default": any(rng, 0)}),
        _ => any(rng, 3),
    }
}

fn expression(rng: &mut Rng, depth: u8) -> String {
    const ATOMS: &[&str] =
        &["value", "record", "document", "id", "x", "1", "'a'", "[value]", "record.a", "1.5", "[]", "{}"];
    if depth == 0 {
        return ATOMS[rng.usize(..ATOMS.len())].to_owned();
    }
    let part = expression(rng, depth - 1);
    let macro_name = rng.choice(["map", "filter", "all", "exists", "exists_one"]).unwrap_or("map");
    match rng.u8(0..9) {
        0 => format!("({part} + {})", expression(rng, depth - 1)),
        1 => format!("{part}.{macro_name}(x, x + x)"),
        2 => format!("{part}.{macro_name}(x, {})", expression(rng, depth - 1)),
        3 => format!("size({part}) > {}", rng.u32(0..9)),
        4 => format!("[{part}, {part}]"),
        5 => format!("({part} == {})", expression(rng, depth - 1)),
        6 => format!("{{'k': {part}}}"),
        7 => format!("({part} ? {part} : {part})"),
        _ => format!("{part}.contains('a')"),
    }
}

fn validate_with(written: &Value, rng: &mut Rng) -> Fed {
    let Ok(schema) = MetadataSchema::parse(written) else { return Fed::Refused };
    let mut metadata = Metadata::new();
    for _ in 0..rng.usize(0..4) {
        if let Ok(value) = Held::from_json(any(rng, 1)) {
            metadata.set(text(rng), value);
        }
    }
    let document = text(rng);
    let subject = Subject { id: "id", metadata: Some(&metadata), document: Some(&document), embedding: Some(&[1.0]) };
    for mode in [ValidationType::Strict, ValidationType::Lax, ValidationType::Warn] {
        validate(&schema, mode, &Functions::default(), None, subject);
        validate(&schema, mode, &Functions::default(), Some(subject), subject);
    }
    Fed::Accepted
}

/// Whole schemas.
pub(crate) fn schemas(_: &mut State, rng: &mut Rng) -> Fed {
    let properties: Vec<(String, Value)> = (0..rng.usize(0..4)).map(|_| (text(rng), property(rng))).collect();
    let mut written = if rng.bool() {
        Value::Object(properties.into_iter().collect())
    } else {
        json!({"properties": Value::Object(properties.into_iter().collect()), "validators": [{"cel": expression(rng, 3)}], "additional": any(rng, 1)})
    };
    if rng.bool() {
        disturb(rng, &mut written);
    }
    validate_with(&written, rng)
}

/// CEL expressions, most of which double something.
pub(crate) fn expressions(_: &mut State, rng: &mut Rng) -> Fed {
    let depth = rng.u8(1..8);
    let written = json!({"properties": {}, "validators": [{"cel": expression(rng, depth)}]});
    validate_with(&written, rng)
}
