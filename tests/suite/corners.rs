//! What stays true where several things meet: autocommit and extents, panics and listeners, tasks and hooks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diesel_session::{
    Error, ErrorClass, Result, Session as AnySession, SessionConnection, SessionListener, StatementInfo, autocommit,
};

use super::db::{Database, Session, insert, stored};

#[test]
fn a_transaction_on_an_autocommit_session_is_undone_by_its_error() {
    let database = Database::new();
    let registry = database.registry();
    registry.current_with(autocommit()).unwrap();
    let failed: Result<()> = registry.transaction(|session| insert(session, "taken over").and(Err(Error::NoScope)));
    assert!(failed.is_err());
    registry.configure(|options| options.transaction(autocommit())).unwrap();
    let failed: Result<()> = registry.transaction(|session| insert(session, "configured").and(Err(Error::NoScope)));
    assert!(failed.is_err());
    let failed: Result<()> = registry.job(|session| insert(session, "job").and(Err(Error::NoScope)));
    assert!(failed.is_err());
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_violation_that_quotes_a_value_is_no_lost_connection() {
    let database = Database::new();
    let registry = database.registry();
    registry
        .transaction(|session| {
            insert(session, "Lost connection to, has gone away")?;
            let twice = session.nested(|session| insert(session, "Lost connection to, has gone away"));
            assert_eq!(twice.unwrap_err().class(), ErrorClass::Statement);
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(stored(&registry).len(), 1);
}

#[test]
fn a_wrapped_closure_leaves_the_extent_around_it_alone() {
    let database = Database::new();
    let registry = database.registry();
    let wrapped = registry.wrap(|| Session::current().unwrap().id());
    registry
        .transaction(|session| {
            insert(session, "outer")?;
            assert_ne!(wrapped(), session.id());
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(stored(&registry), ["outer"]);
}

#[derive(Debug)]
struct PanicsFirst(Arc<AtomicUsize>);

impl<C: SessionConnection> SessionListener<C> for PanicsFirst {
    fn before_statement(&self, _: &AnySession<C>, _: &StatementInfo) -> Result<()> {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "the first time");
        Err(Error::ReadOnly)
    }
}

#[test]
fn a_listener_that_panicked_is_asked_again() {
    let database = Database::new();
    let registry = database.registry();
    let asked = Arc::default();
    registry.listen(PanicsFirst(Arc::clone(&asked)));
    let session = registry.current().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| insert(&session, "first"))).is_err());
    assert!(matches!(insert(&session, "second"), Err(Error::ReadOnly)));
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn a_hook_that_panics_when_it_is_dropped_is_in_the_report_and_stops_nothing() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    insert(&session, "stored").unwrap();
    let bomb = PanicsWhenDropped;
    session.on_rollback(move || drop(bomb)).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    session.on_commit(move || tell.send(()).unwrap()).unwrap();
    assert_eq!(session.commit().unwrap().hook_errors().len(), 1);
    told.try_recv().unwrap();
    registry.remove();
    assert!(registry.current().is_ok());
    registry.remove();
    assert_eq!(stored(&registry), ["stored"]);
}

#[test]
fn a_hook_of_a_task_finds_no_other_task_s_session() {
    let database = Database::new();
    let registry = database.registry();
    let (tell, told) = std::sync::mpsc::channel();
    registry.enter(|| {
        Session::current().unwrap();
        let task = registry.future(async move {
            let session = Session::current().unwrap();
            insert(&session, "task").unwrap();
            session.on_rollback(move || tell.send(Session::current().err()).unwrap()).unwrap();
        });
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(task).unwrap();
    });
    assert!(matches!(told.try_recv().unwrap(), Some(Error::InHook)));
    registry.remove();
}

#[test]
fn what_raw_autocommit_code_left_open_when_it_panicked_is_never_committed() {
    use diesel::connection::SimpleConnection;
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let session = registry.current_with(autocommit()).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        session.with_connection::<()>(|conn| {
            conn.batch_execute("BEGIN; INSERT INTO notes (text) VALUES ('panicked')")?;
            panic!("with a transaction of its own open")
        })
    }));
    assert!(panicked.is_err());
    registry.remove();
    registry.transaction(|session| insert(session, "next")).unwrap();
    assert_eq!(stored(&registry), ["next"]);
}

#[test]
fn a_read_only_autocommit_session_writes_nothing_by_raw_text() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current_with(autocommit().read_only()).unwrap();
    assert!(session.batch_execute("INSERT INTO notes (text) VALUES ('raw')").is_err());
    registry.remove();
    assert!(stored(&registry).is_empty());
}
