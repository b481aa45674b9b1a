//! The catalog: what there is of tenants, databases and collections, and the rows of collections that are kept in
//! memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ochre_model::{Declaration, HnswConfiguration, IndexSchema, Metadata, check_collection_name};
use ochre_store::{Alteration, CollectionRow, Error as StoreError, NewCollection, Store};
use parking_lot::RwLock;
use uuid::Uuid;

use crate::error::Error;
use crate::schemas::{Schemas, parsed};

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

/// The rows of collections. Lock order: after every lock of a collection's state.
pub(crate) struct Catalog {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) schemas: Arc<Schemas>,
    rows: RwLock<Rows>,
    /// Changes whenever a row does: a row that was read meanwhile may be of before.
    version: AtomicU64,
    lookups: AtomicU64,
}

#[derive(Default)]
struct Rows {
    by_id: HashMap<Uuid, Arc<CachedRow>>,
    /// Ids by tenant, database and name.
    names: HashMap<[String; 3], Uuid>,
    /// Names, as above, of which it is known that no collection has them.
    absent: HashSet<[String; 3]>,
}

/// So many names are known that no collection has.
const ABSENT_MAX: usize = 1024;

/// The row of a collection as it is now. Handles keep it, so that they need not look it up.
pub(crate) struct CachedRow {
    id: Uuid,
    /// Absent once the collection is gone, or nothing is known of it any more.
    row: RwLock<Option<Arc<CollectionRow>>>,
}

impl CachedRow {
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }
}

impl Catalog {
    pub(crate) fn new(store: Arc<dyn Store>, schemas: Arc<Schemas>) -> Self {
        let (version, lookups) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { store, schemas, rows: RwLock::default(), version, lookups }
    }

    /// The row of a collection.
    ///
    /// # Errors
    /// [`Error::Store`] if there is none.
    pub(crate) fn row(&self, id: Uuid) -> Result<Arc<CollectionRow>, Error> {
        self.cached(id)?.row.read().clone().ok_or_else(|| Error::no_collection(id))
    }

    /// The row of a collection, to be kept.
    ///
    /// # Errors
    /// As [`Catalog::row`].
    pub(crate) fn cached(&self, id: Uuid) -> Result<Arc<CachedRow>, Error> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        if let Some(cached) = self.rows.read().by_id.get(&id) {
            return Ok(Arc::clone(cached));
        }
        self.read_and_keep(|| self.store.collection_by_id(id)?.ok_or_else(|| Error::no_collection(id)))
    }

    /// Keeps the row that `read` finds; if any row changes meanwhile, it is read again. No lock is held while it reads.
    fn read_and_keep(&self, read: impl Fn() -> Result<CollectionRow, Error>) -> Result<Arc<CachedRow>, Error> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let row = read()?;
            let mut rows = self.rows.write();
            if let Some(cached) = rows.by_id.get(&row.id) {
                return Ok(Arc::clone(cached));
            }
            if self.version.load(Ordering::Acquire) == version {
                rows.names.insert([row.tenant.clone(), row.database.clone(), row.name.clone()], row.id);
                let cached = Arc::new(CachedRow { id: row.id, row: RwLock::new(Some(Arc::new(row))) });
                rows.by_id.insert(cached.id, Arc::clone(&cached));
                return Ok(cached);
            }
        }
    }

    /// What a kept row is now.
    ///
    /// # Errors
    /// As [`Catalog::row`].
    pub(crate) fn current(&self, cached: &CachedRow) -> Result<Arc<CollectionRow>, Error> {
        let row = cached.row.read().clone();
        row.map_or_else(|| self.row(cached.id), Ok)
    }

    /// A collection by name, to be kept.
    ///
    /// # Errors
    /// [`Error::Store`] if there is none.
    pub(crate) fn find(&self, tenant: &str, database: &str, name: &str) -> Result<Arc<CachedRow>, Error> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let full_name = [tenant, database, name].map(str::to_owned);
        {
            let rows = self.rows.read();
            if let Some(cached) = rows.names.get(&full_name).and_then(|id| rows.by_id.get(id)) {
                return Ok(Arc::clone(cached));
            }
        }
        let version = self.version.load(Ordering::Acquire);
        let found = self
            .read_and_keep(|| self.store.collection(tenant, database, name)?.ok_or_else(|| Error::no_collection(name)));
        if found.as_ref().is_err_and(|error| error.not_found().is_some()) {
            let mut rows = self.rows.write();
            if rows.absent.len() >= ABSENT_MAX {
                rows.absent.clear();
            }
            if self.version.load(Ordering::Acquire) == version {
                rows.absent.insert(full_name);
            }
        }
        found
    }

    /// The row of a collection, to be kept, if it is in memory.
    pub(crate) fn in_memory(&self, id: Uuid) -> Option<Arc<CachedRow>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        self.rows.read().by_id.get(&id).cloned()
    }

    /// Whether there is a collection of this name, if that is known without reading.
    pub(crate) fn has_in_memory(&self, tenant: &str, database: &str, name: &str) -> Option<bool> {
        let (rows, name) = (self.rows.read(), [tenant, database, name].map(str::to_owned));
        if rows.names.contains_key(&name) { Some(true) } else { rows.absent.contains(&name).then_some(false) }
    }

    /// The rows that are in memory.
    pub(crate) fn rows_in_memory(&self) -> Vec<Arc<CollectionRow>> {
        self.rows.read().by_id.values().filter_map(|cached| cached.row.read().clone()).collect()
    }

    /// How often collections were looked up by id or name since the database was opened.
    pub(crate) fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// A collection was made with this name: what was known of the name is of before.
    fn note_named(&self, tenant: &str, database: &str, name: &str) {
        let (mut rows, name) = (self.rows.write(), [tenant, database, name].map(str::to_owned));
        self.version.fetch_add(1, Ordering::Release);
        rows.names.remove(&name);
        rows.absent.remove(&name);
    }

    /// A commit changed a row.
    pub(crate) fn replace(&self, row: &Arc<CollectionRow>) {
        let rows = self.rows.write();
        self.version.fetch_add(1, Ordering::Release);
        if let Some(cached) = rows.by_id.get(&row.id) {
            *cached.row.write() = Some(Arc::clone(row));
        }
    }

    /// Forgets the row of a collection that is gone, or that changed.
    pub(crate) fn forget(&self, id: Uuid) {
        let mut rows = self.rows.write();
        self.version.fetch_add(1, Ordering::Release);
        if let Some(cached) = rows.by_id.remove(&id)
            && let Some(row) = cached.row.write().take()
        {
            rows.names.remove(&[row.tenant.clone(), row.database.clone(), row.name.clone()]);
        }
    }

    /// Forgets every row.
    pub(crate) fn forget_all(&self) {
        let mut rows = self.rows.write();
        self.version.fetch_add(1, Ordering::Release);
        rows.names.clear();
        rows.absent.clear();
        rows.by_id.drain().for_each(|(_, cached)| *cached.row.write() = None);
    }

    /// Makes a collection; returns the one that is there if that is wanted.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, empty or too large descriptions; [`Error::Store`] if the name is taken or
    /// there is no such database.
    pub(crate) fn create(
        &self, tenant: &str, database: &str, name: &str, options: CollectionOptions,
    ) -> Result<CollectionRow, Error> {
        check_collection_name(name).map_err(|error| Error::invalid_field("name", error.to_string()))?;
        if options.metadata.as_ref().is_some_and(Metadata::is_empty) {
            return Err(Error::invalid_field("metadata", "Metadata cannot be empty"));
        }
        check_sizes(options.metadata.as_ref(), None)?;
        let schema = options.schema;
        if let Some(bytes) =
            schema.as_ref().map(|schema| schema.to_text().len()).filter(|bytes| *bytes > CONFIGURATION_BYTES_MAX)
        {
            return Err(too_large("configuration", bytes, CONFIGURATION_BYTES_MAX));
        }
        let mut schema = schema.unwrap_or_else(|| IndexSchema::new(&HnswConfiguration::default(), None));
        if let Some(written) = &options.declaration.schema {
            for (key, ty) in self.schemas.parse(written)?.scalar_types() {
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
                && let Some(row) = self.store.collection(tenant, database, name)?
            {
                return Ok(row);
            }
            match self.store.create_collection(new.clone()) {
                // Another thread was faster, and may have been followed by one that deletes: look again.
                Err(StoreError::AlreadyExists { .. }) if options.get_or_create => {}
                made => {
                    self.note_named(tenant, database, name);
                    return Ok(made?);
                }
            }
        }
    }

    /// Makes a collection with the records and the descriptions of another one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name; [`Error::Store`] if it is taken, there is no such collection, or it has as
    /// many forks as one may have.
    pub(crate) fn fork(&self, source: Uuid, name: &str) -> Result<CollectionRow, Error> {
        check_collection_name(name).map_err(|error| Error::invalid_field("new_name", error.to_string()))?;
        let row = self.store.fork_collection(source, name)?;
        self.note_named(&row.tenant, &row.database, &row.name);
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
        self.forget(id);
        let row = Arc::new(altered?);
        self.note_named(&row.tenant, &row.database, &row.name);
        // Compiled here rather than by the first write, which holds up others.
        let _ = self.schemas.of(&row);
        Ok(row)
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

fn too_large(field: &'static str, bytes: usize, limit: usize) -> Error {
    Error::invalid_field(
        field,
        format!("{bytes} bytes are more than the limit of {limit} for a collection; keep what is large in records"),
    )
}
