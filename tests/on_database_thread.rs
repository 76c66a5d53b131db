//! Functions that run on a database thread, and hand back a future.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diesel::prelude::*;
use diesel_session::{Engine, Error, Executor, JobHandle, Result, RetryPolicy, ScopedSession, on_database_thread};

type Session = diesel_session::Session<SqliteConnection>;

diesel::table! { users (id) { id -> Integer, nickname -> Text, } }

/// The executor of this process: the functions below find it. Tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn installed() -> (Executor<SqliteConnection>, impl Drop) {
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let executor = Executor::<SqliteConnection>::installed().unwrap_or_else(|| {
        let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:").unwrap());
        Executor::new(registry).unwrap().install().unwrap();
        Executor::installed().unwrap()
    });
    let fresh =
        "DROP TABLE IF EXISTS users; CREATE TABLE users (id INTEGER PRIMARY KEY, nickname TEXT NOT NULL UNIQUE)";
    executor.run(move |session| session.batch_execute(fresh)).wait().unwrap();
    (executor, turn)
}

fn nicknames(executor: &Executor<SqliteConnection>) -> Vec<String> {
    executor.run_read(|session| -> Result<_> { session.load(users::table.select(users::nickname)) }).wait().unwrap()
}

#[on_database_thread]
fn create(nickname: impl Into<String> + Send + 'static) -> Result<i32> {
    let (session, nickname) = (Session::current()?, nickname.into());
    session.execute(diesel::insert_into(users::table).values(users::nickname.eq(&nickname)))?;
    session.get_result(users::table.select(users::id).filter(users::nickname.eq(nickname)))
}

#[on_database_thread(SqliteConnection, read_only)]
fn rename_by_mistake((id, nickname): (i32, String)) -> Result<usize> {
    Session::current()?.execute(diesel::update(users::table.find(id)).set(users::nickname.eq(nickname)))
}

/// An error of the application's own.
#[derive(Debug)]
enum Trouble {
    Taken,
    Other,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        if error.is_unique_violation() { Self::Taken } else { Self::Other }
    }
}

#[on_database_thread]
fn create_two(one: String, two: String) -> Result<(), Trouble> {
    for nickname in [one, two] {
        let user = diesel::insert_into(users::table).values(users::nickname.eq(nickname));
        Session::current()?.execute(user)?;
    }
    Ok(())
}

static RUNS: AtomicU32 = AtomicU32::new(0);

#[on_database_thread(retry = RetryPolicy::new(3).also(|_| true), timeout = Duration::from_secs(20))]
fn create_at_last(nickname: String) -> Result<u32> {
    let session = Session::current()?;
    let user = diesel::insert_into(users::table).values(users::nickname.eq(nickname));
    session.execute(user)?;
    if RUNS.fetch_add(1, Ordering::SeqCst) < 2 {
        session.batch_execute("not SQL")?;
    }
    Ok(session.attempt().map_or(0, |attempt| attempt.number()))
}

#[test]
fn the_body_is_a_job_of_the_installed_executor() {
    let (executor, _turn) = installed();
    let handle: JobHandle<i32, Error> = create("ann");
    let ann = handle.wait().unwrap();
    assert_eq!(nicknames(&executor), ["ann"]);
    let refused = rename_by_mistake((ann, "bob".into())).wait();
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(nicknames(&executor), ["ann"]);
}

#[test]
fn an_error_of_the_bodys_own_rolls_back_and_arrives() {
    let (executor, _turn) = installed();
    create("ann").wait().unwrap();
    let taken = create_two("bob".into(), "ann".into()).wait();
    assert!(matches!(taken, Err(Trouble::Taken)), "{taken:?}");
    assert_eq!(nicknames(&executor), ["ann"]);
}

#[test]
fn a_body_that_is_run_again_finds_its_arguments() {
    let (executor, _turn) = installed();
    RUNS.store(0, Ordering::SeqCst);
    assert_eq!(create_at_last("ann".into()).wait().unwrap(), 3);
    assert_eq!(nicknames(&executor), ["ann"]);
}

#[test]
fn a_second_executor_is_not_installed() {
    let (executor, _turn) = installed();
    let second = Executor::builder(executor.registry().clone()).build().unwrap();
    assert!(matches!(second.install(), Err(Error::ExecutorInstalled)));
}
