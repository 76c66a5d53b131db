//! Telling the listeners.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::Core;
use crate::backend::SessionConnection;
use crate::error::{Cause, Reason, Result};
use crate::session::Session;
use crate::session::events::{SessionListener, StatementInfo, TransactionInfo};
use crate::session::hooks::HookError;
use crate::session::state::{Refusal, Situation};

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

    /// Tells that something is over: it can't be used any more, so a handle that a listener kept answers `InHook`. What
    /// panics is told, and changes nothing.
    pub(super) fn tell_over(&self, tell: impl FnMut(&dyn SessionListener<C>)) {
        if self.watched.get() {
            let _in_hook = InHook::start(self);
            self.tell_safely(tell);
        }
    }

    /// Tells every listener, also after one that panicked: what it hears of stands.
    fn tell_safely(&self, mut tell: impl FnMut(&dyn SessionListener<C>)) {
        self.tell(|listener| {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| tell(listener))) {
                let error = HookError::of_listener(self.made_at, panic);
                tracing::error!(session = self.id, error = %error, "a listener panicked");
                if let Some(table) = self.table() {
                    table.hook_failed();
                }
                self.listener_errors.borrow_mut().push(error);
            }
        });
    }

    /// Asks the listeners, who may work with the session but not end its transaction.
    pub(super) fn ask_listeners(
        &self,
        mut ask: impl FnMut(&dyn SessionListener<C>, &Session<C>) -> Result<()>,
    ) -> Result<()> {
        if !self.watched.get() {
            return Ok(());
        }
        let Some(session) = self.handle() else { return Err(self.refuse(Refusal::SessionClosed)) };
        let _owned = OwnedByListeners::start(self);
        self.each_listener(|listener| ask(listener, &session))
    }

    /// Tells that a transaction or savepoint was rolled back; the session may be used again.
    pub(super) fn tell_soft_rollback(&self, info: &TransactionInfo) {
        if self.watched.get()
            && let Some(session) = self.handle()
        {
            self.tell_safely(|listener| listener.after_soft_rollback(&session, info));
        }
    }

    /// Asks the listeners about a statement; statements of their own are not asked about again.
    pub(super) fn tell_statement(&self, statement: &StatementInfo) -> Result<()> {
        if self.asking.replace(true) {
            return Ok(());
        }
        let _asking = Asking(&self.asking);
        self.ask_listeners(|listener, session| listener.before_statement(session, statement))
    }

    pub(super) fn transaction_info(&self, depth: usize) -> TransactionInfo {
        TransactionInfo::new(self.id, depth)
    }
}

/// Listeners work with the session and don't end its transaction; ends with the call. A panic of theirs leaves a transaction
/// that nobody commits.
struct OwnedByListeners<'a, C: SessionConnection> {
    core: &'a Core<C>,
    outer: bool,
}

impl<'a, C: SessionConnection> OwnedByListeners<'a, C> {
    fn start(core: &'a Core<C>) -> Self {
        let outer = core.has(Situation::Owned);
        core.set(Situation::Owned, true);
        Self { core, outer }
    }
}

impl<C: SessionConnection> Drop for OwnedByListeners<'_, C> {
    fn drop(&mut self) {
        self.core.set(Situation::Owned, self.outer);
        if std::thread::panicking() && self.core.has(Situation::Active) {
            self.core.fail(Cause::new(Reason::Panicked, self.core.made_at));
        }
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
