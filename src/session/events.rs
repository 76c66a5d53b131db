//! Listeners: what a session tells about its transactions, in SQLAlchemy's order.

use std::fmt;

use std::rc::Rc;

use super::Session;
use crate::backend::SessionConnection;
use crate::entity::Entity;
use crate::error::Result;
use crate::place::Place;
use crate::unit_of_work::{Change, Node, ObjectState, Tracked};

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
    /// SQL text (`diesel::sql_query`, `diesel::dsl::sql`, `batch_execute`), and every query whose type is not Diesel's own,
    /// such as a `QueryFragment` of the application's.
    Raw,
    /// The connection itself was lent.
    Connection,
}

impl StatementKind {
    /// Reads the kind off the query's type: Diesel's builders have a module each. What is not known may be any text.
    pub(crate) fn of<Q>() -> Self {
        const BUILDERS: [(&str, StatementKind); 6] = [
            ("diesel::query_builder::select_statement::", StatementKind::Select),
            ("diesel::query_builder::combination_clause::", StatementKind::Select),
            ("diesel::query_source::", StatementKind::Select),
            ("diesel::query_builder::insert_statement::", StatementKind::Insert),
            ("diesel::query_builder::update_statement::", StatementKind::Update),
            ("diesel::query_builder::delete_statement::", StatementKind::Delete),
        ];
        let name = std::any::type_name::<Q>().trim_start_matches('&');
        // `table!` makes a type of that name.
        if name.ends_with("::table") {
            return Self::Select;
        }
        BUILDERS.iter().find(|(module, _)| name.starts_with(module)).map_or(Self::Raw, |(_, kind)| *kind)
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

/// An object's way from one state to another.
///
/// | SQLAlchemy's event | from | to |
/// |---|---|---|
/// | `transient_to_pending` | transient | pending |
/// | `pending_to_transient` | pending | transient |
/// | `pending_to_persistent` | pending | persistent |
/// | `persistent_to_transient` | persistent | transient |
/// | `loaded_as_persistent` | transient | persistent |
/// | `persistent_to_deleted` | persistent | deleted |
/// | `deleted_to_persistent` | deleted | persistent |
/// | `deleted_to_detached` | deleted | detached |
/// | `persistent_to_detached` | persistent | detached |
pub struct Transition {
    change: Change,
    session: u64,
}

impl Transition {
    pub(crate) fn new(session: u64, change: Change) -> Self {
        Self { change, session }
    }

    /// The session's number.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// The type of the entity.
    #[must_use]
    pub fn entity(&self) -> &'static str {
        self.change.node.entity_name()
    }

    /// Its table.
    #[must_use]
    pub fn table(&self) -> &'static str {
        self.change.node.table_name()
    }

    /// What it was.
    #[must_use]
    pub fn from(&self) -> ObjectState {
        self.change.from
    }

    /// What it is.
    #[must_use]
    pub fn to(&self) -> ObjectState {
        self.change.to
    }

    /// The object, if it is a `T`.
    #[must_use]
    pub fn object<T: Entity>(&self) -> Option<Tracked<T>> {
        Rc::downcast::<Node<T>>(Rc::clone(&self.change.node).into_any()).ok().map(Tracked::of)
    }
}

impl fmt::Debug for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transition")
            .field("entity", &self.entity())
            .field("from", &self.from())
            .field("to", &self.to())
            .finish_non_exhaustive()
    }
}

/// Hears what a session does. Every method does nothing by default; they run on the session's thread. Where a method gets
/// the session, it may work with it, and not end its transaction
/// ([`Error::NotOwner`](crate::Error::NotOwner)); in the others a handle that the listener kept answers
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

    /// BEGIN or SAVEPOINT was sent. The session may be used: what it sends is part of the transaction.
    ///
    /// # Errors
    /// An error fails the statement that began the transaction.
    fn after_begin(&self, session: &Session<C>, transaction: &TransactionInfo) -> Result<()> {
        let _ = (session, transaction);
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

    /// A flush is about to begin, with something to flush. The session may be used: what is added, changed or deleted here is
    /// flushed too. Queries don't flush first here, and `flush` and `begin_nested` answer
    /// [`Error::Reentrant`](crate::Error::Reentrant).
    ///
    /// # Errors
    /// An error refuses the flush.
    fn before_flush(&self, session: &Session<C>) -> Result<()> {
        let _ = session;
        Ok(())
    }

    /// A flush has sent its statements; [`new`](Session::new_entities) and its kin still show what it wrote. The session answers
    /// [`Error::Reentrant`](crate::Error::Reentrant).
    fn after_flush(&self, session: &Session<C>) {
        let _ = session;
    }

    /// A flush is over, and every object is what it became. The session may be used; what is changed here is flushed by the
    /// next flush, which a commit makes.
    fn after_flush_postexec(&self, session: &Session<C>) {
        let _ = session;
    }

    /// An object went from one state to another. No session is given: it may be in the middle of something.
    fn transition(&self, transition: &Transition) {
        let _ = transition;
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
