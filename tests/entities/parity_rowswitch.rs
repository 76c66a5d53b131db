//! SQLAlchemy's `test_unitofworkv2.py`: rows that take the place of others, inside one flush.

use diesel::prelude::*;
use diesel_session::ObjectState;

use super::recorder::{Stage, written};
use super::shape_tables::*;
use super::shapes::*;

fn sailor(name: &str, boss: Option<&str>) -> Sailor {
    Sailor { name: name.into(), boss: boss.map(Into::into) }
}

// parity: SingleCycleTest::test_cycle_rowswitch
#[test]
fn a_row_of_a_tree_is_replaced_by_one_with_its_key() {
    let stage = Stage::new();
    let session = stage.session();
    let employee = |name: &str, boss: Option<&str>| Employee { name: name.into(), boss: boss.map(Into::into) };
    let [_, one, two] = [employee("root", None), employee("one", Some("root")), employee("two", Some("one"))]
        .map(|e| session.add(e).unwrap());
    session.commit().unwrap();
    session.delete(&one).unwrap();
    session.delete(&two).unwrap();
    let new = session.add(employee("one", None)).unwrap();
    assert_eq!(written(|| session.commit().unwrap()), ["UPDATE staff boss", "DELETE staff"]);
    assert_eq!(session.get_one::<Employee>("one").unwrap(), new);
    session.commit().unwrap();
    let stored = stage.stored::<(String, Option<String>)>(staff::table.order(staff::name));
    assert_eq!(stored, [("one".into(), None), ("root".into(), None)]);
}

// parity: RowswitchAccountingTest::test_switch_on_update
#[test]
fn the_old_row_is_the_sessions_until_the_flush_and_then_the_new_one_is() {
    let stage = Stage::new();
    let session = stage.session();
    let old = session.add(sailor("ann", Some("boss"))).unwrap();
    session.commit().unwrap();
    session.delete(&old).unwrap();
    let new = session.add(sailor("ann", Some("other"))).unwrap();
    assert!(session.contains(&old) && session.contains(&new));
    assert_eq!((old.state(), new.state()), (ObjectState::Persistent, ObjectState::Pending));
    assert_eq!(written(|| session.flush().unwrap()), ["UPDATE crew boss"]);
    assert!(!session.contains(&old));
    assert_eq!((old.state(), new.state()), (ObjectState::Deleted, ObjectState::Persistent));
    assert_eq!(session.tracked::<Sailor>(), std::slice::from_ref(&new));
    session.rollback().unwrap();
    assert_eq!((old.state(), new.state()), (ObjectState::Persistent, ObjectState::Transient));
    assert_eq!(session.get_one::<Sailor>("ann").unwrap(), old);
    session.commit().unwrap();
    assert_eq!(stage.stored::<Option<String>>(crew::table.select(crew::boss)), [Some("boss".into())]);
}

// parity: RowswitchM2OTest::test_set_none_replaces_m2o
// parity: RowswitchM2OTest::test_set_none_replaces_scalar
// parity: RowswitchM2OTest::test_set_none_w_get_replaces_scalar
#[test]
fn nothing_in_the_new_row_replaces_something_in_the_old_one() {
    for is_read in [false, true] {
        let stage = Stage::new();
        let session = stage.session();
        let old = session.add(Employee { name: "ann".into(), boss: None }).unwrap();
        session.flush().unwrap();
        let child = session.add(Employee { name: "bob".into(), boss: Some("ann".into()) }).unwrap();
        let pet = session.add(Pet { name: "rex".into(), home: Some("here".into()) }).unwrap();
        session.commit().unwrap();
        session.delete(&child).unwrap();
        session.delete(&pet).unwrap();
        let new = session.add(Employee { name: "bob".into(), boss: None }).unwrap();
        let rex = session.add(Pet { name: "rex".into(), home: None }).unwrap();
        if is_read {
            assert!(rex.read().is_err() && rex.key().is_none());
        }
        let mut steps = written(|| session.commit().unwrap());
        steps.sort();
        assert_eq!(steps, ["UPDATE pets home", "UPDATE staff boss"]);
        assert!(new.read().unwrap().boss.is_none() && rex.read().unwrap().home.is_none());
        assert_eq!(stage.stored::<i64>(staff::table.filter(staff::boss.is_null()).count()), [2]);
        assert_eq!(stage.stored::<Option<String>>(pets::table.select(pets::home)), [None]);
        drop(old);
    }
}
