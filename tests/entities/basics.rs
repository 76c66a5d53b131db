//! Add, get, change, delete.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, OptionalExt};

use super::models::*;
use super::schema::users;
use super::tools::Fixture;

#[test]
fn what_is_added_has_its_key_after_the_flush_and_is_stored_by_the_commit() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    assert_eq!(ann.state(), ObjectState::Pending);
    assert!(matches!(ann.read(), Err(Error::Pending { .. })));
    session.flush().unwrap();
    assert_eq!(ann.state(), ObjectState::Persistent);
    let id = ann.id().unwrap();
    assert_eq!(ann.read().unwrap().version, 1);
    session.commit().unwrap();
    assert_eq!(fixture.users(), [User { id, nickname: "ann".into(), email: None, balance: 0, version: 1 }]);
}

#[test]
fn the_same_row_is_the_same_handle() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let all = session.load_tracked(users::table.select(User::as_select()).order(users::id)).unwrap();
    let ann = session.get_one::<User>(all[0].id().unwrap()).unwrap();
    assert_eq!(ann, all[0]);
    assert_ne!(ann, all[1]);
}

#[test]
fn a_row_found_by_something_else_than_its_key_is_the_same_handle() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let by_name = |name: &str| {
        session.first_tracked::<User, _>(
            users::table.filter(users::nickname.eq(name.to_owned())).select(User::as_select()),
        )
    };
    let bob = session.get_one::<User>(fixture.users()[1].id).unwrap();
    assert_eq!(by_name("bob").unwrap(), bob);
    assert!(by_name("eve").optional().unwrap().is_none());
    // What waits is written before it is looked for.
    bob.write().unwrap().nickname = "eve".into();
    assert_eq!(by_name("eve").unwrap(), bob);
}

#[test]
fn a_row_that_others_refer_to_is_not_deleted_and_the_error_says_so() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    let of_ann = |ann: &User| NewPost { user_id: ann.id, parent_id: None, title: "first".into() };
    session.add_with(&ann, of_ann).unwrap();
    session.commit().unwrap();
    session.delete(&ann).unwrap();
    let error = session.flush().unwrap_err();
    assert!(error.is_foreign_key_violation() && !error.is_unique_violation(), "{error}");
}

#[test]
fn a_clone_of_what_was_read_is_the_row_itself() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    let row: User = ann.read().unwrap().clone();
    let view = ann.read().unwrap();
    let again = diesel_session::Read::clone(&view);
    ann.write().unwrap().balance = 9;
    assert_eq!((row.balance, view.balance, again.balance), (0, 0, 0));
}

#[test]
fn only_what_was_changed_is_written() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let id = fixture.users()[0].id;
    let session = fixture.session();
    let ann = session.get_one::<User>(id).unwrap();
    ann.write().unwrap().balance += 10;
    assert!(session.is_modified(&ann));
    session.commit().unwrap();
    assert_eq!(fixture.users()[0].balance, 10);
    assert_eq!(fixture.users()[0].version, 2);
    assert_eq!(ann.read().unwrap().version, 2);
}

#[test]
fn a_deleted_row_is_gone_after_the_commit() {
    let fixture = Fixture::new().with_users(&["ann", "bob"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    session.delete(&ann).unwrap();
    assert_eq!(session.deleted_entities::<User>(), std::slice::from_ref(&ann));
    session.flush().unwrap();
    assert_eq!(ann.state(), ObjectState::Deleted);
    session.commit().unwrap();
    assert_eq!(ann.state(), ObjectState::Detached);
    assert_eq!(fixture.nicknames(), ["bob"]);
}

#[test]
fn children_are_made_of_parents_that_have_no_key_yet() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    let post =
        session.add_with(&ann, move |ann| NewPost { user_id: ann.id, parent_id: None, title: "first".into() }).unwrap();
    let reply = session
        .add_with((&ann, &post), move |(ann, post)| NewPost {
            user_id: ann.id,
            parent_id: Some(post.id),
            title: "second".into(),
        })
        .unwrap();
    session.commit().unwrap();
    let posts = fixture.posts();
    assert_eq!(posts[0].user_id, ann.id().unwrap());
    assert_eq!(posts[1].parent_id, Some(post.id().unwrap()));
    assert_eq!(posts[1].id, reply.id().unwrap());
}

#[test]
fn a_rolled_back_insert_gives_the_record_back() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let ann = session.add(user("ann")).unwrap();
    session.flush().unwrap();
    session.rollback().unwrap();
    assert_eq!(ann.state(), ObjectState::Transient);
    assert!(matches!(ann.read(), Err(Error::NotPersistent { .. })));
    assert_eq!(ann.into_new::<NewUser>().unwrap(), user("ann"));
    assert!(fixture.users().is_empty());
}

#[test]
fn a_rolled_back_change_shows_the_old_value() {
    let fixture = Fixture::new().with_users(&["ann"]);
    let session = fixture.session();
    let ann = session.get_one::<User>(fixture.users()[0].id).unwrap();
    ann.write().unwrap().nickname = "anna".into();
    session.flush().unwrap();
    assert_eq!(ann.read().unwrap().nickname, "anna");
    session.rollback().unwrap();
    assert_eq!(ann.read().unwrap().nickname, "ann");
    assert_eq!(ann.read().unwrap().version, 1);
    ann.write().unwrap().nickname = "anne".into();
    session.commit().unwrap();
    assert_eq!(fixture.nicknames(), ["anne"]);
}
