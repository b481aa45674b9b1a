//! A collection in memory: its current view and the few before it, kept up to date by commits.
//!
//! Invariants:
//! - Views are published in the order of positions, one per commit, without gaps.
//! - While a collection is being loaded, commits to it are kept aside and applied on top.
//! - If a commit cannot be applied, the view is dropped and loaded anew; the write stands.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ochre_index::{Memory, StoredRecords, View};
use ochre_model::{InvalidMetadata, Metadata, Value};
use ochre_store::{Change, CollectionNumber, CollectionRow, Committed, Parts, Reader, Store};
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::block::Block;
use crate::error::Error;

/// Views kept beside the current one, for readers whose snapshot is a few commits old.
const HISTORY_MAX: usize = 8;
/// If more than one record in so many changed since a snapshot, all are read instead.
const REPLAYED_SHARE: usize = 3;
/// How long a reader waits for the view of a commit it can already see.
const PUBLISH_WAIT: Duration = Duration::from_secs(30);

pub(crate) struct Loaded {
    pub(crate) number: CollectionNumber,
    pub(crate) id: Uuid,
    /// Held while loading, so that it happens once.
    loading: Mutex<()>,
    state: Mutex<State>,
    used: Mutex<Instant>,
    /// How many changes of records commits brought.
    changes: AtomicU64,
}

enum State {
    /// Commits since loading began.
    Loading(Vec<Arc<Committed>>),
    /// The current view last.
    Ready(VecDeque<Arc<View>>),
}

impl Loaded {
    pub(crate) fn new(row: &CollectionRow) -> Self {
        let state = Mutex::new(State::Loading(Vec::new()));
        Self {
            number: row.number,
            id: row.id,
            loading: Mutex::new(()),
            state,
            used: Mutex::new(Instant::now()),
            changes: AtomicU64::new(0),
        }
    }

    /// How many changes of records commits brought since it was made.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Notes changes that were made before it was loaded.
    pub(crate) fn note_changes(&self, count: u64) {
        self.changes.fetch_add(count, Ordering::Relaxed);
    }

    /// Notes that a request uses the collection.
    pub(crate) fn touch(&self) {
        *self.used.lock() = Instant::now();
    }

    /// When a request used it last.
    pub(crate) fn used(&self) -> Instant {
        *self.used.lock()
    }

    /// Whether it is loaded and no request used it for a while: longer for one with a graph, which takes
    /// longer to read again.
    pub(crate) fn is_idle(&self, patience: Duration, with_graph: Duration) -> bool {
        let Some(view) = self.view() else { return false };
        self.used().elapsed() >= if view.graph().is_some() { with_graph } else { patience }
    }

    /// The current view, if the collection is loaded.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        match &*self.state.lock() {
            State::Ready(views) => views.back().cloned(),
            State::Loading(_) => None,
        }
    }

    /// The current view, loading the collection with `read` if need be.
    pub(crate) fn load(&self, read: impl FnOnce() -> Result<View, Error>) -> Result<Arc<View>, Error> {
        let _loading = self.loading.lock();
        if let Some(view) = self.view() {
            return Ok(view);
        }
        let mut view = read()?;
        let mut state = self.state.lock();
        if let State::Loading(commits) = &mut *state {
            for commit in std::mem::take(commits) {
                if commit.position > view.position() {
                    apply(&mut view, &commit);
                }
            }
        }
        let view = Arc::new(view);
        *state = State::Ready(VecDeque::from([Arc::clone(&view)]));
        Ok(view)
    }

    /// The view of exactly this position, waiting for it if it is about to be published; `None` if it is
    /// too old to be kept, or the collection is not loaded.
    pub(crate) fn view_at(&self, position: u64) -> Option<Arc<View>> {
        let deadline = Instant::now() + PUBLISH_WAIT;
        loop {
            match &*self.state.lock() {
                State::Loading(_) => return None,
                State::Ready(views) => {
                    let current = views.back()?;
                    if current.position() >= position {
                        // The newest of this position: index work publishes without taking positions.
                        return views.iter().rev().find(|view| view.position() == position).cloned();
                    }
                }
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::yield_now();
        }
    }

    /// Applies a commit and publishes the result; `false` if it does not follow the current view.
    pub(crate) fn commit(&self, commit: &Arc<Committed>) -> bool {
        self.note_changes(commit.changes.len() as u64);
        let mut state = self.state.lock();
        match &mut *state {
            State::Loading(commits) => commits.push(Arc::clone(commit)),
            State::Ready(views) => {
                let Some(current) = views.back() else { return false };
                if current.position() + 1 != commit.position {
                    return commit.position <= current.position();
                }
                let mut next = View::clone(current);
                apply(&mut next, commit);
                publish(views, next);
            }
        }
        true
    }

    /// Publishes a change that is no commit: the same answers, found in another way.
    pub(crate) fn change(&self, change: impl FnOnce(&mut View)) {
        let mut state: MutexGuard<'_, State> = self.state.lock();
        if let State::Ready(views) = &mut *state
            && let Some(current) = views.back()
        {
            let mut next = View::clone(current);
            change(&mut next);
            // Same position: it takes the place of the view it answers like.
            views.pop_back();
            publish(views, next);
        }
    }

    /// As [`Loaded::change`], for what takes long: readers and commits do not wait for it. If commits keep coming between,
    /// they do in the end.
    pub(crate) fn change_aside(&self, change: impl Fn(&mut View)) {
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            let Some(current) = self.view() else { return };
            let mut next = View::clone(&current);
            change(&mut next);
            if let State::Ready(views) = &mut *self.state.lock()
                && views.back().is_some_and(|newest| Arc::ptr_eq(newest, &current))
            {
                views.pop_back();
                publish(views, next);
                return;
            }
        }
        self.change(change);
    }

    /// Finds every vector anew where the store has it now.
    pub(crate) fn relocate(&self, store: &dyn Store) -> Result<(), Error> {
        // Verified here, before requests meet them: each block is read whole once after it was mapped.
        let verified = store.read()?.vector_blocks(self.number)?;
        for block in &verified {
            // What is damaged says so to whoever needs it.
            let _ = block.rows();
        }
        let mut state = self.state.lock();
        if let State::Ready(views) = &mut *state
            && let Some(current) = views.back()
        {
            let mut next = View::clone(current);
            let places = Places::add_all(&mut next, store.read()?.vector_blocks(self.number)?);
            let live: Vec<u32> = next.live().iter().collect();
            for offset in live {
                if let Some(id) = next.vector_id(offset) {
                    next.move_vector(offset, places.find(id));
                }
            }
            // Older views keep the old files mapped: let them go.
            views.clear();
            publish(views, next);
        }
        Ok(())
    }

    /// Lets go of the views before the current one, and of what only they hold. Readers whose snapshot is older than
    /// that begin again.
    pub(crate) fn forget_history(&self) {
        if let State::Ready(views) = &mut *self.state.lock() {
            views.drain(..views.len().saturating_sub(1));
        }
    }

    pub(crate) fn memory(&self) -> Memory {
        self.view().map_or_else(Memory::default, |view| view.memory())
    }
}

fn publish(views: &mut VecDeque<Arc<View>>, next: View) {
    views.push_back(Arc::new(next));
    while views.len() > HISTORY_MAX {
        views.pop_front();
    }
}

/// Where each vector lies: its id, whether that block is lost, block and row; sorted, so that a readable
/// place stands before a lost one.
struct Places(Vec<(u64, bool, u32, u32)>);

impl Places {
    fn add_all(view: &mut View, blocks: Vec<Arc<ochre_store::VectorBlock>>) -> Self {
        view.clear_blocks();
        let mut places = Vec::with_capacity(blocks.iter().map(|block| block.len()).sum());
        for block in blocks {
            let (ids, is_lost) = (block.ids().to_vec(), block.is_lost());
            let number = view.add_block(Arc::new(Block(block)));
            places.extend((0u32..).zip(ids).map(|(row, id)| (id, is_lost, number, row)));
        }
        places.sort_unstable();
        Self(places)
    }

    fn find(&self, id: u64) -> Option<(u32, u32)> {
        self.find_from(id, &mut 0)
    }

    /// As [`Places::find`]; quick if the id is the next after the one that was asked for before.
    fn find_from(&self, id: u64, next: &mut usize) -> Option<(u32, u32)> {
        let is_at = |index: usize| self.0.get(index).is_some_and(|place| place.0 == id);
        if !is_at(*next) {
            *next = self.0.partition_point(|place| place.0 < id);
        }
        let place = self.0.get(*next).filter(|place| place.0 == id)?;
        *next += 1;
        Some((place.2, place.3))
    }
}

/// By ascending offset, the position at which each record was last changed.
pub(crate) type Positions = Vec<(u32, u64)>;

/// Reads a collection's state as `reader` sees it, without graph and text.
pub(crate) fn read_view(reader: &dyn Reader, row: &CollectionRow) -> Result<(View, Positions), Error> {
    let head = reader.head(row.number)?.ok_or_else(|| Error::no_collection(row.id))?;
    let mut view = View::new(row.schema.hnsw().space);
    view.set_position(head.position);
    // A block that is newer than the snapshot does no harm, one that went since belongs to vectors that
    // commits after the snapshot replaced.
    let places = Places::add_all(&mut view, reader.vector_blocks(row.number)?);
    let (mut failed, mut positions) = (None, Vec::new());
    reader.scan(row.number, &mut |record| {
        view.set_vector(record.offset, record.vector_id, places.find(record.vector_id));
        view.set_document(record.offset, record.has_document, true);
        positions.push((record.offset, record.position));
        let mut set = |key: &str, value: Value| view.set_value(record.offset, key, &value);
        let visited = record.metadata.map_or(Ok(()), |text| Metadata::visit_text(text, &mut set));
        failed = visited.err().map(|error| damaged(row, record.id, &error));
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failed.map_or(Ok((view, positions)), Err)
}

/// As [`read_view`], from a snapshot of its records and what changed since; `None` if that is no shorter, or the
/// snapshot is of another history. Also says how many records changed.
pub(crate) fn read_view_since(
    reader: &dyn Reader, row: &CollectionRow, stored: StoredRecords,
) -> Result<Option<(View, Positions, usize)>, Error> {
    let StoredRecords { mut view, places: records } = stored;
    let head = reader.head(row.number)?.ok_or_else(|| Error::no_collection(row.id))?;
    let Some(changed) = reader.changed_since(row.number, view.position())? else { return Ok(None) };
    if changed.len() > records.len() / REPLAYED_SHARE {
        return Ok(None);
    }
    let places = Places::add_all(&mut view, reader.vector_blocks(row.number)?);
    let (mut next, mut positions) = (0, Vec::with_capacity(records.len() + changed.len()));
    for record in &records {
        view.set_vector(record.offset, record.vector_id, places.find_from(record.vector_id, &mut next));
        positions.push((record.offset, record.changed));
    }
    let mut fresh: BTreeMap<u32, u64> = BTreeMap::new();
    let mut failed = None;
    let parts = Parts { metadata: true, document: true, uri: false };
    reader.rows(row.number, &changed, parts, &mut |record| {
        view.set_vector(record.offset, record.vector_id, places.find(record.vector_id));
        view.set_document(record.offset, record.document.is_some(), true);
        fresh.insert(record.offset, record.position);
        let metadata = record.metadata.map_or(Ok(Metadata::default()), Metadata::from_text);
        match metadata {
            Ok(metadata) => view.set_metadata(record.offset, &metadata),
            Err(error) => failed = Some(damaged(row, record.id, &error)),
        }
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    changed.iter().filter(|offset| !fresh.contains_key(offset)).for_each(|offset| view.remove(*offset));
    positions.retain(|(offset, _)| changed.binary_search(offset).is_err());
    positions.extend(fresh);
    positions.sort_unstable_by_key(|(offset, _)| *offset);
    view.set_position(head.position);
    let is_whole = view.live().len() as u64 == head.records;
    Ok(is_whole.then_some((view, positions, changed.len())))
}

fn damaged(row: &CollectionRow, id: &str, error: &InvalidMetadata) -> Error {
    Error::Damaged(format!("record '{id}' of collection '{}': {error}", row.name))
}

/// Brings a view from one position to the next.
fn apply(view: &mut View, commit: &Committed) {
    let blocks: Vec<u32> =
        commit.blocks.iter().map(|block| view.add_block(Arc::new(Block(Arc::clone(block))))).collect();
    for change in &commit.changes {
        match change {
            Change::Delete { offset } => view.remove(*offset),
            Change::Put(put) => {
                if let Some((block, row)) = put.vector {
                    let place = blocks.get(block).map(|block| (*block, u32::try_from(row).unwrap_or(u32::MAX)));
                    view.set_vector(put.offset, put.vector_id, place);
                }
                if let Some(metadata) = &put.metadata {
                    view.set_metadata(put.offset, metadata);
                }
                view.set_document(put.offset, put.has_document, put.document_changed);
            }
        }
    }
    view.set_position(commit.position);
}
