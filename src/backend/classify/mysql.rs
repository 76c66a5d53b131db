//! MySQL and MariaDB: messages of the server with `lc_messages = en_US` and of the client library (MariaDB docs, "Error
//! Codes"; MySQL docs, "Server Error Message Reference").
//!
//! Diesel gives statements of text (`batch_execute`) no kind at all (diesel 2.3.14), so violations have texts too.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::Text::{Around, Begins, Is};
use super::{Known, by_kind, by_text, first, in_phase};
use crate::backend::Phase;
use crate::error::ErrorClass;

const KNOWN: &[Known] = &[
    (
        ErrorClass::Retryable,
        &[
            // 1213: deadlock; on Galera also a conflict with another node, at any statement and at COMMIT
            Is("Deadlock found when trying to get lock; try restarting transaction"),
            // 1020: with `innodb_snapshot_isolation`
            Begins("Record has changed since last read in table '"),
        ],
    ),
    (
        ErrorClass::Statement,
        &[
            // 1062, 1586
            Begins("Duplicate entry '"),
            // 1216, 1452
            Begins("Cannot add or update a child row: a foreign key constraint fails"),
            // 1217, 1451
            Begins("Cannot delete or update a parent row: a foreign key constraint fails"),
            // 1048
            Around("Column '", "' cannot be null"),
            // 1364
            Around("Field '", "' doesn't have a default value"),
            // 4025 (MariaDB), which Diesel has no kind for, and 3819 (MySQL)
            Begins("CONSTRAINT `"),
            Around("Check constraint '", "' is violated."),
        ],
    ),
    (
        ErrorClass::Connection,
        &[
            // 2006: MySQL's library, MariaDB's
            Is("MySQL server has gone away"),
            Is("Server has gone away"),
            // 2013, 2055: MySQL's library, MariaDB's
            Begins("Lost connection to MySQL server "),
            Begins("Lost connection to server "),
            // 2027: what the server will answer next, nobody knows
            Is("Malformed packet"),
            Is("Received malformed packet"),
            // 1053
            Is("Server shutdown in progress"),
            // 1927
            Is("Connection was killed"),
            // 4031 (MySQL)
            Begins("The client was disconnected by the server because of inactivity."),
        ],
    ),
    (
        ErrorClass::Unavailable,
        &[
            // 1040
            Is("Too many connections"),
            // 1203
            Around("User ", " already has more than 'max_user_connections' active connections"),
            // 1047 on a Galera node outside the primary component
            Is("WSREP has not yet prepared node for application use"),
            // 1290 on a replica; other options that prevent a statement are not the node's fault
            Begins("The MySQL server is running with the --read-only "),
            Begins("The MySQL server is running with the --super-read-only "),
            Begins("The MariaDB server is running with the --read-only "),
            // 1836
            Is("Running in read-only mode"),
        ],
    ),
    (
        ErrorClass::Fatal,
        &[
            // 1461: COMMIT could not be prepared, so it was not sent
            Begins("Can't create more than max_prepared_stmt_count statements"),
            // 1792: the transaction was begun READ ONLY, whatever the server may do
            Begins("Cannot execute statement in a READ ONLY transaction"),
        ],
    ),
];

/// Statements that were stopped. A COMMIT that was stopped may have been stored.
const STOPPED: &[Known] = &[(
    ErrorClass::Statement,
    &[
        // 1205: the statement only, with `innodb_rollback_on_timeout` at its default; NOWAIT too, on MariaDB
        Is("Lock wait timeout exceeded; try restarting transaction"),
        // 1317
        Is("Query execution was interrupted"),
        // 1969 (MariaDB's max_statement_time)
        Is("Query execution was interrupted (max_statement_time exceeded)"),
        // 3024 (MySQL's max_execution_time)
        Is("Query execution was interrupted, maximum statement execution time exceeded"),
        // 3572 (MySQL's NOWAIT)
        Is("Statement aborted because lock(s) could not be acquired immediately and NOWAIT is set."),
    ],
)];

/// At COMMIT every error is ambiguous that is not known to mean "not stored": 1180 may come from a node that lost its
/// cluster after the others had stored the transaction.
pub(crate) fn classify(error: &DieselError, phase: Phase) -> ErrorClass {
    let error = first(error);
    let by_kind = by_kind(error).or(match error {
        DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _) => Some(ErrorClass::Fatal),
        _ => None,
    });
    let known = by_kind.or_else(|| by_text(error, KNOWN));
    match (known, phase) {
        (Some(class), phase) => in_phase(class, phase),
        (None, Phase::Commit) => ErrorClass::Ambiguous,
        (None, Phase::Statement) => by_text(error, STOPPED).unwrap_or(ErrorClass::Fatal),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{beginnings, only_the_beginning_counts, unknown};
    use super::*;

    fn class(message: &str, phase: Phase) -> ErrorClass {
        classify(&unknown(message), phase)
    }

    #[test]
    fn known_texts_count_at_the_beginning_only() {
        only_the_beginning_counts(KNOWN, classify);
        only_the_beginning_counts(STOPPED, classify);
        for other in [
            // 3058: the server does not roll back for it.
            "Deadlock found when trying to get user-level lock; try rolling back transaction/releasing locks and restarting lock acquisition.",
            "Query execution was interrupted by me",
            "The MySQL server is running with the --secure-file-priv option so it cannot execute this statement",
            "Column 'Deadlock found when trying to get lock; try restarting transaction' in field list is ambiguous",
            "Too many connections for my taste",
        ] {
            assert_eq!(class(other, Phase::Statement), ErrorClass::Fatal, "{other}");
            assert_eq!(class(other, Phase::Commit), ErrorClass::Ambiguous, "{other}");
        }
    }

    /// The client libraries' own texts: MySQL's `errmsg.h` and MariaDB Connector/C 3.3.
    #[test]
    fn a_dead_connection_is_known_by_the_client_librarys_text() {
        for text in [
            "MySQL server has gone away",
            "Server has gone away",
            "Lost connection to MySQL server during query",
            "Lost connection to server during query",
            "Lost connection to MySQL server at 'reading initial communication packet', system error: 104",
            "Lost connection to server at 'handshake: reading initial communication packet', system error: 104",
            "The client was disconnected by the server because of inactivity. See wait_timeout and interactive_timeout for configuring this behavior.",
        ] {
            assert_eq!(class(text, Phase::Statement), ErrorClass::Connection, "{text}");
            assert_eq!(class(text, Phase::Commit), ErrorClass::Ambiguous, "{text}");
        }
    }

    #[test]
    fn at_commit_only_what_surely_was_not_stored_is_certain() {
        for (text, expected) in [
            ("Deadlock found when trying to get lock; try restarting transaction", ErrorClass::Retryable),
            ("Record has changed since last read in table 't'", ErrorClass::Retryable),
            (
                "The MariaDB server is running with the --read-only option so it cannot execute this statement",
                ErrorClass::Unavailable,
            ),
            ("WSREP has not yet prepared node for application use", ErrorClass::Unavailable),
            ("Can't create more than max_prepared_stmt_count statements (current value: 16382)", ErrorClass::Fatal),
            // 1180
            ("Got error 6 \"No such device or address\" during COMMIT", ErrorClass::Ambiguous),
            ("Query execution was interrupted", ErrorClass::Ambiguous),
            ("Lock wait timeout exceeded; try restarting transaction", ErrorClass::Ambiguous),
            ("", ErrorClass::Ambiguous),
        ] {
            assert_eq!(class(text, Phase::Commit), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_other_message_is_fatal(message in "(?s).{0,80}") {
            prop_assume!(!beginnings(KNOWN).chain(beginnings(STOPPED)).any(|text| message.starts_with(text)));
            prop_assert_eq!(class(&message, Phase::Statement), ErrorClass::Fatal);
            prop_assert_eq!(class(&message, Phase::Commit), ErrorClass::Ambiguous);
        }

        #[test]
        fn a_known_text_behind_anything_is_fatal(
            before in "(?s).{1,40}",
            text in proptest::sample::select(beginnings(KNOWN).chain(beginnings(STOPPED)).collect::<Vec<_>>()),
        ) {
            let message = before + text;
            prop_assume!(!beginnings(KNOWN).chain(beginnings(STOPPED)).any(|text| message.starts_with(text)));
            prop_assert_eq!(class(&message, Phase::Statement), ErrorClass::Fatal);
        }
    }
}
