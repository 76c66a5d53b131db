//! Many processes that start at once.

use diesel::prelude::*;

use super::ROUNDS;
use super::db::{self, Database, Session};
use crate::starters::start_at_once;
use crate::written::Folder;

diesel::table! {
    applied (name) {
        name -> Text,
    }
}

const STARTERS: usize = 8;

#[test]
fn eight_processes_that_start_at_once_apply_each_migration_once_and_none_fails() {
    // Nothing in the tables stops a second application, so it shows; and the second CREATE TABLE would fail.
    let folder = Folder::new()
        .with("2026-01-01-000000_applied", "CREATE TABLE applied (name VARCHAR(64) NOT NULL)")
        .with("2026-01-02-000000_first", "INSERT INTO applied VALUES ('first'); CREATE TABLE first (id INTEGER)")
        .with("2026-01-03-000000_second", "INSERT INTO applied VALUES ('second'); CREATE TABLE second (id INTEGER)");
    for round in 0..ROUNDS {
        let database = Database::new();
        let outcomes = start_at_once(STARTERS, db::NAME, &database.url, folder.path());
        let mut versions = Vec::new();
        for outcome in outcomes {
            versions.extend(outcome.unwrap_or_else(|said| panic!("round {round}: a starter failed:\n{said}")));
        }
        assert_eq!(versions, ["20260101000000", "20260102000000", "20260103000000"], "round {round}");

        let engine = database.builder().build().unwrap();
        let session = Session::new(&engine);
        let names: Vec<String> = session.load(applied::table.select(applied::name).order(applied::name)).unwrap();
        assert_eq!(names, ["first", "second"], "round {round}");
        session.commit().unwrap();
        assert!(engine.pending_migrations(folder.source()).unwrap().is_empty(), "round {round}");
    }
}
