//! What a schema demands of one key, of documents and of embeddings.

use ochre_model::{Scalar, Value, ValueType};
use regex::Regex;

use crate::format::Format;
use crate::validator::Validator;

/// How bad it is to break a rule of a property. Only the mode `lax` tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    /// The write is refused.
    #[default]
    Error,
    /// The write is accepted and the violation reported.
    Warning,
}

/// The demands on the value under a key, or on the elements of a list. What is absent demands nothing.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the names are those of the schema language, docs/guide/schemas.md")]
pub struct Property {
    /// The types a value may have; any if empty. An integer is also a float.
    pub types: Vec<ValueType>,
    pub description: Option<String>,
    pub required: bool,
    pub allowed: Option<Vec<Value>>,
    pub min: Option<Bound>,
    pub max: Option<Bound>,
    /// In characters.
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Regex>,
    pub format: Option<Format>,
    /// For each element of a list.
    pub items: Option<Box<Property>>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    /// Stored in new records that lack the key.
    pub default: Option<Value>,
    pub severity: Severity,
    pub examples: Vec<serde_json::Value>,
    /// Values never stand in reports, messages or exports.
    pub sensitive: bool,
    pub validators: Vec<Validator>,
}

/// A smallest or largest value: a number, or a string such as a date, which compares bytewise.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Bound {
    pub value: Scalar,
    pub exclusive: bool,
}

/// The demands on embeddings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingRules {
    /// What the embeddings are of.
    pub description: Option<String>,
    /// How many floats each has.
    pub dimension: Option<usize>,
    /// The smallest Euclidean norm.
    pub min_norm: Option<f64>,
    /// The largest Euclidean norm.
    pub max_norm: Option<f64>,
    /// Whether an embedding of zeros alone is refused.
    pub nonzero: bool,
}

/// What is done about keys that are not declared.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// The mode decides: `strict` refuses them, `warn` reports them, the others accept them.
    #[default]
    ByMode,
    /// They are accepted.
    Allow,
    /// They are accepted and reported.
    Warn,
    /// They are refused.
    Deny,
    /// They are accepted if their values satisfy this.
    Typed(Box<Property>),
}

/// The name of a type, as schemas spell it.
pub const fn type_name(ty: ValueType) -> &'static str {
    match ty {
        ValueType::Bool => "bool",
        ValueType::Int => "int",
        ValueType::Float => "float",
        ValueType::Str => "string",
        ValueType::Bools => "list[bool]",
        ValueType::Ints => "list[int]",
        ValueType::Floats => "list[float]",
        ValueType::Strs => "list[string]",
    }
}

/// The type of a list of these; `None` for lists.
pub const fn list_of(ty: ValueType) -> Option<ValueType> {
    match ty {
        ValueType::Bool => Some(ValueType::Bools),
        ValueType::Int => Some(ValueType::Ints),
        ValueType::Float => Some(ValueType::Floats),
        ValueType::Str => Some(ValueType::Strs),
        _ => None,
    }
}

/// The type of the elements of a list; `None` for scalars.
pub const fn element_of(ty: ValueType) -> Option<ValueType> {
    match ty {
        ValueType::Bools => Some(ValueType::Bool),
        ValueType::Ints => Some(ValueType::Int),
        ValueType::Floats => Some(ValueType::Float),
        ValueType::Strs => Some(ValueType::Str),
        _ => None,
    }
}

/// Types joined for a message: `int or string`.
pub(crate) fn type_names(types: &[ValueType]) -> String {
    types.iter().map(|ty| type_name(*ty)).collect::<Vec<_>>().join(" or ")
}

impl Property {
    /// Whether a value of type `ty` may stand here. Integers are floats: JSON from JavaScript has no others.
    pub fn takes(&self, ty: ValueType) -> bool {
        self.types.is_empty()
            || self.types.contains(&ty)
            || match ty {
                ValueType::Int => self.types.contains(&ValueType::Float),
                ValueType::Ints => self.types.contains(&ValueType::Floats),
                _ => false,
            }
    }

    /// Whether a filter with an operand of type `ty` can match what may stand here. Numbers compare across
    /// their types.
    pub(crate) fn compares_with(&self, ty: ValueType) -> bool {
        let number = |ty: ValueType| matches!(ty, ValueType::Int | ValueType::Float);
        self.types.is_empty() || self.types.iter().any(|own| *own == ty || (number(*own) && number(ty)))
    }
}
