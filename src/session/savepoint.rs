//! The guard of a savepoint.

use std::rc::Rc;

use super::core::Core;
use super::hooks::Report;
use crate::backend::SessionConnection;
use crate::error::Result;

/// An open savepoint. `commit` keeps what was done since, `rollback` undoes it; a guard that is dropped rolls back.
///
/// Made by [`Session::begin_nested`](crate::Session::begin_nested). Guards end from the inside out. While one is alive,
/// [`Session::commit`](crate::Session::commit) is refused with
/// [`Error::SavepointOpen`](crate::Error::SavepointOpen), so that a helper can't commit its caller's frame (SQLAlchemy
/// would commit through it). [`Session::rollback`](crate::Session::rollback) ends all of them.
///
/// # Examples
/// ```
/// # use diesel::sqlite::SqliteConnection;
/// # use diesel_session::{Engine, Session};
/// # fn main() -> diesel_session::Result<()> {
/// # let session = Session::<SqliteConnection>::new(&Engine::new(":memory:")?);
/// session.batch_execute("CREATE TABLE notes (text TEXT)")?;
/// let savepoint = session.begin_nested()?;
/// session.batch_execute("INSERT INTO notes VALUES ('kept only if the savepoint is')")?;
/// savepoint.rollback()?;
/// session.commit()?;
/// # Ok(()) }
/// ```
#[must_use = "a savepoint that is dropped at once is rolled back at once"]
pub struct Savepoint<C: SessionConnection> {
    core: Rc<Core<C>>,
    serial: u64,
    ended: bool,
}

impl<C: SessionConnection> std::fmt::Debug for Savepoint<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Savepoint").field("session", &self.core.id).field("serial", &self.serial).finish()
    }
}

impl<C: SessionConnection> Savepoint<C> {
    pub(crate) fn new(core: Rc<Core<C>>, serial: u64) -> Self {
        Self { core, serial, ended: false }
    }

    /// Keeps what was done since the savepoint, as part of the frame around it. One round trip.
    ///
    /// # Errors
    /// [`Error::RolledBack`](crate::Error::RolledBack) if a statement in it failed: it is rolled back instead, the
    /// transaction around it goes on. [`Error::SavepointOpen`](crate::Error::SavepointOpen) if an inner guard is
    /// alive: the call has consumed this guard, so both are rolled back.
    /// [`Error::SavepointGone`](crate::Error::SavepointGone) if the transaction ended first.
    #[track_caller]
    pub fn commit(mut self) -> Result<Report> {
        self.ended = true;
        self.core.release(self.serial, std::panic::Location::caller()).map(|()| Report::default())
    }

    /// Undoes what was done since the savepoint, inner savepoints included. Nothing to do if it is gone already.
    /// One round trip (two on MySQL and SQLite).
    ///
    /// # Errors
    /// [`Error::InUse`](crate::Error::InUse) or [`Error::InHook`](crate::Error::InHook) inside a call that holds the
    /// session: the savepoint is rolled back when that call ends.
    #[track_caller]
    pub fn rollback(mut self) -> Result<Report> {
        self.ended = true;
        if self.core.is_elsewhere() || self.core.is_held() {
            return self.core.release(self.serial, std::panic::Location::caller()).map(|()| Report::default());
        }
        Ok(Report::new(self.core.roll_back_to(self.serial)))
    }
}

impl<C: SessionConnection> Drop for Savepoint<C> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // While a panic unwinds nothing is sent: the next use of the session does it, or the rollback of all.
        if std::thread::panicking() || self.core.is_held() {
            self.core.orphan(self.serial);
        } else {
            self.core.roll_back_to(self.serial);
        }
    }
}
