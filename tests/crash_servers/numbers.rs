//! PostgreSQL gives the number of a transaction again that it lost in a crash: a commit must not pass for another's.

use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel_session::{Engine, Result};

use super::db::{Conn, Session, server};

/// Told when a COMMIT is about to be sent, which is held until the answer comes.
static COMMITS: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>> = Mutex::new(None);

fn hold_at_commit() -> Box<dyn Instrumentation> {
    Box::new(|event: InstrumentationEvent<'_>| {
        if let InstrumentationEvent::StartQuery { query, .. } = event
            && query.to_string().contains("COMMIT")
        {
            let held = COMMITS.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((begun, go)) = held {
                begun.send(()).unwrap();
                let _ = go.recv();
            }
        }
    })
}

#[test]
fn a_commit_that_a_crash_lost_is_not_taken_for_the_one_that_got_its_number() {
    let mut server = server();
    let url = server.new_database();
    let plain = Engine::<Conn>::new(url.clone()).unwrap();
    let insert = |session: &Session, text: &str| -> Result<()> {
        session.batch_execute(&format!("INSERT INTO lines VALUES ('{text}')"))
    };
    let session = Session::new(&plain);
    session.batch_execute("CREATE TABLE lines (text TEXT NOT NULL)").unwrap();
    session.commit().unwrap();
    let told = std::thread::scope(|threads| {
        let (begun, begins) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let url = url.clone();
        let commits = threads.spawn(move || {
            let engine = Engine::<Conn>::builder(url)
                .verify_commits(true)
                .connection_timeout(Duration::from_secs(30))
                .instrumentation(hold_at_commit)
                .build()
                .unwrap();
            let session = Session::new(&engine);
            insert(&session, "lost").unwrap();
            *COMMITS.lock().unwrap_or_else(PoisonError::into_inner) = Some((begun, gone));
            session.commit().map(drop)
        });
        begins.recv().unwrap();
        // Before the server has written down what it did.
        server.kill_9();
        server.restart();
        let others = Session::new(&plain);
        for n in 0..50 {
            insert(&others, &n.to_string()).unwrap();
            others.commit().unwrap();
        }
        drop(go);
        commits.join().unwrap()
    });
    session.rollback().unwrap();
    let lost = diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT count(*) FROM lines WHERE text = 'lost'");
    let stored: i64 = session.get_result(lost).unwrap();
    assert!(told.is_err() && stored == 0, "{told:?}, {stored} stored");
}
