//! PostgreSQL: real deadlocks, time-outs, kills and violations, and a server that speaks another language.

use std::sync::Barrier;

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::DatabaseErrorKind;
use diesel::sql_types::{BigInt, Integer};
use diesel_session::{Error, ErrorClass, IsolationLevel, RetryPolicy, TransactionOptions, read_only};

use super::support::notes;
use super::support::postgres::{Conn, Database, Registry, Session, insert, stored, texts};
use super::{assert_class, assert_class_by_words, failure_class, message, wait_until};

fn with_notes(texts: &[&str]) -> (Database, Registry) {
    let database = Database::new();
    let registry = database.registry();
    for text in texts {
        registry.transaction(|session| insert(session, text)).unwrap();
    }
    (database, registry)
}

fn touch(session: &Session, text: &str) -> diesel_session::Result<usize> {
    session.execute(diesel::update(notes::table.filter(notes::text.eq(text))).set(notes::n.eq(notes::n + 1)))
}

fn at(level: IsolationLevel, registry: &Registry) -> Session {
    Session::with_options(registry.engine(), TransactionOptions::new().isolation(level)).unwrap()
}

#[test]
fn one_of_two_that_wait_for_each_other_can_try_again() {
    let (_database, registry) = with_notes(&["a", "b"]);
    let both = Barrier::new(2);
    let run = |first: &str, second: &str| {
        let session = Session::new(registry.engine());
        session.batch_execute("SET LOCAL deadlock_timeout = '10ms'").unwrap();
        touch(&session, first).unwrap();
        both.wait();
        let result = touch(&session, second);
        if let Err(error) = &result {
            assert_eq!(message(error), "deadlock detected");
            assert_class(error, ErrorClass::Retryable);
            assert!(session.commit().unwrap_err().is_retryable());
        } else {
            session.commit().unwrap();
        }
        result.is_ok()
    };
    let went_on = std::thread::scope(|scope| {
        let other = scope.spawn(|| run("b", "a"));
        [run("a", "b"), other.join().unwrap()]
    });
    assert_ne!(went_on[0], went_on[1]);
}

#[test]
fn a_serialization_failure_can_be_tried_again_in_a_statement_and_at_commit() {
    let (_database, registry) = with_notes(&["a", "b"]);
    let session = at(IsolationLevel::RepeatableRead, &registry);
    texts(&session);
    registry.transaction(|other| touch(other, "a")).unwrap();
    assert_class(&touch(&session, "a").unwrap_err(), ErrorClass::Retryable);
    drop(session);

    // Write skew: each reads what the other writes; the second COMMIT is refused.
    let [first, second] = [(); 2].map(|()| at(IsolationLevel::Serializable, &registry));
    texts(&first);
    texts(&second);
    touch(&first, "a").unwrap();
    touch(&second, "b").unwrap();
    first.commit().unwrap();
    let error = second.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_class(&error, ErrorClass::Retryable);
}

#[test]
fn a_violation_fails_its_statement_and_a_savepoint_saves_the_transaction() {
    let (_database, registry) = with_notes(&[]);
    let session = Session::new(registry.engine());
    session
        .batch_execute(
            "CREATE TABLE c (id INT PRIMARY KEY, n INT NOT NULL CHECK (n > 0), note INT REFERENCES notes, r INT4RANGE, \
             EXCLUDE USING gist (r WITH &&)); INSERT INTO c VALUES (1, 1, NULL, '[1,5]')",
        )
        .unwrap();
    insert(&session, "a").unwrap();
    for (statement, kind) in [
        ("INSERT INTO notes (text) VALUES ('a')", DatabaseErrorKind::UniqueViolation),
        ("INSERT INTO c VALUES (2, 1, 99, NULL)", DatabaseErrorKind::ForeignKeyViolation),
        ("INSERT INTO c VALUES (2, NULL, NULL, NULL)", DatabaseErrorKind::NotNullViolation),
        ("INSERT INTO c VALUES (2, 0, NULL, NULL)", DatabaseErrorKind::CheckViolation),
        ("INSERT INTO c VALUES (2, 1, NULL, '[5,9]')", DatabaseErrorKind::ExclusionViolation),
        // ON DELETE RESTRICT gives 23503 up to PostgreSQL 17.
        ("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '23001'; END $$", DatabaseErrorKind::RestrictViolation),
    ] {
        let error = session.nested(|session| session.batch_execute(statement)).unwrap_err();
        assert_eq!(error.failure().unwrap().kind(), Some(&kind), "{error}");
        assert_class(&error, ErrorClass::Statement);
    }
    let missing = notes::table.select(notes::text).filter(notes::text.eq("missing"));
    assert_class(&session.get_result::<String>(missing).unwrap_err(), ErrorClass::Statement);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn a_violation_found_at_commit_means_that_nothing_is_stored() {
    let (_database, registry) = with_notes(&[]);
    let session = Session::new(registry.engine());
    session.batch_execute("CREATE TABLE c (note INT REFERENCES notes DEFERRABLE INITIALLY DEFERRED)").unwrap();
    insert(&session, "a").unwrap();
    session.batch_execute("INSERT INTO c VALUES (99)").unwrap();
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_eq!(failure_class(&error), ErrorClass::Statement);
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_stopped_statement_failed_alone() {
    let (_database, registry) = with_notes(&["a", "b"]);
    let holder = Session::new(registry.engine());
    touch(&holder, "a").unwrap();
    let session = Session::new(registry.engine());
    touch(&session, "b").unwrap();
    for (statement, expected) in [
        (
            "SET LOCAL lock_timeout = '10ms'; UPDATE notes SET n = 9 WHERE text = 'a'",
            "canceling statement due to lock timeout",
        ),
        (
            "SELECT * FROM notes WHERE text = 'a' FOR UPDATE NOWAIT",
            "could not obtain lock on row in relation \"notes\"",
        ),
        ("LOCK TABLE notes NOWAIT", "could not obtain lock on relation \"notes\""),
        ("SET LOCAL statement_timeout = '10ms'; SELECT pg_sleep(60)", "canceling statement due to statement timeout"),
        ("SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)", "canceling statement due to user request"),
    ] {
        let error = session.nested(|session| session.batch_execute(statement)).unwrap_err();
        assert_eq!(message(&error), expected);
        assert_class(&error, ErrorClass::Statement);
    }
    session.commit().unwrap();
    holder.rollback().unwrap();
    let changed = notes::table.select(notes::text).filter(notes::n.gt(0));
    assert_eq!(registry.read(|session| session.load::<String>(changed)).unwrap(), ["b"]);
}

fn backend(session: &Session) -> i32 {
    session.get_result(sql::<Integer>("SELECT pg_backend_pid()")).unwrap()
}

fn wait_for_the_end_of(database: &Database, pid: i32) {
    let mut admin = Conn::establish(&database.url).unwrap();
    let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_until("the backend ends", || sql::<BigInt>(&alive).get_result::<i64>(&mut admin).unwrap() == 0);
}

/// Sessions with an insert that is not committed and whose server process has just ended.
fn dead(database: &Database, registry: &Registry) -> Vec<Session> {
    let by_command = Session::new(registry.engine());
    insert(&by_command, "command").unwrap();
    let pid = backend(&by_command);
    let mut admin = Conn::establish(&database.url).unwrap();
    admin.batch_execute(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
    let by_time = Session::new(registry.engine());
    insert(&by_time, "time").unwrap();
    by_time.batch_execute("SET LOCAL idle_in_transaction_session_timeout = '10ms'").unwrap();
    let sessions = vec![by_command, by_time];
    wait_for_the_end_of(database, pid);
    // The second ends by itself; it can't be asked for its process any more without a statement.
    wait_until("both end", || database.connections() == 1);
    sessions
}

#[test]
fn a_connection_that_the_server_closed_is_lost_and_nothing_is_stored() {
    let (database, registry) = with_notes(&[]);
    for (prepared, sessions) in [(true, dead(&database, &registry)), (false, dead(&database, &registry))] {
        for session in sessions {
            let result = if prepared { insert(&session, "b").map(drop) } else { session.batch_execute("SELECT 1") };
            assert_class(&result.unwrap_err(), ErrorClass::Connection);
            assert_class(&session.commit().unwrap_err(), ErrorClass::Connection);
        }
    }
    assert!(stored(&registry).is_empty());
}

#[test]
fn nobody_knows_what_a_connection_lost_at_commit_left() {
    let (database, registry) = with_notes(&[]);
    for session in dead(&database, &registry) {
        let error = session.commit().unwrap_err();
        assert!(matches!(error, Error::CommitUnknown { .. }), "{error}");
        assert_class(&error, ErrorClass::Ambiguous);
    }
}

#[test]
fn libpq_that_sends_nothing_more_is_a_lost_connection() {
    let (database, registry) = with_notes(&[]);
    for session in dead(&database, &registry) {
        let error = session
            .with_connection(|conn| {
                let _ = conn.batch_execute("SELECT 1");
                conn.batch_execute("SELECT 1")
            })
            .unwrap_err();
        assert_eq!(message(&error), "no connection to the server\n");
        assert_eq!(error.failure().unwrap().kind(), Some(&DatabaseErrorKind::UnableToSendCommand));
        assert_class(&error, ErrorClass::Connection);
    }
}

#[test]
fn a_server_that_refuses_writes_is_unavailable() {
    let (_database, registry) = with_notes(&[]);
    let session = Session::new(registry.engine());
    session.batch_execute("SET TRANSACTION READ ONLY").unwrap();
    assert_class(&insert(&session, "a").unwrap_err(), ErrorClass::Unavailable);
    // Only raw text gets this far in a session that was asked to read.
    let reader = Session::with_options(registry.engine(), read_only()).unwrap();
    assert_class(&reader.batch_execute("DELETE FROM notes").unwrap_err(), ErrorClass::Unavailable);
}

fn raise(session: &Session, code: &str, text: &str) -> Error {
    let literal = text.replace('\'', "''");
    let block = format!("DO $body$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = '{literal}'; END $body$");
    let error = session.batch_execute(&block).unwrap_err();
    assert_eq!(message(&error), text);
    session.rollback().unwrap();
    error
}

/// A full or starting server refuses connections, so these texts come from the error that the server is told to raise.
#[test]
fn what_a_server_says_that_is_full_or_stops() {
    let (_database, registry) = with_notes(&[]);
    let session = Session::new(registry.engine());
    for (code, text, class) in [
        ("53300", "sorry, too many clients already", ErrorClass::Unavailable),
        (
            "53300",
            "remaining connection slots are reserved for non-replication superuser connections",
            ErrorClass::Unavailable,
        ),
        ("53300", "too many connections for role \"app\"", ErrorClass::Unavailable),
        ("53300", "too many connections for database \"app\"", ErrorClass::Unavailable),
        ("57P01", "terminating connection due to administrator command", ErrorClass::Connection),
        ("57P02", "terminating connection because of crash of another server process", ErrorClass::Connection),
        ("57P03", "the database system is shutting down", ErrorClass::Connection),
        ("57P03", "the database system is starting up", ErrorClass::Connection),
        ("25P03", "terminating connection due to idle-in-transaction timeout", ErrorClass::Connection),
        ("08006", "whatever", ErrorClass::Connection),
        ("40003", "result is ambiguous", ErrorClass::Fatal),
        ("25P02", "current transaction is aborted, commands ignored until end of transaction block", ErrorClass::Fatal),
        ("42P01", "relation \"x\" does not exist", ErrorClass::Fatal),
    ] {
        assert_class_by_words::<Conn>(&raise(&session, code, text), class);
    }
}

/// The texts of PostgreSQL 15's own German catalogue, with the codes of the errors that they belong to.
#[test]
fn another_language_gives_the_same_class_or_fatal() {
    let (_database, registry) = with_notes(&[]);
    let session = Session::new(registry.engine());
    for (code, text, class) in [
        ("40001", "konnte Zugriff nicht serialisieren wegen gleichzeitiger Aktualisierung", ErrorClass::Retryable),
        ("23505", "doppelter Schlüsselwert verletzt Unique-Constraint »notes_text_key«", ErrorClass::Statement),
        ("25006", "INSERT kann nicht in einer Read-Only-Transaktion ausgeführt werden", ErrorClass::Unavailable),
        ("40P01", "Verklemmung (Deadlock) entdeckt", ErrorClass::Fatal),
        ("55P03", "storniere Anfrage wegen Zeitüberschreitung einer Sperre", ErrorClass::Fatal),
        ("55P03", "konnte Sperre für Zeile in Relation »notes« nicht setzen", ErrorClass::Fatal),
        ("57014", "storniere Anfrage wegen Zeitüberschreitung der Anfrage", ErrorClass::Fatal),
        ("57014", "storniere Anfrage wegen Benutzeraufforderung", ErrorClass::Fatal),
        ("57P01", "Verbindung wird abgebrochen aufgrund von Anweisung des Administrators", ErrorClass::Fatal),
    ] {
        assert_class(&raise(&session, code, text), class);
    }
}

#[test]
fn a_known_text_inside_another_message_is_fatal() {
    let (_database, registry) = with_notes(&[]);
    let session = Session::new(registry.engine());
    for known in [
        "deadlock detected",
        "canceling statement due to lock timeout",
        "terminating connection due to administrator command",
        "server closed the connection unexpectedly",
        "sorry, too many clients already",
    ] {
        for text in [format!("refused: {known}"), format!("refused\n{known}"), format!("\n{known}")] {
            assert_class(&raise(&session, "P0001", &text), ErrorClass::Fatal);
        }
        for statement in [format!("SELECT * FROM \"x\n{known}\""), format!("SELECT 'x\n{known}'::text::int")] {
            let error = session.batch_execute(&statement).unwrap_err();
            assert!(message(&error).contains(known), "{error}");
            assert_class(&error, ErrorClass::Fatal);
            session.rollback().unwrap();
        }
    }
}

/// A constraint trigger runs inside COMMIT; what it raises rolls back.
#[test]
fn an_error_of_a_live_server_at_commit_means_that_nothing_is_stored() {
    let (_database, registry) = with_notes(&[]);
    let session = Session::new(registry.engine());
    session
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION USING ERRCODE = split_part(new.text, ':', 1), MESSAGE = split_part(new.text, ':', 2); END $$; \
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    session.commit().unwrap();
    for (code, text, class) in [
        ("P0001", "no", ErrorClass::Fatal),
        ("40P01", "deadlock detected", ErrorClass::Retryable),
        ("57014", "canceling statement due to user request", ErrorClass::Statement),
    ] {
        insert(&session, &format!("{code}:{text}")).unwrap();
        let error = session.commit().unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
        assert_eq!(failure_class(&error), class, "{error}");
    }
    // The only text that leaves a COMMIT in doubt on a connection that still lives.
    insert(&session, "40003:result is ambiguous").unwrap();
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::CommitUnknown { .. }), "{error}");
    assert!(stored(&registry).is_empty());
}

/// What a server that goes says, raised by one that stays.
const LAST_WORDS: [(&str, &str); 4] = [
    ("P0001", "server closed the connection unexpectedly"),
    ("P0001", "terminating connection due to my trigger"),
    ("P0001", "the database system is mine"),
    ("08006", "gone"),
];

fn raised(code: &str, message: &str) -> String {
    format!("RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = '{message}'")
}

#[test]
fn a_statement_that_only_says_that_the_connection_is_gone_is_not_run_again() {
    let (_database, registry) = with_notes(&[]);
    let retried = TransactionOptions::new().retry(RetryPolicy::new(3));
    for (code, words) in LAST_WORDS {
        let raise = format!("DO $$ BEGIN {}; END $$", raised(code, words));
        for prepared in [true, false] {
            let mut attempts = 0;
            let error = registry
                .transaction_with(retried, |session| {
                    attempts += 1;
                    insert(session, "row")?;
                    if prepared {
                        session.execute(diesel::sql_query(&raise)).map(drop)
                    } else {
                        session.batch_execute(&raise)
                    }
                })
                .unwrap_err();
            assert!(matches!(error, Error::Statement(_)), "{error}");
            assert_class(&error, ErrorClass::Fatal);
            assert_eq!(attempts, 1, "{words}");
        }
        // The transaction is there, and can go on from its savepoint.
        registry
            .transaction(|session| {
                let error = session.nested(|inner| inner.batch_execute(&raise)).unwrap_err();
                assert_class(&error, ErrorClass::Fatal);
                insert(session, words)
            })
            .unwrap();
        // Without a transaction there is nothing in doubt either.
        let alone = Session::with_options(registry.engine(), diesel_session::autocommit()).unwrap();
        let error = alone.batch_execute(&raise).unwrap_err();
        assert!(matches!(error, Error::Statement(_)), "{error}");
        assert_class(&error, ErrorClass::Fatal);
    }
    assert_eq!(stored(&registry).len(), LAST_WORDS.len());
}

#[test]
fn a_commit_that_only_says_that_the_connection_is_gone_is_rolled_back() {
    for (code, words) in LAST_WORDS {
        let (_database, registry) = with_notes(&[]);
        let trigger = format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {}; END $$; \
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION refuse()",
            raised(code, words)
        );
        registry.transaction(|session| session.batch_execute(&trigger)).unwrap();
        let mut attempts = 0;
        let retried = TransactionOptions::new().retry(RetryPolicy::new(3));
        let error = registry
            .transaction_with(retried, |session| {
                attempts += 1;
                insert(session, "row")
            })
            .unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{words}: {error}");
        assert_class(&error, ErrorClass::Fatal);
        assert_eq!(attempts, 1, "{words}");
        assert!(stored(&registry).is_empty());
    }
}
