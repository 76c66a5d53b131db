//! What is known and what is read anew, as SQLAlchemy's tests of expiration have it.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, Record};

use super::db::Session;
use super::models::*;
use super::parity_tools::{by_name, logged, post, sent, silent, titles};
use super::schema::{posts, users};
use super::tools::Fixture;

/// Changes every balance past the identity map.
fn set_balance(session: &Session, balance: i64) {
    session.execute(diesel::update(users::table).set(users::balance.eq(balance))).unwrap();
}

fn delete_users(session: &Session) {
    session.execute(diesel::delete(users::table)).unwrap();
}

// parity: ExpireTest::test_expire
#[test]
fn an_expired_entity_has_lost_its_changes_and_is_read_anew_once() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let id = ann.id().unwrap();
    for by_query in [false, true] {
        ann.write().unwrap().nickname = "anna".into();
        silent(|| session.expire(&ann).unwrap());
        assert!(ann.is_stale());
        assert_eq!(ann.read().unwrap().nickname, "ann");
        let look = || {
            if by_query { by_name(&session, "ann") } else { session.get_one::<User>(id).unwrap() }
        };
        let (same, statements) = sent(look);
        assert_eq!(statements, ["SELECT users"]);
        assert_eq!(same, ann);
        assert!(!ann.is_stale() && !session.is_modified(&ann));
        silent(|| session.get_one::<User>(id).unwrap());
    }
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: ExpireTest::test_expire_autoflush
#[test]
fn what_reads_an_expired_entity_anew_flushes_first() {
    let fixture = logged().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let (ann, bob) = (by_name(&session, "ann"), by_name(&session, "bob"));
    session.expire(&ann).unwrap();
    bob.write().unwrap().nickname = "bobby".into();
    let (_, statements) = sent(|| session.get_one::<User>(ann.id().unwrap()).unwrap());
    assert_eq!(statements, ["UPDATE users", "SELECT users"]);
    assert!(!session.is_modified(&bob));
    session.rollback().unwrap();
}

// parity: ExpireTest::test_persistence_check
#[test]
fn only_an_entity_of_the_session_can_be_expired() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    session.expunge(&ann).unwrap();
    assert!(matches!(session.expire(&ann), Err(Error::Detached { .. })));
    let bob = session.add(user("bob")).unwrap();
    assert!(matches!(session.expire(&bob), Err(Error::Pending { .. })));
    session.rollback().unwrap();
    assert!(matches!(session.expire(&bob), Err(Error::NotPersistent { .. })));
}

// parity: ExpireTest::test_get_refreshes
#[test]
fn a_get_reads_an_expired_entity_once() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let id = ann.id().unwrap();
    session.expire(&ann).unwrap();
    let (same, statements) = sent(|| session.get::<User>(id).unwrap());
    assert_eq!((same.as_ref(), statements.as_slice()), (Some(&ann), ["SELECT users".to_owned()].as_slice()));
    assert_eq!(silent(|| session.get::<User>(id).unwrap()), Some(ann));
}

// parity: ExpireTest::test_get_on_deleted_expunges
// parity: ExpireTest::test_rollback_undoes_expunge_from_deleted
#[test]
fn a_get_whose_row_is_gone_gives_nothing_and_detaches_the_entity_for_good() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let id = ann.id().unwrap();
    delete_users(&session);
    assert!(session.contains(&ann));
    let (gone, statements) = sent(|| session.get::<User>(id).unwrap());
    assert_eq!(gone, None);
    assert_eq!(statements, ["SELECT users"]);
    assert!(!session.contains(&ann));
    assert_eq!(ann.state(), ObjectState::Detached);
    session.rollback().unwrap();
    assert!(!session.contains(&ann));
    let again = session.get_one::<User>(id).unwrap();
    assert_ne!(again, ann);
    assert_eq!(*again.read().unwrap(), ann.into_value().unwrap());
}

// parity: ExpireTest::test_refresh_on_deleted_raises
#[test]
fn what_needs_a_row_that_is_gone_says_so() {
    let fixture = Fixture::new().with_users(&["ann"]);
    for by_write in [false, true] {
        let session = fixture.session();
        let ann = by_name(&session, "ann");
        delete_users(&session);
        let answer = if by_write { ann.write().map(drop) } else { session.refresh(&ann) };
        assert!(matches!(&answer, Err(Error::RowGone { table: "users", .. })), "{answer:?}");
        assert_eq!(ann.state(), ObjectState::Detached);
        session.rollback().unwrap();
    }
}

// parity: ExpireTest::test_expire_doesntload_on_set
#[test]
fn a_write_to_an_expired_entity_reads_its_row_first() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    set_balance(&session, 5);
    session.expire(&ann).unwrap();
    let ((), statements) = sent(|| ann.write().unwrap().balance += 1);
    assert_eq!(statements, ["SELECT users"]);
    silent(|| ann.write().unwrap().nickname = "anna".into());
    let ((), statements) = sent(|| session.flush().unwrap());
    assert_eq!(statements, ["UPDATE users"]);
    session.commit().unwrap();
    assert_eq!((fixture.users()[0].balance, &*fixture.users()[0].nickname), (6, "anna"));
}

// parity: ExpireTest::test_no_session
#[test]
fn an_expired_entity_without_its_session_shows_what_was_known_last() {
    let fixture = logged().with_users(&["ann"]);
    type Leave = fn(&Session, &diesel_session::Tracked<User>);
    let ways: [Leave; 3] = [
        |session, ann| session.expunge(ann).unwrap(),
        |session, _| session.expunge_all().unwrap(),
        |session, _| session.close(),
    ];
    for leave in ways {
        let session = fixture.session();
        let ann = by_name(&session, "ann");
        session.expire(&ann).unwrap();
        leave(&session, &ann);
        assert_eq!(ann.state(), ObjectState::Detached);
        silent(|| {
            assert_eq!(ann.read().unwrap().nickname, "ann");
            assert!(ann.key().is_some());
            assert!(matches!(ann.write(), Err(Error::Detached { .. })));
        });
        session.close();
    }
}

// parity: ExpireTest::test_expire_preserves_changes
#[test]
fn changes_after_an_expiration_are_not_lost_to_what_is_read_then() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    session.expire(&ann).unwrap();
    ann.write().unwrap().nickname = "anna".into();
    assert!(!ann.is_stale());
    silent(|| session.get_one::<User>(ann.id().unwrap()).unwrap());
    session.no_autoflush(|| {
        let loaded = session.load_tracked(users::table.select(User::as_select())).unwrap();
        assert_eq!(loaded, std::slice::from_ref(&ann));
    });
    assert_eq!(ann.read().unwrap().nickname, "anna");
    assert!(session.is_modified(&ann));
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["anna"]);
}

// parity: ExpireTest::test_expire_committed
#[test]
fn what_is_read_anew_is_what_the_next_flush_compares_with() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    set_balance(&session, 5);
    session.expire(&ann).unwrap();
    session.get_one::<User>(ann.id().unwrap()).unwrap();
    assert_eq!(ann.read().unwrap().balance, 5);
    assert!(!session.is_modified(&ann));
    silent(|| session.flush().unwrap());
    ann.write().unwrap().balance = 5;
    silent(|| session.flush().unwrap());
}

// parity: ExpireTest::test_unexpire_eager_dont_overwrite_related
#[test]
fn reading_an_entity_and_its_children_keeps_the_changes_of_a_child() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let first = session.add(post(ann.id().unwrap(), "first")).unwrap();
    session.commit().unwrap();
    first.write().unwrap().title = "changed".into();
    session.expire(&ann).unwrap();
    session.no_autoflush(|| {
        session.get_one::<User>(ann.id().unwrap()).unwrap();
        assert_eq!(titles(&session, &ann), ["changed"]);
    });
    assert!(session.is_modified(&first));
    session.commit().unwrap();
    assert_eq!(fixture.posts()[0].title, "changed");
}

// parity: ExpireTest::test_no_pending_pks_on_refresh
#[test]
fn a_refresh_reads_by_the_key_that_is_stored_and_drops_another() {
    for autoflush in [false, true] {
        let fixture = logged();
        let session = fixture.session();
        let germany = session.add(country("de", "Germany")).unwrap();
        session.commit().unwrap();
        germany.write().unwrap().code = "dd".into();
        let refresh =
            || if autoflush { session.refresh(&germany) } else { session.no_autoflush(|| session.refresh(&germany)) };
        let (answer, statements) = sent(refresh);
        answer.unwrap();
        assert_eq!(statements, ["SELECT countries"]);
        assert_eq!(*germany.read().unwrap(), country("de", "Germany"));
        assert!(!session.is_modified(&germany));
        // One that was flushed is the stored one.
        germany.write().unwrap().code = "dd".into();
        session.flush().unwrap();
        session.refresh(&germany).unwrap();
        assert_eq!(germany.key().unwrap(), "dd");
        session.commit().unwrap();
    }
}

// parity: ExpireTest::test_partial_expire
#[test]
fn an_entity_is_expired_and_read_anew_as_a_whole() {
    let fixture = logged().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let (ann, bob) = (by_name(&session, "ann"), by_name(&session, "bob"));
    set_balance(&session, 5);
    ann.write().unwrap().email = Some("ann@example.org".into());
    bob.write().unwrap().email = Some("bob@example.org".into());
    session.expire(&ann).unwrap();
    let (_, statements) = sent(|| session.no_autoflush(|| session.get_one::<User>(ann.id().unwrap()).unwrap()));
    assert_eq!(statements, ["SELECT users"]);
    assert_eq!((ann.read().unwrap().balance, ann.read().unwrap().email.clone()), (5, None));
    assert_eq!(bob.read().unwrap().email.as_deref(), Some("bob@example.org"));
    assert!(!session.is_modified(&ann) && session.is_modified(&bob));
}

// parity: ExpireTest::test_expire_all
#[test]
fn all_entities_can_be_expired_and_those_that_somebody_holds_read_anew() {
    let fixture = logged().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let first = session.add(post(ann.id().unwrap(), "first")).unwrap();
    session.add(post(ann.id().unwrap(), "second")).unwrap();
    drop(by_name(&session, "bob"));
    session.flush().unwrap();
    ann.write().unwrap().nickname = "lost".into();
    silent(|| session.expire_all().unwrap());
    assert!(ann.is_stale() && first.is_stale() && !session.has_changes());
    assert_eq!(session.tracked::<User>(), std::slice::from_ref(&ann));
    assert_eq!(session.tracked::<Post>(), std::slice::from_ref(&first));
    let ((), statements) = sent(|| session.refresh_all().unwrap());
    assert_eq!(statements.len(), 2, "{statements:?}");
    assert!(!ann.is_stale() && !first.is_stale());
    let all = session.load_tracked(posts::table.select(Post::as_select()).order(posts::id)).unwrap();
    assert_eq!((all.len(), &all[0]), (2, &first));
    assert_eq!(ann.read().unwrap().nickname, "ann");
}

// parity: RefreshTest::test_refresh
#[test]
fn a_refresh_drops_changes_and_children_are_queried_anew() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let first = session.add(post(ann.id().unwrap(), "first")).unwrap();
    session.commit().unwrap();
    ann.write().unwrap().nickname = "anna".into();
    assert_eq!(session.dirty_entities::<User>(), std::slice::from_ref(&ann));
    let ((), statements) = sent(|| session.refresh(&ann).unwrap());
    assert_eq!(statements, ["SELECT users"]);
    assert_eq!(ann.read().unwrap().nickname, "ann");
    assert!(session.dirty_entities::<User>().is_empty());
    session.delete(&first).unwrap();
    assert!(titles(&session, &ann).is_empty());
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: RefreshTest::test_refresh_autoflush
#[test]
fn a_refresh_flushes_what_else_waits() {
    let fixture = logged().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let (ann, bob) = (by_name(&session, "ann"), by_name(&session, "bob"));
    ann.write().unwrap().nickname = "lost".into();
    bob.write().unwrap().nickname = "bobby".into();
    let cid = session.add(user("cid")).unwrap();
    let ((), statements) = sent(|| session.refresh(&ann).unwrap());
    assert!(statements.starts_with(&["UPDATE users".into(), "INSERT users".into()]), "{statements:?}");
    assert_eq!(statements.last().unwrap(), "SELECT users");
    assert_eq!(cid.state(), ObjectState::Persistent);
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann", "bobby", "cid"]);
}

// parity: RefreshTest::test_refresh_expired
#[test]
fn a_refresh_reads_an_expired_entity() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    set_balance(&session, 5);
    session.expire(&ann).unwrap();
    assert_eq!(ann.read().unwrap().balance, 0);
    let ((), statements) = sent(|| session.refresh(&ann).unwrap());
    assert_eq!(statements, ["SELECT users"]);
    assert!(!ann.is_stale());
    assert_eq!(ann.read().unwrap().balance, 5);
}

/// A user of whom only the nickname is given: the database fills in the rest.
#[derive(Debug, Clone, Insertable, Record)]
#[diesel(table_name = users)]
#[entity(of = User, generated(id, email, balance, version))]
struct OnlyNickname {
    nickname: String,
}

// parity: LifecycleTest::test_attr_not_inserted
// parity: LifecycleTest::test_attr_not_inserted_fetched
#[test]
fn the_flush_brings_what_the_record_did_not_give() {
    let fixture = logged();
    let session = fixture.session();
    let ann = session.add(OnlyNickname { nickname: "ann".into() }).unwrap();
    session.flush().unwrap();
    silent(|| {
        let ann = ann.read().unwrap();
        assert_eq!((&ann.email, ann.balance, ann.version), (&None, 0, 1));
        assert!(ann.id > 0);
    });
    assert!(!ann.is_stale() && !session.has_changes());
    silent(|| session.flush().unwrap());
    session.commit().unwrap();
    assert_eq!(fixture.users(), [ann.into_value().unwrap()]);
}
