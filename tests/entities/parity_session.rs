//! Getting, adding and flushing, as SQLAlchemy's tests of sessions have it.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use diesel::prelude::*;
use diesel_session::{Error, Kind, ObjectState, Place, Result, RowLock, SessionListener, StatementInfo, StatementKind};
use diesel_session::{SessionConnection, autocommit};

use super::db::{Conn, Session};
use super::models::*;
use super::parity_tools::{by_name, logged, post, sent, silent, sql, titles};
use super::schema::{groups, users};
use super::tools::Fixture;

// parity: TransScopingTest::test_autobegin_flush
#[test]
fn an_empty_flush_begins_nothing_and_an_added_row_does() {
    let fixture = Fixture::new();
    let session = fixture.session();
    session.flush().unwrap();
    assert!(!session.in_transaction());
    session.add(user("ann")).unwrap();
    assert!(session.in_transaction());
    session.flush().unwrap();
    assert!(session.in_transaction());
    session.commit().unwrap();
    assert!(!session.in_transaction());
    session.flush().unwrap();
    assert!(!session.in_transaction());
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: TransScopingTest::test_autobegin_within_flush
#[test]
fn a_change_and_a_flush_begin_a_transaction_that_a_rollback_ends() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    session.commit().unwrap();
    ann.write().unwrap().nickname = "anna".into();
    session.flush().unwrap();
    assert!(session.in_transaction());
    session.rollback().unwrap();
    assert!(!session.in_transaction());
    assert_eq!(ann.read().unwrap().nickname, "ann");
    assert_eq!(fixture.nicknames(), ["ann"]);
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Change,
    Add,
    Delete,
    Read,
    Nothing,
}

// parity: TransScopingTest::test_autobegin_attr_change
#[test]
fn whatever_changes_something_begins_and_a_rollback_restores_it() {
    let fixture = Fixture::new().with_users(&["ann"]);
    for step in [Step::Change, Step::Add, Step::Delete, Step::Read, Step::Nothing] {
        for (flush, by_hand, ends_before) in (0..8).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0)) {
            let session = fixture.session();
            let ann = by_name(&session, "ann");
            if ends_before {
                session.commit().unwrap();
            } else {
                session.rollback().unwrap();
            }
            assert!(!session.in_transaction());
            if by_hand {
                session.begin().unwrap();
            }
            let mut added = None;
            match step {
                Step::Change => ann.write().unwrap().nickname = "anna".into(),
                Step::Add => added = Some(session.add(user("bob")).unwrap()),
                Step::Delete => session.delete(&ann).unwrap(),
                Step::Read => assert_eq!(ann.read().unwrap().nickname, "ann"),
                Step::Nothing => {}
            }
            let changes = matches!(step, Step::Change | Step::Add | Step::Delete);
            let case = format!("{step:?} {flush} {by_hand} {ends_before}");
            assert_eq!(session.in_transaction(), changes || by_hand, "{case}");
            if flush {
                session.flush().unwrap();
            }
            session.rollback().unwrap();
            assert!(!session.in_transaction() && !session.has_changes(), "{case}");
            assert_eq!(ann.state(), ObjectState::Persistent, "{case}");
            assert_eq!(ann.read().unwrap().nickname, "ann", "{case}");
            assert!(added.is_none_or(|added| added.state() == ObjectState::Transient), "{case}");
            assert_eq!(fixture.nicknames(), ["ann"], "{case}");
        }
    }
}

// parity: SessionUtilTest::test_get
// parity: SessionUtilTest::test_get_one
#[test]
fn a_key_gives_the_same_entity_until_it_is_expunged() {
    let fixture = logged().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let session = fixture.session();
    type Get = fn(&Session, i32) -> diesel_session::Tracked<User>;
    let ways: [Get; 2] =
        [|session, id| session.get::<User>(id).unwrap().unwrap(), |session, id| session.get_one::<User>(id).unwrap()];
    for get in ways {
        let (ann, first) = sent(|| get(&session, id));
        assert_eq!(first, ["SELECT users"]);
        assert_eq!(silent(|| get(&session, id)), ann);
        session.expunge_all().unwrap();
        let (other, again) = sent(|| get(&session, id));
        assert_eq!(again, ["SELECT users"]);
        assert_ne!(other, ann);
        assert_eq!(*other.read().unwrap(), *ann.read().unwrap());
        session.expunge_all().unwrap();
    }
    assert_eq!(session.get::<User>(id + 1).unwrap(), None);
    assert!(session.get_one::<User>(id + 1).unwrap_err().is_not_found());
}

/// Writes down what it is told of statements.
struct Statements(Rc<RefCell<Vec<(StatementKind, Place)>>>);

impl SessionListener<Conn> for Statements {
    fn before_statement(&self, _: &Session, statement: &StatementInfo) -> Result<()> {
        self.0.borrow_mut().push((statement.kind(), statement.place()));
        Ok(())
    }
}

// parity: SessionUtilTest::test_get_arguments
#[test]
fn a_listener_hears_of_a_get_that_asks_the_database_and_where_it_stands() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let session = fixture.session();
    let heard = Rc::default();
    session.listen(Statements(Rc::clone(&heard)));
    let (line, ann) = (line!(), session.get::<User>(id).unwrap());
    session.get::<User>(id).unwrap();
    let heard = heard.take();
    let [(StatementKind::Select, place)] = heard.as_slice() else { panic!("{heard:?}") };
    assert!(place.file().ends_with("parity_session.rs"));
    assert_eq!(place.line(), line);
    assert!(ann.is_some());
}

// parity: SessionStateTest::test_execution_options_flush_and_execute
#[test]
fn listeners_hear_of_queries_and_not_of_a_flushs_statements_which_instrumentation_sees_too() {
    let fixture = logged();
    let session = fixture.session();
    let heard: Rc<RefCell<Vec<_>>> = Rc::default();
    session.listen(Statements(Rc::clone(&heard)));
    session.add(user("ann")).unwrap();
    let ((), flushed) = sent(|| session.flush().unwrap());
    assert_eq!(flushed[0], "INSERT users");
    assert!(heard.borrow().is_empty());
    let (_, queried) = sent(|| session.load::<i32>(users::table.select(users::id)).unwrap());
    assert_eq!(queried, ["SELECT users"]);
    assert_eq!(heard.borrow().len(), 1);
    assert_eq!(heard.borrow()[0].0, StatementKind::Select);
}

// parity: SessionUtilTest::test_get_with_for_update_use
#[test]
fn a_get_that_locks_asks_the_database_also_for_what_is_known() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let id = ann.id().unwrap();
    assert_eq!(silent(|| session.get::<User>(id).unwrap()), Some(ann.clone()));
    let (locked, statements) = sent(|| session.get_for_update::<User>(id, RowLock::update()).unwrap());
    assert_eq!(statements, ["SELECT users"]);
    assert_eq!(locked, Some(ann.clone()));
    assert_eq!(silent(|| session.get::<User>(id).unwrap()), Some(ann));
}

// parity: SessionInterface::test_refresh_arg_signature
#[test]
fn a_refresh_takes_every_lock_and_none_that_means_nothing() {
    let fixture = logged().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let kind = session.with_connection(|conn| Ok(conn.kind())).unwrap();
    let ((), plain) = sql(|| session.refresh(&ann).unwrap());
    assert!(plain.iter().all(|text| !text.contains(" FOR ") && !text.contains(" LOCK ")), "{plain:?}");
    let locks = [
        (RowLock::update(), " FOR UPDATE"),
        (RowLock::no_key_update(), " FOR NO KEY UPDATE"),
        (RowLock::share(), " FOR SHARE"),
        (RowLock::key_share(), " FOR KEY SHARE"),
        (RowLock::update().no_wait(), " FOR UPDATE NOWAIT"),
        (RowLock::update().skip_locked(), " FOR UPDATE SKIP LOCKED"),
    ];
    for (lock, words) in locks {
        let ((), statements) = sql(|| session.refresh_for_update(&ann, lock).unwrap());
        assert_eq!(statements.len(), 1);
        match kind {
            Kind::Postgres => assert!(statements[0].contains(words), "{statements:?}"),
            Kind::Sqlite => assert!(!statements[0].contains(" FOR "), "{statements:?}"),
            _ => assert!(statements[0].contains(" FOR UPDATE") || statements[0].contains(" SHARE"), "{statements:?}"),
        }
    }
    session.commit().unwrap();
    let alone = Session::with_options(fixture.registry.engine(), autocommit()).unwrap();
    let ann = by_name(&alone, "ann");
    assert!(matches!(alone.refresh_for_update(&ann, RowLock::update()), Err(Error::NoTransaction)));
}

// parity: SessionStateTest::test_get_populate_existing
#[test]
fn only_a_refresh_writes_over_changes_and_only_what_asks_sees_the_database() {
    type Look = fn(&Session, &diesel_session::Tracked<User>);
    let looks: [(&str, Look, bool, bool); 5] = [
        ("get", |session, ann| drop(session.get::<User>(ann.key().unwrap()).unwrap()), false, false),
        ("get_many", |session, ann| drop(session.get_many::<User, _>([ann.key().unwrap()]).unwrap()), false, false),
        (
            "get_for_update",
            |session, ann| drop(session.get_for_update::<User>(ann.key().unwrap(), RowLock::update()).unwrap()),
            true,
            false,
        ),
        (
            "query",
            |session, _| drop(session.load_tracked(users::table.select(User::as_select())).unwrap()),
            true,
            false,
        ),
        ("refresh", |session, ann| session.refresh(ann).unwrap(), true, true),
    ];
    for (name, look, asks, overwrites) in looks {
        for is_changed in [false, true] {
            let fixture = logged().with_users(&["ann"]);
            let session = fixture.session();
            let ann = by_name(&session, "ann");
            if is_changed {
                ann.write().unwrap().balance = 9;
            }
            let ((), statements) = sent(|| session.no_autoflush(|| look(&session, &ann)));
            assert_eq!(statements.len(), usize::from(asks), "{name} {is_changed}: {statements:?}");
            let is_kept = is_changed && !overwrites;
            assert_eq!(ann.read().unwrap().balance, if is_kept { 9 } else { 0 }, "{name} {is_changed}");
            assert_eq!(session.is_modified(&ann), is_kept, "{name} {is_changed}");
            session.commit().unwrap();
            assert_eq!(fixture.users()[0].balance, if is_kept { 9 } else { 0 }, "{name} {is_changed}");
        }
    }
}

// parity: SessionUtilTest::test_delete_all
#[test]
fn a_list_of_entities_is_deleted_by_the_next_flush() {
    let fixture = logged().with_users(&["ann", "bob", "cid"]);
    let session = fixture.session();
    let some = [by_name(&session, "ann"), by_name(&session, "bob")];
    session.delete_all(&some).unwrap();
    assert_eq!(session.deleted_entities::<User>(), some);
    let ((), statements) = sent(|| session.flush().unwrap());
    assert!(!statements.is_empty() && statements.iter().all(|statement| statement == "DELETE users"), "{statements:?}");
    assert!(some.iter().all(|user| user.state() == ObjectState::Deleted));
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["cid"]);
}

// parity: SessionStateTest::test_with_no_autoflush
// parity: SessionStateTest::test_with_no_autoflush_after_exception
#[test]
fn queries_flush_again_after_a_block_without_also_when_it_failed_or_panicked() {
    let fixture = Fixture::new();
    let names = |session: &Session| session.load::<String>(users::table.select(users::nickname)).unwrap();
    let ends: [fn() -> Result<()>; 3] = [|| Ok(()), || Err(Error::NoTransaction), || panic!("in the block")];
    for end in ends {
        let session = fixture.session();
        let ann = session.add(user("ann")).unwrap();
        let block = || {
            session.no_autoflush(|| {
                assert!(names(&session).is_empty());
                session.no_autoflush(|| assert!(names(&session).is_empty()));
                assert!(names(&session).is_empty());
                end()
            })
        };
        let _ = catch_unwind(AssertUnwindSafe(block));
        assert_eq!(ann.state(), ObjectState::Pending);
        assert_eq!(names(&session), ["ann"]);
        assert_eq!(ann.state(), ObjectState::Persistent);
        session.rollback().unwrap();
    }
}

// parity: SessionStateTest::test_autoflush_exception_addition
#[test]
fn the_error_of_a_flush_before_a_query_names_the_querys_line() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    session.add(user("ann")).unwrap();
    let (line, answer) = (line!(), session.load::<i32>(groups::table.select(groups::id)));
    let error = answer.unwrap_err();
    assert!(error.is_unique_violation(), "{error}");
    let place = error.failure().unwrap().place();
    assert!(place.file().ends_with("parity_session.rs"));
    assert_eq!(place.line(), line);
    session.rollback().unwrap();
}

// parity: SessionStateTest::test_autoflush_unbound
#[test]
fn a_query_of_one_table_flushes_what_waits_for_any_other() {
    let fixture = logged();
    let session = fixture.session();
    session.add(user("ann")).unwrap();
    session.add(country("de", "Germany")).unwrap();
    let (groups, statements) = sent(|| session.load::<i32>(groups::table.select(groups::id)).unwrap());
    assert!(groups.is_empty());
    assert_eq!(statements.last().unwrap(), "SELECT groups");
    assert!(statements.contains(&"INSERT users".into()) && statements.contains(&"INSERT countries".into()));
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["ann"]);
}

// parity: SessionStateTest::test_no_double_save
#[test]
fn a_row_that_is_added_while_another_is_made_is_inserted_once() {
    let fixture = logged();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    let first = session.add_with(&ann, |ann| post(ann.id, "first")).unwrap();
    let reply = session
        .add_with((&ann, &first), |(ann, first)| NewPost { parent_id: Some(first.id), ..post(ann.id, "reply") })
        .unwrap();
    assert_eq!(session.new_entities::<User>(), [ann]);
    assert_eq!(session.new_entities::<Post>(), [first, reply]);
    let ((), statements) = sent(|| session.flush().unwrap());
    assert_eq!(statements.iter().filter(|statement| *statement == "INSERT users").count(), 1);
    assert!(session.new_entities::<User>().is_empty() && session.new_entities::<Post>().is_empty());
    session.commit().unwrap();
    assert_eq!((fixture.users().len(), fixture.posts().len()), (1, 2));
}

// parity: SessionStateWFixtureTest::test_autoflush_rollback
#[test]
fn a_rollback_after_a_flush_that_a_query_made_restores_fields_and_children() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = by_name(&session, "ann");
    let first = session.add(post(ann.id().unwrap(), "first")).unwrap();
    session.commit().unwrap();
    first.write().unwrap().title = "changed".into();
    session.add_with(&ann, |ann| post(ann.id, "second")).unwrap();
    assert_eq!(titles(&session, &ann), ["changed", "second"]);
    session.rollback().unwrap();
    assert_eq!(first.read().unwrap().title, "first");
    assert_eq!(titles(&session, &ann), ["first"]);
    session.commit().unwrap();
    assert_eq!(fixture.posts().len(), 1);
}
