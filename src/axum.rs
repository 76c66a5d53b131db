//! Synchronous functions as routes of [axum](https://docs.rs/axum/0.8) (feature `axum`).
//!
//! [`Executor::handler`](crate::Executor::handler) and [`read_handler`](crate::Executor::read_handler) make an axum handler
//! of a plain function that returns a `Result`. What it takes from the request is taken on the runtime, as always in axum:
//! a client that sends its body slowly holds no database thread. The function then runs as one job of the executor, where
//! [`Session::current()`](crate::Session::current) is the request's session. The runtime, where it is tokio's, is at hand there
//! too: `tokio::spawn`, `WebSocketUpgrade::on_upgrade` and `Sse::keep_alive` work.
//!
//! * **`Ok` with a status below 400 is committed before the answer goes out.** If the commit fails, its error is the answer,
//!   by the function's own `From<Error>`.
//! * **`Err`, and an `Ok` that turns out to be 400 or above, is rolled back.** So is an informational status (below 200),
//!   which can't be an answer, but for 101.
//! * **A panic** is rolled back and answered with what the function's error type makes of
//!   [`Error::JobPanicked`](crate::Error::JobPanicked).
//! * **Overload is 503 with `Retry-After`**, with the body that the error type makes: the queue is full, there is no
//!   connection, or the write gate does not open, in time, the deadline is past, the executor is shut down, the database
//!   can't be reached. Nothing is stored.
//! * **A client that goes away** takes its request along if it has not begun. What has begun goes on to its end, and is
//!   committed if it goes well.
//!   A time-out layer around the handler is such a client: its 408 may stand for what is committed. A time-out of the
//!   [handler's options](UnitHandler::options) rolls back.
//!
//! A body that is made bit by bit is sent when the transaction has ended, on threads that are not the database's: it has no
//! session.
//!
//! To a test the function is as good as any: it can be called with a session of the test's own.
//!
//! For async handlers, whose transaction has to stay open while they wait for something else, there is [`SessionLayer`].
//!
//! # Examples
//!
//! ```no_run
//! use axum::Router;
//! use axum::extract::Path;
//! use axum::http::StatusCode;
//! use axum::routing::{get, put};
//! use diesel::prelude::*;
//! use diesel_session::axum::Problem;
//! use diesel_session::{Engine, Executor, ScopedSession};
//!
//! type Session = diesel_session::Session<SqliteConnection>;
//!
//! diesel::table! { notes (id) { id -> Integer, text -> Text, } }
//!
//! fn read(Path(id): Path<i32>) -> Result<String, Problem> {
//!     // No such note: 404.
//!     Ok(Session::current()?.first(notes::table.find(id).select(notes::text))?)
//! }
//!
//! fn write(Path(id): Path<i32>, text: String) -> Result<StatusCode, Problem> {
//!     let note = (notes::id.eq(id), notes::text.eq(text));
//!     Session::current()?.execute(diesel::insert_into(notes::table).values(note))?; // there already: 409
//!     Ok(StatusCode::CREATED) // committed before it is sent
//! }
//!
//! # fn main() -> diesel_session::Result<()> {
//! let executor = Executor::new(ScopedSession::<SqliteConnection>::new(Engine::new("notes.db")?))?;
//! let app: Router = Router::new().route("/notes/{id}", get(executor.read_handler(read)).put(executor.handler(write)));
//! # Ok(()) }
//! ```

mod function;
mod handler;
mod layer;
mod problem;
mod session;

pub use function::UnitFunction;
pub use handler::UnitHandler;
pub use layer::{SessionLayer, SessionService};
pub use problem::{Problem, status_of};
pub use session::RequestSession;
