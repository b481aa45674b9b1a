//! Functions attached to collections, as Chroma has them: each keeps an output collection up to date with what it
//! computes of its input.
//!
//! Invariants:
//! - A collection has at most one, and an output collection none.
//! - What is attached is in the store before the output collection is written to, and goes with either collection.
//! - An output is computed from one committed state of its input, and is written before that position is noted: killed
//!   in between, it is computed again.

pub(crate) mod attached;
pub(crate) mod compute;
pub(crate) mod extension;
mod table;
mod task;

use std::collections::HashMap;
use std::sync::Arc;

use ochre_model::{HnswConfiguration, IndexSchema};
use ochre_store::{CollectionRow, Error as StoreError, Store};
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::catalog::{Catalog, CollectionOptions};
use crate::collection::Collections;
use crate::error::Error;
use crate::functions::attached::{AttachedFunction, Function, State};
use crate::write::Writes;

/// The extension, its tables and its job.
pub(crate) const FUNCTIONS: &str = "functions";

/// Whoever attaches functions and computes their outputs.
pub(crate) struct Functions {
    /// The functions that are attached, by input collection.
    attached: RwLock<HashMap<Uuid, Arc<State>>>,
    /// Held while functions are attached and detached.
    changing: Mutex<()>,
    collections: Arc<Collections>,
    catalog: Arc<Catalog>,
    store: Arc<dyn Store>,
    writes: Arc<Writes>,
}

impl Functions {
    pub(crate) fn new(collections: &Arc<Collections>, writes: &Arc<Writes>) -> Self {
        Self {
            attached: RwLock::default(),
            changing: Mutex::default(),
            collections: Arc::clone(collections),
            catalog: Arc::clone(&collections.catalog),
            store: Arc::clone(&collections.store),
            writes: Arc::clone(writes),
        }
    }

    /// The function of a collection, if it has one.
    fn of(&self, collection: Uuid) -> Option<Arc<State>> {
        self.attached.read().get(&collection).cloned()
    }

    fn all(&self) -> Vec<Arc<State>> {
        self.attached.read().values().cloned().collect()
    }

    /// The function whose output a collection is, if it is one.
    fn writing_to(&self, collection: Uuid) -> Option<Arc<State>> {
        self.attached.read().values().find(|state| state.output == collection).cloned()
    }

    /// Whether a commit to this collection is to be followed.
    fn follows(&self, collection: Uuid) -> bool {
        self.attached.read().contains_key(&collection)
    }

    /// Attaches a function to a collection, with an output collection that is made for it; whether it was not attached
    /// before.
    pub(crate) fn attach(
        &self, collection: &CollectionRow, name: &str, function: Function, output: &str,
    ) -> Result<(AttachedFunction, bool), Error> {
        let _changing = self.changing.lock();
        if name.is_empty() {
            return Err(Error::invalid_field("name", "a function needs a name"));
        }
        if self.writing_to(collection.id).is_some() {
            return Err(Error::invalid("cannot attach function to an output collection"));
        }
        if let Some(state) = self.of(collection.id) {
            let attached = self.describe(&state)?;
            if (&*attached.name, attached.function, &*attached.output_collection) == (name, function, output) {
                return Ok((attached, false));
            }
            return Err(Error::Conflict(format!(
                "collection already has an attached function: name={}, function={}, output_collection={}; detach it first",
                attached.name,
                attached.function.name(),
                attached.output_collection
            )));
        }
        let (output, id) = self.make_output(collection, output)?;
        let state = State::new(id, name, function, collection.id, output.id);
        if let Err(error) = table::insert(&*self.store, &state) {
            // Nothing is half done.
            let _ = self.store.delete_collection(output.id);
            self.catalog.forget(output.id);
            return Err(error);
        }
        let state = Arc::new(state);
        self.attached.write().insert(collection.id, Arc::clone(&state));
        if self.catalog.row(collection.id).is_err() {
            // It was deleted meanwhile, and nobody told of that knew of the function.
            self.attached.write().remove(&collection.id);
            let _ = table::delete(&*self.store, &[id]);
            let _ = self.store.delete_collection(output.id);
            self.catalog.forget(output.id);
            return Err(Error::no_collection(collection.id));
        }
        self.collections.dirty.wake(FUNCTIONS);
        tracing::info!(collection = collection.name, function = function.name(), "attached a function");
        Ok((self.describe(&state)?, true))
    }

    /// Makes the output collection of a function, and its id. One that was left behind when attaching was cut short,
    /// and never written to, is taken, with the id that it says.
    fn make_output(&self, input: &CollectionRow, name: &str) -> Result<(CollectionRow, Uuid), Error> {
        if let Some(existing) = self.store.collection(&input.tenant, &input.database, name)? {
            let is_written = self.store.read()?.head(existing.number)?.is_none_or(|head| head.position > 0);
            let function = existing.schema.source_function().and_then(|id| Uuid::parse_str(id).ok());
            let is_free = |id: &Uuid| !is_written && self.all().iter().all(|state| state.id != *id);
            let function = function.filter(is_free);
            let taken = || Error::Conflict(format!("Output collection [{name}] already exists"));
            return function.map(|id| (existing, id)).ok_or_else(taken);
        }
        let function = Uuid::new_v4();
        let mut schema = IndexSchema::new(&HnswConfiguration::default(), None);
        schema.set_source_function(&function.to_string());
        let options = CollectionOptions { schema: Some(schema), ..CollectionOptions::default() };
        let made = self.catalog.create(&input.tenant, &input.database, name, options);
        made.map(|made| (made, function)).map_err(|error| match error {
            Error::Store(StoreError::AlreadyExists { .. }) => {
                Error::Conflict(format!("Output collection [{name}] already exists"))
            }
            error => error,
        })
    }

    /// The function of this name that is attached to a collection.
    pub(crate) fn find(&self, collection: Uuid, name: &str) -> Result<AttachedFunction, Error> {
        let state = self.of(collection).filter(|state| state.name == name);
        let state = state.ok_or_else(|| {
            Error::NotFound(format!("Attached function [{name}] of collection [{collection}] does not exist"))
        })?;
        self.describe(&state)
    }

    /// Detaches a function; its output collection stays.
    pub(crate) fn detach(&self, collection: Uuid, name: &str) -> Result<AttachedFunction, Error> {
        let _changing = self.changing.lock();
        let attached = self.find(collection, name)?;
        table::delete(&*self.store, &[attached.id])?;
        self.attached.write().remove(&collection);
        Ok(attached)
    }

    /// Forgets the functions of a deleted collection, or of all, and those that wrote to it.
    fn forget(&self, deleted: Option<Uuid>) {
        let _changing = self.changing.lock();
        let is_gone = |state: &State| deleted.is_none_or(|id| state.collection == id || state.output == id);
        let gone: Vec<Uuid> = self.all().iter().filter(|state| is_gone(state)).map(|state| state.id).collect();
        if gone.is_empty() {
            return;
        }
        self.attached.write().retain(|_, state| !is_gone(state));
        if let Err(error) = table::delete(&*self.store, &gone) {
            tracing::warn!(%error, "could not forget the functions of a deleted collection; they are when it is opened next");
        }
    }

    /// What is known of a function, under the names that its collections have now.
    fn describe(&self, state: &State) -> Result<AttachedFunction, Error> {
        let (input, output) = (self.catalog.row(state.collection)?, self.catalog.row(state.output)?);
        Ok(AttachedFunction {
            id: state.id,
            name: state.name.clone(),
            function: state.function,
            collection: input.id,
            tenant: input.tenant.clone(),
            database: input.database.clone(),
            output_collection: output.name.clone(),
            output_collection_id: output.id,
            position: state.position(),
            error: state.error(),
        })
    }

    /// Reads which functions are attached. Those of collections that are gone are forgotten.
    fn load(&self) -> Result<(), Error> {
        let mut gone = Vec::new();
        for state in table::read(&*self.store)? {
            let is_there = |id| Ok::<_, Error>(self.store.collection_by_id(id)?.is_some());
            if !is_there(state.collection)? || !is_there(state.output)? {
                gone.push(state.id);
            } else {
                self.attached.write().insert(state.collection, Arc::new(state));
            }
        }
        if gone.is_empty() { Ok(()) } else { table::delete(&*self.store, &gone) }
    }
}
