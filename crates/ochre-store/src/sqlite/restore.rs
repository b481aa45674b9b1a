//! Making a database out of copies that came from somewhere else: whatever they hold may have been tampered with.
//!
//! Invariants:
//! - No SQL text of a copy is ever run: what a copy defines is compared with what this program defines, and only
//!   rows are taken. Triggers and views do not act, and an authorizer refuses whatever reaches beyond the two files.
//! - Every value is checked before it is used as a size.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, params};

use super::backup::{CATALOG, NEWER};
use super::connection::{DATABASE_FILE, Failure, count_transaction, new_epoch, read_meta, rename_database, write_meta};
use super::segment_rows::record_segments;
use super::store::{SqliteOptions, SqliteStore};
use super::{layer_upkeep, layers};
use crate::definitions::{self, ExtensionTables};
use crate::error::{Error, Result};
use crate::segment::NewBlock;
use crate::segments::{Pending, into_blocks};
use crate::store::CollectionNumber;

/// Vectors of an increment that are appended in one step, in bytes.
const STEP_BYTES: usize = 32 << 20;
/// The largest vector that is read, in floats; far more than any request may have.
const DIMENSION_MAX: u32 = 1 << 24;

/// What a file that came from somewhere else does wrong, or how reading it failed.
enum Fault {
    Foreign(String),
    Sqlite(rusqlite::Error),
    Store(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Foreign(reason) => Error::Corrupt { path: path.to_owned(), reason },
            Self::Sqlite(error) => Error::sqlite("restore", path, &error),
            Self::Store(error) => error,
        }
    }
}

impl SqliteStore {
    /// Refuses a database file that defines anything but what this program does: before anything is done with it.
    ///
    /// # Errors
    /// [`Error::Corrupt`], naming the first definition that does not belong there.
    pub fn examine_restored(directory: &Path, known: &[ExtensionTables]) -> Result<()> {
        let path = directory.join(DATABASE_FILE);
        let examine = || -> std::result::Result<(), Fault> {
            let connection = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            harden(&connection)?;
            match definitions::foreign(&connection, known)?.into_iter().next() {
                Some(problem) => Err(Fault::Foreign(problem)),
                None => Ok(()),
            }
        };
        examine().map_err(|fault| fault.into_error(&path))
    }

    /// Brings a restored database forward by an increment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the increment is of something else or holds what no increment does, and as
    /// [`SqliteStore::open`].
    pub fn apply_increment(directory: &Path, increment: &Path, known: &[ExtensionTables]) -> Result<()> {
        let store = Self::open(directory, SqliteOptions::default())?;
        let failed = store.error("apply an increment");
        let mut writer = store.writer.lock();
        let connection = writer.connection_mut().expect("just opened");
        harden(connection).map_err(&failed)?;
        connection.execute("ATTACH ?1 AS increment", [increment.to_string_lossy()]).map_err(&failed)?;
        connection.authorizer(Some(authorize)).map_err(&failed)?;
        let applied = store.apply_attached(connection, known);
        connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(&failed)?;
        if applied.is_err() && !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").map_err(&failed)?;
        }
        connection.execute_batch("DETACH increment").map_err(&failed)?;
        writer.forget_rows();
        applied.map_err(|fault| fault.into_error(increment))
    }

    fn apply_attached(&self, connection: &Connection, known: &[ExtensionTables]) -> std::result::Result<(), Fault> {
        let names = check_increment(connection)?;
        let next = read_meta(connection, "next_vector_id")?.cast_unsigned();
        self.append_vectors(connection, next)?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        replace_extensions(connection, &names, known)?;
        let there = definitions::definitions(connection, "increment")?;
        for table in NEWER.iter().filter(|table| there.iter().any(|found| found.name == **table)) {
            replace_table(connection, table)?;
        }
        let mut weight = BTreeMap::new();
        for (layer, ids) in replace_rows(connection)? {
            for (segment, bytes) in layer_upkeep::weigh(connection, &self.segments, &[layer], &ids)? {
                *weight.entry(segment).or_default() += bytes;
            }
        }
        if let Some(reason) = layers::problem(connection)? {
            return Err(Fault::Foreign(reason));
        }
        let next = read_meta(connection, "next_vector_id")?.cast_unsigned();
        let transactions = read_meta(connection, "transactions")?.cast_unsigned();
        let pending = self.segments.append(Vec::new(), transactions + 1)?;
        record_segments(connection, &pending, &weight, next)?;
        self.publish_restored(connection, pending, next)
    }

    /// Appends the vectors of an increment, some at a time; nothing refers to them yet.
    fn append_vectors(&self, connection: &Connection, next_vector_id: u64) -> std::result::Result<(), Fault> {
        let mut statement = connection.prepare(
            "SELECT vector_id, collection, dimension, norm, data FROM increment.vectors ORDER BY collection, vector_id",
        )?;
        let mut rows = statement.query([])?;
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        let mut gathered = Gathered::default();
        while let Some(row) = rows.next()? {
            let (collection, dimension): (CollectionNumber, u32) = (row.get(1)?, row.get(2)?);
            let data = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
            if dimension == 0 || dimension > DIMENSION_MAX || data.len() != dimension as usize * 4 {
                let id: i64 = row.get(0)?;
                let reason = format!("vector {id} has {} bytes, and a dimension of {dimension}", data.len());
                return Err(Fault::Foreign(reason));
            }
            if (gathered.collection, gathered.dimension) != (collection, dimension as usize) || bytes >= STEP_BYTES {
                gathered.flush(&mut blocks);
                (gathered.collection, gathered.dimension) = (collection, dimension as usize);
            }
            if bytes >= STEP_BYTES {
                self.append_step(connection, std::mem::take(&mut blocks), next_vector_id)?;
                bytes = 0;
            }
            bytes += data.len();
            gathered.ids.push(row.get::<_, i64>(0)?.cast_unsigned());
            #[expect(clippy::cast_possible_truncation, reason = "it was an f32")]
            gathered.norms.push(row.get::<_, f64>(3)? as f32);
            gathered.values.extend(data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        gathered.flush(&mut blocks);
        self.append_step(connection, blocks, next_vector_id)
    }

    fn append_step(
        &self, connection: &Connection, blocks: Vec<NewBlock>, next_vector_id: u64,
    ) -> std::result::Result<(), Fault> {
        let transactions = read_meta(connection, "transactions")?.cast_unsigned();
        let pending = self.segments.append(blocks, transactions + 1)?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        record_segments(connection, &pending, &BTreeMap::new(), next_vector_id)?;
        self.publish_restored(connection, pending, next_vector_id)
    }

    /// Ends the open transaction, which nobody else could have come before: the directory is being made.
    fn publish_restored(
        &self, connection: &Connection, pending: Pending, next_vector_id: u64,
    ) -> std::result::Result<(), Fault> {
        let before = read_meta(connection, "transactions")?.cast_unsigned();
        count_transaction(connection, before)?;
        self.commit_and_publish(connection, pending, before + 1, next_vector_id).map(drop).map_err(|_| {
            Fault::Store(Error::WritesStopped {
                reason: "the increment could not be committed; restore into an empty directory again".into(),
            })
        })
    }

    /// Makes a restored database one of its own: its history differs from now on, it has another id, and its jobs are
    /// not under way. Schedules stay, and begin from now: what was due while nobody ran is not due.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn finish_restore(directory: &Path, begin_jobs: &dyn Fn(&Connection) -> rusqlite::Result<()>) -> Result<()> {
        let store = Self::open(directory, SqliteOptions::default())?;
        let epoch = new_epoch();
        store.change_catalog(|connection| {
            write_meta(connection, "previous_epoch", read_meta(connection, "epoch")?)?;
            write_meta(connection, "epoch", epoch)?;
            rename_database(connection)?;
            connection.execute("DELETE FROM job_runs WHERE ended IS NULL", [])?;
            connection.execute("DELETE FROM log_holds", [])?;
            begin_jobs(connection)?;
            Ok::<(), Failure>(())
        })?;
        store.adopt_epoch(epoch.cast_unsigned());
        Ok(())
    }
}

/// Vectors of one collection and dimension, to become blocks.
#[derive(Default)]
struct Gathered {
    collection: CollectionNumber,
    dimension: usize,
    ids: Vec<u64>,
    norms: Vec<f32>,
    values: Vec<f32>,
}

impl Gathered {
    fn flush(&mut self, blocks: &mut Vec<NewBlock>) {
        let Self { collection, dimension, ids, norms, values } = std::mem::take(self);
        if !ids.is_empty() {
            blocks.extend(into_blocks(collection, dimension, &ids, &norms, &values));
        }
    }
}

/// Triggers and views do not act, and functions that reach beyond the database cannot be called from definitions.
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map(drop)
}

/// What statements may do while an increment is attached.
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::CreateTrigger { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::CreateVtable { .. }
        | AuthAction::DropVtable { .. } => Authorization::Deny,
        AuthAction::Function { function_name: "load_extension" } => Authorization::Deny,
        _ => Authorization::Allow,
    }
}

/// Checks that an increment holds plain tables with the columns they should have, and nothing else; the extensions
/// it has tables of.
fn check_increment(connection: &Connection) -> std::result::Result<BTreeMap<String, i64>, Fault> {
    let foreign = |reason: String| Err(Fault::Foreign(reason));
    let found = definitions::definitions(connection, "increment")?;
    for table in CATALOG.iter().chain(&["meta", "touched", "whole", "vectors", "records"]) {
        if !found.iter().any(|found| found.name == **table && found.kind == "table") {
            return foreign(format!("the increment has no table '{table}'"));
        }
    }
    let names = definitions::extensions(connection, "increment")?;
    if let Some(name) = names.keys().find(|name| !crate::extension::is_name(name)) {
        return foreign(format!("the increment names an extension '{name}', which is no name of one"));
    }
    let own = ["meta", "touched", "whole", "vectors", "records", "definitions", "extensions"];
    for found in &found {
        let is_table = found.kind == "table" && found.sql.starts_with("CREATE TABLE ");
        let name = found.name.as_str();
        let is_known = CATALOG.contains(&name)
            || NEWER.contains(&name)
            || own.contains(&name)
            || names.keys().any(|extension| name.strip_prefix(&**extension).is_some_and(|rest| rest.starts_with('_')));
        if !is_table || !is_known {
            return foreign(format!("the increment has a {} '{name}', which none has", found.kind));
        }
        if columns(connection, name, "increment")?.iter().any(|(_, is_hidden)| *is_hidden) {
            return foreign(format!("the increment's table '{name}' computes columns, which none does"));
        }
    }
    Ok(names)
}

/// The columns of a table, and whether each is computed or hidden.
fn columns(connection: &Connection, table: &str, schema: &str) -> rusqlite::Result<Vec<(String, bool)>> {
    let mut statement = connection.prepare("SELECT name, hidden <> 0 FROM pragma_table_xinfo(?1, ?2)")?;
    statement.query_map([table, schema], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Puts the rows of an increment's table in place of those there are.
fn replace_table(connection: &Connection, table: &str) -> std::result::Result<(), Fault> {
    // By name: an increment may come from a version with fewer columns.
    let there: BTreeSet<String> = columns(connection, table, "main")?.into_iter().map(|(name, _)| name).collect();
    let given = columns(connection, table, "increment")?;
    if let Some((column, _)) = given.iter().find(|(column, _)| !there.contains(column)) {
        return Err(Fault::Foreign(format!("the increment's table '{table}' has a column '{column}', which none has")));
    }
    let names: Vec<String> = given.iter().map(|(column, _)| quoted(column)).collect();
    let (names, table) = (names.join(", "), quoted(table));
    connection.execute_batch(&format!(
        "DELETE FROM main.{table}; INSERT INTO main.{table} ({names}) SELECT {names} FROM increment.{table}"
    ))?;
    Ok(())
}

/// Puts the tables of extensions in place of those there are. Increments of older versions have none.
fn replace_extensions(
    connection: &Connection, names: &BTreeMap<String, i64>, known: &[ExtensionTables],
) -> std::result::Result<(), Fault> {
    let found = definitions::definitions(connection, "increment")?;
    if !found.iter().any(|found| found.name == "definitions") {
        return Ok(());
    }
    let before = definitions::extensions(connection, "main")?;
    let there = definitions::definitions(connection, "main")?;
    let given = given_definitions(connection)?;
    for name in before.keys().filter(|name| !names.contains_key(*name)) {
        drop_extension(connection, &definitions::of_extension(&there, name, &before))?;
    }
    for (name, version) in names {
        let wanted = |sqls: &BTreeSet<definitions::Definition>| {
            sqls.iter().map(|definition| (definition.name.clone(), definition.sql.clone())).collect::<BTreeSet<_>>()
        };
        let given: BTreeSet<(String, String)> =
            given.iter().filter(|(object, _)| definitions::belongs_to(object, name, names)).cloned().collect();
        let own = definitions::of_extension(&there, name, &before);
        if wanted(&own) != given {
            // Newer tables than those restored so far: made by the program that knows them, never by the backup.
            let Some(known) = known.iter().find(|known| known.name == *name) else {
                return Err(Fault::Foreign(format!(
                    "the increment changes the tables of extension '{name}', which this program does not have: restore with the program that has it"
                )));
            };
            let expected = definitions::expected_of(known, *version)?.map_err(Fault::Foreign)?;
            if wanted(&expected) != given {
                return Err(Fault::Foreign(format!(
                    "the increment defines tables of extension '{name}' otherwise than its version {version} does"
                )));
            }
            drop_extension(connection, &own)?;
            for script in &known.migrations[..usize::try_from(*version).unwrap_or(0)] {
                connection.execute_batch(script)?;
            }
        }
        for (table, _) in given.iter().filter(|(_, sql)| sql.starts_with("CREATE TABLE ")) {
            replace_table(connection, table)?;
        }
    }
    if found.iter().any(|found| found.name == "extensions") {
        connection.execute_batch(crate::extension::EXTENSIONS_TABLE)?;
        replace_table(connection, "extensions")?;
    }
    Ok(())
}

/// What the increment says is defined: names with texts, to be compared and never run.
fn given_definitions(connection: &Connection) -> rusqlite::Result<BTreeSet<(String, String)>> {
    let mut statement = connection.prepare("SELECT name, sql FROM increment.definitions WHERE name <> 'extensions'")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, definitions::one_space(&row.get::<_, String>(1)?))))?;
    rows.collect()
}

fn drop_extension(connection: &Connection, own: &BTreeSet<definitions::Definition>) -> rusqlite::Result<()> {
    for definition in own.iter().filter(|definition| definition.kind == "table") {
        connection.execute_batch(&format!("DROP TABLE main.{}", quoted(&definition.name)))?;
    }
    Ok(())
}

/// Puts the rows of an increment in the place of those that were touched; the vectors that nothing refers to
/// any more, by collection.
fn replace_rows(connection: &Connection) -> std::result::Result<BTreeMap<CollectionNumber, Vec<u64>>, Fault> {
    for table in CATALOG {
        replace_table(connection, table)?;
    }
    connection.execute_batch(
        "INSERT OR REPLACE INTO main.meta SELECT key, value FROM increment.meta
         WHERE key IN ('next_vector_id', 'commits');
         UPDATE main.collections SET operations = max(operations, records);
         UPDATE main.sqlite_sequence SET seq = max(seq, (
             SELECT ifnull(max(value), 0) FROM increment.meta WHERE key = 'last_number')) WHERE name = 'collections'",
    )?;
    let gone = "r.collection NOT IN (
             SELECT ifnull(layer, number) FROM main.collections UNION SELECT number FROM main.layers)
         OR r.rowid IN (SELECT rowid FROM increment.touched)
         OR r.collection IN (SELECT collection FROM increment.whole)";
    let mut statement = connection.prepare(&format!(
        "SELECT r.collection, r.vector_id FROM main.records r WHERE ({gone})
         AND r.vector_id NOT IN (SELECT vector_id FROM increment.records) ORDER BY 1, 2"
    ))?;
    let mut replaced: BTreeMap<CollectionNumber, Vec<u64>> = BTreeMap::new();
    let mut rows = statement.query(params![])?;
    while let Some(row) = rows.next()? {
        replaced.entry(row.get(0)?).or_default().push(row.get::<_, i64>(1)?.cast_unsigned());
    }
    connection.execute(&format!("DELETE FROM main.records AS r WHERE {gone}"), [])?;
    connection.execute_batch(
        "INSERT INTO main.records (rowid, collection, id, vector_id, updated_at_position, metadata, uri, document)
             SELECT row, collection, id, vector_id, updated_at_position, metadata, uri, document
             FROM increment.records;
         DELETE FROM main.log;",
    )?;
    Ok(replaced)
}
