//! Where a node stands, in four bytes: there may be millions of nodes.

use std::cell::Cell;

use super::tracked::ObjectState;

/// Its state, whether it is marked to be deleted, and a level.
pub(super) struct Standing(Cell<u32>);

const STATE: u32 = 0b0111;
const MARKED: u32 = 0b1000;
const LEVEL: u32 = 4;

const STATES: [ObjectState; 5] = [
    ObjectState::Transient,
    ObjectState::Pending,
    ObjectState::Persistent,
    ObjectState::Deleted,
    ObjectState::Detached,
];

impl Standing {
    /// Not marked. A level of 2²⁸ or more is as high as those get.
    pub(super) fn new(state: ObjectState, level: u32) -> Self {
        let standing = Self(Cell::new(0));
        standing.set_state(state);
        standing.set_level(level);
        standing
    }

    #[inline]
    pub(super) fn state(&self) -> ObjectState {
        STATES[(self.0.get() & STATE) as usize % STATES.len()]
    }

    pub(super) fn set_state(&self, state: ObjectState) {
        self.0.set(self.0.get() & !STATE | state as u32);
    }

    pub(super) fn is_marked(&self) -> bool {
        self.0.get() & MARKED != 0
    }

    pub(super) fn set_marked(&self, marked: bool) {
        self.0.set(if marked { self.0.get() | MARKED } else { self.0.get() & !MARKED });
    }

    pub(super) fn level(&self) -> u32 {
        self.0.get() >> LEVEL
    }

    pub(super) fn set_level(&self, level: u32) {
        let level = level.min(u32::MAX >> LEVEL);
        self.0.set(self.0.get() & (STATE | MARKED) | level << LEVEL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_kept_whatever_the_others_become() {
        let standing = Standing::new(ObjectState::Pending, 7);
        for state in STATES {
            for marked in [true, false] {
                for level in [0, 1, 1 << 20, u32::MAX >> LEVEL] {
                    standing.set_state(state);
                    standing.set_marked(marked);
                    standing.set_level(level);
                    assert_eq!((standing.state(), standing.is_marked(), standing.level()), (state, marked, level));
                }
            }
        }
        standing.set_level(u32::MAX);
        assert_eq!(standing.level(), u32::MAX >> LEVEL);
    }
}
