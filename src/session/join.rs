//! A session on a connection that somebody else made, perhaps with a transaction open on it.

use diesel::connection::TransactionManager;
use diesel::result::QueryResult;

use crate::backend::{ConnectionSettings, SessionConnection, depth};
use crate::engine::ConnectionSlot;
use crate::options::TransactionOptions;

/// What a joined session does to a transaction that was already open on its connection (SQLAlchemy's
/// `join_transaction_mode`). Where none was open the session begins and ends its own, whatever the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum JoinMode {
    /// `CreateSavepoint` inside a savepoint, else `RollbackOnly`. The default.
    #[default]
    ConditionalSavepoint,
    /// `commit` and `close` leave it open, `rollback` rolls it back.
    RollbackOnly,
    /// `commit`, `rollback` and `close` act on it.
    ControlFully,
    /// The session works in a savepoint of its own and leaves the rest alone: the mode for tests.
    CreateSavepoint,
}

/// What the session's root transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// Its own.
    No,
    /// Somebody else's, which it may only roll back.
    RollbackOnly,
    /// Somebody else's, which it ends.
    ControlFully,
    /// A savepoint in somebody else's.
    Savepoint,
}

/// The number of the savepoint that stands for the root.
const ROOT: usize = 0;

impl Joined {
    pub(crate) fn begin<C: SessionConnection>(
        slot: &mut ConnectionSlot<C>,
        mode: JoinMode,
        options: &TransactionOptions,
    ) -> QueryResult<Self> {
        let open = depth(&mut slot.conn)?;
        let joined = match mode {
            _ if open == 0 => {
                slot.conn.begin(options, &ConnectionSettings::default(), &mut slot.state)?;
                return Ok(Self::No);
            }
            JoinMode::ConditionalSavepoint if open > 1 => Self::Savepoint,
            JoinMode::ConditionalSavepoint | JoinMode::RollbackOnly => Self::RollbackOnly,
            JoinMode::ControlFully => Self::ControlFully,
            JoinMode::CreateSavepoint => Self::Savepoint,
        };
        if joined == Self::Savepoint {
            slot.conn.savepoint(ROOT, &slot.state)?;
        }
        Ok(joined)
    }

    pub(crate) fn commit<C: SessionConnection>(self, slot: &mut ConnectionSlot<C>) -> QueryResult<()> {
        match self {
            Self::RollbackOnly => Ok(()),
            Self::ControlFully if depth(&mut slot.conn)? > 1 => {
                C::TransactionManager::commit_transaction(&mut slot.conn)
            }
            Self::No => slot.conn.commit(!slot.suspect && !slot.touched, &slot.state),
            // What happened before it was joined, nobody here knows.
            Self::ControlFully => slot.conn.commit(false, &slot.state),
            Self::Savepoint => slot.conn.release(ROOT, &slot.state),
        }
    }

    /// Rolls back; `savepoints` of the session's own are open inside.
    pub(crate) fn roll_back<C: SessionConnection>(
        self,
        slot: &mut ConnectionSlot<C>,
        _savepoints: usize,
    ) -> QueryResult<()> {
        match self {
            Self::No => slot.conn.rollback(&slot.state),
            Self::RollbackOnly | Self::ControlFully => match depth(&mut slot.conn)? {
                0 => Ok(()),
                1 => slot.conn.rollback(&slot.state),
                _ => <C::TransactionManager as TransactionManager<C>>::rollback_transaction(&mut slot.conn),
            },
            Self::Savepoint => slot.conn.rollback_to(ROOT, &slot.state),
        }
    }

    /// As `roll_back`, for a session that is closed instead: a transaction that it doesn't control stays.
    pub(crate) fn close<C: SessionConnection>(
        self,
        slot: &mut ConnectionSlot<C>,
        savepoints: usize,
    ) -> QueryResult<()> {
        match self {
            Self::RollbackOnly if savepoints == 0 => Ok(()),
            Self::RollbackOnly => slot.conn.rollback_to(1, &slot.state),
            _ => self.roll_back(slot, savepoints),
        }
    }
}
