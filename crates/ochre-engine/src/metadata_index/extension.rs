//! Declared indexes as an extension of the store: definitions and usage in its tables, and the job that builds.

use std::sync::Arc;

use ochre_scheduler::Task;
use uuid::Uuid;

use super::table;
use crate::database::Database;
use crate::error::Error;
use crate::extension::{StoreExtension, WeakDatabase};
use crate::metadata_index::registry::METADATA_INDEXES;
use crate::metadata_index::task::BuildIndexes;

struct Extension;

/// The declared indexes of metadata, as an extension.
///
/// A database without it has no declared indexes; filters are answered by columns.
pub fn metadata_indexes() -> Arc<dyn StoreExtension> {
    Arc::new(Extension)
}

impl StoreExtension for Extension {
    fn name(&self) -> &'static str {
        METADATA_INDEXES
    }

    fn migrations(&self) -> &'static [&'static str] {
        &table::MIGRATIONS
    }

    fn tasks(&self, database: &WeakDatabase) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(BuildIndexes(database.0.clone()))]
    }

    fn opened(&self, database: &Database) -> Result<(), Error> {
        database.inner.metadata_indexes.load_definitions()
    }

    fn deleted(&self, database: &Database, collection: Option<Uuid>) {
        database.inner.metadata_indexes.forget_indexes(collection);
    }
}
