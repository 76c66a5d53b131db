//! A COMMIT that the server itself takes long for, and one of what a function wrote.

use std::time::Duration;

use diesel::sql_types::BigInt;
use diesel_session::testing::{Call, Fault};
use diesel_session::{Engine, Error, ScopedSession};

use super::db::{Conn, insert, stored};
use super::run::Stage;
use crate::proxy::{Cut, Proxy};

/// A deferred trigger runs in COMMIT.
const SLOW_COMMIT: &str = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$; \
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED \
    FOR EACH ROW EXECUTE FUNCTION slow()";

#[test]
fn the_fate_of_a_commit_that_is_still_being_done_is_waited_for() {
    let database = super::database();
    let direct = database.registry();
    direct.transaction(|session| session.batch_execute(SLOW_COMMIT)).unwrap();
    let proxy = Proxy::new(&database.url);
    let engine = Engine::<Conn>::builder(proxy.url(&database.url)).verify_commits(true).build().unwrap();
    let registry = ScopedSession::new(engine);
    // The client is cut as soon as the server has it, long before the answer.
    proxy.cut(Cut::Late(Duration::ZERO));
    let answer = registry.transaction(|session| insert(session, "row"));
    assert!(matches!(answer, Ok(1)), "{answer:?}");
    assert_eq!(proxy.cuts(), 1);
    assert_eq!(stored(&direct), ["row"]);
}

/// As a statement of the query builder it is a SELECT like any other.
#[test]
fn what_a_function_in_a_select_wrote_is_found_out_too() {
    let stage = Stage::new(|builder| builder.verify_commits(true));
    let function = "CREATE FUNCTION note() RETURNS bigint LANGUAGE sql AS \
        $$ INSERT INTO notes (text, n) VALUES ('row', 0) RETURNING id::bigint $$";
    stage.registry.transaction(|session| session.batch_execute(function)).unwrap();
    let select = || diesel::select(diesel::dsl::sql::<BigInt>("note()"));
    for (fault, is_stored) in [(Fault::CloseBefore, false), (Fault::CloseAfter, true)] {
        stage.faults.on(Call::Commit, fault);
        match stage.registry.transaction(|session| session.get_result::<i64>(select())) {
            Ok(_) => assert!(is_stored),
            Err(Error::RolledBack { .. }) => assert!(!is_stored),
            other => panic!("{fault:?}: {other:?}"),
        }
        assert_eq!(stage.stored().len(), usize::from(is_stored));
        stage.clear();
    }
}
