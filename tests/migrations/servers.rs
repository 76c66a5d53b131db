//! Databases on a server: the connection may die in the middle.

use diesel_session::Error;

use super::END_OWN_CONNECTION;
use super::db::Database;
use crate::in_time;
use crate::written::Folder;

#[test]
fn a_migration_whose_connection_dies_is_the_error_and_the_next_run_works() {
    let database = Database::new();
    let engine = database.builder().build().unwrap();
    let folder = Folder::new().with_bare("2026-01-01-000000_one", END_OWN_CONNECTION);
    let error = engine.run_migrations(folder.source()).unwrap_err();
    assert!(matches!(error, Error::Migration(_)), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("2026-01-01-000000_one") && !message.contains("lock"), "{message}");

    let folder = folder.with_bare("2026-01-01-000000_one", "CREATE TABLE one (id INTEGER)");
    let source = folder.source();
    assert_eq!(in_time(move || engine.run_migrations(source)).unwrap(), ["20260101000000"]);
}
