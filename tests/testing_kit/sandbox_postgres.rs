//! Deferred constraints, which RELEASE does not check.

use diesel_session::{Engine, Error, ScopedSession};

use super::db::{Conn, Database};

const TABLES: &str = "CREATE TABLE parents (id INTEGER PRIMARY KEY); \
    CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)";

#[test]
fn a_commit_checks_deferred_constraints_and_leaves_them_deferred() {
    let database = Database::new();
    let outside = ScopedSession::<Conn>::new(Engine::new(&database.url).unwrap());
    outside.transaction(|session| session.batch_execute(TABLES)).unwrap();
    let registry = ScopedSession::new(Engine::<Conn>::builder(&database.url).sandbox().build().unwrap());
    for n in 1..3 {
        let child = format!("INSERT INTO children VALUES ({n}, {n})");
        let error = registry.transaction(|session| session.batch_execute(&child)).unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
        assert!(error.to_string().contains("children_parent_fkey"), "{error}");
        registry
            .transaction(|session| {
                session.batch_execute(&child)?;
                session.batch_execute(&format!("INSERT INTO parents VALUES ({n})"))
            })
            .unwrap();
    }
}
