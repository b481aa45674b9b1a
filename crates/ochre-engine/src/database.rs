//! Opening and closing a database, and what may be asked of it as a whole.

use std::path::Path;
use std::sync::Arc;

use ochre_index::Memory;
use ochre_model::{check_database_name, check_tenant_name};
use ochre_scheduler::{Context, Failure, JobStore, Scheduler, Task};
use ochre_store::{
    CollectionRow, DEFAULT_DATABASE, DEFAULT_TENANT, DatabaseRow, Debt, ExtensionTables, MemoryStore, Page,
    SqliteOptions, SqliteStore, Statistics, Store, Tenant, rusqlite,
};
use uuid::Uuid;

use crate::backup::folders::UNFINISHED_RESTORE;
use crate::backup::manifest::{BackupKind, Manifest};
use crate::backup::repository::Repository;
use crate::catalog::{CachedRow, CollectionOptions};
use crate::collection::dirty::SWEEP;
use crate::collection::eviction::{MemoryBudget, segment_bytes};
use crate::collection::handle::Collection;
use crate::error::Error;
use crate::extension::{StoreExtension, WeakDatabase, check_extensions, tables_known, tables_of};
use crate::functions;
use crate::inner::{Inner, WeakInner};
use crate::maintenance::job_store::SqliteJobs;
use crate::maintenance::{Maintenance, maintain_all};
use crate::options::Options;
use crate::schemas::Schemas;
use crate::throttle::host::resident_bytes;
use crate::violations::ViolationCount;
use crate::write::publish::{Commit, Listener, Publisher};

/// An open database. Cheap to clone; all clones are the same database. It closes with the last clone,
/// or by [`Database::close`].
#[derive(Clone)]
pub struct Database {
    pub(crate) inner: Arc<Inner>,
    /// What extends it; of none in handles that jobs use.
    extensions: Arc<[Arc<dyn StoreExtension>]>,
    /// Stops maintenance when the last handle goes; absent in handles that maintenance itself uses.
    maintenance: Option<Arc<Maintenance>>,
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
            return Err(Error::invalid(format!(
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
            seal_bytes: segment_bytes(options.memory_limit, options.segment_bytes),
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
        let jobs: Arc<dyn JobStore> = Arc::new(SqliteJobs(Arc::clone(&store)));
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
        check_extensions(&options.extensions)?;
        let mut options = options;
        options.extensions.push(Arc::new(functions::extension::Extension::default()));
        let memory = MemoryBudget::new(options.memory_limit);
        let schemas = Schemas::new(options.validators.clone());
        let inner = Arc::new(Inner::new(store, &options.disk, jobs, directory, options.settings(), memory, schemas));
        *inner.tables.lock() = tables_known(&options.extensions);
        let mut tasks = Vec::new();
        for extension in &options.extensions {
            let own = extension.tasks(&WeakDatabase(WeakInner(Arc::downgrade(&inner))));
            tasks.extend(own.into_iter().map(|task| (extension.name(), task)));
        }
        let maintenance = Arc::new(Maintenance::new(&inner, inner.jobs().cloned(), tasks)?);
        inner.connect(maintenance.scheduler());
        let extensions: Arc<[Arc<dyn StoreExtension>]> = options.extensions.into();
        let database = Self { inner, extensions, maintenance: Some(maintenance) };
        let inner = &database.inner;
        inner.store.observe(Arc::new(Publisher::new(&inner.collections, database.listeners())));
        database.extend_store()?;
        inner.collections.remove_orphaned_files();
        inner.backups.remove_unfinished();
        database.maintenance.iter().try_for_each(|maintenance| maintenance.start())?;
        if inner.settings.background {
            inner.backups.examine_target();
        }
        Ok(database)
    }

    /// What extensions are told of commits.
    fn listeners(&self) -> Vec<Listener> {
        let watching = self.extensions.iter().filter(|extension| extension.watches_commits()).cloned();
        watching
            .map(|extension| {
                let name = extension.name();
                let listener = move |commit: &Commit| extension.committed(commit);
                (name, Box::new(listener) as Box<dyn Fn(&Commit) + Send + Sync>)
            })
            .collect()
    }

    /// A handle for extensions and their jobs, which does not keep maintenance going.
    pub(crate) fn within(inner: Arc<Inner>) -> Self {
        Self { inner, extensions: Arc::default(), maintenance: None }
    }

    /// A handle that keeps nothing open: for what lives as long as the database.
    pub fn downgrade(&self) -> WeakDatabase {
        WeakDatabase(WeakInner(Arc::downgrade(&self.inner)))
    }

    /// Brings the tables of extensions to the newest version, and opens them.
    fn extend_store(&self) -> Result<(), Error> {
        let within = Self::within(Arc::clone(&self.inner));
        for extension in self.extensions.iter() {
            self.inner.store.extend(&tables_of(&**extension), extension.migrations())?;
            extension.opened(&within)?;
        }
        Ok(())
    }

    /// The scheduler that maintains this database.
    ///
    /// # Panics
    /// Never: it is there before anybody has the database.
    pub fn scheduler(&self) -> &dyn Scheduler {
        self.inner.scheduler()
    }

    /// Tells extensions what was deleted.
    fn tell_deleted(&self, collection: Option<Uuid>) {
        let within = Self::within(Arc::clone(&self.inner));
        for extension in self.extensions.iter() {
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
        (resident_bytes(), self.inner.collections.memory_limit())
    }

    /// How much maintenance gives way to requests, from 0 (not at all) to 100.
    pub fn pressure(&self) -> f64 {
        self.inner.admission.pressure()
    }

    /// Stops maintenance, writes what makes the next opening fast, and closes the database once no other
    /// handle uses it.
    pub fn close(self) {
        self.maintenance.iter().for_each(|maintenance| maintenance.stop());
        self.inner.write_before_closing();
    }

    /// Runs maintenance until nothing is left to do. The scheduler does the same, by itself.
    ///
    /// # Errors
    /// The first failure of the store.
    pub fn maintain(&self) -> Result<(), Error> {
        maintain_all(&self.inner, &self.extension_tasks())
    }

    /// Makes a tenant; its name has at least three characters.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a short name, [`Error::Store`] if the name is taken.
    pub fn create_tenant(&self, name: &str) -> Result<(), Error> {
        check_tenant_name(name).map_err(|error| Error::invalid_field("name", error.to_string()))?;
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
        check_database_name(name).map_err(|error| Error::invalid_field("name", error.to_string()))?;
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
        let indexes = self.inner.metadata_indexes.registry.of_database(tenant, name);
        self.inner.store.delete_database(tenant, name)?;
        collections.iter().for_each(|row| self.forget(row));
        collections.iter().for_each(|row| self.tell_deleted(Some(row.id)));
        self.inner.metadata_indexes.forget_database_indexes(indexes);
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
        let row = self.make_collection(tenant, database, name, options)?;
        self.collection_by_id(row.id)
    }

    /// Makes a collection; what the catalog says of it, even if it was deleted again at once.
    ///
    /// # Errors
    /// As [`Database::create_collection_in`].
    pub fn make_collection(
        &self, tenant: &str, database: &str, name: &str, options: CollectionOptions,
    ) -> Result<CollectionRow, Error> {
        let row = self.inner.catalog.create(tenant, database, name, options)?;
        self.inner.metadata_indexes.note_new_collection(tenant, database);
        Ok(row)
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
        Ok(self.handle(self.inner.catalog.find(tenant, database, name)?))
    }

    /// A collection by id.
    ///
    /// # Errors
    /// [`Error::Store`] if there is none.
    pub fn collection_by_id(&self, id: Uuid) -> Result<Collection, Error> {
        Ok(self.handle(self.inner.catalog.cached(id)?))
    }

    /// A collection by id, if the catalog has it in memory: nothing is read from disk for it.
    pub fn collection_in_memory(&self, id: Uuid) -> Option<Collection> {
        Some(self.handle(self.inner.catalog.in_memory(id)?))
    }

    /// Whether there is a collection of this name, if that is known without reading from disk.
    pub fn has_collection_in_memory(&self, tenant: &str, database: &str, name: &str) -> Option<bool> {
        self.inner.catalog.has_in_memory(tenant, database, name)
    }

    /// Bytes of memory that each collection in memory holds, by part, largest first.
    pub fn memory(&self) -> Vec<(Arc<CollectionRow>, Memory)> {
        let loaded = self.inner.collections.all();
        let held = loaded.iter().filter(|loaded| loaded.view().is_some());
        // One that was deleted meanwhile holds nothing any more.
        let mut held: Vec<_> =
            held.filter_map(|loaded| Some((self.inner.catalog.row(loaded.id).ok()?, loaded.memory()))).collect();
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

    /// How many vectors of the collections in memory wait for a graph, and how many no search of a graph finds.
    pub fn unindexed_vectors(&self) -> (usize, usize) {
        let records_min = self.inner.settings.graph_records_min;
        let loaded = self.inner.collections.all();
        let views = loaded.iter().filter_map(|loaded| loaded.view());
        views.filter(|view| view.live().len() >= records_min).fold((0, 0), |(waiting, unreachable), view| {
            (waiting + view.pending_len(), unreachable + view.unreachable_len())
        })
    }

    /// Takes a full backup to another target than the configured one, in steps of a job.
    ///
    /// # Errors
    /// [`Failure`]: why it could not be taken, or that the job is to stop.
    pub fn back_up_to(&self, target: &str, context: &Context<'_>) -> Result<Manifest, Failure> {
        let inner = &self.inner;
        if let Some(directory) = &inner.directory {
            check_places(directory, Some(target))?;
        }
        let settings = &inner.settings;
        let repository = Repository::new(settings.backup_targets.open(target)?).trusting(settings.backup_trust.clone());
        inner.backups.back_up(&repository, BackupKind::Full, context)
    }

    /// The collections of a database, by id.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn collections(&self, tenant: &str, database: &str, page: Page) -> Result<Vec<CollectionRow>, Error> {
        Ok(self.inner.store.collections(tenant, database, page)?)
    }

    /// How many commits changed each of these collections; 0 for one that was deleted meanwhile.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn versions(&self, rows: &[CollectionRow]) -> Result<Vec<u64>, Error> {
        let reader = self.inner.store.read()?;
        rows.iter().map(|row| Ok(reader.head(row.number)?.map_or(0, |head| head.position))).collect()
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
        self.delete(&row)
    }

    /// Deletes a collection by id, whatever its name is by now.
    ///
    /// # Errors
    /// [`Error::Store`] if there is none.
    pub fn delete_collection_by_id(&self, id: Uuid) -> Result<(), Error> {
        let row = self.inner.store.collection_by_id(id)?.ok_or_else(|| Error::no_collection(id))?;
        self.delete(&row)
    }

    fn delete(&self, row: &CollectionRow) -> Result<(), Error> {
        self.inner.store.delete_collection(row.id)?;
        self.forget(row);
        self.tell_deleted(Some(row.id));
        Ok(())
    }

    /// Deletes everything; what remains is an empty database.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn reset(&self) -> Result<(), Error> {
        self.inner.store.reset()?;
        self.inner.catalog.forget_all();
        self.inner.collections.forget_all();
        self.inner.schemas.forget_all();
        self.tell_deleted(None);
        self.inner.collections.cache.remove_orphaned_files(|_| false);
        self.inner.collections.dirty.wake(SWEEP);
        Ok(())
    }

    /// How often requests broke rules of schemas, since the database was opened.
    pub fn violation_counts(&self) -> Vec<ViolationCount> {
        self.inner.schemas.violation_counts(&self.inner.catalog.rows_in_memory())
    }

    /// How often collections were looked up in the catalog, since the database was opened: once for a handle.
    pub fn catalog_lookups(&self) -> u64 {
        self.inner.catalog.lookups()
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

    fn handle(&self, row: Arc<CachedRow>) -> Collection {
        Collection::new(Arc::clone(&self.inner), row, self.maintenance.clone())
    }

    /// Forgets what is in memory of a deleted collection.
    fn forget(&self, row: &CollectionRow) {
        self.inner.catalog.forget(row.id);
        self.inner.collections.forget(row);
        self.inner.schemas.forget(row.number);
        self.inner.collections.dirty.wake(SWEEP);
    }

    /// The jobs of extensions.
    fn extension_tasks(&self) -> Vec<Arc<dyn Task>> {
        self.extensions.iter().flat_map(|extension| extension.tasks(&self.downgrade())).collect()
    }
}

/// Refuses to open what is no directory, and backups that would be lost with what they are of.
fn check_places(directory: &Path, backup_target: Option<&str>) -> Result<(), Error> {
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
