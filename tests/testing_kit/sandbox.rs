//! Commits in a transaction around everything.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Barrier;

use diesel::connection::TransactionManager;
use diesel::prelude::*;
use diesel_session::testing::{Call, Fault, FaultPlan};
use diesel_session::{
    Engine, EngineBuilder, Error, Outcome, Propagation, RetryPolicy, ScopedSession, TransactionOptions, autocommit,
    read_only,
};

use super::db::{Conn, Database, Registry, Session, insert, stored, texts};
use crate::support::notes;

struct Sandbox {
    /// None once it is over.
    registry: Option<Registry>,
    outside: Registry,
    database: Database,
}

impl Sandbox {
    fn new(change: impl FnOnce(EngineBuilder<Conn>) -> EngineBuilder<Conn>) -> Self {
        let mut database = Database::new();
        if database.url == ":memory:" {
            database.url = format!("file:/{}?vfs=memdb", crate::support::unique_name());
        }
        let outside = database.registry();
        let engine = change(Engine::<Conn>::builder(&database.url).sandbox()).build().unwrap();
        Self { registry: Some(ScopedSession::new(engine)), outside, database }
    }

    fn registry(&self) -> &Registry {
        self.registry.as_ref().unwrap()
    }

    /// What stays when the engine goes.
    fn left(&mut self) -> Vec<String> {
        self.registry = None;
        let started = std::time::Instant::now();
        // A server rolls back when it has seen that the connection is closed.
        while self.database.connections() > 1 && super::db::REMOTE {
            assert!(started.elapsed() < std::time::Duration::from_secs(20));
            std::thread::yield_now();
        }
        stored(&self.outside)
    }
}

#[test]
fn what_is_committed_is_there_for_later_sessions_and_gone_with_the_engine() {
    let mut sandbox = Sandbox::new(|builder| builder);
    let registry = sandbox.registry().clone();
    registry.transaction(|session| insert(session, "one")).unwrap();
    let error = registry.transaction(|session| {
        insert(session, "undone")?;
        Err::<(), Error>(Error::NoScope)
    });
    assert!(error.is_err());
    let session = registry.current().unwrap();
    insert(&session, "two").unwrap();
    session.commit().unwrap();
    insert(&session, "undone").unwrap();
    session.rollback().unwrap();
    insert(&session, "undone").unwrap();
    registry.remove();
    // Dropped and abandoned with its transaction open.
    insert(&Session::new(registry.engine()), "undone").unwrap();
    assert_eq!(stored(&registry), ["one", "two"]);
    // Another thread sees it too.
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(stored(&registry), ["one", "two"])).join().unwrap();
    });
    assert!(registry.engine().connections_in_use().is_empty() && registry.engine().write_gate().is_empty());
    drop((session, registry));
    assert!(sandbox.left().is_empty());
}

#[test]
fn hooks_savepoints_and_units_of_work_are_as_without_it() {
    let mut sandbox = Sandbox::new(|builder| builder);
    let registry = sandbox.registry().clone();
    let heard = Rc::new(RefCell::new(Vec::new()));
    let (ear, in_hook) = (Rc::clone(&heard), registry.clone());
    registry
        .transaction_with(TransactionOptions::new().durable(), |session| {
            let (ear, in_hook) = (Rc::clone(&ear), in_hook.clone());
            session.on_completion(move |outcome| {
                ear.borrow_mut().push(outcome);
                in_hook.transaction(|session| insert(session, "by a hook")).map(drop)
            })?;
            insert(session, "one")?;
            assert!(session.nested(|session| insert(session, "one")).unwrap_err().is_unique_violation());
            session.nested(|session| insert(session, "two"))?;
            let inner = TransactionOptions::new().durable();
            let error = registry.transaction_with(inner, |_| Ok::<_, Error>(())).unwrap_err();
            assert!(matches!(error, Error::NotOutermost { .. }), "{error}");
            let nested = TransactionOptions::new().propagation(Propagation::Nested);
            registry.transaction_with(nested, |session| insert(session, "three"))
        })
        .unwrap();
    assert_eq!(*heard.borrow(), [Outcome::Committed]);
    assert_eq!(stored(&registry), ["by a hook", "one", "three", "two"]);
    // A failed statement that is swallowed.
    let error = registry
        .transaction(|session| {
            insert(session, "undone")?;
            let _ = insert(session, "one");
            Ok::<_, Error>(())
        })
        .unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    // Run again.
    let policy = TransactionOptions::new().retry(RetryPolicy::new(3).also(|_| true));
    registry
        .transaction_with(policy, |session| {
            let number = session.attempt().unwrap().number();
            insert(session, &format!("attempt {number}"))?;
            insert(session, if number == 1 { "one" } else { "zero" })
        })
        .unwrap();
    assert_eq!(stored(&registry), ["attempt 2", "by a hook", "one", "three", "two", "zero"]);
    drop((registry, ear, in_hook));
    assert!(sandbox.left().is_empty());
}

#[test]
fn autocommit_and_read_only_sessions_work_in_it() {
    let mut sandbox = Sandbox::new(|builder| builder);
    let registry = sandbox.registry().clone();
    let session = Session::with_options(registry.engine(), autocommit()).unwrap();
    insert(&session, "one").unwrap();
    session.batch_execute("INSERT INTO notes (text, n) VALUES ('two', 0)").unwrap();
    assert!(insert(&session, "one").unwrap_err().is_unique_violation());
    // Left open on the bare connection, it is undone.
    session
        .with_connection(|conn| {
            <Conn as Connection>::TransactionManager::begin_transaction(conn)?;
            diesel::insert_into(notes::table).values((notes::text.eq("undone"), notes::n.eq(0))).execute(conn)
        })
        .unwrap();
    assert_eq!(texts(&session), ["one", "two"]);
    drop(session);
    let session = Session::with_options(registry.engine(), read_only()).unwrap();
    assert_eq!(texts(&session), ["one", "two"]);
    assert!(matches!(insert(&session, "three"), Err(Error::ReadOnly)));
    session.commit().unwrap();
    registry.transaction(|session| insert(session, "three")).unwrap();
    drop((session, registry));
    assert!(sandbox.left().is_empty());
}

#[test]
fn threads_take_turns() {
    let mut sandbox = Sandbox::new(|builder| builder.max_size(8));
    let registry = sandbox.registry().clone();
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (registry, start) = (&registry, &start);
            scope.spawn(move || {
                start.wait();
                for n in 0..10 {
                    registry.transaction(|session| insert(session, &format!("{thread} {n}"))).unwrap();
                }
            });
        }
    });
    assert_eq!(stored(&registry).len(), 40);
    let inner = TransactionOptions::new().propagation(Propagation::RequiresNew);
    let error = registry
        .transaction(|session| {
            insert(session, "outer")?;
            registry.transaction_with(inner, |session| insert(session, "inner"))
        })
        .unwrap_err();
    assert!(matches!(error, Error::WouldStarve { .. } | Error::WouldDeadlock { .. }), "{error}");
    drop(registry);
    assert!(sandbox.left().is_empty());
}

#[test]
fn a_transaction_around_everything_that_is_lost_is_noticed_by_all() {
    let faults = FaultPlan::new();
    let sandbox = Sandbox::new(|builder| builder.faults(&faults));
    let registry = sandbox.registry();
    registry.transaction(|session| insert(session, "one")).unwrap();
    faults.on(Call::Statement, Fault::CloseBefore);
    registry.transaction(|session| insert(session, "two")).unwrap_err();
    for _ in 0..2 {
        let error = registry.transaction(|session| insert(session, "three")).unwrap_err();
        assert!(matches!(error, Error::Configuration(_)) && error.to_string().contains("sandbox"), "{error}");
    }
    assert!(registry.engine().connections_in_use().is_empty());
}

#[test]
fn a_raw_commit_is_noticed() {
    let sandbox = Sandbox::new(|builder| builder);
    let registry = sandbox.registry();
    registry.transaction(|session| insert(session, "one")).unwrap();
    let session = registry.current().unwrap();
    insert(&session, "two").unwrap();
    session.batch_execute("COMMIT").unwrap_err();
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::ImplicitCommit { .. }), "{error}");
    registry.remove();
    let error = registry.transaction(|session| insert(session, "three")).unwrap_err();
    assert!(error.to_string().contains("sandbox"), "{error}");
    // It is stored, as the error says.
    assert_eq!(stored(&sandbox.outside), ["one", "two"]);
}

#[test]
fn the_engine_that_is_closed_has_rolled_back() {
    let mut sandbox = Sandbox::new(|builder| builder);
    let registry = sandbox.registry().clone();
    registry.transaction(|session| insert(session, "one")).unwrap();
    registry.shutdown(std::time::Duration::from_secs(5)).unwrap();
    assert!(matches!(registry.transaction(|session| insert(session, "two")), Err(Error::ShutDown)));
    assert!(sandbox.left().is_empty());
    drop(registry);
    let written = sandbox.outside.transaction(|session| session.execute(diesel::delete(notes::table)));
    assert_eq!(written.unwrap(), 0);
}
