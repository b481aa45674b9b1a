//! How often credentials may be wrong, and how much a key may ask for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::NewKey;

/// Addresses that are remembered; past it those whose minute is over are forgotten, then all.
const ADDRESSES_MAX: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Failed attempts by address.
pub(super) struct Failures {
    most: u32,
    seen: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Failures {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { most: per_minute, seen: Mutex::default() }
    }

    /// How long an address has to wait, if it failed too often.
    pub(super) fn is_blocked(&self, address: IpAddr) -> Option<Duration> {
        let seen = self.seen.lock();
        let (since, count) = seen.get(&network(address))?;
        let left = MINUTE.checked_sub(since.elapsed())?;
        (self.most > 0 && *count >= self.most).then_some(left)
    }

    /// Takes one failure back: it was none.
    pub(super) fn forgive(&self, address: IpAddr) {
        if let Some((_, count)) = self.seen.lock().get_mut(&network(address)) {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn note(&self, address: IpAddr) {
        let address = network(address);
        let mut seen = self.seen.lock();
        if seen.len() >= ADDRESSES_MAX {
            seen.retain(|_, (since, _)| since.elapsed() < MINUTE);
            if seen.len() >= ADDRESSES_MAX {
                seen.clear();
            }
        }
        let entry = seen.entry(address).or_insert_with(|| (Instant::now(), 0));
        if entry.0.elapsed() >= MINUTE {
            *entry = (Instant::now(), 0);
        }
        entry.1 += 1;
    }
}

/// Whoever has an address of version 6 has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::from(std::net::Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// What keys are using now, by the names of their principals.
#[derive(Default)]
pub(crate) struct Usage(Mutex<HashMap<String, Use>>);

struct Use {
    at_once: Arc<AtomicU32>,
    /// Requests that may be made at this moment, and when that was counted.
    tokens: f64,
    counted: Instant,
}

tokio::task_local! {
    /// What the request of this task takes of what its key may do at once. Work that goes on after its client left
    /// holds it on.
    pub(crate) static ROOM: Option<Arc<Room>>;
}

/// What this request takes of what its key may do at once, for work that may outlast the request.
pub(crate) fn current_room() -> Option<Arc<Room>> {
    ROOM.try_with(Clone::clone).ok().flatten()
}

/// Given back when the request is answered and its work has ended.
pub(crate) struct Room(Arc<AtomicU32>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Usage {
    /// Counts a request of a key; or why it has to wait, and how long.
    pub(crate) fn enter(&self, limits: &NewKey, name: &str) -> Result<Room, (&'static str, Duration)> {
        let mut all = self.0.lock();
        let now = Instant::now();
        let rate = f64::from(limits.requests_per_second.unwrap_or(0));
        let used =
            all.entry(name.to_owned()).or_insert_with(|| Use { at_once: Arc::default(), tokens: rate, counted: now });
        if limits.concurrent_requests.is_some_and(|most| used.at_once.load(Ordering::Relaxed) >= most) {
            return Err(("this key has as many requests under way as it may have", Duration::ZERO));
        }
        if rate > 0.0 {
            used.tokens = (used.tokens + used.counted.elapsed().as_secs_f64() * rate).min(rate);
            used.counted = now;
            if used.tokens < 1.0 {
                let wait = Duration::from_secs_f64((1.0 - used.tokens) / rate);
                return Err(("this key made as many requests in a second as it may make", wait));
            }
            used.tokens -= 1.0;
        }
        used.at_once.fetch_add(1, Ordering::Relaxed);
        Ok(Room(Arc::clone(&used.at_once)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_held_to_their_limits_and_let_go() {
        let usage = Usage::default();
        let limits = NewKey { requests_per_second: Some(3), concurrent_requests: Some(2), ..NewKey::default() };
        let (first, second) = (usage.enter(&limits, "a").unwrap(), usage.enter(&limits, "a").unwrap());
        assert!(usage.enter(&limits, "a").is_err_and(|(why, _)| why.contains("under way")));
        drop((first, second));
        assert!(usage.enter(&limits, "a").is_ok());
        assert!(usage.enter(&limits, "a").is_err_and(|(why, wait)| why.contains("second") && wait < MINUTE));
        assert!(usage.enter(&limits, "b").is_ok());
    }

    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let (failures, bad) = (Failures::new(3), IpAddr::from([10, 0, 0, 1]));
        for _ in 0..3 {
            assert!(failures.is_blocked(bad).is_none());
            failures.note(bad);
        }
        assert!(failures.is_blocked(bad).is_some());
        failures.forgive(bad);
        assert!(failures.is_blocked(bad).is_none());
        let [one, same, other] =
            ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        (0..3).for_each(|_| failures.note(one));
        assert!(failures.is_blocked(same).is_some() && failures.is_blocked(other).is_none());
        assert!(failures.is_blocked(IpAddr::from([10, 0, 0, 2])).is_none());
    }
}
