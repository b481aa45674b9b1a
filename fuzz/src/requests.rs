//! Request bodies, filters and patterns, as the server parses them, within the budget that it gives a request.

use std::time::Duration;

use fastrand::Rng;
use ochre_engine::model::budget::{self, Budget, RequestMemory};
use ochre_extension::parse_object;
use ochre_wire::{
    AddCollectionRecordsPayload, CreateCollectionPayload, DeleteCollectionRecordsPayload, GetRequestPayload,
    QueryRequestPayload, UpdateCollectionPayload, UpdateCollectionRecordsPayload, UpsertCollectionRecordsPayload,
    document_filter, metadata_filter,
};
use serde_json::{Value, json};

use crate::json::{any, bytes, disturb, filter, number, text};
use crate::{Fed, State};

fn within_budget() -> budget::Entered {
    budget::enter(Budget::new(256 << 20, RequestMemory::new(512 << 20), Duration::from_secs(60)))
}

fn fed<T, E>(result: &Result<T, E>) -> Fed {
    if result.is_ok() { Fed::Accepted } else { Fed::Refused }
}

/// Bodies of every route that takes one.
pub(crate) fn bodies(_: &mut State, rng: &mut Rng) -> Fed {
    let _within = within_budget();
    let count = rng.usize(0..4);
    let ids: Vec<Value> = (0..count).map(|_| json!(text(rng))).collect();
    let embeddings: Vec<Value> = (0..count).map(|_| (0..rng.usize(0..4)).map(|_| number(rng)).collect()).collect();
    let metadatas: Vec<Value> = (0..count).map(|_| json!({text(rng): any(rng, 1), text(rng): any(rng, 0)})).collect();
    let documents: Vec<Value> = (0..count).map(|_| json!(text(rng))).collect();
    let route = rng.u8(0..8);
    let mut body = match route {
        0..3 => json!({"ids": ids, "embeddings": embeddings, "metadatas": metadatas, "documents": documents}),
        3 => {
            json!({"ids": ids, "where": filter(rng, 2), "limit": number(rng), "offset": number(rng), "include": ["documents"]})
        }
        4 => {
            json!({"query_embeddings": embeddings, "n_results": number(rng), "where": filter(rng, 2), "include": ["distances"]})
        }
        5 => json!({"ids": ids, "where": filter(rng, 2), "limit": number(rng)}),
        6 => {
            json!({"name": text(rng), "metadata": metadatas.first(), "configuration": any(rng, 3), "get_or_create": rng.bool()})
        }
        _ => json!({"new_name": text(rng), "new_metadata": metadatas.first(), "new_configuration": any(rng, 3)}),
    };
    for _ in 0..rng.usize(0..3) {
        disturb(rng, &mut body);
    }
    let bytes = bytes(rng, &body);
    match route {
        0 => fed(&parse_object::<AddCollectionRecordsPayload>(&bytes).map(|payload| payload.into_batch().map(drop))),
        1 => fed(&parse_object::<UpdateCollectionRecordsPayload>(&bytes).map(|payload| payload.into_batch().map(drop))),
        2 => fed(&parse_object::<UpsertCollectionRecordsPayload>(&bytes).map(|payload| payload.into_batch().map(drop))),
        3 => fed(&parse_object::<GetRequestPayload>(&bytes).map(|payload| payload.filter().map(drop))),
        4 => fed(&parse_object::<QueryRequestPayload>(&bytes).map(|payload| payload.filter().map(drop))),
        5 => fed(&parse_object::<DeleteCollectionRecordsPayload>(&bytes).map(|payload| payload.filter().map(drop))),
        6 => fed(&parse_object::<CreateCollectionPayload>(&bytes)),
        _ => fed(&parse_object::<UpdateCollectionPayload>(&bytes)),
    }
}

/// Filters on metadata and on documents.
pub(crate) fn filters(_: &mut State, rng: &mut Rng) -> Fed {
    let _within = within_budget();
    let is_of_documents = rng.bool();
    let mut clause = if is_of_documents { crate::json::document_filter(rng, 4) } else { filter(rng, 4) };
    if rng.bool() {
        disturb(rng, &mut clause);
    }
    fed(&if is_of_documents { document_filter(&clause) } else { metadata_filter(&clause) })
}

/// Patterns, and what they do with texts.
pub(crate) fn patterns(_: &mut State, rng: &mut Rng) -> Fed {
    let _within = within_budget();
    let depth = rng.u8(1..6);
    let clause = json!({"$regex": crate::json::pattern(rng, depth)});
    match document_filter(&clause) {
        Ok(filter) => {
            let text = text(rng);
            filter.matches("id", None, Some(&text));
            Fed::Accepted
        }
        Err(_) => Fed::Refused,
    }
}
