//! The frame stack: the transaction, and the savepoints in it, each with its failure and its hooks.

use super::hooks::Hook;
use crate::error::Cause;
use crate::place::Place;

/// A transaction or savepoint.
#[derive(Default)]
pub(crate) struct Frame {
    pub(crate) serial: u64,
    pub(crate) place: Option<Place>,
    /// A database error failed it: only a rollback is possible.
    pub(crate) failure: Option<Cause>,
    /// It goes on, but can only be rolled back.
    pub(crate) rollback_only: Option<Cause>,
    /// Its guard was dropped where no rollback could be sent: roll back at the next chance.
    pub(crate) orphaned: bool,
    pub(crate) hooks: Vec<Hook>,
}

impl Frame {
    /// Why it can't be committed.
    pub(crate) fn doom(&self) -> Option<&Cause> {
        self.failure.as_ref().or(self.rollback_only.as_ref())
    }
}

/// The stack. The root is always there: a lazy session is in a logical transaction.
#[derive(Default)]
pub(crate) struct Frames {
    pub(crate) root: Frame,
    pub(crate) savepoints: Vec<Frame>,
    serial: u64,
}

impl Frames {
    /// Takes all frames, for the end of the transaction. The serials go on: a guard that outlives its transaction must not
    /// be taken for one of the next.
    pub(crate) fn take(&mut self) -> Self {
        let next = Self { serial: self.serial, ..Self::default() };
        std::mem::replace(self, next)
    }

    pub(crate) fn innermost(&mut self) -> &mut Frame {
        self.savepoints.last_mut().unwrap_or(&mut self.root)
    }

    pub(crate) fn push(&mut self, place: Place) -> u64 {
        self.serial += 1;
        self.savepoints.push(Frame { serial: self.serial, place: Some(place), ..Frame::default() });
        self.serial
    }

    pub(crate) fn position(&self, serial: u64) -> Option<usize> {
        self.savepoints.iter().position(|frame| frame.serial == serial)
    }

    /// The frame with this serial; the root for 0.
    pub(crate) fn by_serial(&mut self, serial: u64) -> Option<&mut Frame> {
        if serial == 0 {
            return Some(&mut self.root);
        }
        self.savepoints.iter_mut().find(|frame| frame.serial == serial)
    }

    /// The first cause that dooms the whole transaction.
    pub(crate) fn doom(&self) -> Option<&Cause> {
        self.root.doom().or_else(|| self.savepoints.iter().find_map(|frame| frame.failure.as_ref()))
    }
}
