//! What must not grow.

use super::*;

/// Rule 32, "memory follows live handles, not rows written": a frame notes a live node again at each read.
#[test]
fn a_savepoint_that_reads_the_same_rows_again_and_again_does_not_grow() {
    let session = Session::new(&engine());
    town(&session);
    let savepoint = session.begin_nested().unwrap();
    let city = session.get_one::<City>("DE").unwrap();
    let region = Region::new(ALLOCATOR);
    for _ in 0..100_000 {
        session.refresh(&city).unwrap();
    }
    let change = region.change();
    let grown = change.bytes_allocated as isize - change.bytes_deallocated as isize;
    assert!(grown < 500_000, "{grown} bytes for one entity");
    savepoint.rollback().unwrap();
}

/// The same by savepoints that are released, each of which changes one row.
#[test]
fn a_transaction_with_many_savepoints_does_not_grow_with_them() {
    let session = Session::new(&engine());
    town(&session);
    let city = session.get_one::<City>("DE").unwrap();
    let region = Region::new(ALLOCATOR);
    for n in 0..20_000 {
        session
            .nested(|session| {
                city.write()?.name = if n % 2 == 0 { "a" } else { "b" }.into();
                session.flush()
            })
            .unwrap();
    }
    let change = region.change();
    let grown = change.bytes_allocated as isize - change.bytes_deallocated as isize;
    assert!(grown < 200_000, "{grown} bytes for one entity");
    session.rollback().unwrap();
}
