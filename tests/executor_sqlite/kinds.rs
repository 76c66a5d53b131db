//! Kinds of jobs, what each does to the transaction that it shares, and what may be stored given what each was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::testing::{Call, Fault, FaultPlan};
use diesel_session::{Error, JobHandle, Outcome, RetryPolicy, TransactionOptions};

use crate::bank::jobs;
use crate::db::Session;
use crate::tools::{Stand, answer};

diesel::table! {
    keys (k) { k -> Text, }
}

diesel::table! {
    harsh_keys (k) { k -> Text, }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    // ---- what ends well ----
    Ok,
    Reads,
    DoesNothing,
    RecoversInASavepoint,
    // ---- what fails alone ----
    Err,
    Panics,
    RollbackOnly,
    Removes,
    Closes,
    LeaksASavepoint,
    Violates,
    SwallowsAViolation,
    DriverPanics,
    // ---- what loses the transaction at once ----
    OrRollback,
    SwallowedOrRollback,
    ConflictClause,
    SwallowedConflictClause,
    RaisesRollback,
    Full,
    SwallowedFull,
    LosesItsConnection,
    LosesItsConnectionLater,
    RawRollback,
    RawCommit,
    RawCommitAndErr,
    // ---- what loses it at COMMIT ----
    DeferredKey,
    CommitBusy,
    CommitFails,
    CommitCloses,
    CommitClosesLater,
    CommitPanics,
    CommitPanicsLater,
    // ---- what may cost one job or the transaction ----
    ReleaseFails,
    RollbackToFails,
    NextSavepointFails,
}

pub(crate) const HARMLESS: [Kind; 13] = [
    Kind::Ok,
    Kind::Reads,
    Kind::DoesNothing,
    Kind::RecoversInASavepoint,
    Kind::Err,
    Kind::Panics,
    Kind::RollbackOnly,
    Kind::Removes,
    Kind::Closes,
    Kind::LeaksASavepoint,
    Kind::Violates,
    Kind::SwallowsAViolation,
    Kind::DriverPanics,
];

pub(crate) const LOSING: [Kind; 19] = [
    Kind::OrRollback,
    Kind::SwallowedOrRollback,
    Kind::ConflictClause,
    Kind::SwallowedConflictClause,
    Kind::RaisesRollback,
    Kind::Full,
    Kind::SwallowedFull,
    Kind::LosesItsConnection,
    Kind::LosesItsConnectionLater,
    Kind::RawRollback,
    Kind::RawCommit,
    Kind::RawCommitAndErr,
    Kind::DeferredKey,
    Kind::CommitBusy,
    Kind::CommitFails,
    Kind::CommitCloses,
    Kind::CommitClosesLater,
    Kind::CommitPanics,
    Kind::CommitPanicsLater,
];

/// These hit the next savepoint of whichever job has one.
pub(crate) const FAULTY: [Kind; 3] = [Kind::ReleaseFails, Kind::RollbackToFails, Kind::NextSavepointFails];

impl Kind {
    /// Whether what becomes of the transaction may be unknown after it.
    pub(crate) fn leaves_doubt(self) -> bool {
        matches!(
            self,
            Self::RawRollback
                | Self::RawCommit
                | Self::RawCommitAndErr
                | Self::CommitCloses
                | Self::CommitClosesLater
                | Self::CommitPanics
                | Self::CommitPanicsLater
        )
    }

    /// Whether its answer is `Ok` where nothing goes wrong around it.
    pub(crate) fn ends_well(self) -> bool {
        matches!(self, Self::Ok | Self::Reads | Self::DoesNothing | Self::RecoversInASavepoint)
    }

    /// Whether it stores its row when it is answered `Ok`.
    fn stores(self) -> bool {
        !matches!(self, Self::Reads | Self::DoesNothing | Self::RollbackOnly)
    }

    fn run(self, session: &Session, number: i64, faults: &FaultPlan, is_first_run: bool) -> Result<(), Error> {
        let plan = |call, fault| {
            if is_first_run {
                faults.on(call, fault);
            }
        };
        if !matches!(self, Self::Reads | Self::DoesNothing) {
            insert(session, number)?;
        }
        match self {
            Self::Ok | Self::DoesNothing => {}
            Self::Reads => drop(session.get_result::<i64>(jobs::table.count())?),
            Self::RecoversInASavepoint => {
                let tried: Result<usize, Error> = session.nested(take_the_key);
                assert!(tried.is_err());
                session.nested(|session| insert(session, -number))?;
                session.execute(diesel::delete(jobs::table.filter(jobs::number.eq(-number))))?;
            }
            Self::Err => return Err(own()),
            Self::Panics => panic!("job {number}"),
            Self::RollbackOnly => session.set_rollback_only("as planned")?,
            Self::Removes => Session::remove(),
            Self::Closes => session.close(),
            Self::LeaksASavepoint => {
                std::mem::forget(session.begin_nested()?);
                insert(session, -number)?;
            }
            Self::Violates => drop(take_the_key(session)?),
            Self::SwallowsAViolation => drop(take_the_key(session)),
            Self::OrRollback => session.batch_execute("INSERT OR ROLLBACK INTO keys VALUES ('taken')")?,
            Self::SwallowedOrRollback => {
                drop(session.execute(diesel::sql_query("INSERT OR ROLLBACK INTO keys VALUES ('taken')")));
            }
            Self::ConflictClause => drop(take_the_harsh_key(session)?),
            Self::SwallowedConflictClause => drop(take_the_harsh_key(session)),
            Self::RaisesRollback => session.batch_execute("INSERT INTO traps VALUES (1)")?,
            Self::Full => session.batch_execute("INSERT INTO blobs VALUES (zeroblob(5000000))")?,
            Self::SwallowedFull => drop(session.batch_execute("INSERT INTO blobs VALUES (zeroblob(5000000))")),
            Self::LosesItsConnection => {
                plan(Call::Statement, Fault::CloseBefore);
                session.batch_execute("DELETE FROM keys WHERE k = ''")?;
            }
            Self::LosesItsConnectionLater => {
                plan(Call::Statement, Fault::CloseAfter);
                session.batch_execute("DELETE FROM keys WHERE k = ''")?;
            }
            Self::DriverPanics => {
                plan(Call::Statement, Fault::PanicBefore);
                session.batch_execute("DELETE FROM keys WHERE k = ''")?;
            }
            Self::RawRollback => session.with_connection(|conn| conn.batch_execute("ROLLBACK"))?,
            Self::RawCommit => session.with_connection(|conn| conn.batch_execute("COMMIT"))?,
            Self::RawCommitAndErr => {
                drop(session.with_connection(|conn| conn.batch_execute("COMMIT")));
                return Err(own());
            }
            Self::ReleaseFails => plan(Call::Release, Fault::Unknown),
            Self::RollbackToFails => {
                plan(Call::RollbackTo, Fault::Unknown);
                return Err(own());
            }
            Self::NextSavepointFails => plan(Call::Savepoint, Fault::Unknown),
            Self::DeferredKey => session.batch_execute("INSERT INTO children VALUES (404)")?,
            Self::CommitBusy => plan(Call::Commit, Fault::SerializationFailure),
            Self::CommitFails => plan(Call::Commit, Fault::Unknown),
            Self::CommitCloses => plan(Call::Commit, Fault::CloseBefore),
            Self::CommitClosesLater => plan(Call::Commit, Fault::CloseAfter),
            Self::CommitPanics => plan(Call::Commit, Fault::PanicBefore),
            Self::CommitPanicsLater => plan(Call::Commit, Fault::PanicAfter),
        }
        Ok(())
    }
}

fn own() -> Error {
    Error::Configuration("the job's own".into())
}

pub(crate) fn insert(session: &Session, number: i64) -> Result<usize, Error> {
    session.execute(diesel::insert_into(jobs::table).values(jobs::number.eq(number)))
}

fn take_the_key(session: &Session) -> Result<usize, Error> {
    session.execute(diesel::insert_into(keys::table).values(keys::k.eq("taken")))
}

fn take_the_harsh_key(session: &Session) -> Result<usize, Error> {
    session.execute(diesel::insert_into(harsh_keys::table).values(harsh_keys::k.eq("taken")))
}

/// What the completion hooks of each job heard.
type Heard = Arc<Mutex<BTreeMap<i64, Vec<Outcome>>>>;

/// Jobs that were submitted, and the books about them.
pub(crate) struct Submitted {
    jobs: Vec<(i64, Kind, JobHandle<(), Error>)>,
    heard: Heard,
}

/// One job and what it was told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) number: i64,
    pub(crate) kind: Kind,
    pub(crate) answer: Result<(), Error>,
}

impl Submitted {
    pub(crate) fn new() -> Self {
        Self { jobs: Vec::new(), heard: Heard::default() }
    }

    /// Every job comes from the same two lines, which are known after the first of each.
    pub(crate) fn submit(&mut self, stand: &Stand, kind: Kind, number: i64, is_retried: bool) {
        let (faults, heard) = (stand.faults.clone(), Arc::clone(&self.heard));
        let mut runs = 0;
        let job = move |session: &Session| {
            runs += 1;
            let heard = Arc::clone(&heard);
            session.on_completion(move |outcome| heard.lock().unwrap().entry(number).or_default().push(outcome))?;
            kind.run(session, number, &faults, runs == 1)
        };
        let handle = if is_retried {
            stand.executor.run_with(TransactionOptions::new().retry(RetryPolicy::new(3)), job)
        } else {
            stand.executor.run(job)
        };
        self.jobs.push((number, kind, handle));
    }

    /// Waits for every answer, and holds them against what is stored.
    #[track_caller]
    pub(crate) fn check(self, stand: &Stand) -> Vec<Told> {
        let told: Vec<Told> =
            self.jobs.into_iter().map(|(number, kind, handle)| Told { number, kind, answer: answer(handle) }).collect();
        let stored = stand.stored();
        let may_doubt = told.iter().any(|told| told.kind.leaves_doubt());
        let heard = self.heard.lock().unwrap();
        for told in &told {
            let rows = stored.iter().filter(|stored| **stored == told.number).count();
            let outcome = match &told.answer {
                Ok(()) => {
                    assert_eq!(rows, usize::from(told.kind.stores()), "told `Ok`: {told:?}");
                    if told.kind == Kind::RollbackOnly { Outcome::RolledBack } else { Outcome::Committed }
                }
                Err(Error::CommitUnknown { .. } | Error::ImplicitCommit { .. }) => {
                    assert!(may_doubt, "nothing could have left a doubt: {told:?}");
                    assert!(rows <= 1, "stored twice: {told:?}");
                    continue;
                }
                Err(Error::TransactionLost { cause }) if cause.leaves_doubt() => continue,
                // Its own error, and its own COMMIT.
                Err(Error::Configuration(_)) if told.kind == Kind::RawCommitAndErr => continue,
                Err(Error::ShutDown) => panic!("nothing was shut down: {told:?}"),
                Err(_) => {
                    assert_eq!(rows, 0, "told `Err`: {told:?}");
                    Outcome::RolledBack
                }
            };
            match heard.get(&told.number).map(Vec::as_slice) {
                Some([one]) => assert_eq!(*one, outcome, "its hook heard something else: {told:?}"),
                other => panic!("its hook ran not once, but {other:?}: {told:?}"),
            }
        }
        drop(heard);
        assert!(stored.iter().all(|number| *number > 0), "the part of a job was stored: {stored:?}");
        stand.check_serves();
        told
    }
}

/// Makes both lines known, with jobs that end well.
pub(crate) fn warm_up(stand: &Stand) {
    let mut submitted = Submitted::new();
    submitted.submit(stand, Kind::Ok, 1, false);
    submitted.submit(stand, Kind::Ok, 2, true);
    assert!(submitted.check(stand).iter().all(|told| told.answer.is_ok()));
}
