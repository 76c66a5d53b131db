//! DDL, which commits.

use diesel_session::{Engine, Error, ScopedSession};

use super::db::{Conn, Database, insert, stored};

#[test]
fn ddl_in_it_is_noticed() {
    let database = Database::new();
    let outside = database.registry();
    let registry = ScopedSession::new(Engine::<Conn>::builder(&database.url).sandbox().build().unwrap());
    let error = registry
        .transaction(|session| {
            insert(session, "one")?;
            session.batch_execute("CREATE TABLE more (id INTEGER)")
        })
        .unwrap_err();
    assert!(matches!(error, Error::TransactionLost { .. } | Error::ImplicitCommit { .. }), "{error}");
    let error = registry.transaction(|session| insert(session, "two")).unwrap_err();
    assert!(error.to_string().contains("sandbox"), "{error}");
    assert_eq!(stored(&outside), ["one"]);
}
