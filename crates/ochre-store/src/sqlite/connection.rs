//! Connections to the database file, and what every part of the store asks of one.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::checksums;
use crate::error::{Error, Resource, Result};
use crate::store::CollectionNumber;

/// The database file's name within the directory.
pub(crate) const DATABASE_FILE: &str = "ochre.sqlite3";
/// The segments' folder within the directory.
pub(crate) const SEGMENTS_FOLDER: &str = "segments";
/// So long a connection waits for locks of others.
pub(super) const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// SQLite's number for `auto_vacuum = INCREMENTAL`.
const INCREMENTAL: i64 = 2;

/// Opens a connection with the settings every connection has.
pub(super) fn connect(path: &Path, vfs: Option<&str>) -> Result<Connection> {
    let sqlite = |error: rusqlite::Error| Error::sqlite("open", path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let vfs = checksums::vfs(vfs);
    let connection = Connection::open_with_flags_and_vfs(path, flags, &*vfs).map_err(sqlite)?;
    connection.busy_timeout(BUSY_PATIENCE).map_err(sqlite)?;
    checksums::reserve(&connection, "main").map_err(sqlite)?;
    // Setting it takes the lock of the writer, who may not let go of it for long, even if it is set already. It only
    // takes effect before the first table, so it stands first.
    let is_set = connection.pragma_query_value(None, "auto_vacuum", |row| Ok(row.get::<_, i64>(0)? == INCREMENTAL));
    if !is_set.map_err(sqlite)? {
        connection.pragma_update(None, "auto_vacuum", INCREMENTAL).map_err(sqlite)?;
    }
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA secure_delete = ON;
             PRAGMA temp_store = MEMORY;
             PRAGMA trusted_schema = OFF;
             PRAGMA cache_size = -4096;
             PRAGMA wal_autocheckpoint = 4000;
             PRAGMA journal_size_limit = 1048576;",
        )
        .map_err(sqlite)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Gives a database an id of its own, if an older version made it without one.
pub(super) fn name_database(connection: &Connection) -> rusqlite::Result<()> {
    let has_id: bool =
        connection.query_row("SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'database_id')", [], |row| row.get(0))?;
    if has_id {
        return Ok(());
    }
    rename_database(connection)
}

/// Gives a database another id: it goes its own way from now on.
pub(super) fn rename_database(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('database_id', ?1)", [new_epoch()]).map(drop)
}

pub(super) fn read_meta(connection: &Connection, key: &str) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0))
}

pub(super) fn write_meta(connection: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?;
    statement.execute(rusqlite::params![key, value]).map(drop)
}

/// The first rowid of a collection's records; offsets count from here.
pub(crate) const fn first_rowid(collection: CollectionNumber) -> i64 {
    (collection as i64) << 32
}

pub(super) fn not_found(kind: Resource, name: impl std::fmt::Display) -> Error {
    Error::NotFound { kind, name: name.to_string() }
}

/// A record's offset is the low half of its rowid.
pub(super) fn offset_of(rowid: i64) -> u32 {
    u32::try_from(rowid & 0xFFFF_FFFF).expect("32 bits are left")
}

pub(super) fn new_epoch() -> i64 {
    i64::from_ne_bytes(Uuid::new_v4().as_bytes()[..8].try_into().expect("eight bytes"))
}

/// Counts a transaction, in itself.
pub(super) fn count_transaction(connection: &Connection, before: u64) -> rusqlite::Result<()> {
    write_meta(connection, "transactions", before.cast_signed() + 1)
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// A change that did not happen: refused for a reason of its own, or because SQLite failed.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(Error),
    Sqlite(rusqlite::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<crate::extension::Failure> for Failure {
    fn from(failure: crate::extension::Failure) -> Self {
        match failure {
            crate::extension::Failure::Refused(error) => Self::Refused(error),
            crate::extension::Failure::Sqlite(error) => Self::Sqlite(error),
        }
    }
}
