//! SQLAlchemy's `test_naturalpks.py`: keys that change.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, Tracked};

use super::db::Session;
use super::recorder::{Stage, behind_the_back, is_mysql, sent, texts, written};
use super::shape_tables::*;
use super::shapes::*;

fn person(username: &str) -> Person {
    Person { username: username.into(), fullname: "full name".into() }
}

fn rename(person: &Tracked<Person>, username: &str) {
    person.write().unwrap().username = username.into();
}

// parity: NaturalPKTest::test_load_after_expire
#[test]
fn a_row_whose_key_somebody_else_changed_is_gone() {
    let stage = Stage::new();
    let session = stage.session();
    let jack = session.add(person("jack")).unwrap();
    session.commit().unwrap();
    behind_the_back(&session, "UPDATE people SET username = 'ed'");
    let error = session.refresh(&jack).unwrap_err();
    assert!(matches!(error, Error::RowGone { table: "people", .. }), "{error}");
    assert_eq!(jack.state(), ObjectState::Detached);
    assert_eq!(session.get_one::<Person>("ed").unwrap().read().unwrap().fullname, "full name");
}

// parity: NaturalPKTest::test_flush_new_pk_after_expire
#[test]
fn a_stale_row_that_gets_a_new_key_is_found_by_its_old_one() {
    let stage = Stage::new();
    let session = stage.session();
    let jack = session.add(person("jack")).unwrap();
    session.commit().unwrap();
    assert!(jack.is_stale());
    let mut update = Vec::new();
    let steps = sent(|| {
        rename(&jack, "ed");
        update = texts(|| session.flush().unwrap());
    });
    assert!(steps.is_empty());
    assert!(update[0].contains("\"ed\", \"jack\""), "{update:?}");
    assert_eq!(session.get_one::<Person>("ed").unwrap(), jack);
    assert!(session.get::<Person>("jack").unwrap().is_none());
    session.rollback().unwrap();
    assert_eq!(session.get_one::<Person>("jack").unwrap(), jack);
    assert!(session.get::<Person>("ed").unwrap().is_none());
}

fn letters(session: &Session, owner: &Tracked<Person>) -> [Tracked<Letter>; 2] {
    ["one", "two"].map(|body| {
        let make = move |owner: &Person| NewLetter { username: Some(owner.username.clone()), body: body.into() };
        session.add_with(owner, make).unwrap()
    })
}

// parity: NaturalPKTest::test_manytoone_passive
// parity: NaturalPKTest::test_bidirectional_passive
#[test]
fn where_the_database_hands_a_new_key_on_one_statement_is_sent_and_children_are_read_anew() {
    let stage = Stage::new();
    let session = stage.session();
    let jack = session.add(person("jack")).unwrap();
    let letters = letters(&session, &jack);
    session.flush().unwrap();
    rename(&jack, "ed");
    assert_eq!(sent(|| session.flush().unwrap()), ["UPDATE people username"]);
    // What is shown may be old, and is not taken for new.
    assert!(letters.iter().all(Tracked::is_stale));
    letters[0].write().unwrap().body = "changed".into();
    assert_eq!(letters[0].read().unwrap().username.as_deref(), Some("ed"));
    let loaded = session.related::<Letter, Person>(std::slice::from_ref(&jack)).unwrap().remove(0);
    assert_eq!(loaded, letters);
    session.commit().unwrap();
    let stored = stage.stored::<(Option<String>, String)>(
        letters::table.select((letters::username, letters::body)).order(letters::id),
    );
    assert_eq!(stored, [(Some("ed".into()), "changed".into()), (Some("ed".into()), "two".into())]);
}

fn home(session: &Session) -> (Tracked<Home>, Tracked<Pet>) {
    let home = session.add(Home { name: "here".into(), city: "city".into() }).unwrap();
    let pet = session.add_with(&home, |home| Pet { name: "rex".into(), home: Some(home.name.clone()) }).unwrap();
    session.commit().unwrap();
    (home, pet)
}

// parity: NaturalPKTest::test_onetomany_nonpassive
// parity: NaturalPKTest::test_manytoone_nonpassive
// parity: NaturalPKTest::test_bidirectional_nonpassive
#[test]
fn where_it_does_not_children_are_loaded_and_written_after_their_parent() {
    let stage = Stage::new();
    let session = stage.session();
    let (home, pet) = home(&session);
    let steps = written(|| {
        for pet in session.related::<Pet, Home>(std::slice::from_ref(&home)).unwrap().concat() {
            pet.write().unwrap().home = Some("there".into());
        }
        home.write().unwrap().name = "there".into();
        session.commit().unwrap();
    });
    assert_eq!(steps, ["UPDATE homes name", "UPDATE pets home"]);
    assert_eq!(pet.read().unwrap().home.as_deref(), Some("there"));
    assert_eq!(stage.stored::<Option<String>>(pets::table.select(pets::home)), [Some("there".into())]);
    // And back, from the other side.
    let parent = session.parents::<Home, Pet>(std::slice::from_ref(&pet)).unwrap().remove(0).unwrap();
    assert_eq!(parent, home);
}

// parity: NaturalPKTest::test_manytoone_nonpassive_cold_mapping
#[test]
fn a_key_that_nobody_refers_to_is_changed_alone() {
    let stage = Stage::new();
    let session = stage.session();
    let (home, _) = home(&session);
    session.expunge_all().unwrap();
    let home = session.get_one::<Home>(home.key().unwrap()).unwrap();
    home.write().unwrap().name = "there".into();
    assert_eq!(sent(|| session.commit().unwrap()), ["UPDATE homes name"]);
    assert_eq!(stage.stored::<Option<String>>(pets::table.select(pets::home)), [Some("here".into())]);
}

// parity: NaturalPKTest::test_manytomany_passive
#[test]
fn links_follow_the_keys_of_their_ends() {
    let stage = Stage::new();
    let session = stage.session();
    let [jack, ed] = ["jack", "ed"].map(|name| session.add(person(name)).unwrap());
    let link = session
        .add_with((&jack, &ed), |(one, other)| Friendship { one: one.username.clone(), other: other.username.clone() })
        .unwrap();
    session.commit().unwrap();
    rename(&jack, "jo");
    assert_eq!(written(|| session.commit().unwrap()), ["UPDATE people username"]);
    assert_eq!(stage.stored::<(String, String)>(friendships::table), [("jo".into(), "ed".into())]);
    // The link is another one now: its key changed.
    assert!(matches!(session.refresh(&link), Err(Error::RowGone { table: "friendships", .. })));
    let link = session.get_one::<Friendship>(("jo".to_owned(), "ed".to_owned())).unwrap();
    session.delete(&link).unwrap();
    session.commit().unwrap();
    assert_eq!(stage.stored::<i64>(friendships::table.count()), [0]);
}

// parity: TransientExceptionTesst::test_transient_exception
#[test]
fn a_row_that_was_forgotten_and_added_with_a_new_key_is_a_new_row() {
    let stage = Stage::new();
    let session = stage.session();
    let jack = session.add(person("jack")).unwrap();
    let letters = letters(&session, &jack);
    session.commit().unwrap();
    session.expunge(&jack).unwrap();
    let mut value = jack.into_value().unwrap();
    value.username = "ed".into();
    session.add(value).unwrap();
    assert_eq!(written(|| session.commit().unwrap()), ["INSERT people"]);
    session.refresh_all().unwrap();
    assert_eq!(letters[0].read().unwrap().username.as_deref(), Some("jack"));
}

fn slot(status: i32, title: &str) -> Slot {
    Slot { code: 1, status, title: title.into() }
}

fn slots_of(stage: &Stage) -> Vec<(i32, String)> {
    stage.stored(slots::table.select((slots::status, slots::title)).order(slots::status))
}

// parity: ReversePKsTest::test_reverse
#[test]
fn keys_are_handed_on_in_one_flush_in_the_order_of_the_old_ones() {
    for with_title in [false, true] {
        let stage = Stage::new();
        let session = stage.session();
        let published = session.add(slot(1, "published")).unwrap();
        let editable = session.add(slot(2, "editable")).unwrap();
        session.commit().unwrap();
        editable.write().unwrap().status = 1;
        published.write().unwrap().status = 3;
        if with_title {
            published.write().unwrap().title = "archived".into();
        }
        session.commit().unwrap();
        assert_eq!(session.get_one::<Slot>((1, 1)).unwrap(), editable);
        assert_eq!(session.get_one::<Slot>((1, 3)).unwrap(), published);
        session.commit().unwrap();
        let title = if with_title { "archived" } else { "published" };
        assert_eq!(slots_of(&stage), [(1, "editable".into()), (3, title.into())]);
    }
}

// parity: ReversePKsTest::test_reverse_savepoint
#[test]
fn keys_that_were_handed_on_in_a_savepoint_come_back_with_it() {
    let stage = Stage::new();
    let session = stage.session();
    let published = session.add(slot(1, "published")).unwrap();
    let editable = session.add(slot(2, "editable")).unwrap();
    session.commit().unwrap();
    let savepoint = session.begin_nested().unwrap();
    editable.write().unwrap().status = 1;
    published.write().unwrap().status = 3;
    published.write().unwrap().title = "archived".into();
    session.flush().unwrap();
    assert_eq!(session.get_one::<Slot>((1, 1)).unwrap(), editable);
    savepoint.rollback().unwrap();
    assert_eq!((published.key(), editable.key()), (Some((1, 1)), Some((1, 2))));
    assert_eq!(published.read().unwrap().title, "published");
    assert_eq!(session.get_one::<Slot>((1, 1)).unwrap(), published);
    assert_eq!(session.get_one::<Slot>((1, 2)).unwrap(), editable);
    editable.write().unwrap().title = "changed".into();
    session.commit().unwrap();
    assert_eq!(slots_of(&stage), [(1, "published".into()), (2, "changed".into())]);
}

// parity: SelfReferentialTest::test_one_to_many_on_m2o
// parity: SelfReferentialTest::test_one_to_many_on_o2m
// parity: SelfReferentialTest::test_many_to_one_nonpassive
#[test]
fn a_new_key_in_a_tree_is_written_to_its_children() {
    let stage = Stage::new();
    let session = stage.session();
    let sailor = |name: &str, boss: Option<&str>| Sailor { name: name.into(), boss: boss.map(Into::into) };
    let rows = [sailor("captain", None), sailor("mate", Some("captain")), sailor("boy", Some("captain"))];
    let [captain, ..] = rows.map(|row| session.add(row).unwrap());
    session.commit().unwrap();
    let steps = written(|| {
        for child in session.related::<Sailor, Sailor>(std::slice::from_ref(&captain)).unwrap().concat() {
            child.write().unwrap().boss = Some("admiral".into());
        }
        captain.write().unwrap().name = "admiral".into();
        session.commit().unwrap();
    });
    let mut sorted = steps.clone();
    sorted.sort();
    assert_eq!(sorted, ["UPDATE crew boss", "UPDATE crew name"], "{steps:?}");
    let bosses = stage.stored::<Option<String>>(crew::table.select(crew::boss).order(crew::name));
    assert_eq!(bosses, [None, Some("admiral".into()), Some("admiral".into())]);
}

// parity: SelfReferentialTest::test_many_to_one_passive
#[test]
fn a_new_key_in_a_tree_is_handed_on_by_the_database_where_it_can() {
    let stage = Stage::new();
    let session = stage.session();
    let boss = session.add(Employee { name: "boss".into(), boss: None }).unwrap();
    session.flush().unwrap();
    let child = session.add(Employee { name: "child".into(), boss: Some("boss".into()) }).unwrap();
    session.commit().unwrap();
    boss.write().unwrap().name = "chief".into();
    let mut result = Ok(());
    assert_eq!(written(|| result = session.flush()), ["UPDATE staff name"]);
    if is_mysql() {
        // It does not cascade into the table that it came from, and refuses (MySQL docs, "FOREIGN KEY Constraints").
        result.unwrap_err();
        return;
    }
    result.unwrap();
    assert!(child.is_stale());
    session.refresh(&child).unwrap();
    assert_eq!(child.read().unwrap().boss.as_deref(), Some("chief"));
}
