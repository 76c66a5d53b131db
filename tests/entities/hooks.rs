//! What listeners hear of objects.

use std::cell::RefCell;
use std::rc::Rc;

use diesel_session::{ObjectState, SessionListener, TransactionInfo, Transition};

use super::db::{Conn, Session};
use super::models::*;
use super::tools::Fixture;

#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    fn say(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

impl SessionListener<Conn> for Log {
    fn after_transaction_create(&self, _: &Session, _: &TransactionInfo) {
        self.say("create");
    }

    fn after_begin(&self, _: &Session, _: &TransactionInfo) -> diesel_session::Result<()> {
        self.say("begin");
        Ok(())
    }

    fn before_commit(&self, _: &Session) -> diesel_session::Result<()> {
        self.say("before_commit");
        Ok(())
    }

    fn before_flush(&self, session: &Session) -> diesel_session::Result<()> {
        self.say(format!("before_flush {}", session.new_entities::<User>().len()));
        Ok(())
    }

    fn after_flush(&self, session: &Session) {
        self.say(format!("after_flush {}", session.new_entities::<User>().len()));
    }

    fn after_flush_postexec(&self, session: &Session) {
        self.say(format!("after_flush_postexec {}", session.new_entities::<User>().len()));
    }

    fn after_commit(&self, _: &TransactionInfo) {
        self.say("after_commit");
    }

    fn after_transaction_end(&self, _: &TransactionInfo) {
        self.say("end");
    }

    fn transition(&self, transition: &Transition) {
        assert!(transition.object::<User>().is_some_and(|user| user.state() == transition.to()));
        self.say(format!("{:?} {:?}", transition.from(), transition.to()));
    }
}

#[test]
fn the_order_of_an_add_and_its_commit_is_sqlalchemys() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let log = Log::default();
    session.listen(log.clone());
    session.add(user("ann")).unwrap();
    session.commit().unwrap();
    assert_eq!(
        log.take(),
        [
            "create",
            "Transient Pending",
            "before_commit",
            "before_flush 1",
            "begin",
            "after_flush 1",
            "Pending Persistent",
            "after_flush_postexec 0",
            "after_commit",
            "end"
        ]
    );
}

#[test]
fn objects_tell_each_step_of_their_way() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let session = fixture.session();
    let log = Log::default();
    session.listen(log.clone());
    let steps = |log: &Log| -> Vec<String> {
        log.take().into_iter().filter(|line| line.contains(' ') && !line.contains("flush")).collect()
    };
    let ann = session.get_one::<User>(id).unwrap();
    assert_eq!(steps(&log), ["Transient Persistent"]);
    session.delete(&ann).unwrap();
    session.flush().unwrap();
    assert_eq!(steps(&log), ["Persistent Deleted"]);
    session.rollback().unwrap();
    assert_eq!(steps(&log), ["Deleted Persistent"]);
    session.delete(&ann).unwrap();
    session.commit().unwrap();
    assert_eq!(steps(&log), ["Persistent Deleted", "Deleted Detached"]);
    assert_eq!(ann.state(), ObjectState::Detached);
    let bob = session.add(user("bob")).unwrap();
    session.rollback().unwrap();
    assert_eq!(steps(&log), ["Transient Pending", "Pending Transient"]);
    drop(bob);
}

/// Adds a post for each user that is added, and asks the database something.
struct Follower;

impl SessionListener<Conn> for Follower {
    fn before_flush(&self, session: &Session) -> diesel_session::Result<()> {
        session.get_result::<i64>(diesel::QueryDsl::count(super::schema::users::table))?;
        assert!(matches!(session.flush(), Err(diesel_session::Error::Reentrant)));
        for user in session.new_entities::<User>() {
            session.add_with(&user, |user| NewPost { user_id: user.id, parent_id: None, title: "welcome".into() })?;
        }
        Ok(())
    }
}

#[test]
fn a_listener_may_query_and_add_before_a_flush_and_is_not_asked_again_by_that() {
    let fixture = Fixture::new();
    let session = fixture.session();
    session.listen(Follower);
    session.add(user("ann")).unwrap();
    session.commit().unwrap();
    assert_eq!(fixture.posts().len(), 1);
}
