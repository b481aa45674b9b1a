//! Conditional writes: several at once, kept only if what was read before is as it was.

use std::collections::HashSet;
use std::sync::Arc;

use ochre_model::WriteKind;
use ochre_store::{Conditional, Idempotency, Operation, Outcome, PartialWrite, Reads, Write};
use uuid::Uuid;

use crate::error::Error;
use crate::schemas::RequestValidator;
use crate::violations::Violations;
use crate::write::Writes;
use crate::write::request::NewRecords;
use crate::write::validate::check;

/// Writes to records of one collection that are kept together or not at all, and only if records that were read before
/// are as they were: optimistic concurrency control.
#[derive(Clone, Debug, Default)]
pub struct ConditionalCommit {
    /// The ids of the records that were read; of those that were not found, too.
    pub read_ids: Vec<String>,
    /// The position of the first read ([`GetResults::position`](crate::GetResults)); wanted if there are ids.
    pub read_at: Option<u64>,
    /// The writes, of which no two may name the same id.
    pub writes: Vec<ConditionalWrite>,
}

/// One of the writes of a [`ConditionalCommit`].
#[derive(Clone, Debug)]
pub enum ConditionalWrite {
    /// Add, update or upsert records.
    Records(WriteKind, NewRecords),
    /// Delete the records of these ids.
    Delete(Vec<String>),
}

impl Writes {
    /// Commits several writes as one; also what their records break of the collection's schema.
    pub(crate) fn write_conditionally(
        &self, id: Uuid, commit: ConditionalCommit, idempotency: Option<Idempotency>,
    ) -> Result<(Outcome, Violations), Error> {
        let _request = self.monitor.enter();
        let reads = match (commit.read_at, commit.read_ids.is_empty()) {
            (Some(at), _) => Some(Reads { ids: commit.read_ids, at }),
            (None, true) => None,
            (None, false) => {
                return Err(Error::invalid_field("read_ids", "read_ids need the read_token of the read they are of"));
            }
        };
        let writes = commit.writes.into_iter().map(partial).collect::<Result<Vec<_>, Error>>()?;
        check_distinct(&writes)?;
        self.wait_for_room(id)?;
        let validator = RequestValidator::new(&self.schemas);
        let operation = Operation::Conditional(Conditional { reads, writes });
        let write = Write { collection: id, operation, idempotency, validator: Some(Arc::clone(&validator) as _) };
        let outcome = self.store.commit(write);
        let reported = validator.finish(outcome.is_ok()).map_err(Error::Violations)?;
        Ok((outcome?, reported))
    }
}

/// A write as the store takes it.
fn partial(write: ConditionalWrite) -> Result<PartialWrite, Error> {
    match write {
        ConditionalWrite::Records(_, records) if records.dimensions_differ => {
            Err(Error::invalid("Inconsistent dimensions in provided embeddings"))
        }
        ConditionalWrite::Records(kind, records) => {
            let mut batch = records.batch;
            check(kind, &batch)?;
            batch.lift_reserved_keys();
            Ok(PartialWrite::Records { kind, batch })
        }
        ConditionalWrite::Delete(ids) => Ok(PartialWrite::Delete(ids)),
    }
}

/// Refuses two writes to the same record: which of them counts would not be clear.
fn check_distinct(writes: &[PartialWrite]) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for (number, write) in writes.iter().enumerate() {
        let ids = match write {
            PartialWrite::Records { batch, .. } => &batch.ids,
            PartialWrite::Delete(ids) => ids,
        };
        if let Some(id) = ids.iter().find(|id| !seen.insert(id.as_str())) {
            return Err(Error::invalid_field(
                "operations",
                format!("operation {number} writes to record '{id}', which is written to before: name each id once"),
            ));
        }
    }
    Ok(())
}
