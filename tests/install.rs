//! The registry of the process. This file has one test: what it installs stays.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic)]

use diesel::sqlite::SqliteConnection;
use diesel_session::{Engine, Error, ScopedSession};

type Session = diesel_session::Session<SqliteConnection>;

fn registry() -> ScopedSession<SqliteConnection> {
    ScopedSession::new(Engine::new(":memory:").unwrap())
}

#[test]
fn one_registry_is_installed_every_thread_finds_it_and_an_entered_one_wins_on_its_thread() {
    assert!(matches!(Session::current(), Err(Error::NoRegistry { .. })));

    let installed = registry();
    installed.clone().install().unwrap();
    assert!(matches!(registry().install(), Err(Error::AlreadyInstalled)));
    assert!(matches!(installed.clone().install(), Err(Error::AlreadyInstalled)));

    let here = Session::current().unwrap();
    assert!(installed.current().unwrap() == here);

    let from_a_thread = std::thread::spawn({
        let installed = installed.clone();
        move || {
            let session = Session::current().unwrap();
            assert!(installed.current().unwrap() == session);
            session.id()
        }
    });
    assert_ne!(from_a_thread.join().unwrap(), here.id());

    let entered = registry();
    entered.enter(|| {
        let inner = Session::current().unwrap();
        assert!(inner != here);
        assert!(entered.current().unwrap() == inner);
        // Threads started inside meet the installed registry.
        let (other_installed, other_entered) = (installed.clone(), entered.clone());
        std::thread::spawn(move || {
            let session = Session::current().unwrap();
            assert!(other_installed.current().unwrap() == session);
            assert!(!other_entered.has());
        })
        .join()
        .unwrap();
        // Unless they are started through the registry.
        let carried = entered.spawn({
            let entered = entered.clone();
            move || Session::current().unwrap() == entered.current().unwrap()
        });
        assert!(carried.join().unwrap());
        Session::remove();
        assert!(inner.is_closed());
    });
    assert!(!here.is_closed(), "the entered registry's `remove` is its own");
    assert!(Session::current().unwrap() == here);

    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| entered.enter(|| panic!("inside enter"))));
    assert!(panicked.is_err());
    assert!(Session::current().unwrap() == here);
    assert!(Session::registry().unwrap().current().unwrap() == here);

    Session::remove();
    assert!(here.is_closed());
    assert!(installed.inspect().sessions.is_empty());
    assert!(entered.inspect().sessions.is_empty());
}
