//! Records in SQLite: what a resolved write changes, row by row, inside the writer's transaction.

use std::collections::BTreeSet;

use ochre_model::Metadata;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::connection::{first_rowid, offset_of};
use super::layers::{DELETED, Layers};
use crate::error::{Error, Result};
use crate::resolve::{PutRecord, Rows, Stored};
use crate::segments::Segments;
use crate::store::CollectionNumber;

/// The rows of one collection as the open transaction sees them.
pub(super) struct TransactionRows<'a> {
    pub(super) connection: &'a Connection,
    pub(super) path: &'a std::path::Path,
    pub(super) segments: &'a Segments,
    pub(super) collection: CollectionNumber,
    pub(super) layers: &'a Layers,
    pub(super) position: u64,
    /// Vectors of earlier requests of the same group, which are in no segment yet.
    pub(super) staged: &'a dyn Fn(u64) -> Option<Vec<f32>>,
}

impl TransactionRows<'_> {
    fn error(&self, error: &rusqlite::Error) -> Error {
        Error::sqlite("read records", self.path, error)
    }
}

impl Rows for TransactionRows<'_> {
    fn by_id(&mut self, id: &str) -> Result<Option<Stored>> {
        let columns = "rowid, vector_id, id, metadata, uri, document";
        find_id(self.connection, self.layers, columns, id, stored).map_err(|error| self.error(&error))
    }

    fn by_offset(&mut self, offset: u32) -> Result<Option<Stored>> {
        let query = || -> rusqlite::Result<Option<Stored>> {
            let mut statement = self
                .connection
                .prepare_cached("SELECT rowid, vector_id, id, metadata, uri, document FROM records WHERE rowid = ?1")?;
            for layer in self.layers.at(offset) {
                let mut rows = statement.query([first_rowid(layer.number) + i64::from(offset)])?;
                if let Some(row) = rows.next()? {
                    return if is_deleted(row)? { Ok(None) } else { stored(row).map(Some) };
                }
            }
            Ok(None)
        };
        query().map_err(|error| self.error(&error))
    }

    fn last_change(&mut self, id: &str) -> Result<Option<u64>> {
        let columns = "rowid, vector_id, updated_at_position";
        let position = |row: &Row<'_>| Ok(row.get::<_, i64>(2)?.cast_unsigned());
        find_id(self.connection, self.layers, columns, id, position).map_err(|error| self.error(&error))
    }

    fn has_vector(&mut self, vector_id: u64, vector: &[f32]) -> Result<bool> {
        if let Some(staged) = (self.staged)(vector_id) {
            return Ok(staged == vector);
        }
        // A vector that cannot be read is damaged; writing it again repairs it.
        let equals = |number| self.segments.vector_equals(number, vector_id, vector);
        Ok(self.layers.block_numbers().find_map(equals).unwrap_or(false))
    }

    fn changed_since(&mut self, position: u64) -> Result<Option<BTreeSet<u32>>> {
        let head = self.position;
        changed_since(self.connection, self.collection, position, head).map_err(|error| self.error(&error))
    }

    fn position(&self) -> u64 {
        self.position
    }
}

/// The offsets that commits after `position` touched, up to the head; `None` if the log does not reach back so far.
pub(super) fn changed_since(
    connection: &Connection, collection: CollectionNumber, position: u64, head: u64,
) -> rusqlite::Result<Option<BTreeSet<u32>>> {
    let mut statement = connection
        .prepare_cached("SELECT offsets FROM log WHERE collection = ?1 AND position > ?2 ORDER BY position")?;
    let mut rows = statement.query(params![collection, position.cast_signed()])?;
    let (mut changed, mut entries) = (BTreeSet::new(), 0);
    while let Some(row) = rows.next()? {
        changed.extend(decode_offsets(row.get_ref(0)?.as_blob()?));
        entries += 1;
    }
    // Positions are dense, so a missing entry means that the log was pruned.
    Ok((entries == head.saturating_sub(position)).then_some(changed))
}

/// Looks a record up by its id; `read` is given its row, with `columns` that begin with `rowid, vector_id`.
pub(super) fn find_id<T>(
    connection: &Connection, layers: &Layers, columns: &str, id: &str, read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {columns} FROM records WHERE collection = ?1 AND id = ?2"))?;
    for (index, layer) in layers.iter().enumerate() {
        let mut rows = statement.query(params![layer.number, id])?;
        let Some(row) = rows.next()? else { continue };
        // It has the same id in every layer above, so what is there says that it was deleted.
        let offset = i64::from(offset_of(row.get(0)?));
        let mut deleted = connection.prepare_cached("SELECT 1 FROM records WHERE rowid = ?1")?;
        for above in layers.above(index) {
            if deleted.exists([first_rowid(above.number) + offset])? {
                return Ok(None);
            }
        }
        return read(row).map(Some);
    }
    Ok(None)
}

/// Whether a row, whose second column is the id of its vector, only says that the record below was deleted.
pub(super) fn is_deleted(row: &Row<'_>) -> rusqlite::Result<bool> {
    Ok(row.get::<_, i64>(1)? == DELETED)
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let metadata = match row.get_ref(3)?.as_str_or_null()? {
        Some(text) => Some(
            Metadata::from_text(text)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, error.to_string().into()))?,
        ),
        None => None,
    };
    Ok(Stored {
        offset: offset_of(row.get(0)?),
        id: row.get(2)?,
        vector_id: row.get::<_, i64>(1)?.cast_unsigned(),
        metadata,
        uri: row.get(4)?,
        document: row.get(5)?,
    })
}

/// Writes the row of one record into a collection's own layer.
pub(super) fn put(
    connection: &Connection, layers: &Layers, offset: u32, vector_id: u64, position: u64, put: &PutRecord,
) -> rusqlite::Result<()> {
    let own = layers.own().number;
    let rowid = first_rowid(own) + i64::from(offset);
    let (vector_id, position) = (vector_id.cast_signed(), position.cast_signed());
    let metadata = put.metadata.as_ref().map(Metadata::to_text);
    if put.before.is_some() {
        let mut statement = connection.prepare_cached(
            "UPDATE records SET vector_id = ?2, updated_at_position = ?3, metadata = ?4, uri = ?5, document = ?6
             WHERE rowid = ?1",
        )?;
        if statement.execute(params![rowid, vector_id, position, metadata, put.uri, put.document])? > 0 {
            return Ok(());
        }
        // It lies in a layer below, which others read as well.
    }
    let mut statement = connection.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    statement.execute(params![rowid, own, put.id, vector_id, position, metadata, put.uri, put.document]).map(drop)
}

/// Deletes one record: its row in the collection's own layer, and what may be below is said to be deleted.
pub(super) fn delete(connection: &Connection, layers: &Layers, offset: u32, position: u64) -> rusqlite::Result<()> {
    let own = layers.own();
    let rowid = first_rowid(own.number) + i64::from(offset);
    if layers.is_single() || offset >= own.first_offset {
        let mut statement = connection.prepare_cached("DELETE FROM records WHERE rowid = ?1")?;
        return statement.execute([rowid]).map(drop);
    }
    // A blob is equal to no text, so the id is free again.
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO records VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL, NULL)")?;
    statement.execute(params![rowid, own.number, offset.to_be_bytes(), DELETED, position.cast_signed()]).map(drop)
}

/// Offsets as differences, seven bits a byte, low bits first.
pub(super) fn encode_offsets(mut offsets: Vec<u32>) -> Vec<u8> {
    offsets.sort_unstable();
    let mut bytes = Vec::with_capacity(offsets.len() * 2);
    let mut previous = 0;
    for offset in offsets {
        let mut rest = offset - previous;
        previous = offset;
        while rest >= 0x80 {
            bytes.push(u8::try_from(rest & 0x7F).expect("seven bits") | 0x80);
            rest >>= 7;
        }
        bytes.push(u8::try_from(rest).expect("seven bits"));
    }
    bytes
}

/// Reads what [`encode_offsets`] wrote.
pub(super) fn decode_offsets(bytes: &[u8]) -> Vec<u32> {
    let (mut offsets, mut previous, mut value, mut shift) = (Vec::new(), 0u32, 0u32, 0);
    for byte in bytes {
        value |= u32::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            previous += value;
            offsets.push(previous);
            (value, shift) = (0, 0);
        }
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_survive_their_encoding_sorted() {
        for offsets in [vec![], vec![0], vec![u32::MAX, 0, 127, 128, 300, 1 << 20]] {
            let mut sorted = offsets.clone();
            sorted.sort_unstable();
            assert_eq!(decode_offsets(&encode_offsets(offsets)), sorted);
        }
    }
}
