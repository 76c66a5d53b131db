//! Ways to break the unit of work's promises: values at the end of their types, triggers, two structs of one table, foreign
//! handles.

use std::cell::Cell;
use std::rc::Rc;

use diesel::prelude::*;
use diesel_session::testing::{Fault, FaultPlan};
use diesel_session::{
    Bulk, Entity, Error, ObjectState, Record, RetryPolicy, SessionListener, Tracked, TransactionOptions, autocommit,
};

use super::db::{Conn, SCHEMA, Session};
use super::models::*;
use super::schema::{countries, posts, users};
use super::tools::Fixture;

/// A second struct on the users' table.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Entity)]
#[diesel(table_name = users)]
struct Wallet {
    id: i32,
    balance: i64,
}

/// A third, whose selection is written by hand and has a bind.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Identifiable, Entity)]
#[diesel(table_name = users)]
struct Bonus {
    id: i32,
    balance: i64,
}

impl<DB: diesel::backend::Backend> Selectable<DB> for Bonus {
    type SelectExpression = (users::id, <users::balance as std::ops::Add<i64>>::Output);

    fn construct_selection() -> Self::SelectExpression {
        (users::id, users::balance + 100)
    }
}

#[test]
fn a_selection_with_binds_is_read_by_key_again_and_again() {
    let fixture = Fixture::new().with_users(&["ann", "bob", "cyd"]);
    let session = fixture.session();
    for user in fixture.users() {
        let bonus = session.get_one::<Bonus>(user.id).unwrap();
        assert_eq!(*bonus.read().unwrap(), Bonus { id: user.id, balance: 100 });
        session.commit().unwrap();
    }
}

fn first(fixture: &Fixture) -> i32 {
    fixture.users()[0].id
}

/// The version is compared with the one that was read under the guard, not with the one that its copy was made of.
#[test]
fn a_row_that_is_read_anew_under_a_guard_is_not_overwritten_by_the_guards_copy() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = first(&fixture);
    let session = fixture.session();
    let ann = session.get_one::<User>(id).unwrap();
    let read = session.no_autoflush(|| {
        let mut guard = ann.write()?;
        guard.balance += 1;
        // The change of somebody else, who raises the version.
        session.execute(diesel::update(users::table.find(id)).set((
            users::balance.eq(100),
            users::email.eq("new"),
            users::version.eq(users::version + 1),
        )))?;
        session.load_tracked(users::table.select(User::as_select())).map(drop)
    });
    let written = read.and_then(|()| session.commit().map(drop));
    session.rollback().unwrap();
    let stored = fixture.users().remove(0);
    assert!(
        written.is_err() || stored.email.as_deref() == Some("new") && stored.balance == 101,
        "said Ok, and the other's change is lost: {stored:?}"
    );
}

/// `apply` makes only its own handle fresh; another struct on the table keeps a base that does not hold any more.
#[test]
fn a_changeset_makes_other_entities_of_its_table_stale() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = first(&fixture);
    let session = fixture.session();
    let (ann, wallet) = (session.get_one::<User>(id).unwrap(), session.get_one::<Wallet>(id).unwrap());
    session.apply(&ann, users::balance.eq(users::balance + 10)).unwrap();
    wallet.write().unwrap().balance += 10;
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].balance, 20);
}

/// The same the other way round, by a flush: this holds.
#[test]
fn a_flush_makes_other_entities_of_its_table_stale() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = first(&fixture);
    let session = fixture.session();
    let (ann, wallet) = (session.get_one::<User>(id).unwrap(), session.get_one::<Wallet>(id).unwrap());
    ann.write().unwrap().balance += 10;
    session.flush().unwrap();
    wallet.write().unwrap().balance += 10;
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].balance, 20);
}

/// Two entities of one row that wait in one flush: the second writes what it read before the first.
#[test]
fn two_entities_of_one_row_that_are_changed_in_one_flush_lose_nothing_silently() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = first(&fixture);
    let session = fixture.session();
    let (ann, wallet) = (session.get_one::<User>(id).unwrap(), session.get_one::<Wallet>(id).unwrap());
    ann.write().unwrap().balance += 10;
    wallet.write().unwrap().balance += 10;
    let said = session.commit();
    assert!(said.is_err() || fixture.users()[0].balance == 20, "Ok, and {} is stored", fixture.users()[0].balance);
}

/// The row was changed, the error says that it is gone, and the handle is lost.
#[test]
fn a_changeset_that_changes_the_key_is_followed_or_refused() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let de = session.add(country("DE", "Germany")).unwrap();
    session.commit().unwrap();
    let said = session.apply(&de, countries::code.eq("GE"));
    let stored: Vec<String> = session.load(countries::table.select(countries::code)).unwrap();
    match said {
        Ok(()) => assert_eq!((de.key().as_deref(), stored), (Some("GE"), vec!["GE".to_owned()])),
        Err(error) => assert_eq!(stored, ["DE"], "refused with `{error}`, and yet written"),
    }
}

/// The version of a row that reached the type's end stays what it is, so nobody is told of anybody.
#[test]
fn a_version_at_the_end_of_its_type_does_not_let_updates_pass() {
    let fixture = Fixture::new();
    let session = fixture.session();
    session
        .execute(diesel::insert_into(users::table).values((
            users::nickname.eq("ann"),
            users::balance.eq(0),
            users::version.eq(i32::MAX),
        )))
        .unwrap();
    session.commit().unwrap();
    let id = first(&fixture);
    // An editor keeps its copy while somebody else writes.
    let mut copy = fixture.users().remove(0);
    let written = fixture.registry.transaction(|session| session.get_one::<User>(id)?.update(|ann| ann.balance = 5));
    if written.is_err() {
        return;
    }
    copy.nickname = "eve".into();
    let said = fixture.registry.transaction(|session| session.merge_existing(copy.clone()).map(drop));
    assert!(said.is_err(), "two edits of one version: {:?}", fixture.users());
}

#[derive(Clone)]
struct Restless(Rc<Cell<u32>>, Rc<std::cell::RefCell<Option<Tracked<User>>>>);

impl SessionListener<Conn> for Restless {
    fn after_flush_postexec(&self, _: &Session) {
        self.0.set(self.0.get() + 1);
        if let Some(ann) = &*self.1.borrow() {
            ann.update(|ann| ann.balance += 1).unwrap();
        }
    }
}

/// After a hundred flushes the commit gives up and says Ok with a change that it did not write (SQLAlchemy: FlushError).
#[test]
fn a_commit_that_leaves_a_change_unwritten_does_not_say_ok() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(first(&fixture)).unwrap();
    let listener = Restless(Rc::default(), Rc::new(Some(ann.clone()).into()));
    session.listen(listener.clone());
    ann.write().unwrap().balance = 1;
    let said = session.commit();
    listener.1.take();
    let (shown, stored) = (ann.read().unwrap().balance, fixture.users()[0].balance);
    assert!(said.is_err() || shown == stored, "Ok after {} flushes: shows {shown}, stored {stored}", listener.0.get());
}

/// Rule 38.
#[test]
fn relations_take_no_handles_of_another_session() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = first(&fixture);
    let one = fixture.session();
    let ann = one.get_one::<User>(id).unwrap();
    one.commit().unwrap();
    let other = fixture.session();
    let said = other.related::<Post, _>(std::slice::from_ref(&ann));
    assert!(matches!(said, Err(Error::ForeignHandle { .. })), "{said:?}");
}

/// Asking one session for the children of a pending row flushes the other.
#[test]
fn relations_of_a_foreign_pending_row_do_not_flush_its_session() {
    let fixture = Fixture::new();
    if !super::db::CONCURRENT {
        return;
    }
    let one = fixture.session();
    let ann = one.add(user("ann")).unwrap();
    let other = fixture.session();
    let _ = other.related::<Post, _>(std::slice::from_ref(&ann));
    assert_eq!(ann.state(), ObjectState::Pending);
}

/// `# Errors` promise the number of a row that is not there.
#[test]
fn a_bulk_update_of_no_column_still_says_which_row_is_not_there() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let said = session.bulk_update([country("XX", "nowhere")], Bulk::new().columns(&[]));
    assert!(said.is_err(), "{said:?} rows written, of none");
}

/// Who closes the session while it flushes is told so by the extent: this holds.
#[test]
fn a_session_that_is_removed_by_a_closure_that_makes_a_record_stores_nothing() {
    let fixture = Fixture::new();
    let registry = Rc::new(fixture.registry.clone());
    let inner = Rc::clone(&registry);
    let said = registry.transaction(|session| {
        let ann = session.add(user("ann"))?;
        session.add_with(&ann, move |ann| {
            inner.remove();
            NewPost { user_id: ann.id, parent_id: None, title: "t".into() }
        })?;
        session.flush()
    });
    assert_eq!(said.is_ok(), !fixture.users().is_empty(), "{said:?}, and {:?}", fixture.users());
    assert!(said.is_err());
}

/// Whatever a closure that makes a record does with the session is refused, and the flush goes on: this holds.
#[test]
fn a_closure_that_makes_a_record_cannot_use_the_session() {
    let fixture = Fixture::new();
    let registry = fixture.registry.clone();
    let asked = Rc::new(Cell::new(0));
    let count = Rc::clone(&asked);
    registry
        .transaction(|session| {
            let ann = session.add(user("ann"))?;
            let again = session.clone();
            let handle = ann.clone();
            session.add_with(&ann, move |ann| {
                let refused = [
                    again.flush().is_err(),
                    again.add(user("x")).is_err(),
                    again.commit().is_err(),
                    again.rollback().is_err(),
                    again.begin_nested().is_err(),
                    again.get::<User>(ann.id).is_err(),
                    again.delete(&handle).is_err(),
                    again.expunge(&handle).is_err(),
                    again.expunge_all().is_err(),
                    again.expire_all().is_err(),
                    again.refresh_all().is_err(),
                    again.execute(diesel::delete(users::table)).is_err(),
                    again.bulk_delete::<User>([1], Bulk::new()).is_err(),
                    handle.write().is_err(),
                ];
                assert_eq!(refused, [true; 14]);
                count.set(1);
                NewPost { user_id: ann.id, parent_id: None, title: "t".into() }
            })?;
            session.flush()
        })
        .unwrap();
    assert_eq!((asked.get(), fixture.users().len(), fixture.posts().len()), (1, 1, 1));
}

// ---- what only some databases do ----

fn is_mysql() -> bool {
    SCHEMA == crate::schema::MYSQL
}

fn execute(fixture: &Fixture, text: &str) {
    Session::with_options(fixture.registry.engine(), autocommit()).unwrap().batch_execute(text).unwrap();
}

/// Where a trigger gives the key, `LAST_INSERT_ID()` is that of an earlier INSERT, and what is found under it is
/// another row.
#[test]
fn a_key_that_a_trigger_gives_is_not_taken_for_another_rows() {
    if !is_mysql() {
        return;
    }
    let fixture = Fixture::new().with_users(&["ann"]);
    execute(
        &fixture,
        "CREATE TRIGGER own_ids BEFORE INSERT ON users FOR EACH ROW SET NEW.id = 1000 + CHAR_LENGTH(NEW.nickname)",
    );
    let session = fixture.session();
    session.insert_now(NewGroup { name: "g".into(), owner_id: None }).unwrap();
    let Ok(eve) = session.insert_now(user("eve")) else { return };
    eve.write().unwrap().balance = 7;
    session.commit().unwrap();
    let stored: Vec<_> = fixture.users().into_iter().map(|user| (user.nickname, user.balance)).collect();
    assert_eq!(stored, [("ann".to_owned(), 0), ("eve".to_owned(), 7)]);
}

diesel::table! { codes (code) { code -> Text, uses -> BigInt, } }

#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Identifiable, Insertable, Entity, Record)]
#[diesel(primary_key(code))]
struct Code {
    code: String,
    uses: i64,
}

fn with_codes() -> Fixture {
    let fixture = Fixture::new();
    execute(&fixture, "CREATE TABLE codes (code CHAR(4) PRIMARY KEY NOT NULL, uses BIGINT NOT NULL)");
    fixture
}

#[derive(Debug, Clone, PartialEq, Eq, Queryable, QueryableByName, Selectable, Identifiable, Entity)]
#[diesel(table_name = countries, primary_key(code))]
struct Gone {
    code: String,
    name: String,
}

/// Part is stored, and its handle says that it never was a row: who adds it again doubles it.
#[test]
fn a_row_that_an_implicit_commit_stored_is_not_called_transient() {
    if !is_mysql() {
        return;
    }
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    session.flush().unwrap();
    let _ = session.batch_execute("CREATE TABLE other (id INTEGER)");
    let said = session.commit();
    let is_stored = !fixture.users().is_empty();
    assert!(!(is_stored && ann.state() == ObjectState::Transient), "{said:?}: stored, and {:?}", ann.state());
}

#[derive(Debug, Clone, PartialEq, Eq, Insertable, Record)]
#[diesel(table_name = users)]
#[entity(of = User, generated(version))]
struct GivenUser {
    id: i32,
    nickname: String,
    email: Option<String>,
    balance: i64,
}

/// Each call of the driver fails once in each way. Stored is all of it once, or nothing; what handles say agrees. This holds.
#[test]
fn whatever_fails_in_a_flush_all_is_stored_once_or_nothing() {
    let faults = [
        Fault::SerializationFailure,
        Fault::Deadlock,
        Fault::LockTimeout,
        Fault::Unknown,
        Fault::CloseBefore,
        Fault::CloseAfter,
        Fault::PanicBefore,
        Fault::PanicAfter,
    ];
    let database = super::db::Database::new();
    let plan = FaultPlan::new();
    let engine = database.builder().max_size(2).faults(&plan).build().unwrap();
    Session::with_options(&engine, autocommit()).unwrap().batch_execute(SCHEMA).unwrap();
    let registry = super::db::Registry::new(engine);
    for fault in faults {
        for k in 1.. {
            let ids: (i32, i32) = registry
                .transaction(|session| {
                    session.execute(diesel::delete(posts::table))?;
                    session.execute(diesel::delete(users::table))?;
                    let (old, changed) = (session.add(user("old"))?, session.add(user("changed"))?);
                    Ok::<_, Error>((old.id()?, changed.id()?))
                })
                .unwrap();
            plan.reset();
            plan.at(k, fault);
            let kept = std::cell::RefCell::new(Vec::new());
            let options = TransactionOptions::new().retry(RetryPolicy::new(3));
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                registry.transaction_with(options, |session| {
                    kept.take();
                    let new = session.add_all(["n1", "n2", "n3"].map(user))?;
                    let post = session.add_with(&new[1], |new| NewPost {
                        user_id: new.id,
                        parent_id: None,
                        title: "p".into(),
                    })?;
                    session.get_one::<User>(ids.1)?.write()?.balance += 10;
                    let old = session.get_one::<User>(ids.0)?;
                    session.delete(&old)?;
                    session.nested(|session| {
                        let user_id = new[2].id()?;
                        session.insert_now(NewPost { user_id, parent_id: None, title: "q".into() })
                    })?;
                    kept.borrow_mut().push((new[0].clone(), old, post));
                    Ok::<_, Error>(())
                })
            }));
            let calls = plan.calls().len();
            registry.remove();
            plan.reset();
            let (stored, made): (Vec<(String, i64)>, i64) = registry
                .read(|session| {
                    Ok::<_, Error>((
                        session.load(users::table.select((users::nickname, users::balance)).order(users::nickname))?,
                        session.get_result(posts::table.count())?,
                    ))
                })
                .unwrap();
            let text = stored.iter().map(|(name, balance)| format!("{name} {balance}, ")).collect::<String>();
            let is_done = (text.as_str(), made) == ("changed 10, n1 0, n2 0, n3 0, ", 2);
            let is_undone = (text.as_str(), made) == ("changed 0, old 0, ", 0);
            let what = format!("{fault:?} at {k} of {calls}: {said:?}, stored {text}and {made} posts");
            match &said {
                Ok(Ok(())) => assert!(is_done, "{what}"),
                Ok(Err(Error::CommitUnknown { .. })) | Err(_) => assert!(is_done || is_undone, "{what}"),
                Ok(Err(_)) => assert!(is_undone, "{what}"),
            }
            for (new, old, post) in kept.take() {
                let states = [new.state(), old.state(), post.state()];
                if matches!(said, Ok(Ok(()))) {
                    assert_eq!(states, [ObjectState::Detached; 3], "{what}");
                } else if matches!(said, Ok(Err(_))) && !matches!(said, Ok(Err(Error::CommitUnknown { .. }))) {
                    assert_eq!([new.state(), post.state()], [ObjectState::Transient; 2], "{what}");
                }
            }
            if k > calls {
                break;
            }
        }
    }
}
