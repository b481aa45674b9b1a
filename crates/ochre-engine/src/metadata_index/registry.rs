//! The registry of declared indexes: what is declared by name, its entry for each collection, and how often it is used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ochre_index::{Considered, IndexShape, Reason};
use ochre_store::{CollectionNumber, CollectionRow};
use parking_lot::{Mutex, MutexGuard, RwLock};
use uuid::Uuid;

use crate::error::Error;
use crate::metadata_index::definition::IndexDefinition;
use crate::metadata_index::status::{IndexOrigin, IndexStatistics, IndexStatus};
use crate::metadata_index::workload::Workload;
use crate::schemas::unix_seconds;

/// A collection has at most so many indexes.
pub(crate) const INDEXES_PER_COLLECTION_MAX: usize = 64;
/// The extension, and its job, which builds indexes and keeps them up to date.
pub(crate) const METADATA_INDEXES: &str = "metadata-indexes";

/// Where an index is to be found by name.
pub(crate) type IndexKey = (String, String, String);

/// The declared indexes of a database.
#[derive(Default)]
pub(crate) struct Registry {
    /// Whether the extension was opened: without, there is nowhere to declare any.
    pub(crate) is_open: AtomicBool,
    pub(crate) declared: RwLock<Declarations>,
    /// Whether collections may lack an entry for an index of their database.
    pub(crate) has_unsettled: AtomicBool,
    pub(crate) workload: Workload,
    /// Held while definitions change.
    pub(crate) changing: Mutex<()>,
    /// Held by whoever makes segments.
    pub(crate) working: Mutex<()>,
}

/// What is declared.
#[derive(Default)]
pub(crate) struct Declarations {
    pub(crate) names: BTreeMap<IndexKey, Declared>,
    pub(crate) entries: BTreeMap<CollectionNumber, Vec<Arc<Entry>>>,
}

/// What has a name: an index of one collection, or of every collection of a database.
#[derive(Clone)]
pub(crate) enum Declared {
    Collection(Arc<Entry>),
    Database(Arc<DatabaseIndex>),
}

/// An index that every collection of a database has.
pub(crate) struct DatabaseIndex {
    pub(crate) id: Uuid,
    pub(crate) created_at: i64,
    /// It names no collection.
    pub(crate) definition: Mutex<IndexDefinition>,
}

/// An index of a collection.
pub(crate) struct Entry {
    pub(crate) id: Uuid,
    /// The index of the database that it belongs to, if it was not declared for the collection.
    pub(crate) database_index: Option<Uuid>,
    pub(crate) collection: Uuid,
    pub(crate) number: CollectionNumber,
    pub(crate) created_at: i64,
    pub(crate) state: Mutex<State>,
    /// Held while views are shown what became of it: whoever reads that it is ready finds views that use it.
    pub(crate) showing: Mutex<()>,
    pub(crate) usage: Usage,
    /// Records that stayed outside when it was brought up to date: they have too many keys.
    pub(crate) uncoverable: AtomicUsize,
    /// Whether its files were missing or damaged when the collection was loaded.
    pub(crate) is_discarded: AtomicBool,
}

/// What became of an index.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) definition: IndexDefinition,
    pub(crate) origin: IndexOrigin,
    /// What the build that serves is of, once there is one.
    pub(crate) serving: Option<(u64, IndexDefinition, Arc<IndexShape>)>,
    /// The build under way, and what it is of.
    pub(crate) building: Option<(u64, Arc<IndexShape>)>,
    /// The number of the newest build: no other ever has it.
    pub(crate) last_build: u64,
    /// How the last build ended, if none is under way.
    pub(crate) outcome: BuildOutcome,
    pub(crate) error: Option<String>,
    pub(crate) built_at: Option<i64>,
    pub(crate) verified_at: Option<i64>,
    /// Records done, of so many, and when it began; while it is being built.
    pub(crate) progress: Option<(usize, usize, i64)>,
    /// What it came to when it was last brought up to date, for as long as the collection is not loaded.
    pub(crate) statistics: Option<IndexStatistics>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BuildOutcome {
    Ready,
    Failed,
    Cancelled,
    Invalid,
}

/// How often an index was used, since when.
#[derive(Default)]
pub(crate) struct Usage {
    pub(crate) uses: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) last_used: AtomicU64,
    pub(crate) since: AtomicU64,
    /// What of it is in the store.
    pub(crate) saved: AtomicU64,
}

/// Which indexes to list.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "only those of it")]
pub struct IndexSelection {
    pub tenant: Option<String>,
    pub database: Option<String>,
    /// By name or id.
    pub collection: Option<String>,
    pub status: Option<IndexStatus>,
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
    pub(crate) fn begin_build(&mut self, definition: IndexDefinition, shape: Arc<IndexShape>) {
        self.definition = definition;
        self.last_build += 1;
        (self.building, self.progress, self.error) = (Some((self.last_build, shape)), None, None);
    }

    /// Makes it what a definition says that has the same records in the same order: no build is needed.
    pub(crate) fn describe(&mut self, definition: IndexDefinition) {
        let renamed = |shape: &mut Arc<IndexShape>| Arc::make_mut(shape).name.clone_from(&definition.index_name);
        if let Some((_, served, shape)) = &mut self.serving {
            served.index_name.clone_from(&definition.index_name);
            renamed(shape);
        }
        self.building.iter_mut().for_each(|(_, shape)| renamed(shape));
        self.definition = definition;
    }

    pub(crate) fn status(&self) -> IndexStatus {
        match (&self.building, &self.serving, self.outcome) {
            (Some(_), Some(_), _) => IndexStatus::Rebuilding,
            (Some(_), None, _) if self.progress.is_some() => IndexStatus::Building,
            (Some(_), None, _) => IndexStatus::Pending,
            (None, _, BuildOutcome::Invalid) => IndexStatus::Invalid,
            (None, Some(_), _) => IndexStatus::Ready,
            (None, None, BuildOutcome::Failed) => IndexStatus::Failed,
            (None, None, _) => IndexStatus::Cancelled,
        }
    }
}

impl Usage {
    /// Begins to count again.
    pub(crate) fn reset(&self) {
        let now = unix_seconds().cast_unsigned();
        [(&self.uses, 0), (&self.rows, 0), (&self.last_used, 0), (&self.since, now)]
            .into_iter()
            .for_each(|(counter, value)| counter.store(value, Ordering::Relaxed));
    }
}

impl Declarations {
    /// Adds an entry; its name is its own unless it belongs to an index of a database.
    pub(crate) fn insert(&mut self, entry: Arc<Entry>) {
        if entry.database_index.is_none() {
            let place = entry.place();
            self.names.insert(place, Declared::Collection(Arc::clone(&entry)));
        }
        self.entries.entry(entry.number).or_default().push(entry);
    }

    /// Removes the entries that `is_gone` names, and those of their names that are their own.
    pub(crate) fn remove(&mut self, is_gone: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
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

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values().flatten()
    }
}

impl Declared {
    pub(crate) fn id(&self) -> Uuid {
        match self {
            Self::Collection(entry) => entry.id,
            Self::Database(index) => index.id,
        }
    }

    /// What it is declared to be now.
    pub(crate) fn definition(&self) -> IndexDefinition {
        match self {
            Self::Collection(entry) => entry.state.lock().definition.clone(),
            Self::Database(index) => index.definition.lock().clone(),
        }
    }
}

impl Registry {
    pub(crate) fn of(&self, number: CollectionNumber) -> Vec<Arc<Entry>> {
        self.declared.read().entries.get(&number).cloned().unwrap_or_default()
    }

    /// The names of a collection's indexes.
    pub(crate) fn names(&self, number: CollectionNumber) -> Vec<String> {
        self.of(number).iter().map(|entry| entry.state.lock().definition.index_name.clone()).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.declared.read().all().cloned().collect()
    }

    /// The indexes that are declared, each once, by tenant, database and name.
    pub(crate) fn all_declared(&self) -> Vec<Declared> {
        self.declared.read().names.values().cloned().collect()
    }

    pub(crate) fn find(&self, tenant: &str, database: &str, name: &str) -> Result<Declared, Error> {
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

    /// The indexes that every collection of a database has.
    pub(crate) fn of_database(&self, tenant: &str, database: &str) -> Vec<Arc<DatabaseIndex>> {
        let declared = self.declared.read();
        let own = declared.names.iter().filter(|((of, name, _), _)| of == tenant && name == database);
        own.filter_map(|(_, declared)| match declared {
            Declared::Database(index) => Some(Arc::clone(index)),
            Declared::Collection(_) => None,
        })
        .collect()
    }

    /// The entries of an index of a database.
    pub(crate) fn entries_of(&self, index: Uuid) -> Vec<Arc<Entry>> {
        self.declared.read().all().filter(|entry| entry.database_index == Some(index)).cloned().collect()
    }

    /// The entries of whatever has a name.
    pub(crate) fn entries(&self, declared: &Declared) -> Vec<Arc<Entry>> {
        match declared {
            Declared::Collection(entry) => vec![Arc::clone(entry)],
            Declared::Database(index) => self.entries_of(index.id),
        }
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
    pub(crate) fn existing(&self, definition: &IndexDefinition) -> Result<Option<Declared>, Error> {
        let existing = self.declared.read().names.get(&Self::place(definition)).cloned();
        if existing.as_ref().is_none_or(|existing| existing.definition() == *definition) {
            return Ok(existing);
        }
        Err(Self::taken(&definition.index_name))
    }

    pub(crate) fn taken(name: &str) -> Error {
        Error::Conflict(format!(
            "index_name: there is an index '{name}' already, defined otherwise; choose another name, or change it with PUT"
        ))
    }

    pub(crate) fn place(definition: &IndexDefinition) -> IndexKey {
        (definition.tenant.clone(), definition.database.clone(), definition.index_name.clone())
    }
}

impl Entry {
    pub(crate) fn new(
        database_index: Option<Uuid>, row: &CollectionRow, definition: &IndexDefinition, origin: IndexOrigin,
    ) -> Result<Self, Error> {
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
                origin,
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

    pub(crate) fn place(&self) -> IndexKey {
        Registry::place(&self.state.lock().definition)
    }

    /// The builds that a view should have, and whether each serves.
    pub(crate) fn builds(&self) -> Vec<(u64, Arc<IndexShape>, bool, bool)> {
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
