//! What a unit of work is asked for beyond its transaction: how it meets an open one, and when it is run again.

use std::fmt;
use std::time::Duration;

use crate::backend::SessionConnection;
use crate::error::{Error, ErrorClass, Result};
use crate::options::TransactionOptions;

/// How a unit of work meets a transaction that is open on its thread (the words are Spring's). Code in a hook, or in an
/// extent without a transaction (`autocommit`, [`Never`](Self::Never)), is in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Propagation {
    /// Joins the open one, which somebody else commits; begins one where there is none. The default. If the inner unit
    /// fails, the frame that it joined can only be rolled back, even if the outer code swallows the error.
    #[default]
    Required,
    /// A transaction of its own on a second connection, whatever is open; the outer one is current again afterwards. What it
    /// commits stays, whatever becomes of the outer one, and its failure marks nothing outside. Where no second connection
    /// could ever become free: [`Error::WouldStarve`] or, at SQLite's write gate, [`Error::WouldDeadlock`], at once.
    RequiresNew,
    /// A savepoint in the open one, which can fail alone; begins a transaction where there is none.
    Nested,
    /// Joins the open one, also a bare one that no closure owns; [`Error::NoOpenTransaction`] where there is none.
    Mandatory,
    /// [`Error::TransactionForbidden`] where one is open; else runs without a transaction, every statement by itself. Options
    /// that only a transaction can have are refused.
    Never,
}

/// What [`transaction_with`](crate::ScopedSession::transaction_with) is asked for: the options of the transaction, how it
/// meets an open one, and when it is run again.
///
/// Begun with a method of [`TransactionOptions`]: `TransactionOptions::new().retry(RetryPolicy::new(5))`.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnitOptions {
    pub(crate) transaction: TransactionOptions,
    pub(crate) propagation: Propagation,
    pub(crate) durable: bool,
    pub(crate) retry: Option<RetryPolicy>,
}

impl UnitOptions {
    /// Whether a job may have its work in a transaction that others share: it asks for nothing that they don't.
    pub(crate) fn may_share(&self) -> bool {
        let plain = TransactionOptions { timeout: self.transaction.timeout, ..TransactionOptions::new() };
        self.transaction == plain && self.propagation == Propagation::Required
    }

    /// Whether a job, which is always the outermost unit of work, can have these options.
    pub(crate) fn check_for_a_job<C: SessionConnection>(&self) -> Result<()> {
        self.transaction.check::<C>()?;
        match self.propagation {
            Propagation::Mandatory => Err(Error::NoOpenTransaction),
            Propagation::Never => Err(Error::Configuration(
                "a job is a transaction of its own, so Propagation::Never can't apply: use autocommit() for statements without one".into(),
            )),
            _ if self.retry.is_some() && self.transaction.is_autocommit() => Err(Error::Configuration(
                "without a transaction every statement is stored at once, and another attempt would store it again: submit the job without retry()".into(),
            )),
            _ => Ok(()),
        }
    }

    /// How it meets an open transaction.
    #[must_use]
    pub const fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// It must be the outermost: its `Ok` then means stored, not "stored if the outer one is" (Django's `durable`). Inside
    /// an open transaction that it would join: [`Error::NotOutermost`].
    #[must_use]
    pub const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Runs it again where the error says that nothing was stored and another try may go well; see [`RetryPolicy`].
    #[must_use]
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }
}

impl From<TransactionOptions> for UnitOptions {
    fn from(transaction: TransactionOptions) -> Self {
        Self { transaction, ..Self::default() }
    }
}

impl TransactionOptions {
    /// As [`UnitOptions::propagation`].
    #[must_use]
    pub fn propagation(self, propagation: Propagation) -> UnitOptions {
        UnitOptions::from(self).propagation(propagation)
    }

    /// As [`UnitOptions::durable`].
    #[must_use]
    pub fn durable(self) -> UnitOptions {
        UnitOptions::from(self).durable()
    }

    /// As [`UnitOptions::retry`].
    #[must_use]
    pub fn retry(self, policy: RetryPolicy) -> UnitOptions {
        UnitOptions::from(self).retry(policy)
    }
}

/// When a failed unit of work is run again, and how long to wait before.
///
/// Run again are errors of class [`Retryable`](ErrorClass::Retryable) (serialization failure, deadlock, SQLite busy),
/// [`Connection`](ErrorClass::Connection) (gone before COMMIT) and [`Unavailable`](ErrorClass::Unavailable) (no connection
/// in time; not [`ShutDown`](Error::ShutDown)), seen by the attempt's session: what the closure returns may be any error.
/// Never run again are [`Ambiguous`](ErrorClass::Ambiguous) (a [`CommitUnknown`](Error::CommitUnknown) might do the work
/// twice; with [`verify_commits`](crate::EngineBuilder::verify_commits) it is first found out, and then it is one of the
/// others or `Ok`), what raw code may have committed ([`Cause::leaves_doubt`](crate::Cause::leaves_doubt)), what is not
/// known, an error that was handled (a later statement went well), a session that the closure removed, and panics.
///
/// Only the outermost unit of work is run again: inside an open transaction [`Error::RetryInside`], and without one
/// (`autocommit`, [`Propagation::Never`]) [`Error::Configuration`], because what was sent is stored.
///
/// Each attempt has a fresh session, which listeners hear of; hooks of an attempt that is run again are dropped, unrun,
/// except those of a savepoint that was rolled back in it, which ran then. Between attempts the thread holds no
/// connection and waits: a random time between half and all of `first`, doubled with every attempt up to `longest`; at
/// least 50 ms after `Unavailable`. Where that would last beyond the unit's [`timeout`](TransactionOptions::timeout) there
/// is no further attempt. The last attempt's answer is the unit's.
///
/// PostgreSQL looks for a deadlock only when a lock was waited for as long as its `deadlock_timeout`, 1 s by default
/// (PostgreSQL docs, "Lock Management"): under many deadlocks a short unit then takes seconds. Lock rows in one order, or
/// lower it.
///
/// # Examples
/// ```
/// use diesel::sqlite::SqliteConnection;
/// use diesel_session::{Engine, Result, RetryPolicy, ScopedSession, TransactionOptions};
/// use std::time::Duration;
///
/// # fn main() -> Result<()> {
/// let registry = ScopedSession::<SqliteConnection>::new(Engine::new(":memory:")?);
/// let options = TransactionOptions::new().timeout(Duration::from_secs(2)).retry(RetryPolicy::new(5));
/// let number = registry.transaction_with(options, |session| -> Result<u32> {
///     // … statements …
///     Ok(session.attempt().map_or(0, |attempt| attempt.number()))
/// })?;
/// assert_eq!(number, 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    pub(crate) attempts: u32,
    first: Duration,
    longest: Duration,
    also: Option<fn(&Error) -> bool>,
}

/// The least wait after the database could not be reached.
const UNAVAILABLE: Duration = Duration::from_millis(100);

impl RetryPolicy {
    /// At most so many attempts in all, at least 1; waits from 4 ms to 1 s.
    #[must_use]
    pub const fn new(attempts: u32) -> Self {
        let attempts = if attempts == 0 { 1 } else { attempts };
        Self { attempts, first: Duration::from_millis(4), longest: Duration::from_secs(1), also: None }
    }

    /// The wait before the second attempt, and the longest.
    #[must_use]
    pub const fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest;
        self
    }

    /// Runs again after these errors too, such as a lock time-out or a violation that a concurrent transaction made. Not
    /// asked about errors that leave open whether the work is stored, nor about usage errors.
    #[must_use]
    pub const fn also(mut self, also: fn(&Error) -> bool) -> Self {
        self.also = Some(also);
        self
    }

    /// How long to wait before the attempt after number `attempt`; `None` if `error` is final.
    pub(crate) fn pause(&self, error: &Error, attempt: u32) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let class = error.class();
        let is_due = match class {
            ErrorClass::Ambiguous | ErrorClass::Usage => false,
            // Of these, the failed attempts to reach the database; time that has run out has run out.
            ErrorClass::Unavailable => {
                matches!(error, Error::PoolTimeout { .. } | Error::GateTimeout { .. } | Error::Connect { .. })
            }
            ErrorClass::Retryable | ErrorClass::Connection => true,
            _ => self.also.is_some_and(|also| also(error)),
        };
        if !is_due {
            return None;
        }
        let first = if class == ErrorClass::Unavailable { self.first.max(UNAVAILABLE) } else { self.first };
        let doubled = first.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
        let most = doubled.min(self.longest.max(first));
        // Those who met once shall not meet again.
        Some(most.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

/// Which attempt of a unit of work with a [`RetryPolicy`] a session belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub(crate) number: u32,
    pub(crate) key: UnitKey,
}

impl Attempt {
    /// Its number, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The unit's key: the same in every attempt, another for every unit. For rows and messages that must not be there
    /// twice.
    #[must_use]
    pub fn key(&self) -> UnitKey {
        self.key
    }
}

/// A unique key, a UUID of version 7 (RFC 9562): keys made later sort later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitKey(uuid::Uuid);

impl UnitKey {
    pub(crate) fn new() -> Self {
        Self(uuid::Uuid::now_v7())
    }

    /// The key as a number.
    #[must_use]
    pub fn as_u128(&self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for UnitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
