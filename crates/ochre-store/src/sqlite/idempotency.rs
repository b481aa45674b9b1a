//! Idempotency keys: the outcome of a write is kept under its client's key, and answered again when the write is
//! repeated.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::connection::{Failure, now};
use crate::error::Error;
use crate::store::{Idempotency, Outcome};

/// A client's key within the collection that it writes to: others, who may be of another tenant, use keys of their own.
fn scoped(collection: Uuid, key: &Idempotency) -> String {
    format!("{}/{}", collection.simple(), key.key)
}

/// The outcome of the request that this key came with before, if it did.
pub(super) fn stored_outcome(
    connection: &Connection, collection: Uuid, key: &Idempotency,
) -> Result<Option<Outcome>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT request, position, deleted FROM idempotency WHERE key = ?1")?;
    let mut find = |key: &str| {
        let found = statement.query_row([key], |row| {
            let (position, deleted) = (row.get::<_, i64>(1)?.cast_unsigned(), row.get::<_, i64>(2)?.cast_unsigned());
            Ok((row.get::<_, [u8; 16]>(0)?, Outcome { position, deleted, replayed: true }))
        });
        found.optional()
    };
    let request = key.request.to_be_bytes();
    match find(&scoped(collection, key))? {
        Some((stored, outcome)) if stored == request => Ok(Some(outcome)),
        Some(_) => Err(Error::IdempotencyConflict { key: key.key.clone() }.into()),
        // As versions before kept it, for a day: without the collection, which the hash of the request tells.
        None => Ok(find(&key.key)?.filter(|(stored, _)| *stored == request).map(|(_, outcome)| outcome)),
    }
}

/// Keeps the outcome of a request under its key.
pub(super) fn store_outcome(
    connection: &Connection, collection: Uuid, key: &Idempotency, outcome: &Outcome,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT INTO idempotency VALUES (?1, ?2, ?3, ?4, ?5)")?;
    let (position, deleted) = (outcome.position.cast_signed(), outcome.deleted.cast_signed());
    statement.execute(params![scoped(collection, key), key.request.to_be_bytes(), position, deleted, now()]).map(drop)
}
