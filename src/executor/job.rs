//! A job: a closure that is a whole unit of work, and the way of its answer back.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::answer::Answer;
use super::lane::Sending;
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::panics::text_of;
use crate::place::Place;
use crate::session::Session;
use crate::session::core::Deadline;
use crate::unit::{Attempt, UnitKey, UnitOptions};

/// What is known about a job without its types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    /// The line that submitted it.
    pub(crate) place: Place,
    pub(crate) options: UnitOptions,
    /// Whether the options were asked for; else they are as the registry's sessions have them.
    pub(crate) asked: bool,
    pub(crate) deadline: Option<Deadline>,
    /// Which attempt the next run is, of a job that may be run again.
    pub(crate) attempt: Option<Attempt>,
    /// Run before, and to be run again: alone, and whether somebody waits or not.
    pub(crate) has_begun: bool,
    pub(crate) submitted: Instant,
}

impl Header {
    pub(crate) fn new(options: UnitOptions, asked: bool, place: Place) -> Self {
        Self {
            place,
            options,
            asked,
            deadline: options.transaction.timeout.and_then(Deadline::after),
            attempt: options.retry.map(|_| Attempt { number: 1, key: UnitKey::new() }),
            has_begun: false,
            submitted: Instant::now(),
        }
    }

    /// Past its deadline before it began.
    pub(crate) fn late(&self) -> Option<Deadline> {
        self.deadline.filter(|deadline| deadline.at <= Instant::now())
    }
}

/// A job with its types erased.
pub(crate) struct Job {
    pub(crate) header: Header,
    work: Box<dyn Work>,
    /// Whether the closure's last run returned `Ok`.
    pub(crate) is_ok: bool,
    /// Of one that is to be run again: what stands for the last run's own answer, should there be no other.
    pub(crate) instead: Option<Box<Error>>,
}

/// What a job does, and how it answers.
pub(super) trait Work: Send {
    /// Says whether it went well.
    fn run(&mut self, session: &dyn Any) -> bool;
    /// `instead`: the error that stands for its own answer.
    fn answer(&mut self, instead: Option<Error>);
}

impl Job {
    /// `f` gets the session without its type; see [`with_session`].
    pub(crate) fn new<T, E>(
        header: Header,
        answer: &Arc<Answer<Result<T, E>>>,
        f: impl FnMut(&dyn Any) -> Result<T, E> + Send + 'static,
    ) -> Self
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let answer = Some(Arc::clone(answer));
        Self::of(header, Task { f, result: None, answer })
    }

    pub(super) fn of(header: Header, work: impl Work + 'static) -> Self {
        Self { header, work: Box::new(work), is_ok: false, instead: None }
    }

    /// Runs the closure; says whether it returned `Ok`. What it returned is kept until the answer goes out.
    pub(crate) fn run<C: SessionConnection>(&mut self, session: &Session<C>) -> bool {
        self.is_ok = false;
        self.is_ok = self.work.run(session);
        self.is_ok
    }

    /// Sends what the closure returned, or an error in its stead. Code of the user's runs here, which may panic: where a
    /// value becomes one of his errors, where one is dropped, where a task is woken.
    pub(crate) fn answer(mut self, instead: Option<Error>) {
        let _sending = Sending::start();
        let answered = catch_unwind(AssertUnwindSafe(move || self.work.answer(instead)));
        if let Err(panic) = answered {
            tracing::error!(panic = text_of(panic), "the answer of a job panicked");
        }
    }
}

/// A closure that wants the session, where one without its type is given.
pub(crate) fn with_session<C, T, E>(
    mut f: impl FnMut(&Session<C>) -> Result<T, E> + Send,
) -> impl FnMut(&dyn Any) -> Result<T, E> + Send
where
    C: SessionConnection,
    E: From<Error>,
{
    move |session| match session.downcast_ref::<Session<C>>() {
        Some(session) => f(session),
        None => Err(Error::NoRegistry { connection: std::any::type_name::<C>() }.into()),
    }
}

/// A closure that can be run once, where one is wanted that may be run more often. The second run never comes: the job has
/// no retry policy.
pub(crate) fn once<S: ?Sized, T, E: From<Error>>(
    f: impl FnOnce(&S) -> Result<T, E> + Send,
) -> impl FnMut(&S) -> Result<T, E> + Send {
    let mut f = Some(f);
    move |session| match f.take() {
        Some(f) => f(session),
        None => Err(Error::AnswerTaken.into()),
    }
}

struct Task<F, T, E> {
    f: F,
    result: Option<Result<T, E>>,
    answer: Option<Arc<Answer<Result<T, E>>>>,
}

impl<F, T, E> Work for Task<F, T, E>
where
    F: FnMut(&dyn Any) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
{
    fn run(&mut self, session: &dyn Any) -> bool {
        self.result = None;
        let result = (self.f)(session);
        let is_ok = result.is_ok();
        self.result = Some(result);
        is_ok
    }

    fn answer(&mut self, instead: Option<Error>) {
        let result = match (instead, self.result.take()) {
            (None, Some(result)) => result,
            (instead, _) => Err(E::from(instead.unwrap_or(Error::ShutDown))),
        };
        // Only now: a conversion that panics leaves it to be abandoned.
        if let Some(answer) = self.answer.take() {
            answer.give(result);
        }
    }
}

impl<F, T, E> Drop for Task<F, T, E> {
    /// Whatever becomes of a job, nobody waits for ever.
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer.abandon();
        }
    }
}
