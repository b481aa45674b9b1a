//! Requests first: decides before every step of maintenance whether there is room for it.
//!
//! Pressure, from 0 to 100, is the worst of: requests under way by processors, their latency by what it usually is,
//! what other processes use of the processors (which slows maintenance down, but never stops it: the system shares
//! processors out between processes), how long they waited for a step of maintenance that kept the writer, and resident
//! memory by its limit. Below [`START`] maintenance works as it pleases, from there on ever less, from [`STOP`] on it
//! waits until the pressure was below [`RESUME`] for a while. It is never starved: a tenth of the time is always its
//! own. Where the disk is nearly full, what is in no hurry waits too: it may need room, while other jobs make some.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ochre_kernels::set_idle_priority;
use ochre_scheduler::{Admission, Class, Governor};
use ochre_store::Store;
use parking_lot::Mutex;

use crate::throttle::host::{Machine, Usage, step_down};
use crate::throttle::load_monitor::{Counts, LoadMonitor};

/// Pressure from which maintenance slows down.
const START: f64 = 60.0;
/// Pressure from which it waits.
const STOP: f64 = 85.0;
/// Pressure at which it goes on after it waited, if it lasts for [`CALM`].
const RESUME: f64 = 55.0;
const CALM: Duration = Duration::from_secs(2);
/// Even urgent steps wait above this, for their share of the time.
const STOP_URGENT: f64 = 95.0;
/// Idle steps wait above this.
const STOP_IDLE: f64 = 30.0;
/// Pressure if other processes use all processors.
const OTHERS_MAX: f64 = 70.0;
/// Up to this share used by other processes there are idle processors to run on.
const OTHERS_IDLE: f64 = 0.3;
/// From this share on there are none.
const OTHERS_CROWDED: f64 = 0.6;
/// Pressure for each part of the time that requests waited for maintenance to let go of the writer: all of it if they
/// waited for half.
const WAITED: f64 = 200.0;
/// With less of the disk free, steps in no hurry wait.
const DISK_FREE_MIN: u64 = 128 << 20;
/// How often pressure is measured.
const SAMPLE: Duration = Duration::from_millis(250);
/// Latencies that tell what is usual: ten minutes of samples.
const USUAL: usize = 2400;
/// Of the time that waiting steps would take, the part they are given all the same.
const FLOOR: u32 = 10;

/// Gives maintenance what requests leave.
pub(crate) struct AdmissionControl {
    monitor: Arc<LoadMonitor>,
    machine: Machine,
    memory_limit: u64,
    store: Arc<dyn Store>,
    directory: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    sampled: Instant,
    counts: Counts,
    usage: Usage,
    waited: Duration,
    is_disk_short: bool,
    usual: VecDeque<Duration>,
    pressure: f64,
    /// Share of all processors that other processes used.
    others: f64,
    is_stopped: bool,
    calm_since: Option<Instant>,
    /// How long the last step took.
    last_step: Duration,
}

impl AdmissionControl {
    /// Watches this traffic, on this machine, that resident memory stays below the limit, in bytes, and the disk of
    /// this directory.
    pub(crate) fn new(
        monitor: Arc<LoadMonitor>, memory_limit: u64, store: Arc<dyn Store>, directory: Option<PathBuf>,
    ) -> Self {
        let machine = Machine::new();
        let state = State {
            sampled: Instant::now(),
            counts: monitor.counts(),
            usage: machine.usage(),
            waited: store.waited_for_upkeep(),
            is_disk_short: false,
            usual: VecDeque::new(),
            pressure: 0.0,
            others: 0.0,
            is_stopped: false,
            calm_since: None,
            last_step: Duration::ZERO,
        };
        Self { monitor, machine, memory_limit, store, directory, state: Mutex::new(state) }
    }

    /// Pressure now, from 0 to 100.
    pub(crate) fn pressure(&self) -> f64 {
        let mut state = self.state.lock();
        self.sample(&mut state);
        state.pressure
    }

    /// Pressure, and the share of the processors that other processes use.
    fn sampled(&self) -> (f64, f64) {
        let mut state = self.state.lock();
        self.sample(&mut state);
        (state.pressure, state.others)
    }

    /// How many of `wanted` threads a step may use: all while next to nothing else goes on, else a quarter of
    /// the processors.
    pub(crate) fn threads(&self, wanted: usize) -> usize {
        if self.pressure() < STOP_IDLE { wanted } else { wanted.min((self.machine.processors() / 4).max(1)) }
    }

    fn sample(&self, state: &mut State) {
        let elapsed = state.sampled.elapsed();
        if elapsed < SAMPLE {
            return;
        }
        let (counts, usage, waited) = (self.monitor.counts(), self.machine.usage(), self.store.waited_for_upkeep());
        state.is_disk_short =
            self.directory.as_deref().and_then(ochre_store::free_bytes).is_some_and(|free| free < DISK_FREE_MIN);
        state.others = state.others * 0.5 + usage.others_since(&state.usage) * 0.5;
        let now = pressure_of(&Sample {
            processors: self.machine.processors(),
            elapsed,
            busy: Duration::from_micros(counts.busy_micros - state.counts.busy_micros),
            // A long request is not among the finished ones yet.
            in_flight: self.monitor.in_flight(),
            finished: counts.finished - state.counts.finished,
            p95: counts.p95_since(&state.counts),
            usual: median(&state.usual),
            others: state.others,
            waited: waited - state.waited,
            memory: self.machine.resident_bytes() as f64 / self.memory_limit.max(1) as f64,
        });
        if let Some(p95) = counts.p95_since(&state.counts) {
            state.usual.push_back(p95);
            if state.usual.len() > USUAL {
                state.usual.pop_front();
            }
        }
        // Up at once, down slowly.
        state.pressure = if now > state.pressure { now } else { state.pressure * 0.6 + now * 0.4 };
        (state.sampled, state.counts, state.usage, state.waited) = (Instant::now(), counts, usage, waited);
        if state.pressure >= STOP {
            (state.is_stopped, state.calm_since) = (true, None);
        } else if state.pressure < RESUME {
            let since = *state.calm_since.get_or_insert_with(Instant::now);
            state.is_stopped &= since.elapsed() < CALM;
        } else {
            state.calm_since = None;
        }
    }
}

/// What pressure is told from.
struct Sample {
    processors: usize,
    elapsed: Duration,
    busy: Duration,
    in_flight: u32,
    finished: u64,
    p95: Option<Duration>,
    usual: Option<Duration>,
    /// Share of all processors that other processes used.
    others: f64,
    /// How long requests waited for the writer while maintenance had it.
    waited: Duration,
    /// Resident memory by its limit.
    memory: f64,
}

fn pressure_of(sample: &Sample) -> f64 {
    let processors = sample.processors.max(1) as f64;
    let mut busy = sample.busy.as_secs_f64() / sample.elapsed.as_secs_f64().max(1e-3);
    if sample.finished == 0 {
        busy = busy.max(f64::from(sample.in_flight));
    }
    let requests = 100.0 * busy / processors;
    let latency = match (sample.p95, sample.usual) {
        // Below a millisecond there is nothing to gain for anyone.
        (Some(p95), Some(usual)) if p95 > usual + Duration::from_millis(1) => {
            (p95.as_secs_f64() / usual.as_secs_f64().max(1e-4) - 1.0) * 40.0
        }
        _ => 0.0,
    };
    let others = OTHERS_MAX * sample.others;
    let memory = if sample.memory > 0.9 { (sample.memory - 0.9) * 1000.0 } else { 0.0 };
    let waited = WAITED * sample.waited.as_secs_f64() / sample.elapsed.as_secs_f64().max(1e-3);
    requests.max(latency).max(others).max(waited).max(memory).clamp(0.0, 100.0)
}

fn median(usual: &VecDeque<Duration>) -> Option<Duration> {
    if usual.len() < 40 {
        return None;
    }
    let mut sorted: Vec<Duration> = usual.iter().copied().collect();
    let middle = sorted.len() / 2;
    Some(*sorted.select_nth_unstable(middle).1)
}

impl Governor for AdmissionControl {
    fn begin(&self, class: Class) {
        // Where other processes leave nothing idle, a thread that only runs on idle processors would never run.
        if class == Class::Urgent || self.sampled().1 > OTHERS_IDLE { step_down() } else { set_idle_priority() }
    }

    fn is_crowded(&self) -> bool {
        let (pressure, others) = self.sampled();
        pressure >= STOP || others > OTHERS_CROWDED
    }

    fn admit(&self, class: Class, waited: Duration) -> Admission {
        let mut state = self.state.lock();
        self.sample(&mut state);
        let is_held = match class {
            Class::Urgent => state.pressure > STOP_URGENT,
            Class::Normal => state.is_stopped,
            Class::Idle => state.is_stopped || state.pressure > STOP_IDLE || state.is_disk_short,
        };
        let floor = (state.last_step * FLOOR).clamp(Duration::from_millis(50), Duration::from_secs(10));
        let floor = if class == Class::Urgent { floor / FLOOR } else { floor };
        if !is_held || waited >= floor {
            return Admission::Go;
        }
        Admission::Wait((floor - waited).min(SAMPLE))
    }

    fn pause(&self, class: Class, took: Duration) -> Duration {
        let mut state = self.state.lock();
        state.last_step = took;
        self.sample(&mut state);
        if class == Class::Urgent || state.pressure < START / 4.0 {
            return Duration::ZERO;
        }
        // Twice as much rest as work at the start of slowing down, four times as much where it stops: also on an idle
        // processor a step takes caches and memory from requests.
        let share = if state.pressure < START {
            2.0 * state.pressure / START
        } else {
            2.0 + 2.0 * (state.pressure - START) / (STOP - START)
        };
        took.mul_f64(share.clamp(0.0, 4.0)).min(Duration::from_secs(2))
    }
}

#[cfg(test)]
mod tests {
    use ochre_store::MemoryStore;

    use super::*;

    fn calm() -> Sample {
        Sample {
            processors: 2,
            elapsed: Duration::from_millis(250),
            busy: Duration::ZERO,
            in_flight: 0,
            finished: 10,
            p95: None,
            usual: None,
            others: 0.0,
            waited: Duration::ZERO,
            memory: 0.1,
        }
    }

    #[test]
    fn pressure_is_the_worst_of_its_causes() {
        assert_eq!(pressure_of(&calm()), 0.0);
        let busy = Sample { busy: Duration::from_millis(250), ..calm() };
        assert_eq!(pressure_of(&busy), 50.0);
        let long = Sample { in_flight: 2, finished: 0, ..calm() };
        assert_eq!(pressure_of(&long), 100.0);
        let millis = |millis| Some(Duration::from_millis(millis));
        let slow = Sample { p95: millis(30), usual: millis(10), ..calm() };
        assert!((pressure_of(&slow) - 80.0).abs() < 1.0);
        let crowded = Sample { others: 0.9, ..calm() };
        assert!(pressure_of(&crowded) > START / 2.0 && pressure_of(&crowded) < STOP);
        let waiting = Sample { waited: Duration::from_millis(100), ..calm() };
        assert_eq!(pressure_of(&waiting), 80.0);
        let full = Sample { memory: 1.0, ..calm() };
        assert!(pressure_of(&full) > 99.0);
    }

    #[test]
    fn under_pressure_steps_wait_but_never_for_ever() {
        let store = Arc::new(MemoryStore::default());
        let governor = AdmissionControl::new(Arc::new(LoadMonitor::default()), u64::MAX, store, None);
        {
            let mut state = governor.state.lock();
            (state.pressure, state.is_stopped, state.sampled) = (100.0, true, Instant::now() + Duration::from_secs(60));
            state.last_step = Duration::from_millis(20);
        }
        assert!(matches!(governor.admit(Class::Normal, Duration::ZERO), Admission::Wait(_)));
        assert_eq!(governor.admit(Class::Normal, Duration::from_millis(200)), Admission::Go);
        assert_eq!(governor.admit(Class::Urgent, Duration::from_millis(20)), Admission::Go);
        assert_eq!(governor.pause(Class::Normal, Duration::from_millis(10)), Duration::from_millis(40));
        assert_eq!(governor.pause(Class::Urgent, Duration::from_millis(10)), Duration::ZERO);
        {
            let mut state = governor.state.lock();
            (state.pressure, state.is_stopped, state.is_disk_short) = (0.0, false, true);
        }
        assert!(matches!(governor.admit(Class::Idle, Duration::ZERO), Admission::Wait(_)), "the disk is nearly full");
        assert_eq!(governor.admit(Class::Normal, Duration::ZERO), Admission::Go, "it may make room");
    }
}
