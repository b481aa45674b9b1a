//! The embedded store: what it consists of.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use uuid::Uuid;

use super::connection::{connect, read_meta};
use super::layers::{self, Forked};
use super::state::{Heads, Ticket, Wait, Writer};
use crate::block::Damage;
use crate::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::head::HeadFile;
use crate::lock::Owner;
use crate::quarantine::Quarantine;
use crate::reserve::Reserve;
use crate::segments::Segments;
use crate::store::{CollectionRow, Observer, Upkeep};

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
    pub(super) path: PathBuf,
    pub(super) vfs: Option<String>,
    pub(super) map_pages: bool,
    pub(super) queue: Mutex<VecDeque<Arc<Ticket>>>,
    pub(super) writer: Mutex<Writer>,
    pub(super) readers: Mutex<Vec<Connection>>,
    pub(super) segments: Segments,
    pub(super) observer: RwLock<Option<Arc<dyn Observer>>>,
    /// Held for writing from a commit until its vectors are visible, so that no reader sees one without
    /// the other.
    pub(super) publishing: RwLock<()>,
    pub(super) epoch: RwLock<u64>,
    pub(super) heads: Mutex<Heads>,
    pub(super) wait: Wait,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) head: HeadFile,
    /// How many transactions this process knows of.
    pub(super) known_transactions: AtomicU64,
    pub(super) quarantine: Quarantine,
    pub(super) reserve: Reserve,
    /// Whether every page of the database file has a checksum.
    pub(super) checksums: AtomicBool,
    /// Whether any collection may have been forked; as long as none was, nobody looks layers up.
    pub(super) has_forks: AtomicBool,
    /// Dropped last: the directory is free once everything is closed.
    pub(super) _owner: Owner,
}

impl SqliteStore {
    /// Segments and blocks found damaged when the database was opened.
    pub fn damage(&self) -> Vec<Damage> {
        self.segments.damage()
    }

    /// Whether every page of the database file has a checksum; older files get them by [`Upkeep::FullVacuum`].
    pub fn has_checksums(&self) -> bool {
        self.checksums.load(Ordering::Relaxed)
    }

    /// Makes a fork; the observer is told before anybody writes to it or to its source.
    pub(super) fn fork(&self, source: Uuid, name: &str) -> Result<CollectionRow> {
        let mut writer = self.wait.lock(&self.writer);
        // Before it can be seen by anybody.
        self.has_forks.store(true, Ordering::Release);
        let Forked { source, fork } =
            self.change_catalog_with(&mut writer, |connection| layers::fork(connection, &self.segments, source, name))?;
        if let Some(observer) = self.observer() {
            observer.forked(&source, &fork);
        }
        Ok(fork)
    }

    /// Does what makes room on the disk; on a full one with the space that is kept aside for it.
    pub(super) fn making_room<T>(&self, change: impl Fn() -> Result<T>) -> Result<T> {
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
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.path.parent().and_then(crate::disk::free_bytes)
    }

    /// Goes on in another epoch, which was committed.
    pub(super) fn adopt_epoch(&self, committed: u64) {
        let writer = self.writer.lock();
        // Of two resets at once, that of the later one is in the catalog.
        let there = writer.connection().and_then(|connection| read_meta(connection, "epoch").ok());
        *self.epoch.write() = there.map_or(committed, i64::cast_unsigned);
        self.note_head(writer.transactions(), writer.next_vector_id());
        // The reset stands whatever becomes of this: after a power failure the head may be of the epoch before.
        drop(self.head.sync());
    }

    pub(super) fn error(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
        let path = self.path.clone();
        move |error| Error::sqlite(action, &path, &error)
    }

    pub(super) fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.read().clone()
    }

    /// A connection that reads pages where the system has them, rather than copying each.
    pub(super) fn open_reader(&self) -> Result<Connection> {
        let connection = connect(&self.path, self.vfs.as_deref())?;
        if self.map_pages {
            connection.pragma_update(None, "mmap_size", MAPPED_BYTES_MAX).map_err(self.error("open"))?;
        }
        Ok(connection)
    }

    /// Asks something that touches a page here and there all over the database, in a connection of its own that copies
    /// pages: mapped, each page would bring its neighbours into memory with it (Linux maps 64 KiB at once).
    pub(super) fn cold_read<T>(
        &self, action: &'static str, question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = connect(&self.path, self.vfs.as_deref())?;
        let transaction = connection.transaction().map_err(self.error(action))?;
        question(&transaction).map_err(self.error(action))
    }

    pub(super) fn give_back(&self, connection: Connection) {
        let mut readers = self.readers.lock();
        if readers.len() < IDLE_READERS_MAX {
            readers.push(connection);
        }
    }
}
