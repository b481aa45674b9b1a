//! Schemas that collections declare.

use std::collections::HashMap;

use ochre_model::ValidationType;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

/// What becomes of a write that breaks a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValidationMode {
    /// It is refused.
    Strict,
    /// It is refused, but undeclared keys are welcome and whole floats are integers.
    Lax,
    /// It is written and reported.
    Warn,
    /// It is written.
    None,
}

/// Who validates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// The server.
    Server,
    /// Clients before they send, and the server.
    Both,
}

/// What a collection declares.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeclaredSchema {
    /// The schema; null if it declares none.
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Json>,
    /// What becomes of a write that breaks it.
    #[schema(value_type = ValidationMode)]
    pub validation_type: String,
    /// Who validates.
    #[schema(value_type = Party)]
    pub validating_party: String,
    /// How the stored records stand to it: in the answer to a declaration, for who may see values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub stored_records: Option<Json>,
}

/// A schema, and how it is to be enforced. The schema may also be sent alone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DeclareSchema {
    /// The schema.
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Json>,
    /// What becomes of a write that breaks it.
    #[schema(value_type = Option<ValidationMode>)]
    pub validation_type: Option<String>,
    /// Who validates.
    #[schema(value_type = Option<Party>)]
    pub validating_party: Option<String>,
}

/// What is to be validated: a batch, or the stored records if there is none.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateSchema {
    /// The declared one if absent.
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Json>,
    /// As declared if absent.
    #[schema(value_type = Option<ValidationMode>)]
    pub validation_type: Option<ValidationType>,
    /// The ids of the batch; numbers if absent.
    pub ids: Option<Vec<String>>,
    /// The metadata of the batch.
    #[schema(value_type = Option<Vec<Option<Object>>>)]
    pub metadatas: Option<Vec<Option<HashMap<String, Json>>>>,
    /// The documents of the batch.
    pub documents: Option<Vec<Option<String>>>,
}
