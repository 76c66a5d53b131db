//! SQLAlchemy's `scoped_session` and `Session`, for Diesel: one session a thread, one honest transaction a session.
//!
//! * [`Engine`]: where connections come from. One a database, made at start-up.
//! * [`Session`]: at most one connection and one transaction at a time. It takes the connection and begins at the first
//!   statement; [`commit`](Session::commit) and [`rollback`](Session::rollback) give it back.
//! * [`Tracked`]: a row as an object. What becomes of it, the session writes.
//! * [`ScopedSession`]: the registry, which gives each thread one session. Behind [`Session::current()`](Session::current)
//!   it spares the code a `&mut conn` argument everywhere.
//!
//! # What is promised
//!
//! * **Threads don't mix.** A session is `!Send` and `!Sync`: what would share one between threads does not compile.
//! * **Nothing leaks.** A session that is dropped, removed, or ends with its thread is rolled back. Nothing ever commits in
//!   a `Drop`. [`job`](ScopedSession::job) and [`request`](ScopedSession::request) end what the job before left on a
//!   pooled thread, and name the line that began it.
//! * **`Ok` from a commit means stored, and [`RolledBack`](Error::RolledBack) that nothing is.** A transaction with a failed
//!   statement answers that with the first cause and its line, on every database. What ends a transaction behind the
//!   session's back is noticed ([`TransactionLost`](Error::TransactionLost)), and nothing more is sent. Where the
//!   connection dies during COMMIT the answer is [`CommitUnknown`](Error::CommitUnknown), unless
//!   [`verify_commits`](EngineBuilder::verify_commits) finds out. [`truth`] shows each case beside bare Diesel.
//! * **Nothing is done twice.** A unit of work is [run again](RetryPolicy) only after errors that say that nothing of it is
//!   stored.
//! * **Objects say what the database holds.** A row is one object in a session; a rollback, also to a savepoint, puts it back.
//!   Each flush checks how many rows it wrote, and with `#[entity(version)]` that nobody changed them meanwhile
//!   ([`StaleData`](Error::StaleData)).
//! * **No "database is locked" between threads.** On SQLite, transactions that may write take turns at a fair gate in front
//!   of the file; with the write-ahead log, the default, readers don't wait. In memory all sessions of an engine share one database, one after the other.
//! * **No silent waiting for oneself.** Threads that would wait for each other's connections for ever get
//!   [`WouldStarve`](Error::WouldStarve) or [`WouldDeadlock`](Error::WouldDeadlock) at once; a time-out names who holds
//!   what, since when, and from which line.
//!
//! # Examples
//!
//! ```
//! use diesel::prelude::*;
//! use diesel_session::{Engine, Result, ScopedSession};
//!
//! type Session = diesel_session::Session<SqliteConnection>;
//!
//! diesel::table! { users (id) { id -> Integer, nickname -> Text, } }
//!
//! // A handler, on whichever thread it runs.
//! fn rename(id: i32, nickname: &str) -> Result<()> {
//!     let session = Session::current()?;
//!     session.execute(diesel::update(users::table.find(id)).set(users::nickname.eq(nickname)))?;
//!     session.commit()?;
//!     Ok(())
//! }
//!
//! # fn main() -> Result<()> {
//! // At start-up.
//! let registry = ScopedSession::new(Engine::<SqliteConnection>::builder(":memory:").max_size(8).build()?);
//! # registry.transaction(|session| session.batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, nickname TEXT NOT NULL); INSERT INTO users VALUES (1, 'ann')"))?;
//! registry.clone().install()?;
//!
//! rename(1, "anna")?;
//! Session::remove(); // at the end of the request, whatever happened
//!
//! // The same with the ends done for you: commit on `Ok`, roll back on `Err` or panic, always remove.
//! registry.transaction(|session| {
//!     session.execute(diesel::insert_into(users::table).values(users::nickname.eq("bob")))
//! })?;
//!
//! // For reading: waits for no writer.
//! let nicknames: Vec<String> = registry.read(|session| session.load(users::table.select(users::nickname)))?;
//! assert_eq!(nicknames, ["anna", "bob"]);
//! # Ok(()) }
//! ```
//!
//! # Objects
//!
//! [`Entity`](derive@Entity) and [`Record`](derive@Record) on Diesel's models make rows objects that the session tracks: what
//! was [added](Session::add), [changed](Tracked::write) and [deleted](Session::delete) becomes statements in a
//! [flush](Session::flush), in the order that foreign keys need.
//!
//! ```
//! use diesel::prelude::*;
//! use diesel_session::{Engine, Entity, Record, Result, ScopedSession};
//!
//! diesel::table! { users (id) { id -> Integer, nickname -> Text, version -> Integer, } }
//!
//! /// A row.
//! #[derive(Clone, Queryable, Selectable, Identifiable, Entity)]
//! struct User {
//!     id: i32,
//!     nickname: String,
//!     #[entity(version)]
//!     version: i32,
//! }
//!
//! /// What is inserted; the database makes the rest.
//! #[derive(Insertable, Record)]
//! #[diesel(table_name = users)]
//! #[entity(of = User, generated(id, version))]
//! struct NewUser {
//!     nickname: String,
//! }
//!
//! # fn main() -> Result<()> {
//! # let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:")?);
//! # registry.transaction(|session| session.batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, nickname TEXT NOT NULL, version INTEGER NOT NULL DEFAULT 1)"))?;
//! let ann = registry.transaction(|session| -> Result<_> {
//!     let ann = session.add(NewUser { nickname: "ann".into() })?; // nothing is sent yet
//!     ann.id() // flushes: INSERT
//! })?;
//! let anna = registry.transaction(|session| -> Result<_> {
//!     let ann = session.get_one::<User>(ann)?; // SELECT; the same row is the same handle from now on
//!     ann.write()?.nickname = "anna".into();
//!     Ok(ann) // the commit writes that column, if the version still is the one that was read
//! })?;
//! assert_eq!(anna.read()?.nickname, "anna"); // from memory, also when the session is gone
//! # Ok(()) }
//! ```
//!
//! [`guide`] has a page for those who know Diesel, and one for those who know SQLAlchemy.
//!
//! # What may fail
//!
//! A statement's database error fails the transaction, so that what passes on SQLite passes on PostgreSQL. What may fail and
//! be handled goes into a savepoint:
//!
//! ```
//! # use diesel::prelude::*;
//! # use diesel_session::{Engine, Result, Session};
//! # diesel::table! { users (id) { id -> Integer, nickname -> Text, } }
//! # fn main() -> Result<()> {
//! # let session = Session::<SqliteConnection>::new(&Engine::new(":memory:")?);
//! # session.batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, nickname TEXT NOT NULL UNIQUE)")?;
//! let insert = || diesel::insert_into(users::table).values(users::nickname.eq("ann"));
//! session.execute(insert())?;
//! match session.nested(|session| session.execute(insert())) {
//!     Err(error) if error.is_unique_violation() => {} // the transaction goes on
//!     other => drop(other?),
//! }
//! session.commit()?;
//! # Ok(()) }
//! ```
//!
//! # Features
//!
//! `sqlite` (default), `postgres`, `mysql` (also MariaDB): one a database, none needs another, all may be on together. None
//! brings the database's C library along; for SQLite add
//! `libsqlite3-sys = { version = "0.38", features = ["bundled"] }`. `serde`: [`InspectReport`] and [`ExecutorReport`] as JSON.
//! `axum`: synchronous functions as routes of axum 0.8, each a unit of work of an [`Executor`] (module `axum`).
#![cfg_attr(docsrs, feature(doc_cfg))]
// What the backends share is not all used by each: unused code shows where all of them are on.
#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_imports, unused_macros)
)]

#[cfg(feature = "axum")]
pub mod axum;
mod backend;
mod engine;
#[doc(hidden)]
pub mod entity;
mod error;
mod executor;
mod fork;
pub mod guide;
mod info;
mod inspect;
mod migrate;
mod options;
mod panics;
mod place;
mod scope;
mod session;
pub mod testing;
pub mod truth;
mod unit;
mod unit_of_work;

pub use backend::{
    ConnectionSettings, GateKey, GateRule, JournalMode, Kind, Limits, Phase, PreparedUrl, SessionConnection,
    Synchronous, Truth, Verdict, Witness,
};
/// # Examples
///
/// ```
/// use diesel::prelude::*;
/// use diesel_session::{Embedded, Entity, Insert, Record};
///
/// diesel::table! { users (id) { id -> Integer, nickname -> Text, city -> Text, zip -> Nullable<Text>, } }
///
/// #[derive(Clone, PartialEq, Queryable, Selectable, Insertable, Embedded)]
/// #[diesel(table_name = users)]
/// struct Address {
///     city: String,
///     zip: Option<String>,
/// }
///
/// #[derive(Clone, Queryable, Selectable, Identifiable, Entity)]
/// struct User {
///     id: i32,
///     nickname: String,
///     #[diesel(embed)]
///     address: Address,
/// }
///
/// #[derive(Insertable, Record)]
/// #[diesel(table_name = users)]
/// #[entity(of = User, generated(id))]
/// struct NewUser {
///     nickname: String,
///     #[diesel(embed)]
///     address: Address,
/// }
///
/// let graz = Address { city: "Graz".into(), zip: None };
/// let old = NewUser { nickname: "ann".into(), address: graz }.finish((1,));
/// let mut new = old.clone();
/// new.address.city = "Linz".into();
/// let changed: Vec<_> = new.diff(&old).iter().map(User::column_name).collect();
/// assert_eq!(changed, ["city"]);
/// ```
pub use diesel_session_derive::Embedded;
/// # Examples
///
/// ```
/// use diesel::prelude::*;
/// use diesel_session::{BelongsTo, Entity};
///
/// diesel::table! { users (id) { id -> Integer, nickname -> Text, version -> Integer, } }
/// diesel::table! { posts (id) { id -> Integer, user_id -> Nullable<Integer>, title -> Text, } }
///
/// #[derive(Clone, Queryable, Selectable, Identifiable, Entity)]
/// struct User {
///     id: i32,
///     nickname: String,
///     #[entity(version)]
///     version: i32,
/// }
///
/// #[derive(Clone, Queryable, Selectable, Identifiable, Associations, Entity)]
/// #[diesel(belongs_to(User))]
/// struct Post {
///     id: i32,
///     user_id: Option<i32>,
///     title: String,
/// }
///
/// let post = Post { id: 1, user_id: Some(7), title: "On sessions".into() };
/// assert_eq!(BelongsTo::<User>::parent_key(&post), Some(7));
/// assert_eq!(Post::depends_on(), [User::table()]);
/// ```
pub use diesel_session_derive::Entity;
/// # Examples
///
/// ```
/// use diesel::prelude::*;
/// use diesel_session::{Entity, Record};
///
/// diesel::table! { users (id) { id -> Integer, nickname -> Text, joined -> Timestamp, } }
/// diesel::table! { countries (code) { code -> Text, name -> Text, } }
///
/// # use chrono::NaiveDateTime;
/// #[derive(Clone, Queryable, Selectable, Identifiable, Entity)]
/// struct User {
///     id: i32,
///     nickname: String,
///     joined: NaiveDateTime,
/// }
///
/// #[derive(Insertable, Record)]
/// #[diesel(table_name = users)]
/// #[entity(of = User, generated(id, joined))]
/// struct NewUser {
///     nickname: String,
///     joined: Option<NaiveDateTime>, // `None`: when the database says
/// }
///
/// // Its key is known before, so it is its own record.
/// #[derive(Clone, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
/// #[diesel(table_name = countries, primary_key(code))]
/// struct Country {
///     code: String,
///     name: String,
/// }
///
/// let country = Country { code: "AT".into(), name: "Austria".into() };
/// assert_eq!(country.given_key(), Some("AT".to_owned()));
/// let ann = NewUser { nickname: "ann".into(), joined: None };
/// assert_eq!(ann.given_key(), None);
/// assert_eq!(ann.finish((1, NaiveDateTime::default())).id, 1);
/// ```
pub use diesel_session_derive::Record;
/// # Examples
///
/// ```
/// use diesel::prelude::*;
/// use diesel_session::{Engine, Executor, Result, ScopedSession, on_database_thread};
///
/// type Session = diesel_session::Session<SqliteConnection>;
///
/// diesel::table! { users (id) { id -> Integer, nickname -> Text, } }
///
/// #[on_database_thread]
/// fn create(id: i32, nickname: String) -> Result<usize> {
///     let user = (users::id.eq(id), users::nickname.eq(nickname));
///     Session::current()?.execute(diesel::insert_into(users::table).values(user))
/// }
///
/// #[on_database_thread(read_only)]
/// fn find(id: i32) -> Result<String> {
///     Session::current()?.get_result(users::table.find(id).select(users::nickname))
/// }
///
/// async fn handler() -> Result<()> {
///     create(1, "ann".into()).await?; // committed
///     assert_eq!(find(1).await?, "ann");
///     Ok(())
/// }
///
/// # fn main() -> Result<()> {
/// let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:")?);
/// # registry.transaction(|session| session.batch_execute("CREATE TABLE users (id INTEGER PRIMARY KEY, nickname TEXT NOT NULL)"))?;
/// Executor::new(registry)?.install()?;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(handler())
/// # }
/// ```
pub use diesel_session_derive::on_database_thread;
/// # Examples
///
/// ```
/// use diesel::prelude::*;
/// use diesel_session::{Engine, Result, ScopedSession, transactional};
/// use std::time::Duration;
///
/// type Session = diesel_session::Session<SqliteConnection>;
///
/// diesel::table! { accounts (id) { id -> Integer, balance -> Integer, } }
///
/// #[transactional]
/// fn deposit(id: i32, amount: i32) -> Result<()> {
///     let session = Session::current()?;
///     let account = accounts::table.find(id);
///     session.execute(diesel::update(account).set(accounts::balance.eq(accounts::balance + amount)))?;
///     Ok(())
/// }
///
/// /// Both or neither: each `deposit` joins this one.
/// #[transactional(timeout = Duration::from_secs(2), retry = 3)]
/// fn transfer(from: i32, to: i32, amount: i32) -> Result<()> {
///     deposit(from, -amount)?;
///     deposit(to, amount)
/// }
///
/// #[transactional(read_only)]
/// fn balance(id: i32) -> Result<i32> {
///     Session::current()?.get_result(accounts::table.find(id).select(accounts::balance))
/// }
///
/// # fn main() -> Result<()> {
/// let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:")?);
/// # registry.transaction(|session| session.batch_execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL); INSERT INTO accounts VALUES (1, 10), (2, 0)"))?;
/// registry.install()?;
/// transfer(1, 2, 7)?;
/// assert_eq!((balance(1)?, balance(2)?), (3, 7));
/// # Ok(()) }
/// ```
pub use diesel_session_derive::transactional;
pub use engine::{Engine, EngineBuilder, StatementErrors, Strategy};
pub use entity::{
    BelongsTo, Change, ColumnSet, Embedded, Entity, EntityHooks, Insert, LoadChildren, Persist, Record, RecordHooks,
    Reference, RowLock, TableId,
};
pub use error::{Cause, Error, ErrorClass, Failure, OptionalExt, Reason, Result};
pub use executor::{
    AsyncSession, Executor, ExecutorBuilder, ExecutorReport, GroupCommit, JobHandle, LaneReport, WhenFull,
};
pub use info::Info;
pub use inspect::{Counters, Holder, Holders, InspectReport, SessionReport, SessionState};
pub use options::{BeginMode, IsolationLevel, SessionOptions, TransactionOptions, autocommit, read_only};
pub use place::Place;
pub use scope::{ScopedFuture, ScopedSession};
pub use session::{
    Bulk, HookError, HookResult, JoinMode, Outcome, Progress, Report, Savepoint, Session, SessionListener,
    SessionQueryDsl, StatementInfo, StatementKind, TransactionInfo, Transition,
};
pub use unit::{Attempt, Propagation, RetryPolicy, UnitKey, UnitOptions};
pub use unit_of_work::{ObjectState, Parents, Read, Tracked, Write};

/// What the attributes write names of.
#[doc(hidden)]
pub mod __private {
    pub use crate::executor::installed::{JobResult, ThreadOptions, on_database_thread, on_database_thread_again};
    pub use crate::scope::transactional::{Transactional, UnitResult, cloned_for_each_attempt};
}
