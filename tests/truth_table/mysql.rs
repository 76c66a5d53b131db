//! MySQL or MariaDB; the committed table is MariaDB's.

use std::sync::mpsc::channel;

use diesel::prelude::*;

use crate::support::mysql as db;
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

const TEXT_COMMITS: (&str, &str) = ("Implicit commit", "https://dev.mysql.com/doc/refman/8.4/en/implicit-commit.html");

const OWN_ID: &str = "SELECT CAST(connection_id() AS SIGNED)";

#[test]
fn the_table_says_what_happens() {
    let rows = [
        swallowed(),
        savepoint(),
        deadlock(),
        deadlock_in_a_savepoint(),
        lock_wait_timeout(),
        snapshot_conflict(),
        ddl(),
        killed_idle(KILL, kill),
        killed_middle(KILL, kill),
        killed_commit(KILL, kill),
        text("`COMMIT` as text in the middle", "COMMIT", TEXT_COMMITS),
        text("`ROLLBACK` as text in the middle", "ROLLBACK", TEXT_COMMITS),
        text("`BEGIN` as text in the middle", "BEGIN", TEXT_COMMITS),
        begin_by_text(TEXT_COMMITS),
        returned_open(),
        returned_open_by_text(),
        savepoint_left_open(),
    ];
    let mut admin = db::Conn::establish(&db::Database::new().admin_url).unwrap();
    let version: String =
        diesel::dsl::sql::<diesel::sql_types::Text>("SELECT version()").get_result(&mut admin).unwrap();
    let release = version.split('.').take(2).collect::<Vec<_>>().join(".");
    let name = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" };
    the_session_keeps_its_word(&rows);
    check("mysql.md", "MySQL and MariaDB", &format!("{name} {release}"), &rows);
}

fn swallowed() -> Row {
    row(
        "A duplicate key is swallowed and the closure returns `Ok`",
        ("InnoDB error handling", "https://dev.mysql.com/doc/refman/8.4/en/innodb-error-handling.html"),
        PLAIN,
        swallowed_error,
        swallowed_error,
    )
}

fn savepoint() -> Row {
    row(
        "A duplicate key in a savepoint that is rolled back",
        ("SAVEPOINT", "https://mariadb.com/kb/en/savepoint/"),
        PLAIN,
        error_in_a_savepoint,
        error_in_a_savepoint,
    )
}

/// Makes the unit of work the victim of a deadlock: InnoDB rolls back the transaction that changed less, so the rival
/// changes more. The rows 1 and 2 are found by their keys, so nothing else is locked.
fn lose_a_deadlock<W: Work>(work: &mut W, run: &Run) -> Result<(), W::Error> {
    work.set(1, 1)?;
    let (locked, is_locked) = channel();
    let mut rival = run.other();
    std::thread::scope(|scope| {
        let rival = scope.spawn(move || {
            rival.text("BEGIN").unwrap();
            rival.set(2, 2).unwrap();
            for i in 0..200 {
                rival.insert(&format!("weight {i}")).unwrap();
            }
            locked.send(()).unwrap();
            rival.set(1, 2).unwrap();
            rival.text("ROLLBACK").unwrap();
        });
        is_locked.recv().unwrap();
        let answer = run.note("UPDATE", work.set(2, 1));
        rival.join().unwrap();
        answer.map(drop)
    })
}

const DEADLOCKS: (&str, &str) =
    ("Deadlock detection", "https://dev.mysql.com/doc/refman/8.4/en/innodb-deadlock-detection.html");

fn deadlock() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let ended = contender.transaction(|work| {
            work.insert("before")?;
            drop(lose_a_deadlock(work, run));
            run.swallow("INSERT", work.insert("after"));
            Ok(())
        });
        run.swallow("transaction", ended);
    }
    row(
        "A deadlock (1213); the code goes on and returns `Ok`",
        DEADLOCKS,
        Stage { prepare: TWO_ROWS, ..PLAIN },
        steps,
        steps,
    )
}

fn deadlock_in_a_savepoint() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let ended = contender.transaction(|work| {
            work.insert("before")?;
            run.swallow("savepoint", work.nested(|work| lose_a_deadlock(work, run)));
            run.swallow("INSERT", work.insert("after"));
            Ok(())
        });
        run.swallow("transaction", ended);
    }
    row(
        "A deadlock (1213) inside a savepoint, which is rolled back; the code goes on and returns `Ok`",
        DEADLOCKS,
        Stage { prepare: TWO_ROWS, ..PLAIN },
        steps,
        steps,
    )
}

fn lock_wait_timeout() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let mut holder = run.other();
        holder.text("BEGIN").unwrap();
        holder.set(1, 7).unwrap();
        let ended = contender.transaction(|work| {
            work.insert("before")?;
            run.swallow("UPDATE", work.set(1, 1));
            run.swallow("INSERT", work.insert("after"));
            Ok(())
        });
        run.swallow("transaction", ended);
        holder.text("ROLLBACK").unwrap();
    }
    row(
        "Somebody holds the row for longer than `innodb_lock_wait_timeout` (1205); the code goes on and returns `Ok`",
        ("InnoDB error handling", "https://dev.mysql.com/doc/refman/8.4/en/innodb-error-handling.html"),
        Stage { prepare: TWO_ROWS, setup: "SET SESSION innodb_lock_wait_timeout = 1", ..PLAIN },
        steps,
        steps,
    )
}

fn snapshot_conflict() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let ended = contender.transaction(|work| {
            work.insert("before")?;
            work.count()?;
            run.other().set(1, 7).unwrap();
            run.swallow("UPDATE", work.set(1, 1));
            run.swallow("INSERT", work.insert("after"));
            Ok(())
        });
        run.swallow("transaction", ended);
    }
    row(
        "`innodb_snapshot_isolation`: UPDATE of a row that somebody changed meanwhile (1020); the code goes on and returns `Ok`",
        ("innodb_snapshot_isolation", "https://mariadb.com/kb/en/innodb-system-variables/#innodb_snapshot_isolation"),
        Stage { prepare: TWO_ROWS, setup: "SET SESSION innodb_snapshot_isolation = ON", ..PLAIN },
        steps,
        steps,
    )
}

fn ddl() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let ended = contender.transaction(|work| {
            work.insert("before")?;
            run.note("`CREATE TABLE`", work.text("CREATE TABLE made (id INTEGER)"))?;
            run.note("INSERT", work.insert("after"))?;
            // Something goes wrong, and all is to be undone.
            work.insert("before").map(drop)
        });
        run.swallow("transaction that fails at its end", ended);
    }
    row("DDL in the middle", TEXT_COMMITS, PLAIN, steps, steps)
}

fn kill(run: &Run, id: i64) {
    let mut admin = run.other();
    admin.text(&format!("KILL {id}")).unwrap();
    wait_until("the connection is gone", || {
        admin.number(&format!("SELECT count(*) FROM information_schema.processlist WHERE id = {id}")).unwrap() == 0
    });
}

const KILL: (&str, &str) = ("KILL", "https://mariadb.com/kb/en/kill/");
