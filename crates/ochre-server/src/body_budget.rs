//! Request bodies that are arriving: memory is taken as their bytes come, never for what was only announced.
//!
//! At the limit nobody waits for somebody who may never send the rest: of the caller that holds the most, if others
//! wait, and else of all, the body that comes slowest is given up, and answered 503.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// A body that is slower than this, in bytes a second, once it had [`PATIENCE`], is given up.
const RATE_MIN: f64 = 256.0;
const PATIENCE: Duration = Duration::from_secs(20);
/// One that is slower than this, in bytes a second, is given up for others at once.
const RATE_CRAWLING: f64 = 16_384.0;
/// Once the server stops, a body of which nothing comes for this long is given up.
const PATIENCE_STOPPING: Duration = Duration::from_secs(1);
/// Whoever waits for memory asks again after this time at the latest.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Memory for arriving bodies.
pub(crate) struct BodyBudget {
    limit: usize,
    state: Mutex<State>,
    freed: Notify,
    stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    used: usize,
    next: u64,
    bodies: HashMap<u64, Part>,
}

/// What has arrived of one body.
struct Part {
    bytes: usize,
    began: Instant,
    caller: u64,
    given_up: Arc<Notify>,
    is_given_up: bool,
    /// All of it is there: it is being worked on.
    is_whole: bool,
}

/// Why a body did not arrive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// More bytes came than a body may have.
    TooLarge,
    /// It was given up for others.
    GivenUp,
    /// It came too slowly.
    TooSlow,
    /// Nothing of it came any more while the server stops.
    Stopping,
    /// The connection failed.
    Broken(String),
}

/// Memory that a body has; given back when dropped.
pub(crate) struct Room {
    arriving: Arc<BodyBudget>,
    number: u64,
}

impl BodyBudget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default(), freed: Notify::new(), stopping: watch::Sender::new(false) })
    }

    /// Gives up bodies of which nothing comes any more, from now on sooner.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    fn begin(self: &Arc<Self>, caller: u64) -> (Room, Arc<Notify>) {
        let mut state = self.state.lock();
        let (number, given_up) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        let part = Part {
            bytes: 0,
            began: Instant::now(),
            caller,
            given_up: Arc::clone(&given_up),
            is_given_up: false,
            is_whole: false,
        };
        state.bodies.insert(number, part);
        (Room { arriving: Arc::clone(self), number }, given_up)
    }

    /// Reads a body of at most `max` bytes from a caller, who is some number.
    pub(crate) async fn read(
        self: &Arc<Self>, body: &mut Body, max: usize, caller: u64,
    ) -> Result<(Bytes, Room), Lost> {
        let (room, given_up) = self.begin(caller);
        // Most bodies come in one piece, which is not copied.
        let (mut began, mut first, mut all) = (Instant::now(), Bytes::new(), BytesMut::new());
        let mut stopping = self.stopping.subscribe();
        loop {
            let stops = *stopping.borrow();
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = given_up.notified() => return Err(Lost::GivenUp),
                _ = stopping.wait_for(|stops| *stops), if !stops => continue,
                () = tokio::time::sleep(PATIENCE_STOPPING), if stops => return Err(Lost::Stopping),
                () = tokio::time::sleep(PATIENCE) => return Err(Lost::TooSlow),
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| Lost::Broken(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + all.len() + data.len() > max {
                return Err(Lost::TooLarge);
            }
            let waiting = Instant::now();
            room.take(data.len()).await?;
            // Waiting for memory makes nobody slow.
            began += waiting.elapsed();
            if first.is_empty() && all.is_empty() {
                first = data;
                continue;
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
            let seconds = began.elapsed().as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
            if seconds > PATIENCE.as_secs_f64() && (all.len() as f64) < RATE_MIN * seconds {
                return Err(Lost::TooSlow);
            }
        }
        if let Some(part) = self.state.lock().bodies.get_mut(&room.number) {
            part.is_whole = true;
        }
        Ok((if all.is_empty() { first } else { all.freeze() }, room))
    }
}

impl Part {
    /// How fast it has come, in bytes a second.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
    fn rate(&self) -> f64 {
        self.bytes as f64 / self.began.elapsed().as_secs_f64().max(1e-3)
    }
}

impl State {
    /// Memory that comes back whatever clients do.
    fn returning(&self) -> usize {
        self.bodies.values().filter(|part| part.is_whole || part.is_given_up).map(|part| part.bytes).sum()
    }

    /// The body to give up so that others can arrive.
    fn slowest(&self) -> Option<u64> {
        let arriving = || self.bodies.iter().filter(|(_, part)| !part.is_given_up && !part.is_whole);
        let mut held: HashMap<u64, usize> = HashMap::new();
        for (_, part) in arriving() {
            *held.entry(part.caller).or_default() += part.bytes;
        }
        let most = held.iter().max_by_key(|(_, bytes)| **bytes).map(|(caller, _)| *caller);
        // A share binds only while others wait.
        let is_candidate = |part: &Part| held.len() < 2 || Some(part.caller) == most;
        let candidates = arriving().filter(|(_, part)| part.bytes > 0 && is_candidate(part));
        candidates.min_by(|(_, a), (_, b)| a.rate().total_cmp(&b.rate())).map(|(number, _)| *number)
    }
}

impl Room {
    /// Takes more memory, once there is some.
    async fn take(&self, bytes: usize) -> Result<(), Lost> {
        loop {
            let freed = self.arriving.freed.notified();
            {
                let mut state = self.arriving.state.lock();
                if state.bodies.get(&self.number).is_none_or(|part| part.is_given_up) {
                    return Err(Lost::GivenUp);
                }
                if state.used + bytes <= self.arriving.limit {
                    state.used += bytes;
                    if let Some(part) = state.bodies.get_mut(&self.number) {
                        part.bytes += bytes;
                    }
                    return Ok(());
                }
                let slowest = state.slowest();
                let is_crawling = slowest
                    .and_then(|slowest| state.bodies.get(&slowest))
                    .is_some_and(|part| part.rate() < RATE_CRAWLING);
                // What is worked on, or was given up just now, gives its memory back without that.
                let is_needed = is_crawling || state.returning() < bytes;
                if is_needed && slowest == Some(self.number) {
                    return Err(Lost::GivenUp);
                }
                if is_needed && let Some(part) = slowest.and_then(|slowest| state.bodies.get_mut(&slowest)) {
                    part.is_given_up = true;
                    part.given_up.notify_one();
                }
            }
            let _ = tokio::time::timeout(ASK_AGAIN, freed).await;
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.arriving.state.lock();
        if let Some(part) = state.bodies.remove(&self.number) {
            state.used -= part.bytes;
        }
        drop(state);
        self.arriving.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tokio::sync::mpsc;

    use super::*;

    /// A body whose frames come when they are sent.
    fn body() -> (mpsc::UnboundedSender<Bytes>, Body) {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Bytes>();
        let stream = futures_util::stream::poll_fn(move |context| {
            receiver.poll_recv(context).map(|frame| frame.map(Ok::<_, std::io::Error>))
        });
        (sender, Body::from_stream(stream))
    }

    #[tokio::test]
    async fn bodies_that_send_nothing_take_nothing_and_stop_nobody() {
        let arriving = BodyBudget::new(1000);
        let silent: Vec<_> = (0..100)
            .map(|caller| {
                let ((sender, body), arriving) = (body(), Arc::clone(&arriving));
                (sender, tokio::spawn(async move { arriving.read(&mut { body }, 1000, caller).await.map(drop) }))
            })
            .collect();
        let (bytes, room) = arriving.read(&mut Body::from(vec![1; 1000]), 1000, 7).await.unwrap();
        assert_eq!(bytes.len(), 1000);
        drop(room);
        assert_eq!(arriving.state.lock().used, 0);
        drop(silent);
    }

    #[tokio::test]
    async fn at_the_limit_the_slowest_is_given_up() {
        let arriving = BodyBudget::new(1000);
        let (slow, body) = body();
        let reading = tokio::spawn({
            let arriving = Arc::clone(&arriving);
            async move { arriving.read(&mut { body }, 1000, 1).await.map(drop) }
        });
        slow.send(vec![0; 600].into()).unwrap();
        while arriving.state.lock().used < 600 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (bytes, _room) = arriving.read(&mut Body::from(vec![1; 900]), 1000, 2).await.unwrap();
        assert_eq!(bytes.len(), 900);
        assert_eq!(reading.await.unwrap(), Err(Lost::GivenUp));
    }

    #[tokio::test]
    async fn what_is_worked_on_is_not_given_up_and_more_than_may_be_is_refused() {
        let arriving = BodyBudget::new(1000);
        let (_, room) = arriving.read(&mut Body::from(vec![1; 800]), 1000, 1).await.unwrap();
        assert_eq!(arriving.read(&mut Body::from(vec![1; 2000]), 1000, 1).await.map(drop), Err(Lost::TooLarge));
        let next = tokio::spawn({
            let arriving = Arc::clone(&arriving);
            async move { arriving.read(&mut Body::from(vec![1; 300]), 1000, 1).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!next.is_finished(), "it waits");
        drop(room);
        assert_eq!(next.await.unwrap(), Ok(()));
    }
}
