//! What listeners hear and in which order, as SQLAlchemy's session events have it.
#![allow(clippy::type_complexity)]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use diesel_session::{Error, Reason, Result, SessionListener, SessionState, TransactionInfo};

use super::db::{Conn, Database, Registry, Session, insert, stored, texts};

/// A log that a registry's listener may write to from any thread.
type Log = Arc<Mutex<Vec<String>>>;

fn take(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

/// Writes every event but the statements down; those of savepoints with their depth.
struct Recorder(Log);

impl Recorder {
    fn heard(&self, event: &str, depth: usize) {
        let event = if depth == 0 { event.to_owned() } else { format!("{event} {depth}") };
        self.0.lock().unwrap().push(event);
    }
}

impl SessionListener<Conn> for Recorder {
    fn after_transaction_create(&self, _: &Session, transaction: &TransactionInfo) {
        assert_eq!(transaction.is_nested(), transaction.depth() > 0);
        self.heard("after_transaction_create", transaction.depth());
    }
    fn after_begin(&self, _: &Session, transaction: &TransactionInfo) -> Result<()> {
        self.heard("after_begin", transaction.depth());
        Ok(())
    }
    fn before_commit(&self, _: &Session) -> Result<()> {
        self.heard("before_commit", 0);
        Ok(())
    }
    fn after_commit(&self, transaction: &TransactionInfo) {
        self.heard("after_commit", transaction.depth());
    }
    fn after_release(&self, transaction: &TransactionInfo) {
        self.heard("after_release", transaction.depth());
    }
    fn after_rollback(&self, transaction: &TransactionInfo) {
        self.heard("after_rollback", transaction.depth());
    }
    fn after_soft_rollback(&self, _: &Session, transaction: &TransactionInfo) {
        self.heard("after_soft_rollback", transaction.depth());
    }
    fn after_transaction_end(&self, transaction: &TransactionInfo) {
        self.heard("after_transaction_end", transaction.depth());
    }
}

fn recorded(registry: &Registry) -> (Session, Log) {
    let (session, log) = (Session::new(registry.engine()), Log::default());
    session.listen(Recorder(Arc::clone(&log)));
    (session, log)
}

/// Says its name before each commit.
struct Named(&'static str, Log);

impl SessionListener<Conn> for Named {
    fn before_commit(&self, _: &Session) -> Result<()> {
        self.1.lock().unwrap().push(self.0.to_owned());
        Ok(())
    }
}

// parity: SessionEventsTest::test_class_listen
// parity: SessionEventsTest::test_scoped_session_listen
#[test]
fn a_registrys_listener_hears_all_its_later_sessions_on_every_thread() {
    let database = Database::new();
    let registry = database.registry();
    let earlier = registry.current().unwrap();
    let log = Log::default();
    registry.listen(Named("heard", Arc::clone(&log)));
    earlier.commit().unwrap();
    assert!(take(&log).is_empty(), "made before the listener");
    registry.remove();
    registry.current().unwrap().commit().unwrap();
    registry.remove();
    registry.transaction(|_| Ok::<(), Error>(())).unwrap();
    registry.scope(|session| drop(session.commit().unwrap())).unwrap();
    std::thread::scope(|threads| {
        let thread = threads.spawn(|| registry.current().unwrap().commit().map(drop).unwrap());
        thread.join().unwrap();
    });
    assert_eq!(take(&log), ["heard"; 4]);
}

// parity: SessionEventsTest::test_sessionmaker_gen_after_session_listen
#[test]
fn listeners_are_told_in_the_order_in_which_they_came_the_registrys_first() {
    let database = Database::new();
    let engine = database.registry().engine().clone();
    for present in 0..8_u8 {
        for own_registered_first in [false, true] {
            let registry = Registry::new(engine.clone());
            let log = Log::default();
            let listener = |n: u8, name| (present & (1 << n) != 0).then(|| Named(name, Arc::clone(&log)));
            if let Some(named) = listener(0, "one") {
                registry.listen(named);
            }
            if !own_registered_first && let Some(named) = listener(1, "two") {
                registry.listen(named);
            }
            let session = registry.current().unwrap();
            if let Some(named) = listener(2, "three") {
                session.listen(named);
            }
            if own_registered_first && let Some(named) = listener(1, "two") {
                session.listen(named);
            }
            session.commit().unwrap();
            let order = if own_registered_first {
                [(0, "one"), (2, "three"), (1, "two")]
            } else {
                [(0, "one"), (1, "two"), (2, "three")]
            };
            let expected: Vec<&str> =
                order.into_iter().filter_map(|(n, name)| (present & (1 << n) != 0).then_some(name)).collect();
            assert_eq!(take(&log), expected);
            registry.remove();
        }
    }
}

// parity: SessionEventsTest::test_sessionmaker_listen
#[test]
fn listeners_of_one_registry_or_session_hear_nothing_of_another() {
    let database = Database::new();
    let one = database.registry();
    let two = Registry::new(one.engine().clone());
    let log = Log::default();
    one.listen(Named("one", Arc::clone(&log)));
    let (first, second) = (one.current().unwrap(), two.current().unwrap());
    first.listen(Named("own", Arc::clone(&log)));
    second.commit().unwrap();
    assert!(take(&log).is_empty());
    first.commit().unwrap();
    assert_eq!(take(&log), ["one", "own"]);
    one.remove();
    one.current().unwrap().commit().unwrap();
    assert_eq!(take(&log), ["one"]);
    one.remove();
    two.remove();
}

/// Writes a row while a commit is under way, as a flush would.
struct WritesInCommit(Rc<RefCell<Vec<&'static str>>>);

impl SessionListener<Conn> for WritesInCommit {
    fn before_commit(&self, session: &Session) -> Result<()> {
        self.0.borrow_mut().drain(..).try_for_each(|text| insert(session, text).map(drop))
    }
}

const COMMITTED: [&str; 5] =
    ["after_transaction_create", "before_commit", "after_begin", "after_commit", "after_transaction_end"];

// parity: SessionEventsTest::test_rollback_hook
#[test]
fn a_commit_and_a_commit_that_fails_are_told_in_sqlalchemys_order() {
    let database = Database::new();
    let registry = database.registry();
    let (session, log) = recorded(&registry);
    let writes = Rc::new(RefCell::new(vec!["u1"]));
    session.listen(WritesInCommit(Rc::clone(&writes)));
    session.commit().unwrap();
    assert_eq!(take(&log), COMMITTED);

    writes.borrow_mut().push("u1");
    let error = session.commit().unwrap_err();
    assert!(matches!(error.cause().unwrap().reason(), Reason::Refused(_)) && error.is_unique_violation(), "{error}");
    let failed = [
        "after_transaction_create",
        "before_commit",
        "after_begin",
        "after_rollback",
        "after_transaction_end",
        "after_soft_rollback",
    ];
    assert_eq!(take(&log), failed);
    session.rollback().unwrap();
    assert!(take(&log).is_empty(), "the failed commit has ended the transaction");
    assert_eq!(stored(&registry), ["u1"]);

    // The same with a statement that fails before the commit.
    insert(&session, "u1").unwrap_err();
    session.commit().unwrap_err();
    let failed =
        ["after_transaction_create", "after_begin", "after_rollback", "after_transaction_end", "after_soft_rollback"];
    assert_eq!(take(&log), failed);
}

// parity: SessionEventsTest::test_flush_in_commit_hook
#[test]
fn work_done_by_the_commit_begins_after_before_commit() {
    let database = Database::new();
    let registry = database.registry();
    let (session, log) = recorded(&registry);
    let writes = Rc::new(RefCell::new(Vec::new()));
    session.listen(WritesInCommit(Rc::clone(&writes)));
    insert(&session, "before").unwrap();
    assert_eq!(take(&log), ["after_transaction_create", "after_begin"]);
    writes.borrow_mut().push("during");
    session.commit().unwrap();
    assert_eq!(take(&log), ["before_commit", "after_commit", "after_transaction_end"]);
    writes.borrow_mut().push("alone");
    session.commit().unwrap();
    assert_eq!(take(&log), COMMITTED);
    assert_eq!(stored(&registry), ["alone", "before", "during"]);
}

// parity: SessionEventsTest::test_standalone_on_commit_hook
#[test]
fn a_commit_of_nothing_is_told_and_sends_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let (session, log) = recorded(&registry);
    for _ in 0..2 {
        session.commit().unwrap();
        assert_eq!(take(&log), ["after_transaction_create", "before_commit", "after_commit", "after_transaction_end"]);
        assert_eq!(registry.engine().connections_in_use().len(), 0);
    }
    session.rollback().unwrap();
    assert!(take(&log).is_empty());
    session.begin().unwrap();
    session.rollback().unwrap();
    assert_eq!(take(&log), ["after_transaction_create", "after_transaction_end", "after_soft_rollback"]);
}

// parity: SessionEventsTest::test_connection_emits_after_begin
#[test]
fn asking_for_the_connection_begins() {
    let database = Database::new();
    let registry = database.registry();
    let (session, log) = recorded(&registry);
    session.with_connection(|_| Ok(())).unwrap();
    assert_eq!(take(&log), ["after_transaction_create", "after_begin"]);
    session.with_connection(|_| Ok(())).unwrap();
    assert!(take(&log).is_empty());
    session.close();
    assert_eq!(take(&log), ["after_rollback", "after_transaction_end", "after_soft_rollback"]);
}

#[test]
fn savepoints_are_told_like_transactions_from_the_inside_out() {
    let database = Database::new();
    let registry = database.registry();
    let (session, log) = recorded(&registry);
    session.begin_nested().unwrap().commit().unwrap();
    let expected = [
        "after_transaction_create",
        "after_begin",
        "after_transaction_create 1",
        "after_begin 1",
        "after_release 1",
        "after_transaction_end 1",
    ];
    assert_eq!(take(&log), expected);
    let outer = session.begin_nested().unwrap();
    let inner = session.begin_nested().unwrap();
    take(&log);
    session.rollback().unwrap();
    let level = |suffix: &str| {
        ["after_rollback", "after_transaction_end", "after_soft_rollback"].map(|event| format!("{event}{suffix}"))
    };
    assert_eq!(take(&log), [level(" 2"), level(" 1"), level("")].concat());
    drop((inner, outer));
    assert!(take(&log).is_empty());
}

// parity: SessionEventsTest::test_can_use_session_in_outer_rollback_hook
#[test]
fn after_the_whole_rollback_the_session_may_be_used_again() {
    struct Reads(Rc<RefCell<Vec<(usize, Vec<String>)>>>);
    impl SessionListener<Conn> for Reads {
        fn after_soft_rollback(&self, session: &Session, transaction: &TransactionInfo) {
            if session.is_active() {
                let seen = texts(session);
                self.0.borrow_mut().push((transaction.depth(), seen));
            }
        }
    }
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    insert(&session, "u1").unwrap();
    session.commit().unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    session.listen(Reads(Rc::clone(&seen)));

    insert(&session, "u2").unwrap();
    insert(&session, "u1").unwrap_err();
    session.rollback().unwrap();
    assert_eq!(seen.take(), [(0, vec!["u1".to_owned()])]);
    assert!(session.in_transaction(), "begun by the listener");
    session.commit().unwrap();

    let savepoint = session.begin_nested().unwrap();
    insert(&session, "u3").unwrap();
    savepoint.rollback().unwrap();
    assert_eq!(seen.take(), [(1, vec!["u1".to_owned()])]);

    // Where the transaction around it has failed, the session is not active and is left alone.
    insert(&session, "u1").unwrap_err();
    assert!(!session.is_active());
    assert!(seen.borrow().is_empty());
    session.close();
    assert!(seen.borrow().is_empty());
}

// parity: SessionEventsTest::test_autobegin_no_reentrant
#[test]
fn a_statement_of_the_listener_of_the_creation_does_not_create_again() {
    struct Reads(Rc<Cell<usize>>);
    impl SessionListener<Conn> for Reads {
        fn after_transaction_create(&self, session: &Session, _: &TransactionInfo) {
            assert!(texts(session).is_empty());
            self.0.set(self.0.get() + 1);
        }
    }
    let database = Database::new();
    let registry = database.registry();
    let begins: [fn(&Session); 3] = [
        |session| session.begin().unwrap(),
        |session| drop(texts(session)),
        |session| session.on_commit(|| ()).unwrap(),
    ];
    for begin in begins {
        let session = Session::new(registry.engine());
        let created = Rc::new(Cell::new(0));
        session.listen(Reads(Rc::clone(&created)));
        begin(&session);
        assert_eq!(created.get(), 1);
        assert_eq!(session.state(), SessionState::Active);
        session.commit().unwrap();
        assert_eq!(created.get(), 1);
    }
}
