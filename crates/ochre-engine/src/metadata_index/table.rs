//! Where definitions and usage are kept: tables of their own beside everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ochre_store::rusqlite::{self, params};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::automatic::AUTOMATIC;
use crate::metadata_index::definition::IndexDefinition;
use crate::metadata_index::registry::{BuildOutcome, DatabaseIndex, Declared, Entry, Registry, State, Usage};
use crate::metadata_index::status::{IndexOrigin, IndexStatistics};

pub(super) const MIGRATIONS: [&str; 2] = [
    "
CREATE TABLE metadata_indexes_definitions (id BLOB PRIMARY KEY, collection BLOB NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE metadata_indexes_usage (
    id BLOB PRIMARY KEY, uses INTEGER NOT NULL, rows INTEGER NOT NULL, last_used INTEGER NOT NULL, since INTEGER NOT NULL
) WITHOUT ROWID;
",
    "
CREATE TABLE metadata_indexes_databases (id BLOB PRIMARY KEY, created_at INTEGER NOT NULL, definition TEXT NOT NULL) WITHOUT ROWID;
",
];

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
    /// The index of the database that it belongs to.
    #[serde(default)]
    database_index: Option<Uuid>,
    #[serde(default)]
    statistics: Option<IndexStatistics>,
    /// Absent in what older versions wrote.
    #[serde(default)]
    origin: Option<IndexOrigin>,
}

impl MetadataIndexes {
    /// Reads what indexes are declared. Those of collections and databases that are gone are forgotten.
    pub(crate) fn load_definitions(&self) -> Result<(), Error> {
        let database_indexes = self.load_database_indexes()?;
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
            let row = match self.collections.catalog.row(collection) {
                Ok(row) => row,
                Err(error) if error.not_found().is_some() => {
                    self.delete_rows(&[id], false)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match serde_json::from_str::<Kept>(&text)
                .map_err(|error| error.to_string())
                .and_then(|kept| entry(id, &row, kept, usage).map_err(|error| error.to_string()))
            {
                Ok(entry) if entry.database_index.is_some_and(|index| !database_indexes.contains(&index)) => {
                    self.delete_rows(&[id], false)?;
                }
                Ok(entry) => self.registry.declared.write().insert(Arc::new(entry)),
                Err(error) => {
                    tracing::error!(index = %id, %collection, error, "could not read the definition of a metadata index; it is not used");
                }
            }
        }
        self.registry.is_open.store(true, Ordering::Relaxed);
        if let Err(error) = self.settle_all() {
            // The job tries again; what is stored can be read meanwhile.
            tracing::warn!(%error, "some collections lack an index of their database yet");
        }
        Ok(())
    }

    /// Reads what indexes of databases are declared; their ids.
    fn load_database_indexes(&self) -> Result<Vec<Uuid>, Error> {
        let mut found: Vec<(Uuid, i64, String)> = Vec::new();
        self.store.read_tables(&mut |connection| {
            let mut statement =
                connection.prepare("SELECT id, created_at, definition FROM metadata_indexes_databases")?;
            let rows = statement.query_map([], |row| Ok((Uuid::from_bytes(row.get(0)?), row.get(1)?, row.get(2)?)))?;
            found = rows.collect::<rusqlite::Result<_>>()?;
            Ok(())
        })?;
        let mut ids = Vec::new();
        for (id, created_at, text) in found {
            // Its entries stay, whatever can be read of it.
            ids.push(id);
            let read = serde_json::from_str::<IndexDefinition>(&text).map_err(|error| error.to_string());
            let read = read.and_then(|definition| match definition.shape(id) {
                Ok(_) => Ok(definition),
                Err(error) => Err(error.to_string()),
            });
            let definition = match read {
                Ok(definition) => definition,
                Err(error) => {
                    tracing::error!(index = %id, error, "could not read the definition of a database's metadata index; it is not used");
                    continue;
                }
            };
            if self.store.database(&definition.tenant, &definition.database)?.is_none() {
                self.delete_rows(&[id], false)?;
                continue;
            }
            let place = Registry::place(&definition);
            let index = DatabaseIndex { id, created_at, definition: Mutex::new(definition) };
            self.registry.declared.write().names.insert(place, Declared::Database(Arc::new(index)));
        }
        Ok(ids)
    }

    /// Puts what is known of entries into the store, in one transaction; of those that are no more, nothing. With them
    /// what the index of a database is declared to be.
    pub(super) fn save_entries(
        &self, changes: &[(Arc<Entry>, State)], of: Option<&DatabaseIndex>,
    ) -> Result<(), Error> {
        let rows: Vec<_> = changes.iter().map(|(entry, state)| row(entry, state)).collect::<Result<_, _>>()?;
        let of = of.map(database_row).transpose()?;
        Ok(self.store.change_tables(&mut |connection| {
            if let Some((id, _, text)) = &of {
                let sql = "UPDATE metadata_indexes_databases SET definition = ?2 WHERE id = ?1";
                connection.execute(sql, params![id, text])?;
            }
            let sql = "UPDATE metadata_indexes_definitions SET collection = ?2, state = ?3 WHERE id = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            rows.iter()
                .try_for_each(|(id, collection, text)| statement.execute(params![id, collection, text]).map(drop))
        })?)
    }

    /// Puts new entries and a new index of a database into the store in place of others, in one transaction.
    pub(super) fn replace_rows(
        &self, gone: &[Uuid], new: &[Arc<Entry>], of: Option<&DatabaseIndex>,
    ) -> Result<(), Error> {
        let rows: Vec<_> = new.iter().map(|entry| row(entry, &entry.state.lock())).collect::<Result<_, _>>()?;
        let of = of.map(database_row).transpose()?;
        Ok(self.store.change_tables(&mut |connection| {
            delete(connection, gone)?;
            if let Some((id, created_at, text)) = &of {
                let sql = "INSERT INTO metadata_indexes_databases VALUES (?1, ?2, ?3)";
                connection.execute(sql, params![id, created_at, text])?;
            }
            let mut statement =
                connection.prepare_cached("INSERT INTO metadata_indexes_definitions VALUES (?1, ?2, ?3)")?;
            rows.iter()
                .try_for_each(|(id, collection, text)| statement.execute(params![id, collection, text]).map(drop))
        })?)
    }

    /// Deletes the rows of entries and indexes of databases; with `all`, every index of a database.
    pub(super) fn delete_rows(&self, ids: &[Uuid], all: bool) -> Result<(), Error> {
        if ids.is_empty() && !all {
            return Ok(());
        }
        Ok(self.store.change_tables(&mut |connection| {
            if all {
                connection.execute("DELETE FROM metadata_indexes_databases", [])?;
            }
            delete(connection, ids)
        })?)
    }

    /// Puts into the store how often indexes were used, of those where that changed.
    pub(crate) fn save_usage(&self) -> Result<(), Error> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let changed: Vec<Arc<Entry>> = self
            .registry
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

/// A row of the definitions: id, collection, state.
fn row(entry: &Entry, state: &State) -> Result<([u8; 16], [u8; 16], String), Error> {
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
        database_index: entry.database_index,
        statistics: state.statistics,
        origin: Some(state.origin),
    };
    let text = serde_json::to_string(&kept).map_err(|error| Error::invalid(error.to_string()))?;
    Ok((entry.id.into_bytes(), entry.collection.into_bytes(), text))
}

/// A row of the indexes of databases: id, when it was made, definition.
fn database_row(index: &DatabaseIndex) -> Result<([u8; 16], i64, String), Error> {
    let text = serde_json::to_string(&*index.definition.lock()).map_err(|error| Error::invalid(error.to_string()))?;
    Ok((index.id.into_bytes(), index.created_at, text))
}

/// What older versions said in the comment alone.
fn origin_of(definition: &IndexDefinition) -> IndexOrigin {
    if definition.comment.starts_with(AUTOMATIC) { IndexOrigin::Automatic } else { IndexOrigin::Declared }
}

fn delete(connection: &rusqlite::Connection, ids: &[Uuid]) -> rusqlite::Result<()> {
    for table in ["definitions", "usage", "databases"] {
        let mut statement =
            connection.prepare_cached(&format!("DELETE FROM metadata_indexes_{table} WHERE id = ?1"))?;
        ids.iter().try_for_each(|id| statement.execute([id.into_bytes()]).map(drop))?;
    }
    Ok(())
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
        database_index: kept.database_index,
        collection: row.id,
        number: row.number,
        created_at: kept.created_at,
        state: Mutex::new(State {
            origin: kept.origin.unwrap_or_else(|| origin_of(&kept.definition)),
            definition: kept.definition,
            serving,
            building,
            last_build: kept.last_build,
            outcome: kept.outcome,
            error: kept.error,
            built_at: kept.built_at,
            verified_at: kept.verified_at,
            progress: None,
            statistics: kept.statistics,
        }),
        showing: Mutex::default(),
        usage: Usage { uses, rows, last_used, since, saved },
        uncoverable: AtomicUsize::new(0),
        is_discarded: AtomicBool::new(false),
    })
}
