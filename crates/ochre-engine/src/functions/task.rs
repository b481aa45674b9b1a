//! `functions`: computes the outputs of attached functions whose input changed.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ochre_model::WriteKind;
use ochre_scheduler::{Context, Defaults, Failure, Readiness, Stop, Task, TaskSettings};
use uuid::Uuid;

use crate::error::Error;
use crate::functions::attached::State;
use crate::functions::compute::{OutputRecord, compute};
use crate::functions::{FUNCTIONS, Functions, table};
use crate::inner::WeakInner;
use crate::maintenance::job::{every, part};
use crate::write::request::{DeleteRequest, NewRecords};

/// Records of an output that are written at once.
const RECORDS_AT_ONCE: usize = 1_000;

pub(super) struct ComputeOutputs(pub(super) WeakInner);

impl Task for ComputeOutputs {
    fn name(&self) -> &'static str {
        FUNCTIONS
    }

    fn description(&self) -> &'static str {
        "computes the outputs of attached functions whose input changed"
    }

    fn defaults(&self) -> Defaults {
        every(5, |policies| policies.jitter = 0.0)
    }

    fn check(&self, _: &TaskSettings) -> Result<Readiness, Failure> {
        let inner = self.0.open()?;
        let due = inner.functions.due()?.iter().filter(|state| !state.rests()).count();
        Ok(match due {
            0 => Readiness::Idle("every output of an attached function is up to date".into()),
            count => Readiness::Ready(format!("the inputs of {count} attached functions changed")),
        })
    }

    fn run(&self, context: &Context<'_>) -> Result<String, Failure> {
        let inner = self.0.open()?;
        let mut due = inner.functions.due()?;
        // Run by hand, it computes whatever is due.
        if due.iter().any(|state| !state.rests()) {
            due.retain(|state| !state.rests());
        }
        let mut failures = Vec::new();
        for (number, state) in due.iter().enumerate() {
            context.step(part("outputs computed", number, due.len()))?;
            let began = Instant::now();
            match inner.functions.compute_output(state, context) {
                Ok(position) => state.note_computed(position, began.elapsed()),
                Err(Failed::Stopped(stop)) => return Err(stop.into()),
                // Deleted or detached meanwhile.
                Err(Failed::Engine(error)) if error.not_found().is_some() => {}
                // The others go on.
                Err(Failed::Engine(error)) => {
                    state.note_failed(error.to_string());
                    failures.push(format!("'{}': {error}", state.name));
                }
            }
        }
        if failures.is_empty() {
            return Ok(format!("computed the outputs of {} attached functions", due.len()));
        }
        Err(Failure::Failed(format!(
            "{} of {} outputs could not be computed: {}",
            failures.len(),
            due.len(),
            failures.join("; ")
        )))
    }
}

/// Why an output was not computed.
enum Failed {
    Engine(Error),
    Stopped(Stop),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

impl Functions {
    /// The functions whose input is elsewhere than where their output was computed.
    fn due(&self) -> Result<Vec<Arc<State>>, Failure> {
        let all = self.all();
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let reader = self.store.read().map_err(Error::from)?;
        let mut due = Vec::new();
        for state in all {
            // One whose collection is gone is about to be forgotten.
            let Ok(row) = self.catalog.row(state.collection) else { continue };
            let head = reader.head(row.number).map_err(Error::from)?;
            if head.is_some_and(|head| state.computed_at() != Some(head.position)) {
                due.push(state);
            }
        }
        Ok(due)
    }

    /// Brings an output up to date: writes what is not there or is otherwise, and deletes what should not be.
    fn compute_output(&self, state: &State, context: &Context<'_>) -> Result<u64, Failed> {
        let (input, output) = (self.catalog.row(state.collection)?, self.catalog.row(state.output)?);
        let (mut wanted, position) = {
            let snapshot = self.collections.snapshot(&input)?;
            let is_stopped = || self.collections.dirty.stopped().load(Ordering::Relaxed);
            (compute(state.function, &snapshot, &is_stopped)?, snapshot.view.position())
        };
        let mut there: HashMap<String, Option<String>> = HashMap::new();
        self.store.read()?.scan(output.number, &mut |row| {
            there.insert(row.id.to_owned(), row.metadata.map(str::to_owned));
            ControlFlow::Continue(())
        })?;
        let gone: Vec<String> = there.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        wanted.retain(|id, record| there.get(id) != Some(&Some(record.metadata.to_text())));
        let (changes, mut done) = (wanted.len() + gone.len(), 0);
        let mut step = |count| {
            context.step(part("records of an output written", done, changes)).map_err(Failed::Stopped)?;
            done += count;
            Ok::<_, Failed>(())
        };
        let wanted: Vec<(String, OutputRecord)> = wanted.into_iter().collect();
        for records in wanted.chunks(RECORDS_AT_ONCE) {
            step(records.len())?;
            self.write_output(output.id, records)?;
        }
        for ids in gone.chunks(RECORDS_AT_ONCE) {
            step(ids.len())?;
            let request = DeleteRequest { ids: Some(ids.to_vec()), ..DeleteRequest::default() };
            self.writes.delete_records(output.id, request, None)?;
        }
        table::set_position(&*self.store, state.id, position)?;
        Ok(position)
    }

    fn write_output(&self, output: Uuid, records: &[(String, OutputRecord)]) -> Result<(), Error> {
        let ids = records.iter().map(|(id, _)| id.clone());
        // A record has an embedding: Chroma's functions give it a zero.
        let new = NewRecords::new(ids, records.iter().map(|_| [0.0]))
            .documents(records.iter().map(|(_, record)| record.document.clone()))
            .metadatas(records.iter().map(|(_, record)| record.metadata.clone()));
        self.writes.write_records(output, WriteKind::Upsert, new, None).map(drop)
    }
}
