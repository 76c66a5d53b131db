//! Which registry `Session::current()` means: the innermost that is entered on this thread, else the installed one.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};

use scoped_tls::scoped_thread_local;

use super::local;
use crate::error::{Error, Result};

type AnyRegistry = Arc<dyn Any + Send + Sync>;

/// A registry entered on this thread, and the ones around it.
pub(crate) struct Frame {
    registry: AnyRegistry,
    parent: Option<Rc<Frame>>,
}

scoped_thread_local!(static ENTERED: Rc<Frame>);

/// One for each connection type, so there are few.
static INSTALLED: RwLock<Vec<(TypeId, AnyRegistry)>> = RwLock::new(Vec::new());

thread_local! {
    /// What this thread found installed: it never changes, and a look here takes no lock.
    static KNOWN: RefCell<Vec<Rc<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Forgets the shortcut when the extent ends, after the frame is gone.
struct CoolAtEnd;

impl Drop for CoolAtEnd {
    fn drop(&mut self) {
        local::cool();
    }
}

impl Frame {
    pub(crate) fn new(registry: AnyRegistry) -> Rc<Self> {
        let parent = ENTERED.is_set().then(|| ENTERED.with(Rc::clone));
        Rc::new(Self { registry, parent })
    }

    /// Runs `f` with this frame on top; the ones before are back afterwards, also after a panic.
    pub(crate) fn enter<R>(self: &Rc<Self>, f: impl FnOnce() -> R) -> R {
        local::cool();
        let _cool = CoolAtEnd;
        ENTERED.set(self, f)
    }
}

/// Makes `registry` the one that every thread finds unless it entered another of the same type.
pub(crate) fn install<T: Any + Send + Sync>(registry: Arc<T>) -> Result<()> {
    let mut installed = INSTALLED.write().unwrap_or_else(PoisonError::into_inner);
    if installed.iter().any(|(of, _)| *of == TypeId::of::<T>()) {
        return Err(Error::AlreadyInstalled);
    }
    installed.push((TypeId::of::<T>(), registry));
    Ok(())
}

/// A registry as this thread knows it. Handed out behind an `Rc`, whose count is this thread's own: threads that all look
/// at one registry don't meet at its atomic count.
pub(crate) struct Known<T>(pub(crate) Arc<T>);

/// The registry of this type that is meant here.
pub(crate) fn find<T: Any + Send + Sync>() -> Option<Rc<Known<T>>> {
    if ENTERED.is_set() {
        let mut frame = Some(ENTERED.with(Rc::clone));
        while let Some(here) = frame {
            if let Ok(registry) = Arc::clone(&here.registry).downcast() {
                return Some(Rc::new(Known(registry)));
            }
            frame = here.parent.clone();
        }
    }
    let known = KNOWN.try_with(|known| known.borrow().iter().find_map(|known| Rc::clone(known).downcast().ok()));
    if let Ok(Some(known)) = known {
        return Some(known);
    }
    let found = Rc::new(Known(find_installed::<T>()?));
    let known: Rc<dyn Any> = Rc::<Known<T>>::clone(&found);
    // A thread that is ending remembers nothing.
    let _ = KNOWN.try_with(|all| all.borrow_mut().push(known));
    Some(found)
}

fn find_installed<T: Any + Send + Sync>() -> Option<Arc<T>> {
    let installed = INSTALLED.read().unwrap_or_else(PoisonError::into_inner);
    let (_, registry) = installed.iter().find(|(of, _)| *of == TypeId::of::<T>())?;
    Arc::clone(registry).downcast().ok()
}
