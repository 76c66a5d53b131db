//! On which installed registry `#[transactional]` runs. This file has one test: what it installs stays.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic)]

use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Error, Result, ScopedSession, transactional};

type Session = diesel_session::Session<SqliteConnection>;

fn registry() -> ScopedSession<SqliteConnection> {
    let registry = ScopedSession::new(Engine::new(":memory:").unwrap());
    registry.transaction(|session| session.batch_execute("CREATE TABLE notes (text TEXT)")).unwrap();
    registry
}

fn insert() -> Result<()> {
    Session::current()?.batch_execute("INSERT INTO notes VALUES ('a note')")
}

fn count(registry: &ScopedSession<SqliteConnection>) -> i64 {
    let count = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(*) FROM notes");
    registry.read(|session| session.get_result(count)).unwrap()
}

#[transactional]
fn anywhere() -> Result<()> {
    insert()
}

#[transactional(SqliteConnection)]
fn on_sqlite() -> Result<()> {
    insert()
}

#[test]
fn without_a_name_it_runs_on_the_entered_registry_or_the_only_one_that_is_installed() {
    assert!(matches!(anywhere(), Err(Error::NoRegistry { .. })));
    let installed = registry();
    installed.clone().install().unwrap();
    anywhere().unwrap();
    on_sqlite().unwrap();
    assert_eq!(count(&installed), 2);
    // Also on another thread, and an entered one wins.
    std::thread::spawn(anywhere).join().unwrap().unwrap();
    assert_eq!(count(&installed), 3);
    let entered = registry();
    entered.enter(anywhere).unwrap();
    assert_eq!((count(&installed), count(&entered)), (3, 1));

    #[cfg(feature = "postgres")]
    beside_another_type(&installed);
}

#[cfg(feature = "postgres")]
fn beside_another_type(installed: &ScopedSession<SqliteConnection>) {
    use diesel::pg::PgConnection;

    #[transactional]
    fn ends_its_own() -> Result<()> {
        assert!(!Session::has());
        diesel_session::Session::<PgConnection>::current()?.commit().map(drop)
    }

    let url =
        std::env::var("TEST_POSTGRES_URL").unwrap_or_else(|_| "postgres://root@127.0.0.1:5432/postgres".to_owned());
    let other = ScopedSession::new(Engine::<PgConnection>::new(&url).unwrap());
    // The innermost, whatever its type; by its name also one that is further out.
    let answer = installed.enter(|| other.enter(ends_its_own));
    assert!(matches!(answer, Err(Error::NotOwner { .. })), "{answer:?}");
    other.enter(on_sqlite).unwrap();
    other.clone().install().unwrap();

    let error = anywhere().unwrap_err();
    assert!(matches!(error, Error::AmbiguousRegistry { .. }), "{error}");
    assert!(error.to_string().contains("SqliteConnection") && error.to_string().contains("PgConnection"), "{error}");
    on_sqlite().unwrap();
    installed.enter(anywhere).unwrap();
    assert_eq!(count(installed), 6);
}
