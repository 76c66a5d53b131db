//! Listeners: what a session tells about its transactions, in SQLAlchemy's order.

use std::fmt;

use super::Session;
use crate::backend::SessionConnection;
use crate::error::Result;
use crate::place::Place;

/// Which transaction an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionInfo {
    depth: usize,
    session: u64,
}

impl TransactionInfo {
    pub(crate) fn new(session: u64, depth: usize) -> Self {
        Self { depth, session }
    }

    /// The session's number.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// 0 for the transaction itself, 1 for the outermost savepoint, and so on.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Whether it is a savepoint.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.depth > 0
    }
}

/// What kind of statement it is, as far as its Diesel type tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatementKind {
    /// A query made with Diesel's query builder.
    Select,
    /// `diesel::insert_into` and its kin.
    Insert,
    /// `diesel::update`.
    Update,
    /// `diesel::delete`.
    Delete,
    /// SQL text: `diesel::sql_query`, `batch_execute`.
    Raw,
    /// The connection itself was lent.
    Connection,
}

impl StatementKind {
    /// Reads the kind off the query's type: Diesel's four builders have a module each.
    pub(crate) fn of<Q>() -> Self {
        const BUILDERS: [(&str, StatementKind); 4] = [
            ("diesel::query_builder::insert_statement::", StatementKind::Insert),
            ("diesel::query_builder::update_statement::", StatementKind::Update),
            ("diesel::query_builder::delete_statement::", StatementKind::Delete),
            ("diesel::query_builder::sql_query::", StatementKind::Raw),
        ];
        let name = std::any::type_name::<Q>().trim_start_matches('&');
        BUILDERS.iter().find(|(module, _)| name.starts_with(module)).map_or(Self::Select, |(_, kind)| *kind)
    }

    /// Whether it certainly writes.
    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(self, Self::Insert | Self::Update | Self::Delete)
    }
}

/// A statement about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct StatementInfo {
    kind: StatementKind,
    place: Place,
}

impl StatementInfo {
    pub(crate) fn new(kind: StatementKind, place: Place) -> Self {
        Self { kind, place }
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> StatementKind {
        self.kind
    }

    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }
}

/// Hears what a session does. Every method does nothing by default; they run on the session's thread. Where a method gets
/// the session, it may use it; in the others a handle that the listener kept answers
/// [`Error::InHook`](crate::Error::InHook), as that transaction or savepoint is over.
///
/// The order is SQLAlchemy's `SessionEvents`: for a committed transaction `after_transaction_create`, `after_begin`,
/// `before_commit`, `after_commit`, `after_transaction_end`; for a rolled-back one, level by level from the inside,
/// `after_rollback`, `after_transaction_end`, `after_soft_rollback`. Register with
/// [`ScopedSession::listen`](crate::ScopedSession::listen) for a registry's sessions or [`Session::listen`] for one.
pub trait SessionListener<C: SessionConnection> {
    /// A transaction or savepoint was made; for the transaction itself nothing has been sent yet. The session may be used.
    fn after_transaction_create(&self, session: &Session<C>, transaction: &TransactionInfo) {
        let _ = (session, transaction);
    }

    /// BEGIN or SAVEPOINT was sent. Use the connection, not the session.
    ///
    /// # Errors
    /// An error fails the statement that began the transaction.
    fn after_begin(&self, connection: &mut C, transaction: &TransactionInfo) -> Result<()> {
        let _ = (connection, transaction);
        Ok(())
    }

    /// A statement is about to be sent by a session method.
    ///
    /// # Errors
    /// An error refuses the statement; nothing is sent.
    fn before_statement(&self, session: &Session<C>, statement: &StatementInfo) -> Result<()> {
        let _ = (session, statement);
        Ok(())
    }

    /// A commit was asked for, also one with nothing to commit. The session may be used.
    ///
    /// # Errors
    /// An error rolls the transaction back.
    fn before_commit(&self, session: &Session<C>) -> Result<()> {
        let _ = session;
        Ok(())
    }

    /// The transaction is stored. Savepoints have [`after_release`](Self::after_release) instead.
    fn after_commit(&self, transaction: &TransactionInfo) {
        let _ = transaction;
    }

    /// A savepoint was released.
    fn after_release(&self, transaction: &TransactionInfo) {
        let _ = transaction;
    }

    /// The database rolled back, to a savepoint or all of it.
    fn after_rollback(&self, transaction: &TransactionInfo) {
        let _ = transaction;
    }

    /// A level was rolled back, whether or not something was sent. The session may be used again if it
    /// [is active](Session::is_active).
    fn after_soft_rollback(&self, session: &Session<C>, transaction: &TransactionInfo) {
        let _ = (session, transaction);
    }

    /// A transaction or savepoint is over.
    fn after_transaction_end(&self, transaction: &TransactionInfo) {
        let _ = transaction;
    }
}

impl<C: SessionConnection> fmt::Debug for dyn SessionListener<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionListener")
    }
}
