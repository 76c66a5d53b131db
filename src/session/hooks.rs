//! What runs when a transaction or savepoint has ended.

use std::any::Any;
use std::fmt;

use crate::panics::text_of;
use crate::place::Place;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Everything is stored.
    Committed,
    /// Nothing is stored.
    RolledBack,
    /// Nobody knows: the connection died during COMMIT.
    Unknown,
}

/// A hook that returned an error or panicked, or a listener that panicked when it heard of the end. The transaction's own outcome stands.
#[derive(Debug, Clone)]
pub struct HookError {
    place: Place,
    message: String,
}

impl HookError {
    /// A listener that panicked when it heard of the end.
    pub(crate) fn of_listener(place: Place, panic: Box<dyn Any + Send>) -> Self {
        Self { place, message: format!("a listener panicked: {}", text_of(panic)) }
    }

    /// Where the hook was registered; of a listener, where the session was made.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// The error's or the panic's text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hook registered at {}: {}", self.place, self.message)
    }
}

/// What the end of a transaction or savepoint has to say beside its outcome.
#[derive(Debug, Clone, Default)]
pub struct Report {
    hook_errors: Vec<HookError>,
}

impl Report {
    pub(crate) fn new(hook_errors: Vec<HookError>) -> Self {
        Self { hook_errors }
    }

    /// The hooks that failed. The outcome stands all the same.
    #[must_use]
    pub fn hook_errors(&self) -> &[HookError] {
        &self.hook_errors
    }
}

/// What a hook may return: nothing, or a result whose error goes into the report.
pub trait HookResult {
    /// The error's text, if it is one.
    fn error(self) -> Option<String>;
}

impl HookResult for () {
    fn error(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display> HookResult for Result<(), E> {
    fn error(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

type Run = Box<dyn FnOnce(Outcome) -> Option<String>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Committed,
    RolledBack,
    Always,
}

/// A hook and when it is due.
pub(crate) struct Hook {
    when: When,
    place: Place,
    run: Run,
}

impl Hook {
    pub(crate) fn on_commit<R: HookResult>(place: Place, f: impl FnOnce() -> R + 'static) -> Self {
        Self { when: When::Committed, place, run: Box::new(move |_| f().error()) }
    }

    pub(crate) fn on_rollback<R: HookResult>(place: Place, f: impl FnOnce() -> R + 'static) -> Self {
        Self { when: When::RolledBack, place, run: Box::new(move |_| f().error()) }
    }

    pub(crate) fn on_completion<R: HookResult>(place: Place, f: impl FnOnce(Outcome) -> R + 'static) -> Self {
        Self { when: When::Always, place, run: Box::new(move |outcome| f(outcome).error()) }
    }

    /// Where it was registered.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn is_due(&self, outcome: Outcome) -> bool {
        match self.when {
            When::Always => true,
            When::Committed => outcome == Outcome::Committed,
            When::RolledBack => outcome == Outcome::RolledBack,
        }
    }

    /// The entry of the report for a hook that there was no room for.
    pub(crate) fn not_run(self) -> HookError {
        HookError { place: self.place, message: "not run: hooks kept registering hooks".into() }
    }

    /// Drops it unrun; what it captured may panic.
    pub(crate) fn discard(self) -> Option<HookError> {
        let Self { place, run, .. } = self;
        let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || drop(run))).err()?;
        Some(HookError { place, message: format!("panicked: {}", text_of(payload)) })
    }

    /// Runs it; an error or panic becomes an entry of the report.
    pub(crate) fn run(self, outcome: Outcome) -> Option<HookError> {
        let Self { place, run, .. } = self;
        let message = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || run(outcome))) {
            Ok(message) => message?,
            Err(payload) => format!("panicked: {}", text_of(payload)),
        };
        Some(HookError { place, message })
    }
}
