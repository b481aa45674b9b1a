//! Which collections are in memory: unloading those that are idle, and keeping within the limit.
//!
//! What counts is the resident memory of the whole process, mapped files included, since that is what the
//! system counts when it looks for someone to end. Mapped pages go first: they cost nothing to bring back
//! but the reading. Then collections go, those first that were used longest ago; never the one that was used last,
//! which would only be read again at once. If that one is larger than the limit, the limit is exceeded by what it needs
//! beside mapped pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ochre_kernels::trim_heap;
use parking_lot::{Condvar, Mutex};

use crate::collection::Collections;
use crate::collection::state::CollectionState;
use crate::throttle::host::{memory_bytes, resident, resident_bytes};

/// Share of what the process may use that is the limit unless one is set.
const LIMIT_SHARE: f64 = 0.8;
/// Requests make room from this share of the limit on,
const HIGH_SHARE: f64 = 0.9;
/// until this share is used.
const LOW_SHARE: f64 = 0.75;
/// The segment that is written to, whose vectors are on the heap, takes at most one part in so many of the limit,
const UNSEALED_SHARE: u64 = 4;
/// or this many bytes, however low the limit is.
const UNSEALED_BYTES_MIN: u64 = 4 << 20;
/// The thread that watches memory lets go of pages of files from this share of the limit on: they come while it does.
const WATCHED_SHARE: f64 = 0.85;
/// Pages of files are worth letting go of if they are more than one part in so many of the limit.
const WORTHWHILE_SHARE: u64 = 32;
/// So many bytes of files can be brought into memory in a second.
const PAGES_A_SECOND: f64 = 8e9;
/// The thread that watches memory looks at most, and at least, this often.
const WATCH_EVERY_MIN: Duration = Duration::from_millis(2);
const WATCH_EVERY_MAX: Duration = Duration::from_millis(250);
/// Requests check memory at most this often.
const CHECK_EVERY: Duration = Duration::from_millis(10);

/// The limit, and what is remembered about keeping it.
pub(crate) struct MemoryBudget {
    limit: u64,
    began: Instant,
    /// When a request last checked it, in microseconds since `began`.
    last_check: AtomicU64,
    /// Bytes above the limit at the last check.
    over_limit: AtomicU64,
    /// Held by the thread that evicts.
    evicting: Mutex<()>,
    /// Much may have been freed since memory was last given back.
    freed: AtomicBool,
}

/// The most bytes that may be resident: as given, or the default.
fn limit_of(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| (memory_bytes() as f64 * LIMIT_SHARE) as u64)
}

/// Bytes at which a segment is sealed: as set, or earlier where memory is small.
pub(crate) fn segment_bytes(memory_limit: Option<u64>, set: u64) -> u64 {
    let room = limit_of(memory_limit) / UNSEALED_SHARE;
    set.min(room.max(UNSEALED_BYTES_MIN))
}

impl MemoryBudget {
    /// With a limit in bytes, or the default.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            limit: limit_of(limit),
            began: Instant::now(),
            last_check: AtomicU64::new(0),
            over_limit: AtomicU64::new(0),
            evicting: Mutex::new(()),
            // Opening frees much.
            freed: AtomicBool::new(true),
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether it is time for a request to look at memory.
    fn is_due(&self) -> bool {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let last_check = self.last_check.load(Ordering::Relaxed);
        let every = CHECK_EVERY.as_micros() as u64;
        now.saturating_sub(last_check) >= every
            && self.last_check.compare_exchange(last_check, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Collections {
    /// The most bytes that may be resident.
    pub(crate) fn memory_limit(&self) -> u64 {
        self.budget.limit()
    }

    pub(crate) fn may_hold_memory(&self) -> bool {
        self.budget.freed.load(Ordering::Relaxed)
    }

    /// Much was freed, and the allocator may still hold it.
    pub(crate) fn note_freed(&self) {
        self.budget.freed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mark_trimmed(&self) {
        self.budget.freed.store(false, Ordering::Relaxed);
    }

    /// Before a request brings more into memory: makes room if there is little. Returns the bytes that are
    /// resident above the limit all the same.
    pub(crate) fn enforce_budget(&self) -> u64 {
        if !self.budget.is_due() {
            return self.budget.over_limit.load(Ordering::Relaxed);
        }
        let limit = self.memory_limit() as f64;
        if resident_bytes() as f64 > limit * HIGH_SHARE {
            self.evict((limit * LOW_SHARE) as u64);
        }
        let over_limit = resident_bytes().saturating_sub(self.memory_limit());
        self.budget.over_limit.store(over_limit, Ordering::Relaxed);
        over_limit
    }

    /// Around a step of maintenance: lets go of pages of files if memory is short.
    pub(crate) fn release_pages(&self) {
        if resident_bytes() as f64 > self.memory_limit() as f64 * HIGH_SHARE {
            let _evicting = self.budget.evicting.lock();
            self.drop_pages();
        }
    }

    fn drop_pages(&self) {
        self.release_mapped_pages();
        trim_heap();
    }

    fn release_mapped_pages(&self) {
        self.store.drop_pages();
        let loaded: Vec<Arc<CollectionState>> = self.all();
        loaded.iter().filter_map(|loaded| loaded.view()).for_each(|view| view.drop_pages());
    }

    /// Lets go of pages of files if memory is short; when to look again.
    fn watch_pages(&self) -> Duration {
        let high = (self.memory_limit() as f64 * WATCHED_SHARE) as u64;
        let [all, mapped] = resident();
        if all > high && mapped > self.memory_limit() / WORTHWHILE_SHARE {
            self.release_mapped_pages();
        }
        let room = high.saturating_sub(resident_bytes());
        Duration::from_secs_f64(room as f64 / PAGES_A_SECOND).clamp(WATCH_EVERY_MIN, WATCH_EVERY_MAX)
    }

    /// Lets go of memory until no more than `target` bytes are resident, as far as that is possible; how many
    /// collections were unloaded for it.
    pub(crate) fn evict(&self, target: u64) -> usize {
        let _evicting = self.budget.evicting.lock();
        if resident_bytes() <= target {
            return 0;
        }
        let mut oldest: Vec<Arc<CollectionState>> = self.all();
        oldest.iter().for_each(|loaded| loaded.drop_old_views());
        self.drop_pages();
        let mut unloaded = 0;
        oldest.sort_by_key(|loaded| std::cmp::Reverse(loaded.used()));
        // Whoever uses it now would read it again.
        oldest.drain(..1.min(oldest.len()));
        let mut excess = resident_bytes().saturating_sub(target);
        while excess > 0
            && let Some(loaded) = oldest.pop()
        {
            let held = loaded.view().map_or(0, |view| view.heap_bytes()) as u64;
            if held == 0 {
                continue;
            }
            self.unload(&loaded);
            unloaded += 1;
            excess = excess.saturating_sub(held);
        }
        if unloaded > 0 {
            drop(oldest);
            trim_heap();
        }
        unloaded
    }

    /// Collections that no request used for so long; those with a graph count by the second span.
    pub(crate) fn idle_collections(&self, patience: Duration, with_graph: Duration) -> usize {
        self.loaded.read().values().filter(|loaded| loaded.is_idle(patience, with_graph)).count()
    }

    /// Unloads them.
    pub(crate) fn evict_idle(&self, patience: Duration, with_graph: Duration) -> usize {
        let idle: Vec<Arc<CollectionState>> =
            self.loaded.read().values().filter(|loaded| loaded.is_idle(patience, with_graph)).cloned().collect();
        idle.iter().for_each(|loaded| self.unload(loaded));
        idle.len()
    }

    /// Forgets what is in memory of a collection. Whoever is reading it goes on with what it has; the next
    /// request reads it again.
    fn unload(&self, loaded: &Arc<CollectionState>) {
        let mut all = self.loaded.write();
        if all.get(&loaded.number).is_some_and(|current| Arc::ptr_eq(current, loaded)) {
            all.remove(&loaded.number);
            self.dirty.forget(loaded.number);
        }
    }
}

/// A thread that lets go of mapped pages as soon as memory is short: what scans segments, a build or a query, brings in
/// hundreds of megabytes between two steps.
pub(crate) struct PageWatch {
    is_stopping: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl PageWatch {
    /// Watches until it is stopped. Without a thread, pages go when requests and maintenance look.
    pub(crate) fn start(collections: &Arc<Collections>) -> Self {
        let is_stopping = Arc::new((Mutex::new(false), Condvar::new()));
        let (collections, stop) = (Arc::downgrade(collections), Arc::clone(&is_stopping));
        let watch = move || {
            let (is_stopping, stopped) = &*stop;
            let mut guard = is_stopping.lock();
            while !*guard {
                let Some(collections) = collections.upgrade() else { return };
                let every = collections.watch_pages();
                drop(collections);
                stopped.wait_for(&mut guard, every);
            }
        };
        let thread = std::thread::Builder::new().name("ochre-memory".into()).spawn(watch);
        let thread = thread.map_err(|error| tracing::warn!(%error, "memory is watched by requests and jobs only")).ok();
        Self { is_stopping, thread: Mutex::new(thread) }
    }

    /// Stops watching, and waits until it has: then nobody holds the database because of it.
    pub(crate) fn stop(&self) {
        let (is_stopping, stopped) = &*self.is_stopping;
        *is_stopping.lock() = true;
        stopped.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // It panics only if reading memory does, and has said so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_sealed_early_where_memory_is_small() {
        let bytes = |limit, set| segment_bytes(Some(limit), set);
        assert_eq!(bytes(16 << 30, 256 << 20), 256 << 20);
        assert_eq!(bytes(256 << 20, 256 << 20), 64 << 20);
        assert_eq!(bytes(256 << 20, 1 << 20), 1 << 20, "what is set is the most");
        assert_eq!(bytes(1, 256 << 20), 4 << 20);
    }
}
