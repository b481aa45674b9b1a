//! What surrounds every handler: counts, request ids, no compression where it only costs, and bodies that nobody reads.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use uuid::Uuid;

use crate::app::App;

/// A body of up to this many bytes is read to its end even if its handler does not want it,
const UNREAD_BYTES_MAX: u64 = 64 << 10;
/// if it comes in this time.
const UNREAD_PATIENCE: Duration = Duration::from_secs(5);

/// Counts a request once it is answered.
pub(crate) async fn count(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    // Clients may invent any.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    app.requests().add((method, route, response.status().as_u16()), began.elapsed());
    response
}

/// Names the request in the answer: `x-request-id` always (the client's own if it sent a short one),
/// `chroma-trace-id` on errors, as Chroma does.
pub(crate) async fn request_id(request: Request, next: Next) -> Response {
    let given = request.headers().get("x-request-id").filter(|id| id.len() <= 128).cloned();
    let trace = Uuid::new_v4().simple().to_string();
    let mut response = next.run(request).await;
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    let headers = response.headers_mut();
    if let Ok(trace) = HeaderValue::from_str(&trace) {
        if is_error {
            headers.insert("chroma-trace-id", trace.clone());
        }
        headers.insert("x-request-id", given.unwrap_or(trace));
    }
    response
}

/// Between processes of one machine compressing costs more than it saves: pretend not to be asked.
pub(crate) async fn no_local_compression(mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    if peer.is_some_and(|peer| !peer.0.ip().is_loopback()) {
        return next.run(request).await;
    }
    request.headers_mut().remove(header::ACCEPT_ENCODING);
    let mut response = next.run(request).await;
    response.headers_mut().remove(header::VARY);
    response
}

/// Reads small bodies that a handler left unread, whether it has no use for one or refused the request: otherwise the
/// connection would be closed under a client that goes on using it.
pub(crate) async fn drain_body(request: Request, next: Next) -> Response {
    let is_small = request.body().size_hint().upper().is_some_and(|bytes| (1..=UNREAD_BYTES_MAX).contains(&bytes));
    next.run(if is_small { request.map(|body| Body::new(ReadOn(Some(body)))) } else { request }).await
}

/// A body that is read to its end in the background once it is dropped.
struct ReadOn(Option<Body>);

impl HttpBody for ReadOn {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>, context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for ReadOn {
    fn drop(&mut self) {
        if let Some(body) = self.0.take().filter(|body| !body.is_end_stream())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(UNREAD_PATIENCE, body.collect()));
        }
    }
}
