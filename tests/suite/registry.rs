//! The registry: one session a thread, found, exchanged and removed by the rules of SQLAlchemy's `scoped_session`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;

use diesel_session::{Error, IsolationLevel, SessionOptions, SessionState, TransactionOptions, autocommit, read_only};

use super::db::{Database, Registry, Session, insert, stored, texts};

/// What `f` panicked with, and nothing else.
fn panic_of<R>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("this should have panicked"),
        Err(payload) => (*payload.downcast_ref::<&str>().expect("the panic's own text")).to_owned(),
    }
}

fn open_sessions(registry: &Registry) -> usize {
    registry.inspect().sessions.len()
}

#[test]
fn current_is_the_same_session_until_remove_and_a_new_one_afterwards() {
    let database = Database::new();
    let registry = database.registry();
    let first = registry.current().unwrap();
    assert!(first == registry.current().unwrap());
    first.info().insert(7_i32);
    registry.remove();
    let second = registry.current().unwrap();
    assert!(first != second);
    assert_ne!(first.id(), second.id());
    assert!(second.info().get::<i32>().is_none());
    registry.remove();
}

#[test]
fn each_thread_has_a_session_of_its_own() {
    let database = Database::new();
    let registry = database.registry();
    let own = registry.current().unwrap().id();
    let other = registry.clone();
    let others = std::thread::spawn(move || {
        assert!(!other.has());
        other.current().unwrap().id()
    });
    assert_ne!(own, others.join().unwrap());
    assert_eq!(open_sessions(&registry), 1);
    registry.remove();
}

#[test]
fn asking_whether_there_is_a_session_makes_none() {
    let database = Database::new();
    let registry = database.registry();
    assert!(registry.try_current().is_none());
    assert!(!registry.has());
    registry.remove();
    registry.remove();
    assert_eq!(open_sessions(&registry), 0);
    let session = registry.current().unwrap();
    assert!(registry.has());
    assert!(registry.try_current().unwrap() == session);
    registry.remove();
    assert!(!registry.has());
}

#[test]
fn current_with_is_refused_where_a_session_exists() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current_with(read_only()).unwrap();
    assert!(session.transaction_options().is_read_only());
    assert!(matches!(insert(&session, "a"), Err(Error::ReadOnly)));
    match registry.current_with(autocommit()) {
        Err(Error::AlreadyPresent { at }) => assert_eq!(at.file(), file!()),
        other => panic!("{other:?}"),
    }
    assert!(registry.current().unwrap() == session);
    registry.remove();
    assert!(!registry.current_with(SessionOptions::new()).unwrap().transaction_options().is_read_only());
    registry.remove();
    let contradiction = autocommit().isolation(IsolationLevel::Serializable);
    assert!(matches!(registry.current_with(contradiction), Err(Error::Configuration(_))));
    assert!(!registry.has());
}

#[test]
fn replace_closes_the_old_session_and_returns_it() {
    let database = Database::new();
    let registry = database.registry();
    let mine = Session::new(registry.engine());
    assert!(registry.replace(&mine).unwrap().is_none());
    assert!(registry.current().unwrap() == mine);
    insert(&mine, "lost").unwrap();
    let next = Session::new(registry.engine());
    let old = registry.replace(&next).unwrap().unwrap();
    assert!(old == mine);
    assert!(mine.is_closed());
    assert!(matches!(mine.commit(), Err(Error::SessionClosed { .. })));
    assert!(registry.current().unwrap() == next);
    insert(&next, "kept").unwrap();
    next.commit().unwrap();
    registry.remove();
    assert!(next.is_closed());
    assert_eq!(stored(&registry), ["kept"]);
}

#[test]
fn an_extents_session_cannot_be_replaced() {
    let database = Database::new();
    let registry = database.registry();
    let other = Session::new(registry.engine());
    registry.scope(|_| assert!(matches!(registry.replace(&other), Err(Error::NotOwner { .. })))).unwrap();
    registry
        .transaction(|session| {
            assert!(matches!(registry.replace(&other), Err(Error::NotOwner { .. })));
            insert(session, "a").map(drop)
        })
        .unwrap();
    let bare = registry.current().unwrap();
    registry
        .transaction(|session| {
            assert!(*session == bare);
            assert!(matches!(registry.replace(&other), Err(Error::NotOwner { .. })));
            insert(session, "b").map(drop)
        })
        .unwrap();
    assert!(!other.is_closed());
    assert_eq!(stored(&registry), ["a", "b"]);
}

#[test]
fn configure_changes_sessions_made_later_on_every_thread_and_is_refused_where_one_is_open() {
    let database = Database::new();
    let registry = database.registry();
    registry.configure(|options| options.transaction(read_only()).info(String::from("from configure"))).unwrap();
    let here = registry.current().unwrap();
    assert!(here.transaction_options().is_read_only());
    assert_eq!(*here.info().get::<String>().unwrap(), "from configure");
    assert!(matches!(registry.configure(|options| options), Err(Error::AlreadyPresent { .. })));
    let (tell, told) = mpsc::channel();
    registry
        .spawn({
            let registry = registry.clone();
            move || {
                let session = registry.current().unwrap();
                tell.send(session.transaction_options().is_read_only()).unwrap();
                registry.remove();
                // This thread's session is gone, so here it may be changed, whatever other threads have open.
                registry.configure(|options| options.transaction(TransactionOptions::new())).unwrap();
            }
        })
        .join()
        .unwrap();
    assert!(told.recv().unwrap());
    assert!(here.transaction_options().is_read_only(), "a session that exists keeps its options");
    registry.remove();
    assert!(!registry.current().unwrap().transaction_options().is_read_only());
    registry.remove();
    let contradiction = autocommit().isolation(IsolationLevel::Serializable);
    assert!(matches!(registry.configure(|options| options.transaction(contradiction)), Err(Error::Configuration(_))));
    assert!(registry.current().is_ok(), "refused options are not kept");
    registry.remove();
}

#[test]
fn remove_rolls_back_gives_the_connection_back_and_closes_every_handle() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let clone = session.clone();
    insert(&session, "a").unwrap();
    let savepoint = session.begin_nested().unwrap();
    assert_eq!(registry.engine().connections_in_use().len(), 1);
    registry.remove();
    assert_eq!(registry.engine().connections_in_use().len(), 0);
    assert_eq!(registry.engine().write_gate().len(), 0);
    assert_eq!(open_sessions(&registry), 0);
    for handle in [&session, &clone] {
        assert_eq!(handle.state(), SessionState::Closed);
        assert!(matches!(insert(handle, "ghost"), Err(Error::SessionClosed { at }) if at.file() == file!()));
        assert!(matches!(handle.commit(), Err(Error::SessionClosed { .. })));
        assert!(matches!(handle.begin(), Err(Error::SessionClosed { .. })));
        assert!(matches!(handle.begin_nested(), Err(Error::SessionClosed { .. })));
        assert!(matches!(handle.batch_execute("SELECT 1"), Err(Error::SessionClosed { .. })));
        assert!(matches!(handle.on_commit(|| ()), Err(Error::SessionClosed { .. })));
        assert!(matches!(handle.set_rollback_only("late"), Err(Error::SessionClosed { .. })));
        handle.rollback().unwrap();
        handle.close();
    }
    assert!(matches!(savepoint.commit(), Err(Error::SavepointGone)));
    registry.remove();
    assert!(!registry.has());
    assert_eq!(registry.engine().connections_in_use().len(), 0, "a closed handle began a transaction");
    assert!(stored(&registry).is_empty());
}

#[test]
fn remove_inside_an_extent_closes_its_session_and_the_outer_one_is_back_afterwards() {
    let database = Database::new();
    let registry = database.registry();
    let outer = registry.current().unwrap();
    registry
        .scope(|inner| {
            insert(inner, "a").unwrap();
            registry.remove();
            assert!(inner.is_closed());
            assert!(matches!(registry.current(), Err(Error::SessionClosed { .. })));
            assert!(matches!(registry.current_with(read_only()), Err(Error::SessionClosed { .. })));
            registry.remove();
        })
        .unwrap();
    assert!(registry.current().unwrap() == outer);
    assert!(!outer.is_closed());
    registry.remove();
    assert_eq!(open_sessions(&registry), 0);
    assert!(stored(&registry).is_empty());
}

#[test]
fn remove_inside_a_lent_connection_happens_when_the_lending_ends() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "a").unwrap();
    session
        .with_connection(|_| {
            registry.remove();
            assert!(!session.is_closed());
            Ok(())
        })
        .unwrap();
    assert!(session.is_closed());
    assert!(!registry.has());
    assert!(registry.current().unwrap() != session);
    registry.remove();
    assert_eq!(open_sessions(&registry), 0);
    assert!(stored(&registry).is_empty());
}

#[test]
fn two_registries_of_one_connection_type_have_separate_sessions() {
    let (first_database, second_database) = (Database::new(), Database::new());
    let (first, second) = (first_database.registry(), second_database.registry());
    let (a, b) = (first.current().unwrap(), second.current().unwrap());
    assert!(a != b);
    insert(&a, "first").unwrap();
    insert(&b, "second").unwrap();
    assert_eq!(texts(&a), ["first"]);
    a.commit().unwrap();
    first.remove();
    assert!(a.is_closed() && !b.is_closed());
    assert!(second.current().unwrap() == b);
    b.commit().unwrap();
    first.enter(|| {
        second.enter(|| {
            assert!(Session::current().unwrap() == b);
            // The other is still found by its registry.
            assert_eq!(texts(&first.current().unwrap()), ["first"]);
        });
        assert_eq!(texts(&Session::current().unwrap()), ["first"]);
    });
    first.remove();
    second.remove();
    assert_eq!(stored(&first), ["first"]);
    assert_eq!(stored(&second), ["second"]);
}

#[test]
fn enter_nests_and_restores_also_after_a_panic() {
    let (first_database, second_database) = (Database::new(), Database::new());
    let (first, second) = (first_database.registry(), second_database.registry());
    assert!(matches!(Session::current(), Err(Error::NoRegistry { .. })));
    first.enter(|| {
        let outer = Session::current().unwrap();
        let text = panic_of(|| {
            second.enter(|| {
                assert!(Session::current().unwrap() != outer);
                panic!("inside enter");
            })
        });
        assert_eq!(text, "inside enter");
        assert!(Session::current().unwrap() == outer);
        first.enter(|| assert!(Session::current().unwrap() == outer));
        assert!(Session::current().unwrap() == outer);
    });
    assert!(matches!(Session::current(), Err(Error::NoRegistry { .. })));
    // It neither makes sessions nor ends them.
    assert!(first.has() && second.has());
    first.remove();
    second.remove();
}

#[test]
fn without_a_registry_the_error_says_which_connection_and_what_to_do() {
    let error = Session::current().unwrap_err().to_string();
    assert!(error.contains("Connection") && error.contains("install") && error.contains("enter"), "{error}");
    assert!(matches!(Session::registry(), Err(Error::NoRegistry { .. })));
    assert!(matches!(Session::current_with(read_only()), Err(Error::NoRegistry { .. })));
    assert!(Session::try_current().is_none());
    assert!(!Session::has());
    Session::remove();
}

#[test]
fn the_static_road_meets_the_entered_registry() {
    let database = Database::new();
    let registry = database.registry();
    registry.enter(|| {
        assert!(!Session::has());
        let session = Session::current_with(read_only()).unwrap();
        assert!(Session::has());
        assert!(Session::try_current().unwrap() == session);
        assert!(Session::current().unwrap() == session);
        assert!(registry.current().unwrap() == session);
        let next = Session::new(registry.engine());
        assert!(Session::replace(&next).unwrap().unwrap() == session);
        assert!(Session::current().unwrap() == next);
        Session::remove();
        assert!(next.is_closed());
        assert!(!Session::has());
        registry
            .scope(|scoped| {
                assert!(Session::current().unwrap() == *scoped);
                registry.scope(|inner| assert!(Session::current().unwrap() == *inner)).unwrap();
                assert!(Session::current().unwrap() == *scoped);
            })
            .unwrap();
        assert!(!Session::has());
    });
}

#[test]
fn a_plain_thread_does_not_inherit_an_entered_registry_but_spawn_and_wrap_carry_it() {
    let database = Database::new();
    let registry = database.registry();
    registry.enter(|| {
        let plain = std::thread::spawn(|| matches!(Session::current(), Err(Error::NoRegistry { .. })));
        assert!(plain.join().unwrap());
    });
    let spawned = registry.spawn(|| {
        let session = Session::current().unwrap();
        insert(&session, "spawned").unwrap();
        session.commit().unwrap();
        insert(&session, "left open").unwrap();
    });
    spawned.join().unwrap();
    assert_eq!(open_sessions(&registry), 0);
    assert_eq!(registry.inspect().counters.thread_exits, 0, "removed by `spawn`, not by the thread's end");
    let wrapped = registry.wrap(|| {
        let session = Session::current().unwrap();
        insert(&session, "wrapped").unwrap();
        session.commit().unwrap();
        insert(&session, "left open").unwrap();
        session.id()
    });
    std::thread::spawn(wrapped).join().unwrap();
    assert_eq!(stored(&registry), ["spawned", "wrapped"]);
    assert_eq!(registry.engine().connections_in_use().len(), 0);
}

#[test]
fn spawn_and_wrap_remove_the_session_also_after_a_panic() {
    let database = Database::new();
    let registry = database.registry();
    let spawned = registry.spawn(|| {
        insert(&Session::current().unwrap(), "a").unwrap();
        panic!("in a spawned thread");
    });
    assert!(spawned.join().is_err());
    assert_eq!(open_sessions(&registry), 0);
    // On this very thread, as a thread pool would run it.
    let kept = Rc::new(RefCell::new(None));
    let wrapped = registry.wrap(|| {
        insert(&Session::current().unwrap(), "b").unwrap();
        panic!("in a wrapped closure");
    });
    *kept.borrow_mut() = Some(panic_of(wrapped));
    assert_eq!(kept.borrow().as_deref(), Some("in a wrapped closure"));
    assert!(!registry.has());
    assert!(matches!(Session::current(), Err(Error::NoRegistry { .. })));
    assert_eq!(registry.engine().connections_in_use().len(), 0);
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_strict_registry_gives_sessions_inside_extents_only() {
    let database = Database::new();
    let registry = database.registry().strict();
    assert!(matches!(registry.current(), Err(Error::NoScope)));
    assert!(matches!(registry.current_with(read_only()), Err(Error::NoScope)));
    registry.enter(|| assert!(matches!(Session::current(), Err(Error::NoScope))));
    let found = |session: &Session| -> diesel_session::Result<()> {
        assert!(registry.current()? == *session);
        registry.enter(|| assert!(Session::current().unwrap() == *session));
        Ok(())
    };
    registry.scope(|session| found(session).unwrap()).unwrap();
    registry.transaction(found).unwrap();
    registry.read(found).unwrap();
    registry.job(found).unwrap();
    registry.request(TransactionOptions::new(), found).unwrap();
    assert!(matches!(registry.current(), Err(Error::NoScope)));
    assert!(!registry.has());
    assert_eq!(open_sessions(&registry), 0);
}

#[test]
fn scope_has_a_fresh_session_commits_nothing_by_itself_and_puts_the_outer_one_back() {
    let database = Database::new();
    let registry = database.registry();
    let outer = registry.current().unwrap();
    let kept = registry
        .scope(|inner| {
            assert!(*inner != outer);
            assert!(registry.current().unwrap() == *inner);
            insert(inner, "committed").unwrap();
            inner.commit().unwrap();
            insert(inner, "left open").unwrap();
            inner.clone()
        })
        .unwrap();
    assert!(kept.is_closed());
    assert!(registry.current().unwrap() == outer);
    let text = panic_of(|| {
        registry.scope(|inner| {
            insert(inner, "panicked").unwrap();
            panic!("inside scope");
        })
    });
    assert_eq!(text, "inside scope");
    assert!(registry.current().unwrap() == outer);
    registry.remove();
    assert_eq!(open_sessions(&registry), 0);
    assert_eq!(stored(&registry), ["committed"]);
}

#[test]
fn while_hooks_run_the_registry_answers_in_hook_and_makes_no_other_session() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    session
        .on_commit({
            let (registry, session, seen) = (registry.clone(), session.clone(), Rc::clone(&seen));
            move || {
                let mut seen = seen.borrow_mut();
                seen.push(registry.current().map(drop));
                seen.push(registry.current_with(read_only()).map(drop));
                seen.push(registry.enter(Session::current).map(drop));
                seen.push(insert(&session, "ghost").map(drop));
                assert!(registry.try_current().is_none());
            }
        })
        .unwrap();
    let report = session.commit().unwrap();
    assert!(report.hook_errors().is_empty(), "{:?}", report.hook_errors());
    let seen = seen.borrow();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|answer| matches!(answer, Err(Error::InHook))), "{seen:?}");
    assert!(registry.current().unwrap() == session);
    registry.remove();
    assert!(stored(&registry).is_empty());
}

#[test]
fn the_report_names_each_open_session_its_thread_and_its_lines() {
    let database = Database::new();
    let registry = database.registry();
    let (open, opened) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let worker = std::thread::Builder::new()
        .name("the-worker".into())
        .spawn({
            let registry = registry.clone();
            move || {
                let session = registry.current().unwrap();
                insert(&session, "a").unwrap();
                open.send(session.id()).unwrap();
                gone.recv().unwrap();
                registry.remove();
            }
        })
        .unwrap();
    let id = opened.recv().unwrap();
    let report = registry.inspect();
    assert_eq!(report.sessions.len(), 1);
    let session = &report.sessions[0];
    assert_eq!(session.id, id);
    assert!(session.thread.contains("the-worker"));
    assert_eq!(session.state, SessionState::Active);
    assert!(session.made_at.contains("registry.rs"));
    assert!(session.begun_at.as_deref().unwrap().contains("support"), "the line of the statement that began");
    assert_eq!(session.statements, 1);
    assert_eq!(report.open_transactions().count(), 1);
    assert_eq!(report.connections.len(), 1);
    let text = report.to_string();
    assert!(text.contains("the-worker") && text.contains("1 session(s)"), "{text}");
    go.send(()).unwrap();
    worker.join().unwrap();
    let after = registry.inspect();
    assert!(after.sessions.is_empty() && after.connections.is_empty() && after.write_gate.is_empty());
}
