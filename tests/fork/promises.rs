//! Run on each database.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{
    Engine, Error, ErrorClass, Executor, JoinMode, SessionListener, SessionState, Strategy, TransactionOptions,
    autocommit, read_only,
};

use super::db::{Conn, Database, NAME, Registry, Session, insert, stored, texts};
use super::server_view::{connected, had_no_trouble};
use crate::children::{Leave, Mine, Promise, in_a_child};
use crate::support::notes;

pub(crate) const ALL: &[(&str, Promise)] = &[
    ("an open transaction survives a child that returns", || open_transaction(Leave::Return)),
    ("an open transaction survives a child that exits", || open_transaction(Leave::Exit)),
    ("each strategy's connections survive a child that returns", || strategies(Leave::Return)),
    ("each strategy's connections survive a child that exits", || strategies(Leave::Exit)),
    ("a joined session survives a child", joined),
    ("a fork inside a closure is noticed where the closure ends", inside_closures),
    ("a child waits for no lock of a thread that it does not have", busy_threads),
    ("an engine made in the child works", an_engine_of_its_own),
    ("a session across awaits survives a child that returns", || across_awaits(Leave::Return)),
    ("a session across awaits survives a child that exits", || across_awaits(Leave::Exit)),
];

struct Silent;

impl SessionListener<Conn> for Silent {}

#[track_caller]
fn refused<T>(result: Result<T, Error>) {
    let Err(error) = result else { panic!("{NAME}: not refused") };
    assert!(matches!(error, Error::ForkDetected), "{NAME}: {error}");
    assert_eq!(error.class(), ErrorClass::Usage);
}

/// As many connections as asked for, open and idle.
fn warm(registry: &Registry, n: usize) {
    let sessions: Vec<_> = (0..n).map(|_| Session::with_options(registry.engine(), read_only()).unwrap()).collect();
    for session in &sessions {
        texts(session);
    }
    for session in &sessions {
        session.commit().unwrap();
    }
    assert_eq!(registry.engine().idle(), n);
}

/// Everything that can be asked of a session, a registry or an engine of the parent's.
fn everything_is_refused(registry: &Registry, session: &Session) {
    assert!(Session::try_current().is_none());
    refused(Session::current());
    refused(Session::current_with(autocommit()));
    refused(registry.current());
    refused(session.load::<String>(notes::table.select(notes::text)));
    refused(insert(session, "from the child"));
    refused(session.batch_execute("SELECT 1"));
    refused(session.with_connection(|_| Ok(())));
    refused(session.begin());
    refused(session.begin_nested());
    refused(session.nested(|_| Ok::<_, Error>(())));
    refused(session.set_rollback_only("a child asks"));
    refused(session.on_commit(|| ()));
    refused(session.commit());
    refused(session.rollback());
    refused(session.invalidate());
    refused(registry.transaction(|_| Ok::<_, Error>(())));
    refused(registry.read(|_| Ok::<_, Error>(())));
    refused(registry.job(|_| Ok::<_, Error>(())));
    refused(registry.request(TransactionOptions::new(), |_| Ok::<_, Error>(())));
    refused(registry.scope(|_| ()));
    refused(registry.configure(|options| options));
    refused(registry.replace(session));
    refused(registry.clone().install());
    refused(registry.shutdown(Duration::from_secs(60)));
    registry.listen(Silent);
    let other = Session::new(registry.engine());
    refused(insert(&other, "from the child"));
    let alone = Session::with_options(registry.engine(), autocommit()).unwrap();
    refused(insert(&alone, "from the child"));
    let engine = registry.engine();
    engine.close_all();
    assert_eq!((engine.idle(), engine.waiting()), (0, 0));
    assert!(engine.connections_in_use().is_empty() && engine.write_gate().is_empty());
    assert!(registry.inspect().sessions.is_empty());
    let on_a_thread = registry.spawn(|| Session::current().map(drop));
    refused(on_a_thread.join().unwrap());
}

fn open_transaction(leave: Leave) -> Option<ExitCode> {
    let database = Mine::new(Database::new());
    let registry = database.registry_with(|builder| builder.max_size(3));
    warm(&registry, 3);
    let before = connected(&database);
    let hook_ran = Rc::new(Cell::new(false));
    let code = registry.enter(|| {
        let session = Session::current().unwrap();
        insert(&session, "before the fork").unwrap();
        let (ran, savepoint) = (Rc::clone(&hook_ran), session.begin_nested().unwrap());
        session.on_commit(move || ran.set(true)).unwrap();
        insert(&session, "in the savepoint").unwrap();
        let mut savepoint = Some(savepoint);
        let code = in_a_child(leave, || {
            everything_is_refused(&registry, &session);
            assert_eq!(session.state(), SessionState::Active);
            match leave {
                Leave::Exit => refused(savepoint.take().unwrap().rollback()),
                Leave::Return => drop(savepoint.take()),
            }
            if leave == Leave::Return {
                Session::remove();
                assert!(session.is_closed());
            }
            assert!(!hook_ran.get());
        });
        if code.is_some() {
            return code;
        }
        assert_eq!(connected(&database), before);
        insert(&session, "after the child").unwrap();
        savepoint.take().unwrap().commit().unwrap();
        session.commit().unwrap();
        assert!(hook_ran.get());
        Session::remove();
        None
    });
    if code.is_some() {
        return code;
    }
    assert_eq!(stored(&registry), ["after the child", "before the fork", "in the savepoint"]);
    warm(&registry, 3);
    assert_eq!(connected(&database), before);
    had_no_trouble(&database);
    None
}

fn strategies(leave: Leave) -> Option<ExitCode> {
    for strategy in [Strategy::PerThread, Strategy::Single, Strategy::Shared] {
        let database = Mine::new(Database::new());
        let registry = database.registry_with(|builder| builder.strategy(strategy));
        registry.transaction(|session| insert(session, "before the fork")).unwrap();
        let before = connected(&database);
        let code = in_a_child(leave, || refused(registry.transaction(|session| insert(session, "from the child"))));
        if code.is_some() {
            return code;
        }
        registry.transaction(|session| insert(session, "after the child")).unwrap();
        assert_eq!(stored(&registry), ["after the child", "before the fork"], "{strategy:?}");
        assert_eq!(connected(&database), before, "{strategy:?}");
        had_no_trouble(&database);
    }
    None
}

fn joined() -> Option<ExitCode> {
    for leave in [Leave::Return, Leave::Exit] {
        let database = Mine::new(Database::new());
        let registry = database.registry();
        let session = Session::join(Conn::establish(&database.url).unwrap(), JoinMode::ControlFully);
        insert(&session, "before the fork").unwrap();
        let before = connected(&database);
        let mut session = Some(session);
        let code = in_a_child(leave, || {
            let session = session.take().unwrap();
            refused(insert(&session, "from the child"));
            refused(session.commit());
            if leave == Leave::Exit {
                assert!(session.into_connection().is_none());
            }
        });
        if code.is_some() {
            return code;
        }
        let session = session.take().unwrap();
        insert(&session, "after the child").unwrap();
        session.commit().unwrap();
        assert_eq!(connected(&database), before);
        assert!(session.into_connection().is_some());
        assert_eq!(stored(&registry), ["after the child", "before the fork"]);
    }
    None
}

fn inside_closures() -> Option<ExitCode> {
    for leave in [Leave::Return, Leave::Exit] {
        let database = Mine::new(Database::new());
        let registry = database.registry();
        let mut code = None;
        let result = registry.transaction(|session| {
            insert(session, "before the fork")?;
            let result = session.with_connection(|_| {
                code = in_a_child(leave, || ());
                Ok(())
            });
            if code.is_some() {
                refused(result);
                return Ok(());
            }
            result?;
            insert(session, "after the child").map(drop)
        });
        if code.is_some() {
            refused(result);
            return code;
        }
        result.unwrap();
        assert_eq!(stored(&registry), ["after the child", "before the fork"]);
        had_no_trouble(&database);
        // One that closes with its statement.
        let unkept = database.builder().strategy(Strategy::None).build().unwrap();
        let alone = Session::with_options(&unkept, autocommit()).unwrap();
        let result = alone.with_connection(|conn| {
            code = in_a_child(leave, || ());
            if code.is_none() { conn.batch_execute("SELECT 1") } else { Ok(()) }
        });
        if code.is_some() {
            refused(result);
            return code;
        }
        result.unwrap();
    }
    None
}

fn busy_threads() -> Option<ExitCode> {
    const FORKS: usize = 12;
    let database = Mine::new(Database::new());
    let registry = database.registry();
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (registry, over) = (registry.clone(), Arc::clone(&over));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    registry.read(|session| Ok::<_, Error>(texts(session))).unwrap();
                    let _ = registry.inspect();
                }
            })
        })
        .collect();
    for n in 0..FORKS {
        let leave = if n % 2 == 0 { Leave::Return } else { Leave::Exit };
        let code = registry.enter(|| {
            let session = Session::current().unwrap();
            insert(&session, &format!("{n:02}")).unwrap();
            let code = in_a_child(leave, || everything_is_refused(&registry, &session));
            if code.is_none() {
                session.commit().unwrap();
            }
            code
        });
        if code.is_some() {
            return code;
        }
    }
    over.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(stored(&registry).len(), FORKS);
    None
}

fn an_engine_of_its_own() -> Option<ExitCode> {
    const CHILDS: [&str; 3] = ["from a connection of the child's", "from the child", "from the child, too"];
    for leave in [Leave::Return, Leave::Exit] {
        let database = Mine::new(Database::new());
        let registry = database.registry();
        let session = Session::new(registry.engine());
        insert(&session, "before the fork").unwrap();
        // The thread keeps the memory of the last session that ended on it.
        registry.read(|_| Ok::<_, Error>(())).unwrap();
        // SQLite keeps one record of a file's locks for the whole process; the child's still names its parent's.
        let is_file = cfg!(feature = "sqlite") && NAME == "sqlite file";
        let elsewhere = Mine::new(Database::new());
        let code = in_a_child(leave, || {
            // The locks of the shared pool know threads that the child does not have.
            refused(elsewhere.builder().build());
            let own = if is_file {
                refused(database.builder().strategy(Strategy::PerThread).build());
                elsewhere.registry_with(|builder| builder.strategy(Strategy::PerThread))
            } else {
                Registry::new(Engine::builder(database.url.clone()).strategy(Strategy::PerThread).build().unwrap())
            };
            let url = if is_file { &elsewhere.url } else { &database.url };
            let joined = Session::join(Conn::establish(url).unwrap(), JoinMode::ControlFully);
            insert(&joined, "from a connection of the child's").unwrap();
            joined.commit().unwrap();
            drop(joined);
            own.transaction(|session| insert(session, "from the child")).unwrap();
            own.enter(|| {
                let session = Session::current().unwrap();
                insert(&session, "from the child, too").unwrap();
                session.commit().unwrap();
            });
            assert_eq!(stored(&own), CHILDS);
            own.shutdown(Duration::from_secs(10)).unwrap();
        });
        if code.is_some() {
            return code;
        }
        session.commit().unwrap();
        if is_file {
            assert_eq!(stored(&registry), ["before the fork"]);
            assert_eq!(stored(&elsewhere.registry()), CHILDS);
        } else {
            assert_eq!(stored(&registry), [["before the fork"].as_slice(), &CHILDS].concat());
        }
    }
    None
}

fn across_awaits(leave: Leave) -> Option<ExitCode> {
    let database = Mine::new(Database::new());
    let long = Duration::from_secs(60);
    let executor = Executor::builder(database.registry()).async_writers(true).async_sessions(1);
    let executor = executor.async_lease(long).async_writer_lease(long).build().unwrap();
    let session = executor.session().wait().unwrap();
    session.run(|session| insert(session, "before the fork")).wait().unwrap();
    // What a child has of its parent's it drops, unless it exits.
    let code = in_a_child(leave, || {
        refused(executor.session().wait());
        refused(executor.session_with(read_only()).wait());
        let called = session.run(|session| insert(session, "from the child"));
        assert!(called.is_finished(), "it is refused at once");
        refused(called.wait());
        assert!(executor.inspect().lanes.is_empty());
    });
    if code.is_some() {
        return code;
    }
    session.run(|session| insert(session, "after the fork")).wait().unwrap();
    session.commit().wait().unwrap();
    assert_eq!(stored(executor.registry()), ["after the fork", "before the fork"], "{NAME}");
    executor.shutdown(long).unwrap();
    None
}
