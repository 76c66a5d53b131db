//! The transaction, its savepoints and its flags, as SQLAlchemy's transaction tests have them.
#![allow(clippy::type_complexity)]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diesel_session::{
    Error, IsolationLevel, Result, Session as AnySession, SessionConnection, SessionListener, SessionState,
    TransactionInfo, TransactionOptions,
};

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
    (registry, opened)
}

// parity: SessionTransactionTest::test_no_close_transaction_on_flush
#[test]
fn many_statements_stay_in_one_transaction() {
    struct Created(Rc<Cell<usize>>);
    impl SessionListener<Conn> for Created {
        fn after_transaction_create(&self, _session: &Session, _transaction: &TransactionInfo) {
            self.0.set(self.0.get() + 1);
        }
    }
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let created = Rc::new(Cell::new(0));
    session.listen(Created(Rc::clone(&created)));
    session.begin().unwrap();
    for text in ["first", "second", "third"] {
        insert(&session, text).unwrap();
        assert!(texts(&session).contains(&text.to_owned()));
        assert_eq!(created.get(), 1);
    }
    session.rollback().unwrap();
    assert_eq!(created.get(), 1);
    assert!(stored(&registry).is_empty());
}

// parity: SessionTransactionTest::test_invalidate
#[test]
fn an_invalidated_connection_is_closed_and_the_next_use_gets_a_fresh_one() {
    let database = Database::new();
    let (registry, opened) = counted(&database);
    let session = Session::new(registry.engine());
    insert(&session, "lost").unwrap();
    let before = opened.load(Ordering::SeqCst);
    session.rollback().unwrap();
    insert(&session, "lost").unwrap();
    assert_eq!(opened.load(Ordering::SeqCst), before, "a rollback keeps the connection");

    session.invalidate().unwrap();
    assert!(!session.in_transaction());
    assert_eq!(registry.engine().connections_in_use().len(), 0);
    assert!(texts(&session).is_empty());
    assert_eq!(opened.load(Ordering::SeqCst), before + 1);
    insert(&session, "kept").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["kept"]);
}

// parity: SessionTransactionTest::test_nested_transaction
#[test]
fn a_rolled_back_savepoint_keeps_what_came_before_it() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    session.begin().unwrap();
    insert(&session, "u1").unwrap();
    let savepoint = session.begin_nested().unwrap();
    insert(&session, "u2").unwrap();
    savepoint.rollback().unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["u1"]);
}

// parity: SessionTransactionTest::test_nested_transaction_connection_add
#[test]
fn a_connection_first_used_in_a_savepoint_is_ended_with_the_root() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    session.begin().unwrap();
    let savepoint = session.begin_nested().unwrap();
    insert(&session, "u1").unwrap();
    session.rollback().unwrap();
    assert!(matches!(savepoint.commit(), Err(Error::SavepointGone)));
    insert(&session, "u2").unwrap();
    session.commit().unwrap();
    assert_eq!(texts(&session), ["u2"]);
    session.rollback().unwrap();

    session.begin().unwrap();
    let savepoint = session.begin_nested().unwrap();
    insert(&session, "u3").unwrap();
    savepoint.commit().unwrap();
    session.rollback().unwrap();
    assert_eq!(texts(&session), ["u2"]);
    session.close();
}

// parity: SessionTransactionTest::test_mixed_transaction_close
#[test]
fn ending_inside_a_savepoint_discards_all_of_it() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let savepoint = session.begin_nested().unwrap();
    insert(&session, "u1").unwrap();
    session.rollback().unwrap();
    drop(savepoint);
    insert(&session, "u2").unwrap();
    session.commit().unwrap();

    let savepoint = session.begin_nested().unwrap();
    insert(&session, "u3").unwrap();
    session.close();
    assert!(savepoint.commit().is_err());
    let next = registry.current().unwrap();
    assert_ne!(next, session);
    insert(&next, "u4").unwrap();
    next.commit().unwrap();
    registry.remove();
    assert_eq!(stored(&registry), ["u2", "u4"]);
}

/// Methods that no session has: if one gained an inherent method of the name, these would not be called any more.
trait TwoPhase {
    fn prepare(&self) -> NotOffered;
    fn begin_twophase(&self) -> NotOffered;
}

#[derive(Debug, PartialEq)]
struct NotOffered;

impl<C: SessionConnection> TwoPhase for AnySession<C> {
    fn prepare(&self) -> NotOffered {
        NotOffered
    }
    fn begin_twophase(&self) -> NotOffered {
        NotOffered
    }
}

// parity: SessionTransactionTest::test_twophase
// parity: SessionTransactionTest::test_no_sql_during_prepare
// parity: SessionTransactionTest::test_no_prepare_wo_twophase
#[test]
fn two_databases_commit_one_after_the_other_and_there_is_no_prepare() {
    let (one, two) = (Database::new(), Database::new());
    let (first, second) = (one.registry(), two.registry());
    let (a, b) = (Session::new(first.engine()), Session::new(second.engine()));
    insert(&a, "a").unwrap();
    insert(&b, "b").unwrap();
    assert_eq!((a.prepare(), a.begin_twophase()), (NotOffered, NotOffered));
    a.commit().unwrap();
    b.commit().unwrap();
    assert_eq!((stored(&first), stored(&second)), (vec!["a".to_owned()], vec!["b".to_owned()]));

    insert(&a, "a2").unwrap();
    insert(&b, "b").unwrap_err();
    a.commit().unwrap();
    assert!(matches!(b.commit(), Err(Error::RolledBack { .. })));
    assert_eq!((stored(&first).len(), stored(&second).len()), (2, 1));
}

// parity: SessionTransactionTest::test_execution_options_ignored_mid_transaction
#[test]
fn options_that_come_too_late_are_an_error_and_change_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    let late = [
        TransactionOptions::new().isolation(IsolationLevel::Serializable),
        TransactionOptions::new().read_only(),
        TransactionOptions::new().autocommit(),
    ];
    insert(&session, "a").unwrap();
    for options in late {
        assert!(matches!(session.begin_with(options), Err(Error::AlreadyBegun { .. })));
        assert_eq!(session.transaction_options(), TransactionOptions::new());
        assert_eq!(session.state(), SessionState::Active);
    }
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["a"]);
    for options in late {
        session.begin_with(options).unwrap();
        assert_eq!(session.transaction_options(), options);
        assert_eq!(texts(&session), ["a"]);
        session.rollback().unwrap();
        assert_eq!(session.transaction_options(), TransactionOptions::new());
    }
}

// parity: SessionTransactionTest::test_no_autobegin_after_explicit_commit
#[test]
fn after_a_commit_there_is_no_transaction_until_the_next_use() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    insert(&session, "ed").unwrap();
    session.commit().unwrap();
    assert!(!session.in_transaction());
    assert_eq!(registry.engine().connections_in_use().len(), 0);
    session.with_connection(|_| Ok(())).unwrap();
    assert!(session.in_transaction());
    session.rollback().unwrap();
}

fn flags(session: &Session) -> (bool, bool) {
    (session.in_transaction(), session.in_nested_transaction())
}

// parity: TransactionFlagsTest::test_in_transaction
// parity: TransactionFlagsTest::test_in_transaction_nesting
#[test]
fn the_flags_follow_the_root_and_the_innermost_savepoint() {
    let database = Database::new();
    let registry = database.registry();
    let ends: [fn(&Session); 2] =
        [|session| drop(session.commit().unwrap()), |session| drop(session.rollback().unwrap())];
    for end in ends {
        let session = Session::new(registry.engine());
        assert_eq!(flags(&session), (false, false));
        session.begin().unwrap();
        assert_eq!(flags(&session), (true, false));
        let outer = session.begin_nested().unwrap();
        assert_eq!(flags(&session), (true, true));
        let inner = session.begin_nested().unwrap();
        assert_eq!(flags(&session), (true, true));
        inner.rollback().unwrap();
        assert_eq!(flags(&session), (true, true));
        outer.rollback().unwrap();
        assert_eq!(flags(&session), (true, false));
        end(&session);
        assert_eq!(flags(&session), (false, false));
    }
}

// parity: TransactionFlagsTest::test_in_transaction_subtransactions
#[test]
fn a_joined_transaction_does_not_show_in_the_flags() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    registry
        .transaction(|outer| -> Result<()> {
            assert_eq!(flags(outer), (true, false));
            registry.transaction(|inner| -> Result<()> {
                assert_eq!(inner, outer);
                assert_eq!(flags(inner), (true, false));
                insert(inner, "a").map(drop)
            })?;
            assert_eq!(flags(outer), (true, false));
            outer.set_rollback_only("asked for")
        })
        .unwrap();
    assert_eq!(flags(&session), (false, false));
    session.rollback().unwrap();
    assert_eq!(flags(&session), (false, false));
    assert!(stored(&registry).is_empty());
}
