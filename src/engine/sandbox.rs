//! The transaction around all others, in which tests happen.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// What an engine knows of its transaction around all others.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    is_lost: AtomicBool,
}

impl Sandbox {
    /// The transaction is over, by whatever: what was committed in it is lost, or stored for good.
    pub(crate) fn lose(&self) {
        if !self.is_lost.swap(true, Ordering::SeqCst) {
            tracing::error!("the transaction around a sandbox is gone");
        }
    }

    /// Refuses whoever would begin anew as if nothing had happened.
    pub(crate) fn admit(&self) -> Result<()> {
        if self.is_lost.load(Ordering::SeqCst) {
            return Err(Error::Configuration(
                "the transaction around the sandbox is gone (a raw COMMIT or ROLLBACK, DDL on MySQL, a deadlock there, or a lost connection): what was committed in it is lost or stored for good; see the first error, and make a new engine".into(),
            ));
        }
        Ok(())
    }
}
