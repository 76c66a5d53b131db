//! SQLAlchemy's `scoped_session` and `Session`, for Diesel: one session a thread, one honest transaction a session.
//!
//! * [`Engine`]: where connections come from. One a database, made at start-up.
//! * [`Session`]: at most one connection and one transaction at a time. It takes the connection and begins at the first
//!   statement; [`commit`](Session::commit) and [`rollback`](Session::rollback) give it back.
//! * [`ScopedSession`]: the registry, which gives each thread one session. Behind [`Session::current()`](Session::current)
//!   it spares the code a `&mut conn` argument everywhere.
//!
//! # What is promised
//!
//! * **Threads don't mix.** A session is `!Send` and `!Sync`: what would share one between threads does not compile.
//! * **Nothing leaks.** A session that is dropped, removed, or ends with its thread is rolled back. Nothing ever commits in
//!   a `Drop`. [`job`](ScopedSession::job) and [`request`](ScopedSession::request) end what the job before left on a
//!   pooled thread, and name the line that began it.
//! * **`Ok` from a commit means stored.** A transaction with a failed statement answers
//!   [`RolledBack`](Error::RolledBack) with the first cause and its line, on every database; one whose connection dies
//!   during COMMIT answers [`CommitUnknown`](Error::CommitUnknown).
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
//! `libsqlite3-sys = { version = "0.38", features = ["bundled"] }`. `serde`: [`InspectReport`] as JSON.
#![cfg_attr(docsrs, feature(doc_cfg))]
// What the backends share is not all used by each: unused code shows where all of them are on.
#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_imports, unused_macros)
)]

mod backend;
mod engine;
mod error;
mod info;
mod inspect;
mod migrate;
mod options;
mod panics;
mod place;
mod scope;
mod session;

pub use backend::{
    ConnectionSettings, GateKey, GateRule, JournalMode, Kind, PreparedUrl, SessionConnection, Synchronous, Truth,
};
pub use engine::{Engine, EngineBuilder, StatementErrors, Strategy};
pub use error::{Cause, Error, ErrorClass, Failure, OptionalExt, Reason, Result};
pub use info::Info;
pub use inspect::{Counters, Holder, Holders, InspectReport, SessionReport, SessionState};
pub use options::{BeginMode, IsolationLevel, SessionOptions, TransactionOptions, autocommit, read_only};
pub use place::Place;
pub use scope::{ScopedFuture, ScopedSession};
pub use session::{
    HookError, HookResult, JoinMode, Outcome, Report, Savepoint, Session, SessionListener, SessionQueryDsl,
    StatementInfo, StatementKind, TransactionInfo,
};
