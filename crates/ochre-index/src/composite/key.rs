//! Metadata values as bytes that sort as the values do: the keys of composite indexes.
//!
//! Each value is a class and its bytes, and no encoding is the beginning of another, so that several follow each
//! other without separators and equality on the first columns is a common beginning. Integers and floats are one
//! class, compared exactly. The layout is part of the format: `docs/formats/snapshots.md`.

use std::cmp::Ordering;

use ochre_model::{Scalar, Value, compare_int_float};

/// Longer strings are in no index: filters on them look at the columns.
pub const INDEXED_BYTES_MAX: usize = 512;

/// No value.
const MISSING: u8 = 0x01;
/// A value that nothing looks up: a list in a column that is not opened, a string that is too long.
const OPAQUE: u8 = 0x02;
const BOOL: u8 = 0x08;
/// A number below every `i64`.
const BELOW: u8 = 0x10;
/// The largest integer that is not above the number, then whether anything is left of it.
const NUMBER: u8 = 0x11;
/// A number above every `i64`.
const ABOVE: u8 = 0x12;
const UNORDERED: u8 = 0x13;
const STRING: u8 = 0x20;
/// Elements of lists, a class for each type: they equal only their own.
const ELEMENT: u8 = 0x30;
/// A metadata key, before its value, in columns that hold every key of a type.
const NAMED: u8 = 0x40;

/// Appends the value of a record; a list as one value.
pub(super) fn push_value(key: &mut Vec<u8>, value: Option<&Value>) {
    match value {
        None => key.push(MISSING),
        Some(Value::Bool(b)) => key.extend([BOOL, u8::from(*b)]),
        Some(Value::Int(i)) => push_int(key, *i),
        Some(Value::Float(f)) => push_float(key, *f),
        Some(Value::Str(s)) if s.len() > INDEXED_BYTES_MAX => key.push(OPAQUE),
        Some(Value::Str(s)) => push_str(key, STRING, s),
        Some(_) => key.push(OPAQUE),
    }
}

/// Appends a metadata key.
pub(super) fn push_name(key: &mut Vec<u8>, name: &str) {
    push_str(key, NAMED, name);
}

/// Calls `visit` with the encoding of each element of a list; of a value that is none, not at all.
pub(super) fn for_each_element(value: &Value, visit: &mut dyn FnMut(&[u8])) {
    let mut key = Vec::new();
    let mut give = |scalar: Scalar| {
        key.clear();
        if push_element(&mut key, &scalar) {
            visit(&key);
        }
    };
    match value {
        Value::Bools(list) => list.iter().for_each(|b| give(Scalar::Bool(*b))),
        Value::Ints(list) => list.iter().for_each(|i| give(Scalar::Int(*i))),
        Value::Floats(list) => list.iter().for_each(|f| give(Scalar::Float(*f))),
        Value::Strs(list) => list.iter().for_each(|s| give(Scalar::Str(s.clone()))),
        _ => {}
    }
}

/// Appends an element of a list; `false` if it is in no index.
pub(super) fn push_element(key: &mut Vec<u8>, scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Bool(b) => key.extend([ELEMENT, u8::from(*b)]),
        Scalar::Int(i) => {
            key.push(ELEMENT + 1);
            key.extend(sortable_int(*i));
        }
        Scalar::Float(f) => {
            key.push(ELEMENT + 2);
            // 0.0 and −0.0 are one number.
            key.extend(sortable_float(f + 0.0));
        }
        Scalar::Str(s) if s.len() > INDEXED_BYTES_MAX => return false,
        Scalar::Str(s) => push_str(key, ELEMENT + 3, s),
    }
    true
}

/// Appends an operand of an equality; `false` if no index knows of it.
pub(super) fn push_operand(key: &mut Vec<u8>, operand: &Scalar) -> bool {
    match operand {
        Scalar::Bool(b) => key.extend([BOOL, u8::from(*b)]),
        Scalar::Int(i) => push_int(key, *i),
        Scalar::Float(f) if f.is_nan() => return false,
        Scalar::Float(f) => push_float(key, *f),
        Scalar::Str(s) if s.len() > INDEXED_BYTES_MAX => return false,
        Scalar::Str(s) => push_str(key, STRING, s),
    }
    true
}

/// Appends that there is no value.
pub(super) fn push_missing(key: &mut Vec<u8>) {
    key.push(MISSING);
}

/// The keys that begin with `prefix` and go on with a value, whatever it is.
pub(super) fn any_value(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    ([prefix, &[OPAQUE]].concat(), [prefix, &[u8::MAX]].concat())
}

/// The keys that begin with `prefix` and go on with a number that is ordered so against the operand: from the first,
/// to before the second.
pub(super) fn number_range(prefix: &[u8], orders: &[Ordering], operand: &Scalar) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut at = prefix.to_vec();
    if matches!(operand, Scalar::Bool(_) | Scalar::Str(_)) || !push_operand(&mut at, operand) {
        return None;
    }
    let class = |tag: u8| [prefix, &[tag]].concat();
    let after = successor(at.clone());
    let holds = |order| orders.contains(&order);
    let low = match (holds(Ordering::Less), holds(Ordering::Equal)) {
        (true, _) => class(BELOW),
        (false, true) => at.clone(),
        (false, false) => after.clone(),
    };
    let high = match (holds(Ordering::Greater), holds(Ordering::Equal)) {
        (true, _) => class(UNORDERED),
        (false, true) => after,
        (false, false) => at,
    };
    Some((low, high))
}

/// What sorts before everything that does not begin with `prefix` but sorts after it. No encoding begins with 0xFF.
pub(super) fn successor(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    // Only of nothing at all.
    vec![u8::MAX]
}

fn push_int(key: &mut Vec<u8>, int: i64) {
    key.push(NUMBER);
    key.extend(sortable_int(int));
    key.push(0);
}

fn push_float(key: &mut Vec<u8>, float: f64) {
    let floor = float.floor();
    if float.is_nan() {
        key.push(UNORDERED);
    } else if let Some(int) = exact_int(floor) {
        key.push(NUMBER);
        key.extend(sortable_int(int));
        // Of all that share this integer the integer itself comes first.
        key.push(u8::from(float > floor));
        if float > floor {
            key.extend(sortable_float(float));
        }
    } else {
        key.push(if float < 0.0 { BELOW } else { ABOVE });
        key.extend(sortable_float(float));
    }
}

/// A float without a fraction as an integer, if it is one.
fn exact_int(float: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "checked right below")]
    let int = float as i64;
    (compare_int_float(int, float) == Some(Ordering::Equal)).then_some(int)
}

fn push_str(key: &mut Vec<u8>, class: u8, text: &str) {
    key.push(class);
    for byte in text.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(u8::MAX);
        }
    }
    key.extend([0, 0]);
}

fn sortable_int(int: i64) -> [u8; 8] {
    (int.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

fn sortable_float(float: f64) -> [u8; 8] {
    let bits = float.to_bits();
    (if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }).to_be_bytes()
}

/// The bounds of everything that begins with `prefix`.
pub(super) fn beginning_with(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let end = successor(prefix.clone());
    (prefix, end)
}

#[cfg(test)]
mod tests {
    use ochre_model::Test;

    use super::*;

    /// Numbers at every edge: of `i64`, of what `f64` tells apart, of zero.
    fn numbers() -> Vec<Value> {
        let ints = [i64::MIN, i64::MIN + 1, -(1 << 53) - 1, -1, 0, 1, 7, (1 << 53) + 1, i64::MAX - 1, i64::MAX];
        let mut floats = vec![0.0, -0.0, 0.5, -0.5, 1e-300, -1e-300, 1.0, 7.5, -1.5, 1e19, -1e19, 1e300, -1e300];
        floats.extend([f64::INFINITY, f64::NEG_INFINITY, 9_223_372_036_854_775_807.0, -9_223_372_036_854_775_808.0]);
        floats.extend([9_007_199_254_740_993.0, 4_503_599_627_370_497.5]);
        ints.into_iter().map(Value::Int).chain(floats.into_iter().map(Value::Float)).collect()
    }

    fn scalar(value: &Value) -> Scalar {
        match value {
            Value::Bool(b) => Scalar::Bool(*b),
            Value::Int(i) => Scalar::Int(*i),
            Value::Float(f) => Scalar::Float(*f),
            Value::Str(s) => Scalar::Str(s.clone()),
            _ => unreachable!("no lists here"),
        }
    }

    fn encoded(value: &Value) -> Vec<u8> {
        let mut key = b"column".to_vec();
        push_value(&mut key, Some(value));
        key
    }

    #[test]
    fn ranges_of_keys_hold_what_tests_on_values_let_pass() {
        let mut values = numbers();
        values.extend([Value::Bool(false), Value::Bool(true), Value::Ints(vec![7]), Value::Float(f64::NAN)]);
        values.extend(["", "\0", "\0a", "a", "a\0", "ab", "7", "\u{FF}"].map(|text| Value::Str(text.into())));
        let mut compared = 0;
        for operand in values.iter().filter(|value| !matches!(value, Value::Ints(_))).map(scalar) {
            for orders in [Test::LESS, Test::LESS_OR_EQUAL, Test::GREATER, Test::GREATER_OR_EQUAL] {
                let Some((low, high)) = number_range(b"column", orders, &operand) else { continue };
                for value in &values {
                    let key = encoded(value);
                    let is_within = low <= key && key < high;
                    let passes = Test::Compare(orders, operand.clone()).matches(Some(value));
                    assert_eq!(is_within, passes, "{value:?} {orders:?} {operand:?}");
                    compared += 1;
                }
            }
            let mut prefix = b"column".to_vec();
            if push_operand(&mut prefix, &operand) {
                let (low, high) = beginning_with(prefix);
                for value in &values {
                    let mut key = encoded(value);
                    // The next column does not matter.
                    key.extend([0xF0, 0xFF]);
                    let passes = Test::Eq(operand.clone()).matches(Some(value));
                    assert_eq!(low <= key && key < high, passes, "{value:?} = {operand:?}");
                }
            }
        }
        assert!(compared > 2000, "{compared}");
    }

    #[test]
    fn elements_of_lists_equal_only_their_own_type() {
        let lists = [
            Value::Ints(vec![1, 2]),
            Value::Floats(vec![1.0, -0.0]),
            Value::Strs(vec!["1".into(), String::new()]),
            Value::Bools(vec![true]),
        ];
        for operand in [
            Scalar::Int(1),
            Scalar::Int(3),
            Scalar::Float(1.0),
            Scalar::Float(0.0),
            Scalar::Str("1".into()),
            Scalar::Str(String::new()),
            Scalar::Bool(true),
        ] {
            let mut wanted = Vec::new();
            assert!(push_element(&mut wanted, &operand));
            for list in &lists {
                let mut found = false;
                for_each_element(list, &mut |key| found |= key == wanted);
                assert_eq!(found, Test::Contains(operand.clone()).matches(Some(list)), "{operand:?} in {list:?}");
            }
        }
    }

    #[test]
    fn what_is_too_long_is_looked_up_nowhere() {
        let long = "x".repeat(INDEXED_BYTES_MAX + 1);
        assert!(!push_operand(&mut Vec::new(), &Scalar::Str(long.clone())));
        assert!(!push_element(&mut Vec::new(), &Scalar::Str(long.clone())));
        assert_eq!(encoded(&Value::Str(long)), b"column\x02");
        assert_eq!(successor(vec![1, 255, 255]), vec![2]);
    }
}
