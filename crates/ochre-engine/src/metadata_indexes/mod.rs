//! Declared indexes of metadata: their definitions, what became of them, and how often they were used.
//!
//! Invariants:
//! - A definition is in the store before anything is built, and gone from it before anything is removed.
//! - Files belong to a build (generation) of an index; a build serves once the store says that it is complete.
//! - An index changes no answer: what it does not cover is looked up in the columns.

mod admin;
mod advice;
mod automatic;
mod build;
mod definition;
mod explain;
mod policy;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ochre_index::{CompositeIndex, Considered, IndexColumn, IndexShape, Reason};
use ochre_scheduler::Task;
use ochre_store::{CollectionNumber, CollectionRow};
use parking_lot::{Mutex, MutexGuard, RwLock};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use self::advice::Workload;
pub use self::definition::IndexDefinition;
pub use self::explain::Explain;
pub(crate) use self::explain::Measured;
pub use self::policy::UnindexedFilters;
use crate::database::{Database, Inner};
use crate::error::Error;
use crate::extension::{StoreExtension, WeakDatabase};
use crate::maintenance::Home;
use crate::maintenance::metadata_indexes::MetadataIndexes;
use crate::schemas::unix_seconds;

/// A collection has at most so many indexes.
const INDEXES_PER_COLLECTION_MAX: usize = 64;
/// The extension, and its job, which builds indexes and keeps them up to date.
pub(crate) const METADATA_INDEXES: &str = "metadata-indexes";

/// Where an index is to be found by name.
type Place = (String, String, String);

/// The extension of the store that declared indexes are.
pub(crate) struct Extension;

impl StoreExtension for Extension {
    fn name(&self) -> &'static str {
        METADATA_INDEXES
    }

    fn migrations(&self) -> &'static [&'static str] {
        &table::MIGRATIONS
    }

    fn tasks(&self, database: &WeakDatabase) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(MetadataIndexes(Home(database.0.clone())))]
    }

    fn opened(&self, database: &Database) -> Result<(), Error> {
        database.inner.load_definitions()
    }

    fn deleted(&self, database: &Database, collection: Option<Uuid>) {
        database.inner.forget_indexes(collection);
    }
}

/// The declared indexes of a database.
#[derive(Default)]
pub(crate) struct Indexes {
    /// Whether the extension was opened: without, there is nowhere to declare any.
    is_open: AtomicBool,
    entries: RwLock<BTreeMap<Place, Arc<Entry>>>,
    workload: Workload,
    /// Held while definitions change.
    changing: Mutex<()>,
    /// Held by whoever makes segments.
    working: Mutex<()>,
}

/// A declared index.
pub(crate) struct Entry {
    pub(crate) id: Uuid,
    pub(crate) collection: Uuid,
    pub(crate) number: CollectionNumber,
    created_at: i64,
    state: Mutex<State>,
    /// Held while views are shown what became of it: whoever reads that it is ready finds views that use it.
    showing: Mutex<()>,
    usage: Usage,
    /// Records that stayed outside when it was brought up to date: they have too many keys.
    uncoverable: AtomicUsize,
}

/// What became of an index.
#[derive(Clone)]
struct State {
    definition: IndexDefinition,
    /// What the build that serves is of, once there is one.
    serving: Option<(u64, IndexDefinition, Arc<IndexShape>)>,
    /// The build under way, and what it is of.
    building: Option<(u64, Arc<IndexShape>)>,
    /// The number of the newest build: no other ever has it.
    last_build: u64,
    /// How the last build ended, if none is under way.
    outcome: BuildOutcome,
    error: Option<String>,
    built_at: Option<i64>,
    verified_at: Option<i64>,
    /// Records done, of so many, and when it began; while it is being built.
    progress: Option<(usize, usize, i64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum BuildOutcome {
    Ready,
    Failed,
    Cancelled,
    Invalid,
}

/// How often an index was used, since when.
#[derive(Default)]
struct Usage {
    uses: AtomicU64,
    rows: AtomicU64,
    last_used: AtomicU64,
    since: AtomicU64,
    /// What of it is in the store.
    saved: AtomicU64,
}

/// Which indexes to list.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "only those of it")]
pub struct IndexSelection {
    pub tenant: Option<String>,
    pub database: Option<String>,
    /// By name or id.
    pub collection: Option<String>,
    pub status: Option<String>,
}

/// What asking for an index did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexChange {
    /// It is being built.
    Building,
    /// It was changed in place.
    Changed,
    /// It is as asked for already.
    Nothing,
}

impl State {
    fn status(&self) -> &'static str {
        match (&self.building, &self.serving, self.outcome) {
            (Some(_), Some(_), _) => "rebuilding",
            (Some(_), None, _) if self.progress.is_some() => "building",
            (Some(_), None, _) => "pending",
            (None, _, BuildOutcome::Invalid) => "invalid",
            (None, Some(_), _) => "ready",
            (None, None, BuildOutcome::Failed) => "failed",
            (None, None, _) => "cancelled",
        }
    }
}

impl Indexes {
    fn of(&self, number: CollectionNumber) -> Vec<Arc<Entry>> {
        self.entries.read().values().filter(|entry| entry.number == number).cloned().collect()
    }

    /// The names of a collection's indexes.
    pub(crate) fn names(&self, number: CollectionNumber) -> Vec<String> {
        self.of(number).iter().map(|entry| entry.state.lock().definition.index_name.clone()).collect()
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        self.entries.read().values().cloned().collect()
    }

    fn find(&self, tenant: &str, database: &str, name: &str) -> Result<Arc<Entry>, Error> {
        let entries = self.entries.read();
        let place = (tenant.to_owned(), database.to_owned(), name.to_owned());
        entries.get(&place).cloned().ok_or_else(|| {
            let known =
                entries.keys().filter(|(t, d, _)| t == tenant && d == database).map(|(_, _, name)| name.as_str());
            let hint =
                ochre_scheduler::nearest(name, known).map_or(String::new(), |near| format!("; did you mean '{near}'?"));
            Error::NotFound(format!(
                "there is no metadata index '{name}' in database '{database}' of tenant '{tenant}'{hint}"
            ))
        })
    }

    /// Counts what a filter used of indexes, and how long it took without.
    pub(crate) fn used(&self, number: CollectionNumber, considered: &[Considered], found: usize) {
        for used in considered.iter().filter(|considered| considered.reason == Reason::Used) {
            for entry in self.entries.read().values().filter(|entry| entry.number == number) {
                if entry.state.lock().definition.index_name == used.index {
                    entry.usage.uses.fetch_add(1, Ordering::Relaxed);
                    entry.usage.rows.fetch_add(found as u64, Ordering::Relaxed);
                    entry.usage.last_used.store(unix_seconds().cast_unsigned(), Ordering::Relaxed);
                }
            }
        }
    }

    /// Keeps anybody from making segments.
    pub(crate) fn hold_work(&self) -> MutexGuard<'_, ()> {
        self.working.lock()
    }

    /// What is asked of collections, by the shape of filters.
    pub(crate) fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The index that is defined just like this, if it exists.
    fn existing(&self, definition: &IndexDefinition) -> Result<Option<Arc<Entry>>, Error> {
        let existing = self.entries.read().get(&Self::place(definition)).cloned();
        if existing.as_ref().is_none_or(|existing| existing.state.lock().definition == *definition) {
            return Ok(existing);
        }
        Err(Error::Conflict(format!(
            "index_name: there is an index '{}' already, defined otherwise; choose another name, or change it with PUT",
            definition.index_name
        )))
    }

    fn place(definition: &IndexDefinition) -> Place {
        (definition.tenant.clone(), definition.database.clone(), definition.index_name.clone())
    }
}

impl Entry {
    fn new(id: Uuid, row: &CollectionRow, definition: IndexDefinition, shape: Arc<IndexShape>) -> Self {
        let now = unix_seconds();
        Self {
            id,
            collection: row.id,
            number: row.number,
            created_at: now,
            state: Mutex::new(State {
                definition,
                serving: None,
                building: Some((1, shape)),
                last_build: 1,
                outcome: BuildOutcome::Ready,
                error: None,
                built_at: None,
                verified_at: None,
                progress: None,
            }),
            showing: Mutex::default(),
            usage: Usage { since: AtomicU64::new(now.cast_unsigned()), ..Usage::default() },
            uncoverable: AtomicUsize::new(0),
        }
    }

    /// The builds that a view should have, and whether each serves.
    fn builds(&self) -> Vec<(u64, Arc<IndexShape>, bool, bool)> {
        let state = self.state.lock();
        let is_hidden = state.definition.hidden;
        let is_sound = state.outcome != BuildOutcome::Invalid;
        let serving =
            state.serving.iter().filter(|_| is_sound).map(|(generation, _, shape)| (*generation, shape, true));
        let building = state.building.iter().map(|(generation, shape)| (*generation, shape, false));
        serving
            .chain(building)
            .map(|(generation, shape, serves)| (generation, Arc::clone(shape), is_hidden, serves))
            .collect()
    }
}

impl Inner {
    /// Makes the indexes of a view that is being loaded, without their segments.
    fn empty_indexes(&self, row: &CollectionRow) -> Vec<(CompositeIndex, bool)> {
        let entries = self.indexes.of(row.number);
        let builds = entries.iter().flat_map(|entry| entry.builds());
        builds
            .map(|(generation, shape, is_hidden, serves)| (CompositeIndex::new(shape, generation, is_hidden), serves))
            .collect()
    }

    /// The collection that a definition names.
    fn indexed_collection(&self, definition: &IndexDefinition) -> Result<Arc<CollectionRow>, Error> {
        if !self.indexes.is_open.load(Ordering::Relaxed) {
            return Err(Error::Conflict(format!(
                "the database was opened without the store extension '{METADATA_INDEXES}', so no index can be declared"
            )));
        }
        let IndexDefinition { tenant, database, collection, index_name, .. } = definition;
        if collection.is_empty() {
            return Err(Error::Invalid(format!("collection: index '{index_name}' names none; give its name or id")));
        }
        if let Some(row) = self.store.collection(tenant, database, collection)? {
            return Ok(Arc::new(row));
        }
        if let Ok(id) = Uuid::parse_str(collection)
            && let Ok(row) = self.row(id)
            && row.tenant == *tenant
            && row.database == *database
        {
            return Ok(row);
        }
        Err(Error::NotFound(format!(
            "collection: there is no collection '{collection}' in database '{database}' of tenant '{tenant}'"
        )))
    }

    /// Refuses more indexes than a collection may have.
    fn check_room(&self, row: &CollectionRow, more: usize) -> Result<(), Error> {
        if self.indexes.of(row.number).len() + more > INDEXES_PER_COLLECTION_MAX {
            return Err(Error::Invalid(format!(
                "collection '{}' would have more than {INDEXES_PER_COLLECTION_MAX} indexes, the limit; delete some first",
                row.name
            )));
        }
        Ok(())
    }

    /// Refuses a key that no record ever had, in a collection that has records: it is a slip most likely.
    fn check_columns(&self, row: &CollectionRow, shape: &IndexShape) -> Result<(), Error> {
        let view = self.view(row)?;
        if view.live().is_empty() {
            return Ok(());
        }
        let declared = self.schemas.of(row).ok().flatten();
        for column in &shape.columns {
            let (IndexColumn::Key(key) | IndexColumn::Elements(key)) = column else { continue };
            let is_declared = declared.as_ref().is_some_and(|schema| schema.property(key).is_some());
            if is_declared || view.keys().any(|(known, _)| known == key) {
                continue;
            }
            let near = ochre_scheduler::nearest(key, view.keys().map(|(key, _)| key));
            let hint = near.map_or_else(
                || "write a record with it first, or declare it in the schema".to_owned(),
                |near| format!("did you mean {near:?}?"),
            );
            return Err(Error::Invalid(format!(
                "columns: no record of collection '{}' has the key {key:?}; {hint}",
                row.name
            )));
        }
        Ok(())
    }

    fn describe_index(&self, entry: &Entry) -> Json {
        let (state, view) = {
            let _showing = entry.showing.lock();
            let view = self.loaded.read().get(&entry.number).and_then(|loaded| loaded.view());
            (entry.state.lock().clone(), view)
        };
        let definition = &state.definition;
        let row = self.row(entry.collection).ok();
        let served = state
            .serving
            .as_ref()
            .and_then(|(generation, ..)| view.as_ref()?.index(entry.id.into_bytes(), *generation));
        let segments = served.map(|index| index.segments().iter().map(|(segment, _)| segment).collect::<Vec<_>>());
        let sum = |of: &dyn Fn(&ochre_index::CompositeSegment) -> usize| {
            segments.as_ref().map(|segments| segments.iter().map(|segment| of(segment)).sum::<usize>())
        };
        let generation = state.serving.as_ref().map(|(generation, ..)| *generation);
        let progress = state.progress.map(|(done, total, began)| {
            let elapsed = (unix_seconds() - began).max(0);
            json!({
                "phase": "collecting", "done": done, "total": total, "started": began, "elapsed_seconds": elapsed,
                "eta_seconds": (done > 0).then(|| elapsed * (total.saturating_sub(done)) as i64 / done as i64),
            })
        });
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut shown = serde_json::to_value(definition).unwrap_or_default();
        let more = json!({
            "id": entry.id,
            "collection": row.as_ref().map(|row| &row.name),
            "collection_id": entry.collection,
            "status": state.status(),
            "progress": progress,
            "error": state.error,
            "created_at": entry.created_at,
            "built_at": state.built_at,
            "verified_at": state.verified_at,
            "serving_columns": state.serving.as_ref().map(|(_, serving, _)| &serving.columns).filter(|columns| **columns != definition.columns),
            "statistics": {
                "bytes_on_disk": self.snapshots.index_bytes(entry.collection, entry.id, generation),
                "loaded": served.is_some(),
                "bytes_in_memory": sum(&|segment| segment.bytes()),
                "entries": sum(&|segment| segment.entries()),
                "distinct_keys": sum(&|segment| segment.keys()),
                "largest_key": segments.as_ref().map(|segments| segments.iter().map(|segment| segment.largest()).max().unwrap_or(0)),
                "segments": segments.as_ref().map(Vec::len),
                "records_indexed": served.map(|index| index.covered().len()),
                "records": view.as_ref().map(|view| view.live().len()),
            },
            "usage": {
                "uses": read(&entry.usage.uses),
                "rows": read(&entry.usage.rows),
                "last_used": Some(read(&entry.usage.last_used)).filter(|at| *at > 0),
                "since": read(&entry.usage.since),
            },
        });
        if let (Some(shown), Json::Object(more)) = (shown.as_object_mut(), more) {
            shown.extend(more);
        }
        shown
    }

    /// Lets the views of a collection have the builds that its index should have.
    fn show_builds(&self, entry: &Entry) {
        let kept: Vec<u64> = entry.builds().iter().map(|(generation, ..)| *generation).collect();
        self.snapshots.remove_index_files(entry.collection, entry.id, &kept);
        let Some(loaded) = self.loaded.read().get(&entry.number).cloned() else { return };
        let id = entry.id.into_bytes();
        loaded.change(|view| {
            // As it is now: two changes must not overtake each other.
            let builds = entry.builds();
            view.remove_index(id, |generation| builds.iter().all(|(other, ..)| *other != generation));
            for (generation, shape, is_hidden, serves) in &builds {
                if view.index(id, *generation).is_none() {
                    view.add_index(CompositeIndex::new(Arc::clone(shape), *generation, *is_hidden));
                }
                if *serves {
                    view.ready_index(id, *generation);
                }
                view.hide_index(id, *is_hidden);
            }
        });
    }

    /// Lets a view that was just loaded have the builds that its indexes should have by now; whether it has any.
    pub(crate) fn show_all_builds(&self, number: CollectionNumber) -> bool {
        let entries = self.indexes.of(number);
        entries.iter().for_each(|entry| self.show_builds(entry));
        !entries.is_empty()
    }

    /// Changes what is known of an index, first in the store, then here and in the views, or not at all.
    fn change_index<T>(&self, entry: &Entry, change: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let mut next = entry.state.lock().clone();
        let changed = change(&mut next);
        self.save_index(entry, &next, false)?;
        let _showing = entry.showing.lock();
        {
            let mut state = entry.state.lock();
            let build = |state: &State| state.building.as_ref().map(|(generation, _)| *generation);
            if build(&state) == build(&next) {
                // A build that goes on has gone on.
                next.progress = state.progress;
            }
            *state = next;
        }
        self.show_builds(entry);
        Ok(changed)
    }

    /// Begins a build of an index in place of one that is under way.
    fn begin_build(&self, entry: &Entry, definition: IndexDefinition, shape: Arc<IndexShape>) -> Result<(), Error> {
        self.change_index(entry, |state| {
            state.definition = definition;
            state.last_build += 1;
            (state.building, state.progress, state.error) = (Some((state.last_build, shape)), None, None);
        })?;
        self.signals.wake(METADATA_INDEXES);
        Ok(())
    }

    /// Forgets the indexes of a collection that is gone.
    pub(crate) fn forget_indexes(&self, collection: Option<Uuid>) {
        let _changing = self.indexes.changing.lock();
        let gone: Vec<Arc<Entry>> = {
            let mut entries = self.indexes.entries.write();
            let is_gone = |entry: &Entry| collection.is_none_or(|id| entry.collection == id);
            let gone = entries.values().filter(|entry| is_gone(entry)).cloned().collect();
            entries.retain(|_, entry| !is_gone(entry));
            gone
        };
        for entry in gone {
            // What cannot be deleted now is, when the database is opened: its collection is gone.
            if let Err(error) = self.delete_index_row(entry.id) {
                tracing::warn!(index = %entry.id, %error, "could not forget the index of a deleted collection yet");
            }
        }
    }
}
