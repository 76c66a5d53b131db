//! SQLAlchemy's `test_unitofworkv2.py`: rows that were there and are not any more.

use diesel::prelude::*;
use diesel_session::{Error, ObjectState, Tracked};

use super::db::Session;
use super::recorder::{Stage, behind_the_back};
use super::shape_tables::*;
use super::shapes::*;

fn albums(session: &Session) -> Vec<Tracked<Album>> {
    let albums = session.add_all(["one", "two", "three"].map(|title| NewAlbum { title: title.into() })).unwrap();
    session.commit().unwrap();
    session.refresh_all().unwrap();
    albums
}

/// The error of a flush that wanted more rows than there were, and the keys that it names.
fn stale(session: &Session) -> (usize, usize, Vec<String>) {
    match session.flush().unwrap_err() {
        Error::StaleData { table: "albums", expected, matched, keys } => (expected, matched, keys),
        other => panic!("{other}"),
    }
}

// parity: BasicStaleChecksTest::test_update_single_missing_broken_multi_rowcount
// parity: BasicStaleChecksTest::test_update_single_broken_multi_rowcount_still_raises
// parity: BasicStaleChecksTest::test_update_multi_missing_broken_multi_rowcount
// parity: BasicStaleChecksTest::test_update_multi_broken_multi_rowcount_doesnt_raise
#[test]
fn an_update_of_rows_that_are_gone_is_an_error_for_one_and_for_many() {
    for count in [1, 3] {
        let stage = Stage::new();
        let session = stage.session();
        let albums = albums(&session);
        for album in &albums[..count] {
            album.write().unwrap().title = "changed".into();
        }
        let gone = albums[0].id().unwrap();
        behind_the_back(&session, &format!("DELETE FROM albums WHERE id = {gone}"));
        let (_, _, keys) = stale(&session);
        assert_eq!(keys, [gone.to_string()]);
        session.rollback().unwrap();
        assert_eq!(stage.stored::<i64>(albums::table.filter(albums::title.ne("changed")).count()), [3]);
    }
}

// parity: BasicStaleChecksTest::test_update_value_missing_broken_multi_rowcount
#[test]
fn an_expression_for_a_row_that_is_gone_is_an_error() {
    let stage = Stage::new();
    let session = stage.session();
    let album = albums(&session).remove(0);
    behind_the_back(&session, "DELETE FROM albums");
    let error = session.apply(&album, albums::title.eq(diesel::dsl::sql("'x'"))).unwrap_err();
    assert!(matches!(error, Error::RowGone { table: "albums", .. }), "{error}");
    assert_eq!(album.state(), ObjectState::Detached);
}

// parity: BasicStaleChecksTest::test_delete_multi_missing_warning
// parity: BasicStaleChecksTest::test_delete_single_broken_multi_rowcount_still_warns
// parity: BasicStaleChecksTest::test_delete_multi_broken_multi_rowcount_doesnt_warn
#[test]
fn a_delete_of_rows_that_are_gone_is_an_error_for_one_and_for_many() {
    for count in [1, 3] {
        let stage = Stage::new();
        let session = stage.session();
        let albums = albums(&session);
        for album in &albums[..count] {
            session.delete(album).unwrap();
        }
        let gone = albums[0].id().unwrap();
        behind_the_back(&session, &format!("DELETE FROM albums WHERE id = {gone}"));
        let (expected, matched, _) = stale(&session);
        assert_eq!((expected, matched), (count, count - 1));
        session.rollback().unwrap();
        assert_eq!(albums[0].state(), ObjectState::Persistent);
        assert_eq!(stage.stored::<i64>(albums::table.count()), [3]);
    }
}
