//! Changing what is declared: first in the store, then in memory and in views, or not at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ochre_index::{IndexColumn, IndexShape};
use ochre_store::CollectionRow;
use uuid::Uuid;

use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::definition::IndexDefinition;
use crate::metadata_index::registry::{DatabaseIndex, Entry, INDEXES_PER_COLLECTION_MAX, METADATA_INDEXES, State};

impl MetadataIndexes {
    /// Refuses to declare anything without the extension.
    pub(super) fn check_declarable(&self) -> Result<(), Error> {
        if self.registry.is_open.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "the database was opened without the store extension '{METADATA_INDEXES}', so no index can be declared"
        )))
    }

    /// The collection that a definition names, unless it is of the whole database, which exists then.
    pub(super) fn indexed_collection(&self, definition: &IndexDefinition) -> Result<Option<Arc<CollectionRow>>, Error> {
        self.check_declarable()?;
        let IndexDefinition { tenant, database, collection, .. } = definition;
        let Some(collection) = collection else {
            return match self.store.database(tenant, database)? {
                Some(_) => Ok(None),
                None => {
                    Err(Error::NotFound(format!("database: there is no database '{database}' of tenant '{tenant}'")))
                }
            };
        };
        if let Some(row) = self.store.collection(tenant, database, collection)? {
            return Ok(Some(Arc::new(row)));
        }
        if let Ok(id) = Uuid::parse_str(collection)
            && let Ok(row) = self.collections.catalog.row(id)
            && row.tenant == *tenant
            && row.database == *database
        {
            return Ok(Some(row));
        }
        Err(Error::NotFound(format!(
            "collection: there is no collection '{collection}' in database '{database}' of tenant '{tenant}'"
        )))
    }

    /// The collections that a definition is of: one, or all of its database.
    pub(super) fn indexed_collections(&self, definition: &IndexDefinition) -> Result<Vec<Arc<CollectionRow>>, Error> {
        match self.indexed_collection(definition)? {
            Some(row) => Ok(vec![row]),
            None => self.collections_of(&definition.tenant, &definition.database),
        }
    }

    pub(super) fn collections_of(&self, tenant: &str, database: &str) -> Result<Vec<Arc<CollectionRow>>, Error> {
        let mut rows = self.store.all_collections()?;
        rows.retain(|row| row.tenant == tenant && row.database == database);
        Ok(rows.into_iter().map(Arc::new).collect())
    }

    /// Refuses more indexes than a collection may have, its database's included.
    pub(super) fn check_room(&self, row: &CollectionRow, more: usize) -> Result<(), Error> {
        self.check_room_after(row, more, 0)
    }

    /// As [`Inner::check_room`], once so many are gone.
    pub(super) fn check_room_after(&self, row: &CollectionRow, more: usize, fewer: usize) -> Result<(), Error> {
        let own = self.registry.of(row.number).iter().filter(|entry| entry.database_index.is_none()).count();
        let there = own + self.registry.of_database(&row.tenant, &row.database).len();
        if (there + more).saturating_sub(fewer) > INDEXES_PER_COLLECTION_MAX {
            return Err(Error::invalid(format!(
                "collection '{}' would have more than {INDEXES_PER_COLLECTION_MAX} indexes, the limit; delete some first",
                row.name
            )));
        }
        Ok(())
    }

    /// Refuses a key that no record ever had, in a collection that has records: it is a slip most likely.
    pub(super) fn check_columns(&self, row: &CollectionRow, shape: &IndexShape) -> Result<(), Error> {
        let view = self.collections.view(row)?;
        if view.live().is_empty() {
            return Ok(());
        }
        let declared = self.schemas.of(row).ok().flatten();
        for column in &shape.columns {
            let (IndexColumn::Key(key) | IndexColumn::Elements(key)) = column else { continue };
            let is_declared = declared.as_ref().is_some_and(|schema| schema.property(key).is_some());
            if is_declared || view.keys().any(|(known, _)| known == key) {
                continue;
            }
            let near = ochre_scheduler::nearest(key, view.keys().map(|(key, _)| key));
            let hint = near.map_or_else(
                || "write a record with it first, or declare it in the schema".to_owned(),
                |near| format!("did you mean {near:?}?"),
            );
            return Err(Error::invalid_index(
                "columns",
                format!("no record of collection '{}' has the key {key:?}; {hint}", row.name),
            ));
        }
        Ok(())
    }

    /// Changes what is known of an index, first in the store, then here and in the views, or not at all.
    pub(super) fn change_index<T>(&self, entry: &Arc<Entry>, change: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        let mut next = entry.state.lock().clone();
        let changed = change(&mut next);
        self.change_entries(vec![(Arc::clone(entry), next)], None)?;
        Ok(changed)
    }

    /// Changes what is known of entries, all of them or none; with them what the index of a database is declared to be.
    pub(super) fn change_entries(
        &self, changes: Vec<(Arc<Entry>, State)>, of: Option<&DatabaseIndex>,
    ) -> Result<(), Error> {
        self.save_entries(&changes, of)?;
        for (entry, mut next) in changes {
            let _showing = entry.showing.lock();
            {
                let mut state = entry.state.lock();
                let build = |state: &State| state.building.as_ref().map(|(generation, _)| *generation);
                if build(&state) == build(&next) {
                    // A build that goes on has gone on.
                    next.progress = state.progress;
                }
                *state = next;
            }
            self.collections.show_builds(&entry);
        }
        Ok(())
    }

    /// Begins builds in place of those that are under way.
    pub(super) fn begin_builds(&self, entries: &[Arc<Entry>]) -> Result<(), Error> {
        let mut changes = Vec::new();
        for entry in entries {
            let mut state = entry.state.lock().clone();
            let definition = state.definition.clone();
            state.begin_build(definition, Arc::new(state.definition.shape(entry.id)?));
            changes.push((Arc::clone(entry), state));
        }
        self.change_entries(changes, None)?;
        self.dirty.wake(METADATA_INDEXES);
        Ok(())
    }

    /// Forgets the indexes of a collection that is gone.
    pub(crate) fn forget_indexes(&self, collection: Option<Uuid>) {
        let _changing = self.registry.changing.lock();
        let gone = {
            let mut declared = self.registry.declared.write();
            if collection.is_none() {
                declared.names.clear();
            }
            declared.remove(|entry| collection.is_none_or(|id| entry.collection == id))
        };
        // What cannot be deleted now is, when the database is opened: its collection is gone.
        let ids: Vec<Uuid> = gone.iter().map(|entry| entry.id).collect();
        if let Err(error) = self.delete_rows(&ids, collection.is_none()) {
            tracing::warn!(%error, "could not forget the indexes of a deleted collection yet");
        }
    }
}
