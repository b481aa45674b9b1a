//! What the database does by itself: indexing vectors and text, sweeping, compacting, pruning, checkpoints, vacuum.
//!
//! One thread, woken by writes and by the clock, one bounded step at a time. Every step decides from the
//! database's state whether there is anything to do, changes no answer, and may be killed anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ochre_kernels::give_back_memory;
use ochre_store::{CollectionNumber, Upkeep};
use parking_lot::{Condvar, Mutex};

use crate::database::Inner;
use crate::error::Error;

/// How often maintenance looks around without being woken.
const TICK: Duration = Duration::from_secs(2);
/// How often space is given back and logs are pruned.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// A segment with this many bytes is sealed by housekeeping.
const SEAL_BYTES: u64 = 32 << 20;
/// Steps of one kind of upkeep in a row.
const STEPS_MAX: usize = 32;
/// A write-ahead log larger than this is copied back into the database, in bytes.
const WAL_BYTES_MAX: u64 = 4 << 20;

/// What wakes maintenance, and what it remembers between steps.
#[derive(Default)]
pub(crate) struct Signals {
    work: Mutex<Work>,
    woken: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct Work {
    wake: bool,
    index: BTreeSet<CollectionNumber>,
    relocate: BTreeSet<CollectionNumber>,
    /// Nodes in the newest snapshot of each graph.
    snapshots: BTreeMap<CollectionNumber, usize>,
    /// Nodes of each graph when its links were last looked at.
    checked: BTreeMap<CollectionNumber, usize>,
}

impl Signals {
    /// A collection changed: its graph may have to follow.
    pub(crate) fn index(&self, collection: CollectionNumber) {
        self.work.lock().index.insert(collection);
        self.woken.notify_one();
    }

    /// A collection's vectors lie elsewhere now.
    pub(crate) fn relocate(&self, collection: CollectionNumber) {
        self.work.lock().relocate.insert(collection);
        self.woken.notify_one();
    }

    /// There may be something to clean up.
    pub(crate) fn wake(&self) {
        self.work.lock().wake = true;
        self.woken.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake();
    }

    pub(crate) fn stopped(&self) -> &AtomicBool {
        &self.stop
    }

    pub(crate) fn note_snapshot(&self, collection: CollectionNumber, nodes: usize) {
        self.work.lock().snapshots.insert(collection, nodes);
    }

    pub(crate) fn snapshot(&self, collection: CollectionNumber) -> usize {
        self.work.lock().snapshots.get(&collection).copied().unwrap_or(0)
    }

    pub(crate) fn note_checked(&self, collection: CollectionNumber, nodes: usize) {
        self.work.lock().checked.insert(collection, nodes);
    }

    pub(crate) fn checked(&self, collection: CollectionNumber) -> usize {
        self.work.lock().checked.get(&collection).copied().unwrap_or(0)
    }

    /// Whether nothing asks for maintenance.
    fn is_quiet(&self) -> bool {
        let work = self.work.lock();
        !work.wake && work.index.is_empty() && work.relocate.is_empty()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The maintenance thread; it stops when this is dropped.
pub(crate) struct Worker {
    inner: Arc<Inner>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Worker {
    pub(crate) fn start(inner: &Arc<Inner>, background: bool) -> Self {
        let thread = background.then(|| {
            let inner = Arc::clone(inner);
            let spawned = std::thread::Builder::new().name("ochre-maintenance".into()).spawn(move || inner.run());
            spawned.expect("a thread can be started when a database is opened")
        });
        Self { inner: Arc::clone(inner), thread: Mutex::new(thread) }
    }
}

impl Worker {
    /// Stops maintenance and waits until it has stopped.
    pub(crate) fn stop(&self) {
        self.inner.signals.stop();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there was logged by the panic hook; closing goes on.
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn run(&self) {
        let mut kept_house = Instant::now();
        // Loading, indexing and large requests free much at once.
        let mut may_hold_memory = true;
        self.remove_strays();
        while !self.signals.is_stopped() {
            {
                let mut work = self.signals.work.lock();
                if !work.wake && work.index.is_empty() && work.relocate.is_empty() {
                    self.signals.woken.wait_for(&mut work, TICK);
                }
            }
            if self.signals.is_stopped() {
                return;
            }
            let is_quiet = self.signals.is_quiet();
            let due = kept_house.elapsed() > HOUSEKEEPING;
            let maintaining = self.maintaining.lock();
            let round = || {
                self.follow_signals(false)
                    .and_then(|woken| if due || woken { self.keep_house(STEPS_MAX) } else { Ok(()) })
            };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(round));
            may_hold_memory |= !is_quiet;
            if due {
                kept_house = Instant::now();
                if is_quiet && std::mem::take(&mut may_hold_memory) {
                    give_back_memory();
                }
            }
            if let Ok(Ok(())) = result {
                continue;
            }
            drop(maintaining);
            match result {
                Ok(Err(error)) => tracing::warn!(%error, "maintenance failed; it is tried again"),
                _ => tracing::error!("maintenance panicked; it goes on with the next round"),
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Does everything there is to do.
    pub(crate) fn maintain_all(&self) -> Result<(), Error> {
        let _maintaining = self.maintaining.lock();
        let loaded: Vec<CollectionNumber> = self.loaded.read().keys().copied().collect();
        self.signals.work.lock().index.extend(loaded);
        self.follow_signals(true)?;
        self.keep_house(usize::MAX)?;
        // Compaction moves vectors.
        self.follow_signals(true)?;
        self.remove_strays();
        Ok(())
    }

    /// Handles what commits and compaction signalled; whether there may be something to clean up.
    fn follow_signals(&self, all: bool) -> Result<bool, Error> {
        let (wake, index, relocate) = {
            let mut work = self.signals.work.lock();
            (std::mem::take(&mut work.wake), std::mem::take(&mut work.index), std::mem::take(&mut work.relocate))
        };
        let mut failed = None;
        for number in relocate {
            let loaded = self.loaded.read().get(&number).cloned();
            if let Some(Err(error)) = loaded.map(|loaded| loaded.relocate(&*self.store)) {
                self.signals.relocate(number);
                failed = Some(error);
            }
        }
        for number in index {
            if let Err(error) = self.sync_index(number, all).and_then(|()| self.sync_text(number, all)) {
                self.signals.index(number);
                failed = Some(error);
            }
        }
        failed.map_or(Ok(wake), Err)
    }

    /// Steps of upkeep until none has anything left to do; with a limit on each, so that indexing gets its
    /// turn.
    fn keep_house(&self, steps_max: usize) -> Result<(), Error> {
        let steps = [
            Upkeep::SweepDeleted,
            Upkeep::PruneLog,
            // What is sealed is mapped rather than held in memory, and can be compacted.
            Upkeep::SealVectors { min_bytes: SEAL_BYTES, dead_share_max: self.options.segment_dead_share_max },
            Upkeep::CompactVectors { dead_share_max: self.options.segment_dead_share_max },
            Upkeep::Vacuum,
        ];
        for step in steps {
            let mut steps = 0;
            while !self.signals.is_stopped() && self.store.upkeep(step)? {
                steps += 1;
                if steps == steps_max {
                    self.signals.wake();
                    break;
                }
            }
        }
        // Whoever is reading it goes on with what it has; a request that comes just now loads it anew.
        self.loaded.write().retain(|_, loaded| !loaded.is_idle(self.options.idle_unload));
        if self.store.statistics()?.wal_bytes > WAL_BYTES_MAX {
            self.store.upkeep(Upkeep::Checkpoint)?;
        }
        Ok(())
    }

    fn remove_strays(&self) {
        self.snapshots.remove_strays(|id| !matches!(self.store.collection_by_id(id), Ok(None)));
    }
}
