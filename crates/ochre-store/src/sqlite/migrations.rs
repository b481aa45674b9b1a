//! The tables, version by version.

use std::path::Path;

use rusqlite::Connection;

use super::connection::new_epoch;
use crate::error::{Error, Result};
use crate::store::{DEFAULT_DATABASE, DEFAULT_TENANT};

/// The version of the tables, kept in `PRAGMA user_version`.
pub const SCHEMA_VERSION: i64 = 5;

/// Marks the file as ours: "OCHR".
pub(super) const APPLICATION_ID: i64 = 0x4F43_4852;

/// One script per version; script `n` brings version `n` to `n + 1`.
pub(crate) const SCRIPTS: [&str; SCHEMA_VERSION as usize] = [VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5];

const VERSION_1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE tenants (name TEXT PRIMARY KEY, resource_name TEXT) WITHOUT ROWID;
CREATE TABLE databases (
    tenant TEXT NOT NULL, name TEXT NOT NULL, id BLOB NOT NULL, PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE collections (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL, database TEXT NOT NULL, name TEXT NOT NULL,
    metadata TEXT, schema TEXT NOT NULL, dimension INTEGER,
    position INTEGER NOT NULL DEFAULT 0,
    next_offset INTEGER NOT NULL DEFAULT 0,
    records INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX collections_by_name ON collections (tenant, database, name) WHERE deleted = 0;
CREATE TABLE records (
    rowid INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL,
    id TEXT NOT NULL,
    vector_id INTEGER NOT NULL,
    updated_at_position INTEGER NOT NULL,
    metadata TEXT, uri TEXT, document TEXT
);
CREATE UNIQUE INDEX records_by_id ON records (collection, id);
CREATE TABLE log (
    collection INTEGER NOT NULL, position INTEGER NOT NULL,
    operation INTEGER NOT NULL, offsets BLOB NOT NULL,
    PRIMARY KEY (collection, position)
) WITHOUT ROWID;
CREATE TABLE catalog_log (
    position INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL, subject TEXT NOT NULL
);
CREATE TABLE segments (
    number INTEGER PRIMARY KEY, committed_bytes INTEGER NOT NULL, sealed INTEGER NOT NULL,
    dead_bytes INTEGER NOT NULL
);
CREATE TABLE idempotency (
    key TEXT PRIMARY KEY, request BLOB NOT NULL, position INTEGER NOT NULL, deleted INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
";

/// Jobs: their schedules and runs, and where consumers of the log stand.
const VERSION_2: &str = "
CREATE TABLE jobs (name TEXT PRIMARY KEY, version INTEGER NOT NULL, schedule TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE job_runs (
    fence INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL, nominal INTEGER NOT NULL, kind INTEGER NOT NULL, attempt INTEGER NOT NULL,
    owner TEXT NOT NULL, lease_until INTEGER NOT NULL, ended INTEGER, failed INTEGER NOT NULL, run TEXT NOT NULL,
    UNIQUE (job, nominal, kind, attempt)
);
CREATE INDEX job_runs_of_job ON job_runs (job, fence);
CREATE TABLE log_holds (
    holder TEXT NOT NULL, collection INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (holder, collection)
) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('commits', 0);
";

/// What collections declare of their records, as JSON.
const VERSION_3: &str = "ALTER TABLE collections ADD COLUMN declaration TEXT;";

/// What the head file is compared with: how many transactions there were, the epoch before the last reset, and whether
/// every page has a checksum.
const VERSION_4: &str = "INSERT INTO meta VALUES ('transactions', 0), ('previous_epoch', 0), ('checksums', 0);";

/// Forks: the layer that a collection writes to (its own number if absent), the collection that it and its forks
/// descend from (itself if absent), and what lies below which layer. Operations were not counted before: the records
/// there are were inserted at least.
const VERSION_5: &str = "
ALTER TABLE collections ADD COLUMN layer INTEGER;
ALTER TABLE collections ADD COLUMN family BLOB;
ALTER TABLE collections ADD COLUMN operations INTEGER NOT NULL DEFAULT 0;
UPDATE collections SET operations = records;
CREATE TABLE layers (
    number INTEGER PRIMARY KEY, base INTEGER, first_offset INTEGER NOT NULL, rewritten_at INTEGER NOT NULL
);
CREATE TABLE merged_layers (number INTEGER PRIMARY KEY, layer INTEGER NOT NULL);
CREATE INDEX merged_layers_by_layer ON merged_layers (layer);
";

/// Brings the tables to the current version, in one transaction.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let sqlite = |error: rusqlite::Error| Error::sqlite("migrate", path, &error);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (version, application) = (pragma("user_version").map_err(sqlite)?, pragma("application_id").map_err(sqlite)?);
    if version > SCHEMA_VERSION {
        return Err(Error::TooNew { path: path.to_owned(), found: version, supported: SCHEMA_VERSION });
    }
    if version > 0 && application != APPLICATION_ID {
        return Err(Error::Corrupt { path: path.to_owned(), reason: "this SQLite file is no ochre database".into() });
    }
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.transaction().map_err(sqlite)?;
    for script in &SCRIPTS[usize::try_from(version).unwrap_or(0)..] {
        transaction.execute_batch(script).map_err(sqlite)?;
    }
    if version == 0 {
        let epoch = new_epoch();
        transaction
            .execute_batch(&format!(
                "INSERT INTO meta VALUES ('epoch', {epoch}), ('next_vector_id', 1), ('recoveries', 0);
                 INSERT INTO tenants VALUES ('{DEFAULT_TENANT}', NULL);
                 INSERT INTO databases VALUES ('{DEFAULT_TENANT}', '{DEFAULT_DATABASE}', zeroblob(16));
                 PRAGMA application_id = {APPLICATION_ID};"
            ))
            .map_err(sqlite)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(sqlite)?;
    transaction.commit().map_err(sqlite)
}
