//! SQLAlchemy's `test_unitofwork.py`: deletes where the database cascades, or does not.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState};

use super::db::Session;
use super::models::*;
use super::recorder::{Stage, sent, written};
use super::schema::users;
use super::shape_tables::*;
use super::shapes::*;

fn album(session: &Session) -> (diesel_session::Tracked<Album>, Vec<diesel_session::Tracked<Track>>) {
    let album = session.add(NewAlbum { title: "album".into() }).unwrap();
    let tracks = ["one", "two"].map(|title| {
        session.add_with(&album, move |album| NewTrack { album_id: album.id, title: title.into() }).unwrap()
    });
    (album, tracks.into())
}

// parity: PassiveDeletesTest::test_basic
#[test]
fn children_that_the_database_deletes_with_their_parent_need_not_be_loaded() {
    let stage = Stage::new();
    let id = stage.store(|session| album(session).0.id().unwrap());
    let session = stage.session();
    let album = session.get_one::<Album>(id).unwrap();
    session.delete(&album).unwrap();
    assert_eq!(sent(|| session.flush().unwrap()), ["DELETE albums"]);
    session.commit().unwrap();
    assert_eq!(stage.stored::<i64>(tracks::table.count()), [0]);
}

// parity: BatchDeleteIgnoresRowcountTest::test_delete_both
#[test]
fn rows_that_a_cascade_would_take_are_deleted_before_it_can_and_every_count_is_checked() {
    let stage = Stage::new();
    let session = stage.session();
    let (parent, children) = album(&session);
    session.flush().unwrap();
    session.delete(&parent).unwrap();
    session.delete(&children[0]).unwrap();
    assert_eq!(written(|| session.commit().unwrap()), ["DELETE tracks", "DELETE albums"]);
    assert_eq!(stage.stored::<i64>(tracks::table.count()), [0]);
    // Where no entity says what refers to what, the cascade may come first, and that shows.
    let id = stage.store(|session| album(session).0.id().unwrap());
    let session = stage.session();
    let loose = session.load_tracked(tracks::table.select(LooseTrack::as_select())).unwrap();
    let parent = session.get_one::<Album>(id).unwrap();
    session.delete(&loose[0]).unwrap();
    session.delete(&parent).unwrap();
    let result = session.flush();
    assert!(matches!(result, Err(Error::StaleData { table: "tracks", expected: 1, matched: 0, .. })), "{result:?}");
    session.rollback().unwrap();
    assert_eq!(stage.stored::<i64>(tracks::table.count()), [2]);
}

// parity: ExtraPassiveDeletesTest::test_extra_passive
// parity: ExtraPassiveDeletesTest::test_dont_emit
#[test]
fn a_parent_is_deleted_with_one_statement_and_children_that_are_in_its_way_are_an_error() {
    let stage = Stage::new();
    let (ann, bob) = stage.store(|session| {
        let ann = session.add(user("ann")).unwrap();
        let bob = session.add(user("bob")).unwrap();
        session.add_with(&ann, |ann| NewGroup { name: "club".into(), owner_id: Some(ann.id) }).unwrap();
        (ann.id().unwrap(), bob.id().unwrap())
    });
    let session = stage.session();
    let bob = session.get_one::<User>(bob).unwrap();
    session.delete(&bob).unwrap();
    assert_eq!(sent(|| session.commit().unwrap()), ["DELETE users"]);
    let ann = session.get_one::<User>(ann).unwrap();
    session.delete(&ann).unwrap();
    let mut error = None;
    assert_eq!(written(|| error = session.flush().err()), ["DELETE users"]);
    assert!(error.unwrap().to_string().to_lowercase().contains("foreign key"));
    session.rollback().unwrap();
    assert_eq!(ann.state(), ObjectState::Persistent);
    assert_eq!(stage.stored::<String>(users::table.select(users::nickname)), ["ann"]);
}
