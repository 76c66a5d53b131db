//! SQLAlchemy's `test_unitofworkv2.py`: the order of what a flush sends.

use diesel::prelude::*;
use diesel_session::Tracked;

use super::db::Session;
use super::models::*;
use super::recorder::{Stage, count, sent, texts, written};
use super::schema::groups;
use super::shape_tables::*;
use super::shapes::*;

fn club(session: &Session, owner: &Tracked<User>) -> Tracked<Group> {
    session.add_with(owner, |owner| NewGroup { name: "club".into(), owner_id: Some(owner.id) }).unwrap()
}

/// A user with so many clubs.
fn user_with_clubs(session: &Session, clubs: usize) -> (Tracked<User>, Vec<Tracked<Group>>) {
    let ann = session.add(user("ann")).unwrap();
    let clubs = (0..clubs).map(|_| club(session, &ann)).collect();
    (ann, clubs)
}

// parity: RudimentaryFlushTest::test_one_to_many_save
// parity: RudimentaryFlushTest::test_many_to_one_save
#[test]
fn a_parent_is_inserted_and_then_its_children_together() {
    let stage = Stage::new();
    let session = stage.session();
    let (ann, clubs) = user_with_clubs(&session, 4);
    let inserts = ["INSERT users", "INSERT groups"];
    assert_eq!(written(|| session.flush().unwrap()), inserts);
    assert!(clubs.iter().all(|club| club.read().unwrap().owner_id == ann.key()));
    session.rollback().unwrap();
    user_with_clubs(&session, 4);
    assert_eq!(count("INSERT", || session.flush().unwrap()), 2);
}

// parity: RudimentaryFlushTest::test_one_to_many_delete_all
// parity: RudimentaryFlushTest::test_many_to_one_delete_all
#[test]
fn children_are_deleted_together_before_their_parent() {
    for parent_first in [true, false] {
        let stage = Stage::new();
        let session = stage.session();
        let (ann, clubs) = user_with_clubs(&session, 4);
        session.commit().unwrap();
        if parent_first {
            session.delete(&ann).unwrap();
        }
        clubs.iter().for_each(|club| session.delete(club).unwrap());
        if !parent_first {
            session.delete(&ann).unwrap();
        }
        assert_eq!(written(|| session.flush().unwrap()), ["DELETE groups", "DELETE users"]);
        session.rollback().unwrap();
        clubs.iter().for_each(|club| session.delete(club).unwrap());
        assert_eq!(count("DELETE", || session.commit().unwrap()), 1);
        assert_eq!(stage.stored::<i64>(groups::table.count()), [0]);
    }
}

// parity: RudimentaryFlushTest::test_one_to_many_delete_parent
// parity: RudimentaryFlushTest::test_many_to_one_delete_target
#[test]
fn children_lose_their_parent_before_it_is_deleted() {
    let stage = Stage::new();
    let session = stage.session();
    let (ann, clubs) = user_with_clubs(&session, 3);
    session.commit().unwrap();
    session.delete(&ann).unwrap();
    clubs.iter().for_each(|club| club.write().unwrap().owner_id = None);
    assert_eq!(written(|| session.commit().unwrap()), ["UPDATE groups owner_id", "DELETE users"]);
    assert_eq!(stage.stored::<i64>(groups::table.filter(groups::owner_id.is_null()).count()), [3]);
}

// parity: RudimentaryFlushTest::test_many_to_one_delete_childonly_unloaded_expired
// parity: SingleCycleTest::test_delete_unloaded_m2o
#[test]
fn a_stale_parent_is_not_read_when_its_child_is_deleted() {
    let stage = Stage::new();
    let session = stage.session();
    let (ann, clubs) = user_with_clubs(&session, 1);
    session.commit().unwrap();
    assert!(ann.is_stale() && clubs[0].is_stale());
    session.delete(&clubs[0]).unwrap();
    assert_eq!(sent(|| session.commit().unwrap()), ["DELETE groups"]);
    // Nor are rows of a tree, which go from the leaves on.
    let [root, middle, leaf] = chain(&session);
    session.commit().unwrap();
    for node in [&root, &leaf, &middle] {
        session.delete(node).unwrap();
    }
    let steps: Vec<_> = texts(|| session.commit().unwrap());
    assert_eq!(steps.iter().filter(|text| text.starts_with("DELETE")).count(), 3);
    assert!(!steps.iter().any(|text| text.starts_with("SELECT")), "{steps:?}");
}

fn node(session: &Session, parent: Option<&Tracked<Node>>, name: &'static str) -> Tracked<Node> {
    match parent {
        Some(parent) => {
            session.add_with(parent, move |parent| NewNode { parent_id: Some(parent.id), name: name.into() }).unwrap()
        }
        None => session.add(NewNode { parent_id: None, name: name.into() }).unwrap(),
    }
}

/// Each the parent of the next.
fn chain(session: &Session) -> [Tracked<Node>; 3] {
    let root = node(session, None, "root");
    let middle = node(session, Some(&root), "middle");
    let leaf = node(session, Some(&middle), "leaf");
    [root, middle, leaf]
}

// parity: RudimentaryFlushTest::test_natural_selfref
#[test]
fn rows_of_one_table_with_keys_set_by_hand_keep_the_order_in_which_they_were_added() {
    let stage = Stage::new();
    let session = stage.session();
    let rings = [(1, None), (2, Some(1)), (3, Some(2)), (4, Some(3))];
    session.add_all(rings.map(|(id, next_id)| Ring { id, next_id })).unwrap();
    assert_eq!(count("INSERT rings", || session.commit().unwrap()), 1);
    assert_eq!(stage.stored::<(i32, Option<i32>)>(super::schema::rings::table.order(super::schema::rings::id)), rings);
}

// parity: SingleCycleTest::test_one_to_many_save
// parity: SingleCycleTest::test_many_to_one_save
// parity: SingleCycleTest::test_bidirectional_multilevel_save
#[test]
fn a_tree_is_inserted_level_by_level_each_together() {
    let stage = Stage::new();
    let session = stage.session();
    let root = node(&session, None, "root");
    let children: Vec<_> = (0..4).map(|_| node(&session, Some(&root), "child")).collect();
    for child in &children[..2] {
        node(&session, Some(child), "one");
        node(&session, Some(child), "two");
    }
    assert_eq!(count("INSERT nodes", || session.commit().unwrap()), 3);
    let parents = stage.stored::<Option<i32>>(nodes::table.select(nodes::parent_id).order(nodes::id));
    let [root, one, two] = [&root, &children[0], &children[1]].map(diesel_session::Tracked::key);
    assert_eq!(parents, [None, root, root, root, root, one, one, two, two]);
}

// parity: SingleCycleTest::test_one_to_many_delete_all
// parity: SingleCycleTest::test_many_to_one_delete_all
#[test]
fn a_tree_is_deleted_from_its_leaves_to_its_root_in_whatever_order_it_was_told() {
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        let stage = Stage::new();
        let session = stage.session();
        let nodes = chain(&session);
        let more = ["a", "b", "c"].map(|name| node(&session, Some(&nodes[1]), name));
        session.flush().unwrap();
        order.iter().for_each(|number| session.delete(&nodes[*number]).unwrap());
        more.iter().for_each(|node| session.delete(node).unwrap());
        // Four leaves in one statement, then one above the other.
        assert_eq!(count("DELETE nodes", || session.commit().unwrap()), 3);
        assert_eq!(stage.stored::<i64>(nodes::table.count()), [0]);
    }
}

// parity: SingleCycleTest::test_many_to_one_set_null_unloaded
#[test]
fn a_row_loses_its_parent_which_nobody_loads() {
    let stage = Stage::new();
    let leaf = stage.store(|session| chain(session)[2].id().unwrap());
    let session = stage.session();
    let leaf = session.get_one::<Node>(leaf).unwrap();
    leaf.write().unwrap().parent_id = None;
    assert_eq!(sent(|| session.commit().unwrap()), ["UPDATE nodes parent_id"]);
    assert_eq!(stage.stored::<i64>(nodes::table.filter(nodes::parent_id.is_null()).count()), [2]);
}

// parity: SingleCycleTest::test_bidirectional_mutations_one
#[test]
fn a_tree_grows_on_one_side_while_it_is_cut_on_another() {
    let stage = Stage::new();
    let session = stage.session();
    let [root, middle, leaf] = chain(&session);
    session.commit().unwrap();
    session.delete(&leaf).unwrap();
    let new = node(&session, Some(&middle), "new");
    let above = node(&session, None, "above");
    assert_eq!(written(|| session.flush().unwrap()), ["INSERT nodes", "DELETE nodes"]);
    root.write().unwrap().parent_id = above.key();
    session.delete(&new).unwrap();
    assert_eq!(written(|| session.commit().unwrap()), ["UPDATE nodes parent_id", "DELETE nodes"]);
    let stored =
        stage.stored::<(String, Option<i32>)>(nodes::table.select((nodes::name, nodes::parent_id)).order(nodes::id));
    let expected = [("root", above.key()), ("middle", root.key()), ("above", None)];
    assert_eq!(stored, expected.map(|(name, parent)| (name.to_owned(), parent)));
}
