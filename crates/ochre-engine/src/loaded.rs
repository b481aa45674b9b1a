//! A collection in memory: its current view and the few before it, kept up to date by commits.
//!
//! Invariants:
//! - Views are published in the order of positions, one per commit, without gaps.
//! - While a collection is being loaded, commits to it are kept aside and applied on top.
//! - If a commit cannot be applied, the view is dropped and loaded anew; the write stands.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ochre_index::{Memory, View};
use ochre_model::{Metadata, Value};
use ochre_store::{Change, CollectionNumber, CollectionRow, Committed, Reader, Store};
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::block::Block;
use crate::error::Error;

/// Views kept beside the current one, for readers whose snapshot is a few commits old.
const HISTORY_MAX: usize = 8;
/// How long a reader waits for the view of a commit it can already see.
const PUBLISH_WAIT: Duration = Duration::from_secs(30);

pub(crate) struct Loaded {
    pub(crate) number: CollectionNumber,
    pub(crate) id: Uuid,
    /// Held while loading, so that it happens once.
    loading: Mutex<()>,
    state: Mutex<State>,
    used: Mutex<Instant>,
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
        Self { number: row.number, id: row.id, loading: Mutex::new(()), state, used: Mutex::new(Instant::now()) }
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
        let place = self.0.get(self.0.partition_point(|place| place.0 < id)).filter(|place| place.0 == id)?;
        Some((place.2, place.3))
    }
}

/// Reads a collection's state as `reader` sees it, without graph and text; and of each record its offset and
/// the position at which it was last changed, by ascending offset.
pub(crate) fn read_view(reader: &dyn Reader, row: &CollectionRow) -> Result<(View, Vec<(u32, u64)>), Error> {
    let head = reader.head(row.number)?.ok_or_else(|| Error::no_collection(row.id))?;
    let mut view = View::new(row.schema.hnsw().space);
    view.set_position(head.position);
    // A block that is newer than the snapshot does no harm, one that went since belongs to vectors that
    // commits after the snapshot replaced.
    let places = Places::add_all(&mut view, reader.vector_blocks(row.number)?);
    let (mut bad, mut positions) = (None, Vec::new());
    reader.scan(row.number, &mut |record| {
        view.set_vector(record.offset, record.vector_id, places.find(record.vector_id));
        view.set_document(record.offset, record.has_document, true);
        positions.push((record.offset, record.position));
        let mut set = |key: &str, value: Value| view.set_value(record.offset, key, &value);
        match record.metadata.map_or(Ok(()), |text| Metadata::visit_text(text, &mut set)) {
            Ok(()) => {}
            Err(error) => {
                bad = Some(Error::Damaged(format!("record '{}' of collection '{}': {error}", record.id, row.name)));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    bad.map_or(Ok((view, positions)), Err)
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
