//! A server whose user may not do what verified commits need.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{Engine, Error, Session};

use super::db::{Conn, Database, insert, stored};

/// A user with some rights on one database, as long as the test runs.
struct User<'a> {
    name: String,
    database: &'a Database,
}

impl<'a> User<'a> {
    fn new(database: &'a Database, rights: &str) -> Self {
        let user = Self { name: crate::support::unique_name(), database };
        user.admin(&format!("CREATE USER '{}'@'%' IDENTIFIED BY 's3cret'", user.name));
        user.admin(&format!("GRANT {rights} ON {}.* TO '{}'@'%'", database.name, user.name));
        user
    }

    fn admin(&self, sql: &str) {
        Conn::establish(&self.database.admin_url).unwrap().batch_execute(sql).unwrap();
    }

    fn url(&self) -> String {
        let (_, rest) = self.database.url.split_once('@').unwrap();
        format!("mysql://{}:s3cret@{rest}", self.name)
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        self.admin(&format!("DROP USER '{}'@'%'", self.name));
    }
}

#[test]
fn an_engine_that_can_make_no_marker_table_is_refused() {
    let database = super::database();
    let user = User::new(&database, "SELECT, INSERT, UPDATE, DELETE");
    let Err(error) = Engine::<Conn>::builder(user.url()).verify_commits(true).build() else {
        panic!("it was built");
    };
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("CREATE command denied") && text.contains("diesel_session_commits"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn a_commit_that_may_leave_no_marker_is_rolled_back() {
    let database = super::database();
    let registry = database.registry();
    let user = User::new(&database, "SELECT, CREATE, DELETE");
    user.admin(&format!("GRANT INSERT ON {}.notes TO '{}'@'%'", database.name, user.name));
    let engine = Engine::<Conn>::builder(user.url()).verify_commits(true).build().unwrap();
    let session = Session::new(&engine);
    insert(&session, "row").unwrap();
    let error = session.commit().unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert!(error.to_string().contains("INSERT command denied"), "{error}");
    assert!(stored(&registry).is_empty());
}
