//! What listeners may do while a session flushes and commits, as SQLAlchemy's session events have it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, Result, SessionListener, StatementInfo, Tracked, TransactionInfo};

use super::db::{Conn, Session};
use super::models::*;
use super::parity_tools::{by_name, logged, sent, silent};
use super::schema::users;
use super::tools::Fixture;

/// What a listener does before each flush.
struct BeforeFlush<F>(F);

impl<F: Fn(&Session) -> Result<()>> SessionListener<Conn> for BeforeFlush<F> {
    fn before_flush(&self, session: &Session) -> Result<()> {
        self.0(session)
    }
}

// parity: SessionEventsTest::test_reentrant_flush
#[test]
fn a_listener_that_gets_a_flush_ready_can_not_flush() {
    let fixture = logged();
    let session = fixture.session();
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    session.listen(BeforeFlush(move |session: &Session| {
        count.set(count.get() + 1);
        assert!(matches!(session.flush(), Err(Error::Reentrant)));
        assert!(matches!(session.begin_nested(), Err(Error::Reentrant)));
        // A query sees what was flushed before, and flushes nothing.
        assert!(session.load::<i32>(users::table.select(users::id))?.is_empty());
        let added = session.new_entities::<User>();
        assert_eq!(added[0].state(), ObjectState::Pending);
        assert!(matches!(added[0].id(), Err(Error::Pending { .. })));
        Ok(())
    }));
    session.add(user("ann")).unwrap();
    let ((), statements) = sent(|| session.flush().unwrap());
    // MySQL is asked afterwards what it generated.
    assert!(statements.starts_with(&["SELECT users".into(), "INSERT users".into()]), "{statements:?}");
    assert_eq!(calls.get(), 1);
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

#[test]
fn an_error_of_a_listener_that_gets_a_flush_ready_leaves_the_session_able_to_flush() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let refuses = Rc::new(Cell::new(true));
    let refusing = Rc::clone(&refuses);
    session.listen(BeforeFlush(move |_: &Session| if refusing.get() { Err(Error::InHook) } else { Ok(()) }));
    session.add(user("ann")).unwrap();
    assert!(matches!(session.flush(), Err(Error::InHook)));
    refuses.set(false);
    assert_eq!(session.load::<String>(users::table.select(users::nickname)).unwrap(), ["ann"]);
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: SessionEventsTest::test_before_flush_affects_flush_plan
#[test]
fn what_is_added_and_deleted_before_a_flush_is_part_of_it() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    session.listen(BeforeFlush(|session: &Session| {
        for added in session.new_entities::<Country>() {
            assert_eq!(added.state(), ObjectState::Pending);
            session.add(user("added before the flush"))?;
            session.delete(&by_name(session, "ann"))?;
        }
        Ok(())
    }));
    let germany = session.add(country("de", "Germany")).unwrap();
    session.flush().unwrap();
    assert_eq!(germany.state(), ObjectState::Persistent);
    assert!(!session.has_changes());
    let names = session.load::<String>(users::table.select(users::nickname)).unwrap();
    assert_eq!(names, ["added before the flush"]);
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["added before the flush"]);
}

// parity: SessionEventsTest::test_before_flush_affects_dirty
#[test]
fn what_is_changed_before_a_flush_is_part_of_it_and_an_empty_flush_asks_nobody() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    session.listen(BeforeFlush(move |session: &Session| {
        count.set(count.get() + 1);
        for user in session.tracked::<User>() {
            user.write()?.email = Some("changed before the flush".into());
        }
        Ok(())
    }));
    let ann = by_name(&session, "ann");
    silent(|| session.flush().unwrap());
    assert_eq!(calls.get(), 0);
    session.add(country("de", "Germany")).unwrap();
    let ((), statements) = sent(|| session.flush().unwrap());
    assert!(statements.contains(&"UPDATE users".into()), "{statements:?}");
    assert_eq!(calls.get(), 1);
    assert!(!session.is_modified(&ann));
    session.commit().unwrap();
    assert_eq!(calls.get(), 1);
    assert_eq!(fixture.users()[0].email.as_deref(), Some("changed before the flush"));
}

/// Looks at an entity when it hears of the commit.
struct LooksAtCommit {
    user: Tracked<User>,
    seen: Rc<RefCell<Vec<String>>>,
}

impl SessionListener<Conn> for LooksAtCommit {
    fn after_commit(&self, _: &TransactionInfo) {
        self.seen.borrow_mut().push(self.user.read().unwrap().nickname.clone());
    }
}

// parity: SessionEventsTest::test_snapshot_still_present_after_commit
#[test]
fn a_listener_of_the_commit_sees_what_was_committed_which_is_stale_after_it() {
    let fixture = logged();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    session.flush().unwrap();
    let seen = Rc::default();
    session.listen(LooksAtCommit { user: ann.clone(), seen: Rc::clone(&seen) });
    assert!(!ann.is_stale());
    silent(|| session.commit().unwrap());
    assert_eq!(*seen.borrow(), ["ann"]);
    assert!(ann.is_stale());
    silent(|| assert_eq!(ann.read().unwrap().nickname, "ann"));
}

/// Flushes before each query.
struct FlushesBeforeQueries;

impl SessionListener<Conn> for FlushesBeforeQueries {
    fn before_statement(&self, session: &Session, _: &StatementInfo) -> Result<()> {
        session.flush()
    }
}

// parity: ORMExecuteTest::test_autoflush_change
#[test]
fn a_listener_may_flush_before_a_query_that_does_not() {
    for flushes in [false, true] {
        let fixture = Fixture::new();
        let session = fixture.session();
        if flushes {
            session.listen(FlushesBeforeQueries);
        }
        let ann = session.add(user("ann")).unwrap();
        let names = session.no_autoflush(|| session.load::<String>(users::table.select(users::nickname)).unwrap());
        assert_eq!(names.len(), usize::from(flushes));
        assert_eq!(ann.state(), if flushes { ObjectState::Persistent } else { ObjectState::Pending });
        // Where queries flush, they have flushed before the listener is asked.
        assert_eq!(session.load::<String>(users::table.select(users::nickname)).unwrap(), ["ann"]);
    }
}
