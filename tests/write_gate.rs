//! The write gate of a SQLite file: one for every engine and every path to it, and a part of rings.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::mpsc;
use std::time::{Duration, Instant};

use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Error, TransactionOptions, read_only};

type Session = diesel_session::Session<SqliteConnection>;

const AT_ONCE: Duration = Duration::from_secs(5);

fn engine(url: impl Into<String>) -> Engine<SqliteConnection> {
    Engine::builder(url).busy_timeout(Duration::from_millis(1)).build().unwrap()
}

fn writes(engine: &Engine<SqliteConnection>) -> diesel_session::Result<()> {
    let session = Session::new(engine);
    session.batch_execute("INSERT INTO notes VALUES ('a')")?;
    session.commit().map(drop)
}

fn create(engine: &Engine<SqliteConnection>) {
    let session = Session::new(engine);
    session.batch_execute("CREATE TABLE notes (text TEXT NOT NULL)").unwrap();
    session.commit().unwrap();
}

#[test]
fn every_path_to_a_file_leads_to_one_gate() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.db");
    let first = engine(file.to_str().unwrap());
    create(&first);
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let linked_folder = folder.path().join("elsewhere");
    std::os::unix::fs::symlink(folder.path(), &linked_folder).unwrap();
    let paths = [
        file.to_str().unwrap().to_owned(),
        link.to_str().unwrap().to_owned(),
        folder.path().join("./test.db").to_str().unwrap().to_owned(),
        linked_folder.join("test.db").to_str().unwrap().to_owned(),
        format!("file:{}?mode=rw", file.display()),
    ];
    for path in paths {
        let second = engine(path.clone());
        let holder = Session::new(&first);
        holder.batch_execute("INSERT INTO notes VALUES ('held')").unwrap();
        assert_eq!(second.write_gate().len(), 1, "{path}");
        let started = Instant::now();
        let answer = writes(&second);
        assert!(matches!(answer, Err(Error::WouldDeadlock { .. })), "{path}: {answer:?}");
        assert!(started.elapsed() < AT_ONCE);
        // A reader of the other engine waits for nobody.
        let reader = Session::with_options(&second, read_only()).unwrap();
        reader.batch_execute("SELECT count(*) FROM notes").unwrap();
        reader.commit().unwrap();
        // A writer on another thread waits for its turn; the file's own lock never answers "busy".
        let waiter = std::thread::spawn({
            let second = second.clone();
            move || writes(&second)
        });
        while first.waiting() == 0 {
            std::thread::yield_now();
        }
        holder.rollback().unwrap();
        waiter.join().unwrap().unwrap();
    }
}

#[test]
fn two_files_have_two_gates() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (
        engine(folder.path().join("one.db").to_str().unwrap()),
        engine(folder.path().join("two.db").to_str().unwrap()),
    );
    create(&first);
    create(&second);
    let holder = Session::new(&first);
    holder.batch_execute("INSERT INTO notes VALUES ('held')").unwrap();
    writes(&second).unwrap();
    assert!(second.write_gate().is_empty());
    holder.commit().unwrap();
}

#[test]
fn each_memory_engine_is_a_database_of_its_own_and_a_named_one_is_shared() {
    let (first, second) = (engine(":memory:"), engine(":memory:"));
    create(&first);
    let holder = Session::new(&first);
    holder.batch_execute("INSERT INTO notes VALUES ('held')").unwrap();
    create(&second);
    writes(&second).unwrap();
    holder.commit().unwrap();

    let name = format!("file:/write-gate-{}?vfs=memdb", std::process::id());
    let (first, second) = (engine(name.clone()), engine(name));
    create(&first);
    let holder = Session::new(&first);
    holder.batch_execute("INSERT INTO notes VALUES ('held')").unwrap();
    assert!(matches!(writes(&second), Err(Error::WouldDeadlock { .. })));
    holder.commit().unwrap();
    writes(&second).unwrap();
}

#[test]
fn a_ring_across_the_gate_and_the_pool_is_broken_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<SqliteConnection>::builder(folder.path().join("test.db").to_str().unwrap())
        .max_size(2)
        .build()
        .unwrap();
    create(&engine);
    let (ready, writer_is_ready) = mpsc::channel();
    let (go, told) = mpsc::channel::<()>();
    // Holds the gate and a connection, and wants a second connection.
    let writer = std::thread::spawn({
        let engine = engine.clone();
        move || -> diesel_session::Result<()> {
            let session = Session::new(&engine);
            session.batch_execute("INSERT INTO notes VALUES ('a')")?;
            ready.send(()).unwrap();
            told.recv().unwrap();
            let reader = Session::with_options(&engine, read_only())?;
            reader.batch_execute("SELECT count(*) FROM notes")?;
            reader.commit()?;
            session.commit().map(drop)
        }
    });
    writer_is_ready.recv().unwrap();
    // Holds the other connection, and wants the gate.
    let reader = Session::with_options(&engine, read_only()).unwrap();
    reader.batch_execute("SELECT count(*) FROM notes").unwrap();
    go.send(()).unwrap();
    while engine.waiting() == 0 {
        std::thread::yield_now();
    }
    let started = Instant::now();
    let answer = writes(&engine);
    assert!(matches!(answer, Err(Error::WouldDeadlock { .. })), "{answer:?}");
    assert!(started.elapsed() < AT_ONCE);
    reader.commit().unwrap();
    writer.join().unwrap().unwrap();
    writes(&engine).unwrap();
    assert!(engine.connections_in_use().is_empty() && engine.write_gate().is_empty());
}

#[test]
fn a_gate_time_out_names_the_holder() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<SqliteConnection>::builder(folder.path().join("test.db").to_str().unwrap())
        .connection_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    create(&engine);
    let (ready, holder_is_ready) = mpsc::channel();
    let (go, told) = mpsc::channel::<()>();
    let holder = std::thread::Builder::new()
        .name("the-writer".into())
        .spawn({
            let engine = engine.clone();
            move || {
                let session = Session::new(&engine);
                session.batch_execute("INSERT INTO notes VALUES ('a')").unwrap();
                ready.send(()).unwrap();
                told.recv().unwrap();
                session.commit().unwrap();
            }
        })
        .unwrap();
    holder_is_ready.recv().unwrap();
    let error = writes(&engine).unwrap_err();
    assert!(matches!(&error, Error::GateTimeout { holders, .. } if holders.len() == 1), "{error}");
    let text = error.to_string();
    assert!(text.contains("the-writer") && text.contains("write_gate.rs"), "{text}");
    go.send(()).unwrap();
    holder.join().unwrap();
    writes(&engine).unwrap();
}

#[test]
fn a_begin_that_fails_gives_the_gate_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.db");
    let engine = engine(file.to_str().unwrap());
    create(&engine);
    // Another process's writer: a connection that knows no gate.
    let mut foreign = <SqliteConnection as diesel::Connection>::establish(file.to_str().unwrap()).unwrap();
    diesel::connection::SimpleConnection::batch_execute(&mut foreign, "BEGIN IMMEDIATE").unwrap();
    let session = Session::new(&engine);
    for _ in 0..3 {
        let error = session.batch_execute("INSERT INTO notes VALUES ('a')").unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(engine.write_gate().is_empty() && engine.connections_in_use().is_empty());
    }
    let deferred = Session::new(&engine);
    deferred.begin_with(TransactionOptions::new().begin_mode(diesel_session::BeginMode::Deferred)).unwrap();
    deferred.batch_execute("SELECT count(*) FROM notes").unwrap();
    deferred.rollback().unwrap();
    diesel::connection::SimpleConnection::batch_execute(&mut foreign, "ROLLBACK").unwrap();
    session.batch_execute("INSERT INTO notes VALUES ('a')").unwrap();
    session.commit().unwrap();
}
