//! The embedded store: SQLite for catalog, records and log; segment files for vectors.
//!
//! Invariants:
//! - One writer connection; nothing but SQLite opens the database file.
//! - Vectors are durable before the transaction that makes them live commits; that transaction also
//!   records each segment's committed length.
//! - After a failed sync or commit nothing is retried: the store is reopened and asked what it holds.
//!
//! The tables are described in `docs/formats/database.md`.

mod backup;
mod catalog;
mod checksums;
mod idempotency;
mod jobs;
mod log;
mod migrations;
mod open;
mod reader;
mod records;
mod restore;
mod upkeep;
mod writer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use crate::block::Damage;
use crate::check::{Report, check_database, check_pages};
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Resource, Result};
use crate::extension::{self, TableWork};
use crate::head::HeadFile;
use crate::lock::Owner;
use crate::quarantine::Quarantine;
use crate::reserve::Reserve;
use crate::segments::{SegmentRow, Segments};
use crate::store::{
    Alteration, CollectionNumber, CollectionRow, Copy, DatabaseRow, Debt, NewCollection, Observer, Operation, Outcome,
    Page, Reader, Statistics, Store, Tenant, Upkeep, Write,
};

pub(crate) use checksums::{PAGE_BYTES, damaged_pages, has_checksums, last_damaged_page};
pub use migrations::SCHEMA_VERSION;
pub(crate) use migrations::SCRIPTS;
pub(crate) use open::{examine, open_read_only};
use writer::{Ticket, Writer};

/// The database file's name within the directory.
pub(crate) const DATABASE_FILE: &str = "ochre.sqlite3";
/// The segments' folder within the directory.
pub(crate) const SEGMENTS_FOLDER: &str = "segments";
/// Idle reader connections that are kept open.
const IDLE_READERS_MAX: usize = 8;

/// How to open a [`SqliteStore`].
#[derive(Clone)]
pub struct SqliteOptions {
    /// Where segment files go; tests put a recording disk here.
    pub disk: Arc<dyn Disk>,
    /// The SQLite VFS to use; tests put a recording one here. The platform's own if absent.
    pub vfs: Option<String>,
    /// Map sealed segments into memory. Without, they are read into it; for file systems where a mapped
    /// page may vanish.
    pub map_segments: bool,
    /// Segments are sealed when they would outgrow this, in bytes.
    pub seal_bytes: u64,
    /// Entries of the log that no consumer holds are kept for this long, and the last thousand of each collection at
    /// the most.
    pub log_age: Duration,
    /// Open a database that has lost what was acknowledged, and go on with what is there: what no longer belongs to it
    /// is kept in the folder `quarantine`.
    pub accept_loss: bool,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            disk: Arc::new(RealDisk),
            vfs: None,
            map_segments: true,
            seal_bytes: 256 << 20,
            log_age: Duration::from_secs(120),
            accept_loss: false,
        }
    }
}

/// Readers map at most this much of the database file, in bytes; the rest is read page by page.
const MAPPED_BYTES_MAX: i64 = 1 << 30;

/// The truth in a directory.
pub struct SqliteStore {
    path: PathBuf,
    vfs: Option<String>,
    map_pages: bool,
    queue: Mutex<VecDeque<Arc<Ticket>>>,
    writer: Mutex<Writer>,
    readers: Mutex<Vec<Connection>>,
    segments: Segments,
    observer: RwLock<Option<Arc<dyn Observer>>>,
    /// Held for writing from a commit until its vectors are visible, so that no reader sees one without
    /// the other.
    publishing: RwLock<()>,
    epoch: RwLock<u64>,
    heads: Mutex<log::Heads>,
    wait: upkeep::Wait,
    disk: Arc<dyn Disk>,
    head: HeadFile,
    /// How many transactions this process knows of.
    known_transactions: AtomicU64,
    quarantine: Quarantine,
    reserve: Reserve,
    /// Whether every page of the database file has a checksum.
    checksums: AtomicBool,
    /// Dropped last: the directory is free once everything is closed.
    _owner: Owner,
}

impl SqliteStore {
    /// Segments and blocks found damaged when the database was opened.
    pub fn damage(&self) -> Vec<Damage> {
        self.segments.damage()
    }

    /// Whether every page of the database file has a checksum; older files get them by [`Upkeep::FullVacuum`].
    pub fn has_checksums(&self) -> bool {
        self.checksums.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Does what makes room on the disk; on a full one with the space that is kept aside for it.
    fn making_room<T>(&self, change: impl Fn() -> Result<T>) -> Result<T> {
        let mut done = change();
        // First what the log takes, which may be more than the reserve.
        for give in [&|| true, &|| self.reserve.release()] as [&dyn Fn() -> bool; 2] {
            if !matches!(done, Err(Error::Full { .. })) || !give() {
                continue;
            }
            let _ = self.run_upkeep(Upkeep::Checkpoint { truncate: true });
            done = change();
        }
        done
    }

    /// Bytes that are free on the disk of the database.
    fn free_bytes(&self) -> Option<u64> {
        self.path.parent().and_then(crate::disk::free_bytes)
    }

    /// Goes on in another epoch, which was committed.
    fn adopt_epoch(&self, committed: u64) {
        let writer = self.writer.lock();
        // Of two resets at once, that of the later one is in the catalog.
        let there = writer.connection().and_then(|connection| read_meta(connection, "epoch").ok());
        *self.epoch.write() = there.map_or(committed, i64::cast_unsigned);
        self.note_head(writer.transactions(), writer.next_vector_id());
        // The reset stands whatever becomes of this: after a power failure the head may be of the epoch before.
        drop(self.head.sync());
    }

    fn error(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
        let path = self.path.clone();
        move |error| Error::sqlite(action, &path, &error)
    }

    fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.read().clone()
    }

    fn reader(&self) -> Result<reader::SqliteReader<'_>> {
        let idle = self.readers.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.open_reader()?,
        };
        reader::SqliteReader::begin(self, connection)
    }

    /// A connection that reads pages where the system has them, rather than copying each.
    fn open_reader(&self) -> Result<Connection> {
        let connection = connect(&self.path, self.vfs.as_deref())?;
        if self.map_pages {
            connection.pragma_update(None, "mmap_size", MAPPED_BYTES_MAX).map_err(self.error("open"))?;
        }
        Ok(connection)
    }

    /// Asks something that touches a page here and there all over the database, in a connection of its own that copies
    /// pages: mapped, each page would bring its neighbours into memory with it (Linux maps 64 KiB at once).
    fn cold_read<T>(
        &self, action: &'static str, question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = connect(&self.path, self.vfs.as_deref())?;
        let transaction = connection.transaction().map_err(self.error(action))?;
        question(&transaction).map_err(self.error(action))
    }

    fn give_back(&self, connection: Connection) {
        let mut readers = self.readers.lock();
        if readers.len() < IDLE_READERS_MAX {
            readers.push(connection);
        }
    }
}

impl Store for SqliteStore {
    fn create_tenant(&self, name: &str) -> Result<()> {
        self.change_catalog(|transaction| catalog::create_tenant(transaction, name))
    }

    fn tenant(&self, name: &str) -> Result<Option<Tenant>> {
        self.reader()?.query_rows("read tenant", |connection| catalog::tenant(connection, name))
    }

    fn tenant_by_resource_name(&self, resource_name: &str) -> Result<Option<Tenant>> {
        self.reader()?
            .query_rows("read tenant", |connection| catalog::tenant_by_resource_name(connection, resource_name))
    }

    fn set_resource_name(&self, tenant: &str, resource_name: &str) -> Result<()> {
        self.change_catalog(|transaction| catalog::set_resource_name(transaction, tenant, resource_name))
    }

    fn create_database(&self, tenant: &str, name: &str) -> Result<DatabaseRow> {
        self.change_catalog(|transaction| catalog::create_database(transaction, tenant, name))
    }

    fn database(&self, tenant: &str, name: &str) -> Result<Option<DatabaseRow>> {
        self.reader()?.query_rows("read database", |connection| catalog::database(connection, tenant, name))
    }

    fn databases(&self, tenant: &str, page: Page) -> Result<Vec<DatabaseRow>> {
        self.reader()?.query_rows("list databases", |connection| catalog::databases(connection, tenant, page))
    }

    fn delete_database(&self, tenant: &str, name: &str) -> Result<()> {
        self.making_room(|| {
            self.change_catalog(|transaction| {
                let collections = catalog::delete_database(transaction, tenant, name)?;
                collections.iter().try_for_each(|number| self.mark_deleted(transaction, *number))
            })
        })
    }

    fn create_collection(&self, new: NewCollection) -> Result<CollectionRow> {
        self.change_catalog(|transaction| catalog::create_collection(transaction, &new))
    }

    fn collection(&self, tenant: &str, database: &str, name: &str) -> Result<Option<CollectionRow>> {
        self.reader()?
            .query_rows("read collection", |connection| catalog::collection(connection, tenant, database, name))
    }

    fn collection_by_id(&self, id: Uuid) -> Result<Option<CollectionRow>> {
        self.reader()?.query_rows("read collection", |connection| catalog::collection_by_id(connection, id))
    }

    fn collections(&self, tenant: &str, database: &str, page: Page) -> Result<Vec<CollectionRow>> {
        self.reader()?
            .query_rows("list collections", |connection| catalog::collections(connection, tenant, database, page))
    }

    fn all_collections(&self) -> Result<Vec<CollectionRow>> {
        self.cold_read("list collections", catalog::all_collections)
    }

    fn position(&self) -> Result<u64> {
        self.reader()?.query_rows("read position", backup::position)
    }

    fn count_collections(&self, tenant: &str, database: &str) -> Result<u64> {
        self.reader()?
            .query_rows("count collections", |connection| catalog::count_collections(connection, tenant, database))
    }

    fn alter_collection(&self, id: Uuid, alteration: Alteration) -> Result<CollectionRow> {
        self.change_catalog(|transaction| catalog::alter_collection(transaction, id, &alteration))
    }

    fn delete_collection(&self, id: Uuid) -> Result<()> {
        self.making_room(|| {
            self.change_catalog(|transaction| {
                let number = catalog::delete_collection(transaction, id)?;
                self.mark_deleted(transaction, number)
            })
        })
    }

    fn reset(&self) -> Result<()> {
        let epoch = self.change_catalog(|transaction| {
            let (collections, epoch) = catalog::reset(transaction)?;
            collections.iter().try_for_each(|number| self.mark_deleted(transaction, *number))?;
            Ok(epoch)
        })?;
        self.adopt_epoch(epoch);
        Ok(())
    }

    fn database_id(&self) -> Result<u64> {
        let reader = self.reader()?;
        reader.query_rows("read the database's id", |connection| {
            read_meta(connection, "database_id").map(i64::cast_unsigned)
        })
    }

    fn epoch(&self) -> u64 {
        *self.epoch.read()
    }

    fn preview(&self, write: &Write) -> Result<()> {
        self.reader()?.preview(write)
    }

    fn commit(&self, write: Write) -> Result<Outcome> {
        match &write.operation {
            Operation::Delete(_) => self.making_room(|| self.commit_in_group(write.clone())),
            Operation::Records { .. } => self.commit_in_group(write),
        }
    }

    fn read(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(self.reader()?))
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        *self.observer.write() = Some(observer);
    }

    fn upkeep(&self, upkeep: Upkeep) -> Result<bool> {
        let done = self.making_room(|| self.run_upkeep(upkeep));
        if matches!(upkeep, Upkeep::Checkpoint { .. }) {
            self.reserve.renew(self.free_bytes());
        }
        done
    }

    fn statistics(&self) -> Result<Statistics> {
        self.measure()
    }

    fn debt(&self) -> Result<Debt> {
        self.measure_debt()
    }

    fn retain_log(&self, holder: &str, positions: &[(CollectionNumber, u64)]) -> Result<()> {
        self.set_log_holds(holder, positions)
    }

    fn retain_log_for_snapshot(&self, collection: CollectionNumber, position: Option<u64>) -> Result<()> {
        self.set_snapshot_hold(collection, position)
    }

    fn copy_whole(&self, folder: &Path) -> Result<Copy> {
        self.copy_whole_into(folder)
    }

    fn copy_changes(&self, before: &Copy, folder: &Path) -> Result<Copy> {
        self.copy_changes_into(before, folder)
    }

    fn scrub(&self, pace: &mut dyn FnMut(&str, u64) -> bool) -> Result<Option<Report>> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let mut report = Report::default();
        // A connection of its own: the pool's are for requests.
        let connection = connect(&self.path, self.vfs.as_deref())?;
        let checked = check_pages(&connection, &mut report, pace).and_then(|is_whole| {
            connection.execute_batch("BEGIN")?;
            Ok(is_whole && check_database(&connection, directory, &mut report, pace)?)
        });
        match checked {
            Ok(is_whole) => Ok(is_whole.then_some(report)),
            Err(error) => match self.error("check")(error) {
                Error::Corrupt { reason, .. } => {
                    report.find(DATABASE_FILE, reason);
                    Ok(Some(report))
                }
                error => Err(error),
            },
        }
    }

    fn waited_for_upkeep(&self) -> Duration {
        self.wait.total()
    }

    fn drop_pages(&self) {
        self.drop_mapped_pages();
    }

    fn extend(&self, name: &str, migrations: &[&str]) -> Result<()> {
        self.change_catalog(|transaction| {
            extension::migrate(transaction, name, migrations)?;
            Ok::<_, writer::Failure>(())
        })
    }

    fn change_tables(&self, work: TableWork<'_>) -> Result<()> {
        self.change_catalog(|transaction| {
            work(transaction)?;
            Ok::<_, writer::Failure>(catalog::log(transaction, "change_tables", "")?)
        })
    }

    fn touch_tables(&self, work: TableWork<'_>) -> Result<()> {
        self.change_catalog(|transaction| Ok::<_, writer::Failure>(work(transaction)?))
    }

    fn read_tables(&self, work: TableWork<'_>) -> Result<()> {
        self.reader()?.query_rows("read tables of extensions", |connection| work(connection))
    }
}

/// So long a connection waits for locks of others.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// SQLite's number for `auto_vacuum = INCREMENTAL`.
const INCREMENTAL: i64 = 2;

/// Opens a connection with the settings every connection has.
fn connect(path: &Path, vfs: Option<&str>) -> Result<Connection> {
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
fn name_database(connection: &Connection) -> rusqlite::Result<()> {
    let has_id: bool =
        connection.query_row("SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'database_id')", [], |row| row.get(0))?;
    if has_id {
        return Ok(());
    }
    rename_database(connection)
}

/// Gives a database another id: it goes its own way from now on.
fn rename_database(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('database_id', ?1)", [catalog::new_epoch()]).map(drop)
}

fn read_meta(connection: &Connection, key: &str) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?.query_row([key], |row| row.get(0))
}

fn write_meta(connection: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1")?;
    statement.execute(rusqlite::params![key, value]).map(drop)
}

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

/// The first rowid of a collection's records; offsets count from here.
pub(crate) const fn first_rowid(collection: CollectionNumber) -> i64 {
    (collection as i64) << 32
}

fn not_found(kind: Resource, name: impl std::fmt::Display) -> Error {
    Error::NotFound { kind, name: name.to_string() }
}
