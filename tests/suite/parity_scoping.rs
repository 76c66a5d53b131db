//! The registry, as the tests of SQLAlchemy's `scoped_session` have it.

use std::cell::Cell;
use std::rc::Rc;

use diesel::prelude::*;
use diesel_session::{Error, SessionOptions, SessionState, read_only};

use super::db::{Database, Session, insert, stored, texts};
use super::notes;

// parity: ScopedSessionTest::test_basic
#[test]
fn after_remove_a_fresh_session_reads_what_was_committed() {
    let database = Database::new();
    let registry = database.registry();
    registry.enter(|| {
        let first = Session::current().unwrap();
        insert(&Session::current().unwrap(), "hello").unwrap();
        Session::current().unwrap().commit().unwrap();
        assert_eq!(texts(&Session::current().unwrap()), ["hello"]);
        insert(&Session::current().unwrap(), "never committed").unwrap();
        Session::remove();

        assert!(!Session::has());
        assert!(first.is_closed());
        let second = Session::current().unwrap();
        assert_ne!(first, second);
        assert_ne!(first.id(), second.id());
        assert_eq!(texts(&second), ["hello"]);
        Session::remove();
        Session::remove();
        assert!(!Session::has());
    });
    assert_eq!(registry.engine().connections_in_use().len(), 0);
}

// parity: ScopedSessionTest::test_call_with_kwargs
#[test]
fn options_are_taken_only_where_no_session_is_yet_and_every_scope_has_its_own() {
    let database = Database::new();
    let registry = database.registry();
    let here = registry.current().unwrap();
    assert!(!here.transaction_options().is_read_only());

    match registry.current_with(read_only()).unwrap_err() {
        Error::AlreadyPresent { at } => assert_eq!(at.to_string(), here.made_at().to_string()),
        other => panic!("{other}"),
    }
    assert_eq!(registry.current().unwrap(), here);
    assert!(!here.transaction_options().is_read_only());

    let here_id = here.id();
    std::thread::scope(|threads| {
        let other_thread = threads.spawn(|| {
            let there = registry.current_with(read_only()).unwrap();
            assert_ne!(there.id(), here_id);
            assert!(there.transaction_options().is_read_only());
            assert!(matches!(insert(&there, "refused"), Err(Error::ReadOnly)));
            registry.remove();
        });
        other_thread.join().unwrap();
    });
    registry.scope(|inner| assert_ne!(*inner, here)).unwrap();

    assert_eq!(registry.current().unwrap(), here);
    insert(&here, "written").unwrap();
    here.commit().unwrap();
    registry.remove();
    assert_eq!(stored(&registry), ["written"]);
}

#[test]
fn options_of_one_session_leave_the_rest_as_configured() {
    let database = Database::new();
    let registry = database.registry();
    registry.configure(|options| options.autobegin(false).info("configured")).unwrap();
    let session = registry.current_with(read_only()).unwrap();
    assert!(session.transaction_options().is_read_only());
    assert_eq!(*session.info().get::<&str>().unwrap(), "configured");
    assert!(matches!(session.execute(diesel::sql_query("SELECT 1")), Err(Error::AutobeginDisabled)));
    registry.remove();
    let session = registry.current_with(SessionOptions::new().autobegin(true)).unwrap();
    assert!(!session.transaction_options().is_read_only());
    insert(&session, "begun by itself").unwrap();
    registry.remove();
}

// parity: ScopedSessionTest::test_methods_etc
// parity: ScopedSessionTest::test_attributes
#[test]
fn current_gives_the_session_itself_so_that_all_of_it_is_reached_through_the_registry() {
    let database = Database::new();
    let registry = database.registry();
    registry.enter(|| {
        let current = || Session::current().unwrap();
        let held = current();
        assert_eq!(current().id(), held.id());
        assert_eq!(current().made_at().to_string(), held.made_at().to_string());
        assert_eq!(current().transaction_options(), held.transaction_options());
        assert!(current().is_active() && !current().is_closed());

        current().begin().unwrap();
        assert!(held.in_transaction() && current().in_transaction());
        insert(&current(), "a").unwrap();
        assert_eq!(held.state(), SessionState::Active);
        assert_eq!(current().state(), SessionState::Active);
        assert_eq!(texts(&current()), texts(&held));
        current().batch_execute("UPDATE notes SET n = 1").unwrap();
        let select = notes::table.select(notes::n);
        assert_eq!(current().first::<i32, _>(select).unwrap(), 1);
        assert_eq!(current().get_result::<i32>(select).unwrap(), 1);
        assert_eq!(current().get_results::<i32>(select).unwrap(), [1]);
        assert_eq!(
            current().with_rows(select, |rows| rows.map(|n: QueryResult<i32>| n).sum::<QueryResult<i32>>()).unwrap(),
            1
        );
        assert_eq!(current().with_connection(|conn| select.load::<i32>(conn)).unwrap(), [1]);
        assert_eq!(current().try_with_connection(|_| Ok::<_, Error>(1)).unwrap(), 1);

        let savepoint = current().begin_nested().unwrap();
        assert!(held.in_nested_transaction() && current().in_nested_transaction());
        savepoint.rollback().unwrap();
        current().nested(|session| insert(session, "b")).unwrap();

        let ran = Rc::new(Cell::new(0));
        let count = |ran: &Rc<Cell<i32>>| {
            let ran = Rc::clone(ran);
            move || ran.set(ran.get() + 1)
        };
        current().on_commit(count(&ran)).unwrap();
        let completed = count(&ran);
        current().on_completion(move |_| completed()).unwrap();
        current().commit().unwrap();
        assert_eq!((ran.get(), held.state()), (2, SessionState::Idle));

        current().on_rollback(count(&ran)).unwrap();
        current().set_rollback_only("asked for").unwrap();
        assert_eq!(held.state(), SessionState::RollbackOnly);
        current().rollback().unwrap();
        assert_eq!((ran.get(), held.state()), (3, SessionState::Idle));

        current().info().insert(7_u8);
        assert_eq!(*held.info().get::<u8>().unwrap(), 7);
        current().begin_with(read_only()).unwrap();
        assert!(held.transaction_options().is_read_only());
        current().invalidate().unwrap();
        assert!(!held.in_transaction());

        current().close();
        assert!(held.is_closed());
        assert_ne!(current(), held);
        Session::remove();
    });
    assert_eq!(stored(&registry), ["a", "b"]);
}
