//! Listeners work with the session and never end its transaction; what they do wrong is told, and harms nothing.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use diesel_session::testing::{Call, Fault, FaultPlan};
use diesel_session::{
    Error, Kind, Result, RetryPolicy, SessionListener, SessionState, StatementInfo, TransactionInfo, TransactionOptions,
};

use super::db::{self, Conn, Database, Session, insert, stored};
use super::tools::{answer, goes_on, kind};

type Act = Rc<dyn Fn(&Session) -> Result<()>>;

/// Does something at one of the events.
#[derive(Clone)]
struct At(&'static str, Act);

impl At {
    fn act(&self, event: &str, session: &Session) -> Result<()> {
        if self.0 == event { (self.1)(session) } else { Ok(()) }
    }
}

impl SessionListener<Conn> for At {
    fn after_transaction_create(&self, session: &Session, _: &TransactionInfo) {
        let _ = self.act("after_transaction_create", session);
    }

    fn after_begin(&self, session: &Session, _: &TransactionInfo) -> Result<()> {
        self.act("after_begin", session)
    }

    fn before_statement(&self, session: &Session, _: &StatementInfo) -> Result<()> {
        self.act("before_statement", session)
    }

    fn before_commit(&self, session: &Session) -> Result<()> {
        self.act("before_commit", session)
    }

    fn after_commit(&self, _: &TransactionInfo) {
        if self.0 == "after_commit" {
            panic!("a listener");
        }
    }
}

const WITH_SESSION: [&str; 4] = ["after_transaction_create", "after_begin", "before_statement", "before_commit"];

#[test]
fn a_listener_may_not_end_the_transaction_that_it_is_told_about() {
    let database = Database::new();
    let registry = database.registry();
    type End = fn(&Session) -> Result<()>;
    let ends: [(&str, End); 3] = [
        ("commit", |session| session.commit().map(drop)),
        ("rollback", |session| session.rollback().map(drop)),
        ("invalidate", Session::invalidate),
    ];
    for event in WITH_SESSION {
        for (name, end) in ends {
            for owned in [false, true] {
                let refused = Rc::new(Cell::new(false));
                let seen = Rc::clone(&refused);
                let listener = At(
                    event,
                    Rc::new(move |session| {
                        let answer = end(session);
                        seen.set(matches!(answer, Err(Error::NotOwner { .. })));
                        Ok(())
                    }),
                );
                let work = |session: &Session| {
                    session.listen(listener.clone());
                    insert(session, "row").map(drop)
                };
                if owned {
                    registry.transaction(work).unwrap();
                } else {
                    let session = Session::new(registry.engine());
                    work(&session).unwrap();
                    session.commit().unwrap();
                }
                assert!(refused.get(), "{name} in {event}, owned: {owned}, on {}", db::NAME);
                assert_eq!(stored(&registry), ["row"], "{name} in {event}, owned: {owned}, on {}", db::NAME);
                registry.transaction(|session| session.batch_execute("DELETE FROM notes")).unwrap();
            }
        }
    }
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn a_statement_is_not_sent_into_a_transaction_that_a_listener_wore_out() {
    let database = Database::new();
    let faults = FaultPlan::new();
    let registry = database.registry_with(|builder| builder.faults(&faults));
    for event in ["after_transaction_create", "after_begin", "before_statement"] {
        faults.reset();
        let session = Session::new(registry.engine());
        let once = Rc::new(Cell::new(true));
        let plan = faults.clone();
        session.listen(At(
            event,
            Rc::new(move |session| {
                if once.replace(false) {
                    plan.on(Call::Statement, Fault::SerializationFailure);
                    assert!(insert(session, "the listener's").is_err());
                }
                Ok(())
            }),
        ));
        let refused = insert(&session, "row");
        let expected = if kind() == Kind::Mysql { "TransactionLost" } else { "PendingRollback" };
        assert_eq!(answer(&refused), expected, "{event} on {}", db::NAME);
        assert_eq!(answer(&session.commit()), "RolledBack", "{event} on {}", db::NAME);
        assert!(stored(&registry).is_empty(), "{event} on {}", db::NAME);
    }
    faults.reset();
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn a_raw_commit_of_a_listener_is_noticed() {
    let database = Database::new();
    let registry = database.registry();
    for event in ["after_begin", "before_statement", "before_commit"] {
        let answer = registry.transaction(|session| {
            session.listen(At(
                event,
                Rc::new(|session| {
                    let _ = session.batch_execute("COMMIT");
                    Ok(())
                }),
            ));
            insert(session, "row")
        });
        assert!(answer.is_err(), "{event} on {}", db::NAME);
        registry.transaction(|session| session.batch_execute("DELETE FROM notes")).unwrap();
    }
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn a_listener_that_panics_before_the_commit_leaves_nothing_that_a_later_commit_stores() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    insert(&session, "row").unwrap();
    session.listen(At("before_commit", Rc::new(|_| panic!("a listener"))));
    assert!(catch_unwind(AssertUnwindSafe(|| session.commit())).is_err());
    assert_eq!(session.state(), SessionState::Failed);
    assert_eq!(answer(&session.commit()), "RolledBack");
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn a_listener_that_panics_after_the_commit_is_in_the_report_and_hooks_run() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let ran = Rc::new(Cell::new(false));
    let seen = Rc::clone(&ran);
    insert(&session, "row").unwrap();
    session.on_commit(move || seen.set(true)).unwrap();
    session.listen(At("after_commit", Rc::new(|_| Ok(()))));
    let report = session.commit().unwrap();
    assert_eq!(report.hook_errors().len(), 1);
    assert!(report.hook_errors()[0].message().contains("a listener"), "{:?}", report.hook_errors());
    assert!(ran.get());
    goes_on(&registry, &registry.current().unwrap(), &["row"]);
}

/// Panics when it is dropped, as what a panic carries may.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("again");
        }
    }
}

#[test]
fn a_hook_whose_panic_panics_stops_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let ran = Rc::new(Cell::new(false));
    let seen = Rc::clone(&ran);
    insert(&session, "row").unwrap();
    session.on_commit(|| -> () { std::panic::resume_unwind(Box::new(Bomb)) }).unwrap();
    session.on_commit(move || seen.set(true)).unwrap();
    let report = session.commit().unwrap();
    assert_eq!(report.hook_errors().len(), 1);
    assert!(ran.get());
    insert(&session, "then").unwrap();
    session.commit().unwrap();
    goes_on(&registry, &registry.current().unwrap(), &["row", "then"]);
}

#[test]
fn a_request_that_committed_itself_and_removed_its_session_did_its_work() {
    let database = Database::new();
    let registry = database.registry();
    let done: Result<()> = registry.request(TransactionOptions::new(), |session| {
        insert(session, "row")?;
        session.commit()?;
        registry.remove();
        Ok(())
    });
    done.unwrap();
    let lost: Result<()> = registry.request(TransactionOptions::new(), |session| {
        insert(session, "lost")?;
        registry.remove();
        Ok(())
    });
    assert_eq!(answer(&lost), "RolledBack");
    goes_on(&registry, &registry.current().unwrap(), &["row"]);
}

#[test]
fn an_error_that_was_dealt_with_before_an_inner_unit_of_work_runs_nothing_again() {
    if !db::CONCURRENT || kind() == Kind::Sqlite {
        return assert_eq!(kind(), Kind::Sqlite, "a second writer can't work inside a first there");
    }
    let database = Database::new();
    let faults = FaultPlan::new();
    let registry = database.registry_with(|builder| builder.faults(&faults));
    faults.reset();
    faults.on_nth(Call::Statement, 1, Fault::LockTimeout);
    faults.on(Call::Commit, Fault::CloseAfter);
    let mut attempts = 0;
    let policy = TransactionOptions::new().retry(RetryPolicy::new(3).also(|_| true));
    let unknown: Result<()> = registry.transaction_with(policy, |session| {
        attempts += 1;
        assert!(session.nested(|session| insert(session, "tried")).is_err());
        let inner = TransactionOptions::new().propagation(diesel_session::Propagation::RequiresNew);
        registry.transaction_with(inner, |session| insert(session, &format!("row {attempts}")).map(drop))
    });
    assert_eq!(answer(&unknown), "CommitUnknown");
    assert_eq!(attempts, 1);
    assert_eq!(stored(&registry), ["row 1"]);
}
