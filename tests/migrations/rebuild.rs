//! SQLite: a table is changed by building it anew, with foreign keys off (SQLite docs, "ALTER TABLE", section 7).

use diesel::sql_types::BigInt;

use super::db::{Database, Session};
use crate::written::Folder;

#[test]
fn a_migration_that_rebuilds_a_table_keeps_the_rows_that_refer_to_it() {
    let database = Database::new();
    let engine = database.builder().build().unwrap();
    let folder = Folder::new().with(
        "2026-01-01-000000_families",
        "CREATE TABLE parents (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL);
         CREATE TABLE children (
             id INTEGER PRIMARY KEY NOT NULL,
             parent_id INTEGER NOT NULL REFERENCES parents (id) ON DELETE CASCADE
         );
         INSERT INTO parents VALUES (1, 'Ann'), (2, 'Bob');
         INSERT INTO children VALUES (1, 1), (2, 1), (3, 2);",
    );
    engine.run_migrations(folder.source()).unwrap();
    let folder = folder.with_bare(
        "2026-01-02-000000_rebuild",
        "PRAGMA foreign_keys = OFF;
         CREATE TABLE new_parents (id INTEGER PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE);
         INSERT INTO new_parents SELECT id, name FROM parents;
         DROP TABLE parents;
         ALTER TABLE new_parents RENAME TO parents;
         PRAGMA foreign_keys = ON;",
    );
    assert_eq!(engine.run_migrations(folder.source()).unwrap(), ["20260102000000"]);

    let session = Session::new(&engine);
    let number = |sql: &str| -> i64 { session.get_result(diesel::dsl::sql::<BigInt>(sql)).unwrap() };
    assert_eq!(number("SELECT count(*) FROM parents"), 2);
    assert_eq!(number("SELECT count(*) FROM children"), 3);
    assert_eq!(number("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    // The pragma of the migration's own connection does not reach a session's.
    assert_eq!(number("SELECT foreign_keys FROM pragma_foreign_keys"), 1);
    session.batch_execute("DELETE FROM parents WHERE id = 1").unwrap();
    assert_eq!(number("SELECT count(*) FROM children"), 1);
}
