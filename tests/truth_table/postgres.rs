//! PostgreSQL.

use std::sync::mpsc::channel;

use diesel::prelude::*;

use crate::support::postgres as db;
use crate::table::{Row, check, the_session_keeps_its_word};

#[path = "contenders.rs"]
mod contenders;
#[path = "everywhere.rs"]
mod everywhere;
#[path = "killed.rs"]
mod killed;

use contenders::*;
use everywhere::*;
use killed::*;

const TRANSACTIONS: (&str, &str) = ("Transactions", "https://www.postgresql.org/docs/15/tutorial-transactions.html");

const OWN_ID: &str = "SELECT pg_backend_pid()::bigint";

#[test]
fn the_table_says_what_happens() {
    let rows = [
        swallowed(),
        swallowed_in_a_savepoint(),
        savepoint(),
        deferred_foreign_key(),
        serialization_failure_at_commit(),
        serialization_failure_at_update(),
        deadlock(),
        lock_timeout(),
        killed_idle(TERMINATED, kill),
        killed_middle(TERMINATED, kill),
        killed_commit(TERMINATED, kill),
        text("`COMMIT` as text in the middle", "COMMIT", TRANSACTIONS),
        text("`ROLLBACK` as text in the middle", "ROLLBACK", TRANSACTIONS),
        text("`BEGIN` as text in the middle", "BEGIN", TRANSACTIONS),
        begin_by_text(TRANSACTIONS),
        returned_open(),
        returned_open_by_text(),
        savepoint_left_open(),
    ];
    let mut admin = db::Conn::establish(&db::Database::new().admin_url).unwrap();
    let version = admin.number("SELECT current_setting('server_version_num')::bigint / 10000").unwrap();
    the_session_keeps_its_word(&rows);
    check("postgres.md", "PostgreSQL", &format!("PostgreSQL {version}"), &rows);
}

fn swallowed() -> Row {
    row(
        "A duplicate key is swallowed and the closure returns `Ok`",
        ("COMMIT", "https://www.postgresql.org/docs/15/sql-commit.html"),
        PLAIN,
        swallowed_error,
        swallowed_error,
    )
}

fn swallowed_in_a_savepoint() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let ended = contender.transaction(|work| {
            work.insert("first")?;
            let nested = work.nested(|work| {
                run.swallow("same INSERT again", work.insert("first"));
                Ok(())
            });
            run.swallow("savepoint", nested);
            run.note("INSERT", work.insert("then")).map(drop)
        });
        run.swallow("transaction", ended);
    }
    row(
        "A duplicate key is swallowed in a savepoint, whose closure returns `Ok`",
        ("RELEASE SAVEPOINT", "https://www.postgresql.org/docs/15/sql-release-savepoint.html"),
        PLAIN,
        steps,
        steps,
    )
}

fn savepoint() -> Row {
    row(
        "A duplicate key in a savepoint that is rolled back",
        ("ROLLBACK TO SAVEPOINT", "https://www.postgresql.org/docs/15/sql-rollback-to.html"),
        PLAIN,
        error_in_a_savepoint,
        error_in_a_savepoint,
    )
}

fn deferred_foreign_key() -> Row {
    let stage = Stage {
        prepare: "CREATE TABLE children (note INTEGER NOT NULL REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED)",
        ..PLAIN
    };
    row(
        "A deferred foreign key is violated at COMMIT",
        ("SET CONSTRAINTS", "https://www.postgresql.org/docs/15/sql-set-constraints.html"),
        stage,
        constraint_at_commit,
        constraint_at_commit,
    )
}

fn serialization_failure_at_commit() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let mut other = run.other();
        other.text("BEGIN ISOLATION LEVEL SERIALIZABLE").unwrap();
        other.count().unwrap();
        let ended = contender.transaction(|work| {
            work.count()?;
            run.note("INSERT", work.insert("row"))?;
            insert_by_other(&mut other, "other").unwrap();
            other.text("COMMIT").unwrap();
            Ok(())
        });
        run.swallow("transaction", ended);
    }
    let stage = Stage { setup: "SET default_transaction_isolation = 'serializable'", ..PLAIN };
    row(
        "Two SERIALIZABLE transactions count the rows and add one; the other one commits first",
        ("Serializable", "https://www.postgresql.org/docs/15/transaction-iso.html#XACT-SERIALIZABLE"),
        stage,
        steps,
        steps,
    )
}

fn serialization_failure_at_update() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let ended = contender.transaction(|work| {
            work.count()?;
            run.other().set(1, 7).unwrap();
            run.swallow("UPDATE", work.set(1, 1));
            run.swallow("INSERT", work.insert("after"));
            Ok(())
        });
        run.swallow("transaction", ended);
    }
    let stage = Stage { prepare: TWO_ROWS, setup: "SET default_transaction_isolation = 'repeatable read'", ..PLAIN };
    row(
        "REPEATABLE READ: UPDATE of a row that somebody changed meanwhile; the code goes on and returns `Ok`",
        ("Repeatable Read", "https://www.postgresql.org/docs/15/transaction-iso.html#XACT-REPEATABLE-READ"),
        stage,
        steps,
        steps,
    )
}

fn deadlock() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let ended = contender.transaction(|work| {
            work.set(1, 1)?;
            let (started, id) = channel();
            let mut rival = run.other();
            std::thread::scope(|scope| {
                let rival = scope.spawn(move || {
                    // Who notices a deadlock is its victim: here never the rival.
                    rival.text("SET deadlock_timeout = '1h'; BEGIN").unwrap();
                    rival.set(2, 2).unwrap();
                    started.send(rival.number(OWN_ID).unwrap()).unwrap();
                    rival.set(1, 2).unwrap();
                    rival.text("ROLLBACK").unwrap();
                });
                let id = id.recv().unwrap();
                let mut admin = run.other();
                wait_until("the rival waits for row 1", || {
                    let waits =
                        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {id} AND wait_event_type = 'Lock'");
                    admin.number(&waits).unwrap() == 1
                });
                run.swallow("UPDATE", work.set(2, 1));
                rival.join().unwrap();
            });
            run.swallow("INSERT", work.insert("after"));
            Ok(())
        });
        run.swallow("transaction", ended);
    }
    row(
        "A deadlock; the code goes on and returns `Ok`",
        ("Deadlocks", "https://www.postgresql.org/docs/15/explicit-locking.html#LOCKING-DEADLOCKS"),
        Stage { prepare: TWO_ROWS, setup: "SET deadlock_timeout = '10ms'", ..PLAIN },
        steps,
        steps,
    )
}

fn lock_timeout() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let mut holder = run.other();
        holder.text("BEGIN").unwrap();
        holder.set(1, 7).unwrap();
        let ended = contender.transaction(|work| {
            work.insert("before")?;
            run.note("UPDATE", work.set(1, 1)).map(drop)
        });
        run.swallow("transaction", ended);
        holder.text("ROLLBACK").unwrap();
    }
    row(
        "Somebody holds the row for longer than `lock_timeout`",
        ("lock_timeout", "https://www.postgresql.org/docs/15/runtime-config-client.html#GUC-LOCK-TIMEOUT"),
        Stage { prepare: TWO_ROWS, setup: "SET lock_timeout = '50ms'", ..PLAIN },
        steps,
        steps,
    )
}

fn kill(run: &Run, id: i64) {
    // Returns when it is gone.
    assert_eq!(run.other().number(&format!("SELECT pg_terminate_backend({id}, 10000)::int::bigint")).unwrap(), 1);
}

const TERMINATED: (&str, &str) =
    ("pg_terminate_backend", "https://www.postgresql.org/docs/15/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL");
