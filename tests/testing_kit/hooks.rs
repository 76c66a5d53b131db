//! Hooks that are collected instead of run.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use diesel_session::testing::capture_hooks;
use diesel_session::{Error, Outcome, Session};

use super::db::Database;

#[test]
fn collected_hooks_run_when_they_are_told_to_and_not_before() {
    let database = Database::new();
    let registry = database.registry();
    let ran = Rc::new(RefCell::new(Vec::new()));
    let ear = |name: &'static str| {
        let ran = Rc::clone(&ran);
        move || ran.borrow_mut().push(name)
    };
    let (line, (result, hooks)) = (
        line!() + 3,
        capture_hooks(|| {
            registry.transaction(|session| {
                session.on_commit(ear("first"))?;
                session.on_rollback(ear("never"))?;
                let completed = ear("completed");
                session.on_completion(move |outcome| {
                    assert_eq!(outcome, Outcome::Committed);
                    completed();
                })?;
                session.on_commit(|| Err("refused"))
            })
        }),
    );
    result.unwrap();
    assert!(ran.borrow().is_empty());
    assert_eq!(hooks.len(), 3);
    assert!(!hooks.is_empty());
    assert_eq!(hooks.outcomes(), [Outcome::Committed; 3]);
    assert_eq!(hooks.places()[0].file(), file!());
    assert_eq!(hooks.places()[0].line(), line);
    let errors = hooks.run();
    assert_eq!(*ran.borrow(), ["first", "completed"]);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].message(), "refused");
    // Afterwards they run again by themselves.
    registry.transaction(|session| session.on_commit(ear("by itself"))).unwrap();
    assert_eq!(ran.borrow().last(), Some(&"by itself"));
}

#[test]
fn hooks_of_a_rollback_and_of_a_savepoint_are_collected_too() {
    let database = Database::new();
    let registry = database.registry();
    let ((), hooks) = capture_hooks(|| {
        let session = Session::new(registry.engine());
        let savepoint = session.begin_nested().unwrap();
        session.on_rollback(|| ()).unwrap();
        session.on_commit(|| ()).unwrap();
        savepoint.rollback().unwrap();
        session.on_completion(|_| ()).unwrap();
        session.rollback().unwrap();
    });
    assert_eq!(hooks.outcomes(), [Outcome::RolledBack; 2]);
    assert!(hooks.run().is_empty());
}

#[test]
fn the_innermost_call_collects_and_a_panic_leaves_the_outer_one_at_work() {
    let database = Database::new();
    let registry = database.registry();
    let commit = || registry.transaction(|session| session.on_commit(|| ())).unwrap();
    let (inner, outer) = capture_hooks(|| {
        commit();
        let ((), inner) = capture_hooks(commit);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            capture_hooks(|| {
                commit();
                std::panic::resume_unwind(Box::new("on purpose"));
            })
        }));
        assert!(panicked.is_err());
        commit();
        inner
    });
    assert_eq!((inner.len(), outer.len()), (1, 2));
}

#[test]
fn hooks_that_are_run_later_may_use_the_database() {
    let database = Database::new();
    let registry = database.registry();
    let in_hook = registry.clone();
    let (result, hooks) = capture_hooks(|| {
        registry.transaction(|session| {
            session.on_commit(move || in_hook.transaction(|session| super::db::insert(session, "later")).map(drop))
        })
    });
    result.map_err(|error: Error| error).unwrap();
    assert!(super::db::stored(&registry).is_empty());
    assert!(hooks.run().is_empty());
    assert_eq!(super::db::stored(&registry), ["later"]);
}
