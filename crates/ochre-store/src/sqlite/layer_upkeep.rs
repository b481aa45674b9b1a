//! Upkeep of layers: rows that nobody reads any more go, and layers that only one collection reads become one.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::backup::position;
use super::catalog;
use super::connection::{first_rowid, offset_of};
use super::layers::{DELETED, LayerNumber, Layers, blocks_of, readers_of, rowids, unite};
use crate::segments::Segments;
use crate::store::{CollectionNumber, HeldByForks};

/// The first offset of a layer under which records of any offset may lie.
const EVERY_OFFSET: u32 = u32::MAX;

/// A slice of the rows of a deleted collection, and of what only it read; whether anything was left to do. The vectors
/// of a layer that nobody reads any more are given to `dead`.
pub(super) fn sweep(
    connection: &Connection, rows: i64, dead: impl FnOnce(&[LayerNumber]) -> rusqlite::Result<()>,
) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare_cached("SELECT number, ifnull(layer, number) FROM collections WHERE deleted = 1 LIMIT 1")?;
    let found = statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((number, layer)): Option<(CollectionNumber, LayerNumber)> = found else { return Ok(false) };
    let [first, last] = rowids(layer);
    let mut statement = connection.prepare_cached(
        "DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE rowid BETWEEN ?1 AND ?2 LIMIT ?3)",
    )?;
    if statement.execute([first, last, rows])? > 0 {
        return Ok(true);
    }
    let base: Option<LayerNumber> = connection
        .query_row("DELETE FROM layers WHERE number = ?1 RETURNING base", [layer], |row| row.get(0))
        .optional()?
        .flatten();
    connection.execute("DELETE FROM merged_layers WHERE layer = ?1", [layer])?;
    if let Some(base) = base {
        let is_read: bool =
            connection.query_row("SELECT EXISTS (SELECT 1 FROM layers WHERE base = ?1)", [base], |row| row.get(0))?;
        if !is_read {
            // Its last reader goes on with it.
            connection.execute("UPDATE collections SET layer = ?2 WHERE number = ?1", [number, base])?;
            dead(&blocks_of(connection, base)?)?;
            return Ok(true);
        }
    }
    connection.execute("DELETE FROM log WHERE collection = ?1", [number])?;
    connection.execute("DELETE FROM log_holds WHERE collection = ?1", [number])?;
    connection.execute("DELETE FROM collections WHERE number = ?1", [number])?;
    Ok(true)
}

/// A layer that is the only one above another one, and that one: the two can be one.
pub(super) fn mergeable(connection: &Connection) -> rusqlite::Result<Option<(LayerNumber, LayerNumber)>> {
    let mut statement = connection.prepare_cached(
        "SELECT base, min(number) FROM layers WHERE base IS NOT NULL GROUP BY base
         HAVING count(*) = 1
             AND min(number) NOT IN (SELECT ifnull(layer, number) FROM collections WHERE deleted = 1)
         LIMIT 1",
    )?;
    statement.query_row([], |row| Ok((row.get(1)?, row.get(0)?))).optional()
}

/// Moves some rows of a layer into its base, whose only reader it is. What every collection reads stays the same. How
/// many bytes of each segment nothing refers to any more.
pub(super) fn merge(
    connection: &Connection, segments: &Segments, upper: LayerNumber, base: LayerNumber, rows: i64,
) -> rusqlite::Result<BTreeMap<u32, u64>> {
    // From now on records of any offset may lie below.
    connection.execute("UPDATE layers SET first_offset = ?2 WHERE number = ?1", params![upper, EVERY_OFFSET])?;
    note_rewritten(connection, &[upper, base])?;
    // A base without one below needs no rows that say that something was deleted.
    let keeps_until: Option<u32> = connection.query_row(
        "SELECT iif(base IS NULL, NULL, first_offset) FROM layers WHERE number = ?1",
        [base],
        |row| row.get(0),
    )?;
    let mut statement = connection
        .prepare_cached("SELECT rowid, vector_id FROM records WHERE rowid BETWEEN ?1 AND ?2 ORDER BY rowid LIMIT ?3")?;
    let [first, last] = rowids(upper);
    let moved = statement.query_map([first, last, rows], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let moved = moved.collect::<rusqlite::Result<Vec<(i64, i64)>>>()?;
    let mut replace = connection.prepare_cached("DELETE FROM records WHERE rowid = ?1 RETURNING vector_id")?;
    let mut move_to = connection.prepare_cached("UPDATE records SET rowid = ?2, collection = ?3 WHERE rowid = ?1")?;
    let mut dead = Vec::new();
    // By ascending offset: a record that was deleted and added again stands behind what says that it was deleted.
    for (rowid, vector_id) in &moved {
        let offset = offset_of(*rowid);
        let target = first_rowid(base) + i64::from(offset);
        let before: Option<i64> = replace.query_row([target], |row| row.get(0)).optional()?;
        dead.extend(before.filter(|before| before != vector_id && *before != DELETED).map(i64::cast_unsigned));
        if *vector_id == DELETED && keeps_until.is_none_or(|until| offset >= until) {
            replace.query_row([*rowid], |_| Ok(())).optional()?;
        } else {
            move_to.execute(params![rowid, target, base])?;
        }
    }
    if moved.is_empty() {
        unite(connection, upper, base)?;
    }
    weigh(connection, segments, &[upper, base], &dead)
}

/// Notes that rows of layers changed without a commit.
fn note_rewritten(connection: &Connection, layers: &[LayerNumber]) -> rusqlite::Result<()> {
    let position = position(connection)?.cast_signed();
    let mut statement = connection.prepare_cached("UPDATE layers SET rewritten_at = ?2 WHERE number = ?1")?;
    layers.iter().try_for_each(|layer| statement.execute(params![layer, position]).map(drop))
}

/// How many bytes of each segment these vectors of layers take.
fn weigh(
    connection: &Connection, segments: &Segments, layers: &[LayerNumber], vectors: &[u64],
) -> rusqlite::Result<BTreeMap<u32, u64>> {
    let mut weight = BTreeMap::new();
    for layer in layers {
        for blocks in blocks_of(connection, *layer)? {
            for (segment, bytes) in segments.dead_bytes_of(blocks, vectors) {
                *weight.entry(segment).or_default() += bytes;
            }
        }
    }
    Ok(weight)
}

/// The offsets at which a layer has rows.
fn offsets_of(connection: &Connection, layer: LayerNumber) -> rusqlite::Result<BTreeSet<u32>> {
    let mut statement = connection.prepare_cached("SELECT rowid FROM records WHERE rowid BETWEEN ?1 AND ?2")?;
    statement.query_map(rowids(layer), |row| row.get(0).map(offset_of))?.collect()
}

/// The layers directly above one.
fn children(connection: &Connection, layer: LayerNumber) -> rusqlite::Result<Vec<LayerNumber>> {
    let mut statement = connection.prepare_cached("SELECT number FROM layers WHERE base = ?1")?;
    statement.query_map([layer], |row| row.get(0))?.collect()
}

/// The offsets of which no collection that reads a layer reads what lies below it.
fn hidden_below(connection: &Connection, layer: LayerNumber) -> rusqlite::Result<BTreeSet<u32>> {
    let mut hidden = hidden_by_all(connection, &children(connection, layer)?)?;
    hidden.extend(offsets_of(connection, layer)?);
    Ok(hidden)
}

/// The offsets of which nobody reads what lies below any of some layers.
fn hidden_by_all(connection: &Connection, layers: &[LayerNumber]) -> rusqlite::Result<BTreeSet<u32>> {
    let Some((first, others)) = layers.split_first() else { return Ok(BTreeSet::new()) };
    let mut hidden = hidden_below(connection, *first)?;
    for layer in others {
        let below = hidden_below(connection, *layer)?;
        hidden.retain(|offset| below.contains(offset));
    }
    Ok(hidden)
}

/// Removes rows that every collection which reads their layer has deleted or replaced, with what only they refer to;
/// how many bytes of each segment nothing refers to any more. `None` if there are none.
pub(super) fn purge(
    connection: &Connection, segments: &Segments, rows: usize,
) -> rusqlite::Result<Option<BTreeMap<u32, u64>>> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT base FROM layers WHERE base IS NOT NULL")?;
    let bases = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<LayerNumber>>>()?;
    for base in bases {
        let above = children(connection, base)?;
        let mut purged = Vec::new();
        let mut row_at = connection.prepare_cached(
            "SELECT vector_id FROM records
             WHERE rowid = ?1 AND vector_id <> 0 AND (?2 OR metadata IS NOT NULL OR uri IS NOT NULL OR document IS NOT NULL)",
        )?;
        for offset in hidden_by_all(connection, &above)? {
            let rowid = first_rowid(base) + i64::from(offset);
            // A row above that changed only metadata or the document refers to the same vector, which is kept with it.
            let vector: Option<i64> = row_at.query_row(params![rowid, true], |row| row.get(0)).optional()?;
            let Some(vector) = vector else { continue };
            let is_shared = is_referred_to(connection, &above, offset, vector)?;
            if row_at.exists(params![rowid, !is_shared])? {
                purged.push((rowid, vector, is_shared));
            }
            if purged.len() == rows {
                break;
            }
        }
        if purged.is_empty() {
            continue;
        }
        let mut delete = connection.prepare_cached("DELETE FROM records WHERE rowid = ?1")?;
        let mut clear = connection
            .prepare_cached("UPDATE records SET metadata = NULL, uri = NULL, document = NULL WHERE rowid = ?1")?;
        for (rowid, _, is_shared) in &purged {
            if *is_shared { &mut clear } else { &mut delete }.execute([rowid])?;
        }
        note_rewritten(connection, &[base])?;
        let dead = purged.iter().filter(|(_, _, is_shared)| !is_shared);
        let dead: Vec<u64> = dead.map(|(_, vector, _)| vector.cast_unsigned()).collect();
        return weigh(connection, segments, &[base], &dead).map(Some);
    }
    Ok(None)
}

/// Whether a row in one of some layers, or above them, refers to a vector.
fn is_referred_to(connection: &Connection, layers: &[LayerNumber], offset: u32, vector: i64) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM records WHERE rowid = ?1 AND vector_id = ?2")?;
    for layer in layers {
        let is_here = statement.exists(params![first_rowid(*layer) + i64::from(offset), vector])?;
        if is_here || is_referred_to(connection, &children(connection, *layer)?, offset, vector)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// For each collection the records that it deleted or replaced and that others still read.
pub(super) fn held_by_forks(connection: &Connection) -> rusqlite::Result<Vec<HeldByForks>> {
    let rows = catalog::all_collections(connection)?;
    // Above each layer of a collection: the offsets at which it does not read what lies there.
    let hides = |collection: CollectionNumber| -> rusqlite::Result<Vec<(LayerNumber, BTreeSet<u32>)>> {
        let (mut above, mut layers) = (BTreeSet::new(), Vec::new());
        for layer in Layers::of(connection, collection)?.iter() {
            layers.push((layer.number, above.clone()));
            above.extend(offsets_of(connection, layer.number)?);
        }
        Ok(layers)
    };
    let mut held = Vec::new();
    for row in &rows {
        if Layers::of(connection, row.number)?.is_single() {
            continue;
        }
        let (mut records, mut forks) = (BTreeSet::new(), BTreeSet::new());
        for (layer, hidden) in hides(row.number)?.into_iter().filter(|(_, hidden)| !hidden.is_empty()) {
            let mut hidden = hidden;
            hidden.retain(|offset| has_record(connection, layer, *offset).unwrap_or(true));
            for reader in readers_of(connection, &[layer])?.into_iter().filter(|reader| *reader != row.number) {
                let theirs = hides(reader)?.into_iter().find(|(other, _)| *other == layer);
                let theirs = theirs.map(|(_, hidden)| hidden).unwrap_or_default();
                let read: Vec<u32> = hidden.difference(&theirs).copied().collect();
                if !read.is_empty() {
                    records.extend(read);
                    forks.extend(rows.iter().find(|other| other.number == reader).map(|other| other.name.clone()));
                }
            }
        }
        if !records.is_empty() {
            held.push(HeldByForks {
                collection: row.name.clone(),
                records: records.len() as u64,
                forks: forks.into_iter().collect(),
            });
        }
    }
    Ok(held)
}

/// Whether a layer has a record at an offset.
fn has_record(connection: &Connection, layer: LayerNumber, offset: u32) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM records WHERE rowid = ?1 AND vector_id <> 0")?;
    statement.exists([first_rowid(layer) + i64::from(offset)])
}
