//! Opening and closing a database, and its catalog: tenants, databases, collections.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ochre_index::Memory;
use ochre_model::{Declaration, IndexSchema, Metadata, check_collection_name, check_database_name, check_tenant_name};
use ochre_scheduler::{JobStore, Scheduler};
use ochre_store::{
    Alteration, Change, CollectionNumber, CollectionRow, Committed, DEFAULT_DATABASE, DEFAULT_TENANT, DatabaseRow,
    Debt, ExtensionTables, MemoryStore, NewCollection, Observer, Page, SqliteOptions, SqliteStore, Statistics, Store,
    Tenant, rusqlite,
};
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::backup::{Backups, Repository, UNFINISHED_RESTORE};
use crate::collection::Collection;
use crate::error::Error;
use crate::extension::{self, Commit, WeakDatabase};
use crate::governor::TrafficGovernor;
use crate::introspect::parsed;
use crate::loaded::Loaded;
use crate::maintenance::Maintenance;
use crate::metadata_indexes::Indexes;
use crate::options::Options;
use crate::residence::{Residence, segment_bytes};
use crate::schemas::{Schemas, ViolationCount};
use crate::signals::{SWEEP, Signals};
use crate::snapshot::Snapshots;
use crate::traffic::Traffic;

/// An open database. Cheap to clone; all clones are the same database. It closes with the last clone,
/// or by [`Database::close`].
#[derive(Clone)]
pub struct Database {
    pub(crate) inner: Arc<Inner>,
    /// Stops maintenance when the last handle goes; absent in handles that maintenance itself uses.
    maintenance: Option<Arc<Maintenance>>,
}

/// What handles, the observer and jobs share.
pub(crate) struct Inner {
    /// Dropped before the store: views may hold files that the store's lock protects.
    pub(crate) loaded: RwLock<HashMap<CollectionNumber, Arc<Loaded>>>,
    /// Catalog rows by id, as far as they were asked for.
    pub(crate) rows: RwLock<HashMap<Uuid, Arc<CollectionRow>>>,
    pub(crate) store: Arc<dyn Store>,
    /// Where jobs are kept, if they are.
    jobs: Option<Arc<dyn JobStore>>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) options: Options,
    pub(crate) snapshots: Snapshots,
    pub(crate) signals: Signals,
    /// What runs jobs; set before anybody has the database.
    scheduler: OnceLock<Arc<dyn Scheduler>>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) governor: Arc<TrafficGovernor>,
    pub(crate) residence: Residence,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) indexes: Indexes,
    /// What is known of the backups that were taken, and of where they go.
    pub(crate) backups: Backups,
    /// The backups at the target, once it was opened.
    pub(crate) repository: OnceLock<Repository>,
    /// Tables that are kept beside those of extensions.
    pub(crate) tables: Mutex<Vec<ExtensionTables>>,
    /// Held by compaction, and by whoever reads segment files that it could remove.
    pub(crate) segments: Mutex<()>,
    /// Held by whoever works on graphs: they have one writer.
    pub(crate) maintaining: Mutex<()>,
}

/// What a new collection may be given beside its name.
#[derive(Clone, Debug, Default)]
pub struct CollectionOptions {
    /// Its metadata; not empty if given.
    pub metadata: Option<Metadata>,
    /// What it declares of its records.
    pub declaration: Declaration,
    /// How it is indexed; Chroma's defaults if absent.
    pub schema: Option<IndexSchema>,
    /// Return the existing collection of this name, unchanged, instead of failing.
    pub get_or_create: bool,
}

impl Database {
    /// Opens the database in `directory`, making it if there is none.
    ///
    /// # Errors
    /// [`Error::Store`]: another process has it open, its format is newer, it is damaged, or the file
    /// system fails.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(directory, Options::default())
    }

    /// Opens the database in `directory` with options.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_with(directory: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let directory = directory.as_ref();
        if directory.join(UNFINISHED_RESTORE).exists() {
            return Err(Error::Invalid(format!(
                "{} is what an interrupted restore left, and not a whole database: remove it, and restore again",
                directory.display()
            )));
        }
        Self::open_unfinished(directory, options)
    }

    /// As [`Database::open_with`], of a directory that a restore may still be making.
    pub(crate) fn open_unfinished(directory: &Path, options: Options) -> Result<Self, Error> {
        check_places(directory, options.backup_target.as_deref())?;
        let sqlite = SqliteOptions {
            disk: Arc::clone(&options.disk),
            vfs: options.vfs.clone(),
            map_segments: options.map_segments,
            seal_bytes: segment_bytes(&options),
            accept_loss: options.accept_loss,
            ..SqliteOptions::default()
        };
        let store = SqliteStore::open(directory, sqlite)?;
        for damage in store.damage() {
            tracing::error!(file = %damage.path.display(), reason = damage.reason, "found damage; what does not need it still works");
        }
        if store.quarantined() > 0 {
            tracing::warn!(
                files = store.quarantined(),
                "moved segment files that no transaction refers to into quarantine/; they are removed after the next write"
            );
        }
        if !store.has_checksums() {
            tracing::warn!(
                "the database file was written by an older version and its pages have no checksums: run the job full-vacuum once (`ochre jobs run full-vacuum`)"
            );
        }
        let store = Arc::new(store);
        let jobs = Arc::clone(&store) as Arc<dyn JobStore>;
        Self::start(store, Some(jobs), Some(directory), options)
    }

    /// A database in memory, gone when closed.
    ///
    /// # Errors
    /// None today; the signature leaves room for limits.
    pub fn ephemeral() -> Result<Self, Error> {
        Self::ephemeral_with(Options::default())
    }

    /// A database in memory, with options.
    ///
    /// # Errors
    /// None today; the signature leaves room for limits.
    pub fn ephemeral_with(options: Options) -> Result<Self, Error> {
        Self::start(Arc::new(MemoryStore::default()), None, None, options)
    }

    fn start(
        store: Arc<dyn Store>, jobs: Option<Arc<dyn JobStore>>, directory: Option<&Path>, options: Options,
    ) -> Result<Self, Error> {
        let (traffic, residence) = (Arc::new(Traffic::default()), Residence::new(options.memory_limit));
        let schemas = Arc::new(Schemas::new(options.validators.clone()));
        let inner = Arc::new(Inner {
            governor: Arc::new(TrafficGovernor::new(
                Arc::clone(&traffic),
                residence.limit(),
                Arc::clone(&store),
                directory.map(Path::to_owned),
            )),
            store,
            jobs,
            directory: directory.map(Path::to_owned),
            snapshots: Snapshots::new(directory, &options, residence.limit()),
            traffic,
            residence,
            options,
            rows: RwLock::default(),
            loaded: RwLock::default(),
            signals: Signals::default(),
            scheduler: OnceLock::new(),
            schemas,
            indexes: Indexes::default(),
            backups: Backups::default(),
            repository: OnceLock::new(),
            tables: Mutex::default(),
            segments: Mutex::new(()),
            maintaining: Mutex::new(()),
        });
        extension::check(&inner.options.extensions)?;
        let maintenance = Arc::new(Maintenance::new(&inner, inner.jobs.clone())?);
        let _ = inner.scheduler.set(Arc::clone(maintenance.scheduler()));
        let database = Self { inner, maintenance: Some(maintenance) };
        let inner = &database.inner;
        inner.store.observe(Arc::new(Publisher(Arc::downgrade(inner))));
        database.extend_store()?;
        inner.remove_strays();
        inner.remove_unfinished_backups();
        database.maintenance.iter().try_for_each(|maintenance| maintenance.start())?;
        if inner.options.background {
            crate::backup::examine_target(inner);
        }
        Ok(database)
    }

    /// A handle for extensions and their jobs, which does not keep maintenance going.
    pub(crate) fn within(inner: Arc<Inner>) -> Self {
        Self { inner, maintenance: None }
    }

    /// A handle that keeps nothing open: for what lives as long as the database.
    pub fn downgrade(&self) -> WeakDatabase {
        WeakDatabase(Arc::downgrade(&self.inner))
    }

    /// Brings the tables of extensions to the newest version, and opens them.
    fn extend_store(&self) -> Result<(), Error> {
        let within = Self::within(Arc::clone(&self.inner));
        for extension in &self.inner.options.extensions {
            self.inner.store.extend(&extension::tables_of(&**extension), extension.migrations())?;
            extension.opened(&within)?;
        }
        Ok(())
    }

    /// The scheduler that maintains this database.
    ///
    /// # Panics
    /// Never: it is there before anybody has the database.
    pub fn scheduler(&self) -> &dyn Scheduler {
        &**self.inner.scheduler.get().expect("set when the database was opened")
    }

    /// Tells extensions what was deleted.
    fn tell_deleted(&self, collection: Option<Uuid>) {
        let within = Self::within(Arc::clone(&self.inner));
        for extension in &self.inner.options.extensions {
            // What was deleted is gone whatever an extension does.
            let told =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| extension.deleted(&within, collection)));
            if told.is_err() {
                tracing::error!(extension = extension.name(), "an extension panicked when it was told of a deletion");
            }
        }
    }

    /// Bytes of resident memory of this process, mapped files included, and the limit that they are kept below.
    pub fn resident(&self) -> (u64, u64) {
        (crate::machine::resident_bytes(), self.inner.memory_limit())
    }

    /// How much maintenance gives way to requests, from 0 (not at all) to 100.
    pub fn pressure(&self) -> f64 {
        self.inner.governor.pressure()
    }

    /// Stops maintenance, writes what makes the next opening fast, and closes the database once no other
    /// handle uses it.
    pub fn close(self) {
        self.maintenance.iter().for_each(|maintenance| maintenance.stop());
        self.inner.write_snapshots();
        if let Err(error) = self.inner.save_usage() {
            tracing::warn!(%error, "could not keep how often metadata indexes were used");
        }
    }

    /// Runs maintenance until nothing is left to do. The scheduler does the same, by itself.
    ///
    /// # Errors
    /// The first failure of the store.
    pub fn maintain(&self) -> Result<(), Error> {
        self.inner.maintain_all()
    }

    /// Makes a tenant; its name has at least three characters.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a short name, [`Error::Store`] if the name is taken.
    pub fn create_tenant(&self, name: &str) -> Result<(), Error> {
        check_tenant_name(name).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.inner.store.create_tenant(name)?)
    }

    /// A tenant by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn tenant(&self, name: &str) -> Result<Option<Tenant>, Error> {
        Ok(self.inner.store.tenant(name)?)
    }

    /// The tenant a resource name is attached to.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn tenant_by_resource_name(&self, resource_name: &str) -> Result<Option<Tenant>, Error> {
        Ok(self.inner.store.tenant_by_resource_name(resource_name)?)
    }

    /// Attaches a resource name to a tenant.
    ///
    /// # Errors
    /// [`Error::Store`] if there is no such tenant.
    pub fn set_resource_name(&self, tenant: &str, resource_name: &str) -> Result<(), Error> {
        Ok(self.inner.store.set_resource_name(tenant, resource_name)?)
    }

    /// Makes a database within a tenant.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, [`Error::Store`] if it is taken.
    pub fn create_database(&self, tenant: &str, name: &str) -> Result<DatabaseRow, Error> {
        check_database_name(name).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.inner.store.create_database(tenant, name)?)
    }

    /// A database by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn database(&self, tenant: &str, name: &str) -> Result<Option<DatabaseRow>, Error> {
        Ok(self.inner.store.database(tenant, name)?)
    }

    /// The databases of a tenant, by name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn databases(&self, tenant: &str, page: Page) -> Result<Vec<DatabaseRow>, Error> {
        Ok(self.inner.store.databases(tenant, page)?)
    }

    /// Deletes a database with all its collections.
    ///
    /// # Errors
    /// [`Error::Store`] if there is none.
    pub fn delete_database(&self, tenant: &str, name: &str) -> Result<(), Error> {
        let collections = self.inner.store.collections(tenant, name, Page::default())?;
        // Those of a database of the same name that somebody makes meanwhile are not among them.
        let indexes = self.inner.indexes.of_database(tenant, name);
        self.inner.store.delete_database(tenant, name)?;
        collections.iter().for_each(|row| self.inner.forget(row));
        collections.iter().for_each(|row| self.tell_deleted(Some(row.id)));
        self.inner.forget_database_indexes(indexes);
        Ok(())
    }

    /// Makes a collection in the default tenant and database, with Chroma's defaults.
    ///
    /// # Errors
    /// As [`Database::create_collection_in`].
    pub fn create_collection(&self, name: &str) -> Result<Collection, Error> {
        self.create_collection_in(DEFAULT_TENANT, DEFAULT_DATABASE, name, CollectionOptions::default())
    }

    /// Makes a collection.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name or empty metadata; [`Error::Store`] if the name is taken or
    /// there is no such database.
    pub fn create_collection_in(
        &self, tenant: &str, database: &str, name: &str, options: CollectionOptions,
    ) -> Result<Collection, Error> {
        self.make_collection(tenant, database, name, options).map(|row| self.handle(&row))
    }

    /// Makes a collection; what the catalog says of it, even if it was deleted again at once.
    ///
    /// # Errors
    /// As [`Database::create_collection_in`].
    pub fn make_collection(
        &self, tenant: &str, database: &str, name: &str, options: CollectionOptions,
    ) -> Result<CollectionRow, Error> {
        check_collection_name(name).map_err(|error| Error::Invalid(format!("Validation error: name: {error}")))?;
        if options.metadata.as_ref().is_some_and(Metadata::is_empty) {
            return Err(Error::Invalid("Validation error: metadata: Metadata cannot be empty".into()));
        }
        check_sizes(options.metadata.as_ref(), None)?;
        let schema = options.schema;
        if let Some(bytes) =
            schema.as_ref().map(|schema| schema.to_text().len()).filter(|bytes| *bytes > CONFIGURATION_BYTES_MAX)
        {
            return Err(too_large("configuration", bytes, CONFIGURATION_BYTES_MAX));
        }
        let mut schema = schema.unwrap_or_else(|| IndexSchema::new(&ochre_model::HnswConfiguration::default(), None));
        if let Some(written) = &options.declaration.schema {
            for (key, ty) in self.inner.schemas.parse(written)?.scalar_types() {
                schema.learn(key, ty);
            }
        }
        let new = NewCollection {
            tenant: tenant.to_owned(),
            database: database.to_owned(),
            name: name.to_owned(),
            metadata: options.metadata,
            declaration: Some(options.declaration).filter(|declaration| !declaration.is_empty()),
            schema,
        };
        loop {
            if options.get_or_create
                && let Some(row) = self.inner.store.collection(tenant, database, name)?
            {
                return Ok(row);
            }
            match self.inner.store.create_collection(new.clone()) {
                // Another thread was faster, and may have been followed by one that deletes: look again.
                Err(ochre_store::Error::AlreadyExists { .. }) if options.get_or_create => {}
                made => {
                    let row = made?;
                    self.inner.note_new_collection(tenant, database);
                    return Ok(row);
                }
            }
        }
    }

    /// A collection of the default tenant and database, by name.
    ///
    /// # Errors
    /// [`Error::Store`] if there is none.
    pub fn collection(&self, name: &str) -> Result<Collection, Error> {
        self.collection_in(DEFAULT_TENANT, DEFAULT_DATABASE, name)
    }

    /// A collection by name.
    ///
    /// # Errors
    /// [`Error::Store`] if there is none.
    pub fn collection_in(&self, tenant: &str, database: &str, name: &str) -> Result<Collection, Error> {
        let row = self.inner.store.collection(tenant, database, name)?.ok_or_else(|| Error::no_collection(name))?;
        Ok(self.handle(&row))
    }

    /// A collection by id.
    ///
    /// # Errors
    /// [`Error::Store`] if there is none.
    pub fn collection_by_id(&self, id: Uuid) -> Result<Collection, Error> {
        self.inner.row(id)?;
        Ok(Collection::new(self.clone(), id))
    }

    /// Bytes of memory that each collection in memory holds, by part, largest first.
    pub fn memory(&self) -> Vec<(Arc<CollectionRow>, Memory)> {
        let loaded: Vec<Arc<Loaded>> = self.inner.loaded.read().values().cloned().collect();
        let held = loaded.iter().filter(|loaded| loaded.view().is_some());
        // One that was deleted meanwhile holds nothing any more.
        let mut held: Vec<_> =
            held.filter_map(|loaded| Some((self.inner.row(loaded.id).ok()?, loaded.memory()))).collect();
        held.sort_by_key(|(row, memory)| (std::cmp::Reverse(memory.total()), row.id));
        held
    }

    /// The database's id, in hexadecimal: the same for as long as it lives, and another one after a restore.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn id(&self) -> Result<String, Error> {
        Ok(format!("{:016x}", self.inner.store.database_id()?))
    }

    /// When the last backup was taken that is known of, in seconds since 1970.
    pub fn last_backup(&self) -> Option<i64> {
        self.inner.backups.last_taken().map(|at| at.as_micros() / 1_000_000)
    }

    /// How many vectors of the collections in memory wait for a graph, and how many walks of theirs were found to miss.
    pub fn unindexed_vectors(&self) -> (usize, usize) {
        let records_min = self.inner.options.graph_records_min;
        let loaded = self.inner.loaded.read();
        let views = loaded.values().filter_map(|loaded| loaded.view());
        views.filter(|view| view.live().len() >= records_min).fold((0, 0), |(waiting, unreachable), view| {
            (waiting + view.waiting_len(), unreachable + view.unreachable_len())
        })
    }

    /// The collections of a database, by id.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn collections(&self, tenant: &str, database: &str, page: Page) -> Result<Vec<CollectionRow>, Error> {
        Ok(self.inner.store.collections(tenant, database, page)?)
    }

    /// The collections of all databases of all tenants.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn all_collections(&self) -> Result<Vec<CollectionRow>, Error> {
        Ok(self.inner.store.all_collections()?)
    }

    /// How many collections a database has.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn count_collections(&self, tenant: &str, database: &str) -> Result<u64, Error> {
        Ok(self.inner.store.count_collections(tenant, database)?)
    }

    /// Deletes a collection by name. Its space comes back by maintenance.
    ///
    /// # Errors
    /// [`Error::Store`] if there is none.
    pub fn delete_collection_in(&self, tenant: &str, database: &str, name: &str) -> Result<(), Error> {
        let row = self.inner.store.collection(tenant, database, name)?.ok_or_else(|| Error::no_collection(name))?;
        self.inner.store.delete_collection(row.id)?;
        self.inner.forget(&row);
        self.tell_deleted(Some(row.id));
        Ok(())
    }

    /// Deletes everything; what remains is an empty database.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn reset(&self) -> Result<(), Error> {
        self.inner.store.reset()?;
        self.inner.forget_all();
        self.tell_deleted(None);
        self.inner.snapshots.remove_strays(|_| false);
        self.inner.signals.wake(SWEEP);
        Ok(())
    }

    /// How often requests broke rules of schemas, since the database was opened.
    pub fn violation_counts(&self) -> Vec<ViolationCount> {
        self.inner.violation_counts()
    }

    /// Sizes on disk.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn statistics(&self) -> Result<Statistics, Error> {
        Ok(self.inner.store.statistics()?)
    }

    /// What is left to be removed of the log and of deleted collections; looks at every collection.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn debt(&self) -> Result<Debt, Error> {
        Ok(self.inner.store.debt()?)
    }

    /// Makes the tables of an extension, or brings them to the newest version: `migrations[n]` brings version `n` to
    /// `n + 1`. What they make is named `<name>_…`.
    ///
    /// # Errors
    /// [`Error::Store`]: the tables are newer, a migration touches others, or the disk fails.
    pub fn extend(&self, name: &str, migrations: &'static [&'static str]) -> Result<(), Error> {
        self.inner.store.extend(name, migrations)?;
        let tables = ExtensionTables { name: name.to_owned(), migrations: migrations.to_vec() };
        let mut all = self.inner.tables.lock();
        all.retain(|known| known.name != name);
        all.push(tables);
        Ok(())
    }

    /// Changes tables of extensions, in one transaction.
    ///
    /// # Errors
    /// [`Error::Store`]: nothing was changed.
    pub fn change_tables<T>(
        &self, mut work: impl FnMut(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let mut done = None;
        self.inner.store.change_tables(&mut |connection| work(connection).map(|value| done = Some(value)))?;
        done.ok_or(Error::Closed)
    }

    /// Reads tables of extensions, in one state.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn read_tables<T>(
        &self, mut work: impl FnMut(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let mut done = None;
        self.inner.store.read_tables(&mut |connection| work(connection).map(|value| done = Some(value)))?;
        done.ok_or(Error::Closed)
    }

    fn handle(&self, row: &CollectionRow) -> Collection {
        Collection::new(self.clone(), row.id)
    }
}

/// The largest metadata of a collection, in bytes of JSON.
const METADATA_BYTES_MAX: usize = 1 << 20;
/// The largest configuration of a collection, its embedding functions included, in bytes of JSON.
const CONFIGURATION_BYTES_MAX: usize = 1 << 20;

/// Refuses descriptions of a collection that every list of collections would carry along.
fn check_sizes(metadata: Option<&Metadata>, embedding_function: Option<&serde_json::Value>) -> Result<(), Error> {
    let metadata = metadata.map_or(0, |metadata| metadata.to_text().len());
    if metadata > METADATA_BYTES_MAX {
        return Err(too_large("metadata", metadata, METADATA_BYTES_MAX));
    }
    let function = embedding_function.map_or(0, |function| function.to_string().len());
    if function > CONFIGURATION_BYTES_MAX {
        return Err(too_large("configuration.embedding_function", function, CONFIGURATION_BYTES_MAX));
    }
    Ok(())
}

fn too_large(what: &str, bytes: usize, limit: usize) -> Error {
    Error::Invalid(format!(
        "Validation error: {what}: {bytes} bytes are more than the limit of {limit} for a collection; keep what is large in records"
    ))
}

/// Refuses to open what is no directory, and backups that would be lost with what they are of.
pub(crate) fn check_places(directory: &Path, backup_target: Option<&str>) -> Result<(), Error> {
    let shown = directory.display();
    if directory.exists() && !directory.is_dir() {
        return Err(Error::Options(format!("{shown} is a file; a database is a directory: choose another path")));
    }
    let Some(target) = backup_target else { return Ok(()) };
    let path = target.strip_prefix("file://").unwrap_or(target);
    let whole = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path));
    if path.contains("://") {
        return Ok(());
    }
    if let (Ok(directory), Ok(path)) = (whole(directory), whole(Path::new(path)))
        && path.starts_with(&directory)
    {
        return Err(Error::Options(format!(
            "[backup]: the target {target} lies in the database's own directory {shown}, with which its backups would be lost: choose one outside"
        )));
    }
    Ok(())
}

impl Inner {
    /// The catalog row of a collection.
    pub(crate) fn row(&self, id: Uuid) -> Result<Arc<CollectionRow>, Error> {
        if let Some(row) = self.rows.read().get(&id) {
            return Ok(Arc::clone(row));
        }
        // Fetched under the lock: a commit that changes the row comes after, and replaces it.
        let mut rows = self.rows.write();
        let row = self.store.collection_by_id(id)?.ok_or_else(|| Error::no_collection(id))?;
        let row = Arc::new(row);
        rows.insert(id, Arc::clone(&row));
        Ok(row)
    }

    /// Changes a collection's catalog row.
    pub(crate) fn alter(&self, id: Uuid, mut alteration: Alteration) -> Result<Arc<CollectionRow>, Error> {
        // Metadata that is sent back has the schema in it, as a string: nothing of it changes.
        let stored = self.row(id)?.declaration.as_ref().and_then(|declaration| parsed(declaration.schema.as_ref()?));
        let given = alteration.declaration.schema.as_ref().and_then(Option::as_ref).and_then(parsed);
        if given.is_some() && given == stored {
            alteration.declaration.schema = None;
        }
        if let Some(Some(written)) = &alteration.declaration.schema {
            let schema = self.schemas.parse(written)?;
            alteration.keys.extend(schema.scalar_types().map(|(key, ty)| (key.to_owned(), ty)));
        }
        check_sizes(alteration.metadata.as_ref().and_then(Option::as_ref), alteration.embedding_function.as_ref())?;
        let altered = self.store.alter_collection(id, alteration);
        self.rows.write().remove(&id);
        let row = Arc::new(altered?);
        // Compiled here rather than by the first write, which holds up others.
        let _ = self.schemas.of(&row);
        self.signals.index(row.number);
        Ok(row)
    }

    /// The collection in memory, loaded or not.
    pub(crate) fn slot(&self, row: &CollectionRow) -> Arc<Loaded> {
        if let Some(loaded) = self.loaded.read().get(&row.number) {
            return Arc::clone(loaded);
        }
        let mut loaded = self.loaded.write();
        Arc::clone(loaded.entry(row.number).or_insert_with(|| Arc::new(Loaded::new(row))))
    }

    /// Forgets a deleted collection.
    fn forget(&self, row: &CollectionRow) {
        self.rows.write().remove(&row.id);
        self.loaded.write().remove(&row.number);
        self.snapshots.remove(row.id);
        self.signals.forget(row.number);
        self.schemas.forget(row.number);
        self.signals.wake(SWEEP);
    }

    /// Where jobs are kept, if they are.
    pub(crate) fn jobs(&self) -> Option<&Arc<dyn JobStore>> {
        self.jobs.as_ref()
    }

    fn exists(&self, id: Uuid) -> bool {
        !matches!(self.store.collection_by_id(id), Ok(None))
    }

    pub(crate) fn count_strays(&self) -> usize {
        self.snapshots.strays(|id| self.exists(id)).len()
    }

    pub(crate) fn remove_strays(&self) -> usize {
        // Segments of indexes are files that are being written, too.
        let _working = self.indexes.hold_work();
        self.snapshots.remove_strays(|id| self.exists(id))
    }

    /// Tells extensions of a commit. One that fails is not asked to do anything about it: the commit stands.
    fn tell_committed(&self, committed: &Committed) {
        let watching = || self.options.extensions.iter().filter(|extension| extension.watches_commits());
        if watching().next().is_none() {
            return;
        }
        let number = committed.collection;
        let known = self.rows.read().values().find(|row| row.number == number).map(|row| row.id);
        let found =
            || self.store.all_collections().ok()?.into_iter().find(|row| row.number == number).map(|row| row.id);
        let Some(collection) = known.or_else(found) else { return };
        let put = committed.changes.iter().filter(|change| matches!(change, Change::Put(_))).count();
        let commit = Commit { collection, position: committed.position, put, deleted: committed.changes.len() - put };
        for extension in watching() {
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| extension.committed(&commit)));
            if told.is_err() {
                tracing::error!(extension = extension.name(), "an extension panicked when it was told of a commit");
            }
        }
    }

    fn forget_all(&self) {
        self.rows.write().clear();
        self.loaded.write().clear();
        self.schemas.forget_all();
    }
}

/// Publishes commits as views. Weak: the store must not keep the database alive.
struct Publisher(std::sync::Weak<Inner>);

impl Observer for Publisher {
    fn committed(&self, commit: &Arc<Committed>) {
        let Some(inner) = self.0.upgrade() else { return };
        if let Some(row) = &commit.row {
            let mut rows = inner.rows.write();
            if let Some(slot) = rows.get_mut(&row.id) {
                *slot = Arc::clone(row);
            }
        }
        let loaded = inner.loaded.read().get(&commit.collection).cloned();
        let Some(loaded) = loaded else { return inner.tell_committed(commit) };
        let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| loaded.commit(commit)));
        if !matches!(applied, Ok(true)) {
            // The write stands; the view is loaded anew by whoever needs it next.
            tracing::error!(
                collection = commit.collection,
                position = commit.position,
                "dropped a view that a commit did not fit"
            );
            inner.loaded.write().remove(&commit.collection);
        }
        inner.signals.index(commit.collection);
        inner.tell_committed(commit);
    }

    fn relocated(&self, collections: &[CollectionNumber]) {
        if let Some(inner) = self.0.upgrade() {
            collections.iter().for_each(|number| inner.signals.relocate(*number));
        }
    }

    fn reopened(&self) {
        if let Some(inner) = self.0.upgrade() {
            tracing::warn!("the store was reopened after a failure; views are loaded anew");
            inner.forget_all();
        }
    }
}
