//! What may be asked of metadata indexes: declare, show, change, rebuild, cancel, delete, verify.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ochre_store::{CollectionNumber, CollectionRow};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{BuildOutcome, Entry, IndexChange, IndexDefinition, IndexSelection, Indexes, METADATA_INDEXES};
use crate::database::Database;
use crate::error::Error;
use crate::schemas::unix_seconds;

impl Database {
    /// Declares a metadata index and begins to build it. One that exists as asked for is left alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad definition, [`Error::NotFound`] if there is no such collection,
    /// [`Error::Conflict`] if another index has the name, [`Error::Store`].
    pub fn create_metadata_index(&self, definition: &IndexDefinition) -> Result<(Json, IndexChange), Error> {
        let inner = &self.inner;
        let _changing = inner.indexes.changing.lock();
        let row = inner.indexed_collection(definition)?;
        let definition = IndexDefinition { collection: row.id.to_string(), ..definition.clone() };
        let id = Uuid::new_v4();
        let shape = Arc::new(definition.shape(id)?);
        inner.check_columns(&row, &shape)?;
        let place = Indexes::place(&definition);
        if let Some(existing) = inner.indexes.existing(&definition)? {
            return Ok((inner.describe_index(&existing), IndexChange::Nothing));
        }
        inner.check_room(&row, 1)?;
        let entry = Arc::new(Entry::new(id, &row, definition, shape));
        inner.save_index(&entry, &entry.state.lock().clone(), true)?;
        inner.indexes.entries.write().insert(place, Arc::clone(&entry));
        inner.show_builds(&entry);
        inner.signals.wake(METADATA_INDEXES);
        tracing::info!(index = entry.state.lock().definition.index_name, collection = %row.id, "declared a metadata index");
        Ok((inner.describe_index(&entry), IndexChange::Building))
    }

    /// Whether these metadata indexes may be declared together: no other has the name of one, and there is room.
    ///
    /// # Errors
    /// As [`Database::create_metadata_index`].
    pub fn check_metadata_indexes(&self, definitions: &[IndexDefinition]) -> Result<(), Error> {
        let mut more: BTreeMap<CollectionNumber, (Arc<CollectionRow>, usize)> = BTreeMap::new();
        for definition in definitions {
            let row = self.inner.indexed_collection(definition)?;
            let definition = IndexDefinition { collection: row.id.to_string(), ..definition.clone() };
            if self.inner.indexes.existing(&definition)?.is_none() {
                more.entry(row.number).or_insert_with(|| (row, 0)).1 += 1;
            }
        }
        more.values().try_for_each(|(row, more)| self.inner.check_room(row, *more))
    }

    /// What a definition would come to: size, time, and what is there already. Nothing is changed.
    ///
    /// # Errors
    /// As [`Database::create_metadata_index`].
    pub fn plan_metadata_index(&self, definition: &IndexDefinition) -> Result<Json, Error> {
        let row = self.inner.indexed_collection(definition)?;
        let shape = definition.shape(Uuid::nil())?;
        self.inner.check_columns(&row, &shape)?;
        self.inner.estimate_index(&row, definition, &shape)
    }

    /// The declared indexes, by name.
    pub fn metadata_indexes(&self, selection: &IndexSelection) -> Vec<Json> {
        let IndexSelection { tenant, database, collection, status } = selection;
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        self.inner
            .indexes
            .all()
            .iter()
            .filter(|entry| {
                let name = self.inner.row(entry.collection).map(|row| row.name.clone()).unwrap_or_default();
                let state = entry.state.lock();
                is(tenant, &state.definition.tenant)
                    && is(database, &state.definition.database)
                    && is(status, state.status())
                    && (is(collection, &name) || is(collection, &entry.collection.to_string()))
            })
            .map(|entry| self.inner.describe_index(entry))
            .collect()
    }

    /// A declared index.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn metadata_index(&self, tenant: &str, database: &str, name: &str) -> Result<Json, Error> {
        Ok(self.inner.describe_index(&*self.inner.indexes.find(tenant, database, name)?))
    }

    /// Makes an index what it is asked to be: in place if only `hidden` or `comment` differ, else by a build beside
    /// the one that serves. A build under way is superseded. One that does not exist is made.
    ///
    /// # Errors
    /// As [`Database::create_metadata_index`].
    pub fn put_metadata_index(&self, definition: &IndexDefinition) -> Result<(Json, IndexChange), Error> {
        let inner = &self.inner;
        let place = Indexes::place(definition);
        let existing = inner.indexes.entries.read().get(&place).cloned();
        let Some(entry) = existing else { return self.create_metadata_index(definition) };
        let mut definition = definition.clone();
        if definition.collection.is_empty() {
            definition.collection = entry.collection.to_string();
        }
        let row = inner.indexed_collection(&definition)?;
        definition.collection = row.id.to_string();
        let shape = Arc::new(definition.shape(entry.id)?);
        inner.check_columns(&row, &shape)?;
        if row.id != entry.collection {
            // Whatever could refuse the new one does so before the old one goes.
            inner.check_room(&row, 1)?;
            self.delete_metadata_index(&definition.tenant, &definition.database, &definition.index_name)?;
            return self.create_metadata_index(&definition);
        }
        let _changing = inner.indexes.changing.lock();
        if inner.indexes.find(&place.0, &place.1, &place.2)?.id != entry.id {
            return Err(Error::Conflict(format!("index '{}' was replaced meanwhile; try again", place.2)));
        }
        let before = entry.state.lock().definition.clone();
        if before == definition {
            return Ok((inner.describe_index(&entry), IndexChange::Nothing));
        }
        if !before.has_same_entries(&definition) {
            inner.begin_build(&entry, definition, shape)?;
            return Ok((inner.describe_index(&entry), IndexChange::Building));
        }
        let is_hidden = definition.hidden;
        inner.change_index(&entry, |state| state.definition = definition)?;
        if before.hidden != is_hidden {
            let now = unix_seconds().cast_unsigned();
            [(&entry.usage.uses, 0), (&entry.usage.rows, 0), (&entry.usage.last_used, 0), (&entry.usage.since, now)]
                .into_iter()
                .for_each(|(counter, value)| counter.store(value, Ordering::Relaxed));
        }
        Ok((inner.describe_index(&entry), IndexChange::Changed))
    }

    /// Builds an index anew from the records, beside the one that serves.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub fn rebuild_metadata_index(&self, tenant: &str, database: &str, name: &str) -> Result<Json, Error> {
        let inner = &self.inner;
        let _changing = inner.indexes.changing.lock();
        let entry = inner.indexes.find(tenant, database, name)?;
        let definition = entry.state.lock().definition.clone();
        let shape = Arc::new(definition.shape(entry.id)?);
        inner.begin_build(&entry, definition, shape)?;
        Ok(inner.describe_index(&entry))
    }

    /// Stops a build under way; whether there was one. What served before goes on serving.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub fn cancel_metadata_index(&self, tenant: &str, database: &str, name: &str) -> Result<(Json, bool), Error> {
        let inner = &self.inner;
        let _changing = inner.indexes.changing.lock();
        let entry = inner.indexes.find(tenant, database, name)?;
        let was_building = entry.state.lock().building.is_some();
        if was_building {
            inner.change_index(&entry, |state| {
                (state.building, state.progress) = (None, None);
                if let Some((_, served, _)) = &state.serving {
                    // What is defined is what serves again.
                    let (hidden, comment) = (state.definition.hidden, state.definition.comment.clone());
                    state.definition = IndexDefinition { hidden, comment, ..served.clone() };
                } else {
                    state.outcome = BuildOutcome::Cancelled;
                }
            })?;
        }
        Ok((inner.describe_index(&entry), was_building))
    }

    /// Deletes an index, and stops its build.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub fn delete_metadata_index(&self, tenant: &str, database: &str, name: &str) -> Result<Json, Error> {
        let inner = &self.inner;
        let _changing = inner.indexes.changing.lock();
        let entry = inner.indexes.find(tenant, database, name)?;
        let shown = inner.describe_index(&entry);
        inner.delete_index_row(entry.id)?;
        inner.indexes.entries.write().remove(&(tenant.to_owned(), database.to_owned(), name.to_owned()));
        {
            let mut state = entry.state.lock();
            (state.building, state.serving, state.progress) = (None, None, None);
        }
        inner.show_builds(&entry);
        tracing::info!(index = name, collection = %entry.collection, "deleted a metadata index");
        Ok(shown)
    }

    /// Compares an index with the records; if they differ, it is used no more until it is rebuilt.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub fn verify_metadata_index(&self, tenant: &str, database: &str, name: &str) -> Result<Json, Error> {
        let inner = &self.inner;
        let entry = inner.indexes.find(tenant, database, name)?;
        let row = inner.row(entry.collection)?;
        let view = inner.view(&row)?;
        let Some(generation) = entry.state.lock().serving.as_ref().map(|(generation, ..)| *generation) else {
            return Err(Error::Conflict(format!("index '{name}' is not built yet: there is nothing to verify")));
        };
        let Some(index) = view.index(entry.id.into_bytes(), generation) else {
            return Err(Error::Conflict(format!(
                "index '{name}' is not used, so there is nothing to verify; rebuild it"
            )));
        };
        let (compared, wrong) = view.verify_index(index, &mut |_| false);
        let _changing = inner.indexes.changing.lock();
        if inner.indexes.find(tenant, database, name)?.id != entry.id {
            return Err(Error::Conflict(format!("index '{name}' was replaced meanwhile; verify it again")));
        }
        inner.change_index(&entry, |state| {
            state.verified_at = Some(unix_seconds());
            if wrong > 0 {
                let text = format!("{wrong} of {compared} records differ from what the index says of them; rebuild it");
                (state.outcome, state.error) = (BuildOutcome::Invalid, Some(text));
            }
        })?;
        if wrong > 0 {
            tracing::error!(
                index = name,
                wrong,
                compared,
                "a metadata index does not say what its records do; it is not used until it is rebuilt"
            );
        }
        Ok(json!({
            "index_name": name, "valid": wrong == 0, "records_compared": compared, "records_wrong": wrong,
            "status": entry.state.lock().status(),
        }))
    }

    /// Indexes that the filters of the past requests would have profited from, with ready requests.
    pub fn suggest_metadata_indexes(&self, selection: &IndexSelection) -> Vec<Json> {
        self.inner.suggest_indexes(selection)
    }
}
