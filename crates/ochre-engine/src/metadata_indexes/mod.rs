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
mod database_index;
mod definition;
mod describe;
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
use serde_json::Value as Json;
use uuid::Uuid;

use self::advice::Workload;
use self::database_index::DatabaseIndex;
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
    declared: RwLock<Declarations>,
    /// Whether collections may lack an entry for an index of their database.
    has_unsettled: AtomicBool,
    workload: Workload,
    /// Held while definitions change.
    changing: Mutex<()>,
    /// Held by whoever makes segments.
    working: Mutex<()>,
}

/// What is declared.
#[derive(Default)]
struct Declarations {
    names: BTreeMap<Place, Declared>,
    entries: BTreeMap<CollectionNumber, Vec<Arc<Entry>>>,
}

/// What has a name: an index of one collection, or of every collection of a database.
#[derive(Clone)]
enum Declared {
    Collection(Arc<Entry>),
    Database(Arc<DatabaseIndex>),
}

/// An index of a collection.
pub(crate) struct Entry {
    pub(crate) id: Uuid,
    /// The index of the database that it belongs to, if it was not declared for the collection.
    database_index: Option<Uuid>,
    pub(crate) collection: Uuid,
    pub(crate) number: CollectionNumber,
    created_at: i64,
    state: Mutex<State>,
    /// Held while views are shown what became of it: whoever reads that it is ready finds views that use it.
    showing: Mutex<()>,
    usage: Usage,
    /// Records that stayed outside when it was brought up to date: they have too many keys.
    uncoverable: AtomicUsize,
    /// Whether its files were missing or damaged when the collection was loaded.
    is_discarded: AtomicBool,
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
    /// What it came to when it was last brought up to date, for as long as the collection is not loaded.
    statistics: Option<Json>,
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
    /// Makes it what a definition says of its form, to be built beside what serves.
    fn begin_build(&mut self, definition: IndexDefinition, shape: Arc<IndexShape>) {
        self.definition = definition;
        self.last_build += 1;
        (self.building, self.progress, self.error) = (Some((self.last_build, shape)), None, None);
    }

    /// Makes it what a definition says that has the same records in the same order: no build is needed.
    fn describe(&mut self, definition: IndexDefinition) {
        let renamed = |shape: &mut Arc<IndexShape>| Arc::make_mut(shape).name.clone_from(&definition.index_name);
        if let Some((_, served, shape)) = &mut self.serving {
            served.index_name.clone_from(&definition.index_name);
            renamed(shape);
        }
        self.building.iter_mut().for_each(|(_, shape)| renamed(shape));
        self.definition = definition;
    }

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

impl Usage {
    /// Begins to count again.
    fn reset(&self) {
        let now = unix_seconds().cast_unsigned();
        [(&self.uses, 0), (&self.rows, 0), (&self.last_used, 0), (&self.since, now)]
            .into_iter()
            .for_each(|(counter, value)| counter.store(value, Ordering::Relaxed));
    }
}

impl Declarations {
    /// Adds an entry; its name is its own unless it belongs to an index of a database.
    fn insert(&mut self, entry: Arc<Entry>) {
        if entry.database_index.is_none() {
            let place = entry.place();
            self.names.insert(place, Declared::Collection(Arc::clone(&entry)));
        }
        self.entries.entry(entry.number).or_default().push(entry);
    }

    /// Removes the entries that `is_gone` names, and those of their names that are their own.
    fn remove(&mut self, is_gone: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let mut gone = Vec::new();
        self.entries.retain(|_, entries| {
            gone.extend(entries.extract_if(.., |entry| is_gone(entry)));
            !entries.is_empty()
        });
        for entry in gone.iter().filter(|entry| entry.database_index.is_none()) {
            self.names.remove(&entry.place());
        }
        gone
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values().flatten()
    }
}

impl Declared {
    fn id(&self) -> Uuid {
        match self {
            Self::Collection(entry) => entry.id,
            Self::Database(index) => index.id,
        }
    }

    /// What it is declared to be now.
    fn definition(&self) -> IndexDefinition {
        match self {
            Self::Collection(entry) => entry.state.lock().definition.clone(),
            Self::Database(index) => index.definition.lock().clone(),
        }
    }
}

impl Indexes {
    fn of(&self, number: CollectionNumber) -> Vec<Arc<Entry>> {
        self.declared.read().entries.get(&number).cloned().unwrap_or_default()
    }

    /// The names of a collection's indexes.
    pub(crate) fn names(&self, number: CollectionNumber) -> Vec<String> {
        self.of(number).iter().map(|entry| entry.state.lock().definition.index_name.clone()).collect()
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        self.declared.read().all().cloned().collect()
    }

    /// The indexes that are declared, each once, by tenant, database and name.
    fn all_declared(&self) -> Vec<Declared> {
        self.declared.read().names.values().cloned().collect()
    }

    fn find(&self, tenant: &str, database: &str, name: &str) -> Result<Declared, Error> {
        let declared = self.declared.read();
        let place = (tenant.to_owned(), database.to_owned(), name.to_owned());
        declared.names.get(&place).cloned().ok_or_else(|| {
            let known = declared
                .names
                .keys()
                .filter(|(t, d, _)| t == tenant && d == database)
                .map(|(_, _, name)| name.as_str());
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
            for entry in &self.of(number) {
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
    fn existing(&self, definition: &IndexDefinition) -> Result<Option<Declared>, Error> {
        let existing = self.declared.read().names.get(&Self::place(definition)).cloned();
        if existing.as_ref().is_none_or(|existing| existing.definition() == *definition) {
            return Ok(existing);
        }
        Err(Self::taken(&definition.index_name))
    }

    fn taken(name: &str) -> Error {
        Error::Conflict(format!(
            "index_name: there is an index '{name}' already, defined otherwise; choose another name, or change it with PUT"
        ))
    }

    fn place(definition: &IndexDefinition) -> Place {
        (definition.tenant.clone(), definition.database.clone(), definition.index_name.clone())
    }
}

impl Entry {
    fn new(database_index: Option<Uuid>, row: &CollectionRow, definition: &IndexDefinition) -> Result<Self, Error> {
        let (id, now) = (Uuid::new_v4(), unix_seconds());
        let definition = IndexDefinition { collection: Some(row.id.to_string()), ..definition.clone() };
        let shape = Arc::new(definition.shape(id)?);
        Ok(Self {
            id,
            database_index,
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
                statistics: None,
            }),
            showing: Mutex::default(),
            usage: Usage { since: AtomicU64::new(now.cast_unsigned()), ..Usage::default() },
            uncoverable: AtomicUsize::new(0),
            is_discarded: AtomicBool::new(false),
        })
    }

    fn place(&self) -> Place {
        Indexes::place(&self.state.lock().definition)
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

    /// Refuses to declare anything without the extension.
    fn check_declarable(&self) -> Result<(), Error> {
        if self.indexes.is_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "the database was opened without the store extension '{METADATA_INDEXES}', so no index can be declared"
        )))
    }

    /// The collection that a definition names, unless it is of the whole database, which exists then.
    fn indexed_collection(&self, definition: &IndexDefinition) -> Result<Option<Arc<CollectionRow>>, Error> {
        self.check_declarable()?;
        let IndexDefinition { tenant, database, collection, .. } = definition;
        let Some(collection) = collection else {
            return match self.store.database(tenant, database)? {
                Some(_) => Ok(None),
                None => {
                    Err(Error::NotFound(format!("database: there is no database '{database}' of tenant '{tenant}'")))
                }
            };
        };
        if let Some(row) = self.store.collection(tenant, database, collection)? {
            return Ok(Some(Arc::new(row)));
        }
        if let Ok(id) = Uuid::parse_str(collection)
            && let Ok(row) = self.row(id)
            && row.tenant == *tenant
            && row.database == *database
        {
            return Ok(Some(row));
        }
        Err(Error::NotFound(format!(
            "collection: there is no collection '{collection}' in database '{database}' of tenant '{tenant}'"
        )))
    }

    /// The collections that a definition is of: one, or all of its database.
    fn indexed_collections(&self, definition: &IndexDefinition) -> Result<Vec<Arc<CollectionRow>>, Error> {
        match self.indexed_collection(definition)? {
            Some(row) => Ok(vec![row]),
            None => self.collections_of(&definition.tenant, &definition.database),
        }
    }

    fn collections_of(&self, tenant: &str, database: &str) -> Result<Vec<Arc<CollectionRow>>, Error> {
        let mut rows = self.store.all_collections()?;
        rows.retain(|row| row.tenant == tenant && row.database == database);
        Ok(rows.into_iter().map(Arc::new).collect())
    }

    /// Refuses more indexes than a collection may have, its database's included.
    fn check_room(&self, row: &CollectionRow, more: usize) -> Result<(), Error> {
        self.check_room_after(row, more, 0)
    }

    /// As [`Inner::check_room`], once so many are gone.
    fn check_room_after(&self, row: &CollectionRow, more: usize, fewer: usize) -> Result<(), Error> {
        let own = self.indexes.of(row.number).iter().filter(|entry| entry.database_index.is_none()).count();
        let there = own + self.indexes.of_database(&row.tenant, &row.database).len();
        if (there + more).saturating_sub(fewer) > INDEXES_PER_COLLECTION_MAX {
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
                view.describe_index(shape, *generation, *is_hidden);
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
    fn change_index<T>(&self, entry: &Arc<Entry>, change: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let mut next = entry.state.lock().clone();
        let changed = change(&mut next);
        self.change_entries(vec![(Arc::clone(entry), next)], None)?;
        Ok(changed)
    }

    /// Changes what is known of entries, all of them or none; with them what the index of a database is declared to be.
    fn change_entries(&self, changes: Vec<(Arc<Entry>, State)>, of: Option<&DatabaseIndex>) -> Result<(), Error> {
        self.save_entries(&changes, of)?;
        for (entry, mut next) in changes {
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
            self.show_builds(&entry);
        }
        Ok(())
    }

    /// Begins builds in place of those that are under way.
    fn begin_builds(&self, entries: &[Arc<Entry>]) -> Result<(), Error> {
        let mut changes = Vec::new();
        for entry in entries {
            let mut state = entry.state.lock().clone();
            let definition = state.definition.clone();
            state.begin_build(definition, Arc::new(state.definition.shape(entry.id)?));
            changes.push((Arc::clone(entry), state));
        }
        self.change_entries(changes, None)?;
        self.signals.wake(METADATA_INDEXES);
        Ok(())
    }

    /// Forgets the indexes of a collection that is gone.
    pub(crate) fn forget_indexes(&self, collection: Option<Uuid>) {
        let _changing = self.indexes.changing.lock();
        let gone = {
            let mut declared = self.indexes.declared.write();
            if collection.is_none() {
                declared.names.clear();
            }
            declared.remove(|entry| collection.is_none_or(|id| entry.collection == id))
        };
        // What cannot be deleted now is, when the database is opened: its collection is gone.
        let ids: Vec<Uuid> = gone.iter().map(|entry| entry.id).collect();
        if let Err(error) = self.delete_rows(&ids, collection.is_none()) {
            tracing::warn!(%error, "could not forget the indexes of a deleted collection yet");
        }
    }
}
