//! Hooks that are collected instead of run.

use std::cell::RefCell;
use std::fmt;

use crate::place::Place;
use crate::session::hooks::{Hook, HookError, Outcome};

/// A hook that was due, and the outcome that it is to hear.
type Kept = (Hook, Outcome);

thread_local! {
    static KEPT: RefCell<Option<Vec<Kept>>> = const { RefCell::new(None) };
}

/// Keeps a hook that is due where they are collected on this thread; gives it back where they are not.
pub(crate) fn kept(hook: Hook, outcome: Outcome) -> Option<Hook> {
    let mut hook = Some(hook);
    let _ = KEPT.try_with(|kept| {
        if let Ok(mut kept) = kept.try_borrow_mut()
            && let Some(kept) = kept.as_mut()
            && let Some(due) = hook.take()
        {
            kept.push((due, outcome));
        }
    });
    hook
}

/// Runs `f`; hooks that are due on this thread meanwhile (`on_commit` after a commit, `on_rollback` after a rollback,
/// `on_completion` after either) are not run but collected, as by Django's `captureOnCommitCallbacks`. Nests: the
/// innermost call collects. When `f` panics they are dropped.
///
/// # Examples
/// ```
/// use diesel::sqlite::SqliteConnection;
/// use diesel_session::testing::capture_hooks;
/// use diesel_session::{Engine, ScopedSession};
///
/// # fn main() -> diesel_session::Result<()> {
/// let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:")?);
/// let (result, hooks) = capture_hooks(|| {
///     registry.transaction(|session| session.on_commit(|| Err("no mail server")))
/// });
/// result?;
/// assert_eq!(hooks.len(), 1);
/// assert!(hooks.places()[0].file().ends_with(".rs"));
///
/// // As if nobody had collected them.
/// let errors = hooks.run();
/// assert_eq!(errors[0].message(), "no mail server");
/// # Ok(()) }
/// ```
pub fn capture_hooks<R>(f: impl FnOnce() -> R) -> (R, CapturedHooks) {
    let capture = Capture { outer: KEPT.replace(Some(Vec::new())) };
    let result = f();
    let hooks = KEPT.take().unwrap_or_default();
    drop(capture);
    (result, CapturedHooks { hooks })
}

/// Those that were collected before are back when the call ends, also by a panic.
struct Capture {
    outer: Option<Vec<Kept>>,
}

impl Drop for Capture {
    fn drop(&mut self) {
        let rest = KEPT.replace(self.outer.take());
        for (hook, _) in rest.into_iter().flatten() {
            // What it captured may panic.
            drop(hook.discard());
        }
    }
}

/// The hooks that [`capture_hooks`] collected, in the order in which they were due. Dropped, they never run.
#[must_use = "hooks that were collected run only by `run()`"]
pub struct CapturedHooks {
    hooks: Vec<Kept>,
}

impl CapturedHooks {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hooks.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Where they were registered.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.hooks.iter().map(|(hook, _)| hook.place()).collect()
    }

    /// The outcomes that they are to hear.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.hooks.iter().map(|(_, outcome)| *outcome).collect()
    }

    /// Runs them, outside the session that they were registered on, which is idle or closed by now; gives the errors and
    /// panics that [`Report::hook_errors`](crate::Report::hook_errors) would have named.
    #[must_use]
    pub fn run(self) -> Vec<HookError> {
        self.hooks.into_iter().filter_map(|(hook, outcome)| hook.run(outcome)).collect()
    }
}

impl fmt::Debug for CapturedHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.hooks.iter().map(|(hook, outcome)| (hook.place().to_string(), outcome))).finish()
    }
}
