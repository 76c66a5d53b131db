//! PostgreSQL: CREATE INDEX CONCURRENTLY waits for every older transaction and snapshot, a waiting starter's included.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_session::Engine;

use super::db::{Conn, Database, Session};
use crate::written::Programmed;
use crate::{PATIENCE, in_time};

#[test]
fn an_index_that_is_built_concurrently_and_seven_starters_that_wait_do_not_wait_for_each_other() {
    const WAITING: i64 = 7;
    let database = Database::new();
    let migration = Programmed::<diesel::pg::Pg>::new("1", |conn| {
        conn.batch_execute("CREATE TABLE notes (id INTEGER)")?;
        let conn = conn.downcast_mut::<Conn>().unwrap();
        let started = std::time::Instant::now();
        while waiting_starters(conn)? < WAITING {
            assert!(started.elapsed() < PATIENCE, "the other starters never asked for the lock");
            std::thread::yield_now();
        }
        conn.batch_execute("CREATE INDEX CONCURRENTLY notes_id ON notes (id)")?;
        Ok(())
    });
    let starters: Vec<_> = (0..=WAITING)
        .map(|_| {
            let engine: Engine<Conn> = database.builder().build().unwrap();
            let migration = migration.clone();
            std::thread::spawn(move || engine.run_migrations(migration))
        })
        .collect();
    let applied = in_time(|| {
        let applied: Vec<Vec<String>> = starters.into_iter().map(|starter| starter.join().unwrap().unwrap()).collect();
        applied.concat()
    });
    assert_eq!(applied, ["1"]);

    let session = Session::new(&database.builder().build().unwrap());
    let valid: i64 = session
        .get_result(sql::<BigInt>(
            "SELECT count(*) FROM pg_index WHERE indexrelid = 'notes_id'::regclass AND indisvalid",
        ))
        .unwrap();
    assert_eq!(valid, 1);
}

/// Connections to this database, other than this one, whose last statement asked for an advisory lock.
fn waiting_starters(conn: &mut Conn) -> QueryResult<i64> {
    sql::<BigInt>(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
         AND query LIKE '%advisory_lock(%'",
    )
    .get_result(conn)
}
