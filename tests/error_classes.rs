//! What the caller can do about an error, asked of errors that the databases really gave.
//!
//! SQLite needs nothing. `--features postgres` and `--features mysql` need a server (`TEST_POSTGRES_URL`,
//! `TEST_MYSQL_URL`) and fail without one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/mod.rs"]
mod support;

#[cfg(feature = "mysql")]
#[path = "error_classes/mysql.rs"]
mod mysql;
#[cfg(feature = "postgres")]
#[path = "error_classes/postgres.rs"]
mod postgres;
#[cfg(feature = "sqlite")]
#[path = "error_classes/sqlite.rs"]
mod sqlite;

use diesel_session::{Error, ErrorClass};

/// The class of the failure itself: of a statement, or of the COMMIT behind the error.
#[track_caller]
fn failure_class(error: &Error) -> ErrorClass {
    error.failure().unwrap_or_else(|| panic!("{error}")).class()
}

#[track_caller]
fn assert_class(error: &Error, class: ErrorClass) {
    assert_eq!(failure_class(error), class, "{error}");
    assert_eq!(error.class(), class, "{error}");
    assert_eq!(error.is_retryable(), class == ErrorClass::Retryable, "{error}");
}

/// The error has this class by its kind and words. The session does not believe a server that goes on answering that the
/// connection is gone.
#[cfg(any(feature = "postgres", feature = "mysql"))]
#[track_caller]
fn assert_class_by_words<C: diesel_session::SessionConnection>(error: &Error, class: ErrorClass) {
    let failure = error.failure().unwrap_or_else(|| panic!("{error}"));
    assert_eq!(C::classify(failure.error(), diesel_session::Phase::Statement), class, "{error}");
    assert_class(error, if class == ErrorClass::Connection { ErrorClass::Fatal } else { class });
}

/// What the database said.
#[track_caller]
fn message(error: &Error) -> String {
    match error.failure().map(diesel_session::Failure::error) {
        Some(diesel::result::Error::DatabaseError(_, info)) => info.message().to_owned(),
        _ => panic!("{error}"),
    }
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}
