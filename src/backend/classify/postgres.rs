//! PostgreSQL: messages of the server and of libpq, without `lc_messages` set to another language (PostgreSQL docs,
//! "PostgreSQL Error Codes").

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::Text::{Begins, Is};
use super::{Known, by_kind, by_text, first, in_phase};
use crate::backend::Phase;
use crate::error::ErrorClass;

const KNOWN: &[Known] = &[
    // 40P01. 40001 has a kind.
    (ErrorClass::Retryable, &[Is("deadlock detected")]),
    (
        ErrorClass::Statement,
        &[
            // 55P03
            Is("canceling statement due to lock timeout"),
            Begins("could not obtain lock on row in relation \""),
            Begins("could not obtain lock on relation \""),
            // 57014
            Is("canceling statement due to statement timeout"),
            Is("canceling statement due to user request"),
        ],
    ),
    (
        ErrorClass::Connection,
        &[
            // 57P01, 57P02, 57P05, 25P03, 25P04, and 40001 as FATAL on a standby: "due to …", "because …"
            Begins("terminating connection due to "),
            Begins("terminating connection because "),
            // 57P03
            Begins("the database system is "),
            // libpq's own: no code
            Begins("server closed the connection unexpectedly"),
            Begins("SSL connection has been closed unexpectedly"),
            Begins("SSL SYSCALL error: "),
            Begins("could not receive data from server: "),
            Begins("could not send data to server: "),
            Begins("lost synchronization with server: "),
            Is("no connection to the server"),
            Is("connection not open"),
        ],
    ),
    (
        ErrorClass::Unavailable,
        &[
            // 53300
            Is("sorry, too many clients already"),
            Begins("remaining connection slots are reserved for "),
            Begins("too many connections for role \""),
            Begins("too many connections for database \""),
        ],
    ),
];

/// 40003, as CockroachDB says it. PostgreSQL itself has no text for 40003 and 08007 (15.20).
const COMMIT_UNKNOWN: &[Known] = &[(ErrorClass::Ambiguous, &[Begins("result is ambiguous")])];

/// The error of a live server at COMMIT means that the transaction was not stored.
pub(crate) fn classify(error: &DieselError, phase: Phase) -> ErrorClass {
    let error = first(error);
    let by_kind = by_kind(error).or(match error {
        // 25006: a standby. A transaction that was begun to write finds this out from the server only.
        DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _) => Some(ErrorClass::Unavailable),
        _ => None,
    });
    let unknown = match phase {
        Phase::Commit => COMMIT_UNKNOWN,
        Phase::Statement => &[],
    };
    let by_text = || by_text(error, KNOWN).or_else(|| by_text(error, unknown));
    in_phase(by_kind.or_else(by_text).unwrap_or(ErrorClass::Fatal), phase)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{beginnings, of_kind, only_the_beginning_counts, unknown};
    use super::*;

    fn class(message: &str, phase: Phase) -> ErrorClass {
        classify(&unknown(message), phase)
    }

    #[test]
    fn known_texts_count_at_the_beginning_only() {
        only_the_beginning_counts(KNOWN, classify);
        for other in [
            "deadlock detected in my own queue",
            "deadlock detected\nand more",
            "canceling statement due to lock timeouts",
            "could not obtain lock",
            "relation \"deadlock detected\" does not exist",
            "current transaction is aborted, commands ignored until end of transaction block",
        ] {
            for phase in [Phase::Statement, Phase::Commit] {
                assert_eq!(class(other, phase), ErrorClass::Fatal, "{other}");
            }
        }
    }

    /// libpq 15 on a connection that died: the kind says so, or the text of the next attempt.
    #[test]
    fn a_dead_connection_is_known_by_kind_or_by_libpqs_text() {
        let closed = |text| of_kind(DatabaseErrorKind::ClosedConnection, text);
        let unsent = |text| of_kind(DatabaseErrorKind::UnableToSendCommand, text);
        for error in [
            closed("terminating connection due to administrator command"),
            closed("Verbindung wird abgebrochen aufgrund von Anweisung des Administrators"),
            closed("SSL connection has been closed unexpectedly\n"),
            unsent("no connection to the server\n"),
            unsent("could not send data to server: Broken pipe\n"),
            unknown(
                "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n\tbefore or while processing the request.\n",
            ),
        ] {
            assert_eq!(classify(&error, Phase::Statement), ErrorClass::Connection, "{error}");
            assert_eq!(classify(&error, Phase::Commit), ErrorClass::Ambiguous, "{error}");
        }
        // A statement that libpq refuses to send says nothing about the connection.
        let refused = unsent("number of parameters must be between 0 and 65535\n");
        assert_eq!(classify(&refused, Phase::Statement), ErrorClass::Fatal);
    }

    /// CockroachDB docs, "Transaction Retry Error Reference": 40003, "result is ambiguous".
    #[test]
    fn an_ambiguous_result_is_ambiguous_at_commit_only() {
        let text = "result is ambiguous: error=rpc error: code = Unavailable [exhausted]";
        assert_eq!(class(text, Phase::Commit), ErrorClass::Ambiguous);
        assert_eq!(class(text, Phase::Statement), ErrorClass::Fatal);
    }

    proptest! {
        #[test]
        fn any_other_message_is_fatal(message in "(?s).{0,80}") {
            prop_assume!(!beginnings(KNOWN).any(|text| message.starts_with(text)));
            prop_assert_eq!(class(&message, Phase::Statement), ErrorClass::Fatal);
        }

        #[test]
        fn a_known_text_behind_anything_is_fatal(
            before in "(?s).{1,40}",
            text in proptest::sample::select(beginnings(KNOWN).collect::<Vec<_>>()),
        ) {
            let message = before + text;
            prop_assume!(!beginnings(KNOWN).any(|text| message.starts_with(text)));
            prop_assert_eq!(class(&message, Phase::Statement), ErrorClass::Fatal);
        }
    }
}
