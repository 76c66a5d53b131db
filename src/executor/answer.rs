//! The completion cell: one answer, from the thread that has it to whoever waits for it, thread or task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Filled once, emptied once.
pub(crate) struct Answer<T> {
    state: Mutex<State<T>>,
    given: Condvar,
}

struct State<T> {
    value: Value<T>,
    waker: Option<Waker>,
    /// How many threads wait: to wake nobody costs a system call.
    sleepers: usize,
    /// Tells whether it is given to those who must not take this lock.
    sign: Option<Arc<AtomicBool>>,
}

enum Value<T> {
    Awaited,
    Given(T),
    Taken,
    Abandoned,
}

/// What a wait ended with.
pub(crate) enum Got<T> {
    Given(T),
    /// It was taken before.
    Taken,
    /// There will be none.
    Abandoned,
}

impl<T> State<T> {
    fn take(&mut self) -> Option<Got<T>> {
        match std::mem::replace(&mut self.value, Value::Taken) {
            Value::Given(value) => Some(Got::Given(value)),
            Value::Taken => Some(Got::Taken),
            Value::Abandoned => {
                self.value = Value::Abandoned;
                Some(Got::Abandoned)
            }
            Value::Awaited => {
                self.value = Value::Awaited;
                None
            }
        }
    }
}

impl<T> Answer<T> {
    pub(crate) fn new() -> Self {
        let state = State { value: Value::Awaited, waker: None, sleepers: 0, sign: None };
        Self { state: Mutex::new(state), given: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first answer stands; a later one comes back.
    pub(crate) fn give(&self, value: T) -> Option<T> {
        let mut state = self.state();
        if !matches!(state.value, Value::Awaited) {
            return Some(value);
        }
        state.value = Value::Given(value);
        self.wake(state);
        None
    }

    /// There will be none.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        if !matches!(state.value, Value::Awaited) {
            return;
        }
        state.value = Value::Abandoned;
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State<T>>) {
        if let Some(sign) = &state.sign {
            sign.store(true, Ordering::Release);
        }
        let waker = state.waker.take();
        let sleepers = state.sleepers;
        drop(state);
        if sleepers > 0 {
            self.given.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it was given, taken or not.
    pub(crate) fn is_given(&self) -> bool {
        !matches!(self.state().value, Value::Awaited)
    }

    /// A sign that is true from the moment on at which it is given: before whoever waits for it has woken.
    pub(crate) fn sign(&self) -> Arc<AtomicBool> {
        let mut state = self.state();
        let is_given = !matches!(state.value, Value::Awaited);
        Arc::clone(state.sign.get_or_insert_with(|| Arc::new(AtomicBool::new(is_given))))
    }

    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Got<T>> {
        let mut state = self.state();
        if let Some(got) = state.take() {
            return Poll::Ready(got);
        }
        // A task may have moved to another runtime thread since it looked last.
        let old = match &state.waker {
            Some(waker) if waker.will_wake(context.waker()) => None,
            _ => state.waker.replace(context.waker().clone()),
        };
        drop(state);
        // Outside the lock: dropping a waker may drop a task.
        drop(old);
        Poll::Pending
    }

    /// Blocks this thread until the answer is there, or until then: `None`.
    pub(crate) fn wait(&self, until: Option<Instant>) -> Option<Got<T>> {
        let mut state = self.state();
        loop {
            if let Some(got) = state.take() {
                return Some(got);
            }
            state.sleepers += 1;
            state = match until {
                None => self.given.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        state.sleepers -= 1;
                        return None;
                    }
                    self.given.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.sleepers -= 1;
        }
    }
}
