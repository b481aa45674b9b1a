//! Errors as this server answers them.

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use ochre_engine::Error;
use ochre_engine::scheduler::Error as ScheduleError;
use ochre_extension::Failure;
use ochre_wire::Refused;

/// An answer that is an error: `{"error": name, "message": text}`.
#[derive(Clone, Debug)]
pub(crate) struct ApiError(Failure);

impl ApiError {
    pub(crate) fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self(Failure::new(status, name, message))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self(Failure::invalid(message))
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self(Failure::not_found(message))
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self(Failure::internal(message))
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ChromaError", message)
    }

    pub(crate) fn bad_gateway(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "InternalError", message)
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.0.status()
    }

    pub(crate) fn shutting_down() -> Self {
        Self::unavailable("the server is shutting down; nothing was changed")
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error.into())
    }
}

impl From<ScheduleError> for ApiError {
    fn from(error: ScheduleError) -> Self {
        Self(error.into())
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self(failure(refused))
    }
}

/// What a request is told that the wire format refuses.
pub(crate) fn failure(refused: Refused) -> Failure {
    match refused {
        Refused::Invalid(text) => Failure::invalid(text),
        Refused::Unimplemented(text) => Failure::new(StatusCode::NOT_IMPLEMENTED, "ChromaError", text),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        tracing::debug!(status = self.0.status().as_u16(), reason = %self, "refused a request");
        let mut response = (self.0.status(), axum::Json(self.0.body())).into_response();
        if self.0.is_transient() {
            response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
        }
        response
    }
}

/// The schema of every answer that is an error.
pub(crate) fn error_schema() -> serde_json::Value {
    serde_json::json!({
        "type": "object",
        "required": ["error", "message"],
        "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
    })
}
