//! What a store holds in memory beside its connections: the writer and what waits for it, where collections stood, and
//! how long upkeep kept others waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;
use uuid::Uuid;

use super::connection::read_meta;
use crate::error::{Error, Result};
use crate::store::{CollectionNumber, CollectionRow, Outcome, Write};

/// A request waiting for its answer.
pub(super) struct Ticket {
    pub(super) write: Write,
    pub(super) answer: Mutex<Option<Result<Outcome>>>,
}

/// What only the holder of the lock may use.
pub(super) struct Writer {
    /// Absent after a failure, until the store is reopened.
    pub(super) connection: Option<Connection>,
    pub(super) next_vector_id: u64,
    /// How many transactions the database has seen: nobody else may commit any.
    pub(super) transactions: u64,
    /// Why nothing is written ever again by this process.
    pub(super) stopped_for_good: Option<String>,
    pub(super) failure: Option<String>,
    /// How often the store was reopened since it last was known where it stands.
    pub(super) recoveries: u64,
    /// Set while a group is being committed; found set, it says that a panic ended one halfway.
    pub(super) in_group: bool,
    /// Catalog rows of collections written to lately; emptied by every catalog change.
    pub(super) rows: HashMap<Uuid, Arc<CollectionRow>>,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> rusqlite::Result<Self> {
        let next_vector_id = read_meta(&connection, "next_vector_id")?.cast_unsigned();
        let transactions = read_meta(&connection, "transactions")?.cast_unsigned();
        Ok(Self {
            connection: Some(connection),
            next_vector_id,
            transactions,
            stopped_for_good: None,
            failure: None,
            recoveries: 0,
            in_group: false,
            rows: HashMap::new(),
        })
    }

    pub(super) fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Whether it knows what was committed: after a failure, what was under way may have been.
    pub(super) fn is_sound(&self) -> bool {
        self.failure.is_none() && !self.in_group
    }

    pub(super) fn next_vector_id(&self) -> u64 {
        self.next_vector_id
    }

    /// Stops writes until the database is opened again; the error that says so.
    pub(super) fn stop(&mut self, reason: String) -> Error {
        self.stopped_for_good = Some(reason.clone());
        Error::WritesStopped { reason }
    }

    /// Forgets what is remembered of collections.
    pub(super) fn forget_rows(&mut self) {
        self.rows.clear();
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    pub(super) fn connection_mut(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }
}

/// Where collections stood some time ago: whatever is older is old enough to go.
pub(super) struct Heads {
    age: Duration,
    noted: VecDeque<(Instant, HashMap<CollectionNumber, i64>)>,
}

impl Heads {
    /// Entries are kept for this long.
    pub(super) fn new(age: Duration) -> Self {
        Self { age, noted: VecDeque::new() }
    }

    /// Notes where collections stand now, unless that was done a moment ago; where they stood as long ago as
    /// entries are kept, as far as is known.
    pub(super) fn note(
        &mut self, now: Instant, heads: HashMap<CollectionNumber, i64>,
    ) -> Option<&HashMap<CollectionNumber, i64>> {
        if self.noted.back().is_none_or(|(noted, _)| now - *noted >= self.age / 4) {
            self.noted.push_back((now, heads));
        }
        while self.noted.get(1).is_some_and(|(noted, _)| now - *noted >= self.age) {
            self.noted.pop_front();
        }
        self.noted.front().filter(|(noted, _)| now - *noted >= self.age).map(|(_, heads)| heads)
    }
}

/// How long requests waited for upkeep.
#[derive(Default)]
pub(super) struct Wait {
    is_held: AtomicBool,
    micros: AtomicU64,
}

impl Wait {
    /// Takes the writer's lock for a request.
    pub(super) fn lock<'a>(&self, writer: &'a Mutex<Writer>) -> MutexGuard<'a, Writer> {
        if let Some(writer) = writer.try_lock() {
            return writer;
        }
        let (began, is_held) = (Instant::now(), self.is_held.load(Ordering::Relaxed));
        let writer = writer.lock();
        if is_held {
            let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.micros.fetch_add(micros, Ordering::Relaxed);
        }
        writer
    }

    pub(super) fn total(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}

/// Says that upkeep holds the writer's lock, until it is dropped.
pub(super) struct HeldByUpkeep<'a>(&'a Wait);

impl<'a> HeldByUpkeep<'a> {
    pub(super) fn new(wait: &'a Wait) -> Self {
        wait.is_held.store(true, Ordering::Relaxed);
        Self(wait)
    }
}

impl Drop for HeldByUpkeep<'_> {
    fn drop(&mut self) {
        self.0.is_held.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_known_from_as_long_ago_as_entries_are_kept() {
        let began = Instant::now();
        let mut heads = Heads::new(Duration::from_secs(120));
        let mut at = |seconds: u64| {
            let stands = HashMap::from([(1, i64::try_from(seconds).unwrap())]);
            heads.note(began + Duration::from_secs(seconds), stands).and_then(|heads| heads.get(&1)).copied()
        };
        assert_eq!((at(0), at(10), at(60), at(119)), (None, None, None, None));
        assert_eq!((at(120), at(179), at(180), at(1000)), (Some(0), Some(0), Some(60), Some(179)));
    }

    #[test]
    fn only_waiting_for_upkeep_counts() {
        let (writer, wait) = (Mutex::new(Writer::new(connection()).unwrap()), Wait::default());
        let wait_while = |is_held: bool| {
            std::thread::scope(|scope| {
                let held = writer.lock();
                let _upkeep = is_held.then(|| HeldByUpkeep::new(&wait));
                let waiting = scope.spawn(|| drop(wait.lock(&writer)));
                std::thread::sleep(Duration::from_millis(30));
                drop(held);
                waiting.join().unwrap();
            });
            wait.total()
        };
        assert_eq!(wait_while(false), Duration::ZERO);
        assert!(wait_while(true) >= Duration::from_millis(5));
        drop(wait.lock(&writer));
    }

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE meta (key, value); INSERT INTO meta VALUES ('next_vector_id', 1), ('transactions', 0)",
            )
            .unwrap();
        connection
    }
}
