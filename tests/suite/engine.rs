//! The engine: what it refuses, which connection serves whom, what is pinged, replaced and closed.

use std::net::TcpListener;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::prelude::*;
use diesel_session::{Engine, EngineBuilder, Error, ErrorClass, Result, Strategy, read_only};

use super::db::{self, Conn, Database, Session, insert, stored};

const AT_ONCE: Duration = Duration::from_secs(10);

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

/// How many connections are open, and how many pings and statements they have sent.
struct Meter {
    open: &'static AtomicI64,
    pings: &'static AtomicI64,
}

impl Instrumentation for Meter {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let InstrumentationEvent::StartQuery { query, .. } = event else { return };
        if ["SELECT 1", "DO 0"].contains(&query.to_string().trim()) {
            self.pings.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An instrumentation that only the calling test uses, and its two counters.
macro_rules! metered {
    () => {{
        static OPEN: AtomicI64 = AtomicI64::new(0);
        static PINGS: AtomicI64 = AtomicI64::new(0);
        fn make() -> Box<dyn Instrumentation> {
            OPEN.fetch_add(1, Ordering::SeqCst);
            Box::new(Meter { open: &OPEN, pings: &PINGS })
        }
        (make as fn() -> Box<dyn Instrumentation>, &OPEN, &PINGS)
    }};
}

/// The connection that keeps the data of a database in memory.
const ANCHORS: i64 = if db::CONCURRENT { 0 } else { 1 };

diesel::table! {
    whoami (n) {
        n -> Integer,
    }
}

/// Marks each connection with a number that its sessions can read.
fn numbered(builder: EngineBuilder<Conn>) -> EngineBuilder<Conn> {
    let next = Arc::new(AtomicI64::new(1));
    builder.setup(move |conn| {
        let n = next.fetch_add(1, Ordering::SeqCst);
        diesel::sql_query("CREATE TEMPORARY TABLE whoami (n INTEGER NOT NULL)").execute(conn)?;
        diesel::sql_query(format!("INSERT INTO whoami VALUES ({n})")).execute(conn).map(drop)
    })
}

fn number(engine: &Engine<Conn>) -> i32 {
    let session = Session::with_options(engine, read_only()).unwrap();
    let number = session.get_result(whoami::table.select(whoami::n)).unwrap();
    session.commit().unwrap();
    number
}

fn refused(builder: EngineBuilder<Conn>) -> Error {
    match builder.build() {
        Ok(_) => panic!("it was built"),
        Err(error) => error,
    }
}

#[test]
fn options_that_cannot_work_are_refused_by_build() {
    let database = Database::new();
    let builders = [
        database.builder().max_size(0),
        database.builder().max_size(2).reserve(2),
        database.builder().max_size(2).min_idle(3),
        database.builder().connection_timeout(Duration::ZERO),
        database.builder().idle_timeout(Some(Duration::ZERO)),
        database.builder().max_lifetime(Some(Duration::ZERO)),
    ];
    for builder in builders {
        let error = refused(builder);
        assert!(matches!(error, Error::Configuration(_)), "{error}");
    }
}

fn scheme(database: &Database) -> &str {
    database.url.split_once("://").unwrap().0
}

/// A URL where nobody answers: a closed port, or a folder that does not exist.
fn nobody_there(database: &Database) -> String {
    if db::REMOTE {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        format!("{}://ann:s3cret@127.0.0.1:{port}/app", scheme(database))
    } else {
        "/no/such/folder/s3cret_is_not_here.db".to_owned()
    }
}

#[test]
fn a_database_that_is_not_there_is_an_error_of_build() {
    let database = Database::new();
    let started = Instant::now();
    let error = refused(Engine::<Conn>::builder(nobody_there(&database)));
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
    assert!(started.elapsed() < AT_ONCE);
    let nonsense = if db::REMOTE { format!("{}://[", scheme(&database)) } else { "/".to_owned() };
    let error = refused(Engine::<Conn>::builder(nonsense));
    assert!(matches!(error, Error::Connect { .. } | Error::Configuration(_)), "{error}");
}

#[test]
fn a_server_that_never_answers_costs_the_time_out_and_no_more() {
    let database = Database::new();
    let started = Instant::now();
    if !db::REMOTE {
        // There is no server to wait for: a set-up that hangs is the same to the engine.
        let (keep, hung) = mpsc::channel::<()>();
        let hung = std::sync::Mutex::new(hung);
        let builder = database.builder().connection_timeout(Duration::from_millis(200)).setup(move |_| {
            let _ = hung.lock().unwrap().recv();
            Ok(())
        });
        assert!(matches!(refused(builder), Error::Connect { .. }));
        drop(keep);
        return assert!(started.elapsed() < AT_ONCE);
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("{}://ann@{}/app", scheme(&database), silent.local_addr().unwrap());
    let error = refused(Engine::<Conn>::builder(url).connection_timeout(Duration::from_millis(200)));
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(started.elapsed() < AT_ONCE);
}

#[test]
fn the_shared_pool_opens_what_is_needed_and_no_more() {
    let database = Database::new();
    let (make, open, _) = metered!();
    let registry = database.registry_with(|builder| numbered(builder).max_size(4).instrumentation(make));
    let engine = registry.engine().clone();
    let mut numbers: Vec<i32> = (0..8)
        .map(|_| {
            let engine = engine.clone();
            std::thread::spawn(move || number(&engine)).join().unwrap()
        })
        .collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "one after the other, they share one connection");
    assert_eq!(open.load(Ordering::SeqCst), 1 + ANCHORS);
    assert_eq!(engine.idle(), 1);
    assert_eq!(engine.connections_in_use().len(), 0);
}

#[test]
fn per_thread_keeps_one_connection_for_each_thread_until_it_ends() {
    let database = Database::new();
    let (make, open, _) = metered!();
    let registry = database
        .registry_with(|builder| numbered(builder).max_size(8).strategy(Strategy::PerThread).instrumentation(make));
    let engine = registry.engine().clone();
    let here = number(&engine);
    assert_eq!(number(&engine), here);
    let from_a_thread = std::thread::spawn({
        let engine = engine.clone();
        move || {
            let first = number(&engine);
            assert_eq!(number(&engine), first);
            assert_eq!(engine.idle(), 2);
            first
        }
    });
    assert_ne!(from_a_thread.join().unwrap(), here);
    assert_eq!(engine.idle(), 1, "a thread's connection closes with it");
    assert_eq!(open.load(Ordering::SeqCst), 1 + ANCHORS);
    // Also with one that is in use when the thread ends.
    for make_standalone in [false, true] {
        std::thread::spawn({
            let registry = registry.clone();
            move || {
                if make_standalone {
                    number(registry.engine());
                }
                insert(&registry.current().unwrap(), "left open").unwrap();
            }
        })
        .join()
        .unwrap();
        assert_eq!(engine.idle(), 1, "the connection outlives its thread");
        assert_eq!(open.load(Ordering::SeqCst), 1 + ANCHORS);
    }
    assert!(stored(&registry).is_empty());
}

#[test]
fn per_thread_never_has_more_connections_than_max_size() {
    let database = Database::new();
    let (make, open, _) = metered!();
    let registry =
        database.registry_with(|builder| builder.max_size(3).strategy(Strategy::PerThread).instrumentation(make));
    let at_once = if db::CONCURRENT { 3 } else { 1 };
    let busy = Arc::new(Barrier::new(at_once));
    let mut kept_alive = Vec::new();
    static MOST: AtomicI64 = AtomicI64::new(0);
    let most = &MOST;
    // Three generations of threads stay alive with an idle connection each, as far as there is room.
    for _ in 0..3 {
        let ready = Arc::new(Barrier::new(at_once + 1));
        for _ in 0..at_once {
            let (registry, busy, ready) = (registry.clone(), Arc::clone(&busy), Arc::clone(&ready));
            let (stay, stayed) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                registry
                    .read(|session| {
                        session.batch_execute("SELECT 1")?;
                        busy.wait();
                        most.fetch_max(open.load(Ordering::SeqCst), Ordering::SeqCst);
                        busy.wait();
                        Ok::<_, Error>(())
                    })
                    .unwrap();
                ready.wait();
                let _ = stayed.recv();
            });
            kept_alive.push((stay, thread));
        }
        ready.wait();
        assert!(open.load(Ordering::SeqCst) <= 3 + ANCHORS);
        assert!(registry.engine().idle() <= 3);
    }
    for (stay, thread) in kept_alive {
        drop(stay);
        thread.join().unwrap();
    }
    assert!(most.load(Ordering::SeqCst) <= 3 + ANCHORS, "{most:?}");
    // This thread's own, if it was not closed for another.
    assert!(open.load(Ordering::SeqCst) <= 1 + ANCHORS);
}

#[test]
fn single_serves_everybody_with_one_connection_one_after_the_other() {
    let database = Database::new();
    let (make, open, _) = metered!();
    let registry = database.registry_with(|builder| numbered(builder).strategy(Strategy::Single).instrumentation(make));
    let engine = registry.engine().clone();
    assert_eq!(engine.max_size(), 1);
    let here = number(&engine);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let engine = engine.clone();
            std::thread::spawn(move || number(&engine))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), here);
    }
    assert_eq!(open.load(Ordering::SeqCst), 1 + ANCHORS);
    let first = Session::with_options(&engine, read_only()).unwrap();
    first.batch_execute("SELECT 1").unwrap();
    let second = Session::with_options(&engine, read_only()).unwrap();
    let refused = second.batch_execute("SELECT 1").unwrap_err();
    assert!(matches!(refused, Error::WouldStarve { .. } | Error::WouldDeadlock { .. }), "{refused}");
    first.commit().unwrap();
}

#[test]
fn none_opens_a_connection_for_each_transaction_and_closes_it() {
    let database = Database::new();
    let (make, open, _) = metered!();
    let registry = database.registry_with(|builder| numbered(builder).strategy(Strategy::None).instrumentation(make));
    let engine = registry.engine();
    let numbers = [number(engine), number(engine), number(engine)];
    assert!(numbers[0] < numbers[1] && numbers[1] < numbers[2], "{numbers:?}");
    assert_eq!(engine.idle(), 0);
    assert_eq!(open.load(Ordering::SeqCst), ANCHORS);
    registry.transaction(|session| insert(session, "a")).unwrap();
    assert_eq!(stored(&registry), ["a"], "the data outlives the connection");
}

#[test]
fn close_all_and_shutdown_reach_the_connections_of_every_thread() {
    let database = Database::new();
    for (strategy, shut_down) in
        [(Strategy::Shared, true), (Strategy::PerThread, true), (Strategy::PerThread, false), (Strategy::Single, true)]
    {
        let registry = database.registry_with(|builder| builder.max_size(8).strategy(strategy));
        let used = Arc::new(Barrier::new(9));
        let closed = Arc::new(Barrier::new(9));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (used, closed) = (Arc::clone(&used), Arc::clone(&closed));
                registry.spawn(move || {
                    let session = Session::current().unwrap();
                    session.batch_execute("SELECT 1").unwrap();
                    session.commit().unwrap();
                    used.wait();
                    closed.wait();
                    assert!(matches!(session.batch_execute("SELECT 1"), Err(Error::ShutDown)));
                })
            })
            .collect();
        used.wait();
        assert!(registry.engine().idle() >= 1);
        if shut_down {
            registry.shutdown(Duration::from_secs(10)).unwrap();
        } else {
            registry.engine().close_all();
        }
        assert_eq!(registry.engine().idle(), 0);
        // A server takes a moment to see that a client has gone.
        wait_until("connections are left", || database.connections() == 0);
        closed.wait();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(database.connections(), 0);
    }
}

#[test]
fn close_all_closes_a_connection_in_use_when_it_comes_back_and_opens_none() {
    let database = Database::new();
    for strategy in [Strategy::Shared, Strategy::PerThread, Strategy::Single, Strategy::None] {
        for min_idle in [0, 2] {
            let (make, open, _) = metered!();
            let registry = database.registry_with(|builder| {
                builder.max_size(4).min_idle(min_idle).strategy(strategy).instrumentation(make)
            });
            let session = registry.current().unwrap();
            insert(&session, &format!("{strategy:?} {min_idle}")).unwrap();
            // In memory the one in use is the only one.
            if strategy == Strategy::Shared && db::CONCURRENT {
                wait_until("the idle ones are there", || registry.engine().idle() >= min_idle);
            }
            registry.engine().close_all();
            // A connection that r2d2 was just opening for `min_idle` may have got in; it goes with the last in use.
            wait_until("only the one in use is left", || open.load(Ordering::SeqCst) == 1 + ANCHORS || min_idle > 0);
            session.commit().unwrap();
            wait_until("it closes when it comes back", || open.load(Ordering::SeqCst) == ANCHORS);
            assert!(matches!(session.batch_execute("SELECT 1"), Err(Error::ShutDown)));
            registry.remove();
            drop((session, registry));
            wait_until("everything is closed", || open.load(Ordering::SeqCst) == 0);
        }
    }
}

#[test]
fn close_all_on_an_engine_that_nobody_used_closes_its_first_connection() {
    let database = Database::new();
    for strategy in [Strategy::Shared, Strategy::PerThread, Strategy::Single, Strategy::None] {
        let (make, open, _) = metered!();
        let engine = database.builder().strategy(strategy).instrumentation(make).build().unwrap();
        engine.close_all();
        wait_until("the first connection is still open", || open.load(Ordering::SeqCst) == ANCHORS);
    }
}

#[test]
fn a_connection_is_pinged_only_after_it_lay_idle_or_met_an_error() {
    let database = Database::new();
    let (make, _, pings) = metered!();
    // SQLite has nobody to ping.
    let each = i64::from(db::REMOTE);
    let registry = database
        .registry_with(|builder| builder.max_size(1).ping_after(Duration::from_secs(3600)).instrumentation(make));
    for n in 0..10 {
        registry.transaction(|session| insert(session, &n.to_string())).unwrap();
    }
    assert_eq!(pings.load(Ordering::SeqCst), 0);
    assert!(registry.transaction(|session| insert(session, "1")).is_err());
    assert_eq!(pings.load(Ordering::SeqCst), 0);
    for _ in 0..3 {
        registry.transaction(|session| insert(session, "1").or(Ok::<_, Error>(0))).unwrap_err();
    }
    assert_eq!(pings.load(Ordering::SeqCst), 3 * each, "after each error");
    registry.transaction(|session| insert(session, "after")).unwrap();
    assert_eq!(pings.load(Ordering::SeqCst), 4 * each);
    registry.transaction(|session| insert(session, "trusted again")).unwrap();
    assert_eq!(pings.load(Ordering::SeqCst), 4 * each);

    let (make, _, pings) = metered!();
    let registry =
        database.registry_with(|builder| builder.max_size(1).ping_after(Duration::ZERO).instrumentation(make));
    let before = pings.load(Ordering::SeqCst);
    for _ in 0..10 {
        registry.read(|session| Ok::<_, Error>(super::db::texts(session))).unwrap();
    }
    assert_eq!(pings.load(Ordering::SeqCst) - before, 10 * each);
}

#[test]
fn set_up_runs_on_each_connection_and_its_error_or_panic_is_an_error() {
    let database = Database::new();
    let error = refused(database.builder().setup(|_| Err(diesel::result::Error::NotFound)));
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    let started = Instant::now();
    let error = refused(database.builder().setup(|_| panic!("a set-up's panic")));
    assert!(matches!(&error, Error::Connect { message, .. } if message.contains("a set-up's panic")), "{error}");
    assert!(started.elapsed() < AT_ONCE);
    // One that fails later costs its session an error, and the pool nothing.
    for panics in [false, true] {
        let calls = Arc::new(AtomicI64::new(0));
        let builder = database.builder().max_size(1).strategy(Strategy::None).setup({
            let calls = Arc::clone(&calls);
            move |_| match calls.fetch_add(1, Ordering::SeqCst) {
                // In memory the first one is the connection that keeps the data.
                n if n == 1 + ANCHORS && panics => panic!("a later set-up's panic"),
                n if n == 1 + ANCHORS => Err(diesel::result::Error::NotFound),
                _ => Ok(()),
            }
        });
        let engine = builder.connection_timeout(Duration::from_secs(5)).build().unwrap();
        let use_it = || {
            let session = Session::new(&engine);
            session.batch_execute("SELECT 1").and_then(|()| session.commit().map(drop))
        };
        use_it().unwrap();
        let error = use_it().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable, "{error}");
        assert!(engine.connections_in_use().is_empty() && engine.write_gate().is_empty());
        use_it().unwrap();
    }
}

#[test]
fn a_panic_in_a_set_up_costs_the_shared_pool_no_place() {
    let database = Database::new();
    let calls = Arc::new(AtomicI64::new(0));
    let builder = database.builder().max_size(2).setup({
        let calls = Arc::clone(&calls);
        move |_| {
            let n = calls.fetch_add(1, Ordering::SeqCst);
            if n % 2 == 1 {
                panic!("every second set-up");
            }
            Ok(())
        }
    });
    let engine = builder.connection_timeout(Duration::from_secs(20)).max_lifetime(None).build().unwrap();
    for _ in 0..6 {
        let session = Session::new(&engine);
        session.batch_execute("SELECT 1").unwrap();
        session.invalidate().unwrap();
    }
    assert!(engine.connections_in_use().is_empty());
}

#[test]
fn an_instrumentation_that_panics_while_a_connection_is_opened_costs_the_pool_no_place() {
    static BOMBS: AtomicI64 = AtomicI64::new(0);
    fn blow_up() {
        if BOMBS.fetch_sub(1, Ordering::SeqCst) > 0 {
            panic!("an instrumentation's panic");
        }
    }
    struct Bomb;
    impl Instrumentation for Bomb {
        fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
            if let InstrumentationEvent::StartQuery { .. } = event {
                blow_up();
            }
        }
    }
    fn make() -> Box<dyn Instrumentation> {
        blow_up();
        Box::new(Bomb)
    }
    let database = Database::new();
    let builder = database.builder().max_size(1).connection_timeout(Duration::from_secs(20)).instrumentation(make);
    let engine = builder.build().unwrap();
    let session = Session::new(&engine);
    for bombs in [1, 2] {
        session.load::<i32>(diesel::select(1.into_sql::<diesel::sql_types::Integer>())).unwrap();
        // The pool replaces what is closed, on a thread of its own.
        BOMBS.store(bombs, Ordering::SeqCst);
        session.invalidate().unwrap();
    }
    session.load::<i32>(diesel::select(1.into_sql::<diesel::sql_types::Integer>())).unwrap();
    assert!(BOMBS.load(Ordering::SeqCst) <= 0);
    session.commit().unwrap();
    BOMBS.store(1, Ordering::SeqCst);
    let error = refused(database.builder().instrumentation(make));
    assert!(
        matches!(&error, Error::Connect { message, .. } if message.contains("an instrumentation's panic")),
        "{error}"
    );
}

#[test]
fn reset_runs_only_before_the_next_user_of_a_connection_that_somebody_had_bare() {
    let database = Database::new();
    let calls = Arc::new(AtomicI64::new(0));
    let registry = database.registry_with(|builder| {
        let calls = Arc::clone(&calls);
        builder.max_size(1).reset(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    });
    // Creating the table was raw use.
    insert(&registry.current().unwrap(), "a").unwrap();
    registry.remove();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    for n in 0..3 {
        registry.transaction(|session| insert(session, &n.to_string())).unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    registry.transaction(|session| session.with_connection(|_| Ok(()))).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1, "not before the next user comes");
    registry.transaction(|session| insert(session, "b")).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn a_reset_that_fails_or_panics_closes_the_connection_and_the_session_gets_another() {
    let database = Database::new();
    let (make, open, _) = metered!();
    for panics in [false, true] {
        let registry = database.registry_with(|builder| {
            builder.max_size(1).instrumentation(make).reset(move |_| {
                if panics {
                    panic!("a reset's panic");
                }
                Err(diesel::result::Error::NotFound)
            })
        });
        for _ in 0..3 {
            registry.transaction(|session| session.with_connection(|_| Ok(()))).unwrap();
        }
        registry.transaction(|session| session.batch_execute("SELECT 1")).unwrap();
        assert!(registry.engine().connections_in_use().is_empty() && registry.engine().write_gate().is_empty());
        registry.shutdown(Duration::from_secs(5)).unwrap();
        wait_until("the refused ones are closed", || open.load(Ordering::SeqCst) <= ANCHORS);
        drop(registry);
        wait_until("all are closed", || open.load(Ordering::SeqCst) == 0);
    }
}

#[test]
fn a_connection_older_than_its_lifetime_is_replaced() {
    let database = Database::new();
    for strategy in [Strategy::Shared, Strategy::PerThread, Strategy::Single] {
        let builder = numbered(database.builder()).max_size(1).strategy(strategy);
        let engine = builder.max_lifetime(Some(Duration::from_nanos(1))).build().unwrap();
        let numbers = [number(&engine), number(&engine), number(&engine)];
        assert!(numbers[0] < numbers[1] && numbers[1] < numbers[2], "{strategy:?}: {numbers:?}");
        let engine = numbered(database.builder()).max_size(1).strategy(strategy).max_lifetime(None).build().unwrap();
        assert_eq!(number(&engine), number(&engine));
    }
}

#[test]
fn a_panic_while_an_autocommit_session_lends_its_connection_frees_it() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let session = registry.current_with(diesel_session::autocommit()).unwrap();
    for _ in 0..3 {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            session.with_connection(|_| -> QueryResult<()> { panic!("in autocommit mode") })
        }));
        assert!(panicked.is_err());
        assert!(registry.engine().connections_in_use().is_empty(), "an idle session holds a connection");
        assert!(registry.engine().write_gate().is_empty());
        session.batch_execute("SELECT 1").unwrap();
        assert_eq!(session.state(), diesel_session::SessionState::Idle);
    }
    insert(&session, "a").unwrap();
    session.commit().unwrap();
    registry.remove();
    assert_eq!(stored(&registry), ["a"]);
}

#[test]
fn the_engine_is_send_and_sync_and_so_is_the_registry() {
    fn both<T: Send + Sync + Clone>(_: &T) {}
    let database = Database::new();
    let registry = database.registry();
    both(&registry);
    both(registry.engine());
    let _: Result<()> = registry.read(|_| Ok(()));
}
