//! What objects are and become, as SQLAlchemy's tests of sessions have it.

use std::cell::RefCell;
use std::rc::Rc;

use diesel_session::{Error, ObjectState, Result, SessionListener, Tracked};

use super::db::{Conn, Session};
use super::models::*;
use super::parity_tools::{by_name, countries, logged, post, sent, silent};
use super::tools::Fixture;

/// A database with Germany.
fn germany() -> Fixture {
    let fixture = logged();
    fixture.registry.transaction(|session| session.add(country("de", "Germany")).map(drop)).unwrap();
    fixture
}

fn get(session: &Session) -> Tracked<Country> {
    session.get_one("de".to_owned()).unwrap()
}

// parity: SessionUtilTest::test_make_transient
#[test]
fn the_value_of_an_entity_can_be_added_as_a_new_row() {
    type Leave = fn(&Session, &Tracked<Country>);
    let ways: [(Leave, ObjectState); 3] = [
        (|session, country| session.expunge(country).unwrap(), ObjectState::Detached),
        (|session, country| session.expire(country).unwrap(), ObjectState::Persistent),
        (
            |session, country| {
                session.delete(country).unwrap();
                session.flush().unwrap();
            },
            ObjectState::Deleted,
        ),
    ];
    for (leave, state) in ways {
        let fixture = germany();
        let session = fixture.session();
        let old = get(&session);
        leave(&session, &old);
        assert_eq!(old.state(), state);
        // An expired one has what was known last.
        let value = silent(|| old.clone().into_value().unwrap());
        assert_eq!(value, country("de", "Germany"));
        let new = session.add(Country { code: "at".into(), ..value }).unwrap();
        assert_eq!(new.state(), ObjectState::Pending);
        assert_eq!(session.new_entities::<Country>(), std::slice::from_ref(&new));
        let ((), statements) = sent(|| session.flush().unwrap());
        assert_eq!(statements, ["INSERT countries"]);
        assert_ne!(new, old);
        session.commit().unwrap();
        let codes: Vec<_> = countries(&fixture).into_iter().map(|country| country.code).collect();
        assert_eq!(codes, if state == ObjectState::Deleted { ["at"].as_slice() } else { ["at", "de"].as_slice() });
    }
}

// parity: SessionUtilTest::test_make_transient_plus_rollback
// parity: SessionStateTest::test_explicit_expunge_deleted
#[test]
fn an_entity_that_was_expunged_after_its_delete_does_not_come_back_with_the_rollback() {
    let fixture = germany();
    let session = fixture.session();
    let old = get(&session);
    session.delete(&old).unwrap();
    session.flush().unwrap();
    assert_eq!(old.state(), ObjectState::Deleted);
    session.expunge(&old).unwrap();
    assert_eq!(old.state(), ObjectState::Detached);
    session.rollback().unwrap();
    assert_eq!(old.state(), ObjectState::Detached);
    assert!(!session.contains(&old));
    let again = get(&session);
    assert_ne!(again, old);
    assert_eq!(*again.read().unwrap(), old.into_value().unwrap());
    session.commit().unwrap();
    assert_eq!(countries(&fixture).len(), 1);
}

// parity: SessionUtilTest::test_make_transient_to_detached
#[test]
fn a_value_is_attached_by_its_key_and_its_row_is_read() {
    let fixture = germany();
    let session = fixture.session();
    let (germany, statements) = sent(|| session.merge_existing(country("de", "Germany")).unwrap());
    assert_eq!(statements, ["SELECT countries"]);
    assert_eq!(germany.state(), ObjectState::Persistent);
    assert!(!session.is_modified(&germany));
    assert_eq!(silent(|| get(&session)), germany);
    assert!(session.merge_existing(country("at", "Austria")).unwrap_err().is_not_found());
}

// parity: SessionUtilTest::test_make_transient_to_detached_no_key_allowed
#[test]
fn only_what_has_no_row_is_given_back_as_a_record() {
    let fixture = germany();
    let session = fixture.session();
    let germany = get(&session);
    assert!(matches!(germany.into_new::<Country>(), Err(Error::NotTransient { .. })));
    session.expunge(&germany).unwrap();
    assert!(matches!(germany.into_new::<Country>(), Err(Error::NotTransient { .. })));
    let austria = session.add(country("at", "Austria")).unwrap();
    assert!(matches!(austria.into_new::<Country>(), Err(Error::NotTransient { .. })));
    session.expunge(&austria).unwrap();
    assert_eq!(austria.into_new::<Country>().unwrap(), country("at", "Austria"));
}

// parity: SessionStateTest::test_deleted_flag
#[test]
fn a_deleted_entity_is_not_in_the_session_and_its_value_can_be_added_after_the_commit() {
    let fixture = germany();
    let session = fixture.session();
    let old = get(&session);
    session.delete(&old).unwrap();
    session.flush().unwrap();
    assert!(!session.contains(&old));
    assert!(session.tracked::<Country>().is_empty());
    assert!(matches!(old.write(), Err(Error::Detached { .. })));
    assert!(matches!(session.refresh(&old), Err(Error::Detached { .. })));
    session.rollback().unwrap();
    assert!(session.contains(&old));
    session.delete(&old).unwrap();
    session.commit().unwrap();
    assert!(!session.contains(&old));
    assert!(countries(&fixture).is_empty());
    let new = session.add(old.into_value().unwrap()).unwrap();
    session.commit().unwrap();
    assert!(session.contains(&new));
    assert_eq!(countries(&fixture), [country("de", "Germany")]);
}

// parity: SessionStateTest::test_deleted_adds_to_imap_unconditionally
#[test]
fn a_deleted_entity_is_not_deleted_twice() {
    let fixture = germany();
    let session = fixture.session();
    let germany = get(&session);
    session.delete(&germany).unwrap();
    session.delete(&germany).unwrap();
    assert_eq!(session.deleted_entities::<Country>().len(), 1);
    let ((), statements) = sent(|| session.flush().unwrap());
    assert_eq!(statements, ["DELETE countries"]);
    assert!(matches!(session.delete(&germany), Err(Error::Detached { .. })));
    assert!(session.deleted_entities::<Country>().is_empty());
    silent(|| session.commit().unwrap());
    assert!(countries(&fixture).is_empty());
}

// parity: SessionStateTest::test_deleted_auto_expunged
#[test]
fn a_flushed_delete_belongs_to_the_session_until_the_commit() {
    let fixture = germany();
    let session = fixture.session();
    let germany = get(&session);
    session.delete(&germany).unwrap();
    assert_eq!(germany.state(), ObjectState::Persistent);
    session.flush().unwrap();
    assert_eq!(germany.state(), ObjectState::Deleted);
    session.commit().unwrap();
    assert_eq!(germany.state(), ObjectState::Detached);
    assert_eq!(germany.read().unwrap().name, "Germany");
}

// parity: SessionStateTest::test_already_attached
#[test]
fn an_entity_of_one_session_is_not_taken_by_another() {
    let fixture = germany();
    let (one, other) = (fixture.session(), fixture.session());
    let germany = get(&one);
    one.commit().unwrap();
    let pending = one.add(country("at", "Austria")).unwrap();
    let mut answers: Vec<Result<()>> = Vec::new();
    for entity in [&germany, &pending] {
        answers.push(other.delete(entity));
        answers.push(other.undelete(entity));
        answers.push(other.expunge(entity));
        answers.push(other.expire(entity));
        answers.push(other.refresh(entity));
    }
    answers.push(other.add_with(&germany, |germany| country("fr", &germany.name)).map(drop));
    for answer in answers {
        assert!(matches!(&answer, Err(Error::ForeignHandle { session, .. }) if *session == one.id()), "{answer:?}");
    }
    assert!(other.tracked::<Country>().is_empty() && !other.has_changes());
    assert!(!other.contains(&germany) && one.contains(&germany));
    one.rollback().unwrap();
}

// parity: SessionStateTest::test_identity_conflict
#[test]
fn a_second_entity_with_a_key_does_not_take_the_firsts_place() {
    let fixture = germany();
    let session = fixture.session();
    let first = get(&session);
    let second = session.add(country("de", "Deutschland")).unwrap();
    assert!(session.flush().unwrap_err().is_unique_violation());
    assert_eq!(second.state(), ObjectState::Pending);
    session.rollback().unwrap();
    assert_eq!(session.tracked::<Country>(), std::slice::from_ref(&first));
    assert_eq!(get(&session), first);
    assert_eq!(second.state(), ObjectState::Transient);
}

/// Tries to change an entity while a flush ends.
struct ChangesInFlush {
    other: Tracked<Country>,
    answers: Rc<RefCell<Vec<Result<()>>>>,
}

impl SessionListener<Conn> for ChangesInFlush {
    fn after_flush(&self, _: &Session) {
        let answer = self.other.update(|country| country.population += 1);
        self.answers.borrow_mut().push(answer);
    }
}

// parity: SessionStateTest::test_extra_dirty_state_post_flush_warning
#[test]
fn a_change_while_a_flush_ends_is_refused() {
    let fixture = germany();
    let session = fixture.session();
    let other = get(&session);
    let answers = Rc::default();
    session.listen(ChangesInFlush { other: other.clone(), answers: Rc::clone(&answers) });
    session.add(country("at", "Austria")).unwrap();
    session.flush().unwrap();
    assert!(matches!(answers.borrow().as_slice(), [Err(Error::Reentrant)]), "{answers:?}");
    assert!(!session.is_modified(&other) && !session.has_changes());
    session.commit().unwrap();
    assert!(countries(&fixture).iter().all(|country| country.population == 0));
}

// parity: SessionStateTest::test_explicit_expunge_pending
#[test]
fn an_inserted_entity_that_was_expunged_does_not_come_back_with_the_rollback() {
    let fixture = germany();
    let session = fixture.session();
    let austria = session.add(country("at", "Austria")).unwrap();
    session.flush().unwrap();
    session.expunge(&austria).unwrap();
    assert!(!session.contains(&austria));
    session.rollback().unwrap();
    assert!(!session.contains(&austria));
    assert_eq!(austria.state(), ObjectState::Detached);
    assert_eq!(session.get::<Country>("at".to_owned()).unwrap(), None);
}

// ---- values that leave and come back ----

// parity: NoCyclesOnTransientDetachedTest::test_detached_to_dirty_persistent
// parity: NoCyclesOnTransientDetachedTest::test_detached_to_clean_persistent
#[test]
fn a_detached_value_comes_back_changed_if_it_was_changed() {
    for is_changed in [false, true] {
        let fixture = logged().with_users(&["ann"]);
        let session = fixture.session();
        let ann = by_name(&session, "ann");
        session.expunge(&ann).unwrap();
        let mut value = ann.into_value().unwrap();
        if is_changed {
            value.nickname = "anna".into();
        }
        let back = session.merge_existing(value).unwrap();
        assert_eq!(session.is_modified(&back), is_changed);
        assert_eq!(session.dirty_entities::<User>().len(), usize::from(is_changed));
        let ((), statements) = sent(|| session.flush().unwrap());
        assert_eq!(statements.len(), usize::from(is_changed));
        session.commit().unwrap();
        assert_eq!(fixture.nicknames(), [if is_changed { "anna" } else { "ann" }]);
    }
}

// parity: NoCyclesOnTransientDetachedTest::test_move_persistent_dirty
#[test]
fn an_unwritten_change_moves_to_another_session_with_the_value() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let (one, other) = (fixture.session(), fixture.session());
    let ann = by_name(&one, "ann");
    ann.write().unwrap().nickname = "anna".into();
    one.expunge(&ann).unwrap();
    one.commit().unwrap();
    assert_eq!(ann.read().unwrap().nickname, "anna");
    let moved = other.merge_existing(ann.into_value().unwrap()).unwrap();
    assert_eq!(moved.session_id(), other.id());
    assert_eq!(other.dirty_entities::<User>(), std::slice::from_ref(&moved));
    other.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["anna"]);
}

// parity: NoCyclesOnTransientDetachedTest::test_persistent_dirty_to_expired
#[test]
fn an_expired_entity_has_no_changes() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    ann.write().unwrap().nickname = "anna".into();
    assert!(session.is_modified(&ann));
    session.expire(&ann).unwrap();
    assert!(!session.is_modified(&ann) && !session.has_changes());
    assert!(session.dirty_entities::<User>().is_empty());
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: IsModifiedTest::test_is_modified
// parity: IsModifiedTest::test_is_modified_passive_off
#[test]
fn modified_is_what_differs_and_asking_sends_nothing() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    ann.write().unwrap().nickname = "ann".into();
    silent(|| assert!(!session.is_modified(&ann)));
    ann.write().unwrap().nickname = "anna".into();
    silent(|| assert!(session.is_modified(&ann)));
    assert_eq!(session.dirty_entities::<User>(), std::slice::from_ref(&ann));
    // Changed back.
    ann.write().unwrap().nickname = "ann".into();
    assert!(session.dirty_entities::<User>().is_empty());
    silent(|| assert!(!session.is_modified(&ann)));
    silent(|| session.flush().unwrap());
    // Children are rows of their own.
    session.add(post(ann.id().unwrap(), "first")).unwrap();
    silent(|| assert!(!session.is_modified(&ann)));
    session.expire(&ann).unwrap();
    silent(|| assert!(!session.is_modified(&ann)));
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].version, 1);
}
