//! MySQL and MariaDB: real deadlocks, time-outs, kills and violations; texts of other set-ups by SIGNAL.

use std::sync::Barrier;

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_session::{Error, ErrorClass, RetryPolicy, StatementErrors, TransactionOptions, read_only};

use super::support::mysql::{Conn, Database, Registry, Session, insert, stored};
use super::support::notes;
use super::{assert_class, assert_class_by_words, message, wait_until};

const LOCK_TIMEOUT: &str = "Lock wait timeout exceeded; try restarting transaction";
const DEADLOCK: &str = "Deadlock found when trying to get lock; try restarting transaction";

fn with_notes(errors: StatementErrors, texts: &[&str]) -> (Database, Registry) {
    let database = Database::new();
    let registry = database.registry_with(|builder| {
        builder.statement_errors(errors).setup(|conn| conn.batch_execute("SET SESSION innodb_lock_wait_timeout = 1"))
    });
    for text in texts {
        registry.transaction(|session| insert(session, text)).unwrap();
    }
    (database, registry)
}

/// By a prepared statement, which Diesel finds a kind for, or by text, which it finds none for.
fn send(session: &Session, prepared: bool, statement: &str) -> diesel_session::Result<()> {
    if prepared { session.execute(diesel::sql_query(statement)).map(drop) } else { session.batch_execute(statement) }
}

fn touch(session: &Session, prepared: bool, text: &str) -> diesel_session::Result<()> {
    send(session, prepared, &format!("UPDATE notes SET n = n + 1 WHERE text = '{text}'"))
}

#[test]
fn one_of_two_that_wait_for_each_other_can_try_again_and_nothing_of_it_is_stored() {
    for prepared in [true, false] {
        let (_database, registry) = with_notes(StatementErrors::Portable, &["a", "b"]);
        let both = Barrier::new(2);
        let run = |first: &str, second: &str| {
            let session = Session::new(registry.engine());
            session.batch_execute("SET SESSION innodb_lock_wait_timeout = 20").unwrap();
            insert(&session, &format!("{first} first")).unwrap();
            touch(&session, prepared, first).unwrap();
            both.wait();
            let result = touch(&session, prepared, second);
            if let Err(error) = &result {
                assert_eq!(message(error), DEADLOCK);
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
        let winner = if went_on[0] { "a first" } else { "b first" };
        assert_eq!(stored(&registry).into_iter().filter(|text| text.ends_with("first")).collect::<Vec<_>>(), [winner]);
    }
}

/// MariaDB has `innodb_snapshot_isolation` since 10.6.18 and 10.11.8.
#[test]
fn a_row_that_changed_since_the_snapshot_can_be_tried_again() {
    for prepared in [true, false] {
        let (_database, registry) = with_notes(StatementErrors::Portable, &["a"]);
        let session = Session::new(registry.engine());
        session.batch_execute("SET SESSION innodb_snapshot_isolation = ON").unwrap();
        insert(&session, "b").unwrap();
        assert_eq!(session.load::<String>(notes::table.select(notes::text)).unwrap().len(), 2);
        registry.transaction(|other| touch(other, true, "a")).unwrap();
        let error = touch(&session, prepared, "a").unwrap_err();
        assert!(message(&error).starts_with("Record has changed since last read in table 'notes'"), "{error}");
        assert_class(&error, ErrorClass::Retryable);
        assert!(session.commit().unwrap_err().is_retryable());
        assert_eq!(stored(&registry), ["a"]);
    }
}

/// Statements that fail alone, and how their messages begin. Another session holds the row of "held".
const FAIL_ALONE: &[(&str, &str)] = &[
    ("INSERT INTO notes (text) VALUES ('a')", "Duplicate entry 'a' for key 'text'"),
    ("INSERT INTO c VALUES (1, 1, 99)", "Cannot add or update a child row: a foreign key constraint fails ("),
    (
        "DELETE FROM notes WHERE text = 'parent'",
        "Cannot delete or update a parent row: a foreign key constraint fails (",
    ),
    ("INSERT INTO c VALUES (1, NULL, NULL)", "Column 'n' cannot be null"),
    ("INSERT INTO c (id) VALUES (1)", "Field 'n' doesn't have a default value"),
    ("INSERT INTO c VALUES (1, 0, NULL)", "CONSTRAINT `c.n` failed for `"),
    ("UPDATE notes SET n = 9 WHERE text = 'held'", LOCK_TIMEOUT),
    ("SELECT * FROM notes WHERE text = 'held' FOR UPDATE NOWAIT", LOCK_TIMEOUT),
    (
        "SET STATEMENT max_statement_time = 0.01 FOR SELECT count(*) FROM information_schema.columns a, \
         information_schema.columns b, information_schema.columns c",
        "Query execution was interrupted (max_statement_time exceeded)",
    ),
    ("KILL QUERY {id}", "Query execution was interrupted"),
];

/// The database of `FAIL_ALONE`, and the session that holds the row.
fn that_fail_alone(errors: StatementErrors) -> (Database, Registry, Session) {
    let (database, registry) = with_notes(errors, &["a", "held", "parent"]);
    let holder = Session::new(registry.engine());
    let tables = "CREATE TABLE c (id INT PRIMARY KEY, n INT NOT NULL CHECK (n > 0), note INT REFERENCES notes (id)); \
                  INSERT INTO c SELECT 9, 1, id FROM notes WHERE text = 'parent'";
    holder
        .with_connection(|conn| {
            conn.batch_execute("COMMIT")?;
            conn.batch_execute(tables)
        })
        .ok();
    holder.rollback().unwrap();
    touch(&holder, true, "held").unwrap();
    (database, registry, holder)
}

fn connection(session: &Session) -> i64 {
    session.get_result(sql::<BigInt>("SELECT connection_id()")).unwrap()
}

fn in_transaction_on_the_server(session: &Session) -> bool {
    session.get_result::<i64>(sql::<BigInt>("SELECT CAST(@@in_transaction AS SIGNED)")).unwrap() == 1
}

fn fail(session: &Session, prepared: bool, statement: &str, expected: &str) -> Error {
    let statement = statement.replace("{id}", &connection(session).to_string());
    let error = send(session, prepared, &statement).unwrap_err();
    assert!(message(&error).starts_with(expected), "{error}");
    error
}

#[test]
fn a_statement_that_failed_alone_leaves_the_transaction_open_and_a_savepoint_saves_it() {
    let (_database, registry, holder) = that_fail_alone(StatementErrors::Portable);
    for (statement, expected) in FAIL_ALONE {
        for prepared in [true, false] {
            let session = Session::new(registry.engine());
            insert(&session, "kept").unwrap();
            let error = session
                .nested(|session| {
                    insert(session, "undone")?;
                    Err::<(), _>(fail(session, prepared, statement, expected))
                })
                .unwrap_err();
            assert_class(&error, ErrorClass::Statement);
            assert!(in_transaction_on_the_server(&session), "{statement}");
            insert(&session, "later").unwrap();
            session.commit().unwrap();
            assert_eq!(stored(&registry), ["a", "held", "kept", "later", "parent"], "{statement}");
            registry
                .transaction(|session| session.batch_execute("DELETE FROM notes WHERE text IN ('kept', 'later')"))
                .unwrap();
        }
    }
    holder.rollback().unwrap();
}

#[test]
fn a_statement_that_failed_alone_outside_a_savepoint_is_not_committed_around() {
    let (_database, registry, holder) = that_fail_alone(StatementErrors::Portable);
    for (statement, expected) in FAIL_ALONE {
        let session = Session::new(registry.engine());
        insert(&session, "lost").unwrap();
        assert_class(&fail(&session, true, statement, expected), ErrorClass::Statement);
        assert!(matches!(insert(&session, "refused").unwrap_err(), Error::PendingRollback { .. }), "{statement}");
        assert!(matches!(session.commit().unwrap_err(), Error::RolledBack { .. }), "{statement}");
        assert_eq!(stored(&registry), ["a", "held", "parent"], "{statement}");
    }
    holder.rollback().unwrap();
}

#[test]
fn natively_a_statement_that_failed_alone_is_committed_around() {
    let (_database, registry, holder) = that_fail_alone(StatementErrors::Native);
    for (statement, expected) in FAIL_ALONE {
        let session = Session::new(registry.engine());
        insert(&session, "kept").unwrap();
        assert_class(&fail(&session, true, statement, expected), ErrorClass::Statement);
        assert!(in_transaction_on_the_server(&session), "{statement}");
        insert(&session, "later").unwrap();
        session.commit().unwrap();
        assert_eq!(stored(&registry), ["a", "held", "kept", "later", "parent"], "{statement}");
        registry
            .transaction(|session| session.batch_execute("DELETE FROM notes WHERE text IN ('kept', 'later')"))
            .unwrap();
    }
    holder.rollback().unwrap();
}

#[test]
fn a_query_that_must_give_a_row_and_gives_none_failed_alone() {
    let (_database, registry) = with_notes(StatementErrors::Portable, &[]);
    let session = Session::new(registry.engine());
    let missing = notes::table.select(notes::text).filter(notes::text.eq("missing"));
    assert_class(&session.get_result::<String>(missing).unwrap_err(), ErrorClass::Statement);
    insert(&session, "a").unwrap();
    session.commit().unwrap();
}

/// A session with an insert that is not committed, whose connection the server has just ended.
fn dead(database: &Database, registry: &Registry) -> Session {
    let session = Session::new(registry.engine());
    insert(&session, "a").unwrap();
    let id = connection(&session);
    let mut admin = Conn::establish(&database.url).unwrap();
    admin.batch_execute(&format!("KILL {id}")).unwrap();
    let alive = format!("SELECT count(*) FROM information_schema.processlist WHERE id = {id}");
    wait_until("the connection ends", || sql::<BigInt>(&alive).get_result::<i64>(&mut admin).unwrap() == 0);
    session
}

#[test]
fn a_connection_that_the_server_closed_is_lost_and_nothing_is_stored() {
    let (database, registry) = with_notes(StatementErrors::Portable, &[]);
    for prepared in [true, false] {
        let session = dead(&database, &registry);
        assert_class(&send(&session, prepared, "SELECT 1").unwrap_err(), ErrorClass::Connection);
        assert_class(&session.commit().unwrap_err(), ErrorClass::Connection);
    }
    // 2006: the library knows already.
    let session = Session::new(registry.engine());
    insert(&session, "a").unwrap();
    let kill = format!("KILL {}", connection(&session));
    let error = session
        .with_connection(|conn| {
            let _ = conn.batch_execute(&kill);
            conn.batch_execute("SELECT 1")
        })
        .unwrap_err();
    assert!(message(&error).ends_with("erver has gone away"), "{error}");
    assert_class(&error, ErrorClass::Connection);
    assert!(stored(&registry).is_empty());
}

#[test]
fn nobody_knows_what_a_connection_lost_at_commit_left() {
    let (database, registry) = with_notes(StatementErrors::Portable, &[]);
    let error = dead(&database, &registry).commit().unwrap_err();
    assert!(matches!(error, Error::CommitUnknown { .. }), "{error}");
    assert_class(&error, ErrorClass::Ambiguous);
}

#[test]
fn a_write_in_a_transaction_that_was_asked_to_read_is_fatal() {
    let (_database, registry) = with_notes(StatementErrors::Portable, &[]);
    for prepared in [true, false] {
        let session = Session::with_options(registry.engine(), read_only()).unwrap();
        assert_class(&send(&session, prepared, "DELETE FROM notes").unwrap_err(), ErrorClass::Fatal);
    }
}

/// SIGNAL, by a prepared statement and by text.
fn signal(session: &Session, number: u32, text: &str) -> [Error; 2] {
    let literal = text.replace('\'', "''");
    let statement = format!("SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = '{literal}'");
    [true, false].map(|prepared| {
        let error = send(session, prepared, &statement).unwrap_err();
        assert_eq!(message(&error), text);
        session.rollback().unwrap();
        error
    })
}

/// Texts of a full, stopping or replicating server, of Galera and of MySQL, as their sources have them.
#[test]
fn what_servers_say_that_are_set_up_otherwise() {
    let (_database, registry) = with_notes(StatementErrors::Portable, &[]);
    let session = Session::new(registry.engine());
    for (number, text, class) in [
        (1213, DEADLOCK, ErrorClass::Retryable),
        (1020, "Record has changed since last read in table 't'; try restarting transaction", ErrorClass::Retryable),
        (1020, "Record has changed since last read in table 't'", ErrorClass::Retryable),
        (3024, "Query execution was interrupted, maximum statement execution time exceeded", ErrorClass::Statement),
        (
            3572,
            "Statement aborted because lock(s) could not be acquired immediately and NOWAIT is set.",
            ErrorClass::Statement,
        ),
        (3819, "Check constraint 'c_chk_1' is violated.", ErrorClass::Statement),
        (1586, "Duplicate entry 'a' for key 'notes.text'", ErrorClass::Statement),
        (1053, "Server shutdown in progress", ErrorClass::Connection),
        (1927, "Connection was killed", ErrorClass::Connection),
        (1040, "Too many connections", ErrorClass::Unavailable),
        (1203, "User app already has more than 'max_user_connections' active connections", ErrorClass::Unavailable),
        (1047, "WSREP has not yet prepared node for application use", ErrorClass::Unavailable),
        (1836, "Running in read-only mode", ErrorClass::Unavailable),
        (
            1290,
            "The MariaDB server is running with the --read-only option so it cannot execute this statement",
            ErrorClass::Unavailable,
        ),
        (
            1290,
            "The MySQL server is running with the --super-read-only option so it cannot execute this statement",
            ErrorClass::Unavailable,
        ),
        (
            1290,
            "The MySQL server is running with the --secure-file-priv option so it cannot execute this statement",
            ErrorClass::Fatal,
        ),
        (1180, "Got error 6 \"No such device or address\" during COMMIT", ErrorClass::Fatal),
        (1146, "Table 'app.missing' doesn't exist", ErrorClass::Fatal),
    ] {
        for error in signal(&session, number, text) {
            assert_class_by_words::<Conn>(&error, class);
        }
    }
}

/// Numbers from 2000 to 2999 are the client library's own; one that comes from the server is taken for noise.
#[test]
fn a_packet_that_the_library_cannot_read_is_a_lost_connection() {
    let (_database, registry) = with_notes(StatementErrors::Portable, &[]);
    for prepared in [true, false] {
        let session = Session::new(registry.engine());
        insert(&session, "a").unwrap();
        let error = send(&session, prepared, "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 2006").unwrap_err();
        assert_eq!(message(&error), "Received malformed packet");
        assert_class(&error, ErrorClass::Connection);
    }
    assert!(stored(&registry).is_empty());
}

#[test]
fn another_language_gives_the_same_class_or_fatal() {
    let (_database, registry, holder) = that_fail_alone(StatementErrors::Portable);
    for language in ["de_DE", "ja_JP", "ru_RU", "es_ES"] {
        for (statement, _) in FAIL_ALONE {
            for prepared in [true, false] {
                let session = Session::new(registry.engine());
                session.batch_execute(&format!("SET SESSION lc_messages = {language}")).unwrap();
                let statement = statement.replace("{id}", &connection(&session).to_string());
                let error = send(&session, prepared, &statement).unwrap_err();
                assert!(matches!(error.class(), ErrorClass::Statement | ErrorClass::Fatal), "{error}");
                session.rollback().unwrap();
            }
        }
    }
    holder.rollback().unwrap();
}

#[test]
fn a_known_text_inside_another_message_is_fatal() {
    let (_database, registry) = with_notes(StatementErrors::Portable, &[]);
    let session = Session::new(registry.engine());
    for known in [DEADLOCK, "Record has changed since last read in table 't'", LOCK_TIMEOUT, "Connection was killed"] {
        for text in [format!("refused: {known}"), format!("refused\n{known}"), format!("\n{known}")] {
            for error in signal(&session, 1644, &text) {
                assert_class(&error, ErrorClass::Fatal);
            }
        }
        for prepared in [true, false] {
            let value = format!("x\n{known}").replace('\'', "''");
            let error =
                send(&session, prepared, &format!("INSERT INTO notes (n, text) VALUES ('{value}', 'a')")).unwrap_err();
            assert!(message(&error).contains(&known[..20]), "{error}");
            assert_class(&error, ErrorClass::Fatal);
            session.rollback().unwrap();
        }
    }
}

/// What the client's library says of a server that is gone, said by one that stays.
#[test]
fn a_statement_that_only_says_that_the_connection_is_gone_is_not_run_again() {
    for words in ["Lost connection to server during query", "Server has gone away", "Connection was killed"] {
        let (database, registry) = with_notes(StatementErrors::Portable, &["a"]);
        let trigger = format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON notes FOR EACH ROW \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{words}'"
        );
        Conn::establish(&database.url).unwrap().batch_execute(&trigger).unwrap();
        let retried = TransactionOptions::new().retry(RetryPolicy::new(3));
        for prepared in [true, false] {
            let mut attempts = 0;
            let error = registry
                .transaction_with(retried, |session| {
                    attempts += 1;
                    send(session, prepared, "INSERT INTO notes (text, n) VALUES ('b', 0)")
                })
                .unwrap_err();
            assert!(matches!(error, Error::Statement(_)), "{error}");
            assert_class(&error, ErrorClass::Fatal);
            assert_eq!(attempts, 1, "{words}");
        }
        // The transaction is there, and can go on from its savepoint.
        registry
            .transaction(|session| {
                touch(session, true, "a")?;
                let refused = session.nested(|inner| insert(inner, "b"));
                assert_class(&refused.unwrap_err(), ErrorClass::Fatal);
                touch(session, true, "a")
            })
            .unwrap();
        let alone = Session::with_options(registry.engine(), diesel_session::autocommit()).unwrap();
        let error = insert(&alone, "b").unwrap_err();
        assert!(matches!(error, Error::Statement(_)), "{error}");
        assert_class(&error, ErrorClass::Fatal);
        assert_eq!(stored(&registry), ["a"]);
    }
}
