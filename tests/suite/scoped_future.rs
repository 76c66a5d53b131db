//! A future's own session: swapped in at each poll, out again after it, gone with the future.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use diesel_session::{Error, SessionState};

use super::db::{self, Database, Session, insert, stored, texts};

/// Gives the executor one turn.
#[derive(Default)]
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn turn() -> Turn {
    Turn::default()
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn two_tasks_on_one_thread_each_keep_their_own_session_across_awaits() {
    let database = Database::new();
    let registry = database.registry();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outer = registry.current().unwrap();
    let seen = tokio::task::LocalSet::new().block_on(&runtime, async {
        let tasks: Vec<_> = (0..2)
            .map(|n| {
                tokio::task::spawn_local(registry.future(async move {
                    let session = Session::current().unwrap();
                    for round in 0..4 {
                        assert!(Session::current().unwrap() == session);
                        insert(&session, &format!("task {n} round {round}")).unwrap();
                        // One transaction at a time is all that every backend allows on one thread.
                        session.commit().unwrap();
                        turn().await;
                    }
                    session.id()
                }))
            })
            .collect();
        let mut seen = Vec::new();
        for task in tasks {
            seen.push(task.await.unwrap().unwrap());
        }
        seen
    });
    assert_ne!(seen[0], seen[1]);
    assert!(!seen.contains(&outer.id()));
    assert!(registry.current().unwrap() == outer);
    registry.remove();
    assert!(registry.inspect().sessions.is_empty());
    assert_eq!(stored(&registry).len(), 8);
}

#[test]
fn a_transaction_held_across_an_await_is_that_tasks_only() {
    if !db::CONCURRENT {
        return in_memory_the_second_task_is_told_at_once();
    }
    let database = Database::new();
    let registry = database.registry();
    let mut first = pin!(registry.future(async {
        let session = Session::current().unwrap();
        insert(&session, "first").unwrap();
        turn().await;
        assert!(Session::current().unwrap() == session);
        assert_eq!(texts(&session), ["first"]);
        session.commit().unwrap();
    }));
    let mut second = pin!(registry.future(async {
        let session = Session::current_with(diesel_session::read_only());
        assert!(matches!(session, Err(Error::AlreadyPresent { .. })), "the future has its session from the start");
        let session = Session::current().unwrap();
        session.begin_with(diesel_session::read_only()).unwrap();
        assert!(texts(&session).is_empty(), "it sees what the first has not committed");
        session.rollback().unwrap();
        turn().await;
        assert_eq!(texts(&session), ["first"]);
    }));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(matches!(Session::current(), Err(Error::NoRegistry { .. })));
    assert!(!registry.has());
    assert!(poll_once(second.as_mut()).is_pending());
    assert_eq!(registry.inspect().open_transactions().count(), 1);
    assert!(matches!(poll_once(first.as_mut()), Poll::Ready(Ok(()))));
    assert!(matches!(poll_once(second.as_mut()), Poll::Ready(Ok(()))));
    assert!(registry.inspect().sessions.is_empty(), "a finished future keeps no session");
    assert!(registry.engine().connections_in_use().is_empty());
}

fn in_memory_the_second_task_is_told_at_once() {
    let database = Database::new();
    let registry = database.registry();
    let mut first = pin!(registry.future(async {
        insert(&Session::current().unwrap(), "first").unwrap();
        turn().await;
        Session::current().unwrap().commit().unwrap();
    }));
    let mut second = pin!(registry.future(async { insert(&Session::current().unwrap(), "second") }));
    assert!(poll_once(first.as_mut()).is_pending());
    let Poll::Ready(Ok(answer)) = poll_once(second.as_mut()) else { panic!("it waits for itself") };
    assert!(matches!(answer, Err(Error::WouldDeadlock { .. })), "{answer:?}");
    assert!(matches!(poll_once(first.as_mut()), Poll::Ready(Ok(()))));
    assert_eq!(stored(&registry), ["first"]);
}

#[test]
fn the_second_task_of_a_pool_of_one_is_told_instead_of_waiting_for_ever() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let mut first = pin!(registry.future(async {
        insert(&Session::current().unwrap(), "first").unwrap();
        turn().await;
        Session::current().unwrap().commit().unwrap();
    }));
    let mut second = pin!(registry.future(async {
        let session = Session::current().unwrap();
        session.begin_with(diesel_session::read_only()).unwrap();
        let refused = session.batch_execute("SELECT 1");
        session.rollback().unwrap();
        turn().await;
        insert(&session, "second").unwrap();
        session.commit().unwrap();
        refused
    }));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    assert!(matches!(poll_once(first.as_mut()), Poll::Ready(Ok(()))));
    let Poll::Ready(Ok(refused)) = poll_once(second.as_mut()) else { panic!("it had its turn") };
    match refused {
        Err(Error::WouldStarve { held_at, wanted_at }) if db::CONCURRENT => {
            assert_ne!(held_at, wanted_at);
        }
        Err(Error::WouldDeadlock { .. }) if !db::CONCURRENT => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(stored(&registry), ["first", "second"]);
}

#[test]
fn a_panic_in_a_poll_leaves_the_thread_as_it_was() {
    let database = Database::new();
    let registry = database.registry();
    let outer = registry.current().unwrap();
    registry.enter(|| {
        let mut future = Box::pin(registry.future(async {
            insert(&Session::current().unwrap(), "a").unwrap();
            turn().await;
            panic!("in the second poll");
        }));
        assert!(poll_once(future.as_mut()).is_pending());
        assert!(Session::current().unwrap() == outer);
        let panicked = catch_unwind(AssertUnwindSafe(|| poll_once(future.as_mut())));
        assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"in the second poll"));
        assert!(Session::current().unwrap() == outer);
        drop(future);
        assert!(Session::current().unwrap() == outer);
    });
    assert!(matches!(Session::current(), Err(Error::NoRegistry { .. })));
    registry.remove();
    assert!(registry.inspect().sessions.is_empty());
    assert!(registry.engine().connections_in_use().is_empty());
    assert!(stored(&registry).is_empty());
}

#[test]
fn a_future_dropped_midway_discards_its_transaction_and_frees_its_place() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let kept = Rc::new(std::cell::RefCell::new(None));
    for n in 0..20 {
        let mut future = Box::pin(registry.future({
            let kept = Rc::clone(&kept);
            async move {
                let session = Session::current().unwrap();
                insert(&session, &format!("dropped {n}")).unwrap();
                let _savepoint = session.begin_nested().unwrap();
                *kept.borrow_mut() = Some(session);
                turn().await;
                unreachable!("it is never polled again");
            }
        }));
        assert!(poll_once(future.as_mut()).is_pending());
        assert_eq!(registry.engine().connections_in_use().len(), 1);
        drop(future);
        assert!(registry.engine().connections_in_use().is_empty());
        assert!(registry.engine().write_gate().is_empty());
        let handle = kept.take().unwrap();
        assert_eq!(handle.state(), SessionState::Closed);
        assert!(matches!(insert(&handle, "ghost"), Err(Error::SessionClosed { .. })));
    }
    assert!(registry.inspect().sessions.is_empty());
    assert!(stored(&registry).is_empty());
    // One that was never polled has made nothing.
    drop(registry.future(async {}));
    assert!(registry.inspect().sessions.is_empty());
}

#[test]
fn a_runtime_that_dies_with_its_tasks_leaves_no_session() {
    let database = Database::new();
    let registry = database.registry_with(|builder| builder.max_size(1));
    let thread = std::thread::spawn({
        let registry = registry.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let tasks = tokio::task::LocalSet::new();
            tasks.spawn_local(registry.future(async {
                insert(&Session::current().unwrap(), "a").unwrap();
                std::future::pending::<()>().await;
            }));
            tasks.block_on(&runtime, turn());
            while registry.engine().connections_in_use().is_empty() {
                tasks.block_on(&runtime, turn());
            }
        }
    });
    thread.join().unwrap();
    assert!(registry.inspect().sessions.is_empty());
    assert!(registry.engine().connections_in_use().is_empty());
    assert!(stored(&registry).is_empty());
}
