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
    /// Whether a savepoint may be orphaned.
    has_orphans: bool,
}

impl Frames {
    pub(crate) fn innermost(&mut self) -> &mut Frame {
        self.savepoints.last_mut().unwrap_or(&mut self.root)
    }

    pub(crate) fn push(&mut self, place: Place) -> u64 {
        self.serial += 1;
        self.savepoints.push(Frame { serial: self.serial, place: Some(place), ..Frame::default() });
        self.serial
    }

    /// How many hooks wait for the end of the transaction.
    pub(crate) fn hooks(&self) -> usize {
        self.root.hooks.len() + self.savepoints.iter().map(|frame| frame.hooks.len()).sum::<usize>()
    }

    pub(crate) fn position(&self, serial: u64) -> Option<usize> {
        // Mostly the innermost.
        self.savepoints.iter().rposition(|frame| frame.serial == serial)
    }

    /// Marks a savepoint for rollback at the next chance.
    pub(crate) fn orphan(&mut self, serial: u64) {
        if let Some(position) = self.position(serial) {
            self.savepoints[position].orphaned = true;
            self.has_orphans = true;
        }
    }

    /// The outermost savepoint that is to be rolled back.
    pub(crate) fn orphaned(&mut self) -> Option<u64> {
        if !self.has_orphans {
            return None;
        }
        let orphan = self.savepoints.iter().find(|frame| frame.orphaned).map(|frame| frame.serial);
        self.has_orphans = orphan.is_some();
        orphan
    }

    /// The frame with this serial; the root for 0.
    pub(crate) fn by_serial(&mut self, serial: u64) -> Option<&mut Frame> {
        if serial == 0 {
            return Some(&mut self.root);
        }
        self.savepoints.iter_mut().find(|frame| frame.serial == serial)
    }

    /// Ends every frame and gives them out; `None` where there is nothing in them, which is the common case.
    pub(crate) fn end(&mut self) -> Option<Self> {
        let is_plain = self.savepoints.is_empty() && self.root.hooks.is_empty() && self.root.doom().is_none();
        if is_plain {
            return None;
        }
        // Serials go on, so that a guard that outlives its transaction never finds a savepoint of the next one.
        let serial = self.serial;
        Some(std::mem::replace(self, Self { serial, ..Self::default() }))
    }

    /// As new.
    pub(crate) fn renew(&mut self) {
        drop(self.end());
        (self.serial, self.has_orphans) = (0, false);
    }

    /// The hooks of all frames, in the order of registration within each, the root's first.
    pub(crate) fn into_hooks(self) -> Vec<Hook> {
        let savepoints = self.savepoints.into_iter().flat_map(|frame| frame.hooks);
        self.root.hooks.into_iter().chain(savepoints).collect()
    }

    /// The first cause that dooms the whole transaction.
    pub(crate) fn doom(&self) -> Option<&Cause> {
        self.root.doom().or_else(|| self.savepoints.iter().find_map(|frame| frame.failure.as_ref()))
    }
}
