//! Panics, dropped sessions and destructors: rolled back, nothing lost, nothing aborted.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_session::{Error, Reason, Result};

use super::db::{self, Database, Session, insert, stored};
use super::notes;
use super::tools::{answer, goes_on, nothing_in_use};

fn caught<R>(f: impl FnOnce() -> R) -> std::thread::Result<R> {
    catch_unwind(AssertUnwindSafe(f))
}

#[test]
fn nothing_commits_by_being_dropped() {
    let database = Database::new();
    let registry = database.registry();
    drop(Session::new(registry.engine()));
    {
        let session = Session::new(registry.engine());
        insert(&session, "dropped").unwrap();
    }
    let panicked = caught(|| {
        let session = Session::new(registry.engine());
        let _savepoint = session.begin_nested().unwrap();
        insert(&session, "dropped by a panic").unwrap();
        panic!("with a session alive");
    });
    assert!(panicked.is_err());
    let panicked = caught(|| {
        let session = Session::new(registry.engine());
        insert(&session, "in the closure").unwrap();
        session.with_connection::<()>(|_| panic!("with the connection lent"))
    });
    assert!(panicked.is_err());
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn a_panic_in_a_handler_rolls_back_and_goes_on_to_its_caller() {
    let database = Database::new();
    let registry = database.registry();
    for way in 0..4 {
        let panicked = caught(|| {
            let work = |session: &Session| -> Result<()> {
                insert(session, "undone")?;
                panic!("in handler {way}")
            };
            match way {
                0 => registry.transaction(work),
                1 => registry.job(work),
                2 => registry.request(diesel_session::TransactionOptions::new(), work),
                _ => registry.scope(work).unwrap(),
            }
        });
        assert_eq!(panicked.unwrap_err().downcast_ref::<String>(), Some(&format!("in handler {way}")));
        assert!(!registry.has(), "way {way}");
        nothing_in_use(&registry);
        assert!(stored(&registry).is_empty());
    }
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

/// Uses the session in every way while it is dropped.
struct Meddler<'a>(&'a Session);

impl Drop for Meddler<'_> {
    fn drop(&mut self) {
        let session = self.0;
        let _ = insert(session, "by the meddler");
        let _ = session.nested(|session| insert(session, "by the meddler, nested"));
        drop(session.begin_nested());
        let _ = session.on_commit(|| {});
        let _ = session.with_connection(|conn| conn.batch_execute("SELECT 1"));
        let _ = session.commit();
        let _ = session.rollback();
        session.close();
    }
}

#[test]
fn a_destructor_that_uses_the_session_while_a_panic_unwinds_does_no_harm() {
    let database = Database::new();
    let registry = database.registry();
    let places: [fn(&Session); 5] = [
        |session| {
            let _meddler = Meddler(session);
            panic!("in the transaction");
        },
        |session| {
            let _savepoint = session.begin_nested().unwrap();
            let _meddler = Meddler(session);
            panic!("in a savepoint");
        },
        |session| {
            let _ = session.with_connection::<()>(|_| {
                let _meddler = Meddler(session);
                panic!("with the connection lent");
            });
        },
        |session| {
            let _ = session.with_rows(
                notes::table.select(notes::text),
                |rows: &mut dyn Iterator<Item = QueryResult<String>>| {
                    let _meddler = Meddler(session);
                    let _ = rows.next();
                    if rows.next().is_none() {
                        panic!("in a row loop");
                    }
                    Ok(())
                },
            );
        },
        |session| {
            let _ = session.nested::<(), Error>(|session| {
                let _meddler = Meddler(session);
                panic!("in nested");
            });
        },
    ];
    for (i, place) in places.into_iter().enumerate() {
        let panicked = caught(|| {
            registry.transaction(|session| {
                insert(session, "row")?;
                place(session);
                Ok::<_, Error>(())
            })
        });
        assert!(panicked.is_err(), "place {i}");
        assert!(!registry.has());
        nothing_in_use(&registry);
        assert!(stored(&registry).is_empty(), "place {i} on {}", db::NAME);
    }
    goes_on(&registry, &registry.current().unwrap(), &[]);
}

#[test]
fn a_session_removed_by_its_own_closure_answers_for_it() {
    let database = Database::new();
    let registry = database.registry();
    let result: Result<()> = registry.transaction(|session| {
        insert(session, "row")?;
        registry.remove();
        assert_eq!(answer(&insert(session, "later")), "SessionClosed");
        Ok(())
    });
    let error = result.unwrap_err();
    assert!(matches!(error.cause().map(diesel_session::Cause::reason), Some(Reason::Removed)), "{error}");
    goes_on(&registry, &registry.current().unwrap(), &[]);
}
