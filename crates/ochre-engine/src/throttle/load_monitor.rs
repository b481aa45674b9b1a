//! How busy requests keep the database: what maintenance gives way to.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Latencies are counted in this many classes, four to each doubling, from a microsecond on.
const CLASSES: usize = 128;

/// Requests under way, and how long those before took.
pub(crate) struct LoadMonitor {
    in_flight: AtomicU32,
    busy_micros: AtomicU64,
    finished: AtomicU64,
    latencies: [AtomicU64; CLASSES],
}

impl Default for LoadMonitor {
    fn default() -> Self {
        let latencies = [const { AtomicU64::new(0) }; CLASSES];
        Self { in_flight: AtomicU32::new(0), busy_micros: AtomicU64::new(0), finished: AtomicU64::new(0), latencies }
    }
}

/// A request under way; it ends when this is dropped.
pub(crate) struct RequestGuard<'a> {
    monitor: &'a LoadMonitor,
    began: Instant,
}

/// Counts since the database was opened.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) busy_micros: u64,
    pub(crate) finished: u64,
    latencies: [u64; CLASSES],
}

impl LoadMonitor {
    /// Notes that a request has begun.
    pub(crate) fn enter(&self) -> RequestGuard<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        RequestGuard { monitor: self, began: Instant::now() }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            busy_micros: self.busy_micros.load(Ordering::Relaxed),
            finished: self.finished.load(Ordering::Relaxed),
            latencies: std::array::from_fn(|class| self.latencies[class].load(Ordering::Relaxed)),
        }
    }
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.monitor.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.monitor.busy_micros.fetch_add(micros, Ordering::Relaxed);
        self.monitor.finished.fetch_add(1, Ordering::Relaxed);
        self.monitor.latencies[class(micros)].fetch_add(1, Ordering::Relaxed);
    }
}

fn class(micros: u64) -> usize {
    let micros = micros.max(4);
    let doublings = micros.ilog2();
    // The two bits after the first tell the quarter.
    let quarter = (micros >> (doublings - 2)) & 3;
    ((u64::from(doublings) * 4 + quarter) as usize).min(CLASSES - 1)
}

/// The longest latency of a class.
fn limit(class: usize) -> Duration {
    let (doublings, quarter) = (class / 4, class % 4);
    Duration::from_micros((1u64 << doublings.min(50)) / 4 * (5 + quarter as u64))
}

impl Counts {
    /// The latency that 95 % of the requests since `before` kept, if there were enough to say.
    pub(crate) fn p95_since(&self, before: &Self) -> Option<Duration> {
        let counts: [u64; CLASSES] = std::array::from_fn(|class| self.latencies[class] - before.latencies[class]);
        let all: u64 = counts.iter().sum();
        if all < 20 {
            return None;
        }
        let mut left = all - all / 20;
        for (class, count) in counts.iter().enumerate() {
            if *count >= left {
                return Some(limit(class));
            }
            left -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_at_most_a_quarter_too_long() {
        for micros in [5u64, 17, 100, 999, 12_345, 1_000_000] {
            let (monitor, before) = (LoadMonitor::default(), LoadMonitor::default().counts());
            for _ in 0..100 {
                monitor.latencies[class(micros)].fetch_add(1, Ordering::Relaxed);
            }
            let p95 = monitor.counts().p95_since(&before).expect("enough requests").as_micros();
            assert!((u128::from(micros)..=u128::from(micros) * 5 / 4 + 1).contains(&p95), "{micros}: {p95}");
        }
    }

    #[test]
    fn a_request_counts_from_its_beginning_to_its_end() {
        let monitor = LoadMonitor::default();
        let visit = monitor.enter();
        assert_eq!((monitor.in_flight(), monitor.counts().finished), (1, 0));
        drop(visit);
        assert_eq!((monitor.in_flight(), monitor.counts().finished), (0, 1));
    }
}
