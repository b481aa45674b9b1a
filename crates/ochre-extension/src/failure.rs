//! Why a request cannot be answered: the one table of statuses and Chroma's names of errors.

use http::StatusCode;
use ochre_engine::model::budget::Exceeded;
use ochre_engine::scheduler::Error as ScheduleError;
use ochre_engine::{Error, IndexDefinition, Invalid, StoreError, UnindexedFilter, UnindexedRemedy, Violations};
use serde_json::{Map, Value, json};

/// An answer that is an error: `{"error": name, "message": text}`.
#[derive(Clone, Debug)]
pub struct Failure {
    status: StatusCode,
    name: &'static str,
    message: String,
    /// Members of the body beside name and message.
    details: Option<Box<Map<String, Value>>>,
}

impl Failure {
    /// An error by its status, with Chroma's name for it.
    pub fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self { status, name, message: message.into(), details: None }
    }

    /// 400: something in the request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgumentError", message)
    }

    /// 403: whoever asks may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AuthorizationError", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFoundError", message)
    }

    /// 409: it does not go together with what there is.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "ChromaError", message)
    }

    /// 500: the server is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// What it says.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the same request may work soon.
    pub fn is_transient(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// The body of the answer.
    pub fn body(&self) -> Value {
        let mut body = json!({"error": self.name, "message": self.message});
        if let (Some(body), Some(details)) = (body.as_object_mut(), &self.details) {
            body.extend(details.as_ref().clone());
        }
        body
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        use StatusCode as S;
        let message = message(&error);
        let (status, name) = match &error {
            Error::Invalid(_)
            | Error::InvalidIndex(_)
            | Error::NotFilterable(_)
            | Error::Unindexed(_)
            | Error::Violations(_)
            | Error::InvalidSchema(_) => (S::BAD_REQUEST, "InvalidArgumentError"),
            Error::Schedule(error) => match &**error {
                ScheduleError::Invalid { .. } | ScheduleError::UnknownSetting { .. } => {
                    (S::BAD_REQUEST, "InvalidArgumentError")
                }
                ScheduleError::UnknownJob { .. } => (S::NOT_FOUND, "NotFoundError"),
                ScheduleError::Duplicate(_) | ScheduleError::Off => (S::CONFLICT, "ChromaError"),
                // The disk is full, or fails: what was asked for did not happen, and can be asked for again.
                ScheduleError::Store(_) => (S::SERVICE_UNAVAILABLE, "ChromaError"),
                ScheduleError::UnknownImplementation { .. } => (S::INTERNAL_SERVER_ERROR, "InternalError"),
            },
            Error::Exceeded(exceeded) => exceeded_status(exceeded),
            Error::NotFound(_) => (S::NOT_FOUND, "NotFoundError"),
            Error::Conflict(_) => (S::CONFLICT, "ChromaError"),
            Error::Damaged(_)
            | Error::Maintenance { .. }
            | Error::Backup(_)
            | Error::DamagedBackup(_)
            | Error::Options(_) => (S::INTERNAL_SERVER_ERROR, "InternalError"),
            Error::Busy { .. } | Error::MemoryFull { .. } | Error::Closed => (S::SERVICE_UNAVAILABLE, "ChromaError"),
            Error::Store(error) => match error {
                StoreError::NotFound { .. } => (S::NOT_FOUND, "NotFoundError"),
                StoreError::AlreadyExists { .. } | StoreError::WriteConflict => (S::CONFLICT, "ChromaError"),
                StoreError::StaleRead(_) => (S::PRECONDITION_FAILED, "StaleReadError"),
                StoreError::Dimension { .. } | StoreError::Limit(_) | StoreError::Refused(_) => {
                    (S::BAD_REQUEST, "InvalidArgumentError")
                }
                StoreError::IdempotencyConflict { .. } => (S::UNPROCESSABLE_ENTITY, "ChromaError"),
                StoreError::Full { .. } => (S::INSUFFICIENT_STORAGE, "ChromaError"),
                // Damage has a name and a remedy in its text: it is the operator's to mend, and no fault of the
                // request.
                StoreError::WritesStopped { .. }
                | StoreError::Stale { .. }
                | StoreError::Corrupt { .. }
                | StoreError::Lost { .. }
                | StoreError::Io { .. } => (S::SERVICE_UNAVAILABLE, "ChromaError"),
                StoreError::Extension { .. }
                | StoreError::OutcomeUnknown { .. }
                | StoreError::Locked { .. }
                | StoreError::TooNew { .. } => (S::INTERNAL_SERVER_ERROR, "InternalError"),
            },
        };
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
        Self { status, name, message, details }
    }
}

/// In Chroma's words: what is wrong with a member of a request, or with records, is a "Validation error".
fn message(error: &Error) -> String {
    match error {
        Error::Invalid(Invalid { field: Some(_), .. }) | Error::Violations(_) => format!("Validation error: {error}"),
        Error::Unindexed(found) => unindexed_text(found),
        _ => error.to_string(),
    }
}

/// The body of the request that declares an index: `POST /_admin/metadata_indexes`.
pub fn declaring(definition: &IndexDefinition) -> Value {
    json!({
        "index_name": definition.index_name, "tenant": definition.tenant, "database": definition.database,
        "collection": definition.collection, "columns": definition.columns,
    })
}

/// That no index answers a filter, with the request that helps.
pub fn unindexed_text(found: &UnindexedFilter) -> String {
    let UnindexedRemedy::Declare(definition) = &found.remedy else { return found.to_string() };
    format!(
        "where: no metadata index answers this filter, and the collection has {} records; declare one: POST /_admin/metadata_indexes {}",
        found.records,
        declaring(definition)
    )
}

fn exceeded_status(exceeded: &Exceeded) -> (StatusCode, &'static str) {
    match exceeded {
        Exceeded::Memory { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "ChromaError"),
        Exceeded::AllMemory { .. } | Exceeded::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "ChromaError"),
        Exceeded::Patterns { .. } => (StatusCode::BAD_REQUEST, "InvalidArgumentError"),
        Exceeded::Time { .. } => (StatusCode::GATEWAY_TIMEOUT, "ChromaError"),
    }
}

impl From<Exceeded> for Failure {
    fn from(exceeded: Exceeded) -> Self {
        Error::Exceeded(exceeded).into()
    }
}

impl From<ScheduleError> for Failure {
    fn from(error: ScheduleError) -> Self {
        Error::from(error).into()
    }
}

/// The violations of a batch as members of a body: the first of them, and how many there are of each kind.
pub fn violation_members(violations: &Violations) -> Map<String, Value> {
    let counts = violations.counts.iter().map(|((key, rule), count)| json!({"key": key, "rule": rule, "count": count}));
    Map::from_iter([
        ("violations".into(), serde_json::to_value(&violations.listed).unwrap_or_default()),
        ("counts".into(), counts.collect()),
    ])
}
