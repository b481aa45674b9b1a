//! Copies for backups: the whole database at one moment, and what changed since such a moment.
//!
//! Both read one state of the database and keep no one from writing. A whole copy is a database file without
//! gaps, beside which the segments it names are copied up to the lengths it records: up to there they never
//! change. An increment is an SQLite file of its own with the catalog, the rows of touched records and the
//! vectors that are new.
//!
//! Not here: making a database out of such copies (`restore`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::checksums;
use super::connection::{DATABASE_FILE, SEGMENTS_FOLDER, connect, first_rowid, read_meta};
use super::layers::{ChangedLayers, LayerNumber, Progress, referred_blocks, rowids};
use super::segment_rows::segment_rows;
use super::store::SqliteStore;
use crate::error::{Error, Result};
use crate::extension;
use crate::segment::Segment;
use crate::store::{CollectionNumber, CopiedCollection, CopiedFile, Copy};

/// The tables that an increment holds whole.
pub(super) const CATALOG: [&str; 4] = ["tenants", "databases", "collections", "catalog_log"];
/// The same, of which increments of older versions may have none.
pub(super) const NEWER: [&str; 3] = ["jobs", "layers", "merged_layers"];

impl SqliteStore {
    pub(super) fn copy_whole_into(&self, folder: &Path) -> Result<Copy> {
        std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, &error))?;
        let target = folder.join(DATABASE_FILE);
        remove_if_there(&target)?;
        let connection = connect(&self.path, self.vfs.as_deref())?;
        let text = target.to_string_lossy().into_owned();
        connection.execute("VACUUM INTO ?1", [text]).map_err(self.error("copy"))?;
        drop(connection);
        let copied = Connection::open(&target).map_err(self.error("copy"))?;
        let mut copy = describe(&copied).map_err(self.error("copy"))?;
        copy.files.push(CopiedFile { name: DATABASE_FILE.into(), path: target.clone(), bytes: file_bytes(&target)? });
        let segments = self.path.parent().unwrap_or(Path::new(".")).join(SEGMENTS_FOLDER);
        for row in segment_rows(&copied).map_err(self.error("copy"))? {
            let path = Segment::path_in(&segments, row.number);
            let name = format!("{SEGMENTS_FOLDER}/{}", path.file_name().unwrap_or_default().to_string_lossy());
            copy.files.push(CopiedFile { name, path, bytes: row.committed_bytes });
        }
        Ok(copy)
    }

    pub(super) fn copy_changes_into(&self, before: &Copy, folder: &Path) -> Result<Copy> {
        std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, &error))?;
        let target = folder.join(INCREMENT_FILE);
        remove_if_there(&target)?;
        let mut connection = connect(&self.path, self.vfs.as_deref())?;
        let failed = self.error("copy changes");
        connection.execute("ATTACH ?1 AS increment", [target.to_string_lossy()]).map_err(&failed)?;
        checksums::reserve(&connection, "increment").map_err(&failed)?;
        // Whatever becomes of a half-written increment, nobody uses it.
        connection
            .execute_batch("PRAGMA increment.synchronous = OFF; PRAGMA increment.journal_mode = OFF")
            .map_err(&failed)?;
        let transaction = connection.transaction().map_err(&failed)?;
        let mut copy = {
            // The state that is copied begins here: of a commit that it sees, the vectors are to be found.
            let _published = self.publishing.read();
            describe(&transaction).map_err(&failed)?
        };
        let vectors = self.write_increment(&transaction, before, &copy).map_err(&failed)?;
        for (layer, ids) in vectors {
            self.write_vectors(&transaction, layer, &ids)?;
        }
        transaction.commit().map_err(&failed)?;
        drop(connection);
        copy.files.push(CopiedFile { name: INCREMENT_FILE.into(), path: target.clone(), bytes: file_bytes(&target)? });
        Ok(copy)
    }

    /// Writes everything but vectors; which new vectors there are.
    fn write_increment(
        &self, connection: &Connection, before: &Copy, now: &Copy,
    ) -> rusqlite::Result<BTreeMap<LayerNumber, Vec<u64>>> {
        for table in CATALOG {
            connection.execute_batch(&format!("CREATE TABLE increment.{table} AS SELECT * FROM main.{table}"))?;
        }
        // Schedules that were changed by hand, and what increments of older versions do not have.
        for table in NEWER {
            connection.execute_batch(&format!("CREATE TABLE increment.{table} AS SELECT * FROM main.{table}"))?;
        }
        // With their definitions: they may be newer than what the increment is applied to.
        connection.execute_batch("CREATE TABLE increment.definitions (name TEXT, sql TEXT)")?;
        for table in extension::tables(connection, "main")? {
            connection.execute_batch(&format!("CREATE TABLE increment.{table} AS SELECT * FROM main.{table}"))?;
            connection.execute(
                "INSERT INTO increment.definitions
                 SELECT name, sql FROM main.sqlite_schema WHERE tbl_name = ?1 AND sql IS NOT NULL
                 ORDER BY type <> 'table', type",
                [table],
            )?;
        }
        connection.execute_batch(
            "CREATE TABLE increment.meta AS SELECT * FROM main.meta WHERE key IN ('next_vector_id', 'commits');
             INSERT INTO increment.meta SELECT 'last_number', seq FROM main.sqlite_sequence WHERE name = 'collections';
             CREATE TABLE increment.touched (rowid INTEGER PRIMARY KEY);
             CREATE TABLE increment.whole (collection INTEGER PRIMARY KEY);
             CREATE TABLE increment.vectors (
                 vector_id INTEGER PRIMARY KEY, collection INTEGER, dimension INTEGER, norm REAL, data BLOB);
             CREATE TABLE increment.records AS SELECT rowid AS row, * FROM main.records WHERE 0;",
        )?;
        let positions: HashMap<CollectionNumber, u64> =
            before.collections.iter().map(|collection| (collection.number, collection.position)).collect();
        let progress: Vec<Progress> = now
            .collections
            .iter()
            .map(|CopiedCollection { number, position, .. }| Progress {
                collection: *number,
                since: positions.get(number).copied(),
                position: *position,
            })
            .collect();
        touch(connection, &ChangedLayers::since(connection, before.position, &progress)?)?;
        connection.execute_batch(
            "INSERT INTO increment.records
                 SELECT r.rowid, r.* FROM increment.touched t JOIN main.records r ON r.rowid = t.rowid",
        )?;
        let mut statement = connection
            .prepare("SELECT collection, vector_id FROM increment.records WHERE vector_id >= ?1 ORDER BY 2")?;
        let mut rows = statement.query([before.next_vector_id.cast_signed()])?;
        let mut vectors: BTreeMap<LayerNumber, Vec<u64>> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            vectors.entry(row.get(0)?).or_default().push(row.get::<_, i64>(1)?.cast_unsigned());
        }
        Ok(vectors)
    }

    /// Copies the vectors of these ids, ascending, which the rows of one layer refer to.
    fn write_vectors(&self, connection: &Connection, layer: LayerNumber, ids: &[u64]) -> Result<()> {
        let damaged = |reason: String| Error::Corrupt { path: self.path.with_file_name(SEGMENTS_FOLDER), reason };
        let failed = self.error("copy changes");
        let mut statement = connection
            .prepare("INSERT OR IGNORE INTO increment.vectors VALUES (?1, ?2, ?3, ?4, ?5)")
            .map_err(&failed)?;
        let mut found = HashSet::new();
        let numbers = referred_blocks(connection, layer).map_err(&failed)?;
        let found_blocks = numbers.into_iter().flat_map(|number| {
            let blocks = self.segments.load_blocks(number, &self.segments.find_blocks(number));
            blocks.into_iter().map(move |block| (number, block))
        });
        for (number, block) in found_blocks {
            let (block_ids, mut rows) = (block.ids(), Vec::new());
            for (row, id) in block_ids.iter().enumerate() {
                if ids.binary_search(id).is_ok() {
                    rows.push((row, *id));
                }
            }
            for (row, id) in rows {
                // What is damaged is missing here if no other block has it.
                let Ok(values) = block.row(row) else { continue };
                let (dimension, norm) = (u32::try_from(values.len()).unwrap_or(0), f64::from(block.norms()[row]));
                let data: &[u8] = bytemuck::cast_slice(values);
                let params = params![id.cast_signed(), number, dimension, norm, data];
                // It may be there already: rows of several layers can refer to it.
                statement.execute(params).map_err(&failed)?;
                found.insert(id);
            }
        }
        if found.len() != ids.len() {
            return Err(damaged(format!("{} new vectors of layer {layer} cannot be read", ids.len() - found.len())));
        }
        Ok(())
    }
}

/// Notes the rows that changed.
fn touch(connection: &Connection, changed: &ChangedLayers) -> rusqlite::Result<()> {
    for layer in &changed.whole {
        connection.execute("INSERT INTO increment.whole VALUES (?1)", [layer])?;
        connection.execute(
            "INSERT OR IGNORE INTO increment.touched SELECT rowid FROM main.records WHERE rowid BETWEEN ?1 AND ?2",
            rowids(*layer),
        )?;
    }
    let mut statement = connection.prepare_cached("INSERT OR IGNORE INTO increment.touched VALUES (?1)")?;
    for (layer, offsets) in changed.touched.iter().filter(|(layer, _)| !changed.whole.contains(layer)) {
        for offset in offsets {
            statement.execute([first_rowid(*layer) + i64::from(*offset)])?;
        }
    }
    Ok(())
}

/// The increment's file name.
const INCREMENT_FILE: &str = "increment.sqlite3";

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, &error)),
        _ => Ok(()),
    }
}

fn file_bytes(path: &PathBuf) -> Result<u64> {
    std::fs::metadata(path).map(|file| file.len()).map_err(|error| Error::io("read", path, &error))
}

/// How many changes the database has seen.
pub(super) fn position(connection: &Connection) -> rusqlite::Result<u64> {
    let catalog: Option<i64> =
        connection.query_row("SELECT max(position) FROM main.catalog_log", [], |row| row.get(0)).optional()?.flatten();
    Ok((read_meta(connection, "commits")? + catalog.unwrap_or(0)).cast_unsigned())
}

/// Where the database stands, in the state that the connection sees.
fn describe(connection: &Connection) -> rusqlite::Result<Copy> {
    let mut statement = connection.prepare(
        "SELECT number, id, tenant, database, name, position, records FROM main.collections WHERE deleted = 0",
    )?;
    let collections = statement.query_map([], |row| {
        Ok(CopiedCollection {
            number: row.get(0)?,
            id: uuid::Uuid::from_bytes(row.get(1)?),
            tenant: row.get(2)?,
            database: row.get(3)?,
            name: row.get(4)?,
            position: row.get::<_, i64>(5)?.cast_unsigned(),
            records: row.get::<_, i64>(6)?.cast_unsigned(),
        })
    })?;
    Ok(Copy {
        position: position(connection)?,
        epoch: read_meta(connection, "epoch")?.cast_unsigned(),
        database_id: read_meta(connection, "database_id")?.cast_unsigned(),
        next_vector_id: read_meta(connection, "next_vector_id")?.cast_unsigned(),
        collections: collections.collect::<rusqlite::Result<_>>()?,
        files: Vec::new(),
    })
}
