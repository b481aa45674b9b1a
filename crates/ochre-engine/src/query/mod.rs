//! Answering reads: what is asked, how filters are evaluated, and how that is explained.

pub(crate) mod execute;
pub(crate) mod explain;
pub(crate) mod filter;
mod group;
mod order;
pub(crate) mod request;
pub(crate) mod search;
pub(crate) mod search_request;
pub(crate) mod text;

use std::sync::Arc;

use ochre_store::Store;

use crate::collection::Collections;
use crate::metadata_index::registry::Registry;
use crate::schemas::Schemas;
use crate::settings::Settings;
use crate::throttle::load_monitor::LoadMonitor;

/// Whoever answers reads.
pub(crate) struct Queries {
    pub(crate) collections: Arc<Collections>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) settings: Arc<Settings>,
    schemas: Arc<Schemas>,
    store: Arc<dyn Store>,
    monitor: Arc<LoadMonitor>,
}

impl Queries {
    pub(crate) fn new(collections: &Arc<Collections>, monitor: Arc<LoadMonitor>) -> Self {
        Self {
            collections: Arc::clone(collections),
            registry: Arc::clone(&collections.registry),
            settings: Arc::clone(&collections.settings),
            schemas: Arc::clone(&collections.catalog.schemas),
            store: Arc::clone(&collections.store),
            monitor,
        }
    }
}
