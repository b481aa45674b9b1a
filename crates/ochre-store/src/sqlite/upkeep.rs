//! Steps of upkeep on the SQLite store: each short, each safe to kill anywhere.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use rusqlite::{Connection, params};

use super::checksums;
use super::connection::{Failure, connect, now, write_meta};
use super::layer_upkeep;
use super::layers::{self, Layers};
use super::log::Prunable;
use super::state::{HeldByUpkeep, Writer};
use super::store::SqliteStore;
use crate::error::Result;
use crate::segments::Segments;
use crate::store::{CollectionNumber, Debt, IDEMPOTENCY_SECONDS, Statistics, Upkeep};

/// Rows of a deleted collection that one step removes.
const SWEEP_ROWS: i64 = 2_000;
/// The same where no space is kept aside.
const SWEEP_ROWS_WHEN_FULL: i64 = 100;
/// Rows that one step moves into the layer below.
const MERGED_ROWS: i64 = 1_000;
/// Rows that one step looks for because nobody reads them any more …
const UNREAD_ROWS: usize = 20_000;
/// … and that it removes at once.
const PURGED_ROWS: usize = 1_000;
/// Log entries and idempotency keys that one step forgets.
const PRUNE_ROWS: i64 = 500;
/// Entries of the catalog's log that are kept.
const CATALOG_ENTRIES_KEPT: i64 = 10_000;
/// Free pages that may stay in the file, 1 MiB of them.
const FREE_PAGES_MAX: i64 = 256;

impl SqliteStore {
    pub(super) fn run_upkeep(&self, upkeep: Upkeep) -> Result<bool> {
        match upkeep {
            Upkeep::SweepDeleted => {
                // On a full disk in steps whose log fits what there is.
                let rows = if self.reserve.is_there() { SWEEP_ROWS } else { SWEEP_ROWS_WHEN_FULL };
                self.change_quietly(|connection| {
                    layer_upkeep::sweep(connection, rows, |unread| {
                        unread.iter().try_for_each(|number| self.note_dead(connection, &self.segments.weigh(*number)))
                    })
                })
            }
            Upkeep::MergeLayers => self.change_quietly(|connection| {
                let Some((upper, base)) = layer_upkeep::mergeable(connection)? else { return Ok(false) };
                let weight = layer_upkeep::merge(connection, &self.segments, upper, base, MERGED_ROWS)?;
                self.note_dead(connection, &weight).map(|()| true)
            }),
            Upkeep::PurgeUnread => self.purge_unread(),
            Upkeep::PruneLog => self.change_quietly(|connection| prune(self, connection)),
            Upkeep::Checkpoint { truncate } => self.checkpoint(truncate),
            Upkeep::Optimize => self.optimize(),
            Upkeep::Vacuum { pages } => self.vacuum(pages),
            Upkeep::FullVacuum => self.full_vacuum(),
            Upkeep::CompactVectors { dead_share_max } => self.compact_vectors(dead_share_max),
            Upkeep::SealVectors { min_bytes, dead_share_max } => {
                let (mut writer, _held) = self.writer_for_upkeep();
                self.reopen_if_failed(&mut writer)?;
                self.change_segments(&mut writer, || self.segments.seal(min_bytes, dead_share_max)).map(|_| false)
            }
        }
    }

    /// Removes rows that nobody reads any more. They are looked for without keeping anybody from writing.
    fn purge_unread(&self) -> Result<bool> {
        if !self.has_forks.load(Ordering::Acquire) {
            return Ok(false);
        }
        let look = |connection: &Connection| layer_upkeep::unread(connection, UNREAD_ROWS);
        let unread = self.cold_read("look for what nobody reads", look)?;
        for rows in unread.chunks(PURGED_ROWS) {
            self.change_quietly(|connection| {
                let weight = layer_upkeep::purge(connection, &self.segments, rows)?;
                self.note_dead(connection, &weight).map(|()| true)
            })?;
        }
        Ok(!unread.is_empty())
    }

    /// Marks all vectors of a deleted collection dead.
    pub(super) fn mark_deleted(&self, connection: &Connection, collection: CollectionNumber) -> Result<(), Failure> {
        // What it shares with forks stays until the last of them goes.
        let own = Layers::of(connection, collection)?.own().clone();
        Ok(own.block_numbers.iter().try_for_each(|number| self.note_dead(connection, &self.segments.weigh(*number)))?)
    }

    /// Counts bytes of segments as dead.
    fn note_dead(&self, connection: &Connection, weight: &BTreeMap<u32, u64>) -> rusqlite::Result<()> {
        for (number, bytes) in weight {
            connection.execute(
                "UPDATE segments SET dead_bytes = dead_bytes + ?2 WHERE number = ?1",
                params![number, bytes.cast_signed()],
            )?;
        }
        // If the transaction fails after this, a segment is compacted sooner than it need be.
        self.segments.add_dead_bytes(weight);
        Ok(())
    }

    fn change_quietly(&self, change: impl FnOnce(&Connection) -> rusqlite::Result<bool>) -> Result<bool> {
        let (mut writer, _held) = self.writer_for_upkeep();
        self.change_catalog_with(&mut writer, |connection| Ok(change(connection)?))
    }

    /// The writer's lock, noting that whoever waits for it waits for upkeep.
    fn writer_for_upkeep(&self) -> (MutexGuard<'_, Writer>, HeldByUpkeep<'_>) {
        let writer = self.writer.lock();
        (writer, HeldByUpkeep::new(&self.wait))
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
        let (mut writer, _held) = self.writer_for_upkeep();
        self.reopen_if_failed(&mut writer)?;
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

    /// Rewrites the database file. Pages of one that was written before there were checksums get them.
    fn full_vacuum(&self) -> Result<bool> {
        let (mut writer, held) = self.writer_for_upkeep();
        self.reopen_if_failed(&mut writer)?;
        let Some(connection) = writer.connection() else { return Ok(false) };
        connection.execute_batch("VACUUM").map_err(self.error("vacuum"))?;
        if self.has_checksums() {
            return Ok(false);
        }
        // The first page says whether the others have checksums, so all of them come into the file together: a commit
        // before that could leave the first one behind, in the log.
        loop {
            match self.checkpoint(true) {
                Ok(false) => break,
                Ok(true) => {}
                Err(error) => {
                    let reason = format!("the rewritten database file could not be completed ({error}): start again");
                    return Err(writer.stop(reason));
                }
            }
        }
        drop((writer, held));
        // A connection of its own: it looks at the header as it is in the file now.
        let connection = connect(&self.path, self.vfs.as_deref())?;
        if checksums::has_checksums(&connection).map_err(self.error("vacuum"))? {
            self.change_quietly(|connection| write_meta(connection, "checksums", 1).map(|()| false))?;
            self.checksums.store(true, Ordering::Relaxed);
        }
        Ok(false)
    }

    fn compact_vectors(&self, dead_share_max: f64) -> Result<bool> {
        let Some(before) = self.segments.most_dead(dead_share_max) else { return Ok(false) };
        let mut live = |number| {
            self.reader()?.query_rows("read vector ids", |connection| layers::live_vectors(connection, number))
        };
        let next = self.known_transactions.load(Ordering::Acquire) + 1;
        let Some(mut pending) = self.segments.rewrite(before.number, next, &mut live)? else { return Ok(false) };
        let (mut writer, _held) = self.writer_for_upkeep();
        if let Err(error) = self.reopen_if_failed(&mut writer) {
            Segments::rollback(pending);
            return Err(error);
        }
        // What died while the copy was made is dead in the copy too.
        let died_meanwhile = self.segments.dead_bytes(before.number).saturating_sub(before.dead_bytes);
        if let Some(row) = pending.rows.last_mut() {
            row.dead_bytes = died_meanwhile;
        }
        let mut pending = Some(pending);
        let changed = self.change_segments(&mut writer, || Ok(pending.take()));
        if let Some(pending) = pending {
            Segments::rollback(pending);
        }
        changed
    }

    pub(super) fn measure(&self) -> Result<Statistics> {
        let wal = self.path.with_extension("sqlite3-wal");
        let wal_bytes = std::fs::metadata(wal).map_or(0, |metadata| metadata.len());
        self.reader()?.query_rows("measure", |connection| {
            let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let page_bytes = pragma("page_size")?;
            Ok(Statistics {
                database_bytes: (page_bytes * pragma("page_count")?).cast_unsigned(),
                wal_bytes,
                has_checksums: self.has_checksums(),
                free_bytes: (page_bytes * pragma("freelist_count")?).cast_unsigned(),
                ..self.segments.sizes()
            })
        })
    }

    pub(super) fn measure_debt(&self) -> Result<Debt> {
        self.cold_read("measure debt", |connection| {
            let count = |query, since: &[i64]| {
                let count = connection.query_row(query, rusqlite::params_from_iter(since), |row| row.get::<_, i64>(0));
                count.map(i64::cast_unsigned)
            };
            let expired =
                count("SELECT count(*) FROM idempotency WHERE created_at < ?1", &[now() - IDEMPOTENCY_SECONDS])?;
            let entries = self.prunable(connection)?;
            let entries: u64 = entries.iter().map(|entries| (entries.kept - entries.first).cast_unsigned()).sum();
            Ok(Debt {
                prunable_entries: entries + expired,
                deleted_collections: count("SELECT count(*) FROM collections WHERE deleted = 1", &[])?,
                has_mergeable_layers: layer_upkeep::mergeable(connection)?.is_some(),
                has_forks: layers::has_forks(connection)?,
            })
        })
    }

    pub(super) fn drop_mapped_pages(&self) {
        // Idle readers map the database file.
        self.readers.lock().clear();
        self.segments.drop_pages();
    }
}

/// Forgets a slice of what nobody needs any more; whether there may be more.
fn prune(store: &SqliteStore, connection: &Connection) -> rusqlite::Result<bool> {
    let (mut left, mut more) = (PRUNE_ROWS, false);
    for Prunable { collection, first, kept } in store.prunable(connection)? {
        let until = kept.min(first + left);
        let mut statement = connection.prepare_cached("DELETE FROM log WHERE collection = ?1 AND position < ?2")?;
        left -= i64::try_from(statement.execute(params![collection, until])?).unwrap_or(left);
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
