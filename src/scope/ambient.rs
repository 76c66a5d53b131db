//! Which registry `Session::current()` means: the innermost that is entered on this thread, else the installed one.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};

use scoped_tls::scoped_thread_local;

use super::local;
use super::transactional::AnyRegistry;
use crate::error::{Error, Result};

/// A registry entered on this thread, and the ones around it.
pub(crate) struct Frame {
    registry: Arc<dyn AnyRegistry>,
    parent: Option<Rc<Frame>>,
}

scoped_thread_local!(static ENTERED: Rc<Frame>);

/// One for each connection type, so there are few.
static INSTALLED: RwLock<Vec<(TypeId, Arc<dyn AnyRegistry>)>> = RwLock::new(Vec::new());

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
    pub(crate) fn new(registry: Arc<dyn AnyRegistry>) -> Rc<Self> {
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
pub(crate) fn install<T: AnyRegistry>(registry: Arc<T>) -> Result<()> {
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
pub(crate) fn find<T: AnyRegistry>() -> Option<Rc<Known<T>>> {
    if ENTERED.is_set() {
        let mut frame = Some(ENTERED.with(Rc::clone));
        while let Some(here) = frame {
            let registry: Arc<dyn Any + Send + Sync> = Arc::<dyn AnyRegistry>::clone(&here.registry);
            if let Ok(registry) = registry.downcast() {
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

fn find_installed<T: AnyRegistry>() -> Option<Arc<T>> {
    let installed = INSTALLED.read().unwrap_or_else(PoisonError::into_inner);
    let (_, registry) = installed.iter().find(|(of, _)| *of == TypeId::of::<T>())?;
    let registry: Arc<dyn Any + Send + Sync> = Arc::<dyn AnyRegistry>::clone(registry);
    registry.downcast().ok()
}

/// The registry that is meant where no connection type is named: the innermost, else the only one that is installed.
pub(crate) fn find_any() -> Result<Arc<dyn AnyRegistry>> {
    if ENTERED.is_set() {
        return Ok(ENTERED.with(|frame| Arc::clone(&frame.registry)));
    }
    the_only_one(&INSTALLED.read().unwrap_or_else(PoisonError::into_inner))
}

fn the_only_one(installed: &[(TypeId, Arc<dyn AnyRegistry>)]) -> Result<Arc<dyn AnyRegistry>> {
    match installed {
        [] => Err(Error::NoRegistry { connection: "any connection" }),
        [(_, registry)] => Ok(Arc::clone(registry)),
        several => Err(Error::AmbiguousRegistry {
            installed: several.iter().map(|(_, registry)| registry.connection()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;
    use crate::place::Place;
    use crate::scope::transactional::{Ended, Unit};

    /// A registry of a connection type of its own.
    struct Stub<const N: usize>;

    impl<const N: usize> AnyRegistry for Stub<N> {
        fn connection(&self) -> &'static str {
            ["FirstConnection", "SecondConnection"][N]
        }

        fn run(self: Arc<Self>, _: &Unit, _: Place, _: &mut dyn FnMut() -> bool) -> Result<(), Ended> {
            Ok(())
        }
    }

    fn installed<const N: usize>() -> (TypeId, Arc<dyn AnyRegistry>) {
        (TypeId::of::<Stub<N>>(), Arc::new(Stub::<N>))
    }

    #[test]
    fn without_a_name_only_a_registry_that_is_alone_is_meant() {
        assert!(matches!(the_only_one(&[]), Err(Error::NoRegistry { .. })));
        assert_eq!(the_only_one(&[installed::<1>()]).unwrap().connection(), "SecondConnection");
        let Err(error) = the_only_one(&[installed::<0>(), installed::<1>()]) else { panic!("one of two was taken") };
        assert!(matches!(error, Error::AmbiguousRegistry { .. }));
        assert_eq!(error.class(), ErrorClass::Usage);
        let text = error.to_string();
        assert!(text.contains("(FirstConnection, SecondConnection)"), "{text}");
        assert!(text.contains("#[transactional(SqliteConnection)]"), "{text}");
    }

    #[test]
    fn without_a_name_the_innermost_frame_is_meant_whatever_its_type() {
        Frame::new(Arc::new(Stub::<0>)).enter(|| {
            assert_eq!(find_any().unwrap().connection(), "FirstConnection");
            Frame::new(Arc::new(Stub::<1>)).enter(|| {
                assert_eq!(find_any().unwrap().connection(), "SecondConnection");
                assert!(find::<Stub<0>>().is_some(), "by its name the outer one is found too");
            });
            assert_eq!(find_any().unwrap().connection(), "FirstConnection");
        });
    }
}
