//! This thread's sessions: a stack a registry, and a shortcut to the one that `Session::current()` gives.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::session::core::Core;

/// A session of any connection type.
pub(crate) trait AnyCore: Any {
    fn end_with_its_thread(&self);
}

impl<C: SessionConnection> AnyCore for Core<C> {
    fn end_with_its_thread(&self) {
        self.abandon_with_thread();
    }
}

/// Names a registry in this process.
pub(crate) type RegistryId = u64;

struct Entry {
    registry: RegistryId,
    core: Rc<dyn AnyCore>,
    /// Whether an extent put it there and will take it away.
    extent: bool,
}

impl Entry {
    fn is<C: SessionConnection>(&self, core: &Rc<Core<C>>) -> bool {
        Rc::as_ptr(&self.core).cast::<()>() == Rc::as_ptr(core).cast::<()>()
    }
}

struct Local {
    hot: RefCell<Option<Rc<dyn Any>>>,
    stack: RefCell<Vec<Entry>>,
}

impl Drop for Local {
    /// The thread ends. A panic here would abort the process, so nothing gets out, not even from values that the user put
    /// into a session.
    fn drop(&mut self) {
        let hot = self.hot.get_mut().take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(hot)));
        while let Some(entry) = self.stack.get_mut().pop() {
            let _ = catch_unwind(AssertUnwindSafe(|| entry.core.end_with_its_thread()));
            let _ = catch_unwind(AssertUnwindSafe(move || drop(entry)));
        }
    }
}

thread_local! {
    static LOCAL: Local = const { Local { hot: RefCell::new(None), stack: RefCell::new(Vec::new()) } };
}

/// The shortcut: the session that the last `Session::current()` found, if it is still that.
#[inline]
pub(crate) fn hot<C: SessionConnection>() -> Option<Rc<Core<C>>> {
    LOCAL
        .try_with(|local| {
            let hot = local.hot.try_borrow().ok()?;
            let hot = hot.as_ref()?;
            if hot.downcast_ref::<Core<C>>()?.is_available() { Rc::clone(hot).downcast().ok() } else { None }
        })
        .ok()
        .flatten()
}

/// The shortcut's session as its registry sees it.
pub(crate) fn hot_top<C: SessionConnection>() -> Option<Found<C>> {
    let core = hot::<C>()?;
    let extent =
        LOCAL.try_with(|local| local.stack.borrow().iter().rfind(|entry| entry.is(&core)).map(|entry| entry.extent));
    Some(Found { extent: extent.ok()??, core })
}

pub(crate) fn heat<C: SessionConnection>(core: &Rc<Core<C>>) {
    let core: Rc<dyn Any> = Rc::clone(core) as Rc<dyn Any>;
    let old = LOCAL.try_with(|local| local.hot.try_borrow_mut().ok().and_then(|mut hot| hot.replace(core)));
    drop(old);
}

/// Forgets the shortcut: whatever changes the answer of `Session::current()` calls this.
pub(crate) fn cool() {
    let old = LOCAL.try_with(|local| local.hot.try_borrow_mut().ok().and_then(|mut hot| hot.take()));
    drop(old);
}

/// A session of this thread, as a registry sees it.
pub(crate) struct Found<C: SessionConnection> {
    pub(crate) core: Rc<Core<C>>,
    pub(crate) extent: bool,
}

/// The registry's innermost session on this thread.
pub(crate) fn top<C: SessionConnection>(registry: RegistryId) -> Result<Option<Found<C>>> {
    LOCAL
        .try_with(|local| {
            let stack = local.stack.borrow();
            stack.iter().rev().find(|entry| entry.registry == registry).and_then(|entry| {
                let core: Rc<dyn Any> = Rc::clone(&entry.core) as Rc<dyn Any>;
                Some(Found { core: core.downcast().ok()?, extent: entry.extent })
            })
        })
        .map_err(|_| Error::ThreadExiting)
}

pub(crate) fn push<C: SessionConnection>(registry: RegistryId, core: &Rc<Core<C>>, extent: bool) -> Result<()> {
    cool();
    let core: Rc<dyn AnyCore> = Rc::clone(core) as Rc<dyn AnyCore>;
    LOCAL
        .try_with(|local| local.stack.borrow_mut().push(Entry { registry, core, extent }))
        .map_err(|_| Error::ThreadExiting)
}

/// Takes a session off the stack, wherever in it it is.
pub(crate) fn pull<C: SessionConnection>(core: &Rc<Core<C>>) {
    cool();
    let entry = LOCAL.try_with(|local| {
        let mut stack = local.stack.borrow_mut();
        // Mostly the innermost.
        if stack.last().is_some_and(|entry| entry.is(core)) {
            return stack.pop();
        }
        let position = stack.iter().rposition(|entry| entry.is(core))?;
        Some(stack.remove(position))
    });
    // Dropped outside the borrow: a session's last handle may run code of the user's.
    drop(entry);
}

/// Ends every session that nobody has removed, of whatever registry: for threads that run one job after another.
pub(crate) fn end_what_was_left() {
    while let Ok(Some(entry)) = LOCAL.try_with(|local| {
        let mut stack = local.stack.borrow_mut();
        if stack.last().is_some_and(|entry| !entry.extent) { stack.pop() } else { None }
    }) {
        cool();
        entry.core.end_with_its_thread();
    }
}

/// A session that an extent put on the stack; off again when the extent ends, also by a panic.
pub(crate) struct Pushed<C: SessionConnection> {
    core: Rc<Core<C>>,
}

impl<C: SessionConnection> Pushed<C> {
    pub(crate) fn new(registry: RegistryId, core: Rc<Core<C>>) -> Result<Self> {
        push(registry, &core, true)?;
        Ok(Self { core })
    }

    /// For a session that is on the stack already: from now on it is the extent's.
    pub(crate) fn adopt(core: Rc<Core<C>>) -> Self {
        let wanted = Rc::as_ptr(&core).cast::<()>();
        let _ = LOCAL.try_with(|local| {
            let mut stack = local.stack.borrow_mut();
            if let Some(entry) = stack.iter_mut().rfind(|entry| Rc::as_ptr(&entry.core).cast::<()>() == wanted) {
                entry.extent = true;
            }
        });
        Self { core }
    }

    pub(crate) fn core(&self) -> &Rc<Core<C>> {
        &self.core
    }
}

impl<C: SessionConnection> Drop for Pushed<C> {
    fn drop(&mut self) {
        pull(&self.core);
    }
}
