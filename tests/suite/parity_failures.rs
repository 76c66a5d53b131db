//! Where beginning, ending or a statement fails, as SQLAlchemy's transaction tests have it.
#![allow(clippy::type_complexity)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diesel_session::{Error, Result, SessionListener, SessionState, TransactionInfo};

use super::db::{Conn, Database, Registry, Session, insert, stored, texts};

/// A registry with one connection, and a count of the connections that were opened for it.
fn counted(database: &Database) -> (Registry, Arc<AtomicUsize>) {
    let opened = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&opened);
    let registry = database.registry_with(|builder| {
        builder.max_size(1).setup(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    });
    // The table was made by raw SQL, after which a connection is set up again.
    stored(&registry);
    (registry, opened)
}

/// Fails BEGIN (0) or the outermost SAVEPOINT (1) while it is armed.
struct FailsAt {
    depth: usize,
    armed: Rc<Cell<bool>>,
}

impl SessionListener<Conn> for FailsAt {
    fn after_begin(&self, _session: &Session, transaction: &TransactionInfo) -> Result<()> {
        if self.armed.get() && transaction.depth() == self.depth {
            return Err(Error::Configuration("failure".into()));
        }
        Ok(())
    }
}

// parity: SessionTransactionTest::test_begin_fails_connection_is_closed
#[test]
fn a_listener_that_fails_the_begin_leaves_no_transaction_and_no_connection_behind() {
    let database = Database::new();
    let (registry, opened) = counted(&database);
    let session = Session::new(registry.engine());
    let armed = Rc::new(Cell::new(true));
    session.listen(FailsAt { depth: 0, armed: Rc::clone(&armed) });
    let before = opened.load(Ordering::SeqCst);
    for _ in 0..3 {
        let error = insert(&session, "a").unwrap_err();
        assert!(error.to_string().contains("failure"), "{error}");
        assert_eq!(session.state(), SessionState::Idle);
        assert!(!session.in_transaction());
        assert_eq!(registry.engine().connections_in_use().len(), 0);
    }
    armed.set(false);
    insert(&session, "b").unwrap();
    session.commit().unwrap();
    assert_eq!(opened.load(Ordering::SeqCst), before, "the connection was given back, not thrown away");
    session.close();
    assert_eq!(stored(&registry), ["b"]);
}

// parity: SessionTransactionTest::test_begin_savepoint_fails_connection_is_not_closed
#[test]
fn a_listener_that_fails_a_savepoint_leaves_the_transaction_and_its_connection_as_they_were() {
    let database = Database::new();
    let (registry, opened) = counted(&database);
    let session = Session::new(registry.engine());
    let armed = Rc::new(Cell::new(true));
    session.listen(FailsAt { depth: 1, armed: Rc::clone(&armed) });
    insert(&session, "outer").unwrap();
    let before = opened.load(Ordering::SeqCst);
    for _ in 0..3 {
        let error = session.begin_nested().unwrap_err();
        assert!(error.to_string().contains("failure"), "{error}");
        assert!(!session.in_nested_transaction());
        assert_eq!(session.state(), SessionState::Active);
        assert_eq!(registry.engine().connections_in_use().len(), 1);
    }
    armed.set(false);
    session.nested(|session| insert(session, "inner")).unwrap();
    assert_eq!(texts(&session), ["inner", "outer"]);
    session.close();
    assert_eq!(registry.engine().connections_in_use().len(), 0);
    assert_eq!(opened.load(Ordering::SeqCst), before);
    assert!(stored(&registry).is_empty());
}

// parity: SessionTransactionTest::test_no_rollback_in_committed_state
#[test]
fn a_connection_that_can_not_be_put_right_after_a_commit_does_not_unsay_it() {
    let database = Database::new();
    let opened = Arc::new(AtomicUsize::new(0));
    let resets = Arc::new(AtomicUsize::new(0));
    let (open, reset) = (Arc::clone(&opened), Arc::clone(&resets));
    let registry = database.registry_with(|builder| {
        builder
            .max_size(1)
            .setup(move |_| {
                open.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
            .reset(move |_| {
                reset.fetch_add(1, Ordering::SeqCst);
                Err(diesel::result::Error::RollbackTransaction)
            })
    });
    let session = Session::new(registry.engine());
    session.with_connection(|_| Ok(())).unwrap();
    insert(&session, "a").unwrap();
    let (opened_before, resets_before) = (opened.load(Ordering::SeqCst), resets.load(Ordering::SeqCst));
    session.commit().unwrap();
    assert_eq!(session.state(), SessionState::Idle);
    assert_eq!(stored(&registry), ["a"]);
    assert_eq!(resets.load(Ordering::SeqCst), resets_before + 1);
    // Set up again before it was found wanting, and once more as a new one.
    assert_eq!(opened.load(Ordering::SeqCst), opened_before + 2, "the connection was replaced");
}

// parity: SessionTransactionTest::test_no_sql_during_commit
// parity: SessionTransactionTest::test_no_sql_during_rollback
#[test]
fn a_listener_of_what_is_over_can_not_use_the_session() {
    type Tries = Rc<RefCell<Vec<(&'static str, Result<()>)>>>;
    struct Meddler {
        session: Rc<RefCell<Option<Session>>>,
        tries: Tries,
    }
    impl Meddler {
        fn meddle(&self, event: &'static str) {
            let session = self.session.borrow().clone().unwrap();
            let uses: [fn(&Session) -> Result<()>; 5] = [
                |session| insert(session, "ghost").map(drop),
                |session| session.begin(),
                |session| session.begin_nested().map(drop),
                |session| session.commit().map(drop),
                |session| session.rollback().map(drop),
            ];
            self.tries.borrow_mut().extend(uses.map(|use_it| (event, use_it(&session))));
        }
    }
    impl SessionListener<Conn> for Meddler {
        fn after_commit(&self, _: &TransactionInfo) {
            self.meddle("after_commit");
        }
        fn after_release(&self, _: &TransactionInfo) {
            self.meddle("after_release");
        }
        fn after_rollback(&self, _: &TransactionInfo) {
            self.meddle("after_rollback");
        }
        fn after_transaction_end(&self, _: &TransactionInfo) {
            self.meddle("after_transaction_end");
        }
    }
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let (kept, tries) = (Rc::new(RefCell::new(Some(session.clone()))), Tries::default());
    session.listen(Meddler { session: Rc::clone(&kept), tries: Rc::clone(&tries) });
    let ends: [(&[&str], fn(&Session)); 5] = [
        (&["after_release", "after_transaction_end"], |session| {
            drop(session.begin_nested().unwrap().commit().unwrap());
        }),
        (&["after_rollback", "after_transaction_end"], |session| {
            drop(session.begin_nested().unwrap().rollback().unwrap());
        }),
        (&["after_rollback", "after_transaction_end"], |session| drop(session.begin_nested().unwrap())),
        (&["after_commit", "after_transaction_end"], |session| drop(session.commit().unwrap())),
        (&["after_rollback", "after_transaction_end"], |session| drop(session.rollback().unwrap())),
    ];
    for (events, end) in ends {
        texts(&session);
        end(&session);
        let tries = tries.borrow_mut().split_off(0);
        assert_eq!(tries.len(), 5 * events.len());
        for ((event, answer), expected) in tries.iter().zip(events.iter().flat_map(|event| [event; 5])) {
            assert_eq!(event, expected);
            assert!(matches!(answer, Err(Error::InHook)), "{event}: {answer:?}");
        }
    }
    assert!(!session.in_transaction());
    insert(&session, "a").unwrap();
    session.commit().unwrap();
    kept.take();
    drop(session);
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn a_session_closed_by_a_listener_of_its_end_is_closed_when_it_has_ended() {
    struct Closer(Rc<RefCell<Option<Session>>>);
    impl SessionListener<Conn> for Closer {
        fn after_commit(&self, _: &TransactionInfo) {
            if let Some(session) = self.0.take() {
                session.close();
                assert!(!session.is_closed());
            }
        }
    }
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    session.listen(Closer(Rc::new(RefCell::new(Some(session.clone())))));
    insert(&session, "a").unwrap();
    session.commit().unwrap();
    assert!(session.is_closed());
    assert_eq!(stored(&registry), ["a"]);
}

// parity: TwoPhaseTest::test_rollback_on_prepare
// parity: TwoPhaseTest::test_rollback_on_prepare_failure
#[test]
fn a_refusal_before_commit_rolls_everything_back() {
    struct Refuses(Rc<Cell<bool>>);
    impl SessionListener<Conn> for Refuses {
        fn before_commit(&self, session: &Session) -> Result<()> {
            insert(session, "written while committing")?;
            if self.0.get() { Err(Error::Configuration("simulated failure".into())) } else { Ok(()) }
        }
    }
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let refuses = Rc::new(Cell::new(true));
    session.listen(Refuses(Rc::clone(&refuses)));
    insert(&session, "ed").unwrap();
    session.rollback().unwrap();
    assert!(texts(&session).is_empty());
    insert(&session, "ed").unwrap();
    let error = session.commit().unwrap_err();
    assert!(matches!(&error, Error::RolledBack { .. }) && error.to_string().contains("simulated failure"), "{error}");
    assert_eq!(session.state(), SessionState::Idle);
    assert!(stored(&registry).is_empty());
    refuses.set(false);
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["written while committing"]);
}

// parity: SessionTransactionTest::test_preserve_flush_error
#[test]
fn every_further_use_names_the_first_error_until_the_rollback() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    insert(&session, "a").unwrap();
    session.commit().unwrap();

    let first = insert(&session, "a").unwrap_err();
    let first = first.failure().unwrap().to_string();
    for _ in 0..5 {
        let again = insert(&session, "b").unwrap_err();
        assert!(matches!(again, Error::PendingRollback { .. }), "{again}");
        assert!(again.is_unique_violation());
        assert!(again.to_string().contains(&first), "{again}");
        assert!(matches!(session.begin_nested(), Err(Error::PendingRollback { .. })));
    }
    session.rollback().unwrap();
    insert(&session, "some name").unwrap();
    session.commit().unwrap();

    let first = insert(&session, "a").unwrap_err();
    let first = first.failure().unwrap().to_string();
    let ended = session.commit().unwrap_err();
    assert!(matches!(ended, Error::RolledBack { .. }) && ended.to_string().contains(&first), "{ended}");
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["a", "some name"]);
}
