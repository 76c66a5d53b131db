//! Templates: made once, copied, and dropped when their process is gone.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_session::testing::TestDatabase;

use super::db::Conn;
use super::{MIGRATIONS, server};

fn templates(admin: &mut Conn) -> Vec<String> {
    diesel::dsl::sql::<Text>("SELECT datname::text FROM pg_database WHERE datname LIKE 'ds\\_template\\_%'")
        .load(admin)
        .unwrap()
}

#[test]
fn one_template_serves_every_test_of_the_process_and_the_next_process_drops_it() {
    let own = format!("ds_template_{}_", std::process::id());
    let mut admin = Conn::establish(&server()).unwrap();
    let made: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| TestDatabase::<Conn>::new(&server(), MIGRATIONS).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.len(), 4);
    let count = templates(&mut admin).into_iter().filter(|name| name.starts_with(&own)).count();
    assert_eq!(count, 1);
    // As one that a process left behind.
    let left = format!("ds_template_{}", crate::support::unique_name());
    admin.batch_execute(&format!("CREATE DATABASE {left}")).unwrap();
    // Another kind of source needs another template.
    let folder = tempfile::tempdir().unwrap();
    let migration = folder.path().join("2026-01-01-000000_one");
    std::fs::create_dir(&migration).unwrap();
    std::fs::write(migration.join("up.sql"), "CREATE TABLE one (id INTEGER)").unwrap();
    std::fs::write(migration.join("down.sql"), "DROP TABLE one").unwrap();
    let source = diesel_migrations::FileBasedMigrations::from_path(folder.path()).unwrap();
    let database = TestDatabase::<Conn>::new(&server(), source).unwrap();
    let there = templates(&mut admin);
    assert!(!there.contains(&left));
    // Both that are in use stay.
    assert_eq!(there.iter().filter(|name| name.starts_with(&own)).count(), 2);
    drop(database);
}
