//! Connections that are open: no more than file handles allow, and idle ones give way to new ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A connection gives way once it has been idle for this long.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// Whoever waits for room asks again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Open connections.
pub(crate) struct Connections {
    most: usize,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Open>>>,
}

/// One of them.
pub(crate) struct Open {
    /// Requests under way, and since when there are none.
    state: Mutex<(usize, Instant)>,
    give_way: Notify,
}

/// An open connection, until it is dropped.
pub(crate) struct Guard {
    connections: Arc<Connections>,
    number: u64,
    open: Arc<Open>,
}

/// A request under way, until it is dropped.
pub(crate) struct Busy(Arc<Open>);

impl Connections {
    /// As many as the process has file handles for, beside those of the database.
    pub(crate) fn new() -> Arc<Self> {
        let handles = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        Self::of_handles(handles)
    }

    fn of_handles(handles: u64) -> Arc<Self> {
        let most = if handles < 1024 { handles / 4 } else { handles - 512 };
        let most = usize::try_from(most).unwrap_or(usize::MAX).max(4);
        Arc::new(Self { most, next: AtomicU64::new(0), open: Mutex::default() })
    }

    /// Room for a new connection. If there are as many as may be, the one that has been idle for longest is asked to
    /// end; if none has been for a while, the new one waits.
    pub(crate) async fn enter(self: &Arc<Self>) -> Guard {
        loop {
            if let Some(guard) = self.try_enter() {
                return guard;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Requests under way.
    pub(crate) fn busy(&self) -> usize {
        self.open.lock().values().map(|open| open.state.lock().0).sum()
    }

    fn try_enter(self: &Arc<Self>) -> Option<Guard> {
        let mut all = self.open.lock();
        if all.len() >= self.most {
            let idle = all.iter().filter_map(|(number, open)| {
                let (busy, since) = *open.state.lock();
                // A request may be on its way to one that was used, or opened, just now.
                (busy == 0 && since.elapsed() >= IDLE_MIN).then_some((since, *number))
            });
            let (_, longest) = idle.min()?;
            all.remove(&longest)?.give_way.notify_one();
        }
        let open = Arc::new(Open { state: Mutex::new((0, Instant::now())), give_way: Notify::new() });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        all.insert(number, Arc::clone(&open));
        Some(Guard { connections: Arc::clone(self), number, open })
    }
}

impl Guard {
    /// For the requests of this connection.
    pub(crate) fn open(&self) -> Arc<Open> {
        Arc::clone(&self.open)
    }

    /// Ends when the connection is asked to give way.
    pub(crate) async fn asked_to_end(&self) {
        self.open.give_way.notified().await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.number);
    }
}

impl Open {
    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.state.lock().0 += 1;
        Busy(Arc::clone(self))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        *state = (state.0 - 1, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_connection_that_was_idle_for_longest_gives_way() {
        let connections = Connections::of_handles(16);
        let guards: Vec<Guard> = (0..4).map(|_| connections.try_enter().unwrap()).collect();
        let busy = guards[0].open().begin();
        tokio::time::sleep(IDLE_MIN).await;
        drop(guards[1].open().begin());
        guards[3].open.state.lock().1 = Instant::now();
        let fifth = connections.enter().await;
        assert!(connections.try_enter().is_none(), "the others were used just now, or are busy");
        let asked = async |guard: &Guard| {
            tokio::time::timeout(std::time::Duration::from_millis(20), guard.asked_to_end()).await.is_ok()
        };
        assert!(asked(&guards[2]).await, "idle since it came");
        assert!(!asked(&guards[0]).await && !asked(&guards[1]).await && !asked(&fifth).await);
        drop(busy);
        drop(guards);
        assert_eq!(connections.open.lock().len(), 1);
    }
}
