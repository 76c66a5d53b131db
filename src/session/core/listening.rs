//! Telling the listeners.

use std::cell::Cell;
use std::rc::Rc;

use super::Core;
use crate::backend::SessionConnection;
use crate::error::Result;
use crate::session::Session;
use crate::session::events::{SessionListener, StatementInfo, TransactionInfo};
use crate::session::state::Situation;

impl<C: SessionConnection> Core<C> {
    pub(crate) fn listen(&self, listener: Rc<dyn SessionListener<C>>) {
        self.listeners.borrow_mut().push(listener);
        self.watched.set(true);
    }

    pub(super) fn each_listener(&self, mut tell: impl FnMut(&dyn SessionListener<C>) -> Result<()>) -> Result<()> {
        if !self.watched.get() {
            return Ok(());
        }
        for listener in self.shared_listeners.iter().flat_map(|listeners| listeners.iter()) {
            tell(&**listener)?;
        }
        let own = self.listeners.borrow().clone();
        own.iter().try_for_each(|listener| tell(&**listener))
    }

    pub(super) fn tell(&self, mut tell: impl FnMut(&dyn SessionListener<C>)) {
        let _ = self.each_listener(|listener| {
            tell(listener);
            Ok(())
        });
    }

    /// Tells that something is over: it can't be used any more, so a handle that a listener kept answers `InHook`.
    pub(super) fn tell_over(&self, tell: impl FnMut(&dyn SessionListener<C>)) {
        if self.watched.get() {
            let _in_hook = InHook::start(self);
            self.tell(tell);
        }
    }

    pub(super) fn tell_with_session(&self, mut tell: impl FnMut(&dyn SessionListener<C>, &Session<C>)) {
        if self.watched.get()
            && let Some(session) = self.handle()
        {
            self.tell(|listener| tell(listener, &session));
        }
    }

    /// Asks the listeners about a statement; statements of their own are not asked about again.
    pub(super) fn tell_statement(&self, statement: &StatementInfo) -> Result<()> {
        if self.asking.replace(true) {
            return Ok(());
        }
        let _asking = Asking(&self.asking);
        match self.handle() {
            Some(session) => self.each_listener(|listener| listener.before_statement(&session, statement)),
            None => Ok(()),
        }
    }

    pub(super) fn transaction_info(&self, depth: usize) -> TransactionInfo {
        TransactionInfo::new(self.id, depth)
    }
}

/// Listeners hear of something that is over; ends with the call, whatever way that ends.
struct InHook<'a, C: SessionConnection> {
    core: &'a Core<C>,
    outer: bool,
}

impl<'a, C: SessionConnection> InHook<'a, C> {
    fn start(core: &'a Core<C>) -> Self {
        let outer = core.has(Situation::InHook);
        core.set(Situation::InHook, true);
        Self { core, outer }
    }
}

impl<C: SessionConnection> Drop for InHook<'_, C> {
    fn drop(&mut self) {
        self.core.set(Situation::InHook, self.outer);
    }
}

/// The listeners are being asked about a statement; ends with the call, whatever way that ends.
struct Asking<'a>(&'a Cell<bool>);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
