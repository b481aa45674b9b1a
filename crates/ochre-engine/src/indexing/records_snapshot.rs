//! Writing snapshots of records, from which collections are loaded without reading every record.
//!
//! Whoever does it holds the lock `graphs`. The log keeps what changed since the newest snapshot, up to a limit; a
//! snapshot that is older than the log is worthless and rewritten.

use std::ops::ControlFlow;

use ochre_index::{SnapshotHeader, View};
use ochre_scheduler::{Context, Failure, Progress};
use ochre_store::CollectionRow;

use crate::collection::state::CollectionState;
use crate::error::Error;
use crate::indexing::Indexing;

/// A snapshot is rewritten once one in so many records changed since,
const CHANGED_SHARE: u64 = 10;
/// or after so many commits: the log must reach back to it.
const COMMITS_MAX: u64 = 5_000;
/// When the database is closed, one in so many is enough.
const CHANGED_SHARE_CLOSING: u64 = 100;

impl Indexing {
    /// Why a snapshot of a collection's records is to be written, if it is.
    pub(crate) fn records_due(&self, loaded: &CollectionState, view: &View) -> Option<String> {
        if !self.has_records_snapshot(view) {
            return None;
        }
        let remembered = self.dirty.index_state(loaded.number);
        if remembered.records_position == 0 {
            return Some("there is no snapshot of records".into());
        }
        let (fresh, records) = (loaded.changes().saturating_sub(remembered.records), view.live().len() as u64);
        let commits = view.position().saturating_sub(remembered.records_position);
        (fresh > records / CHANGED_SHARE || commits > COMMITS_MAX)
            .then(|| format!("{fresh} records changed since the last snapshot of them"))
    }

    /// Whether a collection is large enough to have one: small ones are read as fast.
    fn has_records_snapshot(&self, view: &View) -> bool {
        self.cache.is_kept() && view.live().len() >= self.settings.graph_records_min
    }

    /// Writes a snapshot of records if it is due; with `all`, if anything changed.
    pub(crate) fn write_records_if_stale(
        &self, loaded: &CollectionState, row: &CollectionRow, all: bool, context: &Context<'_>,
    ) -> Result<(), Failure> {
        let Some(view) = loaded.view() else { return Ok(()) };
        let is_wanted = all && self.has_records_snapshot(&view) && self.is_records_stale(loaded);
        if is_wanted || self.records_due(loaded, &view).is_some() {
            context.step(Progress { done: 0, total: None, what: "snapshot of records".into() })?;
            match self.write_records_snapshot(loaded, row) {
                // Deleted meanwhile.
                Err(error) if error.not_found().is_some() => {}
                written => written?,
            }
        }
        Ok(())
    }

    fn is_records_stale(&self, loaded: &CollectionState) -> bool {
        let remembered = self.dirty.index_state(loaded.number);
        remembered.records_position == 0 || loaded.changes() > remembered.records
    }

    /// Leaves nothing in the snapshot of a collection's records that is deleted or replaced; whether anything was.
    pub(crate) fn purge_records(&self, loaded: &CollectionState, row: &CollectionRow) -> Result<bool, Failure> {
        let Some(view) = loaded.view() else { return Ok(false) };
        if !self.has_records_snapshot(&view) {
            return Ok(self.delete_records_snapshot(row)?);
        }
        let is_stale = self.is_records_stale(loaded);
        if is_stale {
            self.write_records_snapshot(loaded, row)?;
        }
        Ok(is_stale)
    }

    /// Removes the snapshot of a collection's records; whether there was one.
    pub(crate) fn delete_records_snapshot(&self, row: &CollectionRow) -> Result<bool, Error> {
        let was_there = self.cache.remove_records(row.id);
        if was_there {
            self.dirty.update_index_state(row.number, |remembered| remembered.records_position = 0);
            self.store.retain_log_for_snapshot(row.number, None)?;
        }
        Ok(was_there)
    }

    fn write_records_snapshot(&self, loaded: &CollectionState, row: &CollectionRow) -> Result<(), Error> {
        // Whatever changes from here on may not be in it.
        let changes = loaded.changes();
        let snapshot = self.collections.snapshot(row)?;
        let (position, mut changed) = (snapshot.view.position(), Vec::with_capacity(snapshot.view.live().len()));
        snapshot.reader.scan(row.number, &mut |record| {
            changed.push((record.offset, record.position));
            ControlFlow::Continue(())
        })?;
        let header = SnapshotHeader { epoch: self.store.epoch(), collection: row.family.into_bytes(), position };
        let written = self.cache.write_records(row.id, &header, &snapshot.view, &changed);
        // Nobody commits while reading.
        drop(snapshot);
        // If it failed it is tried again when as much has changed once more.
        self.dirty.update_index_state(row.number, |remembered| {
            (remembered.records, remembered.records_position) = (changes, position);
        });
        self.collections.note_freed();
        match written {
            Ok(()) => Ok(self.store.retain_log_for_snapshot(row.number, Some(position))?),
            Err(error) => {
                tracing::warn!(collection = row.name, %error, "could not write a snapshot of records; the next start reads them");
                // It may hold what was deleted since, and takes room.
                self.cache.remove_records(row.id);
                Ok(())
            }
        }
    }

    /// As the database is closed: writes a snapshot if enough changed to be worth it.
    pub(crate) fn write_records_on_close(&self, loaded: &CollectionState, row: &CollectionRow, view: &View) {
        let remembered = self.dirty.index_state(loaded.number);
        let fresh = loaded.changes().saturating_sub(remembered.records);
        let is_worth_it = remembered.records_position == 0 || fresh > view.live().len() as u64 / CHANGED_SHARE_CLOSING;
        if self.has_records_snapshot(view)
            && is_worth_it
            && let Err(error) = self.write_records_snapshot(loaded, row)
        {
            tracing::warn!(collection = row.name, %error, "could not write a snapshot of records; the next start reads them");
        }
    }
}
