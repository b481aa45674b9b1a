//! Metadata schemas: what a collection says of its records, validated on write, found in data, and exported.
//!
//! - [`MetadataSchema`] is parsed from `chroma:schema` (`parse`), and validates records by a mode (`validate`).
//! - [`lint`] tells which operands of a filter can never match.
//! - `introspect` finds out what data that has no schema looks like, and suggests one.
//! - `export` turns the one model into what other tools read.
//!
//! Not here: where declarations are kept (`ochre-store`), when records are validated (`ochre-engine`), and Chroma's own
//! `Schema`, which configures indexes (`ochre-model`).

mod export;
mod format;
mod lint;
mod parameters;
mod parse;
mod property;
mod report;
mod schema;
mod statistics;
mod suggest;
mod validate;
mod validator;

pub use export::{Field, Fields};
pub use format::Format;
pub use lint::lint;
pub use parameters::{Comparison, PARAMETERS_MAX, Parameter};
pub use parse::{InvalidSchema, doubled_member};
pub use property::{Additional, Allowed, Bound, EmbeddingRules, Property, Severity, element_of, list_of, type_name};
pub use report::{
    Aggregate, Compliance, DeclaredKey, DocumentReport, KeyReport, Offender, RecentViolation, Report, RuleCount,
    Sample, ViolatingRecord, Warning, shown_value,
};
pub use schema::{MetadataSchema, PROPERTIES_MAX};
pub use statistics::{KeyStatistics, ReportOptions};
pub use suggest::{IndexSuggestion, SuggestedTypes, expected_types, similar_names, suggest_indexes, suggest_schema};
pub use validate::{Subject, VALUE_CHARACTERS_MAX, Verdict, Violation, prepare, validate, violations};
pub use validator::{EXPRESSION_MAX, Function, Functions, Validator};
