//! API keys.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The keys of a database, each without what it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// Revoked and expired ones included.
    pub keys: Vec<KeyAnswer>,
}

/// A key.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct KeyAnswer {
    /// Its id.
    pub id: String,
    /// For people and logs.
    pub name: String,
    /// `role:tenant/database/collection`, with patterns.
    pub grants: Vec<String>,
    /// From then on it is refused.
    pub expires_at: Option<String>,
    /// Requests a second; more are answered with 429.
    pub requests_per_second: Option<u32>,
    /// Requests at once; more are answered with 429.
    pub concurrent_requests: Option<u32>,
    /// Records in one write; more are refused.
    pub batch_records: Option<u32>,
    /// Collections in what it may make some in; one more is refused.
    pub collections: Option<u32>,
    /// Records in a collection after a write; more are refused.
    pub collection_records: Option<u32>,
    /// When it was made.
    pub created_at: String,
    /// When it was revoked.
    pub revoked_at: Option<String>,
    /// Whether it is accepted.
    pub valid: bool,
    /// Whether anybody may have made it, since authentication was off.
    pub made_without_authentication: bool,
    /// When it was last used, since the server was started.
    pub last_used: Option<String>,
    /// The key itself: in the answer that makes it, and never again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is to be known of a key that was just made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}
