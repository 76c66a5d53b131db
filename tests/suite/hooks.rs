//! Hooks: when they run, in which order, and that nothing they do changes how the transaction ended.

use std::cell::RefCell;
use std::rc::Rc;

use diesel_session::{Error, HookError, Outcome, Result, autocommit};

use super::db::{self, Database, Registry, Session, insert, stored};
use super::tools::{answer, connection_id, kill, nothing_in_use};

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn note(&self, text: impl Into<String>) {
        self.0.borrow_mut().push(text.into());
    }

    fn noter(&self, text: impl Into<String>) -> impl FnOnce() + 'static {
        let (log, text) = (self.clone(), text.into());
        move || log.note(text)
    }

    /// Registers all three kinds under one name.
    fn watch(&self, session: &Session, name: &str) {
        session.on_commit(self.noter(format!("{name} committed"))).unwrap();
        session.on_rollback(self.noter(format!("{name} rolled back"))).unwrap();
        let (log, name) = (self.clone(), name.to_owned());
        session.on_completion(move |outcome| log.note(format!("{name} {outcome:?}"))).unwrap();
    }

    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

fn panics(text: &str) {
    assert!(text.is_empty(), "{text}");
}

#[test]
fn they_run_in_the_order_of_registration_after_the_end() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let log = Log::default();
    log.watch(&session, "a");
    insert(&session, "row").unwrap();
    log.watch(&session, "b");
    assert!(log.take().is_empty());
    session.commit().unwrap();
    assert_eq!(log.take(), ["a committed", "a Committed", "b committed", "b Committed"]);
    log.watch(&session, "c");
    insert(&session, "undone").unwrap();
    session.rollback().unwrap();
    assert_eq!(log.take(), ["c rolled back", "c RolledBack"]);
    // They belonged to their transaction: the next one starts without any.
    insert(&session, "other").unwrap();
    session.commit().unwrap();
    assert!(log.take().is_empty());
    registry.remove();
}

#[test]
fn in_savepoints_they_are_dropped_on_rollback_and_promoted_on_release() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let log = Log::default();
    log.watch(&session, "root");
    let released = session.begin_nested().unwrap();
    log.watch(&session, "released");
    let inner = session.begin_nested().unwrap();
    log.watch(&session, "inner");
    inner.commit().unwrap();
    released.commit().unwrap();
    assert!(log.take().is_empty());
    let undone = session.begin_nested().unwrap();
    log.watch(&session, "undone");
    let inside = session.begin_nested().unwrap();
    log.watch(&session, "inside");
    inside.commit().unwrap();
    undone.rollback().unwrap();
    assert_eq!(
        log.take(),
        ["undone rolled back", "undone RolledBack", "inside rolled back", "inside RolledBack"],
        "right after ROLLBACK TO"
    );
    log.watch(&session, "last");
    session.commit().unwrap();
    let expected: Vec<String> = ["root", "released", "inner", "last"]
        .iter()
        .flat_map(|name| [format!("{name} committed"), format!("{name} Committed")])
        .collect();
    assert_eq!(log.take(), expected);
    registry.remove();
}

#[test]
fn on_an_idle_session_the_next_commit_runs_them_even_when_nothing_was_sent() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let log = Log::default();
    log.watch(&session, "a");
    session.commit().unwrap();
    assert_eq!(log.take(), ["a committed", "a Committed"]);
    log.watch(&session, "b");
    insert(&session, "row").unwrap();
    assert!(log.take().is_empty());
    session.commit().unwrap();
    assert_eq!(log.take(), ["b committed", "b Committed"]);
    type End = fn(&Session, &Registry);
    let ends: [End; 4] = [
        |session, _| drop(session.rollback().unwrap()),
        |session, _| session.invalidate().unwrap(),
        |session, _| session.close(),
        |_, registry| registry.remove(),
    ];
    for end in ends {
        let session = registry.current().unwrap();
        log.watch(&session, "c");
        end(&session, &registry);
        session.commit().ok();
        assert_eq!(log.take(), ["c rolled back", "c RolledBack"]);
    }
    registry.remove();
}

#[test]
fn in_autocommit_mode_they_run_at_once() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current_with(autocommit()).unwrap();
    insert(&session, "row").unwrap();
    let log = Log::default();
    log.watch(&session, "a");
    assert_eq!(log.take(), ["a committed", "a Committed"]);
    session.commit().unwrap();
    assert!(log.take().is_empty());
    registry.remove();
}

#[test]
fn a_failed_commit_runs_the_rollback_hooks() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let log = Log::default();
    insert(&session, "row").unwrap();
    log.watch(&session, "a");
    assert!(insert(&session, "row").is_err());
    assert_eq!(answer(&session.commit()), "RolledBack");
    assert_eq!(log.take(), ["a rolled back", "a RolledBack"]);
    registry.remove();
}

#[test]
fn when_nobody_knows_only_the_completion_hook_runs() {
    // A file or memory of this process can't lose its connection.
    if !db::REMOTE {
        assert_eq!(super::tools::kind(), diesel_session::Kind::Sqlite);
        return;
    }
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let log = Log::default();
    insert(&session, "row").unwrap();
    log.watch(&session, "a");
    kill(&database, connection_id(&session));
    assert_eq!(answer(&session.commit()), "CommitUnknown");
    assert_eq!(log.take(), ["a Unknown"]);
    insert(&session, "next").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["next"]);
    registry.remove();
    nothing_in_use(&registry);
}

#[test]
fn errors_and_panics_are_reported_and_the_work_is_stored() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let log = Log::default();
    insert(&session, "row").unwrap();
    session.on_commit(|| Err::<(), _>("no mail today")).unwrap();
    session.on_commit(|| panics("hook number 2")).unwrap();
    session.on_commit(log.noter("third")).unwrap();
    session.on_completion(|_| Err::<(), Error>(Error::InHook)).unwrap();
    let report = session.commit().unwrap();
    let messages: Vec<_> = report.hook_errors().iter().map(diesel_session::HookError::message).collect();
    assert_eq!(messages[..2], ["no mail today", "panicked: hook number 2"]);
    assert_eq!(messages.len(), 3);
    assert!(report.hook_errors().iter().all(|error| error.place().file().ends_with("hooks.rs")));
    assert_eq!(log.take(), ["third"]);
    assert_eq!(registry.inspect().counters.hook_errors, 3);
    assert_eq!(stored(&registry), ["row"]);
    // The same in a rollback hook, and the session is as good as before.
    session.on_rollback(|| panics("while rolling back")).unwrap();
    session.rollback().unwrap();
    assert_eq!(registry.inspect().counters.hook_errors, 4);
    insert(&session, "next").unwrap();
    session.commit().unwrap();
    assert_eq!(stored(&registry), ["next", "row"]);
    registry.remove();
}

/// What a hook can and can't do: `Session::current()` and captured handles are refused, a transaction of its own works.
fn write_in_a_hook(registry: &Registry, session: &Session, name: &'static str, log: &Log) -> impl FnOnce() + 'static {
    let (registry, session, log) = (registry.clone(), session.clone(), log.clone());
    move || {
        log.note(format!("current: {}", answer(&registry.current())));
        log.note(format!("current_with: {}", answer(&registry.current_with(autocommit()))));
        assert!(registry.try_current().is_none());
        let handle = insert(&session, "by the handle");
        assert!(matches!(handle, Err(Error::InHook | Error::SessionClosed { .. })), "{handle:?}");
        let inner = registry.transaction(|inner| {
            assert!(registry.current().unwrap() == *inner);
            insert(inner, name)
        });
        log.note(format!("transaction: {}", answer(&inner)));
    }
}

#[test]
fn inside_a_hook_a_transaction_of_its_own_works_and_the_current_session_does_not() {
    let database = Database::new();
    // One connection: it is back in the pool before the hooks run.
    let registry = database.registry_with(|builder| builder.max_size(1));
    let refused = ["current: InHook", "current_with: InHook", "transaction: Ok"];
    let log = Log::default();
    type End = fn(&Session, &Registry);
    let ends: [(&str, End); 5] = [
        ("a commit", |session, _| assert!(session.commit().unwrap().hook_errors().is_empty())),
        ("b rollback", |session, _| drop(session.rollback().unwrap())),
        ("c remove", |_, registry| registry.remove()),
        ("d close", |session, _| session.close()),
        ("e invalidate", |session, _| session.invalidate().unwrap()),
    ];
    for (name, end) in ends {
        let session = registry.current().unwrap();
        insert(&session, &format!("{name}, itself")).unwrap();
        let hook = write_in_a_hook(&registry, &session, name, &log);
        session.on_completion(move |_: Outcome| hook()).unwrap();
        end(&session, &registry);
        assert_eq!(log.take(), refused, "{name} on {}", db::NAME);
        let left = registry.try_current();
        assert!(left.is_none_or(|left| left == session), "no session but the one that ended is left");
        registry.remove();
        assert!(!registry.has());
        nothing_in_use(&registry);
    }
    let expected = ["a commit", "a commit, itself", "b rollback", "c remove", "d close", "e invalidate"];
    assert_eq!(stored(&registry), expected);
}

#[test]
fn the_hooks_of_a_transaction_closure_may_open_another() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let inner = registry.clone();
    registry
        .transaction(|session| {
            session.on_commit(move || {
                let innermost = inner.clone();
                inner.transaction(|session| {
                    session.on_commit(move || innermost.transaction(|session| insert(session, "third").map(drop)))?;
                    insert(session, "second").map(drop)
                })
            })?;
            insert(session, "first").map(drop)
        })
        .map_err(|error: Error| error)
        .unwrap();
    assert_eq!(stored(&registry), ["first", "second", "third"]);
    assert_eq!(registry.inspect().counters.hook_errors, 0);
    assert!(!registry.has());
    nothing_in_use(&registry);
}

#[test]
fn hooks_registered_by_hooks_run_at_the_end_of_the_same_queue() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let log = Log::default();
    let (handle, inner) = (session.clone(), log.clone());
    session
        .on_commit(move || {
            inner.note("first");
            handle.on_commit(inner.noter("registered by the first"))
        })
        .unwrap();
    session.on_commit(log.noter("second")).unwrap();
    session.commit().unwrap();
    assert_eq!(log.take(), ["first", "second", "registered by the first"]);
    registry.remove();
}

#[test]
fn a_transaction_takes_a_thousand_hooks_and_refuses_the_next() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let ran = Rc::new(RefCell::new(0));
    let register = |session: &Session| {
        let ran = Rc::clone(&ran);
        session.on_commit(move || *ran.borrow_mut() += 1)
    };
    // Over several frames: it is the transaction that has a limit.
    (0..400).try_for_each(|_| register(&session)).unwrap();
    let savepoint = session.begin_nested().unwrap();
    (0..600).try_for_each(|_| register(&session)).unwrap();
    assert!(matches!(register(&session), Err(Error::Configuration(_))));
    savepoint.commit().unwrap();
    assert!(matches!(register(&session), Err(Error::Configuration(_))));
    insert(&session, "row").unwrap();
    assert!(session.commit().unwrap().hook_errors().is_empty());
    assert_eq!(*ran.borrow(), 1_000, "none is dropped");
    // The next transaction starts from nothing.
    register(&session).unwrap();
    session.commit().unwrap();
    assert_eq!(*ran.borrow(), 1_001);
    assert_eq!(stored(&registry), ["row"]);
    registry.remove();
}

#[test]
fn hooks_that_keep_registering_hooks_come_to_an_end_that_is_reported() {
    fn register(session: &Session, ran: &Rc<RefCell<usize>>) -> Result<()> {
        let (handle, ran) = (session.clone(), Rc::clone(ran));
        session.on_commit(move || {
            *ran.borrow_mut() += 1;
            register(&handle, &ran)
        })
    }
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let ran = Rc::default();
    insert(&session, "row").unwrap();
    register(&session, &ran).unwrap();
    let report = session.commit().unwrap();
    assert_eq!(*ran.borrow(), 1_000);
    assert_eq!(report.hook_errors().len(), 1);
    assert_eq!(stored(&registry), ["row"]);
    insert(&session, "next").unwrap();
    assert!(session.commit().unwrap().hook_errors().is_empty());
    registry.remove();
}

#[test]
fn a_session_that_is_only_dropped_runs_none() {
    let database = Database::new();
    let registry = database.registry();
    let log = Log::default();
    {
        let session = Session::new(registry.engine());
        insert(&session, "row").unwrap();
        log.watch(&session, "a");
    }
    assert!(log.take().is_empty());
    assert!(stored(&registry).is_empty());
    nothing_in_use(&registry);
}

#[test]
fn the_errors_of_rollback_hooks_are_in_the_report_of_the_rollback() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    let savepoint = session.begin_nested().unwrap();
    session.on_rollback(|| Err::<(), _>("of the savepoint")).unwrap();
    let report = savepoint.rollback().unwrap();
    assert_eq!(report.hook_errors().iter().map(HookError::message).collect::<Vec<_>>(), ["of the savepoint"]);
    session.on_rollback(|| Err::<(), _>("of the transaction")).unwrap();
    let report = session.rollback().unwrap();
    assert_eq!(report.hook_errors().iter().map(HookError::message).collect::<Vec<_>>(), ["of the transaction"]);
    registry.remove();
}
