//! Where SQLite's test databases lie.

use diesel_session::testing::TestDatabase;

use super::MIGRATIONS;
use super::db::Conn;

#[test]
fn the_file_lies_in_the_folder_that_was_named_and_leaves_nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let database = TestDatabase::<Conn>::new(folder.path().to_str().unwrap(), MIGRATIONS).unwrap();
    assert!(std::path::Path::new(database.url()).starts_with(folder.path()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(database);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
