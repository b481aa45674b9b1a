//! What a collection declares about its records, as it was written: `chroma:schema` and the two keys beside it, and the
//! analyzer of its documents.
//!
//! Not here: what a schema means (`ochre-schema`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::text_analyzer::{TEXT_ANALYZER_KEY, TextAnalyzer};

/// The collection-metadata key under which a schema is declared.
pub const SCHEMA_KEY: &str = "chroma:schema";
/// The key that says how strictly records are validated.
pub const VALIDATION_TYPE_KEY: &str = "chroma:schema_validation_type";
/// The key that says who validates them.
pub const VALIDATING_PARTY_KEY: &str = "chroma:schema_validating_party";

/// How strictly records are validated by a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidationType {
    /// Whatever breaks a rule is refused, undeclared keys too.
    #[default]
    Strict,
    /// What breaks a rule is refused, unless it was there before; undeclared keys are accepted.
    Lax,
    /// Everything is accepted, and what breaks a rule is reported.
    Warn,
    /// The schema only describes.
    None,
}

/// Who validates records by the schema. The server always does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidatingParty {
    /// The server alone.
    #[default]
    Server,
    /// The client before it sends, too.
    Both,
}

impl ValidationType {
    /// Every mode, strictest first.
    pub const ALL: [Self; 4] = [Self::Strict, Self::Lax, Self::Warn, Self::None];

    /// The name in collection metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Lax => "lax",
            Self::Warn => "warn",
            Self::None => "none",
        }
    }

    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

impl ValidatingParty {
    /// The name in collection metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Both => "both",
        }
    }

    /// The party of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Server, Self::Both].into_iter().find(|party| party.name() == name)
    }
}

/// The keys, each as it was written if it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// A JSON object, or a string that holds one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Json>,
    /// `strict` unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_type: Option<ValidationType>,
    /// `server` unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validating_party: Option<ValidatingParty>,
    /// How documents are split into terms; words are only folded unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_analyzer: Option<TextAnalyzer>,
}

impl Declaration {
    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether both say the same of records.
    pub fn has_same_schema(&self, other: &Self) -> bool {
        (&self.schema, self.validation_type, self.validating_party)
            == (&other.schema, other.validation_type, other.validating_party)
    }

    /// How records are validated: not at all without a schema.
    pub fn mode(&self) -> ValidationType {
        if self.schema.is_some() { self.validation_type.unwrap_or_default() } else { ValidationType::None }
    }

    /// The keys, to be shown among a collection's metadata. The schema is a string however it was written: clients
    /// refuse to send metadata with an object back.
    pub fn to_metadata(&self) -> Map<String, Json> {
        let text = |schema: &Json| schema.as_str().map_or_else(|| schema.to_string(), str::to_owned);
        let keys = [
            (SCHEMA_KEY, self.schema.as_ref().map(|schema| text(schema).into())),
            (VALIDATION_TYPE_KEY, self.validation_type.map(|mode| mode.name().into())),
            (VALIDATING_PARTY_KEY, self.validating_party.map(|party| party.name().into())),
            (TEXT_ANALYZER_KEY, self.text_analyzer.as_ref().map(|analyzer| analyzer.to_text().into())),
        ];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// What to change of a declaration: the outer `None` leaves a key as it is, the inner one removes it.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "as in Declaration")]
pub struct DeclarationChange {
    pub schema: Option<Option<Json>>,
    pub validation_type: Option<Option<ValidationType>>,
    pub validating_party: Option<Option<ValidatingParty>>,
    pub text_analyzer: Option<Option<TextAnalyzer>>,
}

impl DeclarationChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The declaration after the change.
    #[must_use]
    pub fn apply(&self, declaration: &Declaration) -> Declaration {
        Declaration {
            schema: self.schema.clone().unwrap_or_else(|| declaration.schema.clone()),
            validation_type: self.validation_type.unwrap_or(declaration.validation_type),
            validating_party: self.validating_party.unwrap_or(declaration.validating_party),
            text_analyzer: self.text_analyzer.clone().unwrap_or_else(|| declaration.text_analyzer.clone()),
        }
    }
}
