//! Statements: what each method gives, which errors fail the transaction, and what a statement leaves behind.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_types::{BigInt, Integer, Text};
use diesel_session::{Error, Kind, OptionalExt, SessionQueryDsl, SessionState, StatementErrors, read_only};

use super::db::{self, Database, Registry, Session, insert, stored, texts};
use super::notes;
use super::tools::{answer, kind, logged, nothing_in_use, sent, sql};

fn rows(session: &Session, names: &[&str]) {
    for (name, n) in names.iter().zip(0..) {
        let row = (notes::text.eq(name), notes::n.eq(n));
        assert_eq!(session.execute(diesel::insert_into(notes::table).values(row)).unwrap(), 1);
    }
}

#[test]
fn every_method_gives_what_diesels_own_gives() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    rows(&session, &["a", "b", "c"]);
    let select = notes::table.select((notes::text, notes::n)).order(notes::n);
    let all: Vec<(String, i32)> = vec![("a".into(), 0), ("b".into(), 1), ("c".into(), 2)];
    let one = ("b".to_owned(), 1);
    let only_b = select.filter(notes::text.eq("b"));
    let none = select.filter(notes::text.eq("z"));
    let last = notes::table.select((notes::text, notes::n)).order(notes::n.desc());
    assert_eq!(session.load::<(String, i32)>(select).unwrap(), all);
    assert_eq!(session.get_results::<(String, i32)>(select).unwrap(), all);
    assert_eq!(session.get_result::<(String, i32)>(only_b).unwrap(), one);
    assert_eq!(session.first::<(String, i32), _>(last).unwrap(), all[2]);
    assert_eq!(select.load_in::<(String, i32), _>(&session).unwrap(), all);
    assert_eq!(select.get_results_in::<(String, i32), _>(&session).unwrap(), all);
    assert_eq!(only_b.get_result_in::<(String, i32), _>(&session).unwrap(), one);
    assert_eq!(last.first_in::<(String, i32), _>(&session).unwrap(), all[2]);
    assert_eq!(session.with_rows(select, |rows| rows.collect::<QueryResult<Vec<(String, i32)>>>()).unwrap(), all);
    assert_eq!(session.first::<(String, i32), _>(none).optional().unwrap(), None);
    assert_eq!(
        diesel::update(notes::table.filter(notes::n.gt(0))).set(notes::n.eq(9)).execute_in(&session).unwrap(),
        2
    );
    assert_eq!(session.execute(diesel::delete(notes::table.filter(notes::n.eq(9)))).unwrap(), 2);
    session
        .batch_execute("INSERT INTO notes (text, n) VALUES ('d', 3); INSERT INTO notes (text, n) VALUES ('e', 4)")
        .unwrap();
    let counted = session.with_connection(|conn| notes::table.count().get_result::<i64>(conn)).unwrap();
    assert_eq!(counted, 3);
    let place = session.load::<i32>(diesel::dsl::sql::<Integer>("SELECT nothing")).unwrap_err();
    assert!(place.failure().unwrap().place().file().ends_with("statements.rs"));
    session.rollback().unwrap();
    registry.remove();
    nothing_in_use(&registry);
}

#[test]
fn errors_that_are_not_the_databases_fail_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "row").unwrap();
    let none = notes::table.select(notes::text).filter(notes::text.eq("z"));
    assert!(session.first::<String, _>(none).unwrap_err().is_not_found());
    assert!(session.get_result::<String>(none).unwrap_err().is_not_found());
    assert_eq!(session.get_result::<String>(none).optional().unwrap(), None);
    // A NULL where the type has none.
    let null = session.get_result::<String>(diesel::dsl::sql::<Text>("SELECT NULL"));
    assert!(matches!(null.unwrap_err().failure().unwrap().error(), DieselError::DeserializationError(_)));
    // A query that can't be built.
    let unbuilt = session.execute(NotForThisDatabase);
    assert!(matches!(unbuilt.unwrap_err().failure().unwrap().error(), DieselError::QueryBuilderError(_)));
    let own = session.with_connection(|_| Err::<(), _>(DieselError::NotFound));
    assert!(own.unwrap_err().is_not_found());
    let stopped =
        session.with_rows(notes::table.select(notes::text), |rows: &mut dyn Iterator<Item = QueryResult<String>>| {
            let _ = rows.next();
            Err::<(), _>(DieselError::RollbackTransaction)
        });
    assert!(stopped.is_err());
    assert_eq!(session.state(), SessionState::Active);
    insert(&session, "then").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["row", "then"], "{}", db::NAME);
    registry.remove();
}

/// A query that no database can be sent.
struct NotForThisDatabase;

impl diesel::query_builder::QueryId for NotForThisDatabase {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: diesel::backend::Backend> diesel::query_builder::QueryFragment<DB> for NotForThisDatabase {
    fn walk_ast<'b>(&'b self, _: diesel::query_builder::AstPass<'_, 'b, DB>) -> QueryResult<()> {
        Err(DieselError::QueryBuilderError("not for this database".into()))
    }
}

impl<C> RunQueryDsl<C> for NotForThisDatabase {}

/// Inserts a name that may be taken, and takes another one if it is: the answers to the insert that may fail, to what
/// comes after it and to the commit.
fn insert_or_another(registry: &Registry, nested: bool) -> [String; 3] {
    let session = registry.current().unwrap();
    insert(&session, "name").unwrap();
    let tried = if nested { session.nested(|session| insert(session, "name")) } else { insert(&session, "name") };
    let then = session.load::<String>(notes::table.select(notes::text)).and_then(|_| insert(&session, "another"));
    let answers = [answer(&tried), answer(&then), answer(&session.commit())];
    registry.remove();
    answers
}

#[test]
fn an_insert_that_may_fail_gives_the_same_on_every_database() {
    let database = Database::new();
    let registry = database.registry();
    assert_eq!(insert_or_another(&registry, false), ["Statement", "PendingRollback", "RolledBack"], "{}", db::NAME);
    assert!(stored(&registry).is_empty());
    assert_eq!(insert_or_another(&registry, true), ["Statement", "Ok", "Ok"], "{}", db::NAME);
    assert_eq!(stored(&registry), ["another", "name"]);
}

#[test]
fn native_errors_are_the_databases_own() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.statement_errors(StatementErrors::Native));
    // PostgreSQL can't go on, whatever it is asked for.
    if db::ERRORS_ABORT {
        assert_eq!(insert_or_another(&registry, false), ["Statement", "PendingRollback", "RolledBack"]);
        assert!(stored(&registry).is_empty());
    } else {
        assert_eq!(insert_or_another(&registry, false), ["Statement", "Ok", "Ok"], "{}", db::NAME);
        assert_eq!(stored(&registry), ["another", "name"]);
    }
}

#[test]
fn a_row_loop_may_end_early_fail_or_panic_and_the_connection_is_as_before() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let session = registry.current().unwrap();
    let names: Vec<String> = (0..500).map(|i| format!("{i:03}")).collect();
    rows(&session, &names.iter().map(String::as_str).collect::<Vec<_>>());
    session.commit().unwrap();
    let query = || notes::table.select(notes::text).order(notes::text);
    let early = session.with_rows(query(), |rows| rows.take(3).collect::<QueryResult<Vec<String>>>()).unwrap();
    assert_eq!(early, ["000", "001", "002"]);
    let unread = session.with_rows(query(), |_: &mut dyn Iterator<Item = QueryResult<String>>| Ok(7)).unwrap();
    assert_eq!(unread, 7);
    assert_eq!(texts(&session).len(), 500);
    // A row that can't be read is an error in the middle, and the loop may go on behind it.
    let nulls = "SELECT CASE WHEN n = 250 THEN NULL ELSE text END FROM notes ORDER BY n";
    let read = session.with_rows(diesel::dsl::sql::<Text>(nulls), |rows| {
        Ok(rows.filter_map(|row: QueryResult<String>| row.ok()).count())
    });
    assert_eq!(read.unwrap(), 499, "{}", db::NAME);
    let stopped = session.with_rows(diesel::dsl::sql::<Text>(nulls), |rows| rows.collect::<QueryResult<Vec<String>>>());
    assert!(matches!(stopped.unwrap_err().failure().unwrap().error(), DieselError::DeserializationError(_)));
    assert_eq!(session.state(), SessionState::Active);
    session.commit().unwrap();
    // A panic fails the transaction, and nothing else.
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        session.with_rows(query(), |rows: &mut dyn Iterator<Item = QueryResult<String>>| {
            assert!(rows.next().is_none(), "in the loop");
            Ok(())
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(session.state(), SessionState::Failed);
    session.rollback().unwrap();
    insert(&session, "next").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry).len(), 501);
    registry.remove();
    nothing_in_use(&registry);
}

#[test]
fn a_database_error_in_the_middle_of_a_row_loop_fails_the_transaction() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    rows(&session, &["a", "b", "c"]);
    // The last row overflows; the first ones may have come before the database finds out.
    let query = sql(
        "SELECT abs(CASE WHEN n = 2 THEN -9223372036854775807 - 1 ELSE n END) FROM notes",
        "SELECT (10 / (2 - n))::bigint FROM notes ORDER BY id",
        "SELECT CASE WHEN n = 2 THEN (SELECT id FROM notes) ELSE n END FROM notes",
    );
    let result = session.with_rows(diesel::dsl::sql::<BigInt>(query), |rows| rows.collect::<QueryResult<Vec<i64>>>());
    assert!(matches!(result.unwrap_err().failure().unwrap().error(), DieselError::DatabaseError(..)));
    assert_eq!(session.state(), SessionState::Failed, "{}", db::NAME);
    assert_eq!(answer(&session.commit()), "RolledBack");
    assert!(stored(&registry).is_empty());
    registry.remove();
}

/// Resident memory of this process.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Runs in a process of its own, because other tests of this one allocate too.
#[cfg(target_os = "linux")]
#[test]
fn a_row_loop_over_a_million_rows_needs_no_memory_of_their_size() {
    const CHILD: &str = "DIESEL_SESSION_ROW_LOOP";
    const ROWS: i64 = 1_000_000;
    if std::env::var_os(CHILD).is_none() {
        let name = concat!(module_path!(), "::a_row_loop_over_a_million_rows_needs_no_memory_of_their_size");
        let (_, name) = name.split_once("::").unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let digits = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
         UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let mysql = format!(
        "SELECT CAST(a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d + 100000 * g.d AS SIGNED), repeat('x', 100) \
         FROM {digits} a, {digits} b, {digits} c, {digits} e, {digits} f, {digits} g"
    );
    let query = sql(
        "WITH RECURSIVE c(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM c WHERE x < 999999) SELECT x, printf('%.100c', 'x') FROM c",
        "SELECT x::bigint, repeat('x', 100) FROM generate_series(0, 999999) x",
        &mysql,
    );
    let before = resident();
    let mut peak = before;
    let sum = session
        .with_rows(diesel::dsl::sql::<(BigInt, Text)>(query), |rows| {
            let mut sum = 0;
            for (i, row) in rows.enumerate() {
                let (x, text): (i64, String) = row?;
                assert_eq!(text.len(), 100);
                sum += x;
                if i % 50_000 == 0 {
                    peak = peak.max(resident());
                }
            }
            Ok(sum)
        })
        .unwrap();
    assert_eq!(sum, ROWS * (ROWS - 1) / 2);
    let grown = (peak - before) / (1024 * 1024);
    match kind() {
        // Diesel asks MySQL's client library to hold the whole result (`mysql_stmt_store_result`, diesel 2.3.14). When this
        // fails, the documentation of `with_rows` can promise more.
        Kind::Mysql => assert!(grown > 64, "{grown} MiB"),
        _ => assert!(grown < 64, "{grown} MiB on {}", db::NAME),
    }
    session.rollback().unwrap();
    registry.remove();
}

#[test]
fn try_with_connection_keeps_the_callers_error_type() {
    #[derive(Debug)]
    enum Own {
        Mine(i32),
        Session(Error),
    }
    impl From<Error> for Own {
        fn from(error: Error) -> Self {
            Self::Session(error)
        }
    }
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let value = session.try_with_connection(|conn| {
        conn.batch_execute("INSERT INTO notes (text, n) VALUES ('row', 0)").map_err(|_| Own::Mine(0))?;
        Ok::<_, Own>(42)
    });
    assert!(matches!(value, Ok(42)));
    assert!(matches!(session.try_with_connection(|_| Err::<(), _>(Own::Mine(7))), Err(Own::Mine(7))));
    assert_eq!(session.state(), SessionState::Active);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["row"]);
    session.close();
    let closed = session.try_with_connection(|_| Ok::<_, Own>(()));
    assert!(matches!(closed, Err(Own::Session(Error::SessionClosed { .. }))));
    registry.remove();
}

#[test]
fn the_session_is_refused_while_its_connection_is_lent_and_good_again_afterwards() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    session
        .with_connection(|_| {
            let error = session.with_connection(|_| Ok(())).unwrap_err();
            assert!(matches!(error, Error::InUse { at } if at.file().ends_with("statements.rs")));
            assert_eq!(answer(&session.begin_with(read_only())), "InUse");
            Ok(())
        })
        .unwrap();
    insert(&session, "row").unwrap();
    session.commit().unwrap();
    registry.remove();
}

#[test]
fn a_unit_of_work_sends_begin_its_statements_and_commit() {
    let database = Database::new();
    let registry = database.registry_with(logged);
    let work = |session: &Session| {
        let select = notes::table.select(notes::text).filter(notes::n.eq(0));
        for _ in 0..3 {
            session.load::<String>(select).unwrap();
        }
        session.execute(diesel::update(notes::table).set(notes::n.eq(1))).unwrap();
        session.commit().unwrap();
    };
    let session = registry.current().unwrap();
    // The first one also sets up the connection.
    work(&session);
    for _ in 0..3 {
        let sent = sent(|| work(&session));
        let begin = sql("BEGIN IMMEDIATE", "BEGIN", "START TRANSACTION");
        assert_eq!(sent.len(), 6, "{}: {sent:?}", db::NAME);
        assert!(sent[0].starts_with(begin), "{sent:?}");
        assert!(sent[5].contains("COMMIT"), "{sent:?}");
    }
    assert!(sent(|| drop(session.commit().unwrap())).is_empty(), "nothing to commit, nothing sent");
    assert!(sent(|| drop(session.rollback().unwrap())).is_empty());
    registry.remove();
    // Reading costs the same once the connection is set to it.
    let read = || registry.read(|session| session.load::<String>(notes::table.select(notes::text))).unwrap();
    read();
    assert_eq!(sent(|| drop(read())).len(), 3, "{}", db::NAME);
}
