//! What a session or a transaction is asked for: read-only, isolation, begin modes, autocommit; and that none of it, nor
//! what raw SQL changed, stays on the connection.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use diesel_session::{
    BeginMode, Error, IsolationLevel, Kind, Result, SessionOptions, SessionState, TransactionOptions, autocommit,
    read_only,
};

use super::db::{self, Database, Registry, Session, insert, stored, texts};
use super::notes;
use super::tools::{answer, kind, logged, nothing_in_use, number, sent, sql};

#[test]
fn a_read_only_session_refuses_writes_and_leaves_nothing_of_it_behind() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    registry.transaction(|session| insert(session, "row")).unwrap();
    for round in 0..3 {
        let session = registry.current_with(read_only()).unwrap();
        assert_eq!(texts(&session).len(), 1 + round);
        assert!(matches!(insert(&session, "refused"), Err(Error::ReadOnly)));
        let update = diesel::update(notes::table).set(notes::n.eq(1));
        assert!(matches!(session.execute(update), Err(Error::ReadOnly)));
        assert!(matches!(session.execute(diesel::delete(notes::table)), Err(Error::ReadOnly)));
        // A usage error changed nothing; what only the database can refuse fails the transaction.
        assert_eq!(texts(&session).len(), 1 + round);
        assert!(session.batch_execute("INSERT INTO notes (text, n) VALUES ('refused', 0)").is_err());
        assert_eq!(session.state(), SessionState::Failed);
        session.rollback().unwrap();
        let raw = session.with_connection(|conn| conn.batch_execute("DELETE FROM notes"));
        assert!(raw.is_err(), "{}", db::NAME);
        registry.remove();
        // The pool's one connection takes writes again.
        registry.transaction(|session| insert(session, &format!("row {round}"))).unwrap();
        registry.read(|session| session.load::<String>(notes::table.select(notes::text))).unwrap();
        // The same session may do both, one after the other.
        let session = registry.current().unwrap();
        session.begin_with(read_only()).unwrap();
        assert!(matches!(insert(&session, "refused"), Err(Error::ReadOnly)));
        session.commit().unwrap();
        insert(&session, "undone").unwrap();
        session.rollback().unwrap();
        registry.remove();
    }
    assert_eq!(stored(&registry), ["row", "row 0", "row 1", "row 2"]);
    nothing_in_use(&registry);
}

#[test]
fn options_hold_for_one_transaction_and_come_too_late_for_an_open_one() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "row").unwrap();
    session.commit().unwrap();
    let serializable = TransactionOptions::new().isolation(IsolationLevel::Serializable);
    session.begin_with(serializable).unwrap();
    assert!(session.in_transaction());
    assert_eq!(registry.engine().connections_in_use().len(), 0, "nothing is sent yet");
    assert_eq!(answer(&session.begin_with(serializable)), "AlreadyBegun");
    assert_eq!(answer(&session.begin()), "AlreadyBegun");
    // Whether the open transaction, which has read a row, is serializable.
    let is_serializable = || match kind() {
        Kind::Postgres => {
            let level = "SELECT (current_setting('transaction_isolation') = 'serializable')::int::bigint";
            number(&session, level).unwrap() == 1
        }
        Kind::Mysql => {
            // There a serializable transaction locks what it reads.
            let rival = Session::new(registry.engine());
            let locked = number(&rival, "SELECT CAST(id AS SIGNED) FROM notes FOR UPDATE NOWAIT").is_err();
            rival.rollback().unwrap();
            locked
        }
        _ => true,
    };
    assert_eq!(texts(&session), ["row"]);
    assert!(is_serializable());
    assert_eq!(answer(&session.begin_with(read_only())), "AlreadyBegun");
    session.commit().unwrap();
    // The next one has the engine's own again.
    assert_eq!(texts(&session), ["row"]);
    assert_eq!(is_serializable(), kind() == Kind::Sqlite, "{}", db::NAME);
    session.commit().unwrap();
    for (options, refused) in [
        (autocommit().isolation(IsolationLevel::Serializable), true),
        (read_only().begin_mode(BeginMode::Immediate), true),
        (read_only().begin_mode(BeginMode::Deferred), false),
    ] {
        assert_eq!(session.begin_with(options).is_err(), refused);
        assert_eq!(Session::with_options(registry.engine(), options).is_err(), refused);
        session.rollback().unwrap();
    }
    registry.remove();
}

#[test]
fn sqlite_begins_as_it_is_asked_and_others_ignore_that() {
    let database = Database::new();
    let registry = database.registry_with(logged);
    let session = registry.current().unwrap();
    texts(&session);
    session.rollback().unwrap();
    let modes = [
        (None, "BEGIN IMMEDIATE"),
        (Some(BeginMode::Deferred), "BEGIN"),
        (Some(BeginMode::Immediate), "BEGIN IMMEDIATE"),
        (Some(BeginMode::Exclusive), "BEGIN EXCLUSIVE"),
    ];
    for (mode, begin) in modes {
        let sent = sent(|| {
            if let Some(mode) = mode {
                session.begin_with(TransactionOptions::new().begin_mode(mode)).unwrap();
            }
            texts(&session);
            session.rollback().unwrap();
        });
        let begin = sql(begin, "BEGIN", "START TRANSACTION");
        assert_eq!(sent[0].replace(" -- binds: []", ""), begin, "{mode:?} on {}", db::NAME);
    }
    registry.remove();
}

#[test]
fn without_autobegin_a_statement_needs_a_begin() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current_with(SessionOptions::new().autobegin(false)).unwrap();
    assert_eq!(answer(&insert(&session, "row")), "AutobeginDisabled");
    assert_eq!(answer(&session.begin_nested()), "AutobeginDisabled");
    session.begin().unwrap();
    insert(&session, "row").unwrap();
    session.commit().unwrap();
    assert_eq!(answer(&insert(&session, "next")), "AutobeginDisabled");
    registry.remove();
    assert_eq!(stored(&registry), ["row"]);
}

#[test]
fn an_autocommit_session_stores_each_statement_and_holds_nothing_between_them() {
    let database = Database::new();
    let registry = database.registry_with(|builder| logged(builder).max_size(1));
    let session = registry.current_with(autocommit()).unwrap();
    texts(&session);
    let sent = sent(|| {
        insert(&session, "row").unwrap();
        assert_eq!(texts(&session), ["row"]);
    });
    assert_eq!(sent.len(), 2, "{sent:?}");
    nothing_in_use(&registry);
    assert_eq!(stored(&registry), ["row"]);
    assert!(insert(&session, "row").unwrap_err().is_unique_violation());
    assert_eq!(session.state(), SessionState::Idle, "nothing failed but the statement");
    insert(&session, "then").unwrap();
    // A panic gives the connection back too, and what raw code left open is not stored.
    let panicked = catch_unwind(AssertUnwindSafe(|| session.with_connection::<()>(|_| panic!("while it is lent"))));
    assert!(panicked.is_err());
    nothing_in_use(&registry);
    session
        .with_connection(|conn| {
            conn.batch_execute("BEGIN")?;
            conn.batch_execute("INSERT INTO notes (text, n) VALUES ('left open', 0)")
        })
        .ok();
    session.commit().unwrap();
    assert_eq!(answer(&session.begin_nested()), "NoTransaction");
    session.begin_with(TransactionOptions::new()).unwrap();
    insert(&session, "in a transaction").unwrap();
    session.commit().unwrap();
    insert(&session, "last").unwrap();
    registry.remove();
    assert_eq!(stored(&registry), ["in a transaction", "last", "row", "then"], "{}", db::NAME);
    nothing_in_use(&registry);
}

#[test]
fn what_raw_sql_changed_on_a_connection_does_not_reach_its_next_user() {
    if kind() != Kind::Sqlite {
        // Elsewhere the engine's `reset` closure is the place for it.
        let database = Database::new();
        let registry = database.registry_with(|builder| {
            builder.max_size(1).reset(|conn| conn.batch_execute(sql("", "RESET ALL", "SET SESSION sql_mode = DEFAULT")))
        });
        let changed = sql(
            "",
            "SELECT CASE current_setting('search_path') WHEN 'nowhere' THEN 1 ELSE 0 END::bigint",
            "SELECT CAST(@@sql_mode = 'ANSI' OR @@sql_mode LIKE '%ANSI%' AS SIGNED)",
        );
        let change = sql("", "SET search_path = nowhere", "SET SESSION sql_mode = 'ANSI'");
        registry
            .transaction(|session| {
                session.batch_execute(change)?;
                assert_eq!(number(session, changed)?, 1);
                Ok::<_, Error>(())
            })
            .unwrap();
        assert_eq!(registry.transaction(|session| number(session, changed)).unwrap(), 0, "{}", db::NAME);
        return;
    }
    // Inside a transaction SQLite refuses to change `synchronous` and ignores `foreign_keys`.
    const INSIDE: &str = "PRAGMA query_only = 1; PRAGMA busy_timeout = 1";
    const CHANGES: &str =
        "PRAGMA query_only = 1; PRAGMA busy_timeout = 1; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF";
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    type Change = fn(&Registry) -> Result<()>;
    let changes: [Change; 5] = [
        |registry| registry.transaction(|session| session.with_connection(|conn| conn.batch_execute(INSIDE))),
        |registry| registry.transaction(|session| session.batch_execute(INSIDE)),
        |registry| registry.current_with(autocommit())?.with_connection(|conn| conn.batch_execute(CHANGES)),
        |registry| registry.current_with(autocommit())?.batch_execute(CHANGES),
        |registry| {
            let session = registry.current_with(autocommit())?;
            CHANGES.split("; ").try_for_each(|change| session.execute(diesel::sql_query(change)).map(drop))
        },
    ];
    for (i, change) in changes.into_iter().enumerate() {
        change(&registry).unwrap();
        registry.remove();
        let session = registry.current().unwrap();
        insert(&session, &format!("row {i}")).unwrap();
        for (pragma, expected) in [("query_only", 0), ("synchronous", 2), ("busy_timeout", 5_000), ("foreign_keys", 1)]
        {
            let value = session.get_result::<i32>(diesel::dsl::sql::<Integer>(&format!("PRAGMA {pragma}"))).unwrap();
            assert_eq!(value, expected, "{pragma} after change {i} on {}", db::NAME);
        }
        session.commit().unwrap();
        registry.remove();
    }
    assert_eq!(stored(&registry).len(), 5);
}

/// What raw text leaves on a connection, and a number that is 0 on a new one.
fn leavings() -> Vec<(&'static str, &'static str)> {
    match kind() {
        Kind::Postgres => vec![
            (
                "CREATE TEMP TABLE notes (text TEXT)",
                "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
            ),
            (
                "SELECT pg_advisory_lock(77)",
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            ),
            ("LISTEN left_on", "SELECT count(*) FROM pg_listening_channels()"),
            ("DECLARE left_open CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors WHERE is_holdable"),
            ("SET ROLE pg_monitor", "SELECT (current_user <> session_user)::int::bigint"),
            ("SET search_path = nowhere", "SELECT (current_setting('search_path') = 'nowhere')::int::bigint"),
        ],
        Kind::Mysql => vec![
            ("USE information_schema", "SELECT CAST(database() = 'information_schema' AS SIGNED)"),
            ("LOCK TABLES notes WRITE", "SELECT count(*) FROM mysql.help_topic WHERE 1 = 0"),
            (
                "DO GET_LOCK(concat(database(), '.left'), 1)",
                "SELECT CAST(coalesce(is_used_lock(concat(database(), '.left')), 0) AS SIGNED)",
            ),
            ("SET SESSION sql_mode = ''", "SELECT CAST(@@sql_mode = '' AS SIGNED)"),
            (
                "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
                "SELECT CAST(@@tx_isolation = 'READ-UNCOMMITTED' AS SIGNED)",
            ),
            ("SET SESSION TRANSACTION READ ONLY", "SELECT CAST(@@tx_read_only AS SIGNED)"),
            (
                "SET SESSION foreign_key_checks = 0, unique_checks = 0",
                "SELECT CAST(@@foreign_key_checks = 0 OR @@unique_checks = 0 AS SIGNED)",
            ),
            ("SET SESSION time_zone = '+05:00'", "SELECT CAST(@@time_zone <> '+00:00' AS SIGNED)"),
            ("SET NAMES latin1", "SELECT CAST(@@character_set_connection <> 'utf8mb4' AS SIGNED)"),
            ("SET SESSION innodb_lock_wait_timeout = 1", "SELECT CAST(@@innodb_lock_wait_timeout = 1 AS SIGNED)"),
            ("SET SESSION autocommit = 0", "SELECT CAST(@@autocommit = 0 AS SIGNED)"),
        ],
        _ => vec![
            ("CREATE TEMP TABLE notes (text TEXT UNIQUE)", "SELECT count(*) FROM sqlite_temp_master"),
            (
                "CREATE TEMP VIEW \"a \"\"view\"\"\" AS SELECT 1; CREATE TEMP TABLE held (id INTEGER); CREATE TEMP TRIGGER \
                 refuse BEFORE INSERT ON main.notes BEGIN SELECT RAISE(ABORT, 'left'); END; PRAGMA query_only = 1",
                "SELECT count(*) FROM sqlite_temp_master",
            ),
            (
                "ATTACH ':memory:' AS \"another \"\"one\"\"\"",
                "SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp')",
            ),
        ],
    }
}

#[test]
fn what_a_connection_has_for_itself_does_not_reach_its_next_user() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    for (leave, look) in leavings() {
        registry.request(autocommit(), |session| session.batch_execute(leave)).unwrap();
        let session = Session::new(registry.engine());
        assert_eq!(number(&session, look).unwrap(), 0, "{leave} on {}", db::NAME);
        insert(&session, leave).unwrap();
        session.commit().unwrap();
    }
    assert_eq!(stored(&registry).len(), leavings().len());
}

#[test]
fn autocommit_that_a_set_up_turned_off_is_turned_on_again() {
    if kind() != Kind::Mysql {
        return assert_ne!(kind(), Kind::Mysql, "the others have no such setting on the server");
    }
    const OFF: &str = "SET SESSION autocommit = 0";
    let database = Database::new();
    let registry = database.registry();
    let write = |text: &str| format!("{OFF}; INSERT INTO notes (text, n) VALUES ('{text}', 0)");
    let engine = database
        .builder()
        .max_size(1)
        .setup(move |conn| conn.batch_execute(&write("by the set-up")))
        .reset(|conn| conn.batch_execute(OFF))
        .build()
        .unwrap();
    for (text, is_raw) in [("new", false), ("used", true), ("reset", false)] {
        let session = Session::with_options(&engine, autocommit()).unwrap();
        if is_raw {
            session.batch_execute(OFF).unwrap();
        }
        insert(&session, text).unwrap();
    }
    assert_eq!(stored(&registry), ["new", "reset", "used"]);
}

#[test]
fn a_read_only_autocommit_session_refuses_writes_of_text_too() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current_with(autocommit().read_only()).unwrap();
    assert!(session.batch_execute("INSERT INTO notes (text, n) VALUES ('text', 0)").is_err());
    assert!(
        session
            .with_connection(|conn| {
                diesel::insert_into(notes::table).values((notes::text.eq("lent"), notes::n.eq(0))).execute(conn)
            })
            .is_err()
    );
    assert!(texts(&session).is_empty());
    registry.remove();
    assert!(stored(&registry).is_empty());
}
