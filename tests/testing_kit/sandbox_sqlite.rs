//! Deferred foreign keys, which RELEASE does not check.

use diesel_session::{Engine, Error, ScopedSession};

use super::db::Conn;

const TABLES: &str = "CREATE TABLE parents (id INTEGER PRIMARY KEY); \
    CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)";

#[test]
fn a_commit_checks_deferred_foreign_keys() {
    for enforced in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().join("test.db").to_str().unwrap().to_owned();
        let url = if super::db::CONCURRENT { url } else { format!("file:/{}?vfs=memdb", crate::support::unique_name()) };
        let outside = ScopedSession::<Conn>::new(Engine::new(&url).unwrap());
        outside.transaction(|session| session.batch_execute(TABLES)).unwrap();
        let engine = Engine::<Conn>::builder(&url).foreign_keys(enforced).sandbox().build().unwrap();
        let registry = ScopedSession::new(engine);
        let answer = registry.transaction(|session| session.batch_execute("INSERT INTO children VALUES (1, 1)"));
        if !enforced {
            answer.unwrap();
            continue;
        }
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
        assert!(error.to_string().contains("children"), "{error}");
        // In the other order within one transaction it is allowed.
        registry
            .transaction(|session| {
                session.batch_execute("INSERT INTO children VALUES (1, 1)")?;
                session.batch_execute("INSERT INTO parents VALUES (1)")
            })
            .unwrap();
    }
}
