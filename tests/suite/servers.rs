//! What only a server can do to an engine: fall silent, end connections, take a password.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_session::{Engine, EngineBuilder, Error, ErrorClass, Strategy};

use super::db::{Conn, Database, Session, insert};

const AT_ONCE: Duration = Duration::from_secs(10);

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

fn refused(builder: EngineBuilder<Conn>) -> Error {
    match builder.build() {
        Ok(_) => panic!("it was built"),
        Err(error) => error,
    }
}

#[test]
fn a_password_is_in_no_text_of_the_engine_or_of_its_errors() {
    let database = Database::new();
    let scheme = database.url.split_once("://").unwrap().0;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let builder = Engine::<Conn>::builder(format!("{scheme}://ann:s3cret@127.0.0.1:{port}/app"));
    let mut texts = vec![format!("{builder:?}")];
    let error = refused(builder);
    texts.extend([format!("{error}"), format!("{error:?}")]);
    let error = refused(Engine::<Conn>::builder(format!("{scheme}://ann@127.0.0.1:{port}/app?password=s3cret")));
    texts.extend([format!("{error}"), format!("{error:?}")]);
    let (base, rest) = database.url.split_once('@').unwrap();
    let with_password = Engine::<Conn>::builder(format!("{base}:s3cret@{rest}"));
    texts.push(format!("{with_password:?}"));
    // A server that trusts everybody takes it, one that does not says why not.
    match with_password.build() {
        Ok(engine) => {
            let registry = diesel_session::ScopedSession::new(engine.clone());
            texts.extend([format!("{engine:?}"), format!("{registry:?}"), format!("{}", registry.inspect())]);
        }
        Err(error) => texts.extend([format!("{error}"), format!("{error:?}")]),
    }
    for text in texts {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_server_that_stops_answering_later_costs_a_session_the_time_out_and_no_more() {
    let database = Database::new();
    for strategy in [Strategy::Shared, Strategy::PerThread, Strategy::None] {
        // Lets one connection through; the next ones are never answered.
        let door = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = door.local_addr().unwrap().to_string();
        let (before, rest) = database.url.split_once('@').unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let server = server.to_owned();
        let first = door.try_clone().unwrap();
        let relay = std::thread::spawn(move || {
            let (client, _) = first.accept().unwrap();
            drop(first);
            let upstream = TcpStream::connect(server).unwrap();
            let (back, forth) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || pump(upstream, back));
            pump(client, forth);
        });
        let engine = Engine::<Conn>::builder(format!("{before}@{here}/{name}"))
            .max_size(2)
            .strategy(strategy)
            .connection_timeout(Duration::from_millis(500))
            .build()
            .unwrap();
        let holder = Session::new(&engine);
        holder.batch_execute("SELECT 1").unwrap();
        let started = Instant::now();
        let second = Session::new(&engine);
        let error = second.batch_execute("SELECT 1").unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unavailable, "{error}");
        assert!(started.elapsed() < AT_ONCE);
        assert_eq!(engine.connections_in_use().len(), 1);
        holder.commit().unwrap();
        // Those that still wait for an answer are refused when the door closes.
        drop((door, holder, second, engine));
        relay.join().unwrap();
    }
}

/// Ends the server's side of every connection to the database.
fn kill_all(database: &Database) {
    let mut admin = Conn::establish(&database.url).unwrap();
    let own = "(SELECT pg_backend_pid())";
    if database.url.starts_with("postgres") {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> {own}"
        );
        diesel::sql_query(sql).execute(&mut admin).unwrap();
    } else {
        let others = "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()";
        let ids: Vec<i64> = diesel::dsl::sql::<diesel::sql_types::BigInt>(others).load(&mut admin).unwrap();
        for id in ids {
            diesel::sql_query(format!("KILL {id}")).execute(&mut admin).unwrap();
        }
    }
    wait_until("they are gone", || database.connections() == 1);
}

#[test]
fn idle_connections_that_the_server_closed_are_replaced_unseen() {
    let database = Database::new();
    for ping_after in [Duration::ZERO, Duration::from_secs(3600)] {
        for strategy in [Strategy::Shared, Strategy::PerThread, Strategy::Single] {
            let registry =
                database.registry_with(|builder| builder.max_size(3).strategy(strategy).ping_after(ping_after));
            let at_once = if strategy == Strategy::Shared { 3 } else { 1 };
            for round in 0..2 {
                let sessions: Vec<_> = (0..at_once).map(|_| Session::new(registry.engine())).collect();
                for session in &sessions {
                    session.batch_execute("SELECT 1").unwrap();
                }
                drop(sessions.into_iter().map(|session| session.commit().unwrap()).collect::<Vec<_>>());
                assert_eq!(registry.engine().idle(), at_once);
                kill_all(&database);
                let text = format!("{ping_after:?} {strategy:?} {round}");
                registry.transaction(|session| insert(session, &text)).unwrap();
            }
            assert!(registry.engine().connections_in_use().is_empty());
            registry.transaction(|session| session.batch_execute("DELETE FROM notes")).unwrap();
        }
    }
}
