//! Triggers, and destructors at the end.

use super::*;

/// Severity A (rule 7): the same with a trigger on the row itself.
#[test]
fn what_a_trigger_changes_in_the_row_that_is_written_is_not_overwritten() {
    let engine = engine();
    Session::with_options(&engine, diesel_session::autocommit())
        .unwrap()
        .batch_execute(
            "CREATE TRIGGER counts AFTER UPDATE OF text ON notes BEGIN UPDATE notes SET written = written + 1 WHERE id = NEW.id; END",
        )
        .unwrap();
    let session = Session::new(&engine);
    let note = session.add(Note { id: 1, text: "n".into(), written: 0 }).unwrap();
    session.flush().unwrap();
    note.write().unwrap().text = "m".into();
    session.flush().unwrap();
    note.write().unwrap().written += 10;
    session.commit().unwrap();
    assert_eq!(session.get_result::<i32>(notes::table.select(notes::written)).unwrap(), 11);
}

struct Farewell<'a>(&'a Sqlite3, diesel_session::Tracked<City>);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.1.update(|city| city.name = "left in a panic".into()).unwrap();
        self.0.commit().unwrap();
    }
}

/// A guard that is made and ends well while the thread unwinds is thrown away, and `update` and `commit` say Ok.
#[test]
fn a_change_that_a_destructor_makes_while_the_thread_unwinds_is_written() {
    let session = Session::new(&engine());
    town(&session);
    let city = session.get_one::<City>("DE").unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _farewell = Farewell(&session, city.clone());
        panic!("on the way out");
    }));
    assert!(panicked.is_err());
    assert_eq!(session.load::<String>(cities::table.select(cities::name)).unwrap(), ["left in a panic"]);
}
