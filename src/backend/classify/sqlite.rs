//! SQLite: the texts of `sqlite3ErrStr` and the few places that add a name to them (SQLite docs, "Result and Error Codes").

use diesel::result::Error as DieselError;

use super::Text::{Begins, Is};
use super::{Known, by_kind, by_text, first, in_phase};
use crate::backend::Phase;
use crate::error::ErrorClass;

const KNOWN: &[Known] = &[
    (
        ErrorClass::Retryable,
        &[
            // SQLITE_BUSY, SQLITE_BUSY_SNAPSHOT, SQLITE_BUSY_RECOVERY, SQLITE_BUSY_TIMEOUT: one text.
            Is("database is locked"),
            // SQLITE_LOCKED, SQLITE_LOCKED_SHAREDCACHE.
            Is("database table is locked"),
            Begins("database table is locked: "),
            Begins("database schema is locked: "),
            // SQLITE_PROTOCOL: only at the start of a transaction in WAL mode.
            Is("locking protocol"),
        ],
    ),
    // SQLITE_INTERRUPT.
    (ErrorClass::Statement, &[Is("interrupted")]),
    // SQLITE_IOERR with all its extended codes, SQLITE_CANTOPEN.
    (ErrorClass::Connection, &[Is("disk I/O error"), Is("unable to open database file")]),
];

/// An error at COMMIT means that the transaction was not stored, except where the disk failed half-way.
pub(crate) fn classify(error: &DieselError, phase: Phase) -> ErrorClass {
    let error = first(error);
    let class = by_kind(error).or_else(|| by_text(error, KNOWN)).unwrap_or(ErrorClass::Fatal);
    in_phase(class, phase)
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
        // Texts of other errors that go on where a known one ends, or name something (sqlite3.c, 3.50).
        for other in [
            "database main is locked",
            "database is locked by a trigger of mine",
            "unable to open database: /nowhere",
            "unable to open a temporary database file for storing temporary tables",
            "cannot commit transaction - SQL statements in progress",
            "attempt to write a readonly database",
            "database or disk is full",
            "database disk image is malformed",
            "out of memory",
            "no such table: database is locked",
        ] {
            assert_eq!(class(other, Phase::Statement), ErrorClass::Fatal, "{other}");
            assert_eq!(class(other, Phase::Commit), ErrorClass::Fatal, "{other}");
        }
    }

    #[test]
    fn a_disk_error_is_a_lost_connection_and_at_commit_nobody_knows() {
        for text in ["disk I/O error", "unable to open database file"] {
            assert_eq!(class(text, Phase::Statement), ErrorClass::Connection);
            assert_eq!(class(text, Phase::Commit), ErrorClass::Ambiguous);
        }
    }

    #[test]
    fn what_is_locked_can_be_tried_again_also_at_commit() {
        for text in
            ["database is locked", "database table is locked", "database table is locked: a", "locking protocol"]
        {
            for phase in [Phase::Statement, Phase::Commit] {
                assert_eq!(class(text, phase), ErrorClass::Retryable);
            }
        }
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
