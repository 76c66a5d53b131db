//! Whatever ends a transaction behind the session's back is noticed at once: nothing more is sent, because it would be
//! stored by itself, and commit does not say `Ok`.

use diesel::connection::{SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel_session::testing::{Call, Fault, FaultPlan};
use diesel_session::{
    Cause, Error, ErrorClass, Kind, Reason, Result, RetryPolicy, SessionState, TransactionOptions, autocommit,
};

use super::db::{self, Conn, Database, Registry, Session, insert, stored};
use super::notes;
use super::tools::{answer, connection_id, deadlock, goes_on, kill, kind, logged, sent};

/// What ends the transaction, in text.
struct Way {
    text: &'static str,
    /// Whether what came before it is stored.
    stores: bool,
}

const fn stores(text: &'static str) -> Way {
    Way { text, stores: true }
}

const fn undoes(text: &'static str) -> Way {
    Way { text, stores: false }
}

fn ways() -> Vec<Way> {
    let mut ways = vec![
        stores("COMMIT"),
        undoes("ROLLBACK"),
        stores("COMMIT; SELECT nothing FROM nowhere"),
        undoes("ROLLBACK; SELECT nothing FROM nowhere"),
    ];
    ways.extend(match kind() {
        Kind::Postgres => vec![
            stores("END"),
            undoes("ABORT"),
            undoes("ROLLBACK; SELECT 1"),
            stores("COMMIT AND CHAIN"),
            undoes("ROLLBACK AND CHAIN"),
            stores("COMMIT; BEGIN"),
            undoes("ROLLBACK; BEGIN; SAVEPOINT a"),
            stores("COMMIT; BEGIN; SELECT nothing FROM nowhere"),
            stores("COMMIT AND CHAIN; SELECT nothing FROM nowhere"),
        ],
        Kind::Mysql => vec![
            stores("CREATE TABLE another (id INTEGER)"),
            stores("DROP TABLE IF EXISTS another"),
            stores("CREATE INDEX by_n ON notes (n)"),
            stores("ALTER TABLE notes DROP INDEX by_n"),
            stores("START TRANSACTION"),
            stores("BEGIN"),
            stores("COMMIT AND CHAIN"),
            undoes("ROLLBACK AND CHAIN"),
            stores("COMMIT; START TRANSACTION"),
            undoes("ROLLBACK; START TRANSACTION"),
            stores("LOCK TABLES notes WRITE; UNLOCK TABLES"),
            stores("CREATE TABLE notes (id INTEGER)"),
        ],
        _ => vec![
            stores("END"),
            stores("COMMIT; BEGIN"),
            undoes("ROLLBACK; BEGIN"),
            undoes("ROLLBACK; BEGIN IMMEDIATE; SELECT nothing FROM nowhere"),
            undoes("INSERT OR ROLLBACK INTO notes (text, n) VALUES ('row', 0)"),
        ],
    });
    ways
}

type Send = fn(&Session, &str) -> Result<()>;

/// How a text reaches the database.
const ROADS: [(&str, Send); 4] = [
    ("batch_execute", |session, text| session.batch_execute(text)),
    ("with_connection", |session, text| session.with_connection(|conn| conn.batch_execute(text))),
    ("swallowed in with_connection", |session, text| {
        session.with_connection(|conn| {
            let _ = conn.batch_execute(text);
            Ok(())
        })
    }),
    ("sql_query", |session, text| session.execute(diesel::sql_query(text)).map(drop)),
];

fn empty(registry: &Registry) {
    registry.transaction(|session| session.execute(diesel::delete(notes::table)).map(drop)).unwrap();
}

#[test]
fn every_text_that_ends_the_transaction_is_noticed_on_every_road() {
    let database = Database::new();
    let registry = database.registry_with(logged);
    for way in ways() {
        for (road, send) in ROADS {
            // One statement only; PostgreSQL's parser refuses more.
            if road == "sql_query" && way.text.contains(';') {
                continue;
            }
            for nested in [false, true] {
                let what = format!("{} by {road}, nested: {nested}, on {}", way.text, db::NAME);
                let session = registry.current().unwrap();
                insert(&session, "row").unwrap();
                let savepoint = nested.then(|| session.begin_nested().unwrap());
                let answered = send(&session, way.text);
                assert_eq!(session.state(), SessionState::Lost, "{what}: {answered:?}");
                assert!(answered.is_err(), "{what}");
                let sent = sent(|| assert_eq!(answer(&insert(&session, "after")), "TransactionLost", "{what}"));
                assert_eq!(sent, [] as [String; 0], "{what}");
                if let Some(savepoint) = savepoint {
                    assert_eq!(answer(&savepoint.commit()), "TransactionLost", "{what}");
                }
                let committed = session.commit().unwrap_err();
                let may_be_stored = matches!(committed, Error::ImplicitCommit { .. });
                assert!(may_be_stored || matches!(committed, Error::RolledBack { .. }), "{what}: {committed}");
                // Nobody may say that nothing is stored when something is.
                assert!(may_be_stored || !way.stores, "{what}: {committed}");
                let rows: &[&str] = if way.stores { &["row"] } else { &[] };
                assert_eq!(stored(&registry), rows, "{what}");
                insert(&session, "next").unwrap();
                session.commit().unwrap();
                registry.remove();
                empty(&registry);
                // The same in the hands of an owner that swallows it.
                let owned = registry.transaction(|session| {
                    insert(session, "row")?;
                    let _ = send(session, way.text);
                    let _ = insert(session, "after");
                    Ok::<_, Error>(())
                });
                let owned = owned.unwrap_err();
                assert!(!way.stores || owned.class() == ErrorClass::Ambiguous, "{what}: {owned}");
                assert_eq!(stored(&registry), rows, "{what}");
                empty(&registry);
            }
        }
    }
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn an_error_after_a_raw_commit_does_not_hide_it() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "row").unwrap();
    let lent = session.with_connection::<()>(|conn| {
        conn.batch_execute("COMMIT")?;
        Err(diesel::result::Error::NotFound)
    });
    assert!(lent.is_err());
    assert_eq!(answer(&insert(&session, "after")), "TransactionLost");
    assert_eq!(answer(&session.commit()), "ImplicitCommit");
    goes_on(&registry, &session, &["row"]);
}

#[test]
fn savepoints_of_the_users_own_on_the_lent_connection_lose_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    for nested in [false, true] {
        let savepoint = nested.then(|| session.begin_nested().unwrap());
        session
            .with_connection(|conn| {
                conn.batch_execute("SAVEPOINT a")?;
                conn.batch_execute("INSERT INTO notes (text, n) VALUES ('undone', 0)")?;
                conn.batch_execute("SAVEPOINT b")?;
                conn.batch_execute("ROLLBACK TO SAVEPOINT a")?;
                conn.batch_execute("RELEASE SAVEPOINT a")?;
                // One that is left open.
                conn.batch_execute("SAVEPOINT kept")?;
                conn.transaction(|conn| conn.batch_execute("SELECT 1"))
            })
            .unwrap();
        insert(&session, if nested { "nested" } else { "root" }).unwrap();
        if let Some(savepoint) = savepoint {
            savepoint.commit().unwrap();
        }
    }
    session.commit().unwrap();
    goes_on(&registry, &session, &["nested", "root"]);
}

#[test]
fn settings_and_savepoints_of_a_transaction_on_postgresql_may_be_sent_one_by_one() {
    if kind() != Kind::Postgres {
        return assert_ne!(kind(), Kind::Postgres, "the others keep no savepoint of raw text beyond its call");
    }
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    // Refused after the first query of the transaction, and in a savepoint.
    session.batch_execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").unwrap();
    session.batch_execute("SET TRANSACTION DEFERRABLE").unwrap();
    for nested in [false, true] {
        let savepoint = nested.then(|| session.begin_nested().unwrap());
        session.batch_execute("SAVEPOINT a").unwrap();
        insert(&session, "undone").unwrap();
        let inner = session.begin_nested().unwrap();
        session.batch_execute("SELECT 1").unwrap();
        inner.rollback().unwrap();
        session.execute(diesel::sql_query("ROLLBACK TO SAVEPOINT a")).unwrap();
        insert(&session, if nested { "nested" } else { "root" }).unwrap();
        session.batch_execute("RELEASE SAVEPOINT a").unwrap();
        if let Some(savepoint) = savepoint {
            savepoint.commit().unwrap();
        }
    }
    session.commit().unwrap();
    goes_on(&registry, &session, &["nested", "root"]);
}

#[test]
fn a_trigger_that_rolls_everything_back_is_noticed() {
    if kind() != Kind::Sqlite {
        return assert_ne!(kind(), Kind::Sqlite, "RAISE(ROLLBACK) is SQLite's");
    }
    let database = Database::new();
    let registry = database.registry();
    let trigger =
        "CREATE TRIGGER no_bad BEFORE INSERT ON notes WHEN NEW.text = 'bad' BEGIN SELECT RAISE(ROLLBACK, 'bad'); END";
    registry.transaction(|session| session.batch_execute(trigger)).unwrap();
    for nested in [false, true] {
        let session = registry.current().unwrap();
        insert(&session, "row").unwrap();
        let savepoint = nested.then(|| session.begin_nested().unwrap());
        assert!(insert(&session, "bad").is_err());
        assert_eq!(session.state(), SessionState::Lost);
        drop(savepoint);
        assert_eq!(answer(&insert(&session, "after")), "TransactionLost");
        assert_eq!(answer(&session.commit()), "RolledBack");
        registry.remove();
    }
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

/// Brings MariaDB's 1020 about: a row changes under a snapshot that refuses to see it.
fn change_under_the_snapshot(session: &Session, registry: &Registry) -> Result<usize> {
    session.execute(diesel::sql_query("SET SESSION innodb_snapshot_isolation = ON")).unwrap();
    insert(session, "row").unwrap();
    assert_eq!(db::texts(session), ["mine", "row", "theirs"]);
    let set = |n: i32| diesel::update(notes::table.filter(notes::text.eq("mine"))).set(notes::n.eq(n));
    let other = Session::new(registry.engine());
    other.execute(set(1)).unwrap();
    other.commit().unwrap();
    session.execute(set(2))
}

#[test]
fn a_transaction_that_mysql_rolled_back_by_itself_stores_nothing_afterwards() {
    if kind() != Kind::Mysql {
        return assert_ne!(kind(), Kind::Mysql, "the others abort such a transaction and keep it");
    }
    type Lose = fn(&Session, &Registry) -> Result<usize>;
    let ways: [(&str, Lose); 3] = [
        ("1213", |session, registry| {
            insert(session, "row")?;
            deadlock(session, registry)
        }),
        ("1020", change_under_the_snapshot),
        ("1020 in another language", |session, registry| {
            session.execute(diesel::sql_query("SET SESSION lc_messages = 'de_DE'")).unwrap();
            change_under_the_snapshot(session, registry)
        }),
    ];
    for (name, lose) in ways {
        for nested in [false, true] {
            let database = Database::new();
            let registry = database.registry();
            registry
                .transaction(|session| {
                    insert(session, "mine")?;
                    insert(session, "theirs").map(drop)
                })
                .map_err(|error: Error| error)
                .unwrap();
            let session = registry.current().unwrap();
            let savepoint = nested.then(|| session.begin_nested().unwrap());
            let error = lose(&session, &registry).unwrap_err();
            assert_eq!(session.state(), SessionState::Lost, "{name}: {error}");
            let sent = sent(|| assert_eq!(answer(&insert(&session, "after")), "TransactionLost"));
            assert!(sent.is_empty(), "{sent:?}");
            drop(savepoint);
            let committed = session.commit().unwrap_err();
            assert!(matches!(committed, Error::RolledBack { .. }), "{name}: {committed}");
            assert!(!name.ends_with("language") || committed.class() == ErrorClass::Fatal, "{name}: {committed}");
            goes_on(&registry, &session, &["mine", "theirs"]);
        }
    }
}

#[test]
fn a_connection_that_dies_under_raw_use_is_noticed_though_the_closure_hides_it() {
    if !db::REMOTE {
        return assert_eq!(kind(), Kind::Sqlite, "the database is in this process: there is no connection to lose");
    }
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "row").unwrap();
    kill(&database, connection_id(&session));
    let lent = session.with_connection(|conn: &mut Conn| {
        let _ = conn.batch_execute("INSERT INTO notes (text, n) VALUES ('then', 0)");
        Ok(())
    });
    let error = lent.unwrap_err();
    assert_eq!(session.state(), SessionState::Lost, "{error}");
    assert_eq!(answer(&insert(&session, "after")), "TransactionLost");
    // What the closure sent can't have committed.
    assert_eq!(answer(&session.commit()), "RolledBack");
    goes_on(&registry, &session, &[]);
}

#[test]
fn nobody_knows_of_a_statement_in_autocommit_whose_answer_never_came() {
    let database = Database::new();
    let registry = database.registry();
    let faults = FaultPlan::new();
    let engine = database.builder().faults(&faults).build().unwrap();
    let in_memory = !db::CONCURRENT;
    if in_memory {
        // Another engine's memory is another database.
        let session = Session::with_options(&engine, autocommit()).unwrap();
        session.batch_execute(db::CREATE_NOTES).unwrap();
    }
    for (fault, is_stored) in [(Fault::CloseBefore, false), (Fault::CloseAfter, true)] {
        let session = Session::with_options(&engine, autocommit()).unwrap();
        faults.on(Call::Statement, fault);
        let error = insert(&session, "row").unwrap_err();
        assert!(matches!(error, Error::CommitUnknown { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::Ambiguous);
        // Of a query there is nothing to be known.
        faults.on(Call::Statement, fault);
        let error = session.load::<String>(notes::table.select(notes::text)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Connection, "{error}");
        let rows: Vec<String> = session.load(notes::table.select(notes::text)).unwrap();
        assert_eq!(!rows.is_empty(), is_stored, "{}", db::NAME);
    }
    drop(registry);
}

#[test]
fn an_error_that_ended_the_transaction_is_no_matter_of_its_statement_alone() {
    if kind() != Kind::Sqlite {
        return assert_ne!(kind(), Kind::Sqlite, "OR ROLLBACK is SQLite's");
    }
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "row").unwrap();
    let error = super::tools::insert_or_rollback(&session, "row").unwrap_err();
    assert!(error.is_unique_violation());
    assert_eq!(error.class(), ErrorClass::Fatal, "a savepoint would not have helped: {error}");
    assert_eq!(answer(&session.commit()), "RolledBack");
    goes_on(&registry, &session, &[]);
}

/// What a unit of work answers that sends `text` by `send` and loses its connection before the answer comes.
fn cut_at(registry: &Registry, faults: &FaultPlan, send: Send, text: &str) -> Error {
    faults.reset();
    faults.on_nth(Call::Statement, 2, Fault::CloseAfter);
    let answer = registry.transaction(|session| {
        insert(session, "row")?;
        send(session, text)
    });
    answer.unwrap_err()
}

#[test]
fn a_raw_commit_whose_answer_never_came_is_in_doubt_and_nothing_else_is() {
    let database = Database::new();
    let faults = FaultPlan::new();
    let registry = database.registry_with(|builder| builder.faults(&faults));
    for (road, send) in ROADS.into_iter().filter(|(road, _)| !road.starts_with("swallowed")) {
        let error = cut_at(&registry, &faults, send, "COMMIT");
        assert_eq!(error.class(), ErrorClass::Ambiguous, "{road} on {}: {error}", db::NAME);
        assert_eq!(stored(&registry), ["row"], "{road} on {}", db::NAME);
        faults.reset();
        empty(&registry);
        let error = cut_at(&registry, &faults, send, "UPDATE notes SET n = 1");
        assert_eq!(error.class(), ErrorClass::Connection, "{road} on {}: {error}", db::NAME);
        assert!(stored(&registry).is_empty());
        // Run again, it is stored once or nobody can say.
        for (text, is_once) in [("COMMIT", false), ("UPDATE notes SET n = 1", true)] {
            faults.reset();
            faults.on_nth(Call::Statement, 2, Fault::CloseAfter);
            let mut attempts = 0;
            let policy = TransactionOptions::new().retry(RetryPolicy::new(3));
            let answer = registry.transaction_with(policy, |session| {
                attempts += 1;
                insert(session, &format!("row {attempts}"))?;
                if attempts == 1 { send(session, text) } else { Ok(()) }
            });
            assert_eq!(answer.is_ok(), is_once, "{road} {text} on {}: {answer:?}", db::NAME);
            assert_eq!(stored(&registry).len(), 1, "{road} {text} on {}", db::NAME);
            empty(&registry);
        }
    }
}

#[test]
fn a_panic_after_a_raw_commit_does_not_hide_it() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    for (text, stored_then, answered) in [("COMMIT", &["row"][..], "ImplicitCommit"), ("SELECT 1", &[], "RolledBack")] {
        insert(&session, "row").unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            session.with_connection::<()>(|conn| {
                conn.batch_execute(text)?;
                panic!("after {text}")
            })
        }));
        assert!(caught.is_err());
        assert_eq!(answer(&session.commit()), answered, "{text}");
        assert_eq!(stored(&registry), stored_then, "{text}");
        empty(&registry);
    }
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn what_code_with_the_bare_connection_leaves_open_is_undone_and_no_success() {
    type Manager = <Conn as Connection>::TransactionManager;
    let database = Database::new();
    let registry = database.registry();
    let insert_text = "INSERT INTO notes (text, n) VALUES ('left', 0)";
    let left = registry.transaction(|session| {
        insert(session, "row")?;
        session.with_connection(|conn| {
            Manager::begin_transaction(conn)?;
            conn.batch_execute(insert_text)
        })
    });
    let left = left.unwrap_err();
    assert!(matches!(left.cause().map(Cause::reason), Some(Reason::LeftOpen)), "{left}");
    assert!(stored(&registry).is_empty());
    let alone = Session::with_options(registry.engine(), autocommit()).unwrap();
    let mut texts = vec![format!("BEGIN; {insert_text}")];
    if kind() == Kind::Mysql {
        texts.push(format!("SET autocommit = 0; {insert_text}"));
    }
    for text in texts {
        let left = alone.batch_execute(&text).unwrap_err();
        assert!(matches!(left.cause().map(Cause::reason), Some(Reason::LeftOpen)), "{text}: {left}");
        assert!(stored(&registry).is_empty(), "{text}");
    }
    alone.batch_execute(&format!("BEGIN; {insert_text}; COMMIT")).unwrap();
    goes_on(&registry, &registry.current().unwrap(), &["left"]);
}

#[test]
fn a_query_whose_type_is_not_diesels_own_may_be_any_text() {
    use diesel::dsl::sql;
    use diesel::sql_types::Integer;
    let database = Database::new();
    let registry = database.registry();
    for (text, rows) in [("COMMIT", &["row"][..]), ("ROLLBACK", &[])] {
        let answer = registry.transaction(|session| {
            insert(session, "row")?;
            session.execute(sql::<Integer>(text)).map(drop)
        });
        assert_eq!(answer.unwrap_err().class(), ErrorClass::Ambiguous, "{text}");
        assert_eq!(stored(&registry), rows, "{text}");
        empty(&registry);
    }
}
