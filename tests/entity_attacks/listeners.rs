//! Listeners that use the session that they hear of.

use super::*;

/// What a listener does, and what the reached call told it.
type Act = std::rc::Rc<dyn Fn(&Sqlite3, &str)>;

/// Does something with the session at one of its calls.
#[derive(Clone)]
struct At {
    call: &'static str,
    act: Act,
    session: std::rc::Rc<RefCell<Option<Sqlite3>>>,
}

impl At {
    fn reached(&self, call: &str, detail: &str) {
        let session = self.session.borrow().clone();
        if let (true, Some(session)) = (self.call == call, session) {
            (self.act)(&session, detail);
        }
    }
}

impl diesel_session::SessionListener<SqliteConnection> for At {
    fn before_flush(&self, _: &Sqlite3) -> Result<()> {
        self.reached("before_flush", "");
        Ok(())
    }
    fn after_flush(&self, _: &Sqlite3) {
        self.reached("after_flush", "");
    }
    fn after_flush_postexec(&self, _: &Sqlite3) {
        self.reached("after_flush_postexec", "");
    }
    fn before_commit(&self, _: &Sqlite3) -> Result<()> {
        self.reached("before_commit", "");
        Ok(())
    }
    fn transition(&self, transition: &diesel_session::Transition) {
        self.reached("transition", &format!("{:?} {:?}", transition.from(), transition.to()));
    }
}

/// A listener that closes the session: what commit says is what is stored.
#[test]
fn a_listener_that_closes_the_session_makes_no_commit_lie() {
    for call in ["before_flush", "after_flush", "after_flush_postexec", "before_commit", "transition"] {
        for n in 0..4 {
            let engine = engine();
            let session = Session::new(&engine);
            let times = Cell::new(0);
            let act = move |session: &Sqlite3, _: &str| {
                if times.replace(times.get() + 1) == n {
                    session.close();
                }
            };
            let at = At { call, act: std::rc::Rc::new(act), session: std::rc::Rc::new(Some(session.clone()).into()) };
            session.listen(at.clone());
            let said = catch_unwind(AssertUnwindSafe(|| {
                let city = session.add(City { code: "DE".into(), name: "x".into() })?;
                session.flush()?;
                city.write()?.name = "y".into();
                session.commit()
            }));
            at.session.take();
            session.close();
            drop(session);
            let other = Session::new(&engine);
            let stored: Vec<String> = other.load(cities::table.select(cities::name)).unwrap();
            let said = said.unwrap_or_else(|_| panic!("{call} {n}: a panic"));
            assert_eq!(said.is_ok(), stored == ["y"], "{call} {n}: {said:?}, stored {stored:?}");
        }
    }
}

/// What a listener adds when it hears of a transition, and is told Ok, is stored by the next commit that says Ok.
#[test]
fn what_a_listener_adds_in_a_transition_is_not_lost() {
    let mut lost = Vec::new();
    for wanted in [
        "Transient Pending",
        "Pending Persistent",
        "Pending Transient",
        "Persistent Transient",
        "Persistent Deleted",
        "Deleted Detached",
        "Deleted Persistent",
    ] {
        let session = Session::new(&engine());
        town(&session);
        let added = std::rc::Rc::new(Cell::new(0));
        let count = std::rc::Rc::clone(&added);
        let act = move |session: &Sqlite3, what: &str| {
            if what == wanted && count.get() == 0 && session.add(City { code: "NEW".into(), name: "n".into() }).is_ok()
            {
                count.set(1);
            }
        };
        let at = At {
            call: "transition",
            act: std::rc::Rc::new(act),
            session: std::rc::Rc::new(Some(session.clone()).into()),
        };
        session.listen(at.clone());
        let run = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
            if wanted == "Pending Transient" || wanted == "Persistent Transient" {
                session.add(City { code: "X".into(), name: "x".into() })?;
                if wanted == "Persistent Transient" {
                    session.flush()?;
                }
                session.rollback()?;
            } else if wanted.contains("Deleted") {
                let gone = session.add(City { code: "X".into(), name: "x".into() })?;
                session.commit()?;
                session.delete(&gone)?;
                session.flush()?;
                if wanted == "Deleted Persistent" {
                    session.rollback()?;
                }
            } else {
                session.add(City { code: "X".into(), name: "x".into() })?;
                session.flush()?;
            }
            session.commit()?;
            session.commit()?;
            Ok(())
        }));
        at.session.take();
        let is_stored = session.load::<String>(cities::table.select(cities::code)).unwrap().contains(&"NEW".to_owned());
        if run.is_err() || (added.get() == 1 && matches!(run, Ok(Ok(()))) && !is_stored) {
            lost.push(format!("{wanted}: {run:?}, told Ok, stored {is_stored}"));
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
}

/// An act with its name.
type Named = (&'static str, fn(&Sqlite3));

/// A listener that flushes, commits or rolls back when it hears of a transition panics nowhere and doubles nothing.
#[test]
fn a_listener_that_uses_the_session_in_a_transition_panics_nowhere() {
    let acts: [Named; 6] = [
        ("flush", |session| drop(session.flush())),
        ("commit", |session| drop(session.commit())),
        ("rollback", |session| drop(session.rollback())),
        ("expunge_all", |session| drop(session.expunge_all())),
        ("refresh_all", |session| drop(session.refresh_all())),
        ("nested", |session| drop(session.nested(|session| session.refresh_all()))),
    ];
    for (name, act) in acts {
        for n in 0..8 {
            let engine = engine();
            let session = Session::new(&engine);
            let times = Cell::new(0);
            let act = move |session: &Sqlite3, _: &str| {
                if times.replace(times.get() + 1) == n {
                    act(session);
                }
            };
            let at = At {
                call: "transition",
                act: std::rc::Rc::new(act),
                session: std::rc::Rc::new(Some(session.clone()).into()),
            };
            session.listen(at.clone());
            let said = catch_unwind(AssertUnwindSafe(|| {
                let one = session.add(City { code: "A".into(), name: "x".into() })?;
                session.add(City { code: "B".into(), name: "x".into() })?;
                session.flush()?;
                session.delete(&one)?;
                session.add(City { code: "C".into(), name: "x".into() })?;
                session.commit()
            }));
            at.session.take();
            session.close();
            drop(session);
            let other = Session::new(&engine);
            let mut stored: Vec<String> = other.load(cities::table.select(cities::code)).unwrap();
            stored.sort();
            assert!(said.is_ok(), "{name} at transition {n}: a panic");
            let is_ok = said.as_ref().is_ok_and(Result::is_ok);
            if is_ok && name != "rollback" && name != "expunge_all" {
                assert_eq!(stored, ["B", "C"], "{name} at transition {n}");
            }
        }
    }
}
