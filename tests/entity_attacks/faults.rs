//! Whatever fails in a flush, nothing is doubled or half stored.

use super::*;

/// Each call of the driver fails once in each way; the unit of work is run again where that is safe. Stored is all of it
/// once, or nothing; what handles say agrees.
#[test]
fn whatever_fails_in_a_flush_nothing_is_doubled_or_half_stored() {
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
    for fault in faults {
        for k in 1..40 {
            let file = tempfile::tempdir().unwrap();
            let path = file.path().join("db");
            let plan = FaultPlan::new();
            let engine = Engine::<SqliteConnection>::builder(path.to_str().unwrap()).faults(&plan).build().unwrap();
            prepare(&engine);
            let registry = ScopedSession::new(engine);
            registry
                .transaction(|session| {
                    session.add(City { code: "OLD".into(), name: "o".into() })?;
                    session.add(City { code: "CHG".into(), name: "c".into() }).map(drop)
                })
                .unwrap();
            plan.reset();
            plan.at(k, fault);
            let options = TransactionOptions::new().retry(RetryPolicy::new(3));
            let kept = RefCell::new(Vec::new());
            let said = catch_unwind(AssertUnwindSafe(|| {
                registry.transaction_with(options, |session| {
                    kept.take();
                    let new = session.add(City { code: "NEW".into(), name: "n".into() })?;
                    let street =
                        session.add_with(&new, |new| Street { id: 1, city: new.code.clone(), name: "s".into() })?;
                    session.get_one::<City>("CHG")?.write()?.name = "changed".into();
                    let old = session.get_one::<City>("OLD")?;
                    session.delete(&old)?;
                    let inner = session.nested(|session| session.add(House { id: 1, street_id: street.id()? }))?;
                    kept.borrow_mut().push((new, old, street.clone(), inner));
                    Ok::<_, Error>(())
                })
            }));
            let calls = plan.calls().len();
            registry.remove();
            plan.reset();
            let (mut cities, streets, houses): (Vec<(String, String)>, i64, i64) = registry
                .read(|session| {
                    Ok::<_, Error>((
                        session.load(cities::table)?,
                        session.get_result(streets::table.count())?,
                        session.get_result(houses::table.count())?,
                    ))
                })
                .unwrap();
            cities.sort();
            let text = format!("{cities:?} {streets} {houses}");
            let done = "[(\"CHG\", \"changed\"), (\"NEW\", \"n\")] 1 1";
            let undone = "[(\"CHG\", \"c\"), (\"OLD\", \"o\")] 0 0";
            let what = format!("{fault:?} at {k}: {said:?}");
            match &said {
                Ok(Ok(())) => assert_eq!(text, done, "{what}"),
                Ok(Err(Error::CommitUnknown { .. })) | Err(_) => {
                    assert!(text == done || text == undone, "{what}: {text}");
                }
                Ok(Err(_)) => assert_eq!(text, undone, "{what}"),
            }
            for (new, old, street, house) in kept.take() {
                let states = (new.state(), old.state(), street.state(), house.state());
                let gone = ObjectState::Detached;
                if text == done {
                    assert_eq!(states, (gone, gone, gone, gone), "{what}");
                } else if !matches!(said, Ok(Err(Error::CommitUnknown { .. }))) {
                    assert_ne!(new.state(), ObjectState::Persistent, "{what}");
                    assert_ne!(new.state(), ObjectState::Detached, "{what}: a row that never was {states:?}");
                }
            }
            if k > calls {
                break;
            }
        }
    }
}
