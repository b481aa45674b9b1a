//! Indexes of a database: declared once, and an entry of their own for every collection there is or will be.
//!
//! What is declared is the truth; entries follow it. [`Inner::settle`] makes those that are missing and changes those
//! that differ, so that nothing depends on being told of every new collection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use uuid::Uuid;

use super::{Declared, Entry, IndexDefinition, Indexes, METADATA_INDEXES};
use crate::database::Inner;
use crate::error::Error;

/// An index that every collection of a database has.
pub(crate) struct DatabaseIndex {
    pub(super) id: Uuid,
    pub(super) created_at: i64,
    /// It names no collection.
    pub(super) definition: Mutex<IndexDefinition>,
}

impl Indexes {
    /// The indexes that every collection of a database has.
    pub(crate) fn of_database(&self, tenant: &str, database: &str) -> Vec<Arc<DatabaseIndex>> {
        let declared = self.declared.read();
        let own = declared.names.iter().filter(|((of, name, _), _)| of == tenant && name == database);
        own.filter_map(|(_, declared)| match declared {
            Declared::Database(index) => Some(Arc::clone(index)),
            Declared::Collection(_) => None,
        })
        .collect()
    }

    /// The entries of an index of a database.
    pub(super) fn entries_of(&self, index: Uuid) -> Vec<Arc<Entry>> {
        self.declared.read().all().filter(|entry| entry.database_index == Some(index)).cloned().collect()
    }

    /// The entries of whatever has a name.
    pub(super) fn entries(&self, declared: &Declared) -> Vec<Arc<Entry>> {
        match declared {
            Declared::Collection(entry) => vec![Arc::clone(entry)],
            Declared::Database(index) => self.entries_of(index.id),
        }
    }
}

impl Inner {
    /// Notes that there is a new collection, which may need entries.
    pub(crate) fn note_new_collection(&self, tenant: &str, database: &str) {
        if !self.indexes.of_database(tenant, database).is_empty() {
            self.indexes.has_unsettled.store(true, Ordering::Relaxed);
            self.signals.wake(METADATA_INDEXES);
        }
    }

    /// Lets every collection have an entry, as declared, for each index of its database, if any might not.
    pub(crate) fn settle_new_collections(&self) -> Result<(), Error> {
        if !self.indexes.has_unsettled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _changing = self.indexes.changing.lock();
        self.settle_all()
    }

    /// As [`Inner::settle_new_collections`], by whoever holds `changing`.
    pub(super) fn settle_all(&self) -> Result<(), Error> {
        self.indexes.has_unsettled.store(false, Ordering::Relaxed);
        let settled = self.indexes.all_declared().iter().try_for_each(|declared| match declared {
            Declared::Database(index) => self.settle(index),
            Declared::Collection(_) => Ok(()),
        });
        if settled.is_err() {
            self.indexes.has_unsettled.store(true, Ordering::Relaxed);
        }
        settled
    }

    /// Entries of an index that is new, for the collections there are.
    pub(super) fn new_entries(&self, index: &DatabaseIndex) -> Result<Vec<Arc<Entry>>, Error> {
        let definition = index.definition.lock().clone();
        let rows = self.collections_of(&definition.tenant, &definition.database)?;
        rows.iter().map(|row| Ok(Arc::new(Entry::new(Some(index.id), row, &definition)?))).collect()
    }

    /// Lets every collection of its database have an entry as the index is declared. The caller holds `changing`.
    pub(super) fn settle(&self, index: &DatabaseIndex) -> Result<(), Error> {
        let definition = index.definition.lock().clone();
        let entries: HashMap<Uuid, Arc<Entry>> =
            self.indexes.entries_of(index.id).into_iter().map(|entry| (entry.collection, entry)).collect();
        let (mut new, mut changes) = (Vec::new(), Vec::new());
        for row in self.collections_of(&definition.tenant, &definition.database)? {
            let Some(entry) = entries.get(&row.id) else {
                new.push(Arc::new(Entry::new(Some(index.id), &row, &definition)?));
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
            self.indexes.declared.write().insert(Arc::clone(&entry));
            self.show_builds(&entry);
        }
        self.change_entries(changes, None)?;
        self.signals.wake(METADATA_INDEXES);
        Ok(())
    }

    /// Forgets indexes of a database that is gone.
    pub(crate) fn forget_database_indexes(&self, of_deleted: Vec<Arc<DatabaseIndex>>) {
        let _changing = self.indexes.changing.lock();
        for index in of_deleted {
            let name = index.definition.lock().index_name.clone();
            if let Err(error) = self.remove_declared(&Declared::Database(index)) {
                tracing::warn!(index = name, %error, "could not forget the index of a deleted database yet");
            }
        }
    }
}
