//! Indexes of a database: declared once, and an entry of their own for every collection there is or will be.
//!
//! What is declared is the truth; entries follow it. [`Inner::settle`] makes those that are missing and changes those
//! that differ, so that nothing depends on being told of every new collection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::definition::IndexDefinition;
use crate::metadata_index::registry::{DatabaseIndex, Declared, Entry, METADATA_INDEXES};
use crate::metadata_index::status::IndexOrigin;

impl MetadataIndexes {
    /// Notes that there is a new collection, which may need entries.
    pub(crate) fn note_new_collection(&self, tenant: &str, database: &str) {
        if !self.registry.of_database(tenant, database).is_empty() {
            self.registry.has_unsettled.store(true, Ordering::Relaxed);
            self.dirty.wake(METADATA_INDEXES);
        }
    }

    /// Lets every collection have an entry, as declared, for each index of its database, if any might not.
    pub(crate) fn settle_new_collections(&self) -> Result<(), Error> {
        if !self.registry.has_unsettled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _changing = self.registry.changing.lock();
        self.settle_all()
    }

    /// As [`Inner::settle_new_collections`], by whoever holds `changing`.
    pub(super) fn settle_all(&self) -> Result<(), Error> {
        self.registry.has_unsettled.store(false, Ordering::Relaxed);
        let settled = self.registry.all_declared().iter().try_for_each(|declared| match declared {
            Declared::Database(index) => self.settle(index),
            Declared::Collection(_) => Ok(()),
        });
        if settled.is_err() {
            self.registry.has_unsettled.store(true, Ordering::Relaxed);
        }
        settled
    }

    /// Entries of an index that is new, for the collections there are.
    pub(super) fn new_entries(&self, index: &DatabaseIndex) -> Result<Vec<Arc<Entry>>, Error> {
        let definition = index.definition.lock().clone();
        let rows = self.collections_of(&definition.tenant, &definition.database)?;
        rows.iter()
            .map(|row| Ok(Arc::new(Entry::new(Some(index.id), row, &definition, IndexOrigin::Declared)?)))
            .collect()
    }

    /// Lets every collection of its database have an entry as the index is declared. The caller holds `changing`.
    pub(super) fn settle(&self, index: &DatabaseIndex) -> Result<(), Error> {
        let definition = index.definition.lock().clone();
        let entries: HashMap<Uuid, Arc<Entry>> =
            self.registry.entries_of(index.id).into_iter().map(|entry| (entry.collection, entry)).collect();
        let (mut new, mut changes) = (Vec::new(), Vec::new());
        for row in self.collections_of(&definition.tenant, &definition.database)? {
            let Some(entry) = entries.get(&row.id) else {
                new.push(Arc::new(Entry::new(Some(index.id), &row, &definition, IndexOrigin::Declared)?));
                continue;
            };
            let wanted = IndexDefinition { collection: Some(row.id.to_string()), ..definition.clone() };
            let mut state = entry.state.lock().clone();
            if state.definition == wanted {
                continue;
            }
            if state.definition.has_same_entries(&wanted) {
                state.describe(wanted);
            } else {
                let shape = wanted.shape(entry.id)?;
                state.begin_build(wanted, Arc::new(shape));
            }
            changes.push((Arc::clone(entry), state));
        }
        if new.is_empty() && changes.is_empty() {
            return Ok(());
        }
        self.replace_rows(&[], &new, None)?;
        for entry in new {
            self.registry.declared.write().insert(Arc::clone(&entry));
            self.collections.show_builds(&entry);
        }
        self.change_entries(changes, None)?;
        self.dirty.wake(METADATA_INDEXES);
        Ok(())
    }

    /// Forgets indexes of a database that is gone.
    pub(crate) fn forget_database_indexes(&self, of_deleted: Vec<Arc<DatabaseIndex>>) {
        let _changing = self.registry.changing.lock();
        for index in of_deleted {
            let name = index.definition.lock().index_name.clone();
            if let Err(error) = self.remove_declared(&Declared::Database(index)) {
                tracing::warn!(index = name, %error, "could not forget the index of a deleted database yet");
            }
        }
    }
}
