//! Steps of upkeep on the SQLite store: each short, each safe to kill anywhere.

use rusqlite::{Connection, OptionalExtension, params};

use super::writer::{Failure, now};
use super::{SqliteStore, connect, first_rowid};
use crate::error::Result;
use crate::segments::Segments;
use crate::store::{
    CollectionNumber, IDEMPOTENCY_SECONDS, LOG_ENTRIES_HELD_FOR_SNAPSHOT_MAX, LOG_ENTRIES_HELD_MAX, LOG_ENTRIES_KEPT,
    Statistics, Upkeep,
};

/// Rows of a deleted collection that one step removes.
const SWEEP_ROWS: i64 = 2_000;
/// Log entries and idempotency keys that one step forgets.
const PRUNE_ROWS: i64 = 500;
/// Entries of the catalog's log that are kept.
const CATALOG_ENTRIES_KEPT: i64 = 10_000;
/// Who holds the log for snapshots of collections.
const SNAPSHOTS: &str = "snapshots";
/// Free pages that may stay in the file, 1 MiB of them.
const FREE_PAGES_MAX: i64 = 256;

impl SqliteStore {
    pub(super) fn run_upkeep(&self, upkeep: Upkeep) -> Result<bool> {
        match upkeep {
            Upkeep::SweepDeleted => self.change_quietly(sweep_deleted),
            Upkeep::PruneLog => self.change_quietly(prune),
            Upkeep::Checkpoint { truncate } => self.checkpoint(truncate),
            Upkeep::Optimize => self.optimize(),
            Upkeep::Vacuum { pages } => self.vacuum(pages),
            Upkeep::FullVacuum => {
                let mut writer = self.writer.lock();
                self.revive(&mut writer)?;
                let connection = writer.connection().map(|connection| connection.execute_batch("VACUUM"));
                connection.transpose().map_err(self.error("vacuum")).map(|_| false)
            }
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

    fn checkpoint(&self, truncate: bool) -> Result<bool> {
        // Passive: neither waits for readers nor keeps the writer out.
        let connection = connect(&self.path, self.vfs.as_deref())?;
        let mode = if truncate { "TRUNCATE" } else { "PASSIVE" };
        if truncate {
            connection.busy_timeout(std::time::Duration::from_secs(2)).map_err(self.error("checkpoint"))?;
        }
        connection
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(0))
            .map(|busy| busy != 0)
            .map_err(self.error("checkpoint"))
    }

    fn optimize(&self) -> Result<bool> {
        let connection = connect(&self.path, self.vfs.as_deref())?;
        connection
            .execute_batch("PRAGMA analysis_limit = 400; PRAGMA optimize;")
            .map(|()| false)
            .map_err(self.error("optimize"))
    }

    fn vacuum(&self, pages: u64) -> Result<bool> {
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
            let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
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
        let wal = self.path.with_extension("sqlite3-wal");
        let wal_bytes = std::fs::metadata(wal).map_or(0, |metadata| metadata.len());
        self.reader()?.ask("measure", |connection| {
            let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let page_bytes = pragma("page_size")?;
            let deleted = "SELECT count(*) FROM collections WHERE deleted = 1";
            let prunable = prunable(connection, i64::MAX)?;
            let expired = "SELECT count(*) FROM idempotency WHERE created_at < ?1";
            let expired: u64 = connection
                .prepare_cached(expired)?
                .query_row([now() - IDEMPOTENCY_SECONDS], |row| row.get(0).map(i64::cast_unsigned))?;
            Ok(Statistics {
                database_bytes: (page_bytes * pragma("page_count")?).cast_unsigned(),
                wal_bytes,
                free_bytes: (page_bytes * pragma("freelist_count")?).cast_unsigned(),
                prunable_entries: prunable.iter().map(|(_, from, to)| (to - from).cast_unsigned()).sum::<u64>()
                    + expired,
                deleted_collections: connection
                    .prepare_cached(deleted)?
                    .query_row([], |row| row.get(0).map(i64::cast_unsigned))?,
                ..self.segments.sizes()
            })
        })
    }

    pub(super) fn set_log_holds(&self, holder: &str, positions: &[(CollectionNumber, u64)]) -> Result<()> {
        self.change_catalog(|connection| {
            connection.execute("DELETE FROM log_holds WHERE holder = ?1", [holder])?;
            let mut statement = connection.prepare_cached("INSERT INTO log_holds VALUES (?1, ?2, ?3)")?;
            for (collection, position) in positions {
                statement.execute(params![holder, collection, position.cast_signed()])?;
            }
            Ok(())
        })
    }

    pub(super) fn set_snapshot_hold(&self, collection: CollectionNumber, position: Option<u64>) -> Result<()> {
        self.change_catalog(|connection| {
            match position {
                Some(position) => connection.execute(
                    "INSERT OR REPLACE INTO log_holds VALUES (?1, ?2, ?3)",
                    params![SNAPSHOTS, collection, position.cast_signed()],
                )?,
                None => connection.execute(
                    "DELETE FROM log_holds WHERE holder = ?1 AND collection = ?2",
                    params![SNAPSHOTS, collection],
                )?,
            };
            Ok(())
        })
    }

    pub(super) fn drop_mapped_pages(&self) {
        // Idle readers map the database file.
        self.readers.lock().clear();
        self.segments.drop_pages();
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
        connection.execute("DELETE FROM log_holds WHERE collection = ?1", [number])?;
        connection.execute("DELETE FROM collections WHERE number = ?1", [number])?;
    }
    Ok(true)
}

/// Collections with log entries that nobody needs: the first of them, and the first that is kept.
fn prunable(connection: &Connection, limit: i64) -> rusqlite::Result<Vec<(CollectionNumber, i64, i64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT number, first, kept FROM (
             SELECT number,
                 (SELECT min(l.position) FROM log l WHERE l.collection = c.number) AS first,
                 min(c.position - ?1, ifnull(
                     (SELECT min(h.position) FROM log_holds h
                      WHERE h.collection = c.number
                      AND c.position - h.position <= iif(h.holder = ?4, ?5, ?2)), c.position)) + 1 AS kept
             FROM collections c WHERE c.position > ?1 AND c.deleted = 0)
         WHERE first < kept LIMIT ?3",
    )?;
    let numbers = params![
        LOG_ENTRIES_KEPT.cast_signed(),
        LOG_ENTRIES_HELD_MAX.cast_signed(),
        limit,
        SNAPSHOTS,
        LOG_ENTRIES_HELD_FOR_SNAPSHOT_MAX.cast_signed()
    ];
    let rows = statement.query_map(numbers, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

/// Forgets a slice of what nobody needs any more; whether there may be more.
fn prune(connection: &Connection) -> rusqlite::Result<bool> {
    let (mut left, mut more) = (PRUNE_ROWS, false);
    for (number, first, kept) in prunable(connection, 50)? {
        let until = kept.min(first + left);
        let mut statement = connection.prepare_cached("DELETE FROM log WHERE collection = ?1 AND position < ?2")?;
        left -= i64::try_from(statement.execute(params![number, until])?).unwrap_or(left);
        more = true;
        if left <= 0 {
            break;
        }
    }
    let mut statement = connection.prepare_cached(
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE created_at < ?1 LIMIT ?2)",
    )?;
    let expired = statement.execute(params![now() - IDEMPOTENCY_SECONDS, PRUNE_ROWS])?;
    connection.execute(
        "DELETE FROM catalog_log WHERE position <= (SELECT max(position) FROM catalog_log) - ?1",
        [CATALOG_ENTRIES_KEPT],
    )?;
    Ok(more || expired > 0)
}
