//! A collection in memory: its current view and the few before it, kept up to date by commits.
//!
//! Invariants:
//! - Views are published in the order of positions, one per commit, without gaps.
//! - While a collection is being loaded, commits to it are kept aside and applied on top.
//! - If a commit cannot be applied, the view is dropped and reloaded; the write stands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ochre_index::{Analyzer, Memory, View};
use ochre_model::TextAnalyzer;
use ochre_store::{Change, CollectionNumber, CollectionRow, Committed, Store};
use parking_lot::{Condvar, Mutex, MutexGuard};
use uuid::Uuid;

use crate::collection::block::Block;
use crate::error::Error;

/// Views kept beside the current one, for readers whose snapshot is a few commits old.
const HISTORY_MAX: usize = 8;
/// How often a view that takes long to make is tried to be made beside commits.
const OPTIMISTIC_TRIES: usize = 3;
/// How long a reader waits for the view of a commit it can already see.
const PUBLISH_WAIT: Duration = Duration::from_secs(30);

pub(crate) struct CollectionState {
    pub(crate) number: CollectionNumber,
    pub(crate) id: Uuid,
    /// Held while loading, so that it happens once.
    loading: Mutex<()>,
    state: Mutex<State>,
    /// Notified whenever a view is published.
    published: Condvar,
    used: Mutex<Instant>,
    /// How many changes of records commits brought.
    changes: AtomicU64,
    /// What splits documents into terms, and how that was declared.
    analyzer: Mutex<Option<(TextAnalyzer, Arc<Analyzer>)>>,
}

enum State {
    /// Commits since loading began.
    Loading(Vec<Arc<Committed>>),
    /// The current view last.
    Ready(VecDeque<Arc<View>>),
}

impl CollectionState {
    pub(crate) fn new(row: &CollectionRow) -> Self {
        let state = Mutex::new(State::Loading(Vec::new()));
        Self {
            number: row.number,
            id: row.id,
            loading: Mutex::new(()),
            state,
            published: Condvar::new(),
            used: Mutex::new(Instant::now()),
            changes: AtomicU64::new(0),
            analyzer: Mutex::default(),
        }
    }

    /// A collection that is in memory already.
    pub(crate) fn with_view(row: &CollectionRow, view: View) -> Self {
        let state = Mutex::new(State::Ready(VecDeque::from([Arc::new(view)])));
        Self { state, ..Self::new(row) }
    }

    /// What splits documents into terms, as the row declares it: made once, since stop words take time to read.
    pub(crate) fn analyzer(&self, row: &CollectionRow) -> Arc<Analyzer> {
        let declared = declared_analyzer(row);
        let mut known = self.analyzer.lock();
        match &*known {
            Some((settings, analyzer)) if settings == declared => Arc::clone(analyzer),
            _ => {
                let made = Arc::new(Analyzer::new(declared));
                *known = Some((declared.clone(), Arc::clone(&made)));
                made
            }
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
        self.published.notify_all();
        Ok(view)
    }

    /// The view of exactly this position, waiting for it if it is about to be published; `None` if it is
    /// too old to be kept, or the collection is not loaded.
    pub(crate) fn view_at(&self, position: u64) -> Option<Arc<View>> {
        let deadline = Instant::now() + PUBLISH_WAIT;
        let mut state = self.state.lock();
        loop {
            match &*state {
                State::Loading(_) => return None,
                State::Ready(views) => {
                    let current = views.back()?;
                    if current.position() >= position {
                        // The newest of this position: index work publishes without taking positions.
                        return views.iter().rev().find(|view| view.position() == position).cloned();
                    }
                }
            }
            if self.published.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
    }

    /// Waits until there is another view than the one that was `seen`, or until `deadline`; the current one then.
    pub(crate) fn wait_for_other_view(&self, seen: Option<&Arc<View>>, deadline: Instant) -> Option<Arc<View>> {
        let mut state = self.state.lock();
        loop {
            let current = match &*state {
                State::Ready(views) => views.back().cloned(),
                State::Loading(_) => None,
            };
            let is_other = current.as_ref().map(Arc::as_ptr) != seen.map(Arc::as_ptr);
            if is_other || self.published.wait_until(&mut state, deadline).timed_out() {
                return current;
            }
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
                self.publish(views, next);
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
            self.publish(views, next);
        }
    }

    /// As [`CollectionState::change`], for what takes long: readers and commits do not wait for it. If commits keep
    /// coming between, they do in the end.
    pub(crate) fn publish_optimistic(&self, change: impl Fn(&mut View)) {
        for _ in 0..OPTIMISTIC_TRIES {
            let Some(current) = self.view() else { return };
            let mut next = View::clone(&current);
            change(&mut next);
            if let State::Ready(views) = &mut *self.state.lock()
                && views.back().is_some_and(|newest| Arc::ptr_eq(newest, &current))
            {
                views.pop_back();
                self.publish(views, next);
                return;
            }
        }
        self.change(change);
    }

    /// Finds every vector again where the store has it now.
    pub(crate) fn relocate(&self, store: &dyn Store) -> Result<(), Error> {
        // Verified here, before requests meet them: each block is read whole once after it was mapped.
        let verified = store.read()?.vector_blocks(self.number)?;
        for block in &verified {
            // What is damaged says so to whoever needs it.
            let _ = block.rows();
        }
        // Beside commits, which do not wait; if they keep coming between, before the next one.
        for _ in 0..OPTIMISTIC_TRIES {
            let Some(current) = self.view() else { return Ok(()) };
            let next = self.relocated(&current, store)?;
            if self.replace_all(&current, next) {
                return Ok(());
            }
        }
        let mut state = self.state.lock();
        if let State::Ready(views) = &mut *state
            && let Some(current) = views.back()
        {
            let next = self.relocated(current, store)?;
            views.clear();
            self.publish(views, next);
        }
        Ok(())
    }

    /// A view that answers like `current`, with every vector where the store has it now.
    fn relocated(&self, current: &View, store: &dyn Store) -> Result<View, Error> {
        let mut next = View::clone(current);
        let locations = VectorLocations::add_all(&mut next, store.read()?.vector_blocks(self.number)?);
        let live: Vec<u32> = next.live().iter().collect();
        for offset in live {
            if let Some(id) = next.vector_id(offset) {
                next.move_vector(offset, locations.find(id));
            }
        }
        Ok(next)
    }

    /// Puts a view in the place of all there are, which keep old files mapped; `false` if `current` is not the newest
    /// any more.
    fn replace_all(&self, current: &Arc<View>, next: View) -> bool {
        let mut state = self.state.lock();
        let State::Ready(views) = &mut *state else { return false };
        let is_newest = views.back().is_some_and(|newest| Arc::ptr_eq(newest, current));
        if is_newest {
            views.clear();
            self.publish(views, next);
        }
        is_newest
    }

    /// Lets go of the views before the current one, and of what only they hold. Readers whose snapshot is older than
    /// that begin again.
    pub(crate) fn drop_old_views(&self) {
        if let State::Ready(views) = &mut *self.state.lock() {
            views.drain(..views.len().saturating_sub(1));
        }
    }

    /// Makes a view the current one, and wakes whoever waits for it. The caller holds the lock of `views`.
    fn publish(&self, views: &mut VecDeque<Arc<View>>, next: View) {
        views.push_back(Arc::new(next));
        while views.len() > HISTORY_MAX {
            views.pop_front();
        }
        self.published.notify_all();
    }

    pub(crate) fn memory(&self) -> Memory {
        self.view().map_or_else(Memory::default, |view| view.memory())
    }
}

/// Where each vector lies: its id, whether that block is lost, block and row; sorted, so that a readable
/// place stands before a lost one.
pub(crate) struct VectorLocations(Vec<(u64, bool, u32, u32)>);

impl VectorLocations {
    pub(crate) fn add_all(view: &mut View, blocks: Vec<Arc<ochre_store::VectorBlock>>) -> Self {
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

    pub(crate) fn find(&self, id: u64) -> Option<(u32, u32)> {
        self.find_from(id, &mut 0)
    }

    /// As [`VectorLocations::find`]; quick if the id is the next after the one that was asked for before.
    pub(crate) fn find_from(&self, id: u64, next: &mut usize) -> Option<(u32, u32)> {
        let is_at = |index: usize| self.0.get(index).is_some_and(|place| place.0 == id);
        if !is_at(*next) {
            *next = self.0.partition_point(|place| place.0 < id);
        }
        let place = self.0.get(*next).filter(|place| place.0 == id)?;
        *next += 1;
        Some((place.2, place.3))
    }
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

/// How the documents of a collection are split into terms.
pub(crate) fn declared_analyzer(row: &CollectionRow) -> &TextAnalyzer {
    static PLAIN: TextAnalyzer = TextAnalyzer { stemmer: None, stop_words: None };
    row.declaration.as_ref().and_then(|declaration| declaration.text_analyzer.as_ref()).unwrap_or(&PLAIN)
}
