//! Request bodies and query strings, refused in Chroma's words.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ochre_engine::Idempotency;
use ochre_extension::{parse_object, parse_query};
use serde::de::DeserializeOwned;

use crate::app::App;
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
    _room: tokio::sync::OwnedSemaphorePermit,
}

impl JsonBytes {
    /// Whether the body is so small that the request is answered soon.
    pub(crate) fn is_small(&self) -> bool {
        self.bytes.len() <= SMALL_BYTES_MAX
    }

    /// Parses the body, which is an object.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        Ok(parse_object(&self.bytes)?)
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
        let path = request.uri().path().to_owned();
        let key = idempotency_key(request.headers()).map_err(IntoResponse::into_response)?;
        let server = &app.config().server;
        let declared =
            request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let expected: usize = declared.unwrap_or(server.max_payload_size_bytes).min(server.max_payload_size_bytes);
        let room = app.room_for(expected).await.map_err(IntoResponse::into_response)?;
        let body = Limited::new(request.into_body(), server.max_payload_size_bytes);
        let patience = Duration::from_millis(server.request_timeout_ms);
        let bytes = match tokio::time::timeout(patience, body.collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
                return Err(too_large(&path));
            }
            Ok(Err(error)) => {
                let text = format!("Failed to buffer the request body: {error}");
                return Err(ApiError::invalid(text).into_response());
            }
            Err(_) => {
                let text = format!("the request body did not arrive within {} ms", server.request_timeout_ms);
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "ChromaError", text).into_response());
            }
        };
        Ok(Self { bytes, path, key, _room: room })
    }
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
