//! How long the log is kept: what consumers hold, and what filters under way may still ask for.
//!
//! A filter that was resolved on an older state is asked again for what changed since, or, if the log no longer says,
//! resolved again. So entries are kept for some minutes, and not more than a thousand of each collection.

use std::time::Instant;

use rusqlite::{Connection, params};

use super::store::SqliteStore;
use crate::error::Result;
use crate::store::{CollectionNumber, LOG_ENTRIES_HELD_FOR_SNAPSHOT_MAX, LOG_ENTRIES_HELD_MAX, LOG_ENTRIES_KEPT};

/// Who holds the log for snapshots of collections.
pub(super) const SNAPSHOTS: &str = "snapshots";

/// Entries of a collection that nobody needs any more.
pub(super) struct Prunable {
    pub(super) collection: CollectionNumber,
    /// The first entry there is.
    pub(super) first: i64,
    /// The first that is kept.
    pub(super) kept: i64,
}

impl SqliteStore {
    /// Collections with log entries that nobody needs.
    pub(super) fn prunable(&self, connection: &Connection) -> rusqlite::Result<Vec<Prunable>> {
        let mut statement = connection.prepare_cached(
            "SELECT number, position, first,
                 (SELECT min(h.position) FROM log_holds h
                  WHERE h.collection = number AND position - h.position <= iif(h.holder = ?1, ?2, ?3))
             FROM (SELECT number, position,
                       (SELECT min(l.position) FROM log l WHERE l.collection = c.number) AS first
                   FROM collections c WHERE deleted = 0)
             WHERE first IS NOT NULL",
        )?;
        let limits =
            params![SNAPSHOTS, LOG_ENTRIES_HELD_FOR_SNAPSHOT_MAX.cast_signed(), LOG_ENTRIES_HELD_MAX.cast_signed()];
        let rows: Vec<(CollectionNumber, i64, i64, Option<i64>)> = statement
            .query_map(limits, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut heads = self.heads.lock();
        let stood = heads.note(Instant::now(), rows.iter().map(|row| (row.0, row.1)).collect());
        let old = |collection| stood.and_then(|heads| heads.get(collection)).copied().unwrap_or(0);
        let prunable = rows.iter().map(|(collection, position, first, held)| {
            let needed = old(collection).max(position - LOG_ENTRIES_KEPT.cast_signed());
            Prunable { collection: *collection, first: *first, kept: needed.min(held.unwrap_or(*position)) + 1 }
        });
        Ok(prunable.filter(|prunable| prunable.first < prunable.kept).collect())
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
}
