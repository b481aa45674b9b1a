//! The table of segments: what of each is committed, and how much of it is dead.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::connection::write_meta;
use crate::segments::{Pending, SegmentRow};

pub(crate) fn segment_rows(connection: &Connection) -> rusqlite::Result<Vec<SegmentRow>> {
    let mut statement =
        connection.prepare("SELECT number, committed_bytes, sealed, dead_bytes FROM segments ORDER BY number")?;
    let rows = statement.query_map([], |row| {
        Ok(SegmentRow {
            number: row.get(0)?,
            committed_bytes: row.get::<_, i64>(1)?.cast_unsigned(),
            sealed: row.get(2)?,
            dead_bytes: row.get::<_, i64>(3)?.cast_unsigned(),
        })
    })?;
    rows.collect()
}

pub(super) fn record_segments(
    connection: &Connection, pending: &Pending, dead: &BTreeMap<u32, u64>, next_vector_id: u64,
) -> rusqlite::Result<()> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO segments VALUES (?1, ?2, ?3, ?4) ON CONFLICT (number) DO UPDATE
         SET committed_bytes = excluded.committed_bytes, sealed = excluded.sealed",
    )?;
    for row in &pending.rows {
        let (bytes, dead) = (row.committed_bytes.cast_signed(), row.dead_bytes.cast_signed());
        upsert.execute(params![row.number, bytes, row.sealed, dead])?;
    }
    let mut remove = connection.prepare_cached("DELETE FROM segments WHERE number = ?1")?;
    for number in &pending.removed {
        remove.execute([number])?;
    }
    let mut dead_bytes_of =
        connection.prepare_cached("UPDATE segments SET dead_bytes = dead_bytes + ?2 WHERE number = ?1")?;
    for (number, bytes) in dead {
        dead_bytes_of.execute(params![number, bytes.cast_signed()])?;
    }
    if !pending.blocks.is_empty() {
        write_meta(connection, "next_vector_id", next_vector_id.cast_signed())?;
    }
    Ok(())
}
