//! What surrounds every handler: request ids, and no compression where it only costs.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

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
