//! Everything that can go wrong, and the answer that a client gets for it: always JSON, never the database's own words.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use diesel_session::{Error, ErrorClass};
use serde::Serialize;

pub(crate) type Result<T, E = ServiceError> = std::result::Result<T, E>;

/// How soon a client may try again after a 503, in seconds.
const RETRY_AFTER: &str = "1";

/// What is wrong with one field of a body.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Problem {
    pub(crate) field: &'static str,
    pub(crate) problem: &'static str,
}

/// An error as the service sees it. Handlers use `?` on the session's errors; `From` makes them this.
#[derive(Debug)]
pub(crate) enum ServiceError {
    /// The body is well formed, but no valid user or post.
    Invalid {
        what: &'static str,
        problems: Vec<Problem>,
    },
    NoSuchUser(String),
    NoSuchPost(i32),
    NicknameTaken(String),
    /// Somebody else was faster: the stored version is not the one that the client read. `None`: it was stored while this
    /// request was at work, and is not known here.
    Outdated {
        nickname: String,
        sent: i32,
        stored: Option<i32>,
    },
    /// What HTTP itself has a status for: a malformed body, an unknown route, a wrong method.
    Refused(StatusCode, String),
    /// Every database thread was busy for as long as a request waits.
    Busy,
    /// The handler panicked; its transaction is rolled back.
    Panicked,
    /// The session could not do its work.
    Session(Error),
}

impl From<Error> for ServiceError {
    fn from(error: Error) -> Self {
        match error {
            Error::QueueFull { .. } => Self::Busy,
            Error::JobPanicked { .. } => Self::Panicked,
            error => Self::Session(error),
        }
    }
}

impl ServiceError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoSuchUser(_) | Self::NoSuchPost(_) => StatusCode::NOT_FOUND,
            Self::NicknameTaken(_) | Self::Outdated { .. } => StatusCode::CONFLICT,
            Self::Refused(status, _) => *status,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            // Stored by somebody else between this request's read and its flush, or its COMMIT.
            Self::Session(error)
                if error.is_unique_violation()
                    || error.is_foreign_key_violation()
                    || error.is_stale_data()
                    || matches!(error, Error::RowGone { .. }) =>
            {
                StatusCode::CONFLICT
            }
            Self::Session(error) => match error.class() {
                // Nothing was stored and the same request may succeed: no connection in time, a connection that died
                // before COMMIT, or a transaction that the database gave up in favour of another one.
                ErrorClass::Unavailable | ErrorClass::Connection | ErrorClass::Retryable => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Invalid { what, .. } => format!("the {what} is not valid"),
            Self::NoSuchUser(nickname) => format!("User {nickname} doesn't exist"),
            Self::NoSuchPost(id) => format!("this user has no post {id}"),
            Self::NicknameTaken(nickname) => format!("the nickname {nickname} is taken"),
            Self::Outdated { nickname, sent, stored } => {
                let stored = stored.map(|stored| format!(", stored is {stored}")).unwrap_or_default();
                format!("User {nickname} was changed by somebody else: you sent version {sent}{stored}; read it again")
            }
            Self::Refused(_, message) => message.clone(),
            Self::Busy => "too many requests are under way, try again".into(),
            Self::Panicked => "internal error, nothing was stored".into(),
            Self::Session(error) => match (self.status(), error.class()) {
                (StatusCode::CONFLICT, _) if error.is_unique_violation() => "it exists already".into(),
                (StatusCode::CONFLICT, _) => "it was changed or deleted by somebody else: read it again".into(),
                (StatusCode::SERVICE_UNAVAILABLE, ErrorClass::Retryable) => {
                    "another request was in the way, nothing was stored: try again".into()
                }
                (StatusCode::SERVICE_UNAVAILABLE, _) => "the database can't be reached now, try again".into(),
                (_, ErrorClass::Ambiguous) => "nobody knows whether this was stored: look before you try again".into(),
                _ => "internal error".into(),
            },
        }
    }
}

#[derive(Serialize)]
struct Body {
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

impl IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        let (status, error) = (self.status(), self.message());
        // The operator reads what the client must not. A panic was printed by the panic hook already.
        if let Self::Session(error) = &self
            && status.is_server_error()
        {
            crate::complain(&format!("{status}: {error}"));
        }
        let problems = if let Self::Invalid { problems, .. } = self { problems } else { Vec::new() };
        let mut response = (status, Json(Body { error, problems })).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

impl From<JsonRejection> for ServiceError {
    /// Malformed JSON: 400. JSON of another shape: 422. Not said to be JSON: 415. Too large: 413.
    fn from(rejection: JsonRejection) -> Self {
        Self::Refused(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ServiceError {
    fn from(rejection: QueryRejection) -> Self {
        Self::Refused(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ServiceError {
    fn from(rejection: PathRejection) -> Self {
        Self::Refused(rejection.status(), rejection.body_text())
    }
}
