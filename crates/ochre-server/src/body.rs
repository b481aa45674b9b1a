//! Request bodies and query strings, refused in Chroma's words.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use ochre_engine::Idempotency;
use ochre_extension::{parse_json, parse_object, parse_query};
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::auth::Caller;
use crate::body_budget::{Lost, Room};
use crate::error::ApiError;

/// The header that makes repeating a write harmless.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// An idempotency key is at most this long, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Routes whose refusal of a large body has no JSON in Chroma.
const PLAIN_REFUSALS: [&str; 5] = ["/add", "/update", "/upsert", "/query", "/search"];

/// Requests with bodies up to this size are answered soon, in bytes.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// A whole JSON body, not parsed yet: that is done where the engine is called.
pub(crate) struct JsonBytes {
    bytes: Bytes,
    path: String,
    key: Option<String>,
    /// Given back when the body is dropped.
    _room: Room,
}

impl JsonBytes {
    /// Whether the body is so small that reading it takes no time: patterns, which have to be compiled, can take some
    /// however short they are.
    pub(crate) fn is_small(&self) -> bool {
        let holds = |text: &[u8]| memchr::memmem::find(&self.bytes, text).is_some();
        self.bytes.len() <= SMALL_BYTES_MAX && !holds(b"regex") && !holds(b"\\u")
    }

    /// Parses the body, which is an object.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        Ok(parse_object(&self.bytes)?)
    }

    /// The body of one of Ochre's own interfaces: a member that nobody reads is refused with the nearest that there is.
    pub(crate) fn parse_own<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        // An array would be taken for the members in order.
        if self.bytes.trim_ascii_start().starts_with(b"[") { self.parse() } else { Ok(parse_json(&self.bytes)?) }
    }

    /// The body as it came.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The idempotency key the client sent, with a hash of the request it belongs to.
    pub(crate) fn idempotency(&self) -> Option<Idempotency> {
        let key = self.key.clone()?;
        Some(Idempotency { key, request: fnv1a(&[self.path.as_bytes(), &[0], &self.bytes]) })
    }
}

impl FromRequest<App> for JsonBytes {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        if !is_json(request.headers()) {
            let text = "Expected request with `Content-Type: application/json`";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "ChromaError", text).into_response());
        }
        let key = idempotency_key(request.headers()).map_err(IntoResponse::into_response)?;
        let (parts, bytes, room) = arrived(app, request).await?;
        Ok(Self { bytes, path: parts.uri.path().to_owned(), key, _room: room })
    }
}

/// A request whose whole body has arrived, within the limits of size and time, and the memory it holds.
pub(crate) async fn arrived(app: &App, request: Request) -> Result<(Parts, Bytes, Room), Response> {
    let path = request.uri().path().to_owned();
    let server = &app.config().server;
    let max = server.max_payload_size_bytes;
    let declared: Option<u64> =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let caller = caller_of(&request);
    if declared.is_some_and(|declared| declared > max as u64) {
        // Refused before it arrives; a client that sends it all the same reads the answer only then.
        let is_bearable = declared.is_some_and(|declared| declared <= 8 * max as u64);
        if is_bearable {
            let _ = tokio::time::timeout(DISCARD_PATIENCE, discard(request.into_body())).await;
        }
        return Err(too_large(&path));
    }
    let patience = Duration::from_millis(server.request_timeout_ms);
    let late = |text: String| ApiError::new(StatusCode::REQUEST_TIMEOUT, "ChromaError", text).into_response();
    let (parts, mut body) = request.into_parts();
    let read = app.arriving().read(&mut body, max, caller);
    let (bytes, room) = match tokio::time::timeout(patience, read).await {
        Ok(Ok(arrived)) => arrived,
        Ok(Err(Lost::TooLarge)) => {
            let _ = tokio::time::timeout(DISCARD_PATIENCE, discard(body)).await;
            return Err(too_large(&path));
        }
        Ok(Err(Lost::GivenUp)) => {
            let _ = tokio::time::timeout(DISCARD_PATIENCE, discard(body)).await;
            let text = "more request bodies are arriving than there is memory for, and this one came slowest: send it again, smaller";
            return Err(ApiError::unavailable(text).into_response());
        }
        Ok(Err(Lost::TooSlow)) => return Err(late("the request body came too slowly: nothing was changed".into())),
        Ok(Err(Lost::Stopping)) => {
            return Err(ApiError::shutting_down().into_response());
        }
        Ok(Err(Lost::Broken(error))) => {
            let text = format!("Failed to buffer the request body: {error}");
            return Err(ApiError::invalid(text).into_response());
        }
        Err(_) => {
            return Err(late(format!("the request body did not arrive within {} ms", server.request_timeout_ms)));
        }
    };
    Ok((parts, bytes, room))
}

/// How long a body that was refused is read on, so that its client gets to read why.
const DISCARD_PATIENCE: Duration = Duration::from_secs(5);

/// Reads a body and keeps nothing of it.
async fn discard(mut body: axum::body::Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// A number for who sends a request: the address, and the name if it was authenticated. What a header claims does not
/// count.
fn caller_of(request: &Request) -> u64 {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip()).hash(&mut hasher);
    request.extensions().get::<Caller>().map(|caller| &caller.principal().name).hash(&mut hasher);
    hasher.finish()
}

fn too_large(path: &str) -> Response {
    if PLAIN_REFUSALS.iter().any(|route| path.ends_with(route)) {
        return (StatusCode::PAYLOAD_TOO_LARGE, axum::body::Body::from("Payload too large")).into_response();
    }
    let text = "Failed to buffer the request body: length limit exceeded";
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "ChromaError", text).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    let text = format!("the header Idempotency-Key takes 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
    key.map(|key| Some(key.to_owned())).ok_or_else(|| ApiError::invalid(text))
}

/// FNV-1a, 128 bits: the same on every version and machine, and only meant to notice mistakes.
fn fnv1a(parts: &[&[u8]]) -> u128 {
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    for byte in parts.iter().copied().flatten() {
        hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    hash
}

/// A query string.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(parse_query(parts.uri.query().unwrap_or_default())?))
    }
}

/// `?limit&offset`
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
pub(crate) struct PageQuery {
    pub(crate) limit: Option<u32>,
    #[serde(default)]
    pub(crate) offset: u32,
}

impl From<PageQuery> for ochre_engine::Page {
    fn from(query: PageQuery) -> Self {
        Self { limit: query.limit, offset: query.offset }
    }
}
