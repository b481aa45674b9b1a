//! JSON that is nearly what is expected.

use fastrand::Rng;
use serde_json::{Map, Value, json};

const WORDS: &[&str] = &[
    "a",
    "b",
    "n",
    "year",
    "chroma:document",
    "#document",
    "#id",
    "",
    "$and",
    "\u{0}",
    "é",
    "日本",
    "💥",
    "chroma:schema",
    "x.y",
    "*",
    "a*",
    "__proto__",
    "id",
];

/// A text: a known word, some letters, or something odd.
pub(crate) fn text(rng: &mut Rng) -> String {
    match rng.u8(0..6) {
        0..4 => WORDS[rng.usize(..WORDS.len())].to_owned(),
        4 => (0..rng.usize(0..30)).map(|_| rng.char(..)).collect(),
        _ => "x".repeat(rng.usize(0..300)),
    }
}

/// A number of any kind.
pub(crate) fn number(rng: &mut Rng) -> Value {
    match rng.u8(0..8) {
        0 => json!(0),
        1 => json!(-1),
        2 => json!(i64::MIN),
        3 => json!(u64::MAX),
        4 => json!(1e300),
        5 => json!(rng.f64()),
        6 => json!(f64::MIN_POSITIVE),
        _ => json!(rng.i64(-10..10)),
    }
}

/// Any value, at most `depth` deep.
pub(crate) fn any(rng: &mut Rng, depth: u8) -> Value {
    match rng.u8(0..if depth == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => number(rng),
        3 | 4 => json!(text(rng)),
        5 | 6 => (0..rng.usize(0..5)).map(|_| any(rng, depth - 1)).collect(),
        _ => Value::Object((0..rng.usize(0..5)).map(|_| (text(rng), any(rng, depth - 1))).collect()),
    }
}

/// Changes a few places of a document: values of other kinds, members doubled, gone or renamed.
pub(crate) fn disturb(rng: &mut Rng, value: &mut Value) {
    if rng.u8(0..6) == 0 {
        *value = any(rng, 2);
        return;
    }
    match value {
        Value::Array(list) if !list.is_empty() => {
            let at = rng.usize(..list.len());
            match rng.u8(0..4) {
                0 => list.truncate(at),
                1 => list.push(list[at].clone()),
                _ => disturb(rng, &mut list[at]),
            }
        }
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(rng.usize(..map.len())).cloned().unwrap_or_default();
            match rng.u8(0..5) {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(text(rng), any(rng, 2))),
                _ => disturb(rng, map.get_mut(&key).unwrap_or(&mut Value::Null)),
            }
        }
        other => *other = any(rng, 1),
    }
}

/// The bytes of a document, sometimes cut or with a byte of another kind.
pub(crate) fn bytes(rng: &mut Rng, value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    match rng.u8(0..8) {
        0 => bytes.truncate(rng.usize(..=bytes.len())),
        1 if !bytes.is_empty() => {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        _ => {}
    }
    bytes
}

/// A `where` clause, mostly right.
pub(crate) fn filter(rng: &mut Rng, depth: u8) -> Value {
    const COMPARE: &[&str] = &["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$not_contains"];
    if depth > 0 && rng.u8(0..3) == 0 {
        let parts: Vec<Value> = (0..rng.usize(0..4)).map(|_| filter(rng, depth - 1)).collect();
        return json!({(rng.choice(["$and", "$or"]).unwrap_or("$and")): parts});
    }
    let operator = COMPARE[rng.usize(..COMPARE.len())];
    let operand = match (operator, rng.bool()) {
        ("$in" | "$nin", _) => (0..rng.usize(0..4)).map(|_| any(rng, 0)).collect(),
        (_, true) => number(rng),
        _ => json!(text(rng)),
    };
    Value::Object(Map::from_iter([(text(rng), json!({operator: operand}))]))
}

/// A `where_document` clause, mostly right.
pub(crate) fn document_filter(rng: &mut Rng, depth: u8) -> Value {
    if depth > 0 && rng.u8(0..3) == 0 {
        let parts: Vec<Value> = (0..rng.usize(0..4)).map(|_| document_filter(rng, depth - 1)).collect();
        return json!({(rng.choice(["$and", "$or"]).unwrap_or("$or")): parts});
    }
    let operator = rng.choice(["$contains", "$not_contains", "$regex", "$not_regex"]).unwrap_or("$contains");
    let operand = if operator.ends_with("regex") { pattern(rng, 3) } else { text(rng) };
    json!({operator: operand})
}

/// A pattern, mostly right, that can be large once it is compiled.
pub(crate) fn pattern(rng: &mut Rng, depth: u8) -> String {
    const ATOMS: &[&str] = &["a", ".", r"\w", r"\d", r"\p{L}", "[^a]", "(?i)b", "^", "$", r"\b", "日", "\\", "(", "["];
    if depth == 0 {
        return ATOMS[rng.usize(..ATOMS.len())].to_owned();
    }
    let inner = pattern(rng, depth - 1);
    match rng.u8(0..7) {
        0 => format!("(?:{inner}){{{}}}", rng.u32(0..400)),
        1 => format!("({inner})*"),
        2 => format!("{inner}|{}", pattern(rng, depth - 1)),
        3 => format!("(?:{inner}){{{},{}}}", rng.u32(0..50), rng.u32(0..2000)),
        _ => format!("{inner}{}", pattern(rng, depth - 1)),
    }
}
