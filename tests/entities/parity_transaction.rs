//! What ends of transactions do to entities, as SQLAlchemy's tests of transactions have it.

use std::cell::RefCell;
use std::rc::Rc;

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, Reason, Result, SessionListener, TransactionInfo};

use super::db::{Conn, Session};
use super::models::*;
use super::parity_tools::{by_name, logged, post, rename_elsewhere, sent, silent, titles};
use super::schema::users;
use super::tools::Fixture;

// parity: FixtureDataTest::test_attrs_on_rollback
#[test]
fn a_rollback_puts_a_changed_field_back() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    ann.write().unwrap().nickname = "anna".into();
    session.rollback().unwrap();
    assert_eq!(ann.read().unwrap().nickname, "ann");
    assert!(!session.is_modified(&ann));
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: FixtureDataTest::test_commit_persistent
#[test]
fn a_flushed_change_stands_after_the_commit() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    ann.write().unwrap().nickname = "anna".into();
    session.flush().unwrap();
    session.commit().unwrap();
    assert_eq!(session.get_one::<User>(ann.id().unwrap()).unwrap(), ann);
    assert_eq!(ann.read().unwrap().nickname, "anna");
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["anna"]);
}

// parity: AutoExpireTest::test_commit_pending
#[test]
fn what_was_pending_can_be_read_after_the_commit() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    session.commit().unwrap();
    assert_eq!(ann.state(), ObjectState::Persistent);
    assert_eq!(ann.read().unwrap().nickname, "ann");
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: FixtureDataTest::test_concurrent_commit_persistent
// parity: AutoExpireTest::test_concurrent_commit_pending
#[test]
fn after_a_commit_an_entity_sees_what_another_session_stored_meanwhile() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let bob = session.add(user("bob")).unwrap();
    session.commit().unwrap();
    assert!(ann.is_stale() && bob.is_stale());
    rename_elsewhere(&fixture, "ann", "anna");
    rename_elsewhere(&fixture, "bob", "bobby");

    let (same, statements) = sent(|| session.get_one::<User>(ann.id().unwrap()).unwrap());
    assert_eq!(statements, ["SELECT users"]);
    assert_eq!(same, ann);
    assert_eq!(ann.read().unwrap().nickname, "anna");
    // A write begins with the row as it is now.
    bob.write().unwrap().balance += 1;
    assert_eq!(bob.read().unwrap().nickname, "bobby");
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["anna", "bobby"]);
}

// parity: AccountingFlagsTest::test_no_expire_on_commit
#[test]
fn what_a_handle_shows_after_a_commit_stays_until_it_is_read_anew() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    session.commit().unwrap();
    rename_elsewhere(&fixture, "ann", "anna");
    silent(|| assert_eq!(ann.read().unwrap().nickname, "ann"));
    session.expire_all().unwrap();
    let ((), statements) = sent(|| session.refresh_all().unwrap());
    assert_eq!(statements, ["SELECT users"]);
    assert_eq!(ann.read().unwrap().nickname, "anna");
    session.commit().unwrap();
}

// parity: AutoExpireTest::test_expunge_pending_on_rollback
// parity: AutoExpireTest::test_trans_pending_cleared_on_commit
#[test]
fn a_rollback_takes_out_what_its_own_transaction_added_and_nothing_of_an_earlier_one() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    assert!(session.contains(&ann));
    session.commit().unwrap();
    session.rollback().unwrap();
    assert!(session.contains(&ann));
    let bob = session.add(user("bob")).unwrap();
    session.rollback().unwrap();
    assert!(session.contains(&ann));
    assert!(!session.contains(&bob));
    assert_eq!(bob.state(), ObjectState::Transient);
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: AutoExpireTest::test_update_deleted_on_rollback
#[test]
fn a_rollback_takes_the_mark_for_deletion_off() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    session.delete(&ann).unwrap();
    assert_eq!(session.deleted_entities::<User>(), std::slice::from_ref(&ann));
    session.rollback().unwrap();
    assert!(session.deleted_entities::<User>().is_empty());
    assert!(session.contains(&ann));
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: AutoExpireTest::test_trans_deleted_cleared_on_rollback
#[test]
fn a_committed_delete_does_not_come_back_with_a_later_rollback() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    session.delete(&ann).unwrap();
    session.commit().unwrap();
    assert!(!session.contains(&ann));
    session.rollback().unwrap();
    assert!(!session.contains(&ann));
    assert_eq!(ann.state(), ObjectState::Detached);
    assert!(fixture.users().is_empty());
}

// parity: AutoExpireTest::test_update_deleted_on_rollback_orphan
#[test]
fn a_rollback_gives_a_parent_its_deleted_child_back() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let first = session.add(post(ann.id().unwrap(), "first")).unwrap();
    session.commit().unwrap();
    session.delete(&first).unwrap();
    session.flush().unwrap();
    assert_eq!(first.state(), ObjectState::Deleted);
    assert!(titles(&session, &ann).is_empty());
    session.rollback().unwrap();
    assert!(session.deleted_entities::<Post>().is_empty());
    assert!(session.contains(&first));
    assert_eq!(titles(&session, &ann), ["first"]);
    assert_eq!(session.related::<Post, _>(&[ann]).unwrap()[0], [first]);
}

// ---- a hook that never rests ----

struct AddsAfterEachFlush {
    more: u32,
    left: RefCell<u32>,
}

impl SessionListener<Conn> for AddsAfterEachFlush {
    fn after_flush_postexec(&self, session: &Session) {
        let mut left = self.left.borrow_mut();
        if *left > 0 {
            *left -= 1;
            session.add(user(&format!("{left} of {}", self.more))).unwrap();
        }
    }
}

// parity: SessionTransactionTest::test_continue_flushing_guard
#[test]
fn a_commit_flushes_until_nothing_waits_and_gives_up_after_a_hundred_flushes() {
    let fixture = Fixture::new();
    for (more, is_stored) in [(99, true), (100, false), (1_000, false)] {
        let session = fixture.session();
        session.listen(AddsAfterEachFlush { more, left: RefCell::new(more) });
        let first = session.add(user(&format!("first of {more}"))).unwrap();
        let answer = session.commit();
        if is_stored {
            answer.unwrap();
            assert_eq!(fixture.users().len(), 100);
        } else {
            let cause = match answer.unwrap_err() {
                Error::RolledBack { cause } => cause,
                other => panic!("{other:?}"),
            };
            assert!(matches!(cause.reason(), Reason::Refused(error) if matches!(**error, Error::EndlessFlush)));
            assert_eq!(first.state(), ObjectState::Transient);
            assert!(!session.has_changes() && !session.in_transaction());
            assert_eq!(fixture.users().len(), 100, "nothing of it is stored");
        }
    }
}

// ---- a transaction that failed ----

/// A session whose flush has failed, and an entity that it has.
fn failed(fixture: &Fixture) -> (Session, diesel_session::Tracked<User>) {
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    session.add(user("ann")).unwrap();
    assert!(session.flush().unwrap_err().is_unique_violation());
    (session, ann)
}

// parity: SessionTransactionTest::test_warning_on_using_inactive_session_delete
#[test]
fn nothing_can_be_deleted_in_a_failed_transaction() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let (session, ann) = failed(&fixture);
    assert!(matches!(session.delete(&ann), Err(Error::PendingRollback { .. })));
    assert!(session.deleted_entities::<User>().is_empty());
    session.rollback().unwrap();
    assert!(session.contains(&ann));
    assert!(session.deleted_entities::<User>().is_empty());
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

/// Tries to add when it hears of a rollback, and after it.
#[derive(Default)]
struct AddsAtRollback {
    session: RefCell<Option<Session>>,
    answers: Rc<RefCell<Vec<Result<()>>>>,
}

impl SessionListener<Conn> for AddsAtRollback {
    fn after_rollback(&self, _: &TransactionInfo) {
        if let Some(session) = &*self.session.borrow() {
            self.answers.borrow_mut().push(session.add(user("bob")).map(drop));
        }
    }
}

// parity: SessionTransactionTest::test_warning_on_using_inactive_session_rollback_evt
#[test]
fn a_listener_that_hears_of_a_rollback_can_add_nothing() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let (session, _ann) = failed(&fixture);
    let answers = Rc::default();
    session.listen(AddsAtRollback { session: RefCell::new(Some(session.clone())), answers: Rc::clone(&answers) });
    session.rollback().unwrap();
    assert!(matches!(answers.borrow().as_slice(), [Err(Error::InHook)]), "{answers:?}");
    assert!(session.new_entities::<User>().is_empty());
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
    session.close();
}

// parity: CleanSavepointTest::test_rollback_ignores_clean_on_savepoint
#[test]
fn a_savepoints_rollback_makes_only_that_stale_which_it_touched() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let (ann, bob) = (by_name(&session, "ann"), by_name(&session, "bob"));
    ann.write().unwrap().nickname = "anna".into();
    let savepoint = session.begin_nested().unwrap();
    bob.write().unwrap().nickname = "bobby".into();
    session.flush().unwrap();
    savepoint.rollback().unwrap();
    assert!(!ann.is_stale());
    assert_eq!(ann.read().unwrap().nickname, "anna");
    assert!(bob.is_stale());
    assert_eq!(bob.read().unwrap().nickname, "bob");
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["anna", "bob"]);
}

// parity: CleanSavepointTest::test_rollback_ignores_clean_on_savepoint_agg_upd_eval
#[test]
fn an_update_of_many_rows_makes_every_entity_stale_and_a_savepoints_rollback_leaves_it_so() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let (ann, bob) = (by_name(&session, "ann"), by_name(&session, "bob"));
    let savepoint = session.begin_nested().unwrap();
    let update = diesel::update(users::table.filter(users::nickname.eq("bob"))).set(users::nickname.eq("bobby"));
    assert_eq!(session.execute(update).unwrap(), 1);
    assert!(ann.is_stale() && bob.is_stale());
    session.get_one::<User>(bob.id().unwrap()).unwrap();
    assert_eq!(bob.read().unwrap().nickname, "bobby");
    savepoint.rollback().unwrap();
    assert!(ann.is_stale() && bob.is_stale());
    session.get_many::<User, _>([ann.id().unwrap(), bob.id().unwrap()]).unwrap();
    assert_eq!((&*ann.read().unwrap().nickname, &*bob.read().unwrap().nickname), ("ann", "bob"));
    session.commit().unwrap();
}
