//! What may be asked of metadata indexes: declare, show, change, rebuild, cancel, delete, verify.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ochre_model::budget;
use ochre_store::{CollectionNumber, CollectionRow};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::error::Error;
use crate::metadata_index::MetadataIndexes;
use crate::metadata_index::definition::IndexDefinition;
use crate::metadata_index::registry::{
    BuildOutcome, DatabaseIndex, Declared, Entry, INDEXES_PER_COLLECTION_MAX, IndexChange, IndexSelection,
    METADATA_INDEXES, Registry,
};
use crate::metadata_index::status::{IndexEstimate, IndexOrigin, IndexVerification, MetadataIndex};
use crate::schemas::unix_seconds;

impl MetadataIndexes {
    /// Declares a metadata index, of a collection or of every collection of a database, and begins to build it. One
    /// that exists as asked for is left alone.
    pub(crate) fn create(&self, definition: &IndexDefinition) -> Result<(MetadataIndex, IndexChange), Error> {
        self.create_of(IndexOrigin::Declared, definition)
    }

    /// As [`MetadataIndexes::create`], saying who wants it.
    pub(super) fn create_of(
        &self, origin: IndexOrigin, definition: &IndexDefinition,
    ) -> Result<(MetadataIndex, IndexChange), Error> {
        let _changing = self.registry.changing.lock();
        let (row, definition) = self.prepare_index(definition)?;
        if let Some(existing) = self.registry.existing(&definition)? {
            return Ok((self.describe(&existing)?, IndexChange::Nothing));
        }
        self.check_rooms(&definition, 1)?;
        let made = self.declare(None, row.as_deref(), definition, origin)?;
        Ok((self.describe(&made)?, IndexChange::Building))
    }

    /// Whether these metadata indexes may be declared together: no other has the name of one, and there is room.
    pub(crate) fn check_declarations(&self, definitions: &[IndexDefinition]) -> Result<(), Error> {
        for definition in definitions {
            let (_, definition) = self.prepare_index(definition)?;
            self.registry.existing(&definition)?;
        }
        self.check_room_for(definitions, &[])
    }

    /// Whether there is room for these metadata indexes once those of these places (tenant, database, name) are gone.
    pub(crate) fn check_room_for(&self, definitions: &[IndexDefinition], gone: &[[String; 3]]) -> Result<(), Error> {
        let mut more: BTreeMap<CollectionNumber, (Arc<CollectionRow>, usize, usize)> = BTreeMap::new();
        for definition in definitions {
            let (_, definition) = self.prepare_index(definition)?;
            if self.registry.find(&definition.tenant, &definition.database, &definition.index_name).is_err() {
                for row in self.indexed_collections(&definition)? {
                    more.entry(row.number).or_insert_with(|| (row, 0, 0)).1 += 1;
                }
            }
        }
        for [tenant, database, name] in gone {
            let definition = self.registry.find(tenant, database, name)?.definition();
            for row in self.indexed_collections(&definition)? {
                more.entry(row.number).or_insert_with(|| (row, 0, 0)).2 += 1;
            }
        }
        more.values().try_for_each(|(row, more, fewer)| self.check_room_after(row, *more, *fewer))
    }

    /// What a definition would come to: size, time, and what is there already. Nothing is changed.
    pub(crate) fn plan(&self, definition: &IndexDefinition) -> Result<IndexEstimate, Error> {
        let (row, definition) = self.prepare_index(definition)?;
        let shape = definition.shape(Uuid::nil())?;
        match row {
            Some(row) => self.estimate_index(&row, &definition, &shape),
            None => self.estimate_database_index(&definition, &shape),
        }
    }

    /// The declared indexes, by name. Those of a collection include the ones that its database has for all.
    pub(crate) fn list(&self, selection: &IndexSelection) -> Result<Vec<MetadataIndex>, Error> {
        let IndexSelection { tenant, database, collection, status } = selection;
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let mut shown = Vec::new();
        for declared in self.registry.all_declared() {
            let definition = declared.definition();
            if !is(tenant, &definition.tenant) || !is(database, &definition.database) {
                continue;
            }
            if let Declared::Collection(entry) = &declared {
                let name =
                    self.collections.catalog.row(entry.collection).map(|row| row.name.clone()).unwrap_or_default();
                if !is(collection, &name) && !is(collection, &entry.collection.to_string()) {
                    continue;
                }
            }
            shown.push(self.describe(&declared)?);
        }
        shown.retain(|index| status.is_none_or(|status| index.status == status));
        Ok(shown)
    }

    /// A declared index.
    pub(crate) fn show(&self, tenant: &str, database: &str, name: &str) -> Result<MetadataIndex, Error> {
        self.describe(&self.registry.find(tenant, database, name)?)
    }

    /// Makes the index `name` what it is asked to be: in place if only its name, `hidden` or `comment` differ, else by
    /// a build beside the one that serves. A build under way is superseded; of another collection than before, it takes
    /// the place of the one there was. One that does not exist is made.
    pub(crate) fn put(&self, name: &str, definition: &IndexDefinition) -> Result<(MetadataIndex, IndexChange), Error> {
        let IndexDefinition { tenant, database, index_name, .. } = definition;
        let existing = match self.registry.find(tenant, database, name) {
            Ok(existing) => existing,
            Err(error) if name != index_name => return Err(error),
            Err(_) => return self.create(definition),
        };
        let mut definition = definition.clone();
        if definition.collection.is_none() {
            definition.collection = existing.definition().collection;
        }
        // It reads records: nobody waits for it.
        let (row, definition) = self.prepare_index(&definition)?;
        let _changing = self.registry.changing.lock();
        if self.registry.find(tenant, database, name)?.id() != existing.id() {
            return Err(Error::Conflict(format!("index '{name}' was replaced meanwhile; try again")));
        }
        if name != definition.index_name && self.registry.find(tenant, database, &definition.index_name).is_ok() {
            return Err(Registry::taken(&definition.index_name));
        }
        let before = existing.definition();
        if before == definition {
            return Ok((self.describe(&existing)?, IndexChange::Nothing));
        }
        if before.collection != definition.collection {
            // One of the database counts among those of the collection already.
            self.check_rooms(&definition, usize::from(matches!(existing, Declared::Collection(_))))?;
            let made = self.declare(Some(&existing), row.as_deref(), definition, IndexOrigin::Declared)?;
            return Ok((self.describe(&made)?, IndexChange::Building));
        }
        let is_built = !before.has_same_entries(&definition);
        self.redefine(&existing, &definition)?;
        Ok((self.describe(&existing)?, if is_built { IndexChange::Building } else { IndexChange::Changed }))
    }

    /// Builds an index from the records again, beside the one that serves.
    pub(crate) fn rebuild(&self, tenant: &str, database: &str, name: &str) -> Result<MetadataIndex, Error> {
        let _changing = self.registry.changing.lock();
        let index = self.registry.find(tenant, database, name)?;
        self.begin_builds(&self.registry.entries(&index))?;
        self.describe(&index)
    }

    /// Stops a build under way; whether there was one. What served before goes on serving.
    pub(crate) fn cancel(&self, tenant: &str, database: &str, name: &str) -> Result<(MetadataIndex, bool), Error> {
        let _changing = self.registry.changing.lock();
        let index = self.registry.find(tenant, database, name)?;
        let mut changes = Vec::new();
        for entry in self.registry.entries(&index) {
            let mut state = entry.state.lock().clone();
            if state.building.is_none() {
                continue;
            }
            (state.building, state.progress) = (None, None);
            let served = state.serving.as_ref().map(|(_, served, _)| served.clone());
            match served {
                Some(served)
                    if matches!(index, Declared::Database(_)) && !served.has_same_entries(&state.definition) =>
                {
                    return Err(Error::Conflict(format!(
                        "index '{name}' was changed for the whole database and is being built: put the former definition to go back to it"
                    )));
                }
                Some(served) => {
                    // What is defined is what serves again.
                    let IndexDefinition { index_name, hidden, comment, .. } = state.definition.clone();
                    state.describe(IndexDefinition { index_name, hidden, comment, ..served });
                }
                None => state.outcome = BuildOutcome::Cancelled,
            }
            changes.push((entry, state));
        }
        let was_building = !changes.is_empty();
        if was_building {
            self.change_entries(changes, None)?;
        }
        Ok((self.describe(&index)?, was_building))
    }

    /// Deletes an index, and stops its build.
    pub(crate) fn delete(&self, tenant: &str, database: &str, name: &str) -> Result<MetadataIndex, Error> {
        let _changing = self.registry.changing.lock();
        let index = self.registry.find(tenant, database, name)?;
        let shown = self.describe(&index)?;
        self.remove_declared(&index)?;
        tracing::info!(index = name, tenant, database, "deleted a metadata index");
        Ok(shown)
    }

    /// Compares an index with the records; of a collection where they differ, it is used no more until it is rebuilt.
    pub(crate) fn verify(&self, tenant: &str, database: &str, name: &str) -> Result<IndexVerification, Error> {
        let index = self.registry.find(tenant, database, name)?;
        let entries = self.registry.entries(&index);
        let mut found = Vec::new();
        for entry in &entries {
            match self.verify_entry(entry, name) {
                // Of all collections of a database some may have no build yet.
                Err(Error::Conflict(reason)) if entries.len() > 1 => {
                    tracing::debug!(index = name, reason, "not verified")
                }
                verified => found.push(verified?),
            }
        }
        if found.is_empty() && !entries.is_empty() {
            return Err(Error::Conflict(format!("index '{name}' is not built yet: there is nothing to verify")));
        }
        let sum = |of: fn(&Verified) -> usize| found.iter().map(of).sum::<usize>();
        let discarded = found.iter().filter(|verified| verified.is_discarded);
        Ok(IndexVerification {
            index_name: name.to_owned(),
            status: self.describe(&index)?.status,
            records_compared: sum(|verified| verified.compared),
            records_wrong: sum(|verified| verified.wrong),
            records_outside: sum(|verified| verified.outside),
            discarded: discarded.map(|verified| verified.collection.clone()).collect(),
        })
    }
}

/// How an index compares with the records of a collection.
struct Verified {
    collection: String,
    compared: usize,
    wrong: usize,
    /// Records that it does not cover.
    outside: usize,
    /// Whether it covers nothing although there are records that it had covered.
    is_discarded: bool,
}

impl MetadataIndexes {
    /// Checks a definition against its collection; with the collection by its id.
    fn prepare_index(
        &self, definition: &IndexDefinition,
    ) -> Result<(Option<Arc<CollectionRow>>, IndexDefinition), Error> {
        let row = self.indexed_collection(definition)?;
        let shape = definition.shape(Uuid::nil())?;
        if let Some(row) = &row {
            self.check_columns(row, &shape)?;
        }
        let collection = row.as_ref().map(|row| row.id.to_string());
        Ok((row, IndexDefinition { collection, ..definition.clone() }))
    }

    /// Refuses more indexes than the collections of a definition may have.
    fn check_rooms(&self, definition: &IndexDefinition, more: usize) -> Result<(), Error> {
        let of_database = self.registry.of_database(&definition.tenant, &definition.database).len();
        if definition.collection.is_none() && of_database + more > INDEXES_PER_COLLECTION_MAX {
            return Err(Error::invalid(format!(
                "database '{}' would have more than {INDEXES_PER_COLLECTION_MAX} indexes for all its collections, the limit; delete some first",
                definition.database
            )));
        }
        self.indexed_collections(definition)?.iter().try_for_each(|row| self.check_room(row, more))
    }

    /// Makes an index, in place of another if there is one; all of it or nothing. The caller holds `changing`.
    fn declare(
        &self, before: Option<&Declared>, row: Option<&CollectionRow>, definition: IndexDefinition, origin: IndexOrigin,
    ) -> Result<Declared, Error> {
        let name = definition.index_name.clone();
        let made = match row {
            Some(row) => Declared::Collection(Arc::new(Entry::new(None, row, &definition, origin)?)),
            None => Declared::Database(Arc::new(DatabaseIndex {
                id: Uuid::new_v4(),
                created_at: unix_seconds(),
                definition: Mutex::new(definition),
            })),
        };
        let entries: Vec<Arc<Entry>> = match &made {
            Declared::Collection(entry) => vec![Arc::clone(entry)],
            Declared::Database(index) => self.new_entries(index)?,
        };
        self.replace_declared(before, Some((&made, &entries)))?;
        // A collection that was made meanwhile did not know of it.
        self.registry.has_unsettled.fetch_or(row.is_none(), Ordering::Relaxed);
        self.dirty.wake(METADATA_INDEXES);
        tracing::info!(index = name, collection = row.map(|row| row.name.as_str()), "declared a metadata index");
        Ok(made)
    }

    /// Removes an index and its entries. The caller holds `changing`.
    pub(super) fn remove_declared(&self, index: &Declared) -> Result<(), Error> {
        self.replace_declared(Some(index), None)
    }

    /// Puts an index with its entries in the place of another: first in the store, in one transaction, then here and in
    /// the views.
    fn replace_declared(
        &self, before: Option<&Declared>, new: Option<(&Declared, &[Arc<Entry>])>,
    ) -> Result<(), Error> {
        let old = before.map_or(Vec::new(), |before| self.registry.entries(before));
        let gone: Vec<Uuid> = old.iter().map(|entry| entry.id).chain(before.map(Declared::id)).collect();
        let of = match new {
            Some((Declared::Database(index), _)) => Some(&**index),
            _ => None,
        };
        self.replace_rows(&gone, new.map_or(&[], |(_, entries)| entries), of)?;
        {
            let mut declared = self.registry.declared.write();
            declared.remove(|entry| gone.contains(&entry.id));
            if let Some(before) = before {
                let place = Registry::place(&before.definition());
                // Another may have its name by now: that of a database made after this one's was deleted.
                if declared.names.get(&place).is_some_and(|named| named.id() == before.id()) {
                    declared.names.remove(&place);
                }
            }
            if let Some((new, entries)) = new {
                declared.names.insert(Registry::place(&new.definition()), new.clone());
                entries.iter().for_each(|entry| declared.insert(Arc::clone(entry)));
            }
        }
        for entry in &old {
            {
                let mut state = entry.state.lock();
                (state.building, state.serving, state.progress) = (None, None, None);
            }
            self.collections.show_builds(entry);
        }
        new.iter().flat_map(|(_, entries)| *entries).for_each(|entry| self.collections.show_builds(entry));
        Ok(())
    }

    /// Changes what an index of the same collections is declared to be. The caller holds `changing`.
    fn redefine(&self, index: &Declared, definition: &IndexDefinition) -> Result<(), Error> {
        let before = index.definition();
        let (old, new) = (Registry::place(&before), Registry::place(definition));
        match index {
            Declared::Collection(entry) => {
                let mut state = entry.state.lock().clone();
                // Whoever changes one that was created automatically makes it their own.
                state.origin = IndexOrigin::Declared;
                if before.has_same_entries(definition) {
                    state.describe(definition.clone());
                } else {
                    let shape = definition.shape(entry.id)?;
                    state.begin_build(definition.clone(), Arc::new(shape));
                }
                self.change_entries(vec![(Arc::clone(entry), state)], None)?;
            }
            Declared::Database(own) => {
                let changed = DatabaseIndex {
                    id: own.id,
                    created_at: own.created_at,
                    definition: Mutex::new(definition.clone()),
                };
                self.change_entries(Vec::new(), Some(&changed))?;
                own.definition.lock().clone_from(definition);
            }
        }
        {
            let mut declared = self.registry.declared.write();
            declared.names.remove(&old);
            declared.names.insert(new, index.clone());
        }
        // Once it is declared, entries follow, if not now then when the job runs.
        if let Declared::Database(own) = index
            && let Err(error) = self.settle(own)
        {
            self.registry.has_unsettled.store(true, Ordering::Relaxed);
            tracing::warn!(index = definition.index_name, %error, "an index of a database was changed; its collections follow later");
        }
        if before.hidden != definition.hidden {
            self.registry.entries(index).iter().for_each(|entry| entry.usage.reset());
        }
        self.dirty.wake(METADATA_INDEXES);
        Ok(())
    }

    /// Compares an index with the records of its collection.
    fn verify_entry(&self, entry: &Arc<Entry>, name: &str) -> Result<Verified, Error> {
        let row = self.collections.catalog.row(entry.collection)?;
        let view = self.collections.view(&row)?;
        let Some(generation) = entry.state.lock().serving.as_ref().map(|(generation, ..)| *generation) else {
            return Err(Error::Conflict(format!("index '{name}' is not built yet: there is nothing to verify")));
        };
        let Some(index) = view.index(entry.id.into_bytes(), generation) else {
            return Err(Error::Conflict(format!(
                "index '{name}' is not used, so there is nothing to verify; rebuild it"
            )));
        };
        let (compared, wrong) = view.verify_index(index, &mut |_| budget::check().is_err());
        budget::check()?;
        let outside = view.outside_index(index).len();
        let _changing = self.registry.changing.lock();
        if !self.registry.of(entry.number).iter().any(|other| other.id == entry.id) {
            return Err(Error::Conflict(format!("index '{name}' was replaced meanwhile; verify it again")));
        }
        self.change_index(entry, |state| {
            state.verified_at = Some(unix_seconds());
            if wrong > 0 {
                let text = format!("{wrong} of {compared} records differ from what the index says of them; rebuild it");
                (state.outcome, state.error) = (BuildOutcome::Invalid, Some(text));
            }
        })?;
        if wrong > 0 {
            tracing::error!(
                index = name,
                collection = row.name,
                wrong,
                compared,
                "a metadata index does not say what its records do; it is not used until it is rebuilt"
            );
        }
        let is_discarded = compared == 0 && outside > 0 && entry.is_discarded.load(Ordering::Relaxed);
        Ok(Verified { collection: row.name.clone(), compared, wrong, outside, is_discarded })
    }
}
