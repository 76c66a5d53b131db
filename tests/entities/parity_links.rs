//! SQLAlchemy's `test_unitofwork.py` and `test_unitofworkv2.py`: many to many, by a table of links.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel_session::Tracked;

use super::db::Session;
use super::models::*;
use super::recorder::{Stage, written};
use super::schema::memberships;
use super::shape_tables::node_links;
use super::shapes::*;

fn club(session: &Session, name: &str) -> Tracked<Group> {
    session.add(NewGroup { name: name.into(), owner_id: None }).unwrap()
}

fn join(session: &Session, user: &Tracked<User>, group: &Tracked<Group>) -> Tracked<Membership> {
    session
        .add_with((user, group), |(user, group)| Membership {
            user_id: user.id,
            group_id: group.id,
            role: "member".into(),
        })
        .unwrap()
}

fn stored(stage: &Stage) -> BTreeSet<(i32, i32)> {
    stage.stored(memberships::table.select((memberships::user_id, memberships::group_id))).into_iter().collect()
}

// parity: ManyToManyTest::test_many_to_many
// parity: ManyToManyTest::test_association
// parity: RudimentaryFlushTest::test_many_to_many
#[test]
fn links_are_inserted_after_both_ends_and_deleted_before_them() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    let clubs = ["one", "two"].map(|name| club(&session, name));
    let links = clubs.each_ref().map(|club| join(&session, &ann, club));
    let steps = written(|| session.flush().unwrap());
    assert_eq!(steps.len(), 3, "{steps:?}");
    assert_eq!(steps[2], "INSERT memberships");
    links[0].write().unwrap().role = "chair".into();
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE memberships role"]);
    // One link goes, one comes.
    let third = club(&session, "three");
    session.delete(&links[0]).unwrap();
    let new = join(&session, &ann, &third);
    let steps = written(|| session.flush().unwrap());
    assert_eq!(steps, ["INSERT groups", "INSERT memberships", "DELETE memberships"]);
    session.delete(&ann).unwrap();
    session.delete(&clubs[1]).unwrap();
    session.delete(&links[1]).unwrap();
    session.delete(&new).unwrap();
    let steps = written(|| session.commit().unwrap());
    assert_eq!(steps[0], "DELETE memberships");
    assert_eq!(steps.len(), 3, "{steps:?}");
    assert!(stored(&stage).is_empty());
}

// parity: ManyToManyTest::test_many_to_many_remove
// parity: ManyToManyTest::test_many_to_many_update
#[test]
fn of_links_that_are_replaced_only_the_difference_is_written() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    let clubs = ["one", "two", "three", "four"].map(|name| club(&session, name));
    for club in &clubs[..3] {
        join(&session, &ann, club);
    }
    session.commit().unwrap();
    let replace = |wanted: &[&Tracked<Group>]| {
        let wanted: BTreeSet<_> = wanted.iter().map(|club| club.id().unwrap()).collect();
        let known = session.related::<Membership, User>(std::slice::from_ref(&ann)).unwrap().remove(0);
        let there: BTreeSet<_> = known.iter().map(|link| link.key().unwrap().1).collect();
        for link in known.iter().filter(|link| !wanted.contains(&link.key().unwrap().1)) {
            session.delete(link).unwrap();
        }
        for group_id in wanted.difference(&there) {
            let user_id = ann.id().unwrap();
            session.add(Membership { user_id, group_id: *group_id, role: "member".into() }).unwrap();
        }
    };
    let ids = |clubs: &[&Tracked<Group>]| -> BTreeSet<_> {
        clubs.iter().map(|club| (ann.id().unwrap(), club.id().unwrap())).collect()
    };
    let [one, two, three, four] = &clubs;
    replace(&[two, three, four]);
    assert_eq!(session.new_entities::<Membership>().len(), 1);
    assert_eq!(session.deleted_entities::<Membership>().len(), 1);
    assert_eq!(written(|| session.commit().unwrap()), ["INSERT memberships", "DELETE memberships"]);
    assert_eq!(stored(&stage), ids(&[two, three, four]));
    replace(&[]);
    assert_eq!(written(|| session.commit().unwrap()), ["DELETE memberships"]);
    assert_eq!(stored(&stage), ids(&[]));
    replace(&[one]);
    replace(&[one]);
    assert_eq!(written(|| session.commit().unwrap()), [""; 0]);
    assert_eq!(stored(&stage), ids(&[one]));
}

// parity: SaveTest3::test_manytomany_xtracol_delete
#[test]
fn a_link_is_deleted_by_its_key_whatever_its_other_columns_are() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    let link = join(&session, &ann, &club(&session, "one"));
    session.flush().unwrap();
    session
        .no_autoflush(|| session.execute(diesel::update(memberships::table).set(memberships::role.eq("x"))))
        .unwrap();
    session.delete(&link).unwrap();
    assert_eq!(written(|| session.commit().unwrap()), ["DELETE memberships"]);
    assert!(stored(&stage).is_empty());
}

// parity: RowSwitchTest::test_manytomany
#[test]
fn a_row_that_takes_the_place_of_another_has_links_of_its_own() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    let [one, two] = ["one", "two"].map(|name| club(&session, name));
    let link = join(&session, &ann, &one);
    session.commit().unwrap();
    let (ann, one, two) = (ann.id().unwrap(), one.id().unwrap(), two.id().unwrap());
    session.delete(&link).unwrap();
    // The same link again is the same row; another one is a new row.
    session.add(Membership { user_id: ann, group_id: one, role: "chair".into() }).unwrap();
    session.add(Membership { user_id: ann, group_id: two, role: "member".into() }).unwrap();
    assert_eq!(written(|| session.commit().unwrap()), ["UPDATE memberships role", "INSERT memberships"]);
    assert_eq!(stored(&stage), BTreeSet::from([(ann, one), (ann, two)]));
}

// parity: SingleCycleM2MTest::test_many_to_many_one
#[test]
fn links_between_rows_of_one_table_that_refer_to_each_other_are_saved_and_deleted_in_order() {
    let stage = Stage::new();
    let session = stage.session();
    let root = session.add(NewNode { parent_id: None, name: "root".into() }).unwrap();
    let leaves = ["one", "two"].map(|name| {
        session.add_with(&root, move |root| NewNode { parent_id: Some(root.id), name: name.into() }).unwrap()
    });
    let link = |one: &Tracked<Node>, other: &Tracked<Node>| {
        let make = |(one, other): (&Node, &Node)| NodeLink { one_id: one.id, other_id: other.id };
        session.add_with((one, other), make).unwrap()
    };
    let links = [link(&root, &leaves[0]), link(&leaves[0], &leaves[1]), link(&leaves[1], &root)];
    assert_eq!(written(|| session.commit().unwrap()), ["INSERT nodes", "INSERT node_links"]);
    assert_eq!(stage.stored::<i64>(node_links::table.count()), [3]);
    session.delete(&root).unwrap();
    leaves.iter().for_each(|leaf| session.delete(leaf).unwrap());
    links.iter().for_each(|link| session.delete(link).unwrap());
    assert_eq!(written(|| session.commit().unwrap()), ["DELETE node_links", "DELETE nodes"]);
    assert_eq!(stage.stored::<i64>(super::shape_tables::nodes::table.count()), [0]);
}
