//! Answers on their way: a connection is busy until its client has read them, and one that reads nothing is closed.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use ochre_engine::model::budget::{self, Budget};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::connections::Busy;

/// A client that has read nothing of its answer for this long is given up.
const SEND_PATIENCE: Duration = Duration::from_secs(60);
/// Answers up to this many bytes fit what the kernel keeps for a connection.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// Bytes, and what is held until they were sent.
struct Holding<T> {
    bytes: Bytes,
    _held: T,
}

impl<T> AsRef<[u8]> for Holding<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of an answer that was made within the budget of this thread, which has the memory until it was sent.
pub(crate) fn charged(bytes: Vec<u8>) -> Body {
    match budget::current() {
        Some(budget) if bytes.len() as u64 > SMALL_BYTES_MAX => {
            Body::from(Bytes::from_owner(Holding::<Arc<Budget>> { bytes: bytes.into(), _held: budget }))
        }
        _ => Body::from(bytes),
    }
}

/// Keeps the connection busy until the answer was sent.
pub(crate) fn busy_until_sent(response: Response, busy: Busy) -> Response {
    if response.body().size_hint().upper().is_some_and(|bytes| bytes <= SMALL_BYTES_MAX) {
        return response;
    }
    response.map(|body| Body::new(Sending { body, busy: Arc::new(busy) }))
}

/// A body whose connection is busy.
struct Sending {
    body: Body,
    busy: Arc<Busy>,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>, context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let busy = Arc::clone(&self.busy);
        // The body is dropped before its last frame was sent.
        Pin::new(&mut self.body).poll_frame(context).map(|frame| {
            let holding = |bytes| Bytes::from_owner(Holding { bytes, _held: busy });
            frame.map(|frame| frame.map(|frame| frame.map_data(holding)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose writes fail once nothing could be written for some time.
pub(crate) struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Since when writing waits, plus patience; `None` while it does not.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, patience: SEND_PATIENCE, until: None }
    }

    fn within_patience<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.until = None;
            return done;
        }
        let patience = self.patience;
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        match until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads no answer"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within_patience(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.within_patience(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(context);
        self.within_patience(context, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within_patience(context, done)
    }
}

#[cfg(test)]
mod tests {
    use ochre_engine::model::budget::RequestMemory;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn writing_to_a_client_that_reads_nothing_fails() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut patient = Patient { stream: near, patience: Duration::from_millis(300), until: None };
        // One that reads slowly is waited for.
        let reading = tokio::spawn(async move {
            let mut buffer = [0; 16];
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                far.read_exact(&mut buffer).await.unwrap();
            }
            far
        });
        patient.write_all(&[7; 64]).await.unwrap();
        let _far = reading.await.unwrap();
        let failed = patient.write_all(&[7; 64]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_budget_of_an_answer_is_given_back_when_it_was_sent() {
        let memory = RequestMemory::new(1 << 20);
        let budget = Budget::new(1 << 20, Arc::clone(&memory), Duration::ZERO);
        let weak = Arc::downgrade(&budget);
        let body = {
            let _within = budget::enter(budget);
            charged(vec![1; 100_000])
        };
        assert!(weak.upgrade().is_some());
        drop(body);
        assert!(weak.upgrade().is_none());
    }
}
