//! SQLAlchemy's `test_naturalpks.py`: foreign keys to other columns, and in the child's own key.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, Tracked};

use super::db::Session;
use super::recorder::{Stage, sent, written};
use super::shape_tables::*;
use super::shapes::*;

// parity: NonPKCascadeTest::test_onetomany_passive
#[test]
fn a_new_value_of_a_column_that_is_no_key_is_handed_on_by_the_database() {
    let stage = Stage::new();
    let session = stage.session();
    let badge = session.add(NewBadge { code: "old".into() }).unwrap();
    let scan = session.add_with(&badge, |badge| NewScan { code: badge.code.clone() }).unwrap();
    session.commit().unwrap();
    badge.write().unwrap().code = "new".into();
    assert_eq!(sent(|| session.commit().unwrap()), ["UPDATE badges code"]);
    scan.update(|scan| assert_eq!(scan.code, "new")).unwrap();
    session.commit().unwrap();
    assert_eq!(stage.stored::<String>(scans::table.select(scans::code)), ["new"]);
}

// parity: NonPKCascadeTest::test_onetomany_nonpassive
#[test]
fn a_new_value_of_a_column_that_is_no_key_is_written_to_the_children_afterwards() {
    let stage = Stage::new();
    let session = stage.session();
    let badge = session.add(NewBadge { code: "old".into() }).unwrap();
    let stamp = session.add_with(&badge, |badge| NewStamp { code: badge.code.clone() }).unwrap();
    session.commit().unwrap();
    stamp.write().unwrap().code = "new".into();
    badge.write().unwrap().code = "new".into();
    assert_eq!(written(|| session.commit().unwrap()), ["UPDATE badges code", "UPDATE stamps code"]);
    assert_eq!(stage.stored::<String>(stamps::table.select(stamps::code)), ["new"]);
}

fn person(username: &str) -> Person {
    Person { username: username.into(), fullname: "full name".into() }
}

fn mailbox(session: &Session, owner: &Tracked<Person>, email: &'static str) -> Tracked<Mailbox> {
    let make =
        move |owner: &Person| Mailbox { username: owner.username.clone(), email: email.into(), note: "note".into() };
    session.add_with(owner, make).unwrap()
}

fn mailboxes_of(stage: &Stage) -> Vec<(String, String, String)> {
    stage.stored(mailboxes::table.order((mailboxes::username, mailboxes::email)))
}

fn row(username: &str, email: &str, note: &str) -> (String, String, String) {
    (username.into(), email.into(), note.into())
}

// parity: CascadeToFKPKTest::test_onetomany_passive
// parity: CascadeToFKPKTest::test_change_m2o_passive
// parity: CascadeToFKPKTest::test_o2m_change_passive
#[test]
fn a_child_whose_key_the_database_changed_is_another_entity_and_the_old_one_is_gone() {
    let stage = Stage::new();
    let session = stage.session();
    let jack = session.add(person("jack")).unwrap();
    let boxes = ["a", "b"].map(|email| mailbox(&session, &jack, email));
    session.commit().unwrap();
    // A change of the child in the same flush goes by its old key, and comes too late.
    boxes[0].write().unwrap().note = "changed".into();
    jack.write().unwrap().username = "ed".into();
    assert!(matches!(session.flush(), Err(Error::StaleData { table: "mailboxes", .. })));
    session.rollback().unwrap();
    boxes[0].write().unwrap().note = "changed".into();
    session.flush().unwrap();
    jack.write().unwrap().username = "ed".into();
    assert_eq!(sent(|| session.flush().unwrap()), ["UPDATE people username"]);
    assert!(boxes.iter().all(Tracked::is_stale));
    assert!(matches!(boxes[1].write(), Err(Error::RowGone { table: "mailboxes", .. })));
    assert_eq!(boxes[1].state(), ObjectState::Detached);
    let loaded = session.related::<Mailbox, Person>(std::slice::from_ref(&jack)).unwrap().remove(0);
    loaded[1].write().unwrap().note = "another".into();
    session.commit().unwrap();
    assert_eq!(mailboxes_of(&stage), [row("ed", "a", "changed"), row("ed", "b", "another")]);
}

fn drawers(session: &Session) -> (Tracked<Home>, [Tracked<Drawer>; 2]) {
    let home = session.add(Home { name: "here".into(), city: "city".into() }).unwrap();
    let drawers = ["a", "b"].map(|label| {
        let make = move |home: &Home| Drawer { home: home.name.clone(), label: label.into(), note: "note".into() };
        session.add_with(&home, make).unwrap()
    });
    session.commit().unwrap();
    (home, drawers)
}

// parity: CascadeToFKPKTest::test_onetomany_nonpassive
// parity: CascadeToFKPKTest::test_change_m2o_nonpassive
// parity: CascadeToFKPKTest::test_o2m_change_nonpassive
#[test]
fn children_get_the_new_key_of_their_parent_in_theirs_with_their_other_changes() {
    for with_note in [false, true] {
        let stage = Stage::new();
        let session = stage.session();
        let (home, drawers) = drawers(&session);
        home.write().unwrap().name = "there".into();
        for drawer in &drawers {
            drawer.write().unwrap().home = "there".into();
            if with_note {
                drawer.write().unwrap().note = "changed".into();
            }
        }
        let columns = if with_note { "UPDATE drawers home note" } else { "UPDATE drawers home" };
        assert_eq!(written(|| session.commit().unwrap()), ["UPDATE homes name", columns]);
        let key = ("there".to_owned(), "a".to_owned());
        assert_eq!(session.get_one::<Drawer>(key).unwrap(), drawers[0]);
        session.commit().unwrap();
        let stored = stage.stored::<(String, String)>(drawers::table.select((drawers::home, drawers::note)));
        let note = if with_note { "changed" } else { "note" };
        assert_eq!(stored, vec![("there".to_owned(), note.to_owned()); 2]);
    }
}

// parity: CascadeToFKPKTest::test_o2m_move_passive
// parity: CascadeToFKPKTest::test_move_m2o_passive
// parity: CascadeToFKPKTest::test_move_m2o_nonpassive
#[test]
fn a_child_that_moves_to_another_parent_has_another_key() {
    let stage = Stage::new();
    let session = stage.session();
    let [jack, _ed] = ["jack", "ed"].map(|name| session.add(person(name)).unwrap());
    let boxes = ["a", "b"].map(|email| mailbox(&session, &jack, email));
    session.commit().unwrap();
    boxes[0].write().unwrap().username = "ed".into();
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE mailboxes username"]);
    assert_eq!(boxes[0].key(), Some(("ed".into(), "a".into())));
    session.commit().unwrap();
    assert_eq!(mailboxes_of(&stage), [row("ed", "a", "note"), row("jack", "b", "note")]);
    // Also to one that is new in the same flush.
    session.add(person("new")).unwrap();
    boxes[1].write().unwrap().username = "new".into();
    assert_eq!(written(|| session.commit().unwrap()), ["INSERT people", "UPDATE mailboxes username"]);
    assert_eq!(mailboxes_of(&stage)[1], row("new", "b", "note"));
}
