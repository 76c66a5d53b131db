//! A database for each test.

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_session::testing::TestDatabase;
use diesel_session::{EngineBuilder, Error, Session};

use super::db::Conn;
use super::{MIGRATIONS, server};

const ANN: &str = "INSERT INTO users (nickname, full_name, email) VALUES ('ann', 'Ann', 'ann@example.org')";

fn users(session: &Session<Conn>) -> i64 {
    session.load(diesel::dsl::sql::<BigInt>("SELECT count(*) FROM users")).unwrap()[0]
}

#[test]
fn each_test_database_is_migrated_and_nobody_elses() {
    let first = TestDatabase::<Conn>::new(&server(), MIGRATIONS).unwrap();
    let second = TestDatabase::<Conn>::new(&server(), MIGRATIONS).unwrap();
    assert_ne!(first.url(), second.url());
    assert!(first.engine().pending_migrations(MIGRATIONS).unwrap().is_empty());
    first.registry().transaction(|session| session.batch_execute(ANN)).unwrap();
    assert_eq!(first.registry().read(|session| Ok::<_, Error>(users(session))).unwrap(), 1);
    assert_eq!(second.registry().read(|session| Ok::<_, Error>(users(session))).unwrap(), 0);
    // One that is made later is as fresh.
    let third = TestDatabase::<Conn>::new(&server(), MIGRATIONS).unwrap();
    assert_eq!(third.registry().read(|session| Ok::<_, Error>(users(session))).unwrap(), 0);
}

#[test]
fn its_url_leads_to_it_while_it_lives() {
    let database = TestDatabase::<Conn>::new(&server(), MIGRATIONS).unwrap();
    let url = database.url().to_owned();
    database.registry().transaction(|session| session.batch_execute(ANN)).unwrap();
    let mut own = Conn::establish(&url).unwrap();
    let count = diesel::dsl::sql::<BigInt>("SELECT count(*) FROM users");
    assert_eq!(count.get_result::<i64>(&mut own).unwrap(), 1);
}

#[test]
fn it_goes_with_its_value_whoever_is_still_connected() {
    let database = TestDatabase::<Conn>::new(&server(), MIGRATIONS).unwrap();
    let url = database.url().to_owned();
    let own = Conn::establish(&url).unwrap();
    // A session that the test forgot, with locks.
    let forgotten = Session::new(database.engine());
    forgotten.batch_execute(ANN).unwrap();
    drop(database);
    drop((forgotten, own));
    let left = Conn::establish(&url).is_ok_and(|mut conn| diesel::sql_query("SELECT * FROM users").execute(&mut conn).is_ok());
    assert!(!left, "it is still there");
    // Where SQLite's file was, an attempt to open it may have made nothing either.
    assert!(!std::path::Path::new(&url).exists());
}

#[test]
fn its_engine_is_made_as_asked() {
    let database = TestDatabase::<Conn>::with(&server(), MIGRATIONS, |builder| builder.max_size(3)).unwrap();
    assert_eq!(database.engine().max_size(), 3);
    let sandbox = TestDatabase::<Conn>::with(&server(), MIGRATIONS, EngineBuilder::sandbox).unwrap();
    sandbox.registry().transaction(|session| session.batch_execute(ANN)).unwrap();
    assert_eq!(sandbox.registry().read(|session| Ok::<_, Error>(users(session))).unwrap(), 1);
}

#[test]
fn a_url_that_leads_nowhere_is_named_in_the_error() {
    let (url, wanted) = match server() {
        url if url.contains("://") => {
            let (before, rest) = url.split_once('@').unwrap();
            let (user, _) = before.split_once("//").map(|(scheme, user)| (format!("{scheme}//{user}"), ())).unwrap();
            let (_, name) = rest.split_once('/').unwrap();
            (format!("{user}:s3cret@127.0.0.1:1/{name}"), "127.0.0.1:1")
        }
        _ => ("/no/such/folder".to_owned(), "/no/such/folder"),
    };
    let Err(error) = TestDatabase::<Conn>::new(&url, MIGRATIONS) else { panic!("it was made") };
    assert!(matches!(error, Error::Connect { .. } | Error::Configuration(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(wanted) && !text.contains("s3cret"), "{text}");
}
