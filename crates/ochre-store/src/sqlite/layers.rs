//! Layers: how forks share records, copy on write.
//!
//! A row of `records` lies in a layer. A collection that was never forked has one, whose number is its own. A fork
//! leaves the rows of its source where they are, as the base of two new layers: one for what the source writes from
//! then on, one for what the fork does. A collection is read from its own layer down: the first layer that has a row at
//! an offset decides, and a row without a vector ([`DELETED`]) says that the record below it was deleted.
//!
//! Invariants:
//! - Commits write to the own layer of a collection only, and no own layer is the base of another.
//! - A record has the same offset and the same id in every layer.
//! - Vectors lie in segments under the number of the layer that a commit wrote to, or, if that was merged into another
//!   one, under its former number (`merged_layers`).
//! - A vector that lies under the number of a layer is live if a row of that layer refers to it; or, once the layer is
//!   being merged ([`EVERY_OFFSET`]), a row of a layer below.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::catalog;
use super::connection::{Failure, first_rowid, not_found};
use super::log::SNAPSHOTS;
use super::records;
use crate::error::{Error, Resource};
use crate::segments::Segments;
use crate::store::{COLLECTIONS_MAX, CollectionNumber, CollectionRow, NO_NUMBER_LEFT, refuse_more_forks};

/// A layer's number; drawn from the same sequence as those of collections.
pub(crate) type LayerNumber = CollectionNumber;

/// The vector of a row that only says that the record below it was deleted: ids of vectors count from 1.
pub(crate) const DELETED: i64 = 0;

/// The first offset of a layer that is being merged: below it there may be records of any offset.
pub(super) const EVERY_OFFSET: u32 = u32::MAX;

/// A layer of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) number: LayerNumber,
    /// No layer below has records at this offset or a later one.
    pub(super) first_offset: u32,
    /// The numbers under which its vectors lie in segments.
    pub(crate) block_numbers: Vec<LayerNumber>,
}

/// The layers of a collection, its own first; at least that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layers(Vec<Layer>);

impl Layers {
    /// Those of a collection in a database without forks.
    pub(crate) fn single(collection: CollectionNumber) -> Self {
        Self(vec![Layer { number: collection, first_offset: 0, block_numbers: vec![collection] }])
    }

    /// Those of a collection.
    pub(crate) fn of(connection: &Connection, collection: CollectionNumber) -> rusqlite::Result<Self> {
        let mut statement =
            connection.prepare_cached("SELECT ifnull(layer, number) FROM collections WHERE number = ?1")?;
        let own = statement.query_row([collection], |row| row.get(0)).optional()?;
        own.map_or_else(|| Ok(Self::single(collection)), |own| Self::from(connection, own))
    }

    /// A layer and those below it.
    fn from(connection: &Connection, layer: LayerNumber) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached(
            "WITH RECURSIVE below (number, depth) AS (
                 VALUES (?1, 0)
                 UNION ALL
                 SELECT base, depth + 1 FROM below JOIN layers USING (number) WHERE base IS NOT NULL)
             SELECT number, ifnull(first_offset, 0) FROM below LEFT JOIN layers USING (number) ORDER BY depth",
        )?;
        let layers = statement.query_map([layer], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let layers = layers.collect::<rusqlite::Result<Vec<(LayerNumber, u32)>>>()?;
        let layer = |(number, first_offset)| {
            Ok(Layer { number, first_offset, block_numbers: block_numbers_of(connection, number)? })
        };
        layers.into_iter().map(layer).collect::<rusqlite::Result<_>>().map(Self)
    }

    /// The layer that is written to.
    pub(crate) fn own(&self) -> &Layer {
        &self.0[0]
    }

    /// Whether there is only the own one.
    pub(crate) fn is_single(&self) -> bool {
        self.0.len() == 1
    }

    /// All, the own one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Layer> {
        self.0.iter()
    }

    /// Those above one of them.
    pub(super) fn above(&self, index: usize) -> impl Iterator<Item = &Layer> {
        self.0[..index].iter()
    }

    /// Those in which there may be a row at an offset, the own one first.
    pub(super) fn at(&self, offset: u32) -> impl Iterator<Item = &Layer> {
        let last = self.0.iter().position(|layer| offset >= layer.first_offset).unwrap_or(self.0.len() - 1);
        self.0[..=last].iter()
    }

    /// The numbers under which the vectors of all lie in segments.
    pub(crate) fn block_numbers(&self) -> impl Iterator<Item = LayerNumber> {
        self.0.iter().flat_map(|layer| layer.block_numbers.iter().copied())
    }
}

/// Whether any collection was forked. In a file of version 4 or less none was.
pub(crate) fn has_forks(connection: &Connection) -> rusqlite::Result<bool> {
    let can_have: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'layers')",
        [],
        |row| row.get(0),
    )?;
    if !can_have {
        return Ok(false);
    }
    connection.query_row("SELECT EXISTS (SELECT 1 FROM layers)", [], |row| row.get(0))
}

/// The rowids of a layer, first and last.
pub(crate) const fn rowids(layer: LayerNumber) -> [i64; 2] {
    [first_rowid(layer), first_rowid(layer) + u32::MAX as i64]
}

/// The layer of a row.
pub(super) fn layer_of(rowid: i64) -> LayerNumber {
    u32::try_from(rowid >> 32).expect("numbers of layers have 31 bits")
}

/// The numbers under which the vectors of a layer lie in segments.
pub(super) fn block_numbers_of(connection: &Connection, layer: LayerNumber) -> rusqlite::Result<Vec<LayerNumber>> {
    let mut statement = connection.prepare_cached("SELECT number FROM merged_layers WHERE layer = ?1")?;
    let merged = statement.query_map([layer], |row| row.get(0))?;
    std::iter::once(Ok(layer)).chain(merged).collect()
}

/// Which rows of layers changed since a database stood at `before`, when collections stood at `positions`.
pub(super) struct ChangedLayers {
    /// Layers of which every row may have changed.
    pub(super) whole: BTreeSet<LayerNumber>,
    /// Of the others, the offsets of rows that may have.
    pub(super) touched: BTreeMap<LayerNumber, BTreeSet<u32>>,
}

/// Where a collection stands, and where it stood; `None` if it is newer.
pub(super) struct Progress {
    pub(super) collection: CollectionNumber,
    pub(super) since: Option<u64>,
    pub(super) position: u64,
}

impl ChangedLayers {
    /// A layer is only written to by the collection whose own it is, so that the log of any collection that had it all
    /// the time says what changed; or it was merged.
    pub(super) fn since(connection: &Connection, before: u64, collections: &[Progress]) -> rusqlite::Result<Self> {
        let (mut changed, mut unknown) = (Self { whole: BTreeSet::new(), touched: BTreeMap::new() }, BTreeSet::new());
        let mut merged_since =
            connection.prepare_cached("SELECT 1 FROM layers WHERE number = ?1 AND rewritten_at >= max(?2, 1)")?;
        for Progress { collection, since, position } in collections {
            let log = match since {
                Some(since) => records::changed_since(connection, *collection, *since, *position)?,
                None => None,
            };
            for layer in Layers::of(connection, *collection)?.iter() {
                if merged_since.exists(params![layer.number, before.cast_signed()])? {
                    changed.whole.insert(layer.number);
                } else if let Some(log) = &log {
                    changed.touched.entry(layer.number).or_default().extend(log);
                } else {
                    unknown.insert(layer.number);
                }
            }
        }
        changed.whole.extend(unknown.into_iter().filter(|layer| !changed.touched.contains_key(layer)));
        Ok(changed)
    }
}

/// The numbers under which vectors lie that the rows of a layer may refer to: its own and those below, and those above
/// whose rows may be on their way into it.
pub(super) fn referred_blocks(connection: &Connection, layer: LayerNumber) -> rusqlite::Result<BTreeSet<LayerNumber>> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE above (number) AS (
             VALUES (?1)
             UNION
             SELECT layers.number FROM above JOIN layers ON layers.base = above.number)
         SELECT number FROM above",
    )?;
    let mut blocks: BTreeSet<_> = Layers::from(connection, layer)?.block_numbers().collect();
    for above in statement.query_map([layer], |row| row.get(0))? {
        blocks.extend(block_numbers_of(connection, above?)?);
    }
    Ok(blocks)
}

/// The vectors that are referred to among those that lie in segments under a number, ascending.
pub(super) fn live_vectors(connection: &Connection, number: LayerNumber) -> rusqlite::Result<Vec<u64>> {
    // Rows on their way into the layer below refer to vectors that lie under the number above.
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE below (number) AS (
             SELECT ifnull((SELECT layer FROM merged_layers WHERE number = ?1), ?1)
             UNION
             SELECT base FROM below JOIN layers USING (number) WHERE base IS NOT NULL AND first_offset = 4294967295)
         SELECT vector_id FROM below CROSS JOIN records
         WHERE records.rowid BETWEEN below.number << 32 AND (below.number << 32) + 4294967295
             AND NOT EXISTS (SELECT 1 FROM collections WHERE ifnull(layer, number) = below.number AND deleted = 1)",
    )?;
    let ids = statement.query_map([number], |row| row.get(0))?;
    let mut ids: Vec<u64> =
        ids.map(|id: rusqlite::Result<i64>| id.map(i64::cast_unsigned)).collect::<Result<_, _>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// The collections that read vectors which lie in segments under any of these numbers.
pub(super) fn readers_of(
    connection: &Connection, blocks: &[LayerNumber],
) -> rusqlite::Result<BTreeSet<CollectionNumber>> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE above (number) AS (
             SELECT ifnull((SELECT layer FROM merged_layers WHERE number = ?1), ?1)
             UNION
             SELECT layers.number FROM above JOIN layers ON layers.base = above.number)
         SELECT collections.number FROM above JOIN collections
             ON ifnull(collections.layer, collections.number) = above.number WHERE deleted = 0",
    )?;
    let mut collections = BTreeSet::new();
    for number in blocks {
        for collection in statement.query_map([number], |row| row.get(0))? {
            collections.insert(collection?);
        }
    }
    Ok(collections)
}

/// A collection that was forked.
pub(super) struct Forked {
    pub(super) source: CollectionRow,
    pub(super) fork: CollectionRow,
}

/// Makes a collection with the records of another one, without copying them.
pub(super) fn fork(connection: &Connection, segments: &Segments, source: Uuid, name: &str) -> Result<Forked, Failure> {
    let source =
        catalog::collection_by_id(connection, source)?.ok_or_else(|| not_found(Resource::Collection, source))?;
    if catalog::collection(connection, &source.tenant, &source.database, name)?.is_some() {
        return Err(Error::AlreadyExists { kind: Resource::Collection, name: name.to_owned() }.into());
    }
    refuse_more_forks(&source.name, catalog::count_family(connection, source.family)?.saturating_sub(1))?;
    let head = catalog::head(connection, source.number)?.ok_or_else(|| not_found(Resource::Collection, source.id))?;
    let base = shared_base(connection, segments, source.number, head.next_offset)?;
    let (id, number) = (Uuid::new_v4(), next_number(connection)?);
    connection.execute(
        "INSERT INTO collections
             (number, id, tenant, database, name, metadata, schema, dimension, position, next_offset, records,
              operations, declaration, family)
         SELECT ?2, ?3, tenant, database, ?4, metadata, schema, dimension, position, next_offset, records, operations,
             declaration, ?5
         FROM collections WHERE number = ?1",
        params![source.number, number, id.as_bytes(), name, source.family.as_bytes()],
    )?;
    if let Some(base) = base {
        add_layer(connection, number, base, head.next_offset)?;
    }
    // From the snapshot of its source the fork is loaded with what changed since.
    connection.execute(
        "INSERT INTO log_holds SELECT holder, ?2, position FROM log_holds WHERE collection = ?1 AND holder = ?3",
        params![source.number, number, SNAPSHOTS],
    )?;
    connection.execute(
        "INSERT INTO log SELECT ?2, position, operation, offsets FROM log WHERE collection = ?1 AND position >
             (SELECT position FROM log_holds WHERE collection = ?2)",
        params![source.number, number],
    )?;
    catalog::log(connection, "fork_collection", &id.to_string())?;
    let fork = catalog::collection_by_id(connection, id)?.ok_or_else(|| not_found(Resource::Collection, id))?;
    Ok(Forked { source, fork })
}

/// The layer that a collection and its fork both have below their own; none if there are no records.
fn shared_base(
    connection: &Connection, segments: &Segments, collection: CollectionNumber, next_offset: u32,
) -> Result<Option<LayerNumber>, Failure> {
    let layers = Layers::of(connection, collection)?;
    let own = layers.own().number;
    let has_rows: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM records WHERE rowid BETWEEN ?1 AND ?2)",
        rowids(own),
        |row| row.get(0),
    )?;
    if !has_rows {
        let Some(base) = layers.iter().nth(1).map(|layer| layer.number) else { return Ok(None) };
        let readers: i64 =
            connection.query_row("SELECT count(*) FROM layers WHERE base = ?1", [base], |row| row.get(0))?;
        if readers > 1 {
            return Ok(Some(base));
        }
        // Its rows may be in the base already, and their vectors under its number.
        unite(connection, segments, own, base)?;
        return shared_base(connection, segments, collection, next_offset);
    }
    connection.execute("INSERT OR IGNORE INTO layers VALUES (?1, NULL, 0, 0)", [own])?;
    let number = next_number(connection)?;
    add_layer(connection, number, own, next_offset)?;
    connection.execute("UPDATE collections SET layer = ?2 WHERE number = ?1", [collection, number])?;
    Ok(Some(own))
}

fn add_layer(
    connection: &Connection, number: LayerNumber, base: LayerNumber, first_offset: u32,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT INTO layers VALUES (?1, ?2, ?3, 0)")?;
    statement.execute(params![number, base, first_offset]).map(drop)
}

/// A number that neither a collection nor a layer ever had.
fn next_number(connection: &Connection) -> Result<LayerNumber, Failure> {
    let number: i64 = connection.query_row(
        "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'collections' RETURNING seq",
        [],
        |row| row.get(0),
    )?;
    let number = u32::try_from(number).ok().filter(|number| *number < COLLECTIONS_MAX);
    number.ok_or_else(|| Error::Limit(NO_NUMBER_LEFT.into()).into())
}

/// Makes one layer of a base and the only one above it, which has no rows.
pub(super) fn unite(
    connection: &Connection, segments: &Segments, upper: LayerNumber, base: LayerNumber,
) -> rusqlite::Result<()> {
    connection.execute("UPDATE layers SET base = ?2 WHERE base = ?1", [upper, base])?;
    connection.execute("UPDATE collections SET layer = ?2 WHERE ifnull(layer, number) = ?1", [upper, base])?;
    connection.execute("UPDATE merged_layers SET layer = ?2 WHERE layer = ?1", [upper, base])?;
    connection.execute("INSERT INTO merged_layers VALUES (?1, ?2)", [upper, base])?;
    connection.execute("DELETE FROM layers WHERE number = ?1", [upper])?;
    // Numbers without vectors are looked for in vain.
    for number in block_numbers_of(connection, base)?.into_iter().filter(|number| *number != base) {
        if segments.weigh(number).is_empty() {
            connection.execute("DELETE FROM merged_layers WHERE number = ?1", [number])?;
        }
    }
    Ok(())
}

/// What is wrong with the layers of a database, if anything is: nothing would end on those that lie in a circle.
pub(crate) fn problem(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare("SELECT number, base FROM layers")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let layers = rows.collect::<rusqlite::Result<BTreeMap<LayerNumber, Option<LayerNumber>>>>()?;
    for (number, base) in &layers {
        let (mut below, mut depth) = (*base, 0);
        while let Some(layer) = below {
            let Some(next) = layers.get(&layer) else {
                return Ok(Some(format!("layer {number} lies above layer {layer}, which is not there")));
            };
            (below, depth) = (*next, depth + 1);
            if depth > layers.len() {
                return Ok(Some(format!("layer {number} lies above itself")));
            }
        }
    }
    let bases: BTreeSet<LayerNumber> = layers.values().flatten().copied().collect();
    let mut owned = BTreeSet::new();
    let mut statement = connection.prepare("SELECT ifnull(layer, number) FROM collections")?;
    for own in statement.query_map([], |row| row.get::<_, LayerNumber>(0))? {
        let own = own?;
        if bases.contains(&own) || !owned.insert(own) {
            return Ok(Some(format!("layer {own} is written to, and read by others")));
        }
    }
    let mut statement = connection.prepare("SELECT number, layer FROM merged_layers")?;
    for merged in statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
        let (number, layer): (LayerNumber, LayerNumber) = merged?;
        if !layers.contains_key(&layer) && !owned.contains(&layer) {
            return Ok(Some(format!("layer {number} was merged into layer {layer}, which is not there")));
        }
    }
    Ok(None)
}
