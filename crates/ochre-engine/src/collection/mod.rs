//! Collections in memory: which are loaded, and a consistent snapshot of one to read from.
//!
//! Not here: what is in the catalog (`catalog`), what queries do with a snapshot (`query`).

pub(crate) mod block;
pub(crate) mod dirty;
pub(crate) mod eviction;
mod fork;
pub(crate) mod handle;
pub(crate) mod index_builds;
pub(crate) mod load;
pub(crate) mod record;
pub(crate) mod snapshot;
pub(crate) mod state;

use std::collections::HashMap;
use std::sync::Arc;

use ochre_index::{Analyzer, View};
use ochre_store::{CollectionNumber, CollectionRow, Error as StoreError, Store};
use parking_lot::RwLock;
use uuid::Uuid;

use crate::cache_dir::CacheDir;
use crate::catalog::Catalog;
use crate::collection::dirty::DirtySet;
use crate::collection::eviction::MemoryBudget;
use crate::collection::snapshot::ReadSnapshot;
use crate::collection::state::{CollectionState, declared_analyzer};
use crate::error::Error;
use crate::metadata_index::registry::Registry;
use crate::settings::Settings;

/// How often a read starts over because its snapshot was too old for any view that is kept.
const RETRIES_MAX: usize = 100;

/// The collections that are in memory.
pub(crate) struct Collections {
    /// Dropped before the store: views may hold files that the store's lock protects.
    loaded: RwLock<HashMap<CollectionNumber, Arc<CollectionState>>>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) cache: Arc<CacheDir>,
    pub(crate) dirty: Arc<DirtySet>,
    pub(crate) registry: Arc<Registry>,
    budget: MemoryBudget,
}

impl Collections {
    pub(crate) fn new(
        catalog: Arc<Catalog>, settings: Arc<Settings>, cache: Arc<CacheDir>, dirty: Arc<DirtySet>,
        budget: MemoryBudget,
    ) -> Self {
        let store = Arc::clone(&catalog.store);
        Self { loaded: RwLock::default(), catalog, store, settings, cache, dirty, registry: Arc::default(), budget }
    }

    /// What splits the documents of a collection into terms.
    pub(crate) fn analyzer(&self, row: &CollectionRow) -> Arc<Analyzer> {
        self.get(row.number)
            .map_or_else(|| Arc::new(Analyzer::new(declared_analyzer(row))), |loaded| loaded.analyzer(row))
    }

    /// A collection in memory, loaded or being loaded, if it is there.
    pub(crate) fn get(&self, number: CollectionNumber) -> Option<Arc<CollectionState>> {
        self.loaded.read().get(&number).cloned()
    }

    /// The view of a collection, if it is loaded. Asking does not load it.
    pub(crate) fn loaded_view(&self, number: CollectionNumber) -> Option<Arc<View>> {
        self.get(number)?.view()
    }

    /// All collections in memory.
    pub(crate) fn all(&self) -> Vec<Arc<CollectionState>> {
        self.loaded.read().values().cloned().collect()
    }

    /// Drops what is in memory of a collection, since it does not fit what is stored: the next request loads it.
    pub(crate) fn discard(&self, number: CollectionNumber) {
        self.loaded.write().remove(&number);
    }

    /// The collection in memory, loaded or not.
    pub(crate) fn state_of(&self, row: &CollectionRow) -> Arc<CollectionState> {
        if let Some(loaded) = self.loaded.read().get(&row.number) {
            return Arc::clone(loaded);
        }
        let mut loaded = self.loaded.write();
        Arc::clone(loaded.entry(row.number).or_insert_with(|| Arc::new(CollectionState::new(row))))
    }

    /// The current view of a collection, loaded if need be.
    pub(crate) fn view(&self, row: &CollectionRow) -> Result<Arc<View>, Error> {
        let slot = self.state_of(row);
        slot.touch();
        let view = match slot.view() {
            Some(view) => view,
            None => {
                self.enforce_budget();
                self.note_freed();
                let loaded = slot.load(|| self.load_view(row));
                if loaded.is_err() {
                    // Nobody must go on collecting commits for a load that failed.
                    self.loaded.write().remove(&row.number);
                }
                let view = loaded?;
                self.dirty.mark_dirty(row.number);
                if self.show_all_builds(row.number) { slot.view().unwrap_or(view) } else { view }
            }
        };
        Ok(view)
    }

    /// A snapshot of a collection to read from, which is loaded if need be.
    pub(crate) fn snapshot(&self, row: &CollectionRow) -> Result<ReadSnapshot<'_>, Error> {
        self.enforce_budget();
        for _ in 0..RETRIES_MAX {
            self.view(row)?;
            let reader = self.store.read()?;
            let head = reader.head(row.number)?.ok_or_else(|| Error::no_collection(row.id))?;
            if let Some(view) = self.state_of(row).view_at(head.position) {
                return Ok(ReadSnapshot { reader, view, number: row.number, registry: &self.registry });
            }
        }
        Err(Error::Store(StoreError::Limit(format!(
            "collection '{}' changes faster than it can be read; try again",
            row.name
        ))))
    }

    /// Forgets a deleted collection.
    pub(crate) fn forget(&self, row: &CollectionRow) {
        self.loaded.write().remove(&row.number);
        self.cache.remove(row.id);
        self.dirty.forget(row.number);
    }

    fn exists(&self, id: Uuid) -> bool {
        !matches!(self.store.collection_by_id(id), Ok(None))
    }

    pub(crate) fn count_orphaned_files(&self) -> usize {
        self.cache.orphaned_files(|id| self.exists(id)).len()
    }

    pub(crate) fn remove_orphaned_files(&self) -> usize {
        // Segments of indexes are files that are being written, too.
        let _working = self.registry.hold_work();
        self.cache.remove_orphaned_files(|id| self.exists(id))
    }

    /// Forgets every collection: the next request loads what it needs.
    pub(crate) fn forget_all(&self) {
        self.loaded.write().clear();
    }
}
