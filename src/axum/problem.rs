//! The answer that an error is: its status, and a body that gives nothing away.

use std::fmt;

use ::axum::http::{HeaderValue, StatusCode, header};
use ::axum::response::{IntoResponse, Response};

use super::handler::RETRY_AFTER;
use crate::error::{Error, ErrorClass, Reason};

/// The HTTP status of an error, for error types that have their own body.
///
/// | the error | status |
/// |---|---|
/// | a violated unique constraint or foreign key, [stale data](Error::StaleData), a [row that is gone](Error::RowGone) | 409 |
/// | a query that must give a row gave none | 404 |
/// | of class [`Unavailable`](ErrorClass::Unavailable), [`Retryable`](ErrorClass::Retryable) or [`Connection`](ErrorClass::Connection): nothing is stored, and the same request may succeed | 503 |
/// | all others | 500 |
///
/// The first cause of a transaction that failed counts as the error itself. What was violated is what Diesel tells; of
/// `batch_execute` on MySQL and MariaDB it tells nothing, and that is 500.
#[must_use]
pub fn status_of(error: &Error) -> StatusCode {
    let is_conflict = error.is_unique_violation()
        || error.is_foreign_key_violation()
        || error.is_stale_data()
        || is_about_a_gone_row(error);
    if is_conflict {
        return StatusCode::CONFLICT;
    }
    if error.is_not_found() {
        return StatusCode::NOT_FOUND;
    }
    match error.class() {
        ErrorClass::Unavailable | ErrorClass::Retryable | ErrorClass::Connection => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn is_about_a_gone_row(error: &Error) -> bool {
    matches!(error, Error::RowGone { .. })
        || matches!(error.cause().map(crate::Cause::reason), Some(Reason::Refused(inner)) if is_about_a_gone_row(inner))
}

/// An error as a response, for functions whose answer to an error needs no words of their own: the status of
/// [`status_of`], `Retry-After` with 503, and a body of `application/problem+json` (RFC 9457):
///
/// ```json
/// {"title":"Conflict","status":409,"detail":"what is there is in the way: read it again"}
/// ```
///
/// Neither body nor headers hold anything of the error's own: no text of the database or its driver, no names, no values.
/// For the operator, what became 500 or 503 is logged (`tracing`, as error and warning) with class, place, constraint and
/// table; the database's text, which may hold values of rows, is not.
///
/// # Examples
/// ```
/// use axum::http::StatusCode;
/// use axum::response::IntoResponse;
/// use diesel_session::Error;
/// use diesel_session::axum::Problem;
///
/// let response = Problem::from(Error::ShutDown).into_response();
/// assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
/// assert_eq!(response.headers()["retry-after"], "1");
/// ```
#[derive(Debug, Clone)]
pub struct Problem(Error);

impl Problem {
    /// The status that it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        status_of(&self.0)
    }

    /// The error itself.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.0
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        match status {
            StatusCode::INTERNAL_SERVER_ERROR => tracing::error!(error = self.0.for_the_log(), "a request failed"),
            StatusCode::SERVICE_UNAVAILABLE => tracing::warn!(error = self.0.for_the_log(), "a request was put off"),
            _ => {}
        }
        let title = status.canonical_reason().unwrap_or_default();
        let detail = detail(status, self.0.class());
        // None of the words needs escaping.
        let body = format!(r#"{{"title":"{title}","status":{},"detail":"{detail}"}}"#, status.as_u16());
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

fn detail(status: StatusCode, class: ErrorClass) -> &'static str {
    match (status, class) {
        (StatusCode::CONFLICT, _) => "what is there is in the way: read it again",
        (StatusCode::NOT_FOUND, _) => "there is no such thing",
        (StatusCode::SERVICE_UNAVAILABLE, _) => "nothing was stored: try again later",
        (_, ErrorClass::Ambiguous) => "nobody knows whether this was stored: look before you try again",
        _ => "internal error",
    }
}
