//! What the tests of this suite share.
#![allow(dead_code)]

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::prelude::*;
use diesel_session::autocommit;

use super::db::{Database, Registry, SCHEMA, Session};
use super::models::*;
use super::schema::{countries, groups, memberships, posts, users};

/// A registry on a database of its own, with the tables.
pub(crate) struct Fixture {
    pub(crate) registry: Registry,
    _database: Database,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let database = Database::new();
        let engine = database.builder().max_size(4).build().unwrap();
        // DDL would end a transaction on MySQL.
        let session = Session::with_options(&engine, autocommit()).unwrap();
        session.batch_execute(SCHEMA).unwrap();
        Self { registry: Registry::new(engine), _database: database }
    }

    pub(crate) fn session(&self) -> Session {
        Session::new(self.registry.engine())
    }

    /// The users that are stored, seen by a session of its own.
    pub(crate) fn users(&self) -> Vec<User> {
        self.registry.read(|session| session.load(users::table.select(User::as_select()).order(users::id))).unwrap()
    }

    pub(crate) fn nicknames(&self) -> Vec<String> {
        let mut names: Vec<_> = self.users().into_iter().map(|user| user.nickname).collect();
        names.sort();
        names
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.registry.read(|session| session.load(posts::table.select(Post::as_select()).order(posts::id))).unwrap()
    }

    /// Deletes every row.
    pub(crate) fn clear(&self, session: &Session) -> diesel_session::Result<()> {
        session.execute(diesel::delete(memberships::table))?;
        // A reply refers to its post.
        session.execute(diesel::update(posts::table).set(posts::parent_id.eq(None::<i32>)))?;
        session.execute(diesel::delete(posts::table))?;
        session.execute(diesel::delete(groups::table))?;
        session.execute(diesel::delete(countries::table))?;
        session.execute(diesel::delete(users::table)).map(drop)
    }

    /// Stores users by these names.
    pub(crate) fn with_users(self, names: &[&str]) -> Self {
        self.registry.transaction(|session| session.add_all(names.iter().map(|name| user(name))).map(drop)).unwrap();
        self
    }
}

thread_local! {
    /// The statements that this thread's connections sent, without their binds.
    static SENT: std::cell::RefCell<Option<Vec<String>>> = const { std::cell::RefCell::new(None) };
}

struct Recorder;

impl Instrumentation for Recorder {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            SENT.with_borrow_mut(|sent| {
                if let Some(sent) = sent {
                    let text = query.to_string();
                    sent.push(text.split(" -- binds:").next().unwrap_or_default().to_owned());
                }
            });
        }
    }
}

fn recorder() -> Box<dyn Instrumentation> {
    Box::new(Recorder)
}

impl Fixture {
    /// A fixture whose statements can be [`recorded`].
    pub(crate) fn watched() -> Self {
        let database = Database::new();
        let engine = database.builder().max_size(4).instrumentation(recorder).build().unwrap();
        let session = Session::with_options(&engine, autocommit()).unwrap();
        session.batch_execute(SCHEMA).unwrap();
        Self { registry: Registry::new(engine), _database: database }
    }
}

/// What `f` returns, and the statements that it sent.
pub(crate) fn recorded<R>(f: impl FnOnce() -> R) -> (R, Vec<String>) {
    SENT.set(Some(Vec::new()));
    let result = f();
    (result, SENT.take().unwrap_or_default())
}

/// Those that begin with one of these words.
pub(crate) fn only<'a>(sent: &'a [String], words: &[&str]) -> Vec<&'a String> {
    sent.iter().filter(|text| words.iter().any(|word| text.starts_with(word))).collect()
}
