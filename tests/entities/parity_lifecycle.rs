//! The ways of objects from state to state that listeners hear of, as SQLAlchemy's lifecycle events have them.

use std::cell::RefCell;
use std::rc::Rc;

use diesel_session::ObjectState::{Deleted, Detached, Pending, Persistent, Transient};
use diesel_session::{Error, ObjectState, SessionListener, Tracked, Transition};

use super::db::{Conn, Session};
use super::models::*;
use super::parity_tools::by_name;
use super::tools::Fixture;

/// One way of a user, and whether the session had it then.
type Way = (ObjectState, ObjectState, bool);

/// Writes down every way of a user, with what the session says of the object meanwhile.
struct Ways {
    session: Session,
    heard: Rc<RefCell<Vec<Way>>>,
}

impl SessionListener<Conn> for Ways {
    fn transition(&self, transition: &Transition) {
        let user: Tracked<User> = transition.object().unwrap();
        assert_eq!(transition.session(), self.session.id());
        assert_eq!(transition.table(), "users");
        assert_eq!(user.state(), transition.to());
        assert!(transition.object::<Post>().is_none());
        self.heard.borrow_mut().push((transition.from(), transition.to(), self.session.contains(&user)));
    }
}

fn heard(session: &Session) -> Rc<RefCell<Vec<Way>>> {
    let heard = Rc::default();
    session.listen(Ways { session: session.clone(), heard: Rc::clone(&heard) });
    heard
}

// parity: SessionEventsTest::test_state_after_attach
#[test]
fn an_added_object_is_the_sessions_when_its_listeners_hear_of_it() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let heard = heard(&session);
    session.add(user("ann")).unwrap();
    assert_eq!(heard.take(), [(Transient, Pending, true)]);
    session.close();
}

// parity: SessionLifecycleEventsTest::test_pending_to_transient_via_rollback
// parity: SessionLifecycleEventsTest::test_pending_to_transient_via_expunge
#[test]
fn a_pending_object_is_transient_after_a_rollback_and_after_its_expunge() {
    let fixture = Fixture::new();
    for expunge in [false, true] {
        let session = fixture.session();
        let heard = heard(&session);
        let ann = session.add(user("ann")).unwrap();
        heard.take();
        if expunge {
            session.expunge(&ann).unwrap();
        } else {
            session.rollback().unwrap();
        }
        assert_eq!(heard.take(), [(Pending, Transient, false)]);
        session.close();
        assert!(heard.take().is_empty());
    }
}

// parity: SessionLifecycleEventsTest::test_pending_to_persistent
#[test]
fn a_pending_object_is_persistent_once_after_its_flush_and_not_after_an_update() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let heard = heard(&session);
    let ann = session.add(user("ann")).unwrap();
    heard.take();
    session.flush().unwrap();
    assert_eq!(heard.take(), [(Pending, Persistent, true)]);
    ann.write().unwrap().nickname = "anna".into();
    session.flush().unwrap();
    session.commit().unwrap();
    assert!(heard.take().is_empty());
    session.close();
}

// parity: SessionLifecycleEventsTest::test_loaded_as_persistent
#[test]
fn a_loaded_object_is_persistent_once_and_in_the_identity_map_by_then() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let heard = heard(&session);
    let ann = by_name(&session, "ann");
    assert_eq!(heard.take(), [(Transient, Persistent, true)]);
    assert_eq!(by_name(&session, "ann"), ann);
    session.refresh(&ann).unwrap();
    assert!(heard.take().is_empty());
    session.close();
}

// parity: SessionLifecycleEventsTest::test_detached_to_persistent_via_deleted
#[test]
fn a_detached_object_is_got_anew_to_be_deleted() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    session.expunge(&ann).unwrap();
    let heard = heard(&session);
    assert!(matches!(session.delete(&ann), Err(Error::Detached { .. })));
    assert!(heard.take().is_empty());
    let again = session.merge_existing(ann.into_value().unwrap()).unwrap();
    session.delete(&again).unwrap();
    assert_eq!(heard.take(), [(Transient, Persistent, true)]);
    session.flush().unwrap();
    assert_eq!(heard.take(), [(Persistent, Deleted, false)]);
    session.commit().unwrap();
    assert_eq!(heard.take(), [(Deleted, Detached, false)]);
    assert!(fixture.users().is_empty());
    session.close();
}

// parity: SessionLifecycleEventsTest::test_persistent_to_detached_via_expunge
// parity: SessionLifecycleEventsTest::test_persistent_to_detached_via_expunge_all
#[test]
fn a_persistent_object_is_detached_by_its_expunge_and_by_that_of_all() {
    let fixture = Fixture::new().with_users(&["ann"]);
    for all in [false, true] {
        let session = fixture.session();
        let ann = by_name(&session, "ann");
        let heard = heard(&session);
        if all {
            session.expunge_all().unwrap();
        } else {
            session.expunge(&ann).unwrap();
        }
        assert_eq!(heard.take(), [(Persistent, Detached, false)]);
        session.rollback().unwrap();
        session.close();
        assert!(heard.take().is_empty());
    }
}

// parity: SessionLifecycleEventsTest::test_persistent_to_transient_via_rollback
// parity: SessionLifecycleEventsTest::test_deleted_to_persistent_via_rollback
#[test]
fn a_rollback_makes_the_inserted_transient_and_the_deleted_persistent() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let bob = session.add(user("bob")).unwrap();
    session.delete(&ann).unwrap();
    session.flush().unwrap();
    let heard = heard(&session);
    session.rollback().unwrap();
    let mut ways = heard.take();
    ways.sort_by_key(|(_, to, _)| *to == Persistent);
    assert_eq!(ways, [(Persistent, Transient, false), (Deleted, Persistent, true)]);
    assert_eq!((ann.state(), bob.state()), (Persistent, Transient));
    session.close();
}
