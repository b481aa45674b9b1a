//! Steps of upkeep on the SQLite store: each short, each safe to kill anywhere.

use rusqlite::{Connection, OptionalExtension, params};

use super::writer::{Failure, now};
use super::{SqliteStore, connect, first_rowid};
use crate::error::Result;
use crate::segments::Segments;
use crate::store::{CollectionNumber, IDEMPOTENCY_SECONDS, LOG_ENTRIES_MAX, Statistics, Upkeep};

/// Rows of a deleted collection that one step removes.
const SWEEP_ROWS: i64 = 2_000;
/// Pages that one step gives back to the file system.
const VACUUM_PAGES: i64 = 1_000;
/// Free pages that may stay in the file, 1 MiB of them.
const FREE_PAGES_MAX: i64 = 256;

impl SqliteStore {
    pub(super) fn run_upkeep(&self, upkeep: Upkeep) -> Result<bool> {
        match upkeep {
            Upkeep::SweepDeleted => self.change_quietly(sweep_deleted),
            Upkeep::PruneLog => {
                let grown = std::mem::take(&mut self.writer.lock().grown);
                self.change_quietly(|connection| {
                    grown.iter().try_for_each(|number| prune_log(connection, *number))?;
                    connection
                        .execute("DELETE FROM idempotency WHERE created_at < ?1", [now() - IDEMPOTENCY_SECONDS])?;
                    connection.execute(
                        "DELETE FROM catalog_log WHERE position <= (SELECT max(position) FROM catalog_log) - ?1",
                        [LOG_ENTRIES_MAX.cast_signed()],
                    )?;
                    Ok(false)
                })
            }
            Upkeep::Checkpoint => self.checkpoint(),
            Upkeep::Vacuum => self.vacuum(),
            Upkeep::CompactVectors { dead_share_max } => self.compact_vectors(dead_share_max),
            Upkeep::SealVectors { min_bytes, dead_share_max } => {
                let mut writer = self.writer.lock();
                self.revive(&mut writer)?;
                match self.segments.seal(min_bytes, dead_share_max)? {
                    Some(pending) => self.commit_segments(&mut writer, pending).map(|()| false),
                    None => Ok(false),
                }
            }
        }
    }

    /// Marks all vectors of a deleted collection dead.
    pub(super) fn bury(&self, connection: &Connection, collection: CollectionNumber) -> Result<(), Failure> {
        let weight = self.segments.weigh_collection(collection);
        for (number, bytes) in &weight {
            connection.execute(
                "UPDATE segments SET dead_bytes = dead_bytes + ?2 WHERE number = ?1",
                params![number, bytes.cast_signed()],
            )?;
        }
        // If the transaction fails after this, a segment is compacted sooner than it need be.
        self.segments.count_dead(&weight);
        Ok(())
    }

    fn change_quietly(&self, change: impl FnOnce(&Connection) -> rusqlite::Result<bool>) -> Result<bool> {
        self.change_catalog(|connection| Ok(change(connection)?))
    }

    fn checkpoint(&self) -> Result<bool> {
        // Passive: neither waits for readers nor keeps the writer out.
        let connection = connect(&self.path, self.vfs.as_deref())?;
        connection
            .execute_batch("PRAGMA wal_checkpoint(PASSIVE); PRAGMA optimize;")
            .map_err(self.error("checkpoint"))?;
        Ok(false)
    }

    fn vacuum(&self) -> Result<bool> {
        let mut writer = self.writer.lock();
        self.revive(&mut writer)?;
        let Some(connection) = writer.connection() else { return Ok(false) };
        let step = || -> rusqlite::Result<bool> {
            let free = |connection: &Connection| {
                connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0))
            };
            let before = free(connection)?;
            if before <= FREE_PAGES_MAX {
                return Ok(false);
            }
            // The pragma frees a page for each row that is fetched.
            let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            let after = free(connection)?;
            Ok(after > FREE_PAGES_MAX && after < before)
        };
        step().map_err(self.error("vacuum"))
    }

    fn compact_vectors(&self, dead_share_max: f64) -> Result<bool> {
        let Some(before) = self.segments.most_dead(dead_share_max) else { return Ok(false) };
        let mut live = |collection| {
            self.reader()?.ask("read vector ids", |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT vector_id FROM records WHERE rowid BETWEEN ?1 AND ?2
                     AND EXISTS (SELECT 1 FROM collections WHERE number = ?3 AND deleted = 0)",
                )?;
                let base = first_rowid(collection);
                let ids =
                    statement.query_map(params![base, base + i64::from(u32::MAX), collection], |row| row.get(0))?;
                let mut ids: Vec<u64> =
                    ids.map(|id: rusqlite::Result<i64>| id.map(i64::cast_unsigned)).collect::<Result<_, _>>()?;
                ids.sort_unstable();
                Ok(ids)
            })
        };
        let Some(mut pending) = self.segments.rewrite(before.number, &mut live)? else { return Ok(false) };
        let mut writer = self.writer.lock();
        if let Err(error) = self.revive(&mut writer) {
            Segments::take_back(pending);
            return Err(error);
        }
        // What died while the copy was made is dead in the copy too.
        let died_meanwhile = self.segments.dead_bytes(before.number).saturating_sub(before.dead_bytes);
        if let Some(row) = pending.rows.last_mut() {
            row.dead_bytes = died_meanwhile;
        }
        self.commit_segments(&mut writer, pending)?;
        Ok(true)
    }

    pub(super) fn measure(&self) -> Result<Statistics> {
        let (segment_bytes, dead_vector_bytes, segment_count) = self.segments.sizes();
        let wal = self.path.with_extension("sqlite3-wal");
        let wal_bytes = std::fs::metadata(wal).map_or(0, |metadata| metadata.len());
        let (page_bytes, pages, free) = self.reader()?.ask("measure", |connection| {
            let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            Ok((pragma("page_size")?, pragma("page_count")?, pragma("freelist_count")?))
        })?;
        Ok(Statistics {
            database_bytes: (page_bytes * pages).cast_unsigned(),
            wal_bytes,
            free_bytes: (page_bytes * free).cast_unsigned(),
            segment_bytes,
            dead_vector_bytes,
            segment_count,
        })
    }
}

/// Removes a slice of one deleted collection; whether anything was left to do.
fn sweep_deleted(connection: &Connection) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT number FROM collections WHERE deleted = 1 LIMIT 1")?;
    let Some(number) = statement.query_row([], |row| row.get::<_, CollectionNumber>(0)).optional()? else {
        return Ok(false);
    };
    let base = first_rowid(number);
    let mut statement = connection.prepare_cached(
        "DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE rowid BETWEEN ?1 AND ?2 LIMIT ?3)",
    )?;
    let removed = statement.execute(params![base, base + i64::from(u32::MAX), SWEEP_ROWS])?;
    if removed == 0 {
        connection.execute("DELETE FROM log WHERE collection = ?1", [number])?;
        connection.execute("DELETE FROM collections WHERE number = ?1", [number])?;
    }
    Ok(true)
}

fn prune_log(connection: &Connection, number: CollectionNumber) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM log WHERE collection = ?1 AND position <= (SELECT position FROM collections WHERE number = ?1) - ?2",
    )?;
    statement.execute(params![number, LOG_ENTRIES_MAX.cast_signed()]).map(drop)
}
