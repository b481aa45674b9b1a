//! What is attached to a collection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

/// A function that may be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// How many records there are: the record `function_output`, with `total_count` in its metadata.
    RecordCounter,
    /// How many records have each value under each key: a record for each, with `key`, `value`, `type` and `count`.
    Statistics,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::RecordCounter, Self::Statistics];

    /// Chroma's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecordCounter => "record_counter",
            Self::Statistics => "statistics",
        }
    }

    /// The function of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }
}

/// A function that is attached to a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct AttachedFunction {
    pub id: Uuid,
    pub name: String,
    pub function: Function,
    pub collection: Uuid,
    pub tenant: String,
    pub database: String,
    pub output_collection: String,
    pub output_collection_id: Uuid,
    /// The position of the input that the output was computed from; 0 before the first time.
    pub position: u64,
    /// Why it could not be computed the last time, if it could not.
    pub error: Option<String>,
}

/// Its output was never computed.
const NEVER: u64 = u64::MAX;
/// Computing takes at most one part in so many of the time.
const TIME_SHARE: u32 = 10;

/// One that failed is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The same in memory, with how far it is.
pub(super) struct State {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) function: Function,
    pub(super) collection: Uuid,
    pub(super) output: Uuid,
    /// The position of the input that the output was computed from.
    position: AtomicU64,
    /// Before that it is not computed again.
    rests_until: Mutex<Option<Instant>>,
    /// Why it could not be computed the last time.
    error: Mutex<Option<String>>,
}

impl State {
    /// One whose output was never computed.
    pub(super) fn new(id: Uuid, name: &str, function: Function, collection: Uuid, output: Uuid) -> Self {
        Self {
            id,
            name: name.to_owned(),
            function,
            collection,
            output,
            position: AtomicU64::new(NEVER),
            rests_until: Mutex::default(),
            error: Mutex::default(),
        }
    }

    /// The same, whose output was computed at a position, if it was.
    pub(super) fn at(self, position: Option<u64>) -> Self {
        self.position.store(position.unwrap_or(NEVER), Ordering::Relaxed);
        self
    }

    pub(super) fn position(&self) -> u64 {
        self.computed_at().unwrap_or(0)
    }

    /// The position that its output was computed at.
    pub(super) fn computed_at(&self) -> Option<u64> {
        Some(self.position.load(Ordering::Relaxed)).filter(|position| *position != NEVER)
    }

    /// Notes that its output was computed, and how long that took.
    pub(super) fn note_computed(&self, position: u64, took: Duration) {
        self.position.store(position, Ordering::Relaxed);
        *self.rests_until.lock() = Some(Instant::now() + took * TIME_SHARE);
        *self.error.lock() = None;
    }

    /// Notes that its output could not be computed.
    pub(super) fn note_failed(&self, error: String) {
        *self.rests_until.lock() = Some(Instant::now() + RETRY_AFTER);
        *self.error.lock() = Some(error);
    }

    /// Why it could not be computed the last time, if it could not.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().clone()
    }

    /// Whether it was computed a moment ago, for what that takes.
    pub(super) fn rests(&self) -> bool {
        self.rests_until.lock().is_some_and(|until| Instant::now() < until)
    }
}
