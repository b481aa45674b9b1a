//! The one writer: requests from all threads meet here and are committed in groups.
//!
//! Whoever gets the writer's lock commits everything that waits, its own request among it; whoever comes
//! later finds its answer ready. Each request runs in a savepoint, so one that is refused fails alone.
//!
//! The order within a group: rows and log in an open transaction; vectors appended and synced; the
//! segments' new lengths; commit; views told; answers. A failure before the commit leaves nothing. A
//! failure in a sync or in the commit itself goes through [`SqliteStore::recover`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior, params};
use uuid::Uuid;

use super::connection::{BUSY_PATIENCE, Failure, connect, count_transaction, not_found, read_meta, write_meta};
use super::layers::{self, Layer, LayerNumber, Layers};
use super::records::{TransactionRows, encode_offsets};
use super::segment_rows::{record_segments, segment_rows};
use super::state::{Ticket, Writer};
use super::store::SqliteStore;
use super::{catalog, idempotency, records};
use crate::error::{Error, Resource, Result};
use crate::head::DatabaseHead;
use crate::resolve::{Resolved, learn_keys, resolve};
use crate::segments::{NewBlocks, Pending, Segments, into_blocks};
use crate::store::{Change, CollectionNumber, CollectionRow, Committed, Head, Operation, Outcome, Put, Write};

/// A group takes at most this many requests.
const GROUP_REQUESTS_MAX: usize = 256;
/// A group stops growing once its embeddings pass this many bytes.
const GROUP_BYTES_MAX: usize = 64 << 20;

/// With less free on the disk, in bytes, nothing is added.
const FREE_TO_ADD_MIN: u64 = 2 << 20;
/// With less free, in bytes, the write-ahead log is copied into the database file after each commit.
const FREE_TO_KEEP_LOG: u64 = 64 << 20;
/// So long readers are waited for to make the log short.
const READERS_PATIENCE: Duration = Duration::from_secs(1);

/// Copies the log into the database file, so that all of it fits there whatever else fills the disk. What readers keep
/// from that is tried again after the next commit.
fn shorten_log(writer: &Writer) {
    let Some(connection) = writer.connection() else { return };
    let _ = connection.busy_timeout(READERS_PATIENCE);
    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    let _ = connection.busy_timeout(BUSY_PATIENCE);
}

/// A request of the group whose changes are in the open transaction.
struct Applied {
    ticket: Arc<Ticket>,
    outcome: Outcome,
    /// Absent if the request changed nothing.
    draft: Option<Draft>,
}

struct Draft {
    collection: CollectionNumber,
    id: Uuid,
    /// The layer that it wrote to.
    layer: Layer,
    changes: Vec<Change>,
    vectors: Option<Vectors>,
    dead: Vec<u64>,
    row: Option<Arc<CollectionRow>>,
}

/// The vectors of one request, with consecutive ids.
struct Vectors {
    dimension: usize,
    first_id: u64,
    norms: Vec<f32>,
    values: Vec<f32>,
}

impl Vectors {
    fn get(&self, id: u64) -> Option<&[f32]> {
        let index = usize::try_from(id.checked_sub(self.first_id)?).ok()?;
        self.values.get(index * self.dimension..(index + 1) * self.dimension)
    }
}

impl SqliteStore {
    pub(super) fn commit_in_group(&self, write: Write) -> Result<Outcome> {
        let ticket = Arc::new(Ticket { write, answer: Mutex::default() });
        self.queue.lock().push_back(Arc::clone(&ticket));
        let mut writer = self.wait.lock(&self.writer);
        loop {
            if let Some(answer) = ticket.answer.lock().take() {
                return answer;
            }
            let group = self.next_group();
            if group.is_empty() {
                // Only if a group's leader panicked: its requests were taken but never answered.
                return Err(Error::OutcomeUnknown { reason: "the writer failed while committing".into() });
            }
            self.commit_group(&mut writer, &group);
        }
    }

    fn next_group(&self) -> Vec<Arc<Ticket>> {
        let mut queue = self.queue.lock();
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < GROUP_REQUESTS_MAX
            && bytes < GROUP_BYTES_MAX
            && let Some(ticket) = queue.pop_front()
        {
            let batches = ticket.write.operation.batches().filter_map(|batch| batch.embeddings.as_ref());
            bytes += batches.map(|embeddings| embeddings.len() * embeddings.dimension() * 4).sum::<usize>();
            group.push(ticket);
        }
        group
    }

    fn commit_group(&self, writer: &mut Writer, group: &[Arc<Ticket>]) {
        if let Err(error) = self.reopen_if_failed(writer) {
            return answer_all(group, &error);
        }
        let mut free = self.free_bytes();
        let adds = group.iter().any(|ticket| ticket.write.operation.adds());
        // The log has to fit the database file as well.
        let is_full = |free: Option<u64>| free.is_some_and(|free| free < FREE_TO_ADD_MIN + self.log_bytes());
        if adds && is_full(free) {
            shorten_log(writer);
            free = self.free_bytes();
        }
        if adds && is_full(free) {
            // What is left is for deleting, and for giving space back.
            let full = Error::Full { path: self.path.clone() };
            let (adding, others): (Vec<_>, Vec<_>) =
                group.iter().cloned().partition(|ticket| ticket.write.operation.adds());
            answer_all(&adding, &full);
            if !others.is_empty() {
                self.commit_group(writer, &others);
            }
            return;
        }
        writer.in_group = true;
        let mut applied = Vec::with_capacity(group.len());
        let committed =
            self.apply_group(writer, group, &mut applied).and_then(|()| self.commit_applied(writer, &mut applied));
        match committed {
            Ok(()) => {
                for Applied { ticket, outcome, .. } in applied {
                    *ticket.answer.lock() = Some(Ok(outcome));
                }
            }
            Err(CommitError::Aborted(error)) => {
                self.roll_back(writer, &error);
                answer_open(group, &error);
            }
            Err(CommitError::InDoubt(error)) => self.answer_by_heads(writer, group, &applied, &error),
        }
        writer.in_group = false;
        if free.is_some_and(|free| free < FREE_TO_KEEP_LOG) {
            shorten_log(writer);
        }
    }

    /// The size of the write-ahead log.
    fn log_bytes(&self) -> u64 {
        std::fs::metadata(self.path.with_extension("sqlite3-wal")).map_or(0, |log| log.len())
    }

    /// Runs each request in a savepoint; refused ones are answered at once.
    fn apply_group(
        &self, writer: &mut Writer, group: &[Arc<Ticket>], applied: &mut Vec<Applied>,
    ) -> Result<(), CommitError> {
        let failed = |error: rusqlite::Error| CommitError::Aborted(self.error("write")(error));
        self.begin(writer).map_err(CommitError::Aborted)?;
        for ticket in group {
            self.execute(writer, "SAVEPOINT request").map_err(failed)?;
            match self.apply(writer, &ticket.write, applied) {
                Ok((outcome, draft)) => {
                    if let Some(row) = draft.as_ref().and_then(|draft| draft.row.clone()) {
                        writer.rows.insert(row.id, row);
                    }
                    applied.push(Applied { ticket: Arc::clone(ticket), outcome, draft });
                }
                Err(Failure::Sqlite(error)) => return Err(failed(error)),
                Err(Failure::Refused(error)) if error.is_storage() => return Err(CommitError::Aborted(error)),
                Err(Failure::Refused(error)) => {
                    self.execute(writer, "ROLLBACK TO request").map_err(failed)?;
                    *ticket.answer.lock() = Some(Err(error));
                }
            }
            self.execute(writer, "RELEASE request").map_err(failed)?;
        }
        Ok(())
    }

    fn apply(
        &self, writer: &mut Writer, write: &Write, earlier: &[Applied],
    ) -> Result<(Outcome, Option<Draft>), Failure> {
        let connection = writer.connection.as_ref().expect("revived before the group began");
        if let Some(key) = &write.idempotency
            && let Some(outcome) = idempotency::stored_outcome(connection, write.collection, key)?
        {
            return Ok((outcome, None));
        }
        let row = match writer.rows.get(&write.collection) {
            Some(row) => Arc::clone(row),
            None => {
                let row = catalog::collection_by_id(connection, write.collection)?;
                Arc::new(row.ok_or_else(|| not_found(Resource::Collection, write.collection))?)
            }
        };
        writer.rows.insert(row.id, Arc::clone(&row));
        let head =
            catalog::head(connection, row.number)?.ok_or_else(|| not_found(Resource::Collection, write.collection))?;
        let layers = self.layers_to_write(connection, row.number)?;
        let staged = |id| {
            let vectors = earlier.iter().filter_map(|applied| applied.draft.as_ref()?.vectors.as_ref());
            vectors.filter_map(|vectors| vectors.get(id)).map(<[f32]>::to_vec).next()
        };
        let mut rows = TransactionRows {
            connection,
            path: &self.path,
            segments: &self.segments,
            collection: row.number,
            layers: &layers,
            position: head.position,
            staged: &staged,
        };
        let resolved = resolve(write, &row, &mut rows)?;
        let mut outcome = Outcome { position: head.position, deleted: resolved.deleted, replayed: false };
        let draft = if resolved.is_nothing() {
            None
        } else {
            outcome.position += 1;
            let next_vector_id = &mut writer.next_vector_id;
            Some(apply_resolved(connection, &row, &layers, head, resolved, &write.operation, next_vector_id)?)
        };
        if let Some(key) = &write.idempotency {
            idempotency::store_outcome(connection, write.collection, key, &outcome)?;
        }
        Ok((outcome, draft))
    }

    /// Makes the group durable, then visible.
    fn commit_applied(&self, writer: &mut Writer, applied: &mut [Applied]) -> Result<(), CommitError> {
        let mut blocks = NewBlocks::default();
        for (draft, vectors) in applied.iter_mut().filter_map(|applied| {
            let draft = applied.draft.as_mut()?;
            let vectors = draft.vectors.take();
            Some((draft, vectors))
        }) {
            let Some(vectors) = vectors else {
                blocks.counts.push(0);
                continue;
            };
            let ids: Vec<u64> = (vectors.first_id..).take(vectors.norms.len()).collect();
            let new = into_blocks(draft.layer.number, vectors.dimension, &ids, &vectors.norms, &vectors.values);
            blocks.counts.push(new.len());
            blocks.blocks.extend(new);
        }
        let counts = std::mem::take(&mut blocks.counts);
        let next = writer.transactions + 1;
        let pending = self.segments.append(blocks.blocks, next).map_err(|error| match error {
            Error::Full { .. } => CommitError::Aborted(error),
            error => CommitError::InDoubt(error),
        })?;
        let mut weight: BTreeMap<u32, u64> = BTreeMap::new();
        for draft in applied.iter().filter_map(|applied| applied.draft.as_ref()) {
            // Vectors of the layers below are read by others.
            for number in &draft.layer.block_numbers {
                for (segment, bytes) in self.segments.dead_bytes_of(*number, &draft.dead) {
                    *weight.entry(segment).or_default() += bytes;
                }
            }
        }
        let connection = writer.connection.as_ref().expect("revived before the group began");
        if let Err(error) = record_segments(connection, &pending, &weight, writer.next_vector_id) {
            Segments::rollback(pending);
            return Err(CommitError::Aborted(self.error("write")(error)));
        }
        let commits = applied.iter().filter(|applied| applied.draft.is_some()).count();
        let changes_something = commits > 0 || applied.iter().any(|applied| applied.ticket.write.idempotency.is_some());
        if changes_something
            && let Err(error) =
                count_commits(connection, commits).and_then(|()| count_transaction(connection, writer.transactions))
        {
            Segments::rollback(pending);
            return Err(CommitError::Aborted(self.error("write")(error)));
        }
        let transactions = writer.transactions + u64::from(changes_something);
        let mut appended = pending.blocks.clone().into_iter();
        let moved = self.commit_and_publish(connection, pending, transactions, writer.next_vector_id)?;
        writer.transactions = transactions;
        if commits > 0 {
            // What was found behind the catalog when it was opened can never be committed now.
            self.quarantine.clear(&*self.disk);
        }
        self.segments.add_dead_bytes(&weight);
        let observer = self.observer();
        let drafts = applied.iter_mut().filter_map(|applied| Some((applied.outcome.position, applied.draft.take()?)));
        for ((position, draft), count) in drafts.zip(counts) {
            let blocks = appended.by_ref().take(count).collect();
            let committed = Committed {
                collection: draft.collection,
                id: draft.id,
                position,
                changes: draft.changes,
                blocks,
                row: draft.row,
            };
            let committed = Arc::new(committed);
            if let Some(observer) = &observer {
                observer.committed(&committed);
            }
        }
        self.tell_relocated(connection, &moved);
        Ok(())
    }

    /// The layers of a collection that is written to.
    fn layers_to_write(&self, connection: &Connection, collection: CollectionNumber) -> rusqlite::Result<Layers> {
        if self.has_forks.load(Ordering::Acquire) {
            Layers::of(connection, collection)
        } else {
            Ok(Layers::single(collection))
        }
    }

    /// Says which collections' vectors lie elsewhere now: those that lay in segments under these numbers.
    fn tell_relocated(&self, connection: &Connection, moved: &[LayerNumber]) {
        let Some(observer) = self.observer().filter(|_| !moved.is_empty()) else { return };
        let readers = if self.has_forks.load(Ordering::Acquire) {
            // If it cannot be read, they go on with the blocks they have.
            layers::readers_of(connection, moved).unwrap_or_default().into_iter().collect()
        } else {
            moved.to_vec()
        };
        observer.relocated(&readers);
    }

    /// Commits the open transaction and makes its vectors visible; no reader comes in between. The numbers
    /// under which vectors lie elsewhere now.
    pub(super) fn commit_and_publish(
        &self, connection: &Connection, pending: Pending, transactions: u64, next_vector_id: u64,
    ) -> Result<Vec<LayerNumber>, CommitError> {
        let _publishing = self.publishing.write();
        match connection.execute_batch("COMMIT").map_err(self.error("commit")) {
            Ok(()) => {
                self.note_head(transactions, next_vector_id);
                Ok(self.segments.publish(pending))
            }
            // Not all of the transaction could be written, so it never can be seen.
            Err(full @ Error::Full { .. }) => {
                Segments::rollback(pending);
                Err(CommitError::Aborted(full))
            }
            // It may have been: the files stay as they are until the reopened catalog says how long they are.
            Err(error) => Err(CommitError::InDoubt(error)),
        }
    }

    /// After a failed commit: asks the reopened store which requests it holds.
    fn answer_by_heads(&self, writer: &mut Writer, group: &[Arc<Ticket>], applied: &[Applied], error: &Error) {
        let wanted: Vec<_> = applied
            .iter()
            .filter_map(|applied| Some((applied.draft.as_ref()?.collection, applied.outcome.position)))
            .collect();
        let recovery = self.recover(writer, error.to_string());
        let heads = recovery.heads(&wanted);
        // One transaction: all of the group was committed, or nothing. Without any change in it there is
        // no telling, and nothing to tell apart from refusing.
        let is_committed = !wanted.is_empty()
            && wanted.iter().all(|(collection, position)| heads.get(collection).is_some_and(|head| head >= position));
        for applied in applied {
            *applied.ticket.answer.lock() = Some(if is_committed {
                Ok(applied.outcome)
            } else if recovery.is_resolved {
                Err(error.clone())
            } else {
                Err(Error::OutcomeUnknown { reason: error.to_string() })
            });
        }
        answer_open(group, error);
    }

    /// Runs a change of the catalog in a transaction of its own.
    pub(super) fn change_catalog<T>(&self, change: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T> {
        self.change_catalog_with(&mut self.wait.lock(&self.writer), change)
    }

    /// As [`SqliteStore::change_catalog`], for who has the writer's lock.
    pub(super) fn change_catalog_with<T>(
        &self, writer: &mut Writer, change: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T> {
        self.reopen_if_failed(writer)?;
        writer.rows.clear();
        let connection = writer.connection.as_mut().expect("just revived");
        let sqlite = self.error("change the catalog");
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&sqlite)?;
        let (found, before) =
            (read_meta(&transaction, "transactions").map_err(&sqlite)?.cast_unsigned(), transaction.total_changes());
        if found != writer.transactions {
            drop(transaction);
            return Err(self.stop_for_good(writer, found));
        }
        let changed = match change(&transaction) {
            Ok(changed) => changed,
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Sqlite(error)) => return Err(sqlite(error)),
        };
        let changes_something = transaction.total_changes() != before;
        if changes_something {
            count_transaction(&transaction, writer.transactions).map_err(&sqlite)?;
        }
        match transaction.commit().map_err(&sqlite) {
            Ok(()) => {
                writer.transactions += u64::from(changes_something);
                self.note_head(writer.transactions, writer.next_vector_id);
                Ok(changed)
            }
            Err(full @ Error::Full { .. }) => Err(full),
            Err(error) => {
                self.recover(writer, error.to_string());
                Err(Error::OutcomeUnknown { reason: error.to_string() })
            }
        }
    }

    /// Makes a change of the segments that no request made: a seal or a rewrite. `change` writes it once nobody else
    /// can write; whether there was one. The caller has revived the writer.
    pub(super) fn change_segments(
        &self, writer: &mut Writer, change: impl FnOnce() -> Result<Option<Pending>>,
    ) -> Result<bool> {
        self.begin(writer)?;
        let pending = match change() {
            Ok(Some(pending)) => pending,
            unchanged => {
                let error = unchanged.as_ref().err().cloned();
                let closed = Error::WritesStopped { reason: "a change of the segments was given up".into() };
                self.roll_back(writer, error.as_ref().unwrap_or(&closed));
                return unchanged.map(|_| false);
            }
        };
        let connection = writer.connection.as_ref().expect("the caller revived the writer");
        let recorded = record_segments(connection, &pending, &BTreeMap::new(), writer.next_vector_id)
            .and_then(|()| count_transaction(connection, writer.transactions));
        if let Err(error) = recorded.map_err(self.error("record segments")) {
            Segments::rollback(pending);
            self.roll_back(writer, &error);
            return Err(error);
        }
        let (transactions, next_vector_id) = (writer.transactions + 1, writer.next_vector_id);
        let moved = match self.commit_and_publish(connection, pending, transactions, next_vector_id) {
            Ok(moved) => {
                writer.transactions = transactions;
                moved
            }
            Err(CommitError::Aborted(error)) => {
                self.roll_back(writer, &error);
                return Err(error);
            }
            Err(CommitError::InDoubt(error)) => {
                self.recover(writer, error.to_string());
                return Err(error);
            }
        };
        self.tell_relocated(writer.connection.as_ref().expect("the caller revived the writer"), &moved);
        Ok(true)
    }

    /// Begins a transaction, before which nobody else may have committed one.
    fn begin(&self, writer: &mut Writer) -> Result<()> {
        self.execute(writer, "BEGIN IMMEDIATE").map_err(self.error("write"))?;
        let connection = writer.connection.as_ref().expect("revived before use");
        let found = read_meta(connection, "transactions").map_err(self.error("write"))?.cast_unsigned();
        if found == writer.transactions {
            return Ok(());
        }
        self.execute(writer, "ROLLBACK").map_err(self.error("write"))?;
        Err(self.stop_for_good(writer, found))
    }

    /// Another process writes to the files of this database, although it is locked: whoever notices first stops.
    fn stop_for_good(&self, writer: &mut Writer, found: u64) -> Error {
        let directory = self.path.parent().unwrap_or(&self.path);
        let reason = format!(
            "another process wrote to {} ({found} transactions are there, {} are known here): end one of the two, and never remove the file `lock`",
            directory.display(),
            writer.transactions
        );
        writer.stop(reason)
    }

    /// Notes how far the database has come, before anybody is answered.
    pub(super) fn note_head(&self, transactions: u64, next_vector_id: u64) {
        self.known_transactions.store(transactions, Ordering::Release);
        let head = DatabaseHead { epoch: *self.epoch.read(), transactions, next_vector_id };
        // The transaction stands whatever becomes of this: the head lags until the next one.
        drop(self.head.write(head));
    }

    fn execute(&self, writer: &Writer, sql: &str) -> rusqlite::Result<()> {
        let connection = writer.connection.as_ref().expect("revived before use");
        connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// Leaves the open transaction; if even that fails, the store has to be reopened.
    fn roll_back(&self, writer: &mut Writer, error: &Error) {
        writer.rows.clear();
        let connection = writer.connection.as_ref();
        let rolled_back = connection.is_some_and(|c| c.is_autocommit() || c.execute_batch("ROLLBACK").is_ok());
        let next = connection.and_then(|connection| read_meta(connection, "next_vector_id").ok());
        match next {
            Some(next) if rolled_back => writer.next_vector_id = next.cast_unsigned(),
            _ => drop(self.recover(writer, error.to_string())),
        }
    }

    /// Reopens the store if an earlier failure stopped writes.
    pub(super) fn reopen_if_failed(&self, writer: &mut Writer) -> Result<()> {
        if let Some(reason) = &writer.stopped_for_good {
            return Err(Error::WritesStopped { reason: reason.clone() });
        }
        if writer.connection.is_some() && writer.is_sound() {
            return Ok(());
        }
        let reason = writer.failure.clone().unwrap_or_else(|| "the writer failed while committing".into());
        if self.recover(writer, reason.clone()).is_resolved { Ok(()) } else { Err(Error::WritesStopped { reason }) }
    }

    /// Reopens everything and asks what was committed. A transaction that went into the log file but not
    /// through its sync could come back after a crash; a small commit on top of it settles that.
    fn recover(&self, writer: &mut Writer, reason: String) -> Recovery {
        writer.failure = Some(reason);
        writer.recoveries += 1;
        writer.connection = None;
        writer.rows.clear();
        self.readers.lock().clear();
        let mut recovery = Recovery { connection: connect(&self.path, self.vfs.as_deref()).ok(), is_resolved: false };
        let settle = |connection: &Connection| -> rusqlite::Result<Writer> {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let settled = write_meta(connection, "recoveries", read_meta(connection, "recoveries")? + 1)
                .and_then(|()| count_transaction(connection, read_meta(connection, "transactions")?.cast_unsigned()))
                .and_then(|()| connection.execute_batch("COMMIT"));
            if settled.is_err() && !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            settled?;
            // A failed sync may have marked pages clean that never reached the disk. Copying everything
            // into the database file, and syncing that, does not depend on them.
            let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            if busy != 0 {
                return Err(rusqlite::Error::InvalidQuery);
            }
            *self.epoch.write() = read_meta(connection, "epoch")?.cast_unsigned();
            Writer::new(connect(&self.path, self.vfs.as_deref()).map_err(|_| rusqlite::Error::InvalidQuery)?)
        };
        if let Some(connection) = &recovery.connection
            && let Ok(fresh) = settle(connection)
            && let Ok(rows) = segment_rows(connection)
            && self.segments.reopen(&rows).is_ok()
        {
            // What was under way is one transaction, and so is each attempt to settle it.
            let known = writer.transactions + 1..=writer.transactions + 1 + writer.recoveries;
            let is_known = known.contains(&fresh.transactions);
            let found = fresh.transactions - 1;
            if is_known {
                *writer = fresh;
                self.note_head(writer.transactions, writer.next_vector_id);
                recovery.is_resolved = true;
            } else {
                drop(self.stop_for_good(writer, found));
            }
        }
        if let Some(observer) = self.observer() {
            observer.reopened();
        }
        recovery
    }
}

/// Why a group was not committed.
pub(super) enum CommitError {
    /// It certainly was not: nothing of it will ever be seen.
    Aborted(Error),
    /// It may have been: ask the reopened store.
    InDoubt(Error),
}

/// The store as it was found after a failure.
struct Recovery {
    connection: Option<Connection>,
    /// Whether what is not visible now can never become visible.
    is_resolved: bool,
}

impl Recovery {
    /// The positions of these collections, as far as they can be read.
    fn heads(&self, wanted: &[(CollectionNumber, u64)]) -> HashMap<CollectionNumber, u64> {
        let Some(connection) = &self.connection else { return HashMap::new() };
        let head = |number| catalog::head(connection, number).ok().flatten().map(|head| head.position);
        wanted.iter().filter_map(|(number, _)| Some((*number, head(*number)?))).collect()
    }
}

fn answer_all(group: &[Arc<Ticket>], error: &Error) {
    for ticket in group {
        *ticket.answer.lock() = Some(Err(error.clone()));
    }
}

/// Answers those that have no answer yet.
fn answer_open(group: &[Arc<Ticket>], error: &Error) {
    for ticket in group {
        ticket.answer.lock().get_or_insert_with(|| Err(error.clone()));
    }
}

/// Writes rows, log and head of one resolved request.
fn apply_resolved(
    connection: &Connection, row: &Arc<CollectionRow>, layers: &Layers, head: Head, mut resolved: Resolved,
    operation: &Operation, next_vector_id: &mut u64,
) -> Result<Draft, Failure> {
    let position = head.position + 1;
    let mut schema = row.schema.clone();
    let learned = learn_keys(&mut schema, &resolved)?;
    let dimension = row.dimension.or(resolved.dimension);
    let (first_id, mut vectors, mut next_offset) = (*next_vector_id, 0usize, head.next_offset);
    let rows_per_block = crate::segments::rows_per_block(dimension.unwrap_or(0));
    let (mut changes, mut touched, mut dead) = (Vec::new(), Vec::new(), Vec::new());
    let mut inserted = 0u64;
    for put in &mut resolved.puts {
        let offset = match &put.before {
            Some(before) => before.offset,
            None => {
                inserted += 1;
                let offset = next_offset;
                next_offset = offset.checked_add(1).ok_or_else(|| {
                    Error::Limit("the collection has used all 2³² record offsets; copy it into a new one".into())
                })?;
                offset
            }
        };
        let vector = put.embedding.map(|_| {
            vectors += 1;
            ((vectors - 1) / rows_per_block, (vectors - 1) % rows_per_block)
        });
        let vector_id = match (&put.before, vector) {
            (_, Some(_)) => first_id + vectors as u64 - 1,
            (Some(before), None) => before.vector_id,
            (None, None) => return Err(Error::Limit("a new record needs an embedding".into()).into()),
        };
        if let (Some(before), Some(_)) = (&put.before, vector) {
            dead.push(before.vector_id);
        }
        records::put(connection, layers, offset, vector_id, position, put)?;
        touched.push(offset);
        let metadata = put.metadata_changed().then(|| put.metadata.take().unwrap_or_default());
        changes.push(Change::Put(Put {
            offset,
            vector_id,
            vector,
            metadata,
            has_document: put.document.is_some(),
            document_changed: put.document_changed(),
        }));
    }
    for deleted in &resolved.deletes {
        records::delete(connection, layers, deleted.offset, position)?;
        touched.push(deleted.offset);
        dead.push(deleted.vector_id);
        changes.push(Change::Delete { offset: deleted.offset });
    }
    *next_vector_id += vectors as u64;
    let records = head.records + inserted - resolved.deletes.len() as u64;
    let operations = head.operations + changes.len() as u64;
    write_head(connection, row.number, Head { position, next_offset, records, operations })?;
    write_log(connection, row.number, position, operation, touched)?;
    let changed_row = (learned || dimension != row.dimension)
        .then(|| Arc::new(CollectionRow { schema, dimension, ..CollectionRow::clone(row) }));
    if let Some(changed) = &changed_row {
        let mut statement =
            connection.prepare_cached("UPDATE collections SET schema = ?2, dimension = ?3 WHERE number = ?1")?;
        let dimension = changed.dimension.and_then(|dimension| u32::try_from(dimension).ok());
        statement.execute(params![row.number, changed.schema.to_text(), dimension])?;
    }
    let vectors = (!resolved.norms.is_empty()).then(|| Vectors {
        dimension: dimension.unwrap_or(0),
        first_id,
        norms: resolved.norms,
        values: resolved.values,
    });
    let layer = layers.own().clone();
    Ok(Draft { collection: row.number, id: row.id, layer, changes, vectors, dead, row: changed_row })
}

fn write_head(connection: &Connection, collection: CollectionNumber, head: Head) -> rusqlite::Result<()> {
    let Head { position, next_offset, records, operations } = head;
    let mut statement = connection.prepare_cached(
        "UPDATE collections SET position = ?2, next_offset = ?3, records = ?4, operations = ?5 WHERE number = ?1",
    )?;
    let [position, records, operations] = [position, records, operations].map(u64::cast_signed);
    statement.execute(params![collection, position, next_offset, records, operations]).map(drop)
}

fn write_log(
    connection: &Connection, collection: CollectionNumber, position: u64, operation: &Operation, touched: Vec<u32>,
) -> rusqlite::Result<()> {
    let code = match operation {
        Operation::Records { kind, .. } => *kind as i64,
        Operation::Delete(_) => 3,
        Operation::Conditional(_) => 4,
    };
    let mut statement = connection.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4)")?;
    statement.execute(params![collection, position.cast_signed(), code, encode_offsets(touched)]).map(drop)
}

fn count_commits(connection: &Connection, commits: usize) -> rusqlite::Result<()> {
    if commits == 0 {
        return Ok(());
    }
    let mut statement = connection.prepare_cached("UPDATE meta SET value = value + ?1 WHERE key = 'commits'")?;
    statement.execute([i64::try_from(commits).unwrap_or(i64::MAX)]).map(drop)
}
