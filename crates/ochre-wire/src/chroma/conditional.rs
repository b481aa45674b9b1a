//! Conditional transactions: their bodies, and the tokens of their reads.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::records::{
    AddCollectionRecordsPayload, DeleteCollectionRecordsPayload, GetRequestPayload, UpdateCollectionRecordsPayload,
    UpsertCollectionRecordsPayload,
};
use crate::Refused;

/// Body of a get within a conditional transaction.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ConditionalGetPayload {
    /// What to get.
    #[serde(flatten)]
    pub get: GetRequestPayload,
    /// The token of the transaction's first read, for those after it.
    pub read_token: Option<u64>,
}

/// Body of a conditional commit.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ConditionalCommitPayload {
    /// The token of the transaction's first read; wanted if there are `read_ids`.
    pub read_token: Option<u64>,
    /// The ids that were asked for, or found by filters.
    #[serde(default)]
    pub read_ids: Vec<String>,
    /// The writes, in their order; no two may name the same id.
    #[serde(default)]
    pub operations: Vec<ConditionalOperation>,
}

/// A write of a conditional commit, with the body that it has alone.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "operation", content = "payload", rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ConditionalOperation {
    Add(AddCollectionRecordsPayload),
    Update(UpdateCollectionRecordsPayload),
    Upsert(UpsertCollectionRecordsPayload),
    /// By ids only.
    Delete(DeleteCollectionRecordsPayload),
}

impl ConditionalOperation {
    /// The ids of its records.
    pub fn ids(&self) -> &[String] {
        match self {
            Self::Add(payload) => &payload.ids,
            Self::Update(payload) => &payload.ids,
            Self::Upsert(payload) => &payload.ids,
            Self::Delete(payload) => payload.ids.as_deref().unwrap_or_default(),
        }
    }
}

/// Answer of a conditional commit.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConditionalCommitResult {
    /// The collection's version after the commit; null if there are no operations.
    pub first_inserted_record_offset: Option<u64>,
    /// How many records the operations name.
    pub record_count: usize,
}

/// How many bits of a token tell which collection it is of.
const CHECK_BITS: u32 = 16;

/// The token of a read of a collection at a position: clients pass it back as it is. Numbers below 2⁵³ survive
/// JavaScript.
pub fn read_token(collection: Uuid, position: u64) -> u64 {
    (position << CHECK_BITS) | check_of(collection)
}

/// The position of a token.
///
/// # Errors
/// [`Refused`] if it is of no read of this collection.
pub fn read_position(collection: Uuid, token: u64) -> Result<u64, Refused> {
    if token & ((1 << CHECK_BITS) - 1) == check_of(collection) {
        return Ok(token >> CHECK_BITS);
    }
    let text =
        "Validation error: read_token: it is of no read of this collection; pass the one that conditional/get returned";
    Err(Refused::Invalid(text.into()))
}

fn check_of(collection: Uuid) -> u64 {
    u64::from(crc32c::crc32c(collection.as_bytes())) & ((1 << CHECK_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_one_collection_and_survive_javascript() {
        let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for position in [0, 1, 77, 1 << 36] {
            let token = read_token(own, position);
            assert!(token < 1 << 53);
            assert_eq!(read_position(own, token).ok(), Some(position));
            assert!(read_position(other, token).is_err());
        }
    }
}
