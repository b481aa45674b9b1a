//! Writing: checks a request, waits while too much is waiting to be indexed, commits, and publishes what was committed.

pub(crate) mod conditional;
pub(crate) mod publish;
pub(crate) mod request;
mod validate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ochre_model::{Filter, WriteKind};
use ochre_store::{Error as StoreError, Idempotency, Operation, Outcome, Selection, Store, Write};
use uuid::Uuid;

use crate::collection::Collections;
use crate::collection::dirty::DirtySet;
use crate::error::Error;
use crate::query::Queries;
use crate::query::request::FilterWarnings;
use crate::schemas::{RequestValidator, Schemas};
use crate::settings::Settings;
use crate::throttle::load_monitor::LoadMonitor;
use crate::violations::Violations;
use crate::write::request::{DeleteRequest, NewRecords};
use crate::write::validate::check;

/// How often a delete by filter is resolved again because the collection moved on too far.
const STALE_MAX: usize = 16;

/// While memory is full it is looked at this often.
const MEMORY_CHECK_EVERY: Duration = Duration::from_millis(20);

/// Whoever writes.
pub(crate) struct Writes {
    queries: Arc<Queries>,
    collections: Arc<Collections>,
    schemas: Arc<Schemas>,
    store: Arc<dyn Store>,
    settings: Arc<Settings>,
    dirty: Arc<DirtySet>,
    monitor: Arc<LoadMonitor>,
}

impl Writes {
    pub(crate) fn new(queries: &Arc<Queries>, monitor: Arc<LoadMonitor>) -> Self {
        let collections = Arc::clone(&queries.collections);
        Self {
            queries: Arc::clone(queries),
            schemas: Arc::clone(&collections.catalog.schemas),
            store: Arc::clone(&collections.store),
            settings: Arc::clone(&collections.settings),
            dirty: Arc::clone(&collections.dirty),
            collections,
            monitor,
        }
    }

    pub(crate) fn write_records(
        &self, id: Uuid, kind: WriteKind, records: NewRecords, idempotency: Option<Idempotency>,
    ) -> Result<(Outcome, Violations), Error> {
        let _request = self.monitor.enter();
        if records.dimensions_differ {
            return Err(Error::invalid("Inconsistent dimensions in provided embeddings"));
        }
        let mut batch = records.batch;
        check(kind, &batch)?;
        batch.lift_reserved_keys();
        self.wait_for_room(id)?;
        let validator = RequestValidator::new(&self.schemas);
        let operation = Operation::Records { kind, batch };
        let write = Write { collection: id, operation, idempotency, validator: Some(Arc::clone(&validator) as _) };
        if validator.is_costly(&*self.collections.catalog.row(id)?) {
            validator.validate_early(|| self.store.preview(&write))?;
        }
        let outcome = self.store.commit(write);
        let reported = validator.finish(outcome.is_ok()).map_err(Error::Violations)?;
        Ok((outcome?, reported))
    }

    pub(crate) fn delete_records(
        &self, id: Uuid, request: DeleteRequest, idempotency: Option<Idempotency>,
    ) -> Result<(Outcome, FilterWarnings), Error> {
        let _request = self.monitor.enter();
        let row = self.collections.catalog.row(id)?;
        let DeleteRequest { ids, filter, limit } = request;
        if limit.is_some() && filter.is_none() {
            return Err(Error::invalid_field(
                "limit, where",
                "limit can only be specified when a where clause is provided",
            ));
        }
        let Some(filter) = filter else {
            let ids = ids.unwrap_or_default();
            let operation = Operation::Delete(Selection::Ids(ids));
            let outcome = self.store.commit(Write { collection: id, operation, idempotency, validator: None })?;
            return Ok((outcome, FilterWarnings::default()));
        };
        if ids.is_none() && filter.is_without_conditions() {
            return Err(Error::invalid(
                "the filter holds for every record, since it is a list of no conditions: nothing was deleted; give conditions or ids, or delete the collection",
            ));
        }
        let warnings = self.queries.check_filter(&row, Some(&filter))?;
        let filter = match ids {
            Some(ids) => Filter::All(vec![Filter::Ids(ids.into_iter().collect()), filter]),
            None => filter,
        };
        let mut tries = 0;
        loop {
            let (offsets, at) = self.queries.matching(&row, &filter)?;
            let selection = Selection::Matching { offsets, at, filter: filter.clone(), limit };
            let operation = Operation::Delete(selection);
            match self.store.commit(Write {
                collection: id,
                operation,
                idempotency: idempotency.clone(),
                validator: None,
            }) {
                Err(StoreError::Stale { .. }) if tries < STALE_MAX => tries += 1,
                other => return Ok((other?, warnings)),
            }
        }
    }

    /// Waits while the collection has too many vectors outside its graph, and loads it, so that its index
    /// grows along with it.
    fn wait_for_room(&self, id: Uuid) -> Result<(), Error> {
        let row = self.collections.catalog.row(id)?;
        // A collection that cannot be loaded can still be written to: that is how it is repaired.
        let Ok(_) = self.collections.view(&row) else { return Ok(()) };
        let deadline = Instant::now() + Duration::from_millis(self.settings.unindexed_wait_ms);
        let state = self.collections.state_of(&row);
        let mut view = state.view();
        loop {
            let (over_limit, is_late) = (self.collections.enforce_budget(), Instant::now() > deadline);
            let waiting = view.as_ref().map_or(0, |view| {
                // Without a graph nothing is waiting: all vectors are searched exactly, from sealed segments.
                if view.graph().is_some() { view.unindexed_len() * row.dimension.unwrap_or(0) * 4 } else { 0 }
            });
            if waiting <= self.settings.unindexed_bytes_max && over_limit == 0 {
                return Ok(());
            }
            if is_late && over_limit > 0 {
                return Err(Error::MemoryFull { limit_bytes: self.collections.memory_limit() });
            }
            if is_late {
                return Err(Error::Busy { waiting_bytes: waiting, limit_bytes: self.settings.unindexed_bytes_max });
            }
            self.dirty.mark_dirty(row.number);
            // Memory gets free without a view that says so.
            let again = if over_limit > 0 { deadline.min(Instant::now() + MEMORY_CHECK_EVERY) } else { deadline };
            view = state.wait_for_other_view(view.as_ref(), again);
        }
    }
}
