//! Declared indexes of metadata: their definitions, what became of them, and how often they were used.
//!
//! Invariants:
//! - A definition is in the store before anything is built, and gone from it before anything is removed.
//! - Files belong to a build (generation) of an index; a build serves once the store says that it is complete.
//! - An index changes no answer: what it does not cover is looked up in the columns.

pub(crate) mod admin;
pub(crate) mod advice;
pub(crate) mod api;
pub(crate) mod automatic;
pub(crate) mod build;
pub(crate) mod database_index;
pub(crate) mod definition;
pub(crate) mod describe;
pub(crate) mod entries;
pub(crate) mod extension;
pub(crate) mod policy;
pub(crate) mod registry;
mod shape;
pub(crate) mod status;
pub(crate) mod suggestion;
pub(crate) mod table;
pub(crate) mod task;
pub(crate) mod unindexed;
pub(crate) mod workload;

use std::sync::Arc;

use ochre_store::Store;

use crate::cache_dir::CacheDir;
use crate::collection::Collections;
use crate::collection::dirty::DirtySet;
use crate::metadata_index::registry::Registry;
use crate::schemas::Schemas;

/// Whoever declares, builds and maintains metadata indexes.
pub(crate) struct MetadataIndexes {
    pub(crate) registry: Arc<Registry>,
    collections: Arc<Collections>,
    schemas: Arc<Schemas>,
    store: Arc<dyn Store>,
    cache: Arc<CacheDir>,
    dirty: Arc<DirtySet>,
}

impl MetadataIndexes {
    pub(crate) fn new(collections: &Arc<Collections>) -> Self {
        Self {
            registry: Arc::clone(&collections.registry),
            collections: Arc::clone(collections),
            schemas: Arc::clone(&collections.catalog.schemas),
            store: Arc::clone(&collections.store),
            cache: Arc::clone(&collections.cache),
            dirty: Arc::clone(&collections.dirty),
        }
    }
}
