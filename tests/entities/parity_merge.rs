//! Values of elsewhere that a session takes over, as SQLAlchemy's tests of merge have it.

use std::cell::RefCell;
use std::rc::Rc;

use diesel::prelude::*;
use diesel_session::{ObjectState, SessionListener, Transition};

use super::db::Conn;
use super::models::*;
use super::parity_tools::{by_name, countries, logged, post, sent, silent};
use super::schema::{countries as countries_table, users};
use super::tools::Fixture;

/// A database with these countries.
fn with(countries: &[Country]) -> Fixture {
    let fixture = logged();
    fixture.registry.transaction(|session| session.add_all(countries.to_vec()).map(drop)).unwrap();
    fixture
}

/// Writes down what becomes of objects.
struct Ways(Rc<RefCell<Vec<(ObjectState, ObjectState)>>>);

impl SessionListener<Conn> for Ways {
    fn transition(&self, transition: &Transition) {
        self.0.borrow_mut().push((transition.from(), transition.to()));
    }
}

// parity: MergeTest::test_transient_to_pending
// parity: MergeTest::test_dont_expire_pending
#[test]
fn a_value_with_a_key_that_nobody_knows_becomes_pending() {
    let fixture = logged();
    let session = fixture.session();
    let ways = Rc::default();
    session.listen(Ways(Rc::clone(&ways)));
    let original = country("de", "Germany");
    let merged = session.merge(original.clone()).unwrap();
    assert_eq!(merged.state(), ObjectState::Pending);
    assert_eq!(session.new_entities::<Country>(), std::slice::from_ref(&merged));
    assert_eq!(ways.take(), [(ObjectState::Transient, ObjectState::Pending)]);
    assert!(!merged.is_stale());
    let ((), statements) = sent(|| session.flush().unwrap());
    assert_eq!(statements, ["INSERT countries"]);
    assert_eq!(ways.take(), [(ObjectState::Pending, ObjectState::Persistent)]);
    silent(|| assert_eq!(*merged.read().unwrap(), original));
    assert!(!merged.is_stale());
    session.commit().unwrap();
    assert_eq!(countries(&fixture), [original]);
}

// parity: MergeTest::test_warn_transient_already_pending_pk
#[test]
fn a_merge_finds_what_is_pending_with_its_key() {
    let fixture = logged();
    let session = fixture.session();
    let pending = session.add(country("de", "Germany")).unwrap();
    let merged = session.merge(country("de", "Deutschland")).unwrap();
    assert_eq!(merged, pending);
    assert_eq!(merged.state(), ObjectState::Persistent);
    session.commit().unwrap();
    assert_eq!(countries(&fixture), [country("de", "Deutschland")]);
}

// parity: MergeTest::test_warn_transient_already_pending_nopk
// parity: MergeTest::test_resolve_conflicts_pending_doesnt_interfere_no_ident
// parity: MergeTest::test_dont_send_neverset_to_get
#[test]
fn records_without_keys_are_added_each_for_itself_and_nothing_is_looked_up() {
    let fixture = logged().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let session = fixture.session();
    let posts: Vec<_> = silent(|| (0..3).map(|_| session.add(post(id, "the same")).unwrap()).collect());
    assert_eq!(session.new_entities::<Post>(), posts);
    session.flush().unwrap();
    assert!(posts[0] != posts[1] && posts[1] != posts[2]);
    let mut keys: Vec<_> = posts.iter().map(|post| post.key().unwrap()).collect();
    keys.dedup();
    assert_eq!(keys.len(), 3);
    session.commit().unwrap();
    assert_eq!(fixture.posts().len(), 3);
}

fn member(user_id: i32, group_id: i32, role: &str) -> Membership {
    Membership { user_id, group_id, role: role.into() }
}

// parity: MergeTest::test_transient_to_pending_collection
#[test]
fn merged_children_are_one_entity_each() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann").id().unwrap();
    let groups = session.add_all((1..=3).map(|n| NewGroup { name: format!("group {n}"), owner_id: None })).unwrap();
    let members = |session: &super::db::Session| {
        let values = groups.iter().map(|group| member(ann, group.id().unwrap(), "member"));
        session.merge_all(values).unwrap()
    };
    let merged = members(&session);
    assert!(merged.iter().all(|member| member.state() == ObjectState::Pending));
    assert_eq!(session.new_entities::<Membership>(), merged);
    session.flush().unwrap();
    assert_eq!(members(&session), merged);
    assert!(!session.has_changes());
    let found = session.related::<Membership, User>(&[by_name(&session, "ann")]).unwrap();
    assert_eq!(found[0], merged);
    session.commit().unwrap();
}

#[derive(AsChangeset)]
#[diesel(table_name = users)]
struct SomeOfUser {
    nickname: Option<String>,
    email: Option<Option<String>>,
}

// parity: MergeTest::test_merge_empty_attributes
#[test]
fn what_a_changeset_leaves_out_is_kept_and_an_explicit_null_is_written() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(NewUser { email: Some("ann@example.org".into()), ..user("ann") }).unwrap();
    session.commit().unwrap();
    session.apply(&ann, SomeOfUser { nickname: Some("anna".into()), email: None }).unwrap();
    assert_eq!(ann.read().unwrap().email.as_deref(), Some("ann@example.org"));
    assert_eq!(ann.read().unwrap().nickname, "anna");
    session.apply(&ann, SomeOfUser { nickname: None, email: Some(None) }).unwrap();
    assert_eq!(ann.read().unwrap().email, None);
    assert_eq!(ann.read().unwrap().nickname, "anna");
    session.commit().unwrap();
    assert_eq!((&*fixture.users()[0].nickname, &fixture.users()[0].email), ("anna", &None));
}

// parity: MergeTest::test_attribute_cascade
// parity: MergeTest::test_dontload_with_eager
#[test]
fn a_value_of_another_session_that_says_nothing_new_writes_nothing() {
    let germany = country("de", "Germany");
    let fixture = with(std::slice::from_ref(&germany));
    let (one, other) = (fixture.session(), fixture.session());
    let theirs = one.get_one::<Country>("de".to_owned()).unwrap();
    one.commit().unwrap();
    let (merged, statements) = sent(|| other.merge(theirs.clone().into_value().unwrap()).unwrap());
    assert_eq!(statements, ["SELECT countries"]);
    assert_ne!(merged, theirs);
    assert!(!other.is_modified(&merged));
    silent(|| other.flush().unwrap());
    // What the session knows already is not read.
    assert_eq!(silent(|| other.merge(germany.clone()).unwrap()), merged);
    silent(|| other.flush().unwrap());
    assert!(!other.has_changes());
    // And a change is one statement.
    other.merge(Country { population: 83, ..germany }).unwrap();
    let ((), statements) = sent(|| other.flush().unwrap());
    assert_eq!(statements, ["UPDATE countries"]);
    other.commit().unwrap();
    assert_eq!(countries(&fixture)[0].population, 83);
}

// parity: MergeTest::test_one_to_one_cascade
// parity: MergeTest::test_cascade_doesnt_blowaway_manytoone
#[test]
fn what_is_merged_twice_is_the_entity_that_is_there() {
    let fixture = with(&[country("de", "Germany")]);
    let session = fixture.session();
    let there = session.get_one::<Country>("de".to_owned()).unwrap();
    assert_eq!(session.merge(country("de", "Deutschland")).unwrap(), there);
    assert_eq!(session.merge(country("de", "Deutschland")).unwrap(), there);
    let austria = session.merge(country("at", "Austria")).unwrap();
    assert_eq!(session.merge(country("at", "Austria")).unwrap(), austria);
    session.commit().unwrap();
    assert_eq!(countries(&fixture), [country("at", "Austria"), country("de", "Deutschland")]);
}

// parity: MergeTest::test_value_to_none
#[test]
fn a_null_of_the_merged_value_overwrites_fields_and_references() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(NewUser { email: Some("ann@example.org".into()), ..user("ann") }).unwrap();
    session.add(Ring { id: 1, next_id: None }).unwrap();
    session.flush().unwrap();
    let second = session.add(Ring { id: 2, next_id: Some(1) }).unwrap();
    session.commit().unwrap();
    session.get_one::<User>(ann.id().unwrap()).unwrap();
    let value = User { email: None, ..ann.clone().into_value().unwrap() };
    session.merge_existing(value).unwrap();
    session.merge(Ring { id: 2, next_id: None }).unwrap();
    session.flush().unwrap();
    assert_eq!(session.parents::<Ring, Ring>(&[second]).unwrap(), [None]);
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].email, None);
}

// parity: MergeTest::test_transient_no_load
// parity: MergeTest::test_no_load_disallows_dirty
#[test]
fn a_merge_always_compares_with_the_row() {
    let fixture = with(&[country("de", "Germany")]);
    let session = fixture.session();
    assert!(session.merge_existing(country("at", "Austria")).unwrap_err().is_not_found());
    assert!(!session.has_changes());
    let germany = session.get_one::<Country>("de".to_owned()).unwrap();
    germany.write().unwrap().population = 83;
    session.expunge(&germany).unwrap();
    let (merged, statements) = sent(|| session.merge_existing(germany.into_value().unwrap()).unwrap());
    assert_eq!(statements, ["SELECT countries"]);
    assert!(session.is_modified(&merged));
    session.commit().unwrap();
    assert_eq!(countries(&fixture)[0].population, 83);
}

// parity: MergeTest::test_cascades_dont_autoflush
// parity: MergeTest::test_cascades_dont_autoflush_2
// parity: MergeTest::test_merge_all
#[test]
fn many_values_are_merged_in_their_order_with_one_query_and_without_a_flush_between() {
    let fixture = with(&[country("de", "Germany"), country("fr", "France")]);
    let session = fixture.session();
    let waits = session.add(user("ann")).unwrap();
    let values = ["at", "de", "it", "fr"].map(|code| country(code, "merged"));
    let (merged, statements) = sent(|| session.merge_all(values).unwrap());
    assert_eq!(statements.last().unwrap(), "SELECT countries");
    assert_eq!(statements.iter().filter(|statement| statement.contains("countries")).count(), 1, "{statements:?}");
    assert_eq!(waits.state(), ObjectState::Persistent, "flushed before the query");
    use ObjectState::{Pending, Persistent};
    let states: Vec<_> = merged.iter().map(diesel_session::Tracked::state).collect();
    assert_eq!(states, [Pending, Persistent, Pending, Persistent]);
    assert_eq!(session.new_entities::<Country>(), [merged[0].clone(), merged[2].clone()]);
    assert_eq!(session.dirty_entities::<Country>(), [merged[1].clone(), merged[3].clone()]);
    // Queries flush as before.
    let names = session.load::<String>(countries_table::table.select(countries_table::name)).unwrap();
    assert_eq!(names, ["merged"; 4]);
    assert!(!session.has_changes());
    let keys: Vec<_> = merged.iter().map(|country| country.key().unwrap()).collect();
    assert_eq!(keys, ["at", "de", "it", "fr"]);
    session.commit().unwrap();
    assert_eq!(countries(&fixture).len(), 4);
}

// parity: MergeTest::test_resolve_conflicts_pending
#[test]
fn values_with_one_key_become_one_entity_which_the_last_describes() {
    let fixture = with(&[country("de", "Germany")]);
    let session = fixture.session();
    let values = [("at", "one"), ("de", "one"), ("at", "two"), ("de", "two")].map(|(code, name)| country(code, name));
    let merged = session.merge_all(values).unwrap();
    assert!(merged[0] == merged[2] && merged[1] == merged[3] && merged[0] != merged[1]);
    assert_eq!(session.new_entities::<Country>(), [merged[0].clone()]);
    let ((), statements) = sent(|| session.flush().unwrap());
    assert_eq!(statements, ["UPDATE countries", "INSERT countries"]);
    session.commit().unwrap();
    assert_eq!(countries(&fixture), [country("at", "two"), country("de", "two")]);
}
