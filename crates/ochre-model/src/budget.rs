//! What one request may use: memory, compiled patterns, and time.
//!
//! Work for a request happens on one thread, and its budget is that thread's while it does ([`enter`]): whoever keeps
//! bytes for the request charges them, and loops that can be long ask whether to go on, without handing a budget
//! through every call. Where no budget was entered, as in a program that embeds the database, nothing is bounded.
//!
//! Not here: how large budgets are (`ochre-server`).

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Why a request is not worked on any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// It needs more memory than one request may have.
    #[error(
        "the request needs more memory than the {limit} bytes that one may have: ask for less at once (fewer embeddings, a smaller n_results or limit, parts of the batch, no documents in include)"
    )]
    Memory {
        /// In bytes.
        limit: u64,
    },
    /// All requests together need more memory than there is for them.
    #[error("the requests of this moment need more memory than the {limit} bytes there are for them: try again soon")]
    AllMemory {
        /// In bytes.
        limit: u64,
    },
    /// Its patterns are larger, compiled, than those of one request may be.
    #[error(
        "the patterns of the request take more than {limit} bytes once they are compiled: use shorter repetitions, [0-9A-Za-z_] for \\w, or fewer patterns"
    )]
    Patterns {
        /// In bytes.
        limit: u64,
    },
    /// It took longer than a request may.
    #[error("the request took longer than {millis} ms: narrow it down, or ask for less at once")]
    Time {
        /// In milliseconds.
        millis: u64,
    },
    /// Whoever asked is gone.
    #[error("the client went away before it was answered")]
    Cancelled,
}

/// Memory for the requests of a server together.
#[derive(Debug)]
pub struct RequestMemory {
    limit: u64,
    used: AtomicU64,
}

impl RequestMemory {
    /// So many bytes for all requests together.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Compiled patterns of one request, in bytes.
const PATTERN_BYTES_MAX: u64 = 8 << 20;

/// What one request may use.
#[derive(Debug)]
pub struct Budget {
    memory_limit: u64,
    all: Arc<RequestMemory>,
    used: AtomicU64,
    patterns: AtomicU64,
    time_limit: Duration,
    deadline: Option<Instant>,
    is_cancelled: AtomicBool,
    was_exceeded: AtomicBool,
}

impl Budget {
    /// So many bytes of memory, out of those of all requests, and so much time from now on; any if it is zero.
    pub fn new(memory_limit: u64, all: Arc<RequestMemory>, time_limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            memory_limit,
            all,
            used: AtomicU64::new(0),
            patterns: AtomicU64::new(0),
            time_limit,
            deadline: (!time_limit.is_zero()).then(|| Instant::now() + time_limit),
            is_cancelled: AtomicBool::new(false),
            was_exceeded: AtomicBool::new(false),
        })
    }

    /// Ends the work at the next question whether to go on.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the request was refused memory or time.
    pub fn was_exceeded(&self) -> bool {
        self.was_exceeded.load(Ordering::Relaxed)
    }

    fn exceeded(&self, why: Exceeded) -> Result<(), Exceeded> {
        self.was_exceeded.store(true, Ordering::Relaxed);
        Err(why)
    }

    /// Takes bytes, which come back when the budget is dropped.
    fn charge(&self, bytes: u64) -> Result<(), Exceeded> {
        if self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.memory_limit {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return self.exceeded(Exceeded::Memory { limit: self.memory_limit });
        }
        if self.all.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.all.limit {
            self.all.used.fetch_sub(bytes, Ordering::Relaxed);
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return self.exceeded(Exceeded::AllMemory { limit: self.all.limit });
        }
        Ok(())
    }

    /// Whether to go on.
    fn check(&self) -> Result<(), Exceeded> {
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Err(Exceeded::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() > deadline => {
                self.exceeded(Exceeded::Time { millis: u64::try_from(self.time_limit.as_millis()).unwrap_or(u64::MAX) })
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.all.used.fetch_sub(*self.used.get_mut(), Ordering::Relaxed);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Budget>>> = const { RefCell::new(None) };
}

/// Work on this thread is within a budget until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct Entered(Option<Arc<Budget>>);

/// What this thread works on from now on is within this budget.
pub fn enter(budget: Arc<Budget>) -> Entered {
    Entered(CURRENT.replace(Some(budget)))
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// The budget of this thread, for others that work for the same request.
pub fn current() -> Option<Arc<Budget>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Takes bytes of the request's memory, until it is answered.
///
/// # Errors
/// [`Exceeded`]: there are not so many left, for it or for all.
pub fn charge(bytes: usize) -> Result<(), Exceeded> {
    CURRENT.with_borrow(|budget| budget.as_ref().map_or(Ok(()), |budget| budget.charge(bytes as u64)))
}

/// Takes bytes for a pattern that was compiled.
///
/// # Errors
/// [`Exceeded::Patterns`].
pub fn charge_pattern(bytes: usize) -> Result<(), Exceeded> {
    CURRENT.with_borrow(|budget| {
        let Some(budget) = budget else { return Ok(()) };
        let used = budget.patterns.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if used > PATTERN_BYTES_MAX { Err(Exceeded::Patterns { limit: PATTERN_BYTES_MAX }) } else { Ok(()) }
    })
}

/// Whether to go on with the request; to be asked now and then in every loop that can be long.
///
/// # Errors
/// [`Exceeded`]: its time is over, or whoever asked is gone.
pub fn check() -> Result<(), Exceeded> {
    CURRENT.with_borrow(|budget| budget.as_ref().map_or(Ok(()), |budget| budget.check()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_share_and_gives_it_back() {
        assert_eq!((charge(1 << 40), check()), (Ok(()), Ok(())), "without a budget nothing is bounded");
        let all = RequestMemory::new(150);
        let budget = || Budget::new(100, Arc::clone(&all), Duration::ZERO);
        let first = enter(budget());
        assert_eq!(charge(60), Ok(()));
        assert_eq!(charge(60), Err(Exceeded::Memory { limit: 100 }));
        assert_eq!(charge(40), Ok(()));
        let second = enter(budget());
        assert_eq!(charge(60), Err(Exceeded::AllMemory { limit: 150 }));
        assert_eq!(charge(50), Ok(()));
        assert_eq!(all.used(), 150);
        drop(second);
        assert_eq!(all.used(), 100);
        assert_eq!(charge(1), Err(Exceeded::Memory { limit: 100 }), "the first budget is back");
        drop(first);
        assert_eq!(all.used(), 0);
    }

    #[test]
    fn work_ends_when_time_is_over_or_nobody_waits() {
        let all = RequestMemory::new(1);
        let short = Budget::new(1, Arc::clone(&all), Duration::from_nanos(1));
        let entered = enter(Arc::clone(&short));
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(check(), Err(Exceeded::Time { millis: 0 }));
        drop(entered);
        let long = Budget::new(1, all, Duration::from_secs(3600));
        let _entered = enter(Arc::clone(&long));
        assert_eq!(check(), Ok(()));
        long.cancel();
        assert_eq!(check(), Err(Exceeded::Cancelled));
    }

    #[test]
    fn patterns_of_one_request_are_bounded_together() {
        let _entered = enter(Budget::new(1, RequestMemory::new(1), Duration::ZERO));
        assert!((0..8).all(|_| charge_pattern(1 << 20).is_ok()));
        assert!(matches!(charge_pattern(1 << 20), Err(Exceeded::Patterns { .. })));
    }
}
