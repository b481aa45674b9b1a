//! Attached functions as an extension of the store that every database has: their table, their job, and what they have
//! to be told.

use std::sync::{Arc, OnceLock};

use ochre_scheduler::Task;
use uuid::Uuid;

use crate::database::Database;
use crate::error::Error;
use crate::extension::{StoreExtension, WeakDatabase};
use crate::functions::{FUNCTIONS, table, task};
use crate::write::publish::Commit;

/// Attached functions, as an extension.
#[derive(Default)]
pub(crate) struct Extension {
    /// The database, once it is open.
    database: OnceLock<WeakDatabase>,
}

impl StoreExtension for Extension {
    fn name(&self) -> &'static str {
        FUNCTIONS
    }

    fn migrations(&self) -> &'static [&'static str] {
        &table::MIGRATIONS
    }

    fn tasks(&self, database: &WeakDatabase) -> Vec<Arc<dyn Task>> {
        vec![Arc::new(task::ComputeOutputs(database.0.clone()))]
    }

    fn opened(&self, database: &Database) -> Result<(), Error> {
        let _ = self.database.set(database.downgrade());
        database.inner.functions.load()
    }

    fn watches_commits(&self) -> bool {
        true
    }

    fn committed(&self, commit: &Commit) {
        let Some(Ok(database)) = self.database.get().map(WeakDatabase::open) else { return };
        if database.inner.functions.follows(commit.collection) {
            database.inner.collections.dirty.wake(FUNCTIONS);
        }
    }

    fn deleted(&self, database: &Database, collection: Option<Uuid>) {
        database.inner.functions.forget(collection);
    }
}
