//! `#[transactional]`: what the attribute makes of a function, on SQLite.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::panic::{Location, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use diesel::prelude::*;
use diesel_session::testing::{Call, Fault, FaultPlan};
use diesel_session::{
    BeginMode, Engine, Error, IsolationLevel, Reason, Result, RetryPolicy, ScopedSession, SessionConnection,
    TransactionOptions, read_only, transactional,
};

type Registry = ScopedSession<SqliteConnection>;
type Session = diesel_session::Session<SqliteConnection>;

mod schema {
    diesel::table! { notes (text) { text -> Text, } }
}
use schema::notes;

const TABLE: &str = "CREATE TABLE notes (text TEXT PRIMARY KEY)";

fn memory() -> Registry {
    on(Engine::new(":memory:").unwrap())
}

fn faulty() -> (Registry, FaultPlan) {
    let plan = FaultPlan::new();
    let registry = on(Engine::builder(":memory:").faults(&plan).build().unwrap());
    plan.reset();
    (registry, plan)
}

fn on(engine: Engine<SqliteConnection>) -> Registry {
    let registry = Registry::new(engine);
    registry.transaction(|session| session.batch_execute(TABLE)).unwrap();
    registry
}

/// In order.
fn stored(registry: &Registry) -> Vec<String> {
    registry.read(|session| session.load(notes::table.select(notes::text).order(notes::text))).unwrap()
}

fn insert(text: &str) -> Result<()> {
    Session::current()?.execute(diesel::insert_into(notes::table).values(notes::text.eq(text))).map(drop)
}

/// What code that the attribute calls would answer.
#[derive(Debug)]
enum Failure {
    Refused,
    Session(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

#[transactional]
fn add(text: &str, ends: fn() -> Result<(), Failure>) -> Result<usize, Failure> {
    insert(text)?;
    ends()?;
    Ok(text.len())
}

fn well() -> Result<(), Failure> {
    Ok(())
}

fn badly() -> Result<(), Failure> {
    Err(Failure::Refused)
}

#[test]
fn ok_is_committed_and_err_and_panic_are_rolled_back() {
    let registry = memory();
    registry.enter(|| {
        assert_eq!(add("kept", well).unwrap(), 4);
        assert!(matches!(add("refused", badly), Err(Failure::Refused)), "the body's own error as it is");
        assert!(catch_unwind(|| add("panicked", || panic!("on purpose"))).is_err());
        assert!(!Session::has(), "each unit's session is gone");
    });
    assert_eq!(stored(&registry), ["kept"]);
    assert_eq!(registry.engine().connections_in_use().len(), 0);
}

#[test]
fn what_the_session_answers_goes_through_the_functions_own_error() {
    let (registry, plan) = faulty();
    registry.enter(|| {
        plan.on(Call::Commit, Fault::CloseAfter);
        assert!(matches!(add("unknown", well), Err(Failure::Session(Error::CommitUnknown { .. }))));
    });
    assert!(matches!(add("nowhere", || panic!("not run")), Err(Failure::Session(Error::NoRegistry { .. }))));
}

#[test]
fn without_a_registry_the_body_is_not_run() {
    #[transactional]
    fn anywhere() -> Result<()> {
        panic!("not run")
    }
    #[transactional(SqliteConnection, retry = 3)]
    fn here() -> Result<()> {
        panic!("not run")
    }
    assert!(matches!(anywhere(), Err(Error::NoRegistry { connection: "any connection" })));
    assert!(matches!(here(), Err(Error::NoRegistry { connection }) if connection.ends_with("SqliteConnection")));
}

#[test]
fn inside_another_unit_it_joins() {
    #[transactional]
    fn outer(inner: fn() -> Result<(), Failure>) -> Result<(), Failure> {
        add("first", well)?;
        let _ = add("second", inner);
        Ok(())
    }
    #[transactional]
    fn fails() -> Result<(), Failure> {
        add("undone", well)?;
        Err(Failure::Refused)
    }
    let registry = memory();
    registry.enter(|| {
        assert!(matches!(fails(), Err(Failure::Refused)));
        assert!(stored(&registry).is_empty());
        match outer(badly) {
            Err(Failure::Session(Error::RolledBack { cause })) => assert!(matches!(cause.reason(), Reason::Joined)),
            other => panic!("{other:?}"),
        }
        assert!(stored(&registry).is_empty(), "the outer one is undone, though it swallowed the error");
        // The same as closures.
        let answer = registry.transaction(|_| add("a third", well));
        assert_eq!(answer.unwrap(), 7);
        outer(well).unwrap();
    });
    assert_eq!(stored(&registry), ["a third", "first", "second"]);
}

#[test]
fn requires_new_commits_on_its_own() {
    #[transactional(propagation = RequiresNew)]
    fn log(text: &str) -> Result<()> {
        insert(text)
    }
    #[transactional(read_only, isolation = Serializable)]
    fn looks() -> Result<(), Failure> {
        let around = Session::current()?;
        assert!(around.load::<String>(notes::table.select(notes::text))?.is_empty());
        log("logged")?;
        assert!(Session::current()? == around);
        Err(Failure::Refused)
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.db");
    let registry = on(Engine::new(file.to_str().unwrap()).unwrap());
    registry.enter(|| assert!(matches!(looks(), Err(Failure::Refused))));
    assert_eq!(stored(&registry), ["logged"]);
}

#[test]
fn nested_fails_alone() {
    #[transactional(propagation = Nested)]
    fn attempt(text: &str) -> Result<(), Failure> {
        insert(text)?;
        badly()
    }
    #[transactional]
    fn outer() -> Result<(), Failure> {
        insert("outer")?;
        assert!(attempt("inner").is_err());
        Ok(())
    }
    let registry = memory();
    registry.enter(outer).unwrap();
    assert_eq!(stored(&registry), ["outer"]);
}

#[test]
fn mandatory_never_and_durable_mind_what_is_open() {
    #[transactional(propagation = Mandatory)]
    fn part() -> Result<()> {
        insert("part")
    }
    #[transactional(propagation = Never)]
    fn alone() -> Result<()> {
        insert("alone")
    }
    #[transactional(durable)]
    fn outermost() -> Result<()> {
        insert("outermost")
    }
    let registry = memory();
    registry.enter(|| {
        assert!(matches!(part(), Err(Error::NoOpenTransaction)));
        alone().unwrap();
        outermost().unwrap();
        registry
            .transaction(|_| -> Result<()> {
                assert!(matches!(alone(), Err(Error::TransactionForbidden { .. })));
                assert!(matches!(outermost(), Err(Error::NotOutermost { .. })));
                part()
            })
            .unwrap();
    });
    assert_eq!(stored(&registry), ["alone", "outermost", "part"]);
}

#[test]
fn read_only_refuses_writes_and_reads_wherever_it_is() {
    #[transactional(read_only)]
    fn texts() -> Result<Vec<String>> {
        Session::current()?.load(notes::table.select(notes::text))
    }
    #[transactional(read_only)]
    fn writes() -> Result<()> {
        insert("written")
    }
    #[transactional(read_only)]
    fn refuses() -> Result<(), Failure> {
        badly()
    }
    let registry = memory();
    registry.enter(|| {
        assert!(matches!(writes(), Err(Error::ReadOnly)));
        // Inside a transaction that no closure owns it reads what that one wrote, and leaves it as it is.
        insert("open").unwrap();
        assert_eq!(texts().unwrap(), ["open"]);
        assert!(refuses().is_err());
        Session::current().unwrap().commit().unwrap();
        // An idle session stays, too.
        let idle = Session::current().unwrap();
        assert_eq!(texts().unwrap(), ["open"]);
        assert!(!idle.is_closed());
        Session::remove();
        // Inside a unit of work, whose fate a failed look does not decide.
        let answer = registry.transaction(|_| -> Result<()> {
            assert!(refuses().is_err());
            insert("kept")
        });
        answer.unwrap();
    });
    assert_eq!(stored(&registry), ["kept", "open"]);
}

#[test]
fn options_are_those_of_the_transaction() {
    #[transactional(read_only, isolation = Serializable, deferrable, begin_mode = Deferred, lock_timeout = wait, timeout = wait * 2)]
    fn all(wait: Duration) -> Result<TransactionOptions> {
        Ok(Session::current()?.transaction_options())
    }
    #[transactional]
    fn none() -> Result<TransactionOptions> {
        Ok(Session::current()?.transaction_options())
    }
    #[transactional(statement_timeout = Duration::from_secs(1))]
    fn not_on_sqlite() -> Result<()> {
        panic!("not run")
    }
    let wait = Duration::from_secs(7);
    let registry = memory();
    registry.configure(|options| options.transaction(read_only())).unwrap();
    registry.enter(|| {
        let expected = read_only()
            .isolation(IsolationLevel::Serializable)
            .deferrable()
            .begin_mode(BeginMode::Deferred)
            .lock_timeout(wait)
            .timeout(wait * 2);
        assert_eq!(all(wait).unwrap(), expected);
        assert!(none().unwrap().is_read_only(), "without options as the registry is configured");
        assert!(matches!(not_on_sqlite(), Err(Error::Configuration(_))));
    });
}

thread_local! {
    static ATTEMPTS: Cell<u32> = const { Cell::new(0) };
}

fn attempts() -> u32 {
    ATTEMPTS.take()
}

fn attempt() {
    ATTEMPTS.set(ATTEMPTS.get() + 1);
}

#[test]
fn with_retry_each_attempt_has_its_own_clones() {
    #[derive(Clone)]
    struct Json<T>(T);

    #[transactional(retry = 3)]
    fn add_all(Json(mut texts): Json<Vec<String>>, first: String, seen: &mut Vec<usize>) -> Result<String> {
        attempt();
        texts.push(first);
        seen.push(texts.len());
        texts.iter().try_for_each(|text| insert(text))?;
        texts.pop().map_or_else(|| panic!("one was pushed"), Ok)
    }
    #[transactional(retry = RetryPolicy::new(most).also(Error::is_unique_violation))]
    fn twice(most: u32, text: &str) -> Result<()> {
        attempt();
        insert(text)?;
        insert(text)
    }
    #[transactional]
    fn once(text: &str) -> Result<()> {
        attempt();
        insert(text)
    }
    let (registry, plan) = faulty();
    registry.enter(|| {
        let mut seen = Vec::new();
        plan.on(Call::Commit, Fault::SerializationFailure);
        plan.on_nth(Call::Statement, 4, Fault::Deadlock);
        assert_eq!(add_all(Json(vec!["one".into()]), "two".into(), &mut seen).unwrap(), "two");
        assert_eq!((attempts(), seen), (3, vec![2, 2, 2]), "what is behind `&mut` is the caller's");
        assert_eq!(plan.happened(), 2);

        assert!(twice(4, "same").unwrap_err().is_unique_violation());
        assert_eq!(attempts(), 4);

        plan.on(Call::Commit, Fault::SerializationFailure);
        assert!(once("lost").unwrap_err().is_retryable());
        assert_eq!(attempts(), 1);

        let inside = registry.transaction(|_| twice(4, "inside"));
        assert!(matches!(inside, Err(Error::RetryInside { .. })));
        assert_eq!(attempts(), 0);
    });
    assert_eq!(stored(&registry), ["one", "two"]);
}

#[test]
fn the_last_attempts_answer_is_the_functions() {
    #[transactional(retry = 2)]
    fn fails() -> Result<(), Failure> {
        attempt();
        insert("a row")?;
        Err(Failure::Refused)
    }
    let (registry, plan) = faulty();
    registry.enter(|| {
        plan.on(Call::Statement, Fault::SerializationFailure);
        assert!(matches!(fails(), Err(Failure::Refused)), "the second attempt's");
        assert_eq!(attempts(), 2);
        plan.on(Call::Statement, Fault::SerializationFailure);
        plan.on_nth(Call::Begin, 2, Fault::SerializationFailure);
        assert!(matches!(fails(), Err(Failure::Session(Error::Statement(_)))));
        assert_eq!(attempts(), 2);
    });
}

#[test]
fn it_runs_on_the_innermost_registry() {
    #[transactional(SqliteConnection)]
    fn add_here(text: &str) -> Result<()> {
        insert(text)
    }
    let (outer, inner) = (memory(), memory());
    outer.enter(|| {
        add("outer", well).unwrap();
        inner.enter(|| {
            add("inner", well).unwrap();
            add_here("inner too").unwrap();
        });
        add_here("outer too").unwrap();
        // Another registry's unit of work is none that it could join.
        let answer = outer.transaction(|_| inner.enter(|| add("on its own", well)).and(badly()));
        assert!(answer.is_err());
    });
    assert_eq!(stored(&outer), ["outer", "outer too"]);
    assert_eq!(stored(&inner), ["inner", "inner too", "on its own"]);
}

#[test]
fn an_open_transaction_that_nobody_owns_is_not_joined() {
    let registry = memory();
    registry.enter(|| {
        insert("bare").unwrap();
        assert!(matches!(add("inside", well), Err(Failure::Session(Error::AlreadyBegun { .. }))));
        Session::current().unwrap().commit().unwrap();
    });
    assert_eq!(stored(&registry), ["bare"]);
}

#[test]
fn the_unit_is_known_by_a_line_of_the_users() {
    const ATTRIBUTE: u32 = line!() + 1;
    #[transactional(propagation = RequiresNew)]
    fn plain() -> Result<(), Failure> {
        committed_inside()
    }
    #[transactional(propagation = RequiresNew)]
    #[track_caller]
    fn tracked() -> Result<(), Failure> {
        committed_inside()
    }
    fn committed_inside() -> Result<(), Failure> {
        Ok(Session::current()?.commit().map(drop)?)
    }
    fn place(answer: Result<(), Failure>) -> &'static Location<'static> {
        match answer {
            Err(Failure::Session(Error::NotOwner { at })) => at,
            other => panic!("{other:?}"),
        }
    }
    memory().enter(|| {
        let at = place(plain());
        assert_eq!((at.file(), at.line()), (file!(), ATTRIBUTE));
        let (at, line) = (place(tracked()), line!());
        assert_eq!((at.file(), at.line()), (file!(), line));
    });
}

/// Which shapes of functions it takes.
mod shapes {
    use super::*;

    pub(crate) struct Names<T> {
        pub(crate) all: Vec<T>,
    }

    impl<T: Display + PartialEq> Names<T> {
        #[transactional]
        pub(crate) fn find(&self, wanted: &T) -> Result<Option<&T>> {
            for name in &self.all {
                if name == wanted {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        }

        /// Documented, with an attribute of its own.
        #[transactional]
        #[inline]
        pub(crate) fn add<'a>(&'a mut self, mut name: T) -> Result<&'a T>
        where
            T: Default + Clone,
        {
            #![allow(clippy::needless_lifetimes)]
            if name == T::default() {
                name = T::clone(&self.all[0]);
            }
            insert(&name.to_string())?;
            self.all.push(name);
            Ok(&self.all[self.all.len() - 1])
        }

        #[transactional(retry = 2)]
        pub(crate) fn count(&mut self) -> Result<usize> {
            attempt();
            insert(&format!("{} of {}", self.all.len(), attempts()))?;
            Ok(self.all.len())
        }

        #[transactional]
        pub(crate) fn shared(self: Rc<Self>) -> Result<usize> {
            Ok(Rc::strong_count(&self))
        }

        #[transactional]
        pub(crate) fn into_last(mut self) -> Result<Option<T>> {
            Ok(self.all.pop())
        }
    }

    pub(crate) trait Greets {
        #[transactional]
        fn greet(&self, name: &str) -> Result<()> {
            insert(&format!("{} {name}", self.greeting()))
        }

        fn greeting(&self) -> String;
    }

    impl Greets for &str {
        fn greeting(&self) -> String {
            (*self).to_owned()
        }
    }

    #[transactional]
    pub(crate) fn hidden<'a>(
        (first, [second, ..]): (&'a str, [&'a str; 3]),
        keeps: impl Fn(&str) -> bool,
    ) -> Result<impl Iterator<Item = &'a str>> {
        let kept: Vec<_> = [first, second].into_iter().filter(|text| keeps(text)).collect();
        kept.iter().try_for_each(|text| insert(text))?;
        Ok(kept.into_iter())
    }

    #[transactional(C)]
    pub(crate) fn generic<C: SessionConnection, const N: usize>(_: [(); N], _unused: &str) -> Result<usize> {
        diesel_session::Session::<C>::current()?.batch_execute("SELECT 1")?;
        Ok(N)
    }

    #[transactional]
    pub(crate) unsafe fn unsound(flag: *const bool) -> Result<bool, Box<dyn std::error::Error>> {
        let _ = flag;
        let number: u8 = "x".parse()?;
        Ok(number == 0)
    }

    #[transactional]
    pub(crate) fn in_a_module() -> diesel_session::Result<RefCell<&'static str>, super::Failure> {
        Ok(RefCell::new("a row"))
    }
}

#[test]
fn functions_of_every_shape_are_taken() {
    use shapes::{Greets, Names};

    let registry = memory();
    registry.enter(|| {
        let mut names = Names { all: vec!["ann".to_owned()] };
        assert_eq!(names.find(&"ann".to_owned()).unwrap().map(String::as_str), Some("ann"));
        assert_eq!(names.find(&"bob".to_owned()).unwrap(), None);
        assert_eq!(names.add("bob".to_owned()).unwrap(), "bob");
        assert_eq!(names.count().unwrap(), 2);
        assert_eq!(names.into_last().unwrap(), Some("bob".to_owned()));
        "hello".greet("eve").unwrap();
        let kept: Vec<_> = shapes::hidden(("x", ["y", "z", "z"]), |text| text != "x").unwrap().collect();
        assert_eq!(kept, ["y"]);
        assert_eq!(shapes::generic::<SqliteConnection, 2>([(); 2], "").unwrap(), 2);
        assert_eq!(*shapes::in_a_module().unwrap().borrow(), "a row");
        let shared = Rc::new(Names { all: vec![1] });
        assert_eq!(Rc::clone(&shared).shared().unwrap(), 2);
    });
    assert_eq!(stored(&registry), ["2 of 1", "bob", "hello eve", "y"]);
}
