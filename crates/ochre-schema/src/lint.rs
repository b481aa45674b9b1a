//! Finds the parts of a filter that can never match what a schema declares.

use ochre_model::{Filter, HIDDEN_PREFIX, Scalar, Test, ValidationType, ValueType};

use crate::judge::nearest;
use crate::property::{Additional, element_of, type_name, type_names};
use crate::schema::MetadataSchema;

/// What in `filter` can never match, a sentence each: operands of a type that the key never has, and keys that
/// no record may have. Negative tests, which match everything then, are told as well.
pub fn lint(schema: &MetadataSchema, mode: ValidationType, filter: &Filter) -> Vec<String> {
    let mut found = Vec::new();
    if mode == ValidationType::None {
        return found;
    }
    filter.for_each_leaf(&mut |leaf| {
        if let Filter::Key { key, test } = leaf
            && !key.starts_with(HIDDEN_PREFIX)
        {
            found.extend(lint_test(schema, mode, key, test));
        }
    });
    found
}

fn lint_test(schema: &MetadataSchema, mode: ValidationType, key: &str, test: &Test) -> Option<String> {
    let Some(property) = schema.property(key) else {
        let is_known_to_be_absent = match (&schema.additional, mode) {
            (Additional::Allow | Additional::Typed(_), _) => false,
            (Additional::Deny | Additional::Warn, _) => true,
            // In lax mode undeclared keys are welcome, but a filter on one is more often a slip.
            (Additional::ByMode, _) => true,
        };
        let near = nearest(key, schema.properties.keys().map(String::as_str));
        let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        return is_known_to_be_absent.then(|| format!("key {key:?} is not declared in the schema{hint}"));
    };
    let operands: &[Scalar] = match test {
        Test::Eq(operand) | Test::Ne(operand) | Test::Compare(_, operand) => std::slice::from_ref(operand),
        Test::In(list) | Test::NotIn(list) => list,
        Test::Contains(operand) | Test::NotContains(operand) => {
            let elements: Vec<ValueType> = property.types.iter().filter_map(|ty| element_of(*ty)).collect();
            let fits = property.types.is_empty() || elements.contains(&operand.value_type());
            return (!fits).then(|| never(key, operand.value_type(), &property.types, "an element of type"));
        }
    };
    let wrong = operands.iter().find(|operand| !property.compares_with(operand.value_type()))?;
    Some(never(key, wrong.value_type(), &property.types, "an operand of type"))
}

fn never(key: &str, operand: ValueType, types: &[ValueType], what: &str) -> String {
    format!("key {key:?} is declared as {}: {what} {} never equals it", type_names(types), type_name(operand))
}
