//! Opening a database: what is found is compared with what was committed before anything is changed.
//!
//! Nothing that might be data is deleted or cut here but the remains of a single transaction that never was committed,
//! which is what a crash leaves. Anything else that does not fit is refused, and moved aside if its loss is accepted.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::checksums;
use super::connection::{
    BUSY_PATIENCE, DATABASE_FILE, SEGMENTS_FOLDER, connect, count_transaction, name_database, new_epoch, now,
    read_meta, write_meta,
};
use super::layers;
use super::migrations::{self, APPLICATION_ID, SCHEMA_VERSION};
use super::segment_rows::segment_rows;
use super::state::{Heads, Wait, Writer};
use super::store::{SqliteOptions, SqliteStore};
use crate::disk::{Disk, free_bytes};
use crate::error::{Error, Result};
use crate::head::{self, DatabaseHead, Found, HeadFile};
use crate::lock::Owner;
use crate::quarantine::{QUARANTINE_FOLDER, Quarantine, move_into};
use crate::reserve::Reserve;
use crate::segment::{HEADER_BYTES, Segment, Uncommitted};
use crate::segments::{SegmentRow, Segments};

/// Files of databases without page checksums up to this size are rewritten with them when they are opened, in bytes.
const REWRITTEN_BYTES_MAX: u64 = 64 << 20;

/// What the catalog of a directory says, as far as its head is compared with it.
#[derive(Clone, Debug, Default)]
struct Catalog {
    version: i64,
    transactions: u64,
    epoch: u64,
    previous_epoch: u64,
    segments: Vec<SegmentRow>,
}

/// A directory as it was found.
#[derive(Debug)]
pub(crate) struct Examined {
    catalog: Option<Catalog>,
    /// Segment files that the catalog does not know.
    unknown: Vec<PathBuf>,
    /// Blocks behind what the catalog knows of.
    uncommitted: Vec<Uncommitted>,
    /// Why it must not be opened as it is.
    pub(crate) lost: Option<String>,
}

/// Compares a database directory with its head file, changing nothing.
///
/// # Errors
/// [`Error::Corrupt`] if the catalog cannot be read, [`Error::TooNew`], [`Error::Io`].
pub(crate) fn examine(disk: &dyn Disk, directory: &Path, vfs: Option<&str>) -> Result<Examined> {
    let path = directory.join(DATABASE_FILE);
    let found = head::read(disk, directory)?;
    let files = segment_files(disk, &directory.join(SEGMENTS_FOLDER))?;
    let has_vectors = files.iter().any(|(_, bytes)| *bytes > HEADER_BYTES);
    let is_used = has_vectors || found != Found::Missing;
    let mut examined = Examined { catalog: None, unknown: Vec::new(), uncommitted: Vec::new(), lost: None };
    let lose = |reason: &str| {
        let beside =
            if has_vectors { "segments/ holds vectors" } else { "the file `head` says that it was written to" };
        Some(format!("{DATABASE_FILE} {reason}, but {beside}"))
    };
    if std::fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
        examined.unknown = files.into_iter().map(|(path, _)| path).collect();
        examined.lost = is_used.then(|| lose("is missing or empty")).flatten();
        return Ok(examined);
    }
    let Some(catalog) = read_catalog(&path, vfs)? else {
        examined.unknown = files.into_iter().map(|(path, _)| path).collect();
        examined.lost = is_used.then(|| lose("holds nothing")).flatten();
        return Ok(examined);
    };
    for (file, _) in &files {
        let row =
            catalog.segments.iter().find(|row| Segment::path_in(&directory.join(SEGMENTS_FOLDER), row.number) == *file);
        if row.is_none() {
            examined.unknown.push(file.clone());
        }
        examined.uncommitted.extend(Segment::uncommitted(disk, file, row.map_or(0, |row| row.committed_bytes))?);
    }
    examined.lost = what_is_lost(&catalog, found, &examined.uncommitted);
    if examined.lost.is_none() && !catalog.segments.is_empty() && !directory.join(SEGMENTS_FOLDER).is_dir() {
        examined.lost = Some(format!("the folder {SEGMENTS_FOLDER}/ is missing, and with it every vector"));
    }
    examined.catalog = Some(catalog);
    Ok(examined)
}

/// The segment files in a folder, with their sizes.
fn segment_files(disk: &dyn Disk, folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let paths = match disk.list(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        paths => paths.map_err(|error| Error::io("list", folder, &error))?,
    };
    let paths = paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    let mut files: Vec<(PathBuf, u64)> =
        paths.map(|path| (path.clone(), std::fs::metadata(&path).map_or(0, |file| file.len()))).collect();
    files.sort_unstable();
    Ok(files)
}

/// Reads what the catalog says; `None` if the file is an SQLite database without any tables.
fn read_catalog(path: &Path, vfs: Option<&str>) -> Result<Option<Catalog>> {
    let sqlite = |error: rusqlite::Error| Error::sqlite("open", path, &error);
    let corrupt = |reason: &str| Err(Error::Corrupt { path: path.to_owned(), reason: reason.into() });
    let connection = open_read_only(path, vfs).map_err(sqlite)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let (version, application) = (number("user_version")?, number("application_id")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'", [], |row| row.get(0))
        .map_err(sqlite)?;
    if version == 0 && application == 0 && tables == 0 {
        return Ok(None);
    }
    if application != APPLICATION_ID || version <= 0 {
        return corrupt("this SQLite file is no ochre database: choose another directory, or put the right file back");
    }
    if version > SCHEMA_VERSION {
        return Err(Error::TooNew { path: path.to_owned(), found: version, supported: SCHEMA_VERSION });
    }
    let read = || -> rusqlite::Result<(Catalog, bool)> {
        let meta = |key| read_meta(&connection, key).map(i64::cast_unsigned);
        let mut catalog =
            Catalog { version, epoch: meta("epoch")?, segments: segment_rows(&connection)?, ..Catalog::default() };
        let mut wants_checksums = false;
        if version >= 4 {
            catalog.transactions = meta("transactions")?;
            catalog.previous_epoch = meta("previous_epoch")?;
            wants_checksums = meta("checksums")? == 1;
        }
        Ok((catalog, wants_checksums && !checksums::has_checksums(&connection)?))
    };
    let (catalog, is_header_damaged) = read().map_err(sqlite)?;
    if is_header_damaged {
        return corrupt("its header says that pages have no checksums, and they have: restore a backup");
    }
    Ok(Some(catalog))
}

/// Opens a database file so that nothing is written, and nothing beside it: without a log there is nothing to recover,
/// and the file is taken as it is.
pub(crate) fn open_read_only(path: &Path, vfs: Option<&str>) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let vfs = checksums::vfs(vfs);
    let has_log = path.with_extension("sqlite3-wal").metadata().is_ok_and(|log| log.len() > 0);
    let escaped: String = path
        .to_string_lossy()
        .chars()
        .map(|c| if matches!(c, '%' | '?' | '#') { format!("%{:02x}", c as u32) } else { c.to_string() })
        .collect();
    let suffix = if has_log { "" } else { "?immutable=1" };
    let connection = Connection::open_with_flags_and_vfs(format!("file:{escaped}{suffix}"), flags, &*vfs)?;
    connection.busy_timeout(BUSY_PATIENCE)?;
    // Closing would copy the log into the file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Whether the catalog is behind what was committed, and what shows it.
fn what_is_lost(catalog: &Catalog, found: Found, uncommitted: &[Uncommitted]) -> Option<String> {
    let hint = format!("if the directory was copied, {DATABASE_FILE}-wal was left out");
    if catalog.version < 4 {
        // Blocks did not say yet which transaction they are of: an empty catalog beside several is a lost log.
        let is_lost = catalog.segments.is_empty() && uncommitted.len() > 1;
        return is_lost.then(|| format!("the catalog knows none of {} blocks of vectors; {hint}", uncommitted.len()));
    }
    let there = catalog.transactions;
    if let Found::Head(head) = found {
        let is_known =
            head.epoch == catalog.epoch || head.epoch == catalog.previous_epoch && head.transactions <= there;
        if !is_known {
            return Some(format!(
                "{DATABASE_FILE} is of another history than the file `head`: one of them was put there"
            ));
        }
        if head.transactions > there {
            let missing = head.transactions - there;
            return Some(format!(
                "the last {missing} of {} transactions are missing in {DATABASE_FILE}; {hint}",
                head.transactions
            ));
        }
    }
    let beyond: BTreeSet<u64> =
        uncommitted.iter().map(|block| block.transaction).filter(|transaction| *transaction > there).collect();
    // One that was under way, and never was acknowledged, is what a crash leaves.
    let last = beyond.last().filter(|last| **last > there + 1)?;
    Some(format!("segments hold vectors up to transaction {last}, and {DATABASE_FILE} ends with {there}; {hint}"))
}

/// Whether collections are forks of others. Layers that contradict each other are damage.
fn has_valid_forks(connection: &Connection, path: &Path) -> Result<bool> {
    let sqlite = |error: rusqlite::Error| Error::sqlite("open", path, &error);
    let has_forks = layers::has_forks(connection).map_err(sqlite)?;
    if has_forks && let Some(reason) = layers::problem(connection).map_err(sqlite)? {
        return Err(Error::Corrupt { path: path.to_owned(), reason });
    }
    Ok(has_forks)
}

impl SqliteStore {
    /// Opens the database in `directory`, making it if there is none.
    ///
    /// # Errors
    /// [`Error::Locked`] at once if another process has it open, [`Error::TooNew`], [`Error::Corrupt`],
    /// [`Error::Lost`], [`Error::Io`].
    pub fn open(directory: &Path, options: SqliteOptions) -> Result<Self> {
        create_private(directory).map_err(|error| Error::io("create", directory, &error))?;
        let owner = Owner::take(directory)?;
        let path = directory.join(DATABASE_FILE);
        let reserve = Reserve::open(directory, free_bytes(directory));
        let SqliteOptions { disk, vfs, .. } = options;
        roll_back_creation(&path, vfs.as_deref())?;
        let examined = match examine(&*disk, directory, vfs.as_deref()) {
            Ok(Examined { lost: Some(reason), .. }) if !options.accept_loss => {
                return Err(Error::Lost { path: directory.to_owned(), reason });
            }
            // A catalog that cannot be read is a loss of everything, if that is accepted.
            Err(Error::Corrupt { reason, .. }) if options.accept_loss => {
                let files = segment_files(&*disk, &directory.join(SEGMENTS_FOLDER))?;
                let unknown = files.into_iter().map(|(path, _)| path).collect();
                Examined { catalog: None, unknown, uncommitted: Vec::new(), lost: Some(reason) }
            }
            examined => examined?,
        };
        let known = head::read(&*disk, directory)?;
        let quarantine = match &examined.lost {
            Some(_) => {
                set_aside(&*disk, directory, &examined)?;
                Quarantine::default()
            }
            None => Quarantine::take(&*disk, directory, &examined.unknown)?,
        };
        let is_new = examined.catalog.is_none();
        let mut connection = connect(&path, vfs.as_deref())?;
        let sqlite = |error: rusqlite::Error| Error::sqlite("open", &path, &error);
        migrations::migrate(&mut connection, &path)?;
        if is_new {
            // From here on a log that is lost leaves a catalog that says how far it had come.
            write_meta(&connection, "checksums", i64::from(checksums::has_checksums(&connection).map_err(sqlite)?))
                .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
                .map_err(sqlite)?;
        } else {
            add_checksums(&connection, &path, vfs.as_deref())?;
        }
        name_database(&connection).map_err(sqlite)?;
        if examined.lost.is_some() {
            start_over(&mut connection, &examined, known).map_err(sqlite)?;
        }
        // While nobody writes: another process that has the files open would be in the middle of an append.
        connection.execute_batch("BEGIN IMMEDIATE").map_err(sqlite)?;
        let rows = segment_rows(&connection).map_err(sqlite)?;
        let folder = directory.join(SEGMENTS_FOLDER);
        let segments = Segments::open(Arc::clone(&disk), folder, options.map_segments, options.seal_bytes, &rows)?;
        connection.execute_batch("COMMIT").map_err(sqlite)?;
        reserve.renew(free_bytes(directory));
        let epoch = read_meta(&connection, "epoch").map_err(sqlite)?.cast_unsigned();
        let has_checksums = read_meta(&connection, "checksums").map_err(sqlite)? == 1;
        let has_forks = has_valid_forks(&connection, &path)?;
        let writer = Writer::new(connection).map_err(sqlite)?;
        let (transactions, next_vector_id) = (writer.transactions(), writer.next_vector_id());
        let head = HeadFile::begin(&disk, directory, DatabaseHead { epoch, transactions, next_vector_id })?;
        Ok(Self {
            writer: Mutex::new(writer),
            path,
            vfs,
            map_pages: options.map_segments,
            queue: Mutex::default(),
            readers: Mutex::default(),
            segments,
            observer: RwLock::default(),
            publishing: RwLock::default(),
            epoch: RwLock::new(epoch),
            heads: Mutex::new(Heads::new(options.log_age)),
            wait: Wait::default(),
            disk,
            head,
            known_transactions: AtomicU64::new(transactions),
            quarantine,
            reserve,
            checksums: AtomicBool::new(has_checksums),
            has_forks: AtomicBool::new(has_forks),
            _owner: owner,
        })
    }

    /// Files that were moved aside when the database was opened, because no transaction refers to them.
    pub fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// Refuses to read what another process wrote: its vectors are none of those that are known here.
    pub(super) fn refuse_foreign(&self, found: u64) -> Result<()> {
        use std::sync::atomic::Ordering;
        if found <= self.known_transactions.load(Ordering::Acquire) {
            return Ok(());
        }
        // One of our own that was committed a moment ago is known once the writer is free.
        match self.writer.try_lock_for(Duration::from_secs(10)) {
            Some(writer) if writer.is_sound() && found > writer.transactions() => {
                let reason = format!("another process wrote to {}: end one of the two", self.path.display());
                Err(Error::WritesStopped { reason })
            }
            _ => Ok(()),
        }
    }
}

/// Rolls back what a crash left of making the database file: until it keeps a write-ahead log, SQLite uses a rollback
/// journal, which nobody can do who only reads.
fn roll_back_creation(path: &Path, vfs: Option<&str>) -> Result<()> {
    if !path.with_extension("sqlite3-journal").exists() {
        return Ok(());
    }
    let sqlite = |error: rusqlite::Error| Error::sqlite("open", path, &error);
    let connection =
        Connection::open_with_flags_and_vfs(path, OpenFlags::default(), &*checksums::vfs(vfs)).map_err(sqlite)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(sqlite)
}

/// Makes a directory that only its owner may look into; one that is there stays as it is.
fn create_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Rewrites a small database file that was written before there were checksums; larger ones wait for `full-vacuum`.
fn add_checksums(connection: &Connection, path: &Path, vfs: Option<&str>) -> Result<()> {
    let sqlite = |error: rusqlite::Error| Error::sqlite("open", path, &error);
    let marked = read_meta(connection, "checksums").map_err(sqlite)? == 1;
    if marked {
        return Ok(());
    }
    // A rewritten file that a crash left in the log gets into the file before anything else is committed.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(sqlite)?;
    if !checksums::has_checksums(connection).map_err(sqlite)? {
        if std::fs::metadata(path).map_or(0, |file| file.len()) > REWRITTEN_BYTES_MAX {
            return Ok(());
        }
        // On a full disk it stays as it is, and works as it did.
        if connection.execute_batch("VACUUM").is_err() {
            return Ok(());
        }
    }
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(sqlite)?;
    // A connection of its own: it looks at the header as it is in the file now.
    if busy == 0 && checksums::has_checksums(&connect(path, vfs)?).map_err(sqlite)? {
        write_meta(connection, "checksums", 1).map_err(sqlite)?;
    }
    Ok(())
}

/// Keeps what will not be part of the database any more in a folder of its own.
fn set_aside(disk: &dyn Disk, directory: &Path, examined: &Examined) -> Result<()> {
    let folder = directory.join(QUARANTINE_FOLDER).join(format!("loss-{}", now()));
    disk.create_dir(&folder).map_err(|error| Error::io("create", &folder, &error))?;
    for file in &examined.unknown {
        move_into(disk, &folder, file)?;
    }
    let copy = |from: &Path, to: &Path| match std::fs::copy(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("copy", from, &error)),
        _ => Ok(()),
    };
    for name in [DATABASE_FILE.to_owned(), format!("{DATABASE_FILE}-wal")] {
        let path = directory.join(&name);
        if examined.catalog.is_none() && path.exists() {
            move_into(disk, &folder, &path)?;
        } else if name.ends_with("-wal") {
            copy(&path, &folder.join(&name))?;
        }
    }
    for row in examined.catalog.iter().flat_map(|catalog| &catalog.segments) {
        let path = Segment::path_in(&directory.join(SEGMENTS_FOLDER), row.number);
        if std::fs::metadata(&path).is_ok_and(|file| file.len() > row.committed_bytes) {
            copy(&path, &folder.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// Makes the history another one, so that nothing of the lost one is taken for its own: snapshots, ids, transactions.
fn start_over(connection: &mut Connection, examined: &Examined, known: Found) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    write_meta(&transaction, "epoch", new_epoch())?;
    let head = if let Found::Head(head) = known { head } else { DatabaseHead::default() };
    // Until the head file says the new one.
    write_meta(&transaction, "previous_epoch", head.epoch.cast_signed())?;
    let last = |number: &dyn Fn(&Uncommitted) -> u64| examined.uncommitted.iter().map(number).max().unwrap_or(0);
    let next = read_meta(&transaction, "next_vector_id")?.cast_unsigned();
    let next = next.max(head.next_vector_id).max(last(&|block| block.last_id) + 1);
    write_meta(&transaction, "next_vector_id", next.cast_signed())?;
    let there = read_meta(&transaction, "transactions")?.cast_unsigned();
    let transactions = there.max(head.transactions).max(last(&|block| block.transaction));
    count_transaction(&transaction, transactions)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_whose_creation_was_cut_off_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let (cut, home) = (folder.path().join("cut"), folder.path().join("home"));
        std::fs::create_dir_all(&cut).unwrap();
        std::fs::create_dir_all(&home).unwrap();
        let path = cut.join(DATABASE_FILE);
        // Pages in the file, and a journal that says they were never committed, as a kill leaves them.
        let mut connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA cache_size = 2; PRAGMA page_size = 4096;").unwrap();
        let transaction = connection.transaction().unwrap();
        transaction.execute_batch("CREATE TABLE half (made BLOB)").unwrap();
        for _ in 0..100 {
            transaction.execute("INSERT INTO half VALUES (zeroblob(4096))", []).unwrap();
        }
        for entry in std::fs::read_dir(&cut).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, home.join(from.file_name().unwrap())).unwrap();
        }
        assert!(home.join(DATABASE_FILE).metadata().unwrap().len() > 0, "the pages were written");
        assert!(home.join(format!("{DATABASE_FILE}-journal")).metadata().unwrap().len() > 0);
        let store = SqliteStore::open(&home, SqliteOptions::default()).unwrap();
        assert!(store.has_checksums());
        drop(store);
        assert!(!home.join(format!("{DATABASE_FILE}-journal")).exists());
    }
}
