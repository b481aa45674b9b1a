//! Where definitions and usage are kept: tables of their own beside everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ochre_store::rusqlite::{self, params};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BuildOutcome, Entry, IndexDefinition, Indexes, State, Usage};
use crate::database::Inner;
use crate::error::Error;

pub(super) const MIGRATIONS: [&str; 1] = ["
CREATE TABLE metadata_indexes_definitions (id BLOB PRIMARY KEY, collection BLOB NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE metadata_indexes_usage (
    id BLOB PRIMARY KEY, uses INTEGER NOT NULL, rows INTEGER NOT NULL, last_used INTEGER NOT NULL, since INTEGER NOT NULL
) WITHOUT ROWID;
"];

/// What is kept of an index.
#[derive(Serialize, Deserialize)]
struct Kept {
    definition: IndexDefinition,
    serving: Option<(u64, IndexDefinition)>,
    building: Option<u64>,
    last_build: u64,
    outcome: BuildOutcome,
    error: Option<String>,
    created_at: i64,
    built_at: Option<i64>,
    verified_at: Option<i64>,
}

impl Inner {
    /// Reads what indexes are declared. Those of collections that are gone are forgotten.
    pub(crate) fn load_definitions(&self) -> Result<(), Error> {
        let mut found: Vec<(Uuid, Uuid, String, [i64; 4])> = Vec::new();
        self.store.read_tables(&mut |connection| {
            let mut statement = connection.prepare(
                "SELECT d.id, d.collection, d.state, ifnull(u.uses, 0), ifnull(u.rows, 0), ifnull(u.last_used, 0), ifnull(u.since, 0)
                 FROM metadata_indexes_definitions d LEFT JOIN metadata_indexes_usage u ON u.id = d.id",
            )?;
            let rows = statement.query_map([], |row| {
                let id = |column| Ok::<_, rusqlite::Error>(Uuid::from_bytes(row.get(column)?));
                Ok((id(0)?, id(1)?, row.get(2)?, [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?]))
            })?;
            found = rows.collect::<rusqlite::Result<_>>()?;
            Ok(())
        })?;
        for (id, collection, text, usage) in found {
            let row = match self.row(collection) {
                Ok(row) => row,
                Err(error) if error.not_found().is_some() => {
                    self.delete_index_row(id)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match serde_json::from_str::<Kept>(&text)
                .map_err(|error| error.to_string())
                .and_then(|kept| entry(id, &row, kept, usage).map_err(|error| error.to_string()))
            {
                Ok(entry) => {
                    let place = Indexes::place(&entry.state.lock().definition);
                    self.indexes.entries.write().insert(place, Arc::new(entry));
                }
                Err(error) => {
                    tracing::error!(index = %id, %collection, error, "could not read the definition of a metadata index; it is not used");
                }
            }
        }
        self.indexes.is_open.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Puts what is known of an index into the store; of one that is not new, only if it is still there.
    pub(super) fn save_index(&self, entry: &Entry, state: &State, is_new: bool) -> Result<(), Error> {
        let kept = Kept {
            definition: state.definition.clone(),
            serving: state.serving.as_ref().map(|(generation, definition, _)| (*generation, definition.clone())),
            building: state.building.as_ref().map(|(generation, _)| *generation),
            last_build: state.last_build,
            outcome: state.outcome,
            error: state.error.clone(),
            created_at: entry.created_at,
            built_at: state.built_at,
            verified_at: state.verified_at,
        };
        let text = serde_json::to_string(&kept).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.store.change_tables(&mut |connection| {
            let sql = if is_new {
                "INSERT INTO metadata_indexes_definitions VALUES (?1, ?2, ?3)"
            } else {
                "UPDATE metadata_indexes_definitions SET collection = ?2, state = ?3 WHERE id = ?1"
            };
            connection
                .prepare_cached(sql)?
                .execute(params![entry.id.into_bytes(), entry.collection.into_bytes(), text])
                .map(drop)
        })?)
    }

    pub(super) fn delete_index_row(&self, id: Uuid) -> Result<(), Error> {
        Ok(self.store.change_tables(&mut |connection| {
            for table in ["definitions", "usage"] {
                let sql = format!("DELETE FROM metadata_indexes_{table} WHERE id = ?1");
                connection.prepare_cached(&sql)?.execute([id.into_bytes()])?;
            }
            Ok(())
        })?)
    }

    /// Puts into the store how often indexes were used, of those where that changed.
    pub(crate) fn save_usage(&self) -> Result<(), Error> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let changed: Vec<Arc<Entry>> = self
            .indexes
            .all()
            .into_iter()
            .filter(|entry| read(&entry.usage.uses) != read(&entry.usage.saved))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        // Counters alone are no reason for a backup.
        self.store.touch_tables(&mut |connection| {
            let mut statement = connection
                .prepare_cached("INSERT OR REPLACE INTO metadata_indexes_usage VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for entry in &changed {
                let Usage { uses, rows, last_used, since, saved } = &entry.usage;
                let [uses, rows, last_used, since] =
                    [uses, rows, last_used, since].map(|counter| read(counter).cast_signed());
                statement.execute(params![entry.id.into_bytes(), uses, rows, last_used, since])?;
                saved.store(uses.cast_unsigned(), Ordering::Relaxed);
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn entry(id: Uuid, row: &ochre_store::CollectionRow, kept: Kept, usage: [i64; 4]) -> Result<Entry, Error> {
    let shape = |definition: &IndexDefinition| definition.shape(id).map(Arc::new);
    let serving =
        kept.serving.map(|(generation, definition)| Ok::<_, Error>((generation, shape(&definition)?, definition)));
    let serving = serving.transpose()?.map(|(generation, shape, definition)| (generation, definition, shape));
    let building =
        kept.building.map(|generation| Ok::<_, Error>((generation, shape(&kept.definition)?))).transpose()?;
    let [uses, rows, last_used, since] = usage.map(|number| AtomicU64::new(number.cast_unsigned()));
    let since =
        if since.load(Ordering::Relaxed) == 0 { AtomicU64::new(kept.created_at.cast_unsigned()) } else { since };
    let saved = AtomicU64::new(uses.load(Ordering::Relaxed));
    Ok(Entry {
        id,
        collection: row.id,
        number: row.number,
        created_at: kept.created_at,
        state: Mutex::new(State {
            definition: kept.definition,
            serving,
            building,
            last_build: kept.last_build,
            outcome: kept.outcome,
            error: kept.error,
            built_at: kept.built_at,
            verified_at: kept.verified_at,
            progress: None,
        }),
        showing: Mutex::default(),
        usage: Usage { uses, rows, last_used, since, saved },
        uncoverable: AtomicUsize::new(0),
    })
}
