//! MySQL: a lock's name has at most 64 characters, and so has a database's.

use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel_session::Engine;

use super::OWN;
use super::db::{Conn, Database};
use crate::in_time;

struct LongNamed<'a> {
    server: &'a Database,
    name: String,
}

impl<'a> LongNamed<'a> {
    fn new(server: &'a Database) -> Self {
        let name = format!("{:_<64}", server.name);
        Conn::establish(&server.url).unwrap().batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        Self { server, name }
    }
}

impl Drop for LongNamed<'_> {
    fn drop(&mut self) {
        if let Ok(mut conn) = Conn::establish(&self.server.url) {
            let _ = conn.batch_execute(&format!("DROP DATABASE {}", self.name));
        }
    }
}

#[test]
fn a_database_with_the_longest_name_is_migrated_too() {
    let server = Database::new();
    let database = LongNamed::new(&server);
    let engine = Engine::<Conn>::new(server.url.replace(&server.name, &database.name)).unwrap();
    assert_eq!(in_time(move || engine.run_migrations(OWN)).unwrap(), ["20260101000000", "20260102000000"]);
}
