//! Upkeep of layers: rows that nobody reads any more go, and layers that only one collection reads become one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use rusqlite::{Connection, OptionalExtension, params};

use super::backup::position;
use super::catalog;
use super::connection::{first_rowid, offset_of};
use super::layers::{DELETED, EVERY_OFFSET, LayerNumber, Layers, block_numbers_of, layer_of, rowids, unite};
use crate::segments::Segments;
use crate::store::{CollectionNumber, HeldByForks};

/// A step of merging moves rows of about so many bytes at the most.
const MERGED_BYTES_MAX: i64 = 4 << 20;

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
            dead(&block_numbers_of(connection, base)?)?;
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
    // A base without one below needs no rows that say that something was deleted.
    let keeps_until: Option<u32> = connection.query_row(
        "SELECT iif(base IS NULL, NULL, first_offset) FROM layers WHERE number = ?1",
        [base],
        |row| row.get(0),
    )?;
    let moved = rows_to_move(connection, upper, rows)?;
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
        unite(connection, segments, upper, base)?;
    } else {
        note_rewritten(connection, &[upper, base])?;
    }
    weigh(connection, segments, &[upper, base], &dead)
}

/// The first rows of a layer, with the ids of their vectors: so many, or of so many bytes, as one step moves.
fn rows_to_move(connection: &Connection, layer: LayerNumber, rows: i64) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT rowid, vector_id, ifnull(octet_length(metadata), 0) + ifnull(octet_length(document), 0) FROM records
         WHERE rowid BETWEEN ?1 AND ?2 ORDER BY rowid LIMIT ?3",
    )?;
    let [first, last] = rowids(layer);
    let mut found = statement.query([first, last, rows])?;
    let (mut moved, mut bytes): (Vec<(i64, i64)>, i64) = (Vec::new(), 0);
    while let Some(row) = found.next()?
        && bytes < MERGED_BYTES_MAX
    {
        moved.push((row.get(0)?, row.get(1)?));
        bytes += row.get::<_, i64>(2)?;
    }
    Ok(moved)
}

/// Notes that rows of layers changed without a commit.
fn note_rewritten(connection: &Connection, layers: &[LayerNumber]) -> rusqlite::Result<()> {
    let position = position(connection)?.cast_signed();
    let mut statement = connection.prepare_cached("UPDATE layers SET rewritten_at = ?2 WHERE number = ?1")?;
    layers.iter().try_for_each(|layer| statement.execute(params![layer, position]).map(drop))
}

/// How many bytes of each segment these vectors of layers take.
pub(super) fn weigh(
    connection: &Connection, segments: &Segments, layers: &[LayerNumber], vectors: &[u64],
) -> rusqlite::Result<BTreeMap<u32, u64>> {
    let mut weight = BTreeMap::new();
    for layer in layers {
        for number in block_numbers_of(connection, *layer)? {
            for (segment, bytes) in segments.dead_bytes_of(number, vectors) {
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

/// Of which offsets no collection that reads a layer reads what lies below it; by layer, as far as it was asked for.
#[derive(Default)]
struct Hidden(HashMap<LayerNumber, Rc<BTreeSet<u32>>>);

impl Hidden {
    fn below(&mut self, connection: &Connection, layer: LayerNumber) -> rusqlite::Result<Rc<BTreeSet<u32>>> {
        if let Some(known) = self.0.get(&layer) {
            return Ok(Rc::clone(known));
        }
        let mut hidden = self.by_all(connection, &children(connection, layer)?)?;
        hidden.extend(offsets_of(connection, layer)?);
        let hidden = Rc::new(hidden);
        self.0.insert(layer, Rc::clone(&hidden));
        Ok(hidden)
    }

    /// The offsets of which nobody reads what lies below any of some layers.
    fn by_all(&mut self, connection: &Connection, layers: &[LayerNumber]) -> rusqlite::Result<BTreeSet<u32>> {
        let Some((first, others)) = layers.split_first() else { return Ok(BTreeSet::new()) };
        let mut hidden = BTreeSet::clone(&*self.below(connection, *first)?);
        for layer in others {
            let below = self.below(connection, *layer)?;
            hidden.retain(|offset| below.contains(offset));
        }
        Ok(hidden)
    }
}

/// A row that every collection which reads its layer has deleted or replaced. That stays so.
pub(super) struct Unread {
    rowid: i64,
    vector_id: i64,
    position: i64,
    /// A row above that changed only metadata or the document refers to the same vector, which is kept with this row.
    has_shared_vector: bool,
}

/// Some of the rows that nobody reads any more.
pub(super) fn unread(connection: &Connection, rows_max: usize) -> rusqlite::Result<Vec<Unread>> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT base FROM layers WHERE base IS NOT NULL")?;
    let bases = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<LayerNumber>>>()?;
    let mut row_at = connection.prepare_cached(
        "SELECT vector_id, updated_at_position, ifnull(metadata, ifnull(uri, document)) IS NULL FROM records
         WHERE rowid = ?1 AND vector_id <> 0",
    )?;
    let (mut hidden, mut found) = (Hidden::default(), Vec::new());
    for base in bases {
        let above = children(connection, base)?;
        for offset in hidden.by_all(connection, &above)? {
            let rowid = first_rowid(base) + i64::from(offset);
            let row = row_at.query_row([rowid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
            let Some((vector_id, position, is_empty)): Option<(i64, i64, bool)> = row else { continue };
            let has_shared_vector = is_referred_to(connection, &above, offset, vector_id)?;
            if !(has_shared_vector && is_empty) {
                found.push(Unread { rowid, vector_id, position, has_shared_vector });
            }
            if found.len() == rows_max {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// Removes rows that nobody reads any more, as far as they are there still; how many bytes of each segment nothing
/// refers to any more.
pub(super) fn purge(
    connection: &Connection, segments: &Segments, rows: &[Unread],
) -> rusqlite::Result<BTreeMap<u32, u64>> {
    // Another row may have been moved to this place meanwhile: one that was changed later.
    let mut delete = connection
        .prepare_cached("DELETE FROM records WHERE rowid = ?1 AND vector_id = ?2 AND updated_at_position = ?3")?;
    let mut clear = connection.prepare_cached(
        "UPDATE records SET metadata = NULL, uri = NULL, document = NULL
         WHERE rowid = ?1 AND vector_id = ?2 AND updated_at_position = ?3",
    )?;
    let mut dead: BTreeMap<LayerNumber, Vec<u64>> = BTreeMap::new();
    for row in rows {
        let statement = if row.has_shared_vector { &mut clear } else { &mut delete };
        let is_changed = statement.execute([row.rowid, row.vector_id, row.position])? > 0;
        let vectors = dead.entry(layer_of(row.rowid)).or_default();
        if is_changed && !row.has_shared_vector {
            vectors.push(row.vector_id.cast_unsigned());
        }
    }
    let mut weight = BTreeMap::new();
    for (layer, vectors) in &dead {
        note_rewritten(connection, &[*layer])?;
        for (segment, bytes) in weigh(connection, segments, &[*layer], vectors)? {
            *weight.entry(segment).or_default() += bytes;
        }
    }
    Ok(weight)
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
    // Of each collection with several layers: for each, the offsets at which it does not read what lies there.
    let mut hides: BTreeMap<CollectionNumber, (String, BTreeMap<LayerNumber, BTreeSet<u32>>)> = BTreeMap::new();
    for row in catalog::all_collections(connection)? {
        let (mut above, mut by_layer) = (BTreeSet::new(), BTreeMap::new());
        for layer in Layers::of(connection, row.number)?.iter() {
            by_layer.insert(layer.number, above.clone());
            above.extend(offsets_of(connection, layer.number)?);
        }
        if by_layer.len() > 1 {
            hides.insert(row.number, (row.name, by_layer));
        }
    }
    let mut held = Vec::new();
    for (number, (name, by_layer)) in &hides {
        let (mut records, mut forks) = (BTreeSet::new(), BTreeSet::new());
        for (layer, hidden) in by_layer.iter().filter(|(_, hidden)| !hidden.is_empty()) {
            for (_, (reader, theirs)) in hides.iter().filter(|(other, _)| *other != number) {
                let Some(theirs) = theirs.get(layer) else { continue };
                for offset in hidden.difference(theirs) {
                    if has_record(connection, *layer, *offset)? {
                        records.insert(*offset);
                        forks.insert(reader.clone());
                    }
                }
            }
        }
        if !records.is_empty() {
            let (records, forks) = (records.len() as u64, forks.into_iter().collect());
            held.push(HeldByForks { collection: name.clone(), records, forks });
        }
    }
    Ok(held)
}

/// Whether a layer has a record at an offset.
fn has_record(connection: &Connection, layer: LayerNumber, offset: u32) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM records WHERE rowid = ?1 AND vector_id <> 0")?;
    statement.exists([first_rowid(layer) + i64::from(offset)])
}
