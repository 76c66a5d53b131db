//! What each operation does in each situation: the table in the documentation of `Session`, as data. Every cell is driven
//! with a real session, and checked by its answer, by the state after it, by how the transaction then ends and by what
//! is stored.

use std::cell::RefCell;
use std::rc::Rc;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{Error, Kind, Result, SessionState, autocommit, read_only};

use super::db::{self, Database, Registry, Session, insert, stored, texts};
use super::notes;
use super::tools::{answer, connection_id, deadlock, insert_or_rollback, kill, kind, name_of, nothing_in_use, number};
use Operation as Op;
use SessionState::{Active, Closed, Failed, Idle, Lost, RollbackOnly};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    Write,
    Commit,
    Rollback,
    /// `registry.remove()` and `session.close()`.
    Close,
    Nest,
    /// `on_commit`: a hook that runs shows as `(hook)` among what is stored.
    Hook,
    SetRollbackOnly,
}

const OPERATIONS: [Op; 8] =
    [Op::Read, Op::Write, Op::Commit, Op::Rollback, Op::Close, Op::Nest, Op::Hook, Op::SetRollbackOnly];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Situation {
    IdleSession,
    ActiveTransaction,
    FailedByAStatement,
    FailedByAPanic,
    MarkedRollbackOnly,
    /// A constraint with `OR ROLLBACK`.
    LostToAConstraint,
    LostToADeadlock,
    LostWithItsConnection,
    LostToARawRollback,
    LostToARawCommit,
    LentConnection,
    LentRows,
    InACommitHook,
    InARollbackHook,
    InASavepointsHook,
    GuardAlive,
    OwnedByTransaction,
    OwnedByJob,
    ReadOnlySession,
    AutocommitSession,
    ClosedSession,
}
use Situation::*;

/// The answer to the operation, the state after it, the answer to the end that follows (`commit`, or the end of the
/// closure that owns the transaction), and what is stored after that.
type Cell = (&'static str, SessionState, &'static str, &'static [&'static str]);

const NONE: &[&str] = &[];
const BEFORE: &[&str] = &["before"];
const HOOKED: &[&str] = &["(hook)", "before"];
const BOTH: &[&str] = &["before", "op"];
const INNER: &[&str] = &["before", "inner"];

const LOST: [Cell; 8] = lost("RolledBack", NONE);
const LENT: [Cell; 8] = [
    ("InUse", Active, "Ok", BEFORE),
    ("InUse", Active, "Ok", BEFORE),
    ("InUse", Active, "Ok", BEFORE),
    ("InUse", Active, "Ok", BEFORE),
    ("Ok", Active, "SessionClosed", NONE),
    ("InUse", Active, "Ok", BEFORE),
    ("Ok", Active, "Ok", HOOKED),
    ("Ok", RollbackOnly, "RolledBack", NONE),
];
const OWNED: [Cell; 8] = [
    ("Ok", Active, "Ok", BEFORE),
    ("Ok", Active, "Ok", BOTH),
    ("NotOwner", Active, "Ok", BEFORE),
    ("NotOwner", Active, "Ok", BEFORE),
    ("Ok", Closed, "RolledBack", NONE),
    ("Ok", Active, "Ok", BOTH),
    ("Ok", Active, "Ok", HOOKED),
    ("Ok", RollbackOnly, "Ok", NONE),
];

/// A transaction that is gone can only be rolled back.
const fn lost(end: &'static str, stored: &'static [&'static str]) -> [Cell; 8] {
    [
        ("TransactionLost", Lost, end, stored),
        ("TransactionLost", Lost, end, stored),
        (end, Idle, "Ok", stored),
        ("Ok", Idle, "Ok", stored),
        ("Ok", Closed, "SessionClosed", stored),
        ("TransactionLost", Lost, end, stored),
        ("Ok", Lost, end, stored),
        ("Ok", Lost, end, stored),
    ]
}

/// A failed transaction can only be rolled back.
const FAILED: [Cell; 8] = [
    ("PendingRollback", Failed, "RolledBack", NONE),
    ("PendingRollback", Failed, "RolledBack", NONE),
    ("RolledBack", Idle, "Ok", NONE),
    ("Ok", Idle, "Ok", NONE),
    ("Ok", Closed, "SessionClosed", NONE),
    ("PendingRollback", Failed, "RolledBack", NONE),
    ("Ok", Failed, "RolledBack", NONE),
    ("Ok", Failed, "RolledBack", NONE),
];

/// Inside a hook everything waits; what the transaction did is decided already.
const fn in_hook(
    state: SessionState,
    stored: &'static [&'static str],
    hooked: &'static [&'static str],
    close: Cell,
) -> [Cell; 8] {
    let refused = ("InHook", state, "Ok", stored);
    [refused, refused, refused, refused, close, refused, ("Ok", state, "Ok", hooked), refused]
}

/// The table: a row for each situation, a column for each of [`OPERATIONS`].
#[rustfmt::skip]
const TABLE: [(Situation, [Cell; 8]); 21] = [
    (IdleSession, [
        ("Ok", Active, "Ok", NONE), ("Ok", Active, "Ok", &["op"]), ("Ok", Idle, "Ok", NONE),
        ("Ok", Idle, "Ok", NONE), ("Ok", Closed, "SessionClosed", NONE), ("Ok", Active, "Ok", &["op"]),
        ("Ok", Idle, "Ok", &["(hook)"]), ("Ok", RollbackOnly, "RolledBack", NONE),
    ]),
    (ActiveTransaction, [
        ("Ok", Active, "Ok", BEFORE), ("Ok", Active, "Ok", BOTH), ("Ok", Idle, "Ok", BEFORE),
        ("Ok", Idle, "Ok", NONE), ("Ok", Closed, "SessionClosed", NONE), ("Ok", Active, "Ok", BOTH),
        ("Ok", Active, "Ok", HOOKED), ("Ok", RollbackOnly, "RolledBack", NONE),
    ]),
    (FailedByAStatement, FAILED),
    (FailedByAPanic, FAILED),
    (MarkedRollbackOnly, [
        ("Ok", RollbackOnly, "RolledBack", NONE), ("Ok", RollbackOnly, "RolledBack", NONE), ("RolledBack", Idle, "Ok", NONE),
        ("Ok", Idle, "Ok", NONE), ("Ok", Closed, "SessionClosed", NONE), ("Ok", RollbackOnly, "RolledBack", NONE),
        ("Ok", RollbackOnly, "RolledBack", NONE), ("Ok", RollbackOnly, "RolledBack", NONE),
    ]),
    (LostToAConstraint, LOST),
    (LostToADeadlock, lost("RolledBack", &["mine", "theirs"])),
    (LostWithItsConnection, LOST),
    (LostToARawRollback, lost("ImplicitCommit", NONE)),
    (LostToARawCommit, lost("ImplicitCommit", BEFORE)),
    (LentConnection, LENT),
    (LentRows, LENT),
    (InACommitHook, in_hook(Idle, BEFORE, HOOKED, ("Ok", Idle, "SessionClosed", BEFORE))),
    (InARollbackHook, in_hook(Idle, NONE, NONE, ("Ok", Idle, "SessionClosed", NONE))),
    (InASavepointsHook, in_hook(Active, BEFORE, BEFORE, ("Ok", Active, "SessionClosed", NONE))),
    (GuardAlive, [
        ("Ok", Active, "Ok", INNER), ("Ok", Active, "Ok", &["before", "inner", "op"]), ("SavepointOpen", Active, "Ok", INNER),
        ("Ok", Idle, "SavepointGone", NONE), ("Ok", Closed, "SavepointGone", NONE), ("Ok", Active, "Ok", &["before", "inner", "op"]),
        ("Ok", Active, "Ok", &["(hook)", "before", "inner"]), ("Ok", RollbackOnly, "RolledBack", BEFORE),
    ]),
    (OwnedByTransaction, OWNED),
    (OwnedByJob, OWNED),
    (ReadOnlySession, [
        ("Ok", Active, "Ok", NONE), ("ReadOnly", Active, "Ok", NONE), ("Ok", Idle, "Ok", NONE),
        ("Ok", Idle, "Ok", NONE), ("Ok", Closed, "SessionClosed", NONE), ("Ok", Active, "Ok", NONE),
        ("Ok", Active, "Ok", &["(hook)"]), ("Ok", RollbackOnly, "RolledBack", NONE),
    ]),
    (AutocommitSession, [
        ("Ok", Idle, "Ok", BEFORE), ("Ok", Idle, "Ok", BOTH), ("Ok", Idle, "Ok", BEFORE),
        ("Ok", Idle, "Ok", BEFORE), ("Ok", Closed, "SessionClosed", BEFORE), ("NoTransaction", Idle, "Ok", BEFORE),
        ("Ok", Idle, "Ok", HOOKED), ("NoTransaction", Idle, "Ok", BEFORE),
    ]),
    (ClosedSession, [
        ("SessionClosed", Closed, "SessionClosed", NONE), ("SessionClosed", Closed, "SessionClosed", NONE),
        ("SessionClosed", Closed, "SessionClosed", NONE), ("Ok", Closed, "SessionClosed", NONE),
        ("Ok", Closed, "SessionClosed", NONE), ("SessionClosed", Closed, "SessionClosed", NONE),
        ("SessionClosed", Closed, "SessionClosed", NONE), ("SessionClosed", Closed, "SessionClosed", NONE),
    ]),
];

/// Why a situation can't be made on a database.
const IMPOSSIBLE: [(Situation, Kind, &str); 5] = [
    (LostToAConstraint, Kind::Postgres, "no constraint of PostgreSQL ends the transaction"),
    (LostToAConstraint, Kind::Mysql, "no constraint of MySQL ends the transaction"),
    (LostToADeadlock, Kind::Sqlite, "one writer at a time: nobody waits in a ring"),
    (LostToADeadlock, Kind::Postgres, "a deadlock aborts the transaction, which stays open: that is a failed one"),
    (LostWithItsConnection, Kind::Sqlite, "the database is in this process"),
];

type Log = Rc<RefCell<Vec<String>>>;
type Seen = Rc<RefCell<Option<(String, SessionState)>>>;

/// Does the operation, and says what it answered.
fn perform(operation: Op, session: &Session, registry: &Registry, by_handle: bool, log: &Log) -> Result<()> {
    match operation {
        Op::Read => session.load::<String>(notes::table.select(notes::text)).map(drop),
        Op::Write => insert(session, "op").map(drop),
        Op::Commit => session.commit().map(drop),
        Op::Rollback => session.rollback().map(drop),
        Op::Close => {
            if by_handle {
                session.close();
            } else {
                registry.remove();
            }
            Ok(())
        }
        Op::Nest => session.begin_nested().and_then(|savepoint| {
            if session.transaction_options().is_read_only() {
                assert!(texts(session).is_empty());
            } else {
                insert(session, "op")?;
            }
            savepoint.commit().map(drop)
        }),
        Op::Hook => {
            let log = Rc::clone(log);
            session.on_commit(move || log.borrow_mut().push("(hook)".into()))
        }
        Op::SetRollbackOnly => session.set_rollback_only("the table asks for it"),
    }
}

/// Brings this thread's session into the situation, calls `act` there, and ends what it began.
fn within(situation: Situation, database: &Database, registry: &Registry, act: &Rc<dyn Fn(&Session)>) -> Result<()> {
    let session = match situation {
        ReadOnlySession => registry.current_with(read_only())?,
        AutocommitSession => registry.current_with(autocommit())?,
        _ => registry.current()?,
    };
    let lose = |raw: &'static str| {
        insert(&session, "before").unwrap();
        let lost = session.with_connection(|conn| conn.batch_execute(raw)).unwrap_err();
        assert_eq!(name_of(&lost), "TransactionLost");
    };
    let handle = session.clone();
    let hook = {
        let act = Rc::clone(act);
        move || act(&handle)
    };
    match situation {
        IdleSession => {}
        ActiveTransaction | AutocommitSession => drop(insert(&session, "before")?),
        FailedByAStatement => {
            insert(&session, "before")?;
            assert!(insert(&session, "before").unwrap_err().is_unique_violation());
        }
        FailedByAPanic => {
            insert(&session, "before")?;
            let panicking = || session.with_connection::<()>(|_| std::panic::panic_any("while it held the connection"));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking)).is_err());
        }
        MarkedRollbackOnly => {
            insert(&session, "before")?;
            session.set_rollback_only("the test")?;
        }
        LostToAConstraint => {
            insert(&session, "before")?;
            assert!(insert_or_rollback(&session, "before").unwrap_err().is_unique_violation());
        }
        LostToADeadlock => {
            registry.scope(|session| {
                insert(session, "mine")?;
                insert(session, "theirs")?;
                session.commit()
            })??;
            insert(&session, "before")?;
            assert!(deadlock(&session, registry).unwrap_err().is_retryable());
        }
        LostWithItsConnection => {
            insert(&session, "before")?;
            kill(database, connection_id(&session));
            assert_eq!(answer(&insert(&session, "after")), "Statement");
        }
        LostToARawRollback => lose("ROLLBACK"),
        LostToARawCommit => lose("COMMIT"),
        LentConnection => {
            insert(&session, "before")?;
            session.with_connection(|_| {
                act(&session);
                Ok(())
            })?;
            return session.commit().map(drop);
        }
        LentRows => {
            insert(&session, "before")?;
            session.with_rows(
                notes::table.select(notes::text),
                |rows: &mut dyn Iterator<Item = QueryResult<String>>| {
                    let first = rows.next();
                    act(&session);
                    first.transpose()
                },
            )?;
            return session.commit().map(drop);
        }
        InACommitHook => {
            insert(&session, "before")?;
            session.on_commit(hook)?;
            assert!(session.commit()?.hook_errors().is_empty());
            return session.commit().map(drop);
        }
        InARollbackHook => {
            insert(&session, "before")?;
            session.on_rollback(hook)?;
            session.rollback()?;
            return session.commit().map(drop);
        }
        InASavepointsHook => {
            insert(&session, "before")?;
            let savepoint = session.begin_nested()?;
            session.on_rollback(hook)?;
            savepoint.rollback()?;
            return session.commit().map(drop);
        }
        GuardAlive => {
            insert(&session, "before")?;
            let savepoint = session.begin_nested()?;
            insert(&session, "inner")?;
            act(&session);
            let ended = savepoint.commit();
            let committed = session.commit();
            return ended.and(committed.map(drop));
        }
        OwnedByTransaction => {
            return registry.transaction(|session| {
                insert(session, "before")?;
                act(session);
                Ok(())
            });
        }
        OwnedByJob => {
            return registry.job(|session| {
                insert(session, "before")?;
                act(session);
                Ok(())
            });
        }
        ReadOnlySession => assert_eq!(number(&session, "SELECT count(*) FROM notes")?, 0),
        ClosedSession => {
            insert(&session, "before")?;
            session.close();
        }
    }
    act(&session);
    session.commit().map(drop)
}

fn drive(database: &Database, situation: Situation, operation: Op, expected: Cell, by_handle: bool) {
    let registry = database.registry_with(|builder| builder.max_size(if situation == LostToADeadlock { 2 } else { 1 }));
    registry.transaction(|session| session.execute(diesel::delete(notes::table))).unwrap();
    let log = Log::default();
    let seen = Seen::default();
    let act: Rc<dyn Fn(&Session)> = {
        let (registry, log, seen) = (registry.clone(), Rc::clone(&log), Rc::clone(&seen));
        Rc::new(move |session| {
            let answered = answer(&perform(operation, session, &registry, by_handle, &log));
            seen.replace(Some((answered, session.state())));
        })
    };
    let end = answer(&within(situation, database, &registry, &act));
    let (answered, state) = seen.take().expect("the operation was done");
    let session = registry.try_current().filter(|session| !session.is_closed());
    let is_plain = session.as_ref().is_some_and(|session| session.transaction_options() == Default::default());
    assert_eq!(session.as_ref().map_or(Idle, Session::state), Idle);
    nothing_in_use(&registry);
    let mut effect = stored(&registry);
    effect.extend(log.take());
    effect.sort();
    let cell = (answered.as_str(), state, end.as_str(), effect.iter().map(String::as_str).collect::<Vec<_>>());
    let expected = (expected.0, expected.1, expected.2, expected.3.to_vec());
    assert_eq!(cell, expected, "{}: {operation:?} in {situation:?}", db::NAME);
    // Whatever it was, the session's next unit of work goes well.
    if is_plain {
        let session = session.unwrap();
        insert(&session, "again").unwrap();
        session.commit().unwrap();
    }
    registry.remove();
    registry.transaction(|session| insert(session, "once more")).unwrap();
    assert_eq!(stored(&registry).iter().filter(|text| text.contains("more")).count(), 1);
    nothing_in_use(&registry);
}

/// Drives a row of the table, and says how many cells that were.
fn drive_row(situation: Situation) -> usize {
    let (_, row) = TABLE.iter().find(|(row, _)| *row == situation).expect("a row for each situation");
    let impossible = IMPOSSIBLE.iter().find(|(row, on, _)| *row == situation && *on == kind());
    if let Some((_, _, why)) = impossible {
        assert!(!why.is_empty());
        return 0;
    }
    let database = Database::new();
    for (operation, expected) in OPERATIONS.into_iter().zip(row) {
        drive(&database, situation, operation, *expected, false);
        if operation == Op::Close {
            drive(&database, situation, operation, *expected, true);
        }
    }
    row.len()
}

macro_rules! rows {
    ($($name:ident = $situation:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let driven = drive_row($situation);
                let is_impossible = IMPOSSIBLE.iter().any(|(row, on, _)| *row == $situation && *on == kind());
                assert_eq!(driven, if is_impossible { 0 } else { OPERATIONS.len() });
            }
        )*

        #[test]
        fn every_row_of_the_table_is_driven() {
            let driven = [$($situation),*];
            assert!(TABLE.iter().all(|(situation, _)| driven.iter().filter(|row| *row == situation).count() == 1));
            assert_eq!(driven.len(), TABLE.len());
            let impossible = IMPOSSIBLE.iter().filter(|(_, on, _)| *on == kind()).count();
            let expected = match kind() { Kind::Mysql => 1, _ => 2 };
            assert_eq!(impossible, expected, "{}", db::NAME);
        }
    };
}

rows! {
    an_idle_session = IdleSession;
    an_active_transaction = ActiveTransaction;
    a_transaction_that_a_statement_failed = FailedByAStatement;
    a_transaction_that_a_panic_failed = FailedByAPanic;
    a_transaction_that_is_rollback_only = MarkedRollbackOnly;
    a_transaction_lost_to_a_constraint = LostToAConstraint;
    a_transaction_lost_to_a_deadlock = LostToADeadlock;
    a_transaction_lost_with_its_connection = LostWithItsConnection;
    a_transaction_lost_to_a_raw_rollback = LostToARawRollback;
    a_transaction_lost_to_a_raw_commit = LostToARawCommit;
    a_lent_connection = LentConnection;
    a_row_loop = LentRows;
    a_commit_hook = InACommitHook;
    a_rollback_hook = InARollbackHook;
    a_savepoints_rollback_hook = InASavepointsHook;
    a_savepoint_guard_that_is_alive = GuardAlive;
    a_transaction_closure = OwnedByTransaction;
    a_job = OwnedByJob;
    a_read_only_session = ReadOnlySession;
    an_autocommit_session = AutocommitSession;
    a_closed_session = ClosedSession;
}

#[test]
fn a_usage_error_is_of_the_class_usage() {
    for (_, row) in TABLE {
        for (answered, ..) in row {
            let refused = matches!(
                answered,
                "InUse" | "InHook" | "NotOwner" | "SavepointOpen" | "SessionClosed" | "ReadOnly" | "NoTransaction"
            );
            let known = ["Ok", "PendingRollback", "TransactionLost", "RolledBack", "ImplicitCommit"];
            assert!(refused || known.contains(&answered), "{answered}");
        }
    }
    assert_eq!(Error::InHook.class(), diesel_session::ErrorClass::Usage);
}
