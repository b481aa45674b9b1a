//! From errors to answers: the one table of statuses and Chroma error names.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ochre_engine::scheduler::Error as ScheduleError;
use ochre_engine::{Error, StoreError, Violations};
use ochre_wire::Refused;
use serde_json::{Map, Value as Json, json};

/// An answer that is an error: `{"error": name, "message": text}`.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    name: &'static str,
    message: String,
    retry_after: bool,
    /// Members of the body beside name and message.
    details: Option<Box<Map<String, Json>>>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self { status, name, message: message.into(), retry_after: false, details: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgumentError", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFoundError", message)
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "ChromaError", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { retry_after: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "ChromaError", message) }
    }

    pub(crate) fn bad_gateway(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "InternalError", message)
    }

    pub(crate) fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ChromaError", "the server is shutting down; nothing was changed")
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        let (status, name) = match &error {
            Error::Invalid(_) | Error::NotFilterable(_) | Error::Violations(_) | Error::InvalidSchema(_) => {
                (S::BAD_REQUEST, "InvalidArgumentError")
            }
            Error::Schedule(error) => match &**error {
                ScheduleError::Invalid { .. } | ScheduleError::UnknownKnob { .. } => {
                    (S::BAD_REQUEST, "InvalidArgumentError")
                }
                ScheduleError::UnknownJob { .. } => (S::NOT_FOUND, "NotFoundError"),
                ScheduleError::Duplicate(_) | ScheduleError::Off => (S::CONFLICT, "ChromaError"),
                ScheduleError::UnknownImplementation { .. } | ScheduleError::Store(_) => {
                    (S::INTERNAL_SERVER_ERROR, "InternalError")
                }
            },
            Error::NotFound(_) => (S::NOT_FOUND, "NotFoundError"),
            Error::Conflict(_) => (S::CONFLICT, "ChromaError"),
            Error::Damaged(_) | Error::Maintenance { .. } | Error::Backup(_) => {
                (S::INTERNAL_SERVER_ERROR, "InternalError")
            }
            Error::Busy { .. } | Error::MemoryFull { .. } | Error::Closed => (S::SERVICE_UNAVAILABLE, "ChromaError"),
            Error::Store(error) => match error {
                StoreError::NotFound { .. } => (S::NOT_FOUND, "NotFoundError"),
                StoreError::AlreadyExists { .. } => (S::CONFLICT, "ChromaError"),
                StoreError::Dimension { .. } | StoreError::Limit(_) | StoreError::Refused(_) => {
                    (S::BAD_REQUEST, "InvalidArgumentError")
                }
                StoreError::IdempotencyConflict { .. } => (S::UNPROCESSABLE_ENTITY, "ChromaError"),
                StoreError::Full { .. } => (S::INSUFFICIENT_STORAGE, "ChromaError"),
                StoreError::WritesStopped { .. } | StoreError::Stale { .. } => (S::SERVICE_UNAVAILABLE, "ChromaError"),
                StoreError::Extension { .. }
                | StoreError::OutcomeUnknown { .. }
                | StoreError::Corrupt { .. }
                | StoreError::Io { .. }
                | StoreError::Locked { .. }
                | StoreError::TooNew { .. } => (S::INTERNAL_SERVER_ERROR, "InternalError"),
            },
        };
        let retry_after = status == S::SERVICE_UNAVAILABLE;
        if status.is_server_error() {
            tracing::error!(%status, error = %message, "request failed");
        }
        let details = match &error {
            Error::Violations(violations) => Some(Box::new(violation_members(violations))),
            Error::InvalidSchema(error) => {
                Some(Box::new(Map::from_iter([("pointer".into(), error.pointer.clone().into())])))
            }
            _ => None,
        };
        Self { status, name, message, retry_after, details }
    }
}

/// The violations of a batch as members of a body: the first of them, and how many there are of each kind.
pub(crate) fn violation_members(violations: &Violations) -> Map<String, Json> {
    let counts = violations.counts.iter().map(|((key, rule), count)| json!({"key": key, "rule": rule, "count": count}));
    Map::from_iter([
        ("violations".into(), serde_json::to_value(&violations.listed).unwrap_or_default()),
        ("counts".into(), counts.collect()),
    ])
}

impl From<ScheduleError> for ApiError {
    fn from(error: ScheduleError) -> Self {
        Error::from(error).into()
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid(text) => Self::invalid(text),
            Refused::Unimplemented(text) => Self::unimplemented(text),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({"error": self.name, "message": self.message});
        if let Some(body) = body.as_object_mut() {
            body.extend(self.details.map(|details| *details).unwrap_or_default());
        }
        let mut response = (self.status, axum::Json(body)).into_response();
        if self.retry_after {
            response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("1"));
        }
        response
    }
}
