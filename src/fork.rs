//! Noticing a `fork`: what was opened before it belongs to the parent process.
//!
//! A child shares its parent's sockets: a statement would mix with the parent's, and closing sends the server a good-bye
//! in the parent's name. SQLite allows neither use nor `sqlite3_close` across a fork (SQLite docs, "How To Corrupt An SQLite
//! Database File", 2.6). Even a connection that the child opens itself, to a file that was open before, loses commits: it
//! takes its parent's locks for its own, and the parent's last close deletes the log under it (seen with SQLite 3.51).
//!
//! So a child forgets what it inherited. It waits for no lock either, because the thread that holds one may not exist
//! there.

use std::sync::OnceLock;

use forkguard::Guard;

use crate::error::{Error, Result};

/// In which process something was made. Asking costs a look at one number, which `pthread_atfork` changes in the child.
#[derive(Debug, Clone)]
pub(crate) struct Origin(Option<Guard>);

impl Origin {
    /// This process.
    pub(crate) fn here() -> Self {
        // Registering the handler fails only without memory; then forks go unnoticed.
        Self(Guard::try_new().ok())
    }

    /// Whether this is another process than the one that it was made in.
    #[inline]
    pub(crate) fn is_elsewhere(&self) -> bool {
        // A guard notices a fork only once; this one goes on noticing.
        match &self.0 {
            Some(guard) => guard.clone().detected_fork(),
            None => false,
        }
    }

    /// Refuses in another process.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_elsewhere() { Err(detected()) } else { Ok(()) }
    }
}

/// Refuses a pool of r2d2's in a child whose parent had one: its locks keep a table of waiting threads (parking_lot_core
/// 0.10), in which the child would find threads that it does not have, and crash.
pub(crate) fn check_pools() -> Result<()> {
    static FIRST: OnceLock<Origin> = OnceLock::new();
    FIRST.get_or_init(Origin::here).check()
}

#[cold]
fn detected() -> Error {
    Error::ForkDetected
}

impl Default for Origin {
    fn default() -> Self {
        Self::here()
    }
}
