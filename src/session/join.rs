//! A session on a connection that somebody else made, perhaps with a transaction open on it.

use diesel::connection::TransactionManager;
use diesel::result::QueryResult;

use crate::backend::{ConnectionSettings, Limits, SessionConnection, depth};
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
    /// All that there is so far of one that it shares; who bears that ends it.
    Whole,
}

/// The number of the savepoint that stands for the root.
pub(super) const ROOT: usize = 0;

impl Joined {
    pub(crate) fn begin<C: SessionConnection>(
        slot: &mut ConnectionSlot<C>,
        mode: JoinMode,
        options: &TransactionOptions,
        limits: Limits,
    ) -> QueryResult<Self> {
        slot.meet()?;
        let open = depth(&mut slot.conn)?;
        let joined = match mode {
            _ if open == 0 => {
                slot.begin(options, &ConnectionSettings::default(), limits)?;
                return Ok(Self::No);
            }
            JoinMode::ConditionalSavepoint if open > 1 => Self::Savepoint,
            JoinMode::ConditionalSavepoint | JoinMode::RollbackOnly => Self::RollbackOnly,
            JoinMode::ControlFully => Self::ControlFully,
            JoinMode::CreateSavepoint => Self::Savepoint,
        };
        if joined == Self::Savepoint {
            slot.savepoint(ROOT)?;
        }
        if limits != Limits::default()
            && let Err(error) = slot.limit(&ConnectionSettings::default(), limits)
        {
            if joined == Self::Savepoint {
                slot.rollback_to(ROOT)?;
            }
            return Err(error);
        }
        Ok(joined)
    }

    pub(crate) fn commit<C: SessionConnection>(self, slot: &mut ConnectionSlot<C>) -> QueryResult<()> {
        self.send_commit(slot)?;
        self.put_back(slot);
        Ok(())
    }

    /// The owner finds the settings that it had. What is stored stays so whatever comes of this.
    fn put_back<C: SessionConnection>(self, slot: &mut ConnectionSlot<C>) {
        if slot.is_joined()
            && let Err(error) = slot.put_back()
        {
            tracing::warn!(%error, "the settings of a joined connection could not be put back");
        }
    }

    fn send_commit<C: SessionConnection>(self, slot: &mut ConnectionSlot<C>) -> QueryResult<()> {
        match self {
            Self::RollbackOnly | Self::Whole => Ok(()),
            Self::ControlFully if depth(&mut slot.conn)? > 1 => {
                C::TransactionManager::commit_transaction(&mut slot.conn)
            }
            Self::No => slot.commit(),
            // What happened before it was joined, nobody here knows.
            Self::ControlFully => slot.commit_warily(),
            Self::Savepoint => slot.release(ROOT),
        }
    }

    /// Rolls back; `savepoints` of the session's own are open inside.
    pub(crate) fn roll_back<C: SessionConnection>(
        self,
        slot: &mut ConnectionSlot<C>,
        _savepoints: usize,
    ) -> QueryResult<()> {
        self.send_rollback(slot)?;
        self.put_back(slot);
        Ok(())
    }

    fn send_rollback<C: SessionConnection>(self, slot: &mut ConnectionSlot<C>) -> QueryResult<()> {
        match self {
            Self::No => slot.rollback(),
            Self::Whole => Ok(()),
            Self::RollbackOnly | Self::ControlFully => match depth(&mut slot.conn)? {
                0 => Ok(()),
                1 => slot.rollback(),
                _ => <C::TransactionManager as TransactionManager<C>>::rollback_transaction(&mut slot.conn),
            },
            Self::Savepoint => slot.rollback_to(ROOT),
        }
    }

    /// As `roll_back`, for a session that is closed instead: a transaction that it doesn't control stays.
    pub(crate) fn close<C: SessionConnection>(
        self,
        slot: &mut ConnectionSlot<C>,
        savepoints: usize,
    ) -> QueryResult<()> {
        if self != Self::RollbackOnly {
            return self.roll_back(slot, savepoints);
        }
        if savepoints > 0 {
            slot.rollback_to(1)?;
        }
        self.put_back(slot);
        Ok(())
    }
}
