//! What happened that maintenance has to follow, and what it remembers of each collection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::{Duration, Instant};

use ochre_scheduler::Scheduler;
use ochre_store::CollectionNumber;
use parking_lot::Mutex;

/// The jobs that something can wake.
pub(crate) const INDEX_SYNC: &str = "index-sync";
pub(crate) const SWEEP: &str = "sweep";

/// What happened that maintenance has to follow.
#[derive(Default)]
pub(crate) struct DirtySet {
    work: Mutex<Work>,
    stop: AtomicBool,
    scheduler: OnceLock<Weak<dyn Scheduler>>,
}

#[derive(Default)]
struct Work {
    /// Collections that changed, and when the first change was that is not followed yet.
    index: BTreeMap<CollectionNumber, Instant>,
    relocate: BTreeSet<CollectionNumber>,
    /// Those that are being followed.
    relocating: BTreeSet<CollectionNumber>,
    remembered: BTreeMap<CollectionNumber, IndexState>,
    /// When a signal was passed on last.
    passed: Option<Instant>,
}

/// What maintenance remembers of a collection's graph, in nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IndexState {
    /// In its newest snapshot.
    pub(crate) snapshot: usize,
    /// When it was last calibrated.
    pub(crate) calibrated: usize,
    /// When all of its nodes were last searched for.
    pub(crate) searched: usize,
    /// When its recall was last sampled.
    pub(crate) sampled: usize,
    /// It is used from a snapshot that was not read through yet.
    pub(crate) is_unverified: bool,
    /// How many changes of records the newest snapshot of records has, since the collection was loaded …
    pub(crate) records: u64,
    /// … and at which position it was made; 0 if there is none.
    pub(crate) records_position: u64,
}

/// The scheduler is woken at most this often, not for every write.
const WAKE_EVERY: Duration = Duration::from_millis(50);

impl DirtySet {
    /// Whom to wake.
    pub(crate) fn connect(&self, scheduler: Weak<dyn Scheduler>) {
        // Connected once, when the database is opened.
        let _ = self.scheduler.set(scheduler);
    }

    /// A collection changed: its graph may have to follow.
    pub(crate) fn mark_dirty(&self, collection: CollectionNumber) {
        let mut work = self.work.lock();
        work.index.entry(collection).or_insert_with(Instant::now);
        if work.passed.is_some_and(|passed| passed.elapsed() < WAKE_EVERY) {
            return;
        }
        work.passed = Some(Instant::now());
        drop(work);
        self.wake(INDEX_SYNC);
    }

    /// A collection's vectors lie elsewhere now.
    pub(crate) fn mark_moved(&self, collection: CollectionNumber) {
        self.work.lock().relocate.insert(collection);
        self.wake(INDEX_SYNC);
    }

    /// A job has something to do.
    pub(crate) fn wake(&self, job: &str) {
        if let Some(scheduler) = self.scheduler.get().and_then(Weak::upgrade) {
            scheduler.signal(job);
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Set once the database closes: for loops inside a step.
    pub(crate) fn stopped(&self) -> &AtomicBool {
        &self.stop
    }

    /// Collections that changed, with how long ago.
    pub(crate) fn changed(&self) -> Vec<(CollectionNumber, Duration)> {
        self.work.lock().index.iter().map(|(number, since)| (*number, since.elapsed())).collect()
    }

    /// Takes a collection off the list of those that changed; what changes from here on puts it back.
    pub(crate) fn clear_dirty(&self, collection: CollectionNumber) {
        self.work.lock().index.remove(&collection);
    }

    /// Puts a collection back on the list, as one that changed so long ago.
    pub(crate) fn put_back(&self, collection: CollectionNumber, since: Duration) {
        let then = Instant::now().checked_sub(since).unwrap_or_else(Instant::now);
        self.work.lock().index.insert(collection, then);
    }

    pub(crate) fn has_moved(&self) -> bool {
        !self.work.lock().relocate.is_empty()
    }

    /// Whether the view of a collection may have vectors where they were before they were moved.
    pub(crate) fn is_moved(&self, collection: CollectionNumber) -> bool {
        let work = self.work.lock();
        work.relocate.contains(&collection) || work.relocating.contains(&collection)
    }

    /// The collections whose vectors lie elsewhere now; until [`DirtySet::end_relocation`] they are being followed.
    pub(crate) fn take_moved(&self) -> BTreeSet<CollectionNumber> {
        let mut work = self.work.lock();
        let moved = std::mem::take(&mut work.relocate);
        work.relocating.extend(&moved);
        moved
    }

    /// The view of a collection has its vectors where they lie now, or is marked moved again.
    pub(crate) fn end_relocation(&self, collection: CollectionNumber) {
        self.work.lock().relocating.remove(&collection);
    }

    pub(crate) fn index_state(&self, collection: CollectionNumber) -> IndexState {
        self.work.lock().remembered.get(&collection).copied().unwrap_or_default()
    }

    pub(crate) fn update_index_state(&self, collection: CollectionNumber, change: impl FnOnce(&mut IndexState)) {
        change(self.work.lock().remembered.entry(collection).or_default());
    }

    /// Forgets what is remembered of a collection that is unloaded or gone.
    pub(crate) fn forget(&self, collection: CollectionNumber) {
        let mut work = self.work.lock();
        work.remembered.remove(&collection);
        work.index.remove(&collection);
        work.relocate.remove(&collection);
    }
}
