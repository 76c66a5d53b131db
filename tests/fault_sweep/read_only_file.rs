//! A file that the engine may not write.

use diesel_session::{Engine, Error};

use super::db::Conn;

#[test]
fn an_engine_that_can_make_no_marker_table_is_refused() {
    let database = super::database();
    drop(database.registry());
    let url = format!("file:{}?mode=ro", database.url);
    let Err(error) = Engine::<Conn>::builder(url).verify_commits(true).build() else {
        panic!("it was built");
    };
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(error.to_string().contains("readonly database"), "{error}");
}
