//! One database thread: everything that is asked for is done there, one after the other, and comes back as a future.
//!
//! So did Twisted programs with SQLObject: the reactor never waited for the database, a thread of its own did, and each
//! call gave a Deferred. Here the thread is an `Executor` with `threads(1)`, and the Deferred a `JobHandle`: a future on any
//! runtime, with the result or the error.
//!
//! `cargo run --example serialized`
#![allow(missing_docs, reason = "what diesel::table! makes has none")]
#![allow(clippy::print_stdout, reason = "it reports to its reader")]

use std::error::Error;
use std::time::Duration;

use diesel::prelude::*;
use diesel_session::{Entity, Error as SessionError, Executor, JobHandle, OptionalExt, Record, ScopedSession};

mod support;
use support::{Conn, Database, check};

type Session = diesel_session::Session<Conn>;

diesel::table! {
    example_users (nickname) {
        nickname -> Text,
        full_name -> Text,
    }
}

const COLUMNS: &str = "nickname VARCHAR(64) NOT NULL PRIMARY KEY, full_name VARCHAR(64) NOT NULL";

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = example_users, primary_key(nickname))]
struct User {
    nickname: String,
    full_name: String,
}

#[derive(Insertable, Record)]
#[diesel(table_name = example_users)]
#[entity(of = User)]
struct NewUser {
    nickname: String,
    full_name: String,
}

/// What the caller can do something about.
#[derive(Debug)]
enum Trouble {
    Taken(String),
    NoSuchUser(String),
    Database(SessionError),
}

impl From<SessionError> for Trouble {
    fn from(error: SessionError) -> Self {
        Self::Database(error)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken(nickname) => write!(f, "the nickname {nickname} is taken"),
            Self::NoSuchUser(nickname) => write!(f, "User {nickname} doesn't exist"),
            Self::Database(error) => error.fmt(f),
        }
    }
}

impl Error for Trouble {}

// ---- on the database thread ----

fn create(session: &Session, nickname: &str, full_name: &str) -> Result<User, Trouble> {
    let user = session.add(NewUser { nickname: nickname.into(), full_name: full_name.into() })?;
    session.flush().map_err(|error| match error.is_unique_violation() {
        true => Trouble::Taken(nickname.into()),
        false => error.into(),
    })?;
    Ok(user.into_value()?)
}

fn find(nickname: &str) -> Result<User, Trouble> {
    // A function deep in the program asks for the session of the job that it is called in.
    let found = Session::current()?.first(example_users::table.find(nickname).select(User::as_select()));
    found.optional()?.ok_or_else(|| Trouble::NoSuchUser(nickname.into()))
}

// ---- everywhere else ----

/// Users, for code that must not wait.
#[derive(Clone)]
struct Users(Executor<Conn>);

impl Users {
    fn create(&self, nickname: &str, full_name: &str) -> JobHandle<User, Trouble> {
        let (nickname, full_name) = (nickname.to_owned(), full_name.to_owned());
        self.0.run(move |session| create(session, &nickname, &full_name))
    }

    fn find(&self, nickname: &str) -> JobHandle<User, Trouble> {
        let nickname = nickname.to_owned();
        self.0.run_read(move |_| find(&nickname))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = Database::open()?;
    let engine = database.engine("users", "example_users", COLUMNS, |builder| builder.max_size(1))?;
    let executor = Executor::builder(ScopedSession::new(engine)).threads(1).readers(0).build()?;
    let users = Users(executor.clone());

    // Nothing here waits for the database: both are under way before the first is asked how it went.
    let creating = users.create("ann", "Ann Example");
    let finding = users.find("ann");
    let (created, found) = (creating.await?, finding.await?);
    check("one after the other: what was asked for second sees what the first has stored", created == found)?;

    let errors = [users.create("ann", "Another Ann").await.err(), users.find("bob").await.err()];
    for error in errors.iter().flatten() {
        println!("{error}");
    }
    check(
        "errors come back like results, as what they are",
        matches!(errors, [Some(Trouble::Taken(_)), Some(Trouble::NoSuchUser(_))]),
    )?;

    check("a job may panic", panics(&executor).await)?;
    check("and the thread goes on", users.find("ann").await? == created)?;

    // Many tasks, one thread: no two of them are ever in each other's way.
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let users = users.clone();
            tokio::spawn(async move {
                let nickname = format!("user-{n}");
                users.create(&nickname, "One of many").await?;
                users.find(&nickname).await
            })
        })
        .collect();
    let mut names = Vec::new();
    for task in tasks {
        names.push(task.await??.nickname);
    }
    println!("{} users created and found by as many tasks", names.len());

    // What was taken is done, what comes later is refused. (It blocks; nothing else runs on this runtime any more.)
    let last = users.create("last", "The last one");
    executor.shutdown(Duration::from_secs(10))?;
    check("shutdown waits for what is under way", last.await.is_ok())?;
    let late = users.create("late", "Too late").await;
    check("and refuses what comes later", matches!(late, Err(Trouble::Database(SessionError::ShutDown))))?;
    let stored: i64 = executor.registry().read(|session| session.get_result(example_users::table.count()))?;
    check("everybody is stored", stored == 102)?;
    executor.registry().shutdown(Duration::from_secs(10))?;
    check("after the end the database is closed", database.is_let_go("users"))
}

async fn panics(executor: &Executor<Conn>) -> bool {
    #[expect(clippy::panic, reason = "panicking is what it is for")]
    let job = executor.run(|session| -> Result<(), Trouble> {
        create(session, "panic", "Nobody")?;
        panic!("a job of the example panics after its INSERT, as it was asked to")
    });
    matches!(job.await, Err(Trouble::Database(SessionError::JobPanicked { .. })))
}
