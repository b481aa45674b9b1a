//! Finds the parts of a filter that can never match what a schema declares.

use std::cmp::Ordering;

use ochre_model::{Filter, HIDDEN_PREFIX, Scalar, Test, ValidationType, Value, ValueType};

use crate::property::{Additional, Property, element_of, type_name, type_names};
use crate::schema::MetadataSchema;
use crate::validate::{bound_text, breaks, order};

/// So many unknown keys are told with the one that was most likely meant.
const HINTS_MAX: usize = 5;
/// Longer lists of operands are not held against the rules of a property.
const OPERANDS_CHECKED_MAX: usize = 100;

/// What in `filter` can never match, a sentence each: operands of a type that the key never has, or that its rules
/// (enum, bounds, pattern, …) rule out, and keys that no record may have. Negative tests, which match everything then,
/// are told as well.
pub fn lint(schema: &MetadataSchema, mode: ValidationType, filter: &Filter) -> Vec<String> {
    let mut found = Vec::new();
    if mode == ValidationType::None {
        return found;
    }
    filter.for_each_leaf(&mut |leaf| {
        if let Filter::Key { key, test } = leaf
            && !key.starts_with(HIDDEN_PREFIX)
        {
            let with_hint = found.len() < HINTS_MAX;
            found.extend(lint_test(schema, mode, key, test, with_hint));
        }
    });
    found
}

fn lint_test(schema: &MetadataSchema, mode: ValidationType, key: &str, test: &Test, with_hint: bool) -> Option<String> {
    let Some(property) = schema.property(key) else {
        let is_known_to_be_absent = match (&schema.additional, mode) {
            (Additional::Allow | Additional::Typed(_), _) => false,
            (Additional::Deny | Additional::Warn, _) => true,
            // In lax mode undeclared keys are welcome, but a filter on one is more often a slip.
            (Additional::ByMode, _) => true,
        };
        let near = with_hint.then(|| schema.nearest_key(key)).flatten();
        let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        return is_known_to_be_absent.then(|| format!("key {key:?} is not declared in the schema{hint}"));
    };
    let types = type_names(&property.types);
    let operands: &[Scalar] = match test {
        Test::Eq(operand) | Test::Ne(operand) | Test::Compare(_, operand) => std::slice::from_ref(operand),
        Test::In(list) | Test::NotIn(list) => list,
        Test::Exists | Test::Missing => return None,
        Test::Prefix(_) => {
            let is_string = property.types.is_empty() || property.types.contains(&ValueType::Str);
            return (!is_string)
                .then(|| format!("key {key:?} is declared as {types}: only strings have a beginning ($prefix)"));
        }
        Test::Size(_) => {
            let is_list = property.types.is_empty() || property.types.iter().any(|ty| element_of(*ty).is_some());
            return (!is_list).then(|| format!("key {key:?} is declared as {types}: only lists have a $size"));
        }
        Test::ContainsAll(list) | Test::ContainsAny(list) => {
            return list.first().and_then(|operand| lint_element(property, key, operand));
        }
        Test::Contains(operand) | Test::NotContains(operand) => return lint_element(property, key, operand),
    };
    let Some(wrong) = operands.iter().find(|operand| !property.compares_with(operand.value_type())) else {
        return lint_rules(property, key, test);
    };
    let is_list = !property.types.is_empty() && property.types.iter().all(|ty| element_of(*ty).is_some());
    let hint = if is_list { "; use $contains to look into lists" } else { "" };
    let never = if matches!(test, Test::Compare(..)) { "never compares with it" } else { "never equals it" };
    Some(format!(
        "key {key:?} is declared as {types}: an operand of type {} {never}{hint}",
        type_name(wrong.value_type())
    ))
}

/// An operand that is looked for in lists which have none of its type.
fn lint_element(property: &Property, key: &str, operand: &Scalar) -> Option<String> {
    let types = type_names(&property.types);
    let elements: Vec<ValueType> = property.types.iter().filter_map(|ty| element_of(*ty)).collect();
    let ty = operand.value_type();
    // A list of integers may stand where floats are declared.
    let is_int_of_floats = ty == ValueType::Int && elements.contains(&ValueType::Float);
    match elements[..] {
        _ if property.types.is_empty() || elements.contains(&ty) || is_int_of_floats => None,
        [] => Some(format!("key {key:?} is declared as {types}: $contains looks into lists only")),
        _ => {
            Some(format!("key {key:?} is declared as {types}: no list of it has an element of type {}", type_name(ty)))
        }
    }
}

/// Operands of the right type that the rules of the property rule out.
fn lint_rules(property: &Property, key: &str, test: &Test) -> Option<String> {
    let operands = match test {
        Test::Eq(operand) => std::slice::from_ref(operand),
        Test::In(list) if (1..=OPERANDS_CHECKED_MAX).contains(&list.len()) => list,
        Test::Compare(orders, operand) => return lint_bounds(property, key, orders, operand),
        _ => return None,
    };
    let mut expected = None;
    for operand in operands {
        // A type that differs, such as 7.0 for an int, was looked at before.
        expected = Some(breaks(property, &Value::from(operand.clone())).filter(|broken| broken.rule != "type")?);
    }
    let broken = expected?;
    let subject = if operands.len() == 1 { "the operand" } else { "every operand" };
    Some(format!(
        "key {key:?} must be {} by its rule {}: {subject} breaks it and never equals a value",
        broken.expected, broken.rule
    ))
}

/// A range that begins where the property's bounds end.
fn lint_bounds(property: &Property, key: &str, orders: &[Ordering], operand: &Scalar) -> Option<String> {
    let operand = Value::from(operand.clone());
    for (side, bound, wanted) in
        [(Ordering::Greater, &property.max, Ordering::Less), (Ordering::Less, &property.min, Ordering::Greater)]
    {
        let Some(bound) = bound.as_ref().filter(|_| orders.contains(&side)) else { continue };
        let is_past = match order(&operand, &bound.value) {
            Some(Ordering::Equal) => bound.exclusive || !orders.contains(&Ordering::Equal),
            Some(order) => order == side,
            None => false,
        };
        if is_past {
            return Some(format!("key {key:?} is declared as {}: no value is in the range", bound_text(bound, wanted)));
        }
    }
    None
}
