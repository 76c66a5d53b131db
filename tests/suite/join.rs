//! Sessions on a connection of somebody else's: what each mode does to a transaction that is open there already, as
//! SQLAlchemy's `join_transaction_mode`.

use std::time::{Duration, Instant};

use diesel::connection::{Connection, SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_session::{Error, JoinMode, Kind, SessionState, TransactionOptions};

use super::db::{self, Conn, Database, Session, insert, stored, texts};
use super::notes;
use super::tools::{answer, kind, number, sql};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outer {
    Nothing,
    Transaction,
    Savepoint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
    /// `into_connection` and nothing before it.
    Close,
}

/// What the owner of the connection finds afterwards: the transaction depth, and the rows that it sees. The owner wrote
/// `outer` in the transaction and `inner` in the savepoint; the session wrote `session`.
type Found = (u32, &'static [&'static str]);

const ALL: &[&str] = &["inner", "outer", "session"];
const OWN: &[&str] = &["inner", "outer"];

/// With a transaction around it, and then with a savepoint around it: what commit, rollback and close leave.
#[rustfmt::skip]
const MATRIX: [(JoinMode, [Found; 3], [Found; 3]); 4] = [
    (JoinMode::ConditionalSavepoint,
        [(1, &["outer", "session"]), (0, &[]), (1, &["outer", "session"])],
        [(2, ALL), (2, OWN), (2, OWN)]),
    (JoinMode::RollbackOnly,
        [(1, &["outer", "session"]), (0, &[]), (1, &["outer", "session"])],
        [(2, ALL), (1, &["outer"]), (2, ALL)]),
    (JoinMode::ControlFully,
        [(0, &["outer", "session"]), (0, &[]), (0, &[])],
        [(1, ALL), (1, &["outer"]), (1, &["outer"])]),
    (JoinMode::CreateSavepoint,
        [(1, &["outer", "session"]), (1, &["outer"]), (1, &["outer"])],
        [(2, ALL), (2, OWN), (2, OWN)]),
];

/// Where nothing was open the mode makes no difference: the session's transaction is its own.
const ALONE: [Found; 3] = [(0, &["session"]), (0, &[]), (0, &[])];

type Manager = <Conn as Connection>::TransactionManager;

fn connect(database: &Database) -> Conn {
    // Not a database in memory: a connection that somebody else opened would see another one.
    Conn::establish(&database.url).unwrap()
}

fn prepare(database: &Database, outer: Outer) -> Conn {
    prepare_on(connect(database), outer)
}

fn prepare_on(mut conn: Conn, outer: Outer) -> Conn {
    conn.batch_execute(db::CREATE_NOTES).unwrap();
    let write = |conn: &mut Conn, text: &str| {
        diesel::insert_into(notes::table).values((notes::text.eq(text), notes::n.eq(0))).execute(conn).unwrap();
    };
    if outer != Outer::Nothing {
        Manager::begin_transaction(&mut conn).unwrap();
        write(&mut conn, "outer");
    }
    if outer == Outer::Savepoint {
        Manager::begin_transaction(&mut conn).unwrap();
        write(&mut conn, "inner");
    }
    conn
}

fn depth(conn: &mut Conn) -> u32 {
    let status = Manager::transaction_manager_status_mut(conn);
    status.transaction_depth().unwrap().map_or(0, std::num::NonZeroU32::get)
}

fn seen(conn: &mut Conn) -> Vec<String> {
    notes::table.select(notes::text).order(notes::text).load(conn).unwrap()
}

fn found(outer: Outer, mode: JoinMode, end: End) -> Found {
    let (_, transaction, savepoint) = MATRIX.into_iter().find(|(row, ..)| *row == mode).unwrap();
    let row = match outer {
        Outer::Nothing => ALONE,
        Outer::Transaction => transaction,
        Outer::Savepoint => savepoint,
    };
    row[end as usize]
}

fn each_cell(mut drive: impl FnMut(Outer, JoinMode, End)) {
    for outer in [Outer::Nothing, Outer::Transaction, Outer::Savepoint] {
        for (mode, ..) in MATRIX {
            for end in [End::Commit, End::Rollback, End::Close] {
                drive(outer, mode, end);
            }
        }
    }
}

fn end_it(session: &Session, end: End) {
    match end {
        End::Commit => drop(session.commit().unwrap()),
        End::Rollback => drop(session.rollback().unwrap()),
        End::Close => {}
    }
}

#[test]
fn each_mode_leaves_the_owners_transaction_as_sqlalchemy_does() {
    each_cell(|outer, mode, end| {
        let database = Database::new();
        let session = Session::join(prepare(&database, outer), mode);
        assert_eq!(session.state(), SessionState::Idle);
        insert(&session, "session").unwrap();
        end_it(&session, end);
        let handle = session.clone();
        let mut conn = session.into_connection().expect("a joined session gives its connection back");
        assert!(matches!(insert(&handle, "later"), Err(Error::SessionClosed { .. })));
        let left = (depth(&mut conn), seen(&mut conn));
        let (depth, rows) = found(outer, mode, end);
        assert_eq!(
            left,
            (depth, rows.iter().map(ToString::to_string).collect()),
            "{outer:?} {mode:?} {end:?} on {}",
            db::NAME
        );
        // The owner goes on: what is open can be committed, and that stores what was seen.
        while self::depth(&mut conn) > 0 {
            Manager::commit_transaction(&mut conn).unwrap();
        }
        assert_eq!(seen(&mut conn), rows, "{outer:?} {mode:?} {end:?} on {}", db::NAME);
    });
}

#[test]
fn its_own_savepoints_end_with_it_and_nothing_of_the_owners_does() {
    each_cell(|outer, mode, end| {
        if end == End::Commit {
            // An open guard refuses the commit; the table of states has that.
            return;
        }
        let database = Database::new();
        let session = Session::join(prepare(&database, outer), mode);
        insert(&session, "session").unwrap();
        let first = session.begin_nested().unwrap();
        insert(&session, "in a savepoint").unwrap();
        let second = session.begin_nested().unwrap();
        end_it(&session, end);
        let mut conn = session.into_connection().unwrap();
        drop((first, second));
        let left = (depth(&mut conn), seen(&mut conn));
        let (depth, rows) = found(outer, mode, end);
        assert_eq!(
            left,
            (depth, rows.iter().map(ToString::to_string).collect()),
            "{outer:?} {mode:?} {end:?} on {}",
            db::NAME
        );
    });
}

#[test]
fn units_of_work_follow_each_other_on_one_connection() {
    for (mode, ..) in MATRIX {
        let database = Database::new();
        let session = Session::join(prepare(&database, Outer::Nothing), mode);
        for text in ["a", "b"] {
            insert(&session, text).unwrap();
            session.commit().unwrap();
            insert(&session, "undone").unwrap();
            session.rollback().unwrap();
            insert(&session, "undone").unwrap();
            assert!(insert(&session, "undone").is_err());
            assert!(matches!(session.commit(), Err(Error::RolledBack { .. })));
        }
        assert_eq!(texts(&session), ["a", "b"], "{mode:?} on {}", db::NAME);
        let mut conn = session.into_connection().unwrap();
        assert_eq!((depth(&mut conn), seen(&mut conn)), (0, vec!["a".to_owned(), "b".to_owned()]));
    }
}

#[test]
fn in_a_savepoint_of_its_own_a_failed_unit_of_work_leaves_the_owners_work_alone() {
    let database = Database::new();
    let session = Session::join(prepare(&database, Outer::Transaction), JoinMode::CreateSavepoint);
    insert(&session, "kept").unwrap();
    session.commit().unwrap();
    insert(&session, "undone").unwrap();
    assert!(insert(&session, "outer").unwrap_err().is_unique_violation());
    assert!(matches!(session.commit(), Err(Error::RolledBack { .. })));
    insert(&session, "again").unwrap();
    session.commit().unwrap();
    let mut conn = session.into_connection().unwrap();
    assert_eq!(depth(&mut conn), 1);
    assert_eq!(seen(&mut conn), ["again", "kept", "outer"], "{}", db::NAME);
    Manager::rollback_transaction(&mut conn).unwrap();
    assert!(seen(&mut conn).is_empty());
}

#[test]
fn a_joined_session_that_is_dropped_stores_nothing() {
    for outer in [Outer::Nothing, Outer::Transaction, Outer::Savepoint] {
        for (mode, ..) in MATRIX {
            let database = Database::new();
            let session = Session::join(prepare(&database, outer), mode);
            insert(&session, "session").unwrap();
            // The connection goes with it, and with that everything that was open on it; in memory the database too.
            drop(session);
            if db::CONCURRENT {
                assert!(stored(&database.registry()).is_empty(), "{outer:?} {mode:?} on {}", db::NAME);
            }
        }
    }
}

#[test]
fn a_session_of_an_engine_has_no_connection_to_give_back() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    insert(&session, "undone").unwrap();
    assert!(session.into_connection().is_none());
    assert!(stored(&registry).is_empty());
}

#[test]
fn limits_hold_on_a_joined_connection_and_are_gone_when_it_is_given_back() {
    let change =
        sql("PRAGMA busy_timeout = 7000", "SET lock_timeout = 7000", "SET SESSION innodb_lock_wait_timeout = 7");
    let look = sql(
        "SELECT timeout / 1000 FROM pragma_busy_timeout",
        "SELECT setting::bigint / 1000 FROM pg_settings WHERE name = 'lock_timeout'",
        "SELECT CAST(@@innodb_lock_wait_timeout AS SIGNED)",
    );
    each_cell(|outer, mode, end| {
        let what = format!("{outer:?} {mode:?} {end:?} on {}", db::NAME);
        let database = Database::new();
        let mut conn = connect(&database);
        conn.batch_execute(change).unwrap();
        let session = Session::join(prepare_on(conn, outer), mode);
        for _ in 0..2 {
            session.begin_with(TransactionOptions::new().read_only().lock_timeout(Duration::from_secs(3))).unwrap();
            assert_eq!(number(&session, look).unwrap(), 3, "{what}");
            end_it(&session, end);
            if end != End::Commit {
                break;
            }
        }
        let mut conn = session.into_connection().unwrap();
        assert_eq!(diesel::dsl::sql::<BigInt>(look).get_result::<i64>(&mut conn).unwrap(), 7, "{what}");
        conn.batch_execute("INSERT INTO notes (text, n) VALUES ('the owner writes', 0)").unwrap();
    });
}

#[test]
fn a_deadline_ends_a_statement_on_a_joined_connection() {
    if kind() == Kind::Sqlite {
        return assert_eq!(kind(), Kind::Sqlite, "a statement can't be interrupted there");
    }
    let database = Database::new();
    for outer in [Outer::Nothing, Outer::Transaction] {
        let conn = prepare(&database, outer);
        let session = Session::join(conn, JoinMode::CreateSavepoint);
        session.begin_with(TransactionOptions::new().timeout(Duration::from_millis(300))).unwrap();
        let started = Instant::now();
        assert!(session.execute(diesel::sql_query(sql("", "SELECT pg_sleep(60)", "SELECT SLEEP(60)"))).is_err());
        assert!(started.elapsed() < Duration::from_secs(20), "{outer:?} on {}", db::NAME);
        session.rollback().unwrap();
        let mut conn = session.into_connection().unwrap();
        conn.batch_execute("DROP TABLE notes").unwrap();
        if outer != Outer::Nothing {
            Manager::commit_transaction(&mut conn).unwrap();
        }
    }
}

#[test]
fn commit_does_not_say_ok_in_a_transaction_of_somebody_elses_that_has_failed() {
    if kind() != Kind::Postgres {
        return assert_ne!(kind(), Kind::Postgres, "the others go on after an error");
    }
    let database = Database::new();
    let session = Session::join(prepare(&database, Outer::Transaction), JoinMode::RollbackOnly);
    insert(&session, "row").unwrap();
    // The row's error is swallowed, and the query says `Ok`.
    let divided = notes::table.select(diesel::dsl::sql::<diesel::sql_types::Integer>("1 / n"));
    let _ = session.with_rows(divided, |rows| Ok(rows.filter(|n: &QueryResult<i32>| n.is_err()).count()));
    assert_eq!(answer(&session.commit()), "RolledBack");
    let mut conn = session.into_connection().unwrap();
    // As in SQLAlchemy, what rolls back does so to the root.
    assert_eq!(depth(&mut conn), 0);
    assert!(seen(&mut conn).is_empty());
}

#[test]
fn a_transaction_of_text_on_the_connection_is_never_committed_by_joining() {
    let database = Database::new();
    for (mode, ..) in MATRIX {
        let mut conn = prepare(&database, Outer::Nothing);
        conn.batch_execute("BEGIN; INSERT INTO notes (text, n) VALUES ('theirs', 0)").unwrap();
        let session = Session::join(conn, mode);
        let joined = insert(&session, "joined");
        assert!(kind() != Kind::Mysql || joined.is_err(), "{mode:?}");
        let mut conn = session.into_connection().unwrap();
        // Diesel counts it on the others.
        let _ = conn.batch_execute("ROLLBACK");
        assert!(seen(&mut conn).is_empty(), "{mode:?} on {}", db::NAME);
        conn.batch_execute("DROP TABLE notes").unwrap();
    }
}
