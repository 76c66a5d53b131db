//! SQLite in a file.

use std::sync::atomic::{AtomicBool, Ordering};

use diesel::prelude::*;
use diesel_session::JournalMode;

use crate::support::sqlite_file as db;
use crate::table::{Row, check, the_session_keeps_its_word};

#[path = "contenders.rs"]
mod contenders;
#[path = "everywhere.rs"]
mod everywhere;

use contenders::*;
use everywhere::*;

const TRANSACTIONS: (&str, &str) = ("Transactions", "https://sqlite.org/lang_transaction.html");

#[test]
fn the_table_says_what_happens() {
    let rows = [
        swallowed(),
        savepoint(),
        busy_commit(),
        busy_commit_for_a_moment(),
        snapshot_upgrade(),
        insert_or_rollback(),
        disk_full(),
        deferred_foreign_key(),
        text("`COMMIT` as text in the middle", "COMMIT", TRANSACTIONS),
        text("`ROLLBACK` as text in the middle", "ROLLBACK", TRANSACTIONS),
        text("`BEGIN` as text in the middle", "BEGIN", TRANSACTIONS),
        begin_by_text(TRANSACTIONS),
        returned_open(),
        returned_open_by_text(),
        savepoint_left_open(),
    ];
    let mut conn = db::Conn::establish(":memory:").unwrap();
    let version: String =
        diesel::dsl::sql::<diesel::sql_types::Text>("SELECT sqlite_version()").get_result(&mut conn).unwrap();
    the_session_keeps_its_word(&rows);
    check("sqlite.md", "SQLite", &format!("SQLite {version}, in a file"), &rows);
}

fn swallowed() -> Row {
    row(
        "A duplicate key is swallowed and the closure returns `Ok`",
        ("ON CONFLICT: ABORT", "https://sqlite.org/lang_conflict.html"),
        PLAIN,
        swallowed_error,
        swallowed_error,
    )
}

fn savepoint() -> Row {
    row(
        "A duplicate key in a savepoint that is rolled back",
        ("Savepoints", "https://sqlite.org/lang_savepoint.html"),
        PLAIN,
        error_in_a_savepoint,
        error_in_a_savepoint,
    )
}

fn busy_commit() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let mut reader = run.other();
        reader.text("BEGIN").unwrap();
        reader.count().unwrap();
        let ended = contender.transaction(|work| run.note("INSERT", work.insert("row")).map(drop));
        run.swallow("transaction, while another process reads", ended);
        reader.text("ROLLBACK").unwrap();
        let ended = contender.transaction(|work| work.insert("next").map(drop));
        run.swallow("next transaction", ended);
    }
    let stage = Stage {
        engine: |builder| builder.journal_mode(JournalMode::Delete).busy_timeout(std::time::Duration::from_millis(50)),
        ..PLAIN
    };
    row(
        "COMMIT with a rollback journal while another process reads for longer than the busy time-out",
        ("File locking", "https://sqlite.org/lockingv3.html"),
        stage,
        steps,
        steps,
    )
}

fn busy_commit_for_a_moment() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let (mut reader, mut probe) = (run.other(), run.other());
        reader.text("BEGIN").unwrap();
        reader.count().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // COMMIT keeps new readers out while it waits for those that are there.
                wait_until("COMMIT waits or is over", || over.load(Ordering::Relaxed) || probe.count().is_err());
                reader.text("ROLLBACK").unwrap();
            });
            let ended = contender.transaction(|work| work.insert("row").map(drop));
            over.store(true, Ordering::Relaxed);
            run.swallow("transaction, while another process reads", ended);
        });
    }
    row(
        "COMMIT with a rollback journal while another process still reads for a moment",
        ("File locking", "https://sqlite.org/lockingv3.html"),
        Stage { engine: |builder| builder.journal_mode(JournalMode::Delete), ..PLAIN },
        steps,
        steps,
    )
}

fn snapshot_upgrade() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let mut other = run.other();
        let ended = contender.transaction(|work| {
            work.count()?;
            run.swallow("another process's INSERT", insert_by_other(&mut other, "other"));
            run.note("INSERT", work.insert("row")).map(drop)
        });
        run.swallow("transaction", ended);
    }
    row(
        "A transaction reads, another process wants to write, the transaction writes (WAL)",
        ("SQLITE_BUSY_SNAPSHOT", "https://sqlite.org/rescode.html#busy_snapshot"),
        Stage { prepare: "PRAGMA journal_mode = WAL", ..PLAIN },
        steps,
        steps,
    )
}

fn insert_or_rollback() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let ended = contender.transaction(|work| {
            work.insert("before")?;
            let again = work.query("INSERT OR ROLLBACK INTO notes (text, n) VALUES ('before', 0)");
            run.swallow("INSERT OR ROLLBACK", again);
            run.swallow("INSERT", work.insert("after"));
            Ok(())
        });
        run.swallow("transaction", ended);
    }
    row(
        "`INSERT OR ROLLBACK` meets a duplicate; the code goes on and returns `Ok`",
        ("ON CONFLICT: ROLLBACK", "https://sqlite.org/lang_conflict.html"),
        PLAIN,
        steps,
        steps,
    )
}

fn disk_full() -> Row {
    fn steps<C: Contender>(contender: &mut C, run: &Run) {
        let ended = contender.transaction(|work| {
            work.insert("before")?;
            run.swallow("INSERT of too much", work.insert(&"x".repeat(1_000_000)));
            run.swallow("INSERT", work.insert("after"));
            Ok(())
        });
        run.swallow("transaction", ended);
    }
    // The pages that are there, and no more.
    let stage = Stage { setup: "PRAGMA max_page_count = 1", ..PLAIN };
    row(
        "The disk is full (`max_page_count`); the code goes on and returns `Ok`",
        ("Errors within a transaction", "https://sqlite.org/lang_transaction.html"),
        stage,
        steps,
        steps,
    )
}

fn deferred_foreign_key() -> Row {
    let stage = Stage {
        prepare: "CREATE TABLE children (note INTEGER NOT NULL REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED)",
        setup: "PRAGMA foreign_keys = ON",
        ..PLAIN
    };
    row(
        "A deferred foreign key is violated at COMMIT",
        ("Deferred foreign keys", "https://sqlite.org/foreignkeys.html#fk_deferred"),
        stage,
        constraint_at_commit,
        constraint_at_commit,
    )
}
