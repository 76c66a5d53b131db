//! The state machine: what each operation does in each situation, as one table.
//!
//! Several situations can hold at once (a savepoint is open *and* the connection is lent). They are asked from the top
//! of the table down; the first that refuses decides, else the last word is the transaction's own state at the bottom.

/// What can be true of a session, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Situation {
    Closed = 1,
    InHook = 1 << 1,
    Flushing = 1 << 2,
    Lent = 1 << 3,
    Autocommit = 1 << 4,
    Owned = 1 << 5,
    SavepointOpen = 1 << 6,
    Lost = 1 << 7,
    Failed = 1 << 8,
    RollbackOnly = 1 << 9,
    Active = 1 << 10,
    Idle = 1 << 11,
}

/// What can be asked of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A query, a command, a lent connection.
    Statement,
    /// A change of an entity, which a flush will write.
    Change,
    /// `begin_nested`.
    Nest,
    Commit,
    Rollback,
    /// `remove`, `close`.
    Close,
}

/// A usage error: nothing is sent and nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    SessionClosed,
    InHook,
    Reentrant,
    InUse,
    NoTransaction,
    NotOwner,
    SavepointOpen,
    TransactionLost,
    PendingRollback,
}

/// What an allowed operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Begin first, then go on.
    Begin,
    /// Go on in the open transaction.
    Proceed,
    /// Go on without a transaction.
    WithoutTransaction,
    /// End without a round trip.
    EndIdle,
    Commit,
    /// Roll back, and say so where a commit was asked for.
    Rollback,
    /// Wait for the end of the call that holds the session.
    Defer,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// This situation has no say: ask the next.
    Pass,
    Refuse(Refusal),
    Do(Action),
}

/// The table. Rows in the order of the situations; columns: statement, change, nest, commit, rollback, close.
#[rustfmt::skip]
const TABLE: [[Cell; 6]; 12] = {
    use Action::{Begin, Commit, Defer, EndIdle, Nothing, Proceed, Rollback, WithoutTransaction};
    use Cell::{Do, Pass, Refuse};
    use Refusal::{
        InHook, InUse, NoTransaction, NotOwner, PendingRollback, Reentrant, SavepointOpen, SessionClosed, TransactionLost,
    };
    [
        /* closed        */ [Refuse(SessionClosed),    Refuse(SessionClosed),   Refuse(SessionClosed),   Refuse(SessionClosed), Do(Nothing),       Do(Nothing)],
        /* in its hooks  */ [Refuse(InHook),           Refuse(InHook),          Refuse(InHook),          Refuse(InHook),        Refuse(InHook),    Do(Defer)],
        /* flushing      */ [Refuse(Reentrant),        Refuse(Reentrant),       Refuse(Reentrant),       Refuse(Reentrant),     Refuse(Reentrant), Do(Defer)],
        /* lent          */ [Refuse(InUse),            Pass,                    Refuse(InUse),           Refuse(InUse),         Refuse(InUse),     Do(Defer)],
        /* autocommit    */ [Do(WithoutTransaction),   Refuse(NoTransaction),   Refuse(NoTransaction),   Pass,                  Pass,              Pass],
        /* owned         */ [Pass,                     Pass,                    Pass,                    Refuse(NotOwner),      Refuse(NotOwner),  Pass],
        /* savepoint     */ [Pass,                     Pass,                    Pass,                    Refuse(SavepointOpen), Pass,              Pass],
        /* lost          */ [Refuse(TransactionLost),  Refuse(TransactionLost), Refuse(TransactionLost), Do(Rollback),          Do(Rollback),      Do(Rollback)],
        /* failed        */ [Refuse(PendingRollback),  Refuse(PendingRollback), Refuse(PendingRollback), Do(Rollback),          Do(Rollback),      Do(Rollback)],
        /* rollback-only */ [Pass,                     Pass,                    Pass,                    Do(Rollback),          Do(Rollback),      Do(Rollback)],
        /* active        */ [Do(Proceed),              Do(Proceed),             Do(Proceed),             Do(Commit),            Do(Rollback),      Do(Rollback)],
        /* idle          */ [Do(Begin),                Do(Proceed),             Do(Begin),               Do(EndIdle),           Do(EndIdle),       Do(Nothing)],
    ]
};

/// The situations that hold, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Situations(u16);

impl Situations {
    pub(crate) const IDLE: Self = Self(Situation::Idle as u16);
    pub(crate) const READY: Self = Self(Situation::Active as u16);

    pub(crate) const fn has(self, situation: Situation) -> bool {
        self.0 & situation as u16 != 0
    }

    #[must_use]
    pub(crate) const fn with(self, situation: Situation, on: bool) -> Self {
        if on { Self(self.0 | situation as u16) } else { Self(self.0 & !(situation as u16)) }
    }

    /// The one decision: what `operation` does now.
    #[inline]
    pub(crate) fn decide(self, operation: Operation) -> Result<Action, Refusal> {
        // The rows of those that hold, from the top: the n-th has the n-th bit.
        let mut left = self.0;
        while left != 0 {
            match cell(left.trailing_zeros() as usize, operation) {
                Cell::Pass => {}
                Cell::Refuse(refusal) => return Err(refusal),
                Cell::Do(action) => return Ok(action),
            }
            left &= left - 1;
        }
        Ok(Action::Nothing)
    }
}

#[inline]
fn cell(row: usize, operation: Operation) -> Cell {
    TABLE[row][operation as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: [Operation; 6] = [
        Operation::Statement,
        Operation::Change,
        Operation::Nest,
        Operation::Commit,
        Operation::Rollback,
        Operation::Close,
    ];

    fn all_sets() -> impl Iterator<Item = Situations> {
        // A session is always either active or idle; the rest in every combination.
        (0_u16..1 << 10)
            .flat_map(|bits| [Situations(bits | Situation::Active as u16), Situations(bits | Situation::Idle as u16)])
    }

    #[test]
    fn every_set_of_situations_has_a_decision() {
        for set in all_sets() {
            for operation in OPERATIONS {
                let _ = set.decide(operation);
            }
        }
    }

    #[test]
    fn a_closed_session_never_sends_anything() {
        for set in all_sets().filter(|set| set.has(Situation::Closed)) {
            assert_eq!(set.decide(Operation::Statement), Err(Refusal::SessionClosed));
            assert_eq!(set.decide(Operation::Commit), Err(Refusal::SessionClosed));
            assert_eq!(set.decide(Operation::Rollback), Ok(Action::Nothing));
            assert_eq!(set.decide(Operation::Close), Ok(Action::Nothing));
        }
    }

    #[test]
    fn nothing_but_an_untroubled_transaction_commits() {
        for set in all_sets() {
            if set.decide(Operation::Commit) == Ok(Action::Commit) {
                let trouble = [
                    Situation::Closed,
                    Situation::InHook,
                    Situation::Flushing,
                    Situation::Lent,
                    Situation::Owned,
                    Situation::SavepointOpen,
                    Situation::Lost,
                    Situation::Failed,
                    Situation::RollbackOnly,
                ];
                assert!(set.has(Situation::Active));
                assert!(trouble.iter().all(|situation| !set.has(*situation)), "{set:?}");
            }
        }
    }

    #[test]
    fn a_failed_or_lost_transaction_takes_no_statement() {
        for set in all_sets()
            .filter(|set| (set.has(Situation::Failed) || set.has(Situation::Lost)) && !set.has(Situation::Autocommit))
        {
            assert!(set.decide(Operation::Statement).is_err(), "{set:?}");
            assert!(set.decide(Operation::Change).is_err(), "{set:?}");
        }
    }

    #[test]
    fn closing_is_never_refused() {
        for set in all_sets() {
            assert!(set.decide(Operation::Close).is_ok(), "{set:?}");
        }
    }
}
