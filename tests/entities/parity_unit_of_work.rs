//! SQLAlchemy's `test_unitofwork.py`: what is stored, and what is sent for it.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState};

use super::models::*;
use super::recorder::{Stage, is_mysql, is_postgres, is_sqlite, sent, texts, written};
use super::schema::{groups, users};
use super::shape_tables::*;
use super::shapes::*;

fn person(username: &str) -> Person {
    Person { username: username.into(), fullname: username.to_uppercase() }
}

fn letter(username: Option<&str>, body: &str) -> NewLetter {
    NewLetter { username: username.map(Into::into), body: body.into() }
}

fn group(name: &str, owner_id: Option<i32>) -> NewGroup {
    NewGroup { name: name.into(), owner_id }
}

fn owners(stage: &Stage) -> Vec<(String, Option<i32>)> {
    stage.stored(groups::table.select((groups::name, groups::owner_id)).order(groups::id))
}

// parity: HistoryTest::test_backref
#[test]
fn a_child_that_is_made_of_its_parent_saves_both_and_loads_as_it_was_stored() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    let club = session.add_with(&ann, |ann| group("club", Some(ann.id))).unwrap();
    session.commit().unwrap();
    session.expunge_all().unwrap();
    let loaded = session.get_one::<Group>(club.key().unwrap()).unwrap();
    assert_eq!(*loaded.read().unwrap(), *club.read().unwrap());
    let owner = session.parents::<User, Group>(&[loaded]).unwrap().remove(0).unwrap();
    assert_eq!(owner.id().unwrap(), ann.id().unwrap());
    assert_eq!(session.related::<Group, User>(&[owner]).unwrap()[0].len(), 1);
    assert!(!session.has_changes());
}

// parity: UnicodeTest::test_basic
// parity: UnicodeTest::test_relationship
#[test]
fn text_beyond_ascii_comes_back_as_it_was_also_as_a_key_that_children_have() {
    const TEXT: &str = "\u{160}\u{110}\u{106}\u{10c}\u{17d} 木 🦀";
    let stage = Stage::new();
    let session = stage.session();
    let parent = session.add(person(TEXT)).unwrap();
    let child = session.add_with(&parent, |parent| letter(Some(&parent.username), &parent.username)).unwrap();
    session.commit().unwrap();
    session.expunge_all().unwrap();
    assert_eq!(session.get_one::<Person>(TEXT).unwrap().read().unwrap().username, TEXT);
    let stored = session.get_one::<Letter>(child.key().unwrap()).unwrap();
    assert_eq!(stored.read().unwrap().username.as_deref(), Some(TEXT));
    assert_eq!(stored.read().unwrap().body, TEXT);
}

// parity: UnicodeSchemaTest::test_mapping
#[test]
fn tables_and_columns_with_names_beyond_ascii_are_written() {
    let stage = Stage::new();
    let session = stage.session();
    let one = session.add(NewUnite { meil: "one".into(), under: None }).unwrap();
    let two = session.add_with(&one, |one| NewUnite { meil: "two".into(), under: Some(one.id) }).unwrap();
    session.flush().unwrap();
    two.write().unwrap().meil = "three".into();
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE unitéble méil"]);
    session.delete(&two).unwrap();
    session.delete(&one).unwrap();
    assert_eq!(written(|| session.flush().unwrap()), ["DELETE unitéble"]);
    session.commit().unwrap();
    assert_eq!(stage.stored::<i64>(unite::table.count()), [0]);
}

// parity: BinaryHistTest::test_binary_equality
#[test]
fn equal_bytes_are_no_change() {
    let stage = Stage::new();
    let session = stage.session();
    let bytes = vec![0, 159, 146, 150];
    let blob = session.add(NewBlob { data: Some(bytes.clone()) }).unwrap();
    session.commit().unwrap();
    session.refresh(&blob).unwrap();
    blob.write().unwrap().data = Some(bytes);
    assert!(!session.is_modified(&blob));
    assert!(texts(|| session.flush().unwrap()).is_empty());
    blob.write().unwrap().data = Some(vec![1]);
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE blobs data"]);
}

// parity: PKTest::test_key_pks
#[test]
fn a_key_whose_fields_are_called_otherwise_than_its_columns_is_written_by_the_columns() {
    let stage = Stage::new();
    let session = stage.session();
    let row = session.add(Aliased { kind: 1, phase: 2, title: "one".into() }).unwrap();
    session.flush().unwrap();
    assert_eq!(row.key(), Some((1, 2)));
    row.write().unwrap().phase = 3;
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE slots status"]);
    session.commit().unwrap();
    assert_eq!(stage.stored::<(i32, i32)>(slots::table.select((slots::code, slots::status))), [(1, 3)]);
}

// parity: ClauseAttributesTest::test_update
#[test]
fn an_expression_is_written_by_apply_and_its_value_read_back() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    session.flush().unwrap();
    let steps = sent(|| session.apply(&ann, users::balance.eq(users::balance + 7)).unwrap());
    assert_eq!(steps, ["UPDATE users balance version", "SELECT users"]);
    assert_eq!((ann.read().unwrap().balance, ann.read().unwrap().version), (7, 2));
    ann.write().unwrap().balance += 1;
    session.commit().unwrap();
    assert_eq!(stage.stored::<i64>(users::table.select(users::balance)), [8]);
}

// parity: ClauseAttributesTest::test_insert
// parity: ClauseAttributesTest::test_insert_pk_expression
#[test]
fn a_row_that_is_made_of_expressions_is_inserted_by_a_statement_and_then_read() {
    let stage = Stage::new();
    let session = stage.session();
    session.add(person("first")).unwrap();
    let insert = diesel::insert_into(people::table).values((
        people::username.eq(diesel::dsl::sql::<diesel::sql_types::Text>("lower('ANN')")),
        people::fullname.eq(diesel::dsl::sql::<diesel::sql_types::Text>("upper('ann')")),
    ));
    // What waited goes first, as in a flush.
    assert_eq!(sent(|| assert_eq!(session.execute(insert).unwrap(), 1)), ["INSERT people"]);
    let ann = session.get_one::<Person>("ann").unwrap();
    assert_eq!(ann.read().unwrap().fullname, "ANN");
    session.commit().unwrap();
    assert_eq!(
        stage.stored::<String>(people::table.select(people::username).order(people::username)),
        ["ann", "first"]
    );
}

// parity: OneToManyTest::test_one_to_many_1
#[test]
fn children_are_inserted_after_their_parent_and_later_only_what_changed_is_written() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    let one = session.add_with(&ann, |ann| group("one", Some(ann.id))).unwrap();
    let two = session.add_with(&ann, |ann| group("two", Some(ann.id))).unwrap();
    assert_eq!(written(|| session.flush().unwrap()), ["INSERT users", "INSERT groups"]);
    let id = ann.id().unwrap();
    assert_eq!(one.read().unwrap().owner_id, Some(id));
    two.write().unwrap().name = "three".into();
    let update = texts(|| session.flush().unwrap());
    assert_eq!(update.len(), 1);
    assert!(update[0].contains("name") && !update[0].contains("owner_id"), "{update:?}");
    session.commit().unwrap();
    assert_eq!(owners(&stage), [("one".into(), Some(id)), ("three".into(), Some(id))]);
}

// parity: OneToManyTest::test_child_move
// parity: OneToManyTest::test_child_move_2
#[test]
fn a_child_moves_to_another_parent_before_its_old_one_is_deleted() {
    for is_deleted in [true, false] {
        let stage = Stage::new();
        let session = stage.session();
        let [ann, bob] = [user("ann"), user("bob")].map(|user| session.add(user).unwrap());
        let club = session.add_with(&ann, |ann| group("club", Some(ann.id))).unwrap();
        session.flush().unwrap();
        club.write().unwrap().owner_id = Some(bob.id().unwrap());
        if is_deleted {
            session.delete(&ann).unwrap();
        }
        let steps = written(|| session.flush().unwrap());
        assert_eq!(steps[0], "UPDATE groups owner_id");
        assert_eq!(steps[1..], ["DELETE users"][..usize::from(is_deleted)]);
        session.commit().unwrap();
        assert_eq!(owners(&stage), [("club".into(), bob.key())]);
    }
}

// parity: OneToManyTest::test_o2m_delete_parent
#[test]
fn a_parent_goes_after_its_child_was_told_to_have_none() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    let club = session.add_with(&ann, |ann| group("club", Some(ann.id))).unwrap();
    session.flush().unwrap();
    session.delete(&ann).unwrap();
    club.write().unwrap().owner_id = None;
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE groups owner_id", "DELETE users"]);
    assert_eq!((ann.state(), club.state()), (ObjectState::Deleted, ObjectState::Persistent));
    session.commit().unwrap();
    assert_eq!(owners(&stage), [("club".into(), None)]);
}

// parity: OneToManyTest::test_one_to_one
// parity: OneToManyTest::test_bidirectional
#[test]
fn a_pair_is_inserted_changed_and_deleted_in_the_order_of_its_key() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    let club = session.add_with(&ann, |ann| group("club", Some(ann.id))).unwrap();
    session.flush().unwrap();
    club.write().unwrap().name = "other".into();
    ann.write().unwrap().email = Some("ann@x".into());
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE users email version", "UPDATE groups name"]);
    // In whatever order they are told to go.
    session.delete(&ann).unwrap();
    session.delete(&club).unwrap();
    assert_eq!(written(|| session.flush().unwrap()), ["DELETE groups", "DELETE users"]);
    session.commit().unwrap();
    assert!(owners(&stage).is_empty());
}

// parity: OneToManyTest::test_double_relationship
#[test]
fn a_row_with_two_keys_to_one_table_is_made_of_both_parents() {
    let stage = Stage::new();
    let session = stage.session();
    let [one, two] = ["one", "two"].map(|name| session.add(NewNode { parent_id: None, name: name.into() }).unwrap());
    let link = session.add_with((&one, &two), |(one, two)| NodeLink { one_id: one.id, other_id: two.id }).unwrap();
    assert_eq!(written(|| session.flush().unwrap()), ["INSERT nodes", "INSERT node_links"]);
    session.commit().unwrap();
    let ids = (one.id().unwrap(), two.id().unwrap());
    assert_eq!(link.key(), Some(ids));
    assert_eq!(stage.stored::<(i32, i32)>(node_links::table), [ids]);
}

// parity: SaveTest::test_basic
#[test]
fn an_entity_is_itself_until_it_is_forgotten_and_can_come_back_with_its_changes() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    session.flush().unwrap();
    let id = ann.id().unwrap();
    assert_eq!(session.get_one::<User>(id).unwrap(), ann);
    session.expunge_all().unwrap();
    let again = session.get_one::<User>(id).unwrap();
    assert_ne!(again, ann);
    assert_eq!(ann.state(), ObjectState::Detached);
    session.expunge(&again).unwrap();
    let mut detached = again.into_value().unwrap();
    detached.nickname = "anna".into();
    let merged = session.merge_existing(detached).unwrap();
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE users nickname version"]);
    session.commit().unwrap();
    assert_eq!(merged.read().unwrap().nickname, "anna");
    assert_eq!(stage.stored::<String>(users::table.select(users::nickname)), ["anna"]);
}

// parity: SaveTest::test_dont_update_blanks
#[test]
fn an_empty_text_that_was_empty_is_not_written() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(NewUser { email: Some(String::new()), ..user("ann") }).unwrap();
    session.commit().unwrap();
    ann.write().unwrap().email = Some(String::new());
    assert!(texts(|| session.flush().unwrap()).is_empty());
    assert!(session.dirty_entities::<User>().is_empty());
}

// parity: SaveTest::test_history_get
#[test]
fn children_are_loaded_to_be_deleted_with_their_parent() {
    let stage = Stage::new();
    let id = stage.store(|session| {
        let ann = session.add(user("ann")).unwrap();
        session.add_with(&ann, |ann| group("one", Some(ann.id))).unwrap();
        session.add_with(&ann, |ann| group("two", Some(ann.id))).unwrap();
        ann.id().unwrap()
    });
    let session = stage.session();
    let ann = session.get_one::<User>(id).unwrap();
    let steps = sent(|| {
        for child in session.related::<Group, User>(std::slice::from_ref(&ann)).unwrap().concat() {
            session.delete(&child).unwrap();
        }
        session.delete(&ann).unwrap();
        session.flush().unwrap();
    });
    assert_eq!(steps, ["SELECT groups", "DELETE groups", "DELETE users"]);
    session.commit().unwrap();
    assert!(owners(&stage).is_empty());
}

// parity: ManyToOneTest::test_m2o_one_to_one
#[test]
fn of_many_pairs_what_is_referred_to_comes_first_and_each_change_is_written_once() {
    let stage = Stage::new();
    let session = stage.session();
    let names = ["ann", "bob", "cyd", "dee", "eve"];
    let users = session.add_all(names.map(user)).unwrap();
    let clubs: Vec<_> =
        users.iter().map(|user| session.add_with(user, |user| group(&user.nickname, Some(user.id))).unwrap()).collect();
    assert_eq!(written(|| session.flush().unwrap()), ["INSERT users", "INSERT groups"]);
    clubs[0].write().unwrap().name = "changed".into();
    clubs[1].write().unwrap().owner_id = users[4].key();
    session.add(group("new", users[0].key())).unwrap();
    let steps = written(|| session.flush().unwrap());
    assert_eq!(steps, ["UPDATE groups name", "UPDATE groups owner_id", "INSERT groups"]);
    session.commit().unwrap();
    assert_eq!(owners(&stage)[..2], [("changed".into(), users[0].key()), ("bob".into(), users[4].key())]);
    assert_eq!(owners(&stage)[5], ("new".into(), users[0].key()));
}

// parity: ManyToOneTest::test_many_to_one_1
// parity: ManyToOneTest::test_many_to_one_2
// parity: ManyToOneTest::test_many_to_one_3
#[test]
fn a_foreign_key_is_set_to_nothing_swapped_and_set_to_another() {
    let stage = Stage::new();
    let session = stage.session();
    let [ann, bob] = [user("ann"), user("bob")].map(|user| session.add(user).unwrap());
    let one = session.add_with(&ann, |ann| group("one", Some(ann.id))).unwrap();
    let two = session.add_with(&bob, |bob| group("two", Some(bob.id))).unwrap();
    session.commit().unwrap();
    let (ann, bob) = (ann.key(), bob.key());
    for (first, second) in [(None, bob), (bob, None), (ann, bob), (bob, ann), (ann, ann)] {
        one.write().unwrap().owner_id = first;
        two.write().unwrap().owner_id = second;
        assert_eq!(written(|| session.commit().unwrap()), ["UPDATE groups owner_id"]);
        assert_eq!(owners(&stage), [("one".into(), first), ("two".into(), second)]);
    }
}

// parity: BooleanColTest::test_boolean
#[test]
fn a_boolean_comes_back_and_is_written_when_it_changes() {
    let stage = Stage::new();
    let session = stage.session();
    let on = session.add(NewGadget { is_on: true, ..gadget("on") }).unwrap();
    let off = session.add(gadget("off")).unwrap();
    session.commit().unwrap();
    session.refresh_all().unwrap();
    assert!(on.read().unwrap().is_on && !off.read().unwrap().is_on);
    on.write().unwrap().is_on = true;
    assert!(texts(|| session.flush().unwrap()).is_empty());
    off.write().unwrap().is_on = true;
    assert_eq!(written(|| session.commit().unwrap()), ["UPDATE gadgets is_on"]);
    assert_eq!(
        stage.stored::<String>(gadgets::table.filter(gadgets::is_on).select(gadgets::label).order(gadgets::label)),
        ["off", "on"]
    );
}

// parity: RowSwitchTest::test_onetomany
#[test]
fn a_row_that_takes_the_place_of_a_deleted_one_is_an_update_and_its_children_are_replaced() {
    let stage = Stage::new();
    let session = stage.session();
    let old = session.add(person("ann")).unwrap();
    let child = session.add_with(&old, |old| letter(Some(&old.username), "old")).unwrap();
    session.commit().unwrap();
    session.delete(&old).unwrap();
    session.delete(&child).unwrap();
    let new = session.add(Person { fullname: "another".into(), ..person("ann") }).unwrap();
    session.add_with(&new, |new| letter(Some(&new.username), "new")).unwrap();
    let steps = written(|| session.flush().unwrap());
    assert_eq!(steps, ["UPDATE people fullname", "INSERT letters", "DELETE letters"]);
    assert_eq!((old.state(), new.state()), (ObjectState::Deleted, ObjectState::Persistent));
    session.commit().unwrap();
    assert_eq!(stage.stored::<Person>(people::table), [Person { fullname: "another".into(), ..person("ann") }]);
    assert_eq!(stage.stored::<String>(letters::table.select(letters::body)), ["new"]);
}

// parity: PartialNullPKTest::test_key_switch
// parity: PartialNullPKTest::test_plain_update
// parity: PartialNullPKTest::test_delete
#[test]
fn a_row_whose_key_has_a_null_in_it_can_be_inserted_but_never_found_again() {
    let changes: [fn(&mut Partial); 2] = [|row| row.note = "changed".into(), |row| row.b = Some(2)];
    for change in changes {
        let stage = Stage::new();
        let session = stage.session();
        let row = session.add(Partial { a: 1, b: None, note: "note".into() }).unwrap();
        session.flush().unwrap();
        row.update(change).unwrap();
        let error = session.flush().unwrap_err();
        assert!(matches!(&error, Error::StaleData { keys, .. } if keys[..] == ["(1, None)"]), "{error}");
        session.rollback().unwrap();
    }
    let stage = Stage::new();
    let session = stage.session();
    let row = session.add(Partial { a: 1, b: None, note: "note".into() }).unwrap();
    session.flush().unwrap();
    session.delete(&row).unwrap();
    assert!(matches!(session.flush(), Err(Error::StaleData { table: "partials", expected: 1, matched: 0, .. })));
}

// parity: PartialNullPKTest::test_total_null
#[test]
fn a_key_is_a_value_that_every_row_has() {
    fn key_of<T: diesel_session::Entity<Key = K>, K>() {}
    // A null is in a key only where its type says so.
    key_of::<User, i32>();
    key_of::<Slot, (i32, i32)>();
    key_of::<Partial, (i32, Option<i32>)>();
}

// parity: NoRowInsertedTest::test_insert_single_no_pk_correct_exception
#[test]
fn an_insert_that_stores_no_row_is_an_error_and_leaves_the_record_transient() {
    if is_mysql() {
        // Nothing there makes an INSERT store no row and succeed.
        return;
    }
    let stage = Stage::new();
    let ddl = if is_sqlite() {
        "CREATE TRIGGER store_none BEFORE INSERT ON albums BEGIN SELECT RAISE(IGNORE); END"
    } else {
        assert!(is_postgres());
        "CREATE FUNCTION store_none() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER store_none BEFORE INSERT ON albums FOR EACH ROW EXECUTE FUNCTION store_none()"
    };
    stage.store(|session| session.batch_execute(ddl).unwrap());
    for count in [1, 3] {
        let session = stage.session();
        let record = NewAlbum { title: "title".into() };
        let albums = session.add_all(vec![record.clone(); count]).unwrap();
        let error = session.flush().unwrap_err();
        assert!(error.to_string().contains("rows were sent to albums and 0 stored"), "{error}");
        session.rollback().unwrap();
        assert_eq!(albums[0].state(), ObjectState::Transient);
        assert_eq!(albums[0].into_new::<NewAlbum>().unwrap(), record);
    }
}

// parity: EnsurePKSortableTest::test_persistent_flush_sortable
// parity: UnsortablePKTest::test_updates_sorted
#[test]
fn rows_are_written_in_the_order_that_their_keys_type_has() {
    let stage = Stage::new();
    let session = stage.session();
    let tones = [Tone::Black, Tone::White, Tone::Grey];
    let shades = tones.map(|shade| session.add(Shade { shade, note: None, other: None }).unwrap());
    session.flush().unwrap();
    for shade in &shades {
        shade.write().unwrap().note = Some(Json(serde_json::Value::Bool(true)));
    }
    let text = texts(|| session.flush().unwrap()).concat().to_lowercase();
    let [white, grey, black] = ["white", "grey", "black"].map(|tone| text.find(tone).unwrap());
    assert!(white < grey && grey < black, "{text}");
    session.commit().unwrap();
    assert_eq!(stage.stored::<i64>(shades::table.filter(shades::note.eq("true")).count()), [3]);
}
