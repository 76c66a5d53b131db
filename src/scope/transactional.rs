//! What `#[transactional]` stands on: a unit of work on a registry whose connection type nobody named. No public API: the
//! attribute writes calls of what is here.

use std::any::Any;
use std::panic::Location;
use std::sync::Arc;

use super::{Inner, ScopedSession, ambient};
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::place::Place;
use crate::session::Session;
use crate::unit::UnitOptions;

/// A registry of any connection type.
pub(crate) trait AnyRegistry: Any + Send + Sync {
    /// The name of its connection type.
    fn connection(&self) -> &'static str;

    /// Runs a unit of work. `body` says whether it went well; what it gave is kept outside.
    fn run(self: Arc<Self>, unit: &Unit, place: Place, body: &mut dyn FnMut() -> bool) -> Result<(), Ended>;
}

/// Which of the registry's units of work.
pub(crate) enum Unit {
    /// [`transaction`](ScopedSession::transaction): nothing was asked for.
    Plain,
    /// [`transaction_with`](ScopedSession::transaction_with).
    With(UnitOptions),
    /// [`read`](ScopedSession::read).
    Read,
}

/// Why a unit of work failed.
pub(crate) enum Ended {
    /// Its body said so.
    Body,
    /// What the session answered.
    Session(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl<C: SessionConnection> AnyRegistry for Inner<C> {
    fn connection(&self) -> &'static str {
        std::any::type_name::<C>()
    }

    fn run(self: Arc<Self>, unit: &Unit, place: Place, body: &mut dyn FnMut() -> bool) -> Result<(), Ended> {
        let registry = ScopedSession { inner: self };
        let body = |_: &Session<C>| if body() { Ok(()) } else { Err(Ended::Body) };
        match unit {
            Unit::Plain => registry.unit(&UnitOptions::default(), false, place, body),
            Unit::With(options) => registry.unit_with(options, place, body),
            Unit::Read => registry.read_at(place, body),
        }
    }
}

/// What a function with `#[transactional]` returns.
#[diagnostic::on_unimplemented(
    message = "a function with `#[transactional]` returns a `Result`, not `{Self}`",
    label = "not a `Result`",
    note = "it commits on `Ok` and rolls back on `Err`: return `diesel_session::Result<{Self}>`, or a `Result` whose error is `From<diesel_session::Error>`"
)]
pub trait UnitResult: Sized {
    /// The session's answer in the place of the body's.
    fn failed(error: Error) -> Self;

    /// Whether it is to be committed.
    fn went_well(&self) -> bool;
}

impl<T, E: From<Error>> UnitResult for Result<T, E> {
    fn failed(error: Error) -> Self {
        Err(E::from(error))
    }

    fn went_well(&self) -> bool {
        self.is_ok()
    }
}

/// A unit of work, as `#[transactional]` describes it.
#[allow(missing_debug_implementations)]
pub struct Transactional {
    registry: fn() -> Result<Arc<dyn AnyRegistry>>,
    unit: Unit,
}

impl Transactional {
    /// On the innermost registry, whatever its connection type.
    #[must_use]
    pub fn innermost() -> Self {
        Self { registry: ambient::find_any, unit: Unit::Plain }
    }

    /// On the registry of this connection type.
    #[must_use]
    pub fn on<C: SessionConnection>() -> Self {
        Self { registry: || Ok(Session::<C>::registry()?.inner), unit: Unit::Plain }
    }

    /// With options.
    #[must_use]
    pub fn with(mut self, options: impl Into<UnitOptions>) -> Self {
        self.unit = Unit::With(options.into());
        self
    }

    /// As `ScopedSession::read`.
    #[must_use]
    pub fn read(mut self) -> Self {
        self.unit = Unit::Read;
        self
    }

    /// Runs it, once.
    #[track_caller]
    pub fn run<R: UnitResult>(self, body: impl FnOnce() -> R) -> R {
        let mut body = Some(body);
        self.attempts(Location::caller(), || body.take().map(|body| body()))
    }

    /// Runs it as often as its retry policy says.
    #[track_caller]
    pub fn run_again<R: UnitResult>(self, mut body: impl FnMut() -> R) -> R {
        self.attempts(Location::caller(), || Some(body()))
    }

    fn attempts<R: UnitResult>(&self, place: Place, mut body: impl FnMut() -> Option<R>) -> R {
        let registry = match (self.registry)() {
            Ok(registry) => registry,
            Err(error) => return R::failed(error),
        };
        // The last attempt's answer is the unit's.
        let mut answer = None;
        let ended = registry.run(&self.unit, place, &mut || {
            answer = body();
            answer.as_ref().is_some_and(UnitResult::went_well)
        });
        match (ended, answer) {
            (Err(Ended::Session(error)), _) => R::failed(error),
            (Ok(()) | Err(Ended::Body), Some(answer)) => answer,
            (Ok(()) | Err(Ended::Body), None) => unreachable!("the body was run, or the session answered an error"),
        }
    }
}

/// An argument of a function with `retry`, for one attempt.
pub fn cloned_for_each_attempt<T: Clone>(argument: &T) -> T {
    argument.clone()
}
