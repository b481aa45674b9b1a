//! Filters, and what they mean for one record. The truth table is `docs/guide/filters.md`.
//!
//! Columns evaluate the same meaning over whole collections (`ochre-index`); a property test holds the
//! two, and a naive oracle, equal.

use std::cmp::Ordering;
use std::collections::HashSet;

use memchr::memmem;
use regex::Regex;

use crate::number::compare_int_float;
use crate::value::{Metadata, Value, ValueType};

/// A condition on a record, well-formed by construction.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Every one of these holds; an empty list always holds.
    All(Vec<Filter>),
    /// At least one of these holds; an empty list never holds.
    Any(Vec<Filter>),
    /// A test on the value under a metadata key.
    Key {
        /// The metadata key.
        key: String,
        /// What its value must satisfy.
        test: Test,
    },
    /// A test on the document.
    Document(DocumentTest),
    /// The record's id is one of these.
    Ids(HashSet<String>),
    /// The record's id is none of these.
    NotIds(HashSet<String>),
}

/// A test on one metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Equal; numbers compare as real numbers, other types only with their own.
    Eq(Scalar),
    /// Not equal; also when the key is missing or holds another type.
    Ne(Scalar),
    /// A number on this side of a number, or a string on this side of a string, byte by byte: the ordering of value to
    /// operand must be one of the list.
    Compare(&'static [Ordering], Scalar),
    /// Equal to one of the list.
    In(Vec<Scalar>),
    /// Equal to none of the list; also when the key is missing.
    NotIn(Vec<Scalar>),
    /// A list that contains exactly this, of exactly this type.
    Contains(Scalar),
    /// Anything but a list that contains this; also when the key is missing.
    NotContains(Scalar),
    /// A list that contains all of these, which are of one type and different.
    ContainsAll(Vec<Scalar>),
    /// A list that contains at least one of these, which are of one type and different.
    ContainsAny(Vec<Scalar>),
    /// A string that begins with this.
    Prefix(String),
    /// A list with this number of elements.
    Size(u64),
    /// Any value.
    Exists,
    /// No value.
    Missing,
}

impl Test {
    /// `$gt`
    pub const GREATER: &'static [Ordering] = &[Ordering::Greater];
    /// `$gte`
    pub const GREATER_OR_EQUAL: &'static [Ordering] = &[Ordering::Greater, Ordering::Equal];
    /// `$lt`
    pub const LESS: &'static [Ordering] = &[Ordering::Less];
    /// `$lte`
    pub const LESS_OR_EQUAL: &'static [Ordering] = &[Ordering::Less, Ordering::Equal];

    /// The test that this one negates, for `Ne`, `NotIn`, `NotContains` and `Missing`.
    pub fn negated(&self) -> Option<Self> {
        match self {
            Self::Ne(operand) => Some(Self::Eq(operand.clone())),
            Self::NotIn(list) => Some(Self::In(list.clone())),
            Self::NotContains(operand) => Some(Self::Contains(operand.clone())),
            Self::Missing => Some(Self::Exists),
            _ => None,
        }
    }

    /// The type of what values are compared with; of a list, of its first element. `None` if values of any type are
    /// looked at.
    pub fn operand_type(&self) -> Option<ValueType> {
        Some(match self {
            Self::Eq(operand)
            | Self::Ne(operand)
            | Self::Compare(_, operand)
            | Self::Contains(operand)
            | Self::NotContains(operand) => operand.value_type(),
            Self::In(list) | Self::NotIn(list) | Self::ContainsAll(list) | Self::ContainsAny(list) => {
                list.first().map_or(ValueType::Str, Scalar::value_type)
            }
            Self::Prefix(_) => ValueType::Str,
            Self::Size(_) | Self::Exists | Self::Missing => return None,
        })
    }

    /// Whether a record whose value under the key is `value` passes.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Eq(operand) => value.is_some_and(|value| operand.equals(value)),
            Self::Compare(orders, operand) => {
                value.and_then(|value| operand.order(value)).is_some_and(|order| orders.contains(&order))
            }
            Self::In(list) => value.is_some_and(|value| list.iter().any(|operand| operand.equals(value))),
            Self::Contains(operand) => value.is_some_and(|value| operand.is_in(value)),
            Self::Ne(operand) => !value.is_some_and(|value| operand.equals(value)),
            Self::NotIn(list) => !value.is_some_and(|value| list.iter().any(|operand| operand.equals(value))),
            Self::NotContains(operand) => !value.is_some_and(|value| operand.is_in(value)),
            Self::ContainsAll(list) => {
                let has_all = |value: &Value| list.iter().all(|operand| operand.is_in(value));
                value.is_some_and(|value| value.list_len().is_some() && has_all(value))
            }
            Self::ContainsAny(list) => value.is_some_and(|value| list.iter().any(|operand| operand.is_in(value))),
            Self::Prefix(prefix) => matches!(value, Some(Value::Str(text)) if text.starts_with(prefix)),
            Self::Size(size) => value.and_then(Value::list_len).is_some_and(|len| len as u64 == *size),
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
        }
    }
}

/// An operand: one value that is no list.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
}

impl From<Scalar> for Value {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Bool(b) => Self::Bool(b),
            Scalar::Int(i) => Self::Int(i),
            Scalar::Float(f) => Self::Float(f),
            Scalar::Str(s) => Self::Str(s),
        }
    }
}

impl Scalar {
    /// The operand's type.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Self::Bool(_) => ValueType::Bool,
            Self::Int(_) => ValueType::Int,
            Self::Float(_) => ValueType::Float,
            Self::Str(_) => ValueType::Str,
        }
    }

    fn equals(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Str(a), Value::Str(b)) => a == b,
            _ => self.order(value) == Some(Ordering::Equal),
        }
    }

    /// How `value` stands to this operand, if both are numbers or both strings.
    fn order(&self, value: &Value) -> Option<Ordering> {
        match (value, self) {
            (Value::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Value::Int(a), Self::Float(b)) => compare_int_float(*a, *b),
            (Value::Float(a), Self::Int(b)) => compare_int_float(*b, *a).map(Ordering::reverse),
            (Value::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Value::Str(a), Self::Str(b)) => Some(a.as_str().cmp(b)),
            _ => None,
        }
    }

    fn is_in(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Bool(x), Value::Bools(list)) => list.contains(x),
            (Self::Int(x), Value::Ints(list)) => list.contains(x),
            (Self::Float(x), Value::Floats(list)) => list.contains(x),
            (Self::Str(x), Value::Strs(list)) => list.contains(x),
            _ => false,
        }
    }
}

/// A test on a record's document. A record without a document fails every positive test and passes
/// every negative one.
#[derive(Clone, Debug)]
pub enum DocumentTest {
    /// The document contains this text, byte for byte; the empty text is in every document.
    Contains(String),
    /// It does not, or there is no document.
    NotContains(String),
    /// The pattern matches somewhere in the document. Its flags stand in its text (`(?i)`): indexes go by that alone.
    Matches(Regex),
    /// It does not, or there is no document.
    NotMatches(Regex),
    /// The document is exactly this text.
    Is(String),
    /// It is not, or there is no document.
    IsNot(String),
}

impl DocumentTest {
    /// Whether records without a document pass.
    pub const fn is_negative(&self) -> bool {
        matches!(self, Self::NotContains(_) | Self::NotMatches(_) | Self::IsNot(_))
    }

    /// Whether a record with this document passes.
    pub fn matches(&self, document: Option<&str>) -> bool {
        let Some(text) = document else { return self.is_negative() };
        match self {
            Self::Contains(needle) => memmem::find(text.as_bytes(), needle.as_bytes()).is_some(),
            Self::NotContains(needle) => memmem::find(text.as_bytes(), needle.as_bytes()).is_none(),
            Self::Matches(regex) => regex.is_match(text),
            Self::NotMatches(regex) => !regex.is_match(text),
            Self::Is(other) => text == other,
            Self::IsNot(other) => text != other,
        }
    }
}

impl Filter {
    /// Whether one record passes.
    pub fn matches(&self, id: &str, metadata: Option<&Metadata>, document: Option<&str>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.matches(id, metadata, document)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(id, metadata, document)),
            Self::Key { key, test } => test.matches(metadata.and_then(|metadata| metadata.get(key))),
            Self::Document(test) => test.matches(document),
            Self::Ids(ids) => ids.contains(id),
            Self::NotIds(ids) => !ids.contains(id),
        }
    }

    /// Calls `visit` on every part of the filter that is no `All` or `Any`.
    pub fn for_each_leaf<'a>(&'a self, visit: &mut impl FnMut(&'a Filter)) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.for_each_leaf(visit)),
            leaf => visit(leaf),
        }
    }

    /// Whether any part looks at the document.
    pub fn reads_documents(&self) -> bool {
        let mut reads = false;
        self.for_each_leaf(&mut |leaf| reads |= matches!(leaf, Self::Document(_)));
        reads
    }

    /// Whether every record passes because there is no condition: a list of nothing always holds.
    pub fn is_without_conditions(&self) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(Self::is_without_conditions),
            Self::Any(parts) => parts.iter().any(Self::is_without_conditions),
            Self::Key { .. } | Self::Document(_) | Self::Ids(_) | Self::NotIds(_) => false,
        }
    }

    /// Whether any part matches a regular expression.
    pub fn has_pattern(&self) -> bool {
        let mut found = false;
        self.for_each_leaf(&mut |leaf| {
            found |= matches!(leaf, Self::Document(DocumentTest::Matches(_) | DocumentTest::NotMatches(_)));
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: &Test, value: Option<&Value>, expected: bool) {
        assert_eq!(test.matches(value), expected, "{test:?} on {value:?}");
    }

    #[test]
    fn filters_without_conditions_are_told() {
        let (nothing, never) = (Filter::All(Vec::new()), Filter::Any(Vec::new()));
        let key = Filter::Key { key: "a".into(), test: Test::Eq(Scalar::Int(1)) };
        let any_of = |parts: &[&Filter]| Filter::Any(parts.iter().map(|part| (*part).clone()).collect());
        let all_of = |parts: &[&Filter]| Filter::All(parts.iter().map(|part| (*part).clone()).collect());
        assert!([&nothing, &all_of(&[&nothing]), &any_of(&[&key, &nothing])].iter().all(|f| f.is_without_conditions()));
        assert!(
            ![&never, &key, &all_of(&[&key, &nothing]), &any_of(&[&key])].iter().any(|f| f.is_without_conditions())
        );
    }

    #[test]
    fn numbers_compare_across_int_and_float_but_not_with_bools_or_strings() {
        let one = Test::Eq(Scalar::Int(1));
        check(&one, Some(&Value::Float(1.0)), true);
        check(&one, Some(&Value::Bool(true)), false);
        check(&one, Some(&Value::Str("1".into())), false);
        check(&Test::Compare(Test::GREATER_OR_EQUAL, Scalar::Float(1.5)), Some(&Value::Int(1)), false);
        check(&Test::Compare(Test::LESS, Scalar::Float(1.5)), Some(&Value::Int(1)), true);
    }

    #[test]
    fn negative_tests_pass_on_missing_keys_and_other_types() {
        for test in [Test::Ne(Scalar::Int(1)), Test::NotIn(vec![Scalar::Int(1)]), Test::NotContains(Scalar::Int(1))] {
            check(&test, None, true);
            check(&test, Some(&Value::Str("1".into())), true);
        }
        check(&Test::Compare(Test::LESS, Scalar::Int(1)), None, false);
    }

    #[test]
    fn lists_are_seen_by_contains_only_and_by_exact_type() {
        let list = Value::Ints(vec![1, 2]);
        check(&Test::Eq(Scalar::Int(1)), Some(&list), false);
        check(&Test::Ne(Scalar::Int(1)), Some(&list), true);
        check(&Test::Contains(Scalar::Int(1)), Some(&list), true);
        check(&Test::Contains(Scalar::Float(1.0)), Some(&list), false);
        check(&Test::Contains(Scalar::Int(1)), Some(&Value::Int(1)), false);
    }

    #[test]
    fn the_empty_text_is_in_every_document_but_not_in_none() {
        let contains = DocumentTest::Contains(String::new());
        assert!(contains.matches(Some("")));
        assert!(!contains.matches(None));
        assert!(DocumentTest::NotContains("x".into()).matches(None));
    }
}
