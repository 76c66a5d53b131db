//! SQLAlchemy's `test_versioning.py`: versions of rows that refer to each other, and rings of them.

use diesel::prelude::*;
use diesel_session::{Error, Tracked};

use super::db::Session;
use super::models::*;
use super::recorder::{Stage, behind_the_back, written};
use super::schema::users;
use super::shape_tables::*;
use super::shapes::*;

/// A player who owns a ball, and doesn't know which is the favourite yet.
fn pair(session: &Session) -> (Tracked<Player>, Tracked<Ball>) {
    let player = session.add(NewPlayer { favourite_id: None, name: "ann".into() }).unwrap();
    let ball = session.add_with(&player, |player| NewBall { owner_id: Some(player.id), colour: "red".into() }).unwrap();
    session.flush().unwrap();
    (player, ball)
}

fn versions(stage: &Stage) -> (Vec<i32>, Vec<i32>) {
    (stage.stored(players::table.select(players::version)), stage.stored(balls::table.select(balls::version)))
}

// parity: NoBumpOnRelationshipTest::test_plain_counter
// parity: NoBumpOnRelationshipTest::test_functional_counter
// parity: NoBumpOnRelationshipTest::test_no_counter
#[test]
fn a_new_child_does_not_raise_its_parents_version() {
    let stage = Stage::new();
    let session = stage.session();
    let ann = session.add(user("ann")).unwrap();
    session.commit().unwrap();
    session.add_with(&ann, |ann| NewGroup { name: "club".into(), owner_id: Some(ann.id) }).unwrap();
    assert_eq!(written(|| session.commit().unwrap()), ["INSERT groups"]);
    assert_eq!(stage.stored::<i32>(users::table.select(users::version)), [1]);
}

// parity: VersionOnPostUpdateTest::test_m2o_plain
// parity: VersionOnPostUpdateTest::test_m2o_post_update
// parity: VersionOnPostUpdateTest::test_o2m_post_update_not_assoc_w_insert
// parity: VersionOnPostUpdateTest::test_m2o_post_update_not_assoc_w_insert
#[test]
fn the_row_that_has_the_foreign_key_is_raised_once_when_a_ring_is_closed() {
    let stage = Stage::new();
    let session = stage.session();
    let player = session.add(NewPlayer { favourite_id: None, name: "ann".into() }).unwrap();
    let ball = session.add_with(&player, |player| NewBall { owner_id: Some(player.id), colour: "red".into() }).unwrap();
    session.connect(&player, &ball, |player, ball| player.favourite_id = Some(ball.id)).unwrap();
    let steps = written(|| session.commit().unwrap());
    assert_eq!(steps, ["INSERT players", "INSERT balls", "UPDATE players favourite_id version"]);
    assert_eq!(versions(&stage), (vec![2], vec![1]));
    assert_eq!(player.read().unwrap().favourite_id, ball.key());
    ball.write().unwrap().owner_id = None;
    session.commit().unwrap();
    assert_eq!(versions(&stage), (vec![2], vec![2]));
}

// parity: VersionOnPostUpdateTest::test_o2m_post_update_version_assert
// parity: VersionOnPostUpdateTest::test_m2o_post_update_version_assert
// parity: VersionOnPostUpdateTest::test_o2m_post_update_no_sane_rowcount
#[test]
fn a_foreign_key_of_a_row_in_another_version_is_not_written() {
    let stage = Stage::new();
    let session = stage.session();
    let (player, ball) = pair(&session);
    session.commit().unwrap();
    for is_player in [true, false] {
        match is_player {
            true => player.write().unwrap().favourite_id = ball.key(),
            false => ball.write().unwrap().owner_id = None,
        }
        let table = if is_player { "players" } else { "balls" };
        behind_the_back(&session, &format!("UPDATE {table} SET version = 9"));
        let error = session.flush().unwrap_err();
        assert!(matches!(error, Error::StaleData { table: found, .. } if found == table), "{error}");
        session.rollback().unwrap();
    }
    assert_eq!(versions(&stage), (vec![1], vec![1]));
}

// parity: PostUpdateVersioningTest::test_bumped_version_id_on_update
#[test]
fn a_flush_writes_a_row_once_and_raises_it_once() {
    let stage = Stage::new();
    let session = stage.session();
    let (player, ball) = pair(&session);
    player.write().unwrap().favourite_id = ball.key();
    player.write().unwrap().name = "anna".into();
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE players favourite_id name version"]);
    player.write().unwrap().favourite_id = None;
    session.commit().unwrap();
    assert_eq!(versions(&stage).0, [3]);
}

// parity: PostUpdateVersioningTest::test_bumped_version_id_on_delete
// parity: PostUpdatePrefetchTest::test_random_versionids
#[test]
fn a_ring_is_cut_before_it_is_deleted_and_its_versions_are_still_checked() {
    let stage = Stage::new();
    let session = stage.session();
    let (player, ball) = pair(&session);
    player.write().unwrap().favourite_id = ball.key();
    session.commit().unwrap();
    let delete = || {
        session.delete(&player).unwrap();
        session.delete(&ball).unwrap();
    };
    delete();
    behind_the_back(&session, "UPDATE players SET version = 9");
    assert!(matches!(session.flush(), Err(Error::StaleData { table: "players", .. })));
    session.rollback().unwrap();
    assert_eq!(versions(&stage), (vec![2], vec![1]));
    delete();
    let steps = written(|| session.commit().unwrap());
    assert!(steps[0].starts_with("UPDATE "), "{steps:?}");
    assert_eq!(steps.iter().filter(|step| step.starts_with("DELETE ")).count(), 2, "{steps:?}");
    assert_eq!(versions(&stage), (vec![], vec![]));
}
