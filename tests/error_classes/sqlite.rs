//! SQLite: real locks, violations and disk errors.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::DatabaseErrorKind;
use diesel_session::{BeginMode, Error, ErrorClass, JoinMode, JournalMode};

use super::support::notes;
use super::support::sqlite_file::{CREATE_NOTES, Conn, Database, Registry, Session, insert, stored, texts};
use super::{assert_class, failure_class, message};

/// A database that gives up on locks at once, and a connection to it that no engine knows of, as another process has.
fn impatient(journal: JournalMode, begin: BeginMode) -> (Database, Registry, Conn) {
    let database = Database::new();
    let registry = database.registry_with(|builder| {
        builder.busy_timeout(Duration::from_millis(5)).journal_mode(journal).begin_mode(begin)
    });
    let other = Conn::establish(&database.url).unwrap();
    (database, registry, other)
}

#[test]
fn a_locked_database_can_be_tried_again() {
    let (_database, registry, mut other) = impatient(JournalMode::Wal, BeginMode::Immediate);
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let session = Session::new(registry.engine());
    let error = insert(&session, "a").unwrap_err();
    assert_eq!(message(&error), "database is locked");
    assert_class(&error, ErrorClass::Retryable);
    other.batch_execute("ROLLBACK").unwrap();
    insert(&session, "a").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn a_snapshot_that_is_no_longer_the_newest_can_be_tried_again_and_nothing_is_stored() {
    let (_database, registry, mut other) = impatient(JournalMode::Wal, BeginMode::Deferred);
    let session = Session::new(registry.engine());
    assert!(texts(&session).is_empty());
    other.batch_execute("INSERT INTO notes (text) VALUES ('other')").unwrap();
    let error = insert(&session, "a").unwrap_err();
    assert_class(&error, ErrorClass::Retryable);
    assert!(session.commit().unwrap_err().is_retryable());
    assert_eq!(stored(&registry), ["other"]);
}

#[test]
fn a_commit_that_readers_kept_out_can_be_tried_again_and_nothing_is_stored() {
    let (_database, registry, mut other) = impatient(JournalMode::Delete, BeginMode::Immediate);
    let session = Session::new(registry.engine());
    insert(&session, "a").unwrap();
    other.batch_execute("BEGIN; SELECT * FROM notes").unwrap();
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_class(&error, ErrorClass::Retryable);
    other.batch_execute("ROLLBACK").unwrap();
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_table_locked_in_a_shared_cache_can_be_tried_again() {
    let database = Database::new();
    let url = format!("file:{}?cache=shared", database.url);
    let mut other = Conn::establish(&url).unwrap();
    other.batch_execute(CREATE_NOTES).unwrap();
    other.batch_execute("BEGIN IMMEDIATE; INSERT INTO notes (text) VALUES ('other')").unwrap();
    let session = Session::join(Conn::establish(&url).unwrap(), JoinMode::default());
    let error = session.load::<String>(notes::table.select(notes::text)).unwrap_err();
    assert!(message(&error).starts_with("database table is locked"), "{error}");
    assert_class(&error, ErrorClass::Retryable);
}

#[test]
fn a_violation_fails_its_statement_and_a_savepoint_saves_the_transaction() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    session
        .batch_execute(
            "CREATE TABLE c (id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK (n > 0), note REFERENCES notes)",
        )
        .unwrap();
    insert(&session, "a").unwrap();
    for (sql, kind) in [
        ("INSERT INTO notes (text) VALUES ('a')", DatabaseErrorKind::UniqueViolation),
        ("INSERT INTO notes (id, text) VALUES (1, 'b')", DatabaseErrorKind::UniqueViolation),
        ("INSERT INTO c VALUES (1, 1, 99)", DatabaseErrorKind::ForeignKeyViolation),
        ("INSERT INTO c VALUES (1, NULL, NULL)", DatabaseErrorKind::NotNullViolation),
        ("INSERT INTO c VALUES (1, 0, NULL)", DatabaseErrorKind::CheckViolation),
    ] {
        let error = session.nested(|session| session.batch_execute(sql)).unwrap_err();
        assert_eq!(error.failure().unwrap().kind(), Some(&kind));
        assert_class(&error, ErrorClass::Statement);
    }
    let missing = notes::table.select(notes::text).filter(notes::text.eq("missing"));
    assert_class(&session.get_result::<String>(missing).unwrap_err(), ErrorClass::Statement);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn a_violation_found_at_commit_means_that_nothing_is_stored() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    session.batch_execute("CREATE TABLE c (note REFERENCES notes DEFERRABLE INITIALLY DEFERRED)").unwrap();
    insert(&session, "a").unwrap();
    session.batch_execute("INSERT INTO c VALUES (99)").unwrap();
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_eq!(failure_class(&error), ErrorClass::Statement);
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_journal_that_cannot_be_opened_is_a_lost_connection() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.journal_mode(JournalMode::Delete));
    let session = Session::new(registry.engine());
    assert!(texts(&session).is_empty());
    // Opened at the first write only, and a folder can't be opened as a file, whoever asks.
    std::fs::create_dir(format!("{}-journal", database.url)).unwrap();
    let error = insert(&session, "a").unwrap_err();
    assert_eq!(message(&error), "unable to open database file");
    assert_class(&error, ErrorClass::Connection);
}

#[test]
fn nobody_knows_what_a_disk_error_at_commit_left() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.journal_mode(JournalMode::Delete));
    let session = Session::new(registry.engine());
    insert(&session, "a").unwrap();
    // COMMIT deletes the journal last; a folder in its place can't be unlinked.
    let journal = format!("{}-journal", database.url);
    std::fs::rename(&journal, format!("{journal}.moved")).unwrap();
    std::fs::create_dir(&journal).unwrap();
    let error = session.commit().unwrap_err();
    assert_eq!(message(&error), "disk I/O error");
    assert!(matches!(error, Error::CommitUnknown { .. }), "{error}");
    assert_class(&error, ErrorClass::Ambiguous);
}

/// A trigger that refuses rows with the row's own text.
fn refusing(registry: &Registry) -> Session {
    let session = Session::new(registry.engine());
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON notes BEGIN SELECT RAISE(ABORT, new.text); END";
    // SQLite before 3.47 takes a literal only.
    if session.batch_execute(trigger).is_err() {
        session.rollback().unwrap();
        panic!("these tests need SQLite 3.47: RAISE with an expression");
    }
    session.commit().unwrap();
    session
}

/// No Diesel connection can be interrupted from outside (diesel 2.3.14), so the texts come from a trigger.
#[test]
fn an_interrupted_statement_failed_alone_and_a_failed_disk_is_a_lost_connection() {
    let database = Database::new();
    let registry = database.registry();
    let session = refusing(&registry);
    for (text, class) in [("interrupted", ErrorClass::Statement), ("disk I/O error", ErrorClass::Connection)] {
        assert_class(&insert(&session, text).unwrap_err(), class);
        session.rollback().unwrap();
    }
}

#[test]
fn a_known_text_inside_another_message_is_fatal() {
    let database = Database::new();
    let registry = database.registry();
    let session = refusing(&registry);
    for known in ["database is locked", "database table is locked", "interrupted", "disk I/O error"] {
        for text in
            [format!("refused: {known}"), format!("refused\n{known}"), format!("\n{known}"), format!("{known} now")]
        {
            let error = insert(&session, &text).unwrap_err();
            assert_eq!(message(&error), text);
            assert_class(&error, ErrorClass::Fatal);
            session.rollback().unwrap();
        }
        let error = session.batch_execute(&format!("SELECT * FROM \"{known}\"")).unwrap_err();
        assert!(message(&error).ends_with(known));
        assert_class(&error, ErrorClass::Fatal);
        session.rollback().unwrap();
    }
}
