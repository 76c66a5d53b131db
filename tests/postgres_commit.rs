//! PostgreSQL answers COMMIT of an aborted transaction with a silent rollback. No commit here says `Ok` to that.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use diesel_session::{Error, StatementErrors};

use support::notes;
use support::postgres::{Database, Session, insert, stored};

#[path = "support/mod.rs"]
mod support;

#[test]
fn a_row_error_that_the_closure_swallowed_is_not_committed() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    insert(&session, "a").unwrap();
    let rows = notes::table.select(sql::<Integer>("1 / n"));
    let seen = session.with_rows(rows, |rows| Ok(rows.map(|n: QueryResult<i32>| n.is_err()).collect::<Vec<_>>()));
    assert_eq!(seen.unwrap_or(vec![true]), [true]);
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_row_error_behind_the_last_row_that_was_read_is_not_committed() {
    let database = Database::new();
    let registry = database.registry();
    let session = Session::new(registry.engine());
    for text in ["a", "b", "c"] {
        insert(&session, text).unwrap();
    }
    let rows = notes::table.select(sql::<Integer>("1 / (3 - id)")).order(notes::id);
    let first = session.with_rows(rows, |rows| rows.next().transpose()).unwrap();
    assert_eq!(first, Some(0));
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_statement_that_could_not_be_prepared_is_not_committed_with_native_errors() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.statement_errors(StatementErrors::Native));
    let session = Session::new(registry.engine());
    insert(&session, "a").unwrap();
    let missing = sql::<Integer>("SELECT n FROM missing");
    assert!(session.load::<i32>(missing).is_err());
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert!(stored(&registry).is_empty());
}
