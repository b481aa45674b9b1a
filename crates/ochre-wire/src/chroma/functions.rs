//! Functions attached to collections, in Chroma's shapes.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

/// Body of attach.
#[derive(Debug, Deserialize, ToSchema)]
pub struct AttachFunctionRequest {
    /// The name of the attached function.
    pub name: String,
    /// Which function: `statistics` or `record_counter`.
    pub function_id: String,
    /// The name of the collection that is made for its output.
    pub output_collection: String,
    /// Parameters; no function takes any.
    #[schema(value_type = Option<Object>)]
    pub params: Option<Json>,
}

/// Answer of attach.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttachFunctionResponse {
    /// The attached function.
    pub attached_function: AttachedFunctionInfo,
    /// Whether it was not attached before.
    pub created: bool,
}

/// An attached function, in short.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "Chroma's names")]
pub struct AttachedFunctionInfo {
    pub id: String,
    pub name: String,
    pub function_name: String,
}

/// Answer of reading an attached function.
#[derive(Debug, Serialize, ToSchema)]
pub struct GetAttachedFunctionResponse {
    /// The attached function.
    pub attached_function: AttachedFunctionApiResponse,
}

/// An attached function.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "Chroma's names")]
pub struct AttachedFunctionApiResponse {
    pub id: String,
    pub name: String,
    pub function_name: String,
    pub input_collection_id: String,
    pub output_collection: String,
    pub output_collection_id: Option<String>,
    pub params: Option<String>,
    pub tenant_id: String,
    pub database_id: String,
    /// The version of the input that the output was computed from.
    pub completion_offset: u64,
    pub min_records_for_invocation: u64,
    /// Why the output could not be computed the last time. An addition of Ochre.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Body of detach.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DetachFunctionRequest {
    /// Whether the output collection is deleted as well.
    #[serde(default)]
    pub delete_output: bool,
}

/// Answer of detach.
#[derive(Debug, Serialize, ToSchema)]
pub struct DetachFunctionResponse {
    /// True.
    pub success: bool,
}
