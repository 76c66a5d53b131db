//! Queries through a session: Diesel's own, without a `&mut conn`.

use std::panic::Location;

use diesel::RunQueryDsl;
use diesel::query_builder::AsQuery;
use diesel::query_dsl::methods::{ExecuteDsl, LimitDsl, LoadQuery};
use diesel::result::{Error as DieselError, QueryResult};

use super::Session;
use super::core::Road;
use super::events::StatementKind;
use super::first::{First, takes_a_literal_limit};
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::place::Place;

impl<C: SessionConnection> Session<C> {
    /// Every row of a query.
    ///
    /// # Errors
    /// [`Error::Statement`] with Diesel's error and the place of this call; a database error also fails the frame. Usage
    /// errors as in the table of [`Session`].
    #[track_caller]
    pub fn load<'q, U>(&self, query: impl LoadQuery<'q, C, U>) -> Result<Vec<U>> {
        let kind = kind_of(&query);
        self.core().run(kind, Location::caller(), |conn| query.load(conn))
    }

    /// Every row; the same as [`load`](Session::load), for statements with RETURNING.
    ///
    /// # Errors
    /// As [`load`](Session::load).
    #[track_caller]
    pub fn get_results<'q, U>(&self, query: impl LoadQuery<'q, C, U>) -> Result<Vec<U>> {
        self.load(query)
    }

    /// One row.
    ///
    /// # Errors
    /// [`Error::Statement`] with `NotFound` if there is none ([`Error::is_not_found`];
    /// [`optional`](crate::OptionalExt::optional) makes it a `None`); else as [`load`](Session::load).
    #[track_caller]
    pub fn get_result<'q, U>(&self, query: impl LoadQuery<'q, C, U>) -> Result<U> {
        let kind = kind_of(&query);
        self.core().run(kind, Location::caller(), |conn| query.get_result(conn))
    }

    /// The first row, with `LIMIT 1`.
    ///
    /// # Errors
    /// As [`get_result`](Session::get_result).
    #[track_caller]
    pub fn first<'q, U, Q>(&self, query: Q) -> Result<U>
    where
        Q: AsQuery,
        Q::Query: LimitDsl,
        First<Q::Query, diesel::dsl::Limit<Q::Query>>: LoadQuery<'q, C, U>,
    {
        self.first_at(query, Location::caller())
    }

    pub(super) fn first_at<'q, U, Q>(&self, query: Q, place: Place) -> Result<U>
    where
        Q: AsQuery,
        Q::Query: LimitDsl,
        First<Q::Query, diesel::dsl::Limit<Q::Query>>: LoadQuery<'q, C, U>,
    {
        let query = query.as_query();
        let first =
            if takes_a_literal_limit::<Q::Query>() { First::Literal(query) } else { First::Bound(query.limit(1)) };
        self.core().run(|| StatementKind::Select, place, |conn| first.get_result(conn))
    }

    /// A statement without rows; gives the number of rows that it touched.
    ///
    /// # Errors
    /// As [`load`](Session::load); [`Error::ReadOnly`] for a write in a read-only session, before anything is sent.
    #[track_caller]
    pub fn execute<Q>(&self, query: Q) -> Result<usize>
    where
        Q: RunQueryDsl<C> + ExecuteDsl<C>,
    {
        self.core().run(StatementKind::of::<Q>, Location::caller(), |conn| query.execute(conn))
    }

    /// The rows of a query one by one, for results larger than memory: `f` gets an iterator that fetches as it goes (on
    /// PostgreSQL in single-row mode). Until `f` returns, the session is in use.
    ///
    /// On MySQL the client library holds the whole result (diesel 2.3.14): read a large one in pieces there, by key.
    ///
    /// # Errors
    /// What `f` returned; else as [`load`](Session::load).
    ///
    /// # Examples
    /// ```
    /// # use diesel::prelude::*;
    /// # use diesel_session::{Engine, Session};
    /// # diesel::table! { notes (id) { id -> Integer, text -> Text, } }
    /// # fn main() -> diesel_session::Result<()> {
    /// # let session = Session::<SqliteConnection>::new(&Engine::new(":memory:")?);
    /// # session.batch_execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")?;
    /// let letters = session.with_rows(notes::table.select(notes::text), |rows| {
    ///     let mut letters = 0;
    ///     for text in rows {
    ///         let text: String = text?;
    ///         letters += text.len();
    ///     }
    ///     Ok(letters)
    /// })?;
    /// # assert_eq!(letters, 0);
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn with_rows<'q, U, Q, R>(
        &self,
        query: Q,
        f: impl FnOnce(&mut dyn Iterator<Item = QueryResult<U>>) -> QueryResult<R>,
    ) -> Result<R>
    where
        U: 'static,
        Q: LoadQuery<'q, C, U, C::RowMode> + 'static,
    {
        let kind = kind_of(&query);
        let place = Location::caller();
        self.core().run(kind, place, |conn| {
            let mut rows = query.load_iter::<U, C::RowMode>(conn)?;
            f(&mut rows)
        })
    }

    /// SQL text, several statements if need be, without binds. On SQLite and MySQL DDL belongs here too; MySQL commits
    /// implicitly around it.
    ///
    /// # Errors
    /// As [`load`](Session::load); [`Error::TransactionLost`] if the text ended the transaction, also where it began another.
    /// On PostgreSQL `RESET ALL` counts as that.
    #[track_caller]
    pub fn batch_execute(&self, sql: &str) -> Result<()> {
        self.core().run_raw(Road::of_text(sql), Location::caller(), |conn| conn.batch_execute(sql))
    }

    /// Lends the connection, inside the transaction, to anything that wants a `&mut` one. Diesel's own
    /// `conn.transaction(…)` in it is a savepoint. The database's own rules hold inside: what was caught and undone there
    /// does not fail the session's frame. Afterwards the transaction's state is asked of the connection (on MySQL and MariaDB
    /// by a savepoint around it, two round trips). What `f` itself commits is not the session's to undo: after a deadlock
    /// or a lost connection the session takes it that `f` had not.
    ///
    /// # Errors
    /// What `f` returned, as [`Error::Statement`]; [`Error::TransactionLost`] if `f` ended the transaction;
    /// [`Error::PendingRollback`] if `f` left it aborted (PostgreSQL) and said `Ok`.
    #[track_caller]
    pub fn with_connection<T>(&self, f: impl FnOnce(&mut C) -> QueryResult<T>) -> Result<T> {
        self.core().run_raw(Road::Closure, Location::caller(), f)
    }

    /// As [`with_connection`](Session::with_connection), for closures with an error type of their own.
    ///
    /// # Errors
    /// What `f` returned, else as [`with_connection`](Session::with_connection).
    #[track_caller]
    pub fn try_with_connection<T, E: From<Error>>(&self, f: impl FnOnce(&mut C) -> Result<T, E>) -> Result<T, E> {
        let mut own_error = None;
        let result = self.core().run_raw(Road::Closure, Location::caller(), |conn| {
            f(conn).map_err(|error| {
                own_error = Some(error);
                DieselError::RollbackTransaction
            })
        });
        match own_error {
            Some(error) => Err(error),
            None => Ok(result?),
        }
    }
}

pub(super) fn kind_of<Q>(_: &Q) -> impl FnOnce() -> StatementKind + use<Q> {
    StatementKind::of::<Q>
}

/// Diesel's query methods with a session at the end: `users::table.filter(…).load_in(&session)`.
pub trait SessionQueryDsl: Sized {
    /// As [`Session::load`].
    ///
    /// # Errors
    /// As [`Session::load`].
    #[track_caller]
    fn load_in<'q, U, C: SessionConnection>(self, session: &Session<C>) -> Result<Vec<U>>
    where
        Self: LoadQuery<'q, C, U>,
    {
        session.load(self)
    }

    /// As [`Session::get_result`].
    ///
    /// # Errors
    /// As [`Session::get_result`].
    #[track_caller]
    fn get_result_in<'q, U, C: SessionConnection>(self, session: &Session<C>) -> Result<U>
    where
        Self: LoadQuery<'q, C, U>,
    {
        session.get_result(self)
    }

    /// As [`Session::get_results`].
    ///
    /// # Errors
    /// As [`Session::load`].
    #[track_caller]
    fn get_results_in<'q, U, C: SessionConnection>(self, session: &Session<C>) -> Result<Vec<U>>
    where
        Self: LoadQuery<'q, C, U>,
    {
        session.load(self)
    }

    /// As [`Session::first`].
    ///
    /// # Errors
    /// As [`Session::get_result`].
    #[track_caller]
    fn first_in<'q, U, C: SessionConnection>(self, session: &Session<C>) -> Result<U>
    where
        Self: AsQuery,
        Self::Query: LimitDsl,
        First<Self::Query, diesel::dsl::Limit<Self::Query>>: LoadQuery<'q, C, U>,
    {
        session.first(self)
    }

    /// As [`Session::execute`].
    ///
    /// # Errors
    /// As [`Session::execute`].
    #[track_caller]
    fn execute_in<C: SessionConnection>(self, session: &Session<C>) -> Result<usize>
    where
        Self: RunQueryDsl<C> + ExecuteDsl<C>,
    {
        session.execute(self)
    }
}

impl<Q> SessionQueryDsl for Q {}
