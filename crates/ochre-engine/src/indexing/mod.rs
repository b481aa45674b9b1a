//! Indexing: keeping the graph, the text segments and the snapshots of collections in memory up to date.
//!
//! Not here: when that is done (`maintenance`), declared indexes (`metadata_index`).

pub(crate) mod graph;
pub(crate) mod records_snapshot;
pub(crate) mod text;

use std::sync::Arc;

use ochre_store::Store;

use crate::cache_dir::CacheDir;
use crate::collection::Collections;
use crate::collection::dirty::DirtySet;
use crate::settings::Settings;
use crate::throttle::admission::AdmissionControl;
use crate::throttle::work_lock::WorkLock;

/// Whoever works on the graphs of collections in memory.
pub(crate) struct Indexing {
    collections: Arc<Collections>,
    store: Arc<dyn Store>,
    settings: Arc<Settings>,
    cache: Arc<CacheDir>,
    dirty: Arc<DirtySet>,
    admission: Arc<AdmissionControl>,
    /// Held by whoever works on graphs: they have one writer.
    pub(crate) graphs: WorkLock,
}

impl Indexing {
    pub(crate) fn new(collections: &Arc<Collections>, admission: Arc<AdmissionControl>) -> Self {
        Self {
            collections: Arc::clone(collections),
            store: Arc::clone(&collections.store),
            settings: Arc::clone(&collections.settings),
            cache: Arc::clone(&collections.cache),
            dirty: Arc::clone(&collections.dirty),
            admission,
            graphs: WorkLock::default(),
        }
    }
}
