//! Random sequences of everything that moves a transaction agree, step by step, with a plain model in memory.
//!
//! `PROPTEST_CASES` sets how many sequences each backend runs.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use diesel::prelude::*;
use diesel_session::{Error, Outcome, Savepoint, SessionState, read_only};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::db::{self, Conn, Database, Registry, Session, insert};
use super::notes;

/// One step; guards are named by their place among those that are alive, counted from the innermost.
#[derive(Debug, Clone)]
enum Step {
    Begin,
    Insert(u8),
    BeginNested,
    GuardCommit(usize),
    GuardRollback(usize),
    GuardDrop(usize),
    Commit,
    Rollback,
    Remove,
    SetRollbackOnly,
    OnCommit,
    OnRollback,
    OnCompletion,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    // Mostly the innermost guard, as code does it; sometimes one further out.
    let guard = prop_oneof![4 => Just(0_usize), 1 => 0_usize..4];
    let step = prop_oneof![
        1 => Just(Step::Begin),
        // Few texts, so that some are there already.
        8 => (0_u8..6).prop_map(Step::Insert),
        5 => Just(Step::BeginNested),
        4 => guard.clone().prop_map(Step::GuardCommit),
        2 => guard.clone().prop_map(Step::GuardRollback),
        2 => guard.prop_map(Step::GuardDrop),
        3 => Just(Step::Commit),
        2 => Just(Step::Rollback),
        1 => Just(Step::Remove),
        1 => Just(Step::SetRollbackOnly),
        1 => Just(Step::OnCommit),
        1 => Just(Step::OnRollback),
        1 => Just(Step::OnCompletion),
    ];
    // One session, or two that take turns.
    prop_oneof![Just(1_usize), Just(2_usize)]
        .prop_flat_map(move |sessions| proptest::collection::vec((0..sessions, step.clone()), 1..40))
}

/// What a step answers: nothing, or the name of its error.
type Answer = Result<(), &'static str>;

fn answer<T>(result: Result<T, Error>) -> Answer {
    result.map(drop).map_err(|error| match &error {
        Error::Statement(_) if error.is_unique_violation() => "UniqueViolation",
        Error::PendingRollback { .. } => "PendingRollback",
        Error::RolledBack { .. } => "RolledBack",
        Error::SavepointOpen { .. } => "SavepointOpen",
        Error::SavepointGone => "SavepointGone",
        Error::AlreadyBegun { .. } => "AlreadyBegun",
        Error::WouldDeadlock { .. } => "WouldDeadlock",
        Error::SessionClosed { .. } => "SessionClosed",
        other => panic!("no step may answer this: {other}"),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Commit,
    Rollback,
    Always,
}

/// A hook that ran: its session, its number, and whether the work was stored.
type Ran = (usize, u32, bool);

#[derive(Debug, Clone, Default)]
struct Frame {
    rows: BTreeSet<String>,
    hooks: Vec<(u32, When)>,
    failed: bool,
    rollback_only: bool,
    guard: u32,
}

/// The model of one session.
#[derive(Debug, Clone)]
struct Model {
    number: usize,
    stored: BTreeSet<String>,
    /// The transaction, then its savepoints; `rows` is what that frame sees of the session's own.
    frames: Vec<Frame>,
    begun: bool,
    active: bool,
}

impl Model {
    fn new(number: usize) -> Self {
        Self { number, stored: BTreeSet::new(), frames: vec![Frame::default()], begun: false, active: false }
    }

    fn top(&mut self) -> &mut Frame {
        self.frames.last_mut().unwrap()
    }

    fn failed(&self) -> bool {
        self.frames.last().unwrap().failed
    }

    fn rollback_only(&self) -> bool {
        self.frames[0].rollback_only || self.frames.last().unwrap().rollback_only
    }

    fn state(&self) -> SessionState {
        match () {
            () if self.failed() => SessionState::Failed,
            () if self.rollback_only() => SessionState::RollbackOnly,
            () if self.active => SessionState::Active,
            () => SessionState::Idle,
        }
    }

    /// Before a statement: begins if need be, unless another session has the database to itself.
    fn admit(&mut self, blocked: bool) -> Answer {
        if self.failed() {
            return Err("PendingRollback");
        }
        if !self.active {
            if blocked {
                return Err("WouldDeadlock");
            }
            self.begun = true;
            self.active = true;
            self.frames[0].rows = self.stored.clone();
        }
        Ok(())
    }

    fn run(&self, hooks: Vec<(u32, When)>, stored: bool, ran: &mut Vec<Ran>) {
        let due = |when| match when {
            When::Commit => stored,
            When::Rollback => !stored,
            When::Always => true,
        };
        ran.extend(hooks.into_iter().filter(|(_, when)| due(*when)).map(|(hook, _)| (self.number, hook, stored)));
    }

    fn end(&mut self, stored: bool, ran: &mut Vec<Ran>) {
        if stored && self.active {
            self.stored = self.frames[0].rows.clone();
        }
        let hooks = self.frames.drain(..).flat_map(|frame| frame.hooks).collect();
        *self = Self { stored: std::mem::take(&mut self.stored), ..Self::new(self.number) };
        self.run(hooks, stored, ran);
    }

    fn commit(&mut self, ran: &mut Vec<Ran>) -> Answer {
        if self.frames.len() > 1 {
            return Err("SavepointOpen");
        }
        let doomed = self.failed() || self.rollback_only();
        self.end(!doomed, ran);
        if doomed { Err("RolledBack") } else { Ok(()) }
    }

    fn position(&self, guard: u32) -> Option<usize> {
        self.frames.iter().position(|frame| frame.guard == guard)
    }

    fn roll_back_to(&mut self, position: usize, ran: &mut Vec<Ran>) {
        let hooks = self.frames.drain(position..).flat_map(|frame| frame.hooks).collect();
        self.run(hooks, false, ran);
    }

    fn release(&mut self, guard: u32, ran: &mut Vec<Ran>) -> Answer {
        let Some(position) = self.position(guard) else { return Err("SavepointGone") };
        if position + 1 < self.frames.len() {
            self.roll_back_to(position, ran);
            return Err("SavepointOpen");
        }
        if self.failed() || self.top().rollback_only {
            self.roll_back_to(position, ran);
            return Err("RolledBack");
        }
        let frame = self.frames.pop().unwrap();
        self.top().rows = frame.rows;
        self.top().hooks.extend(frame.hooks);
        Ok(())
    }
}

/// A real session beside its model.
struct Pair {
    registry: Registry,
    session: Session,
    guards: Vec<(u32, Savepoint<Conn>)>,
    model: Model,
}

impl Pair {
    fn prefix(&self) -> &'static str {
        // The row "m" stands between the two, so that no lock of one reaches the other.
        ["a", "z"][self.model.number]
    }

    fn rows(&self, session: &Session) -> Result<BTreeSet<String>, Error> {
        let own = notes::table.filter(notes::text.like(format!("{}%", self.prefix()))).select(notes::text);
        session.load::<String>(own).map(|rows| rows.into_iter().collect())
    }

    fn take_guard(&mut self, from_the_inside: usize) -> Option<(u32, Savepoint<Conn>)> {
        let last = self.guards.len().checked_sub(1)?;
        Some(self.guards.remove(last.saturating_sub(from_the_inside)))
    }

    /// Does the step on both sides; gives what each answered, and the hooks that the model ran.
    fn step(&mut self, step: &Step, next: &mut u32, blocked: bool, log: &Log) -> (Answer, Answer, Vec<Ran>) {
        let mut ran = Vec::new();
        *next += 1;
        let n = *next;
        let number = self.model.number;
        let (real, model) = match *step {
            Step::Begin => {
                let model = match () {
                    () if self.model.failed() => Err("PendingRollback"),
                    () if self.model.begun => Err("AlreadyBegun"),
                    () => {
                        self.model.begun = true;
                        Ok(())
                    }
                };
                (answer(self.session.begin()), model)
            }
            Step::Insert(k) => {
                let text = format!("{}{k}", self.prefix());
                let model = self.model.admit(blocked).and_then(|()| {
                    let frame = self.model.top();
                    if frame.rows.insert(text.clone()) {
                        return Ok(());
                    }
                    frame.failed = true;
                    Err("UniqueViolation")
                });
                (answer(insert(&self.session, &text)), model)
            }
            Step::BeginNested => {
                let model = self.model.admit(blocked).map(|()| {
                    let rows = self.model.top().rows.clone();
                    self.model.frames.push(Frame { rows, guard: n, ..Frame::default() });
                });
                let real = self.session.begin_nested().map(|guard| self.guards.push((n, guard)));
                (answer(real), model)
            }
            Step::GuardCommit(which) => match self.take_guard(which) {
                Some((id, guard)) => (answer(guard.commit()), self.model.release(id, &mut ran)),
                None => (Ok(()), Ok(())),
            },
            Step::GuardRollback(which) | Step::GuardDrop(which) => match self.take_guard(which) {
                Some((id, guard)) => {
                    let mut real = Ok(());
                    if matches!(step, Step::GuardRollback(_)) {
                        real = guard.rollback().map(drop);
                    } else {
                        drop(guard);
                    }
                    if let Some(position) = self.model.position(id) {
                        self.model.roll_back_to(position, &mut ran);
                    }
                    (answer(real), Ok(()))
                }
                None => (Ok(()), Ok(())),
            },
            Step::Commit => (answer(self.session.commit()), self.model.commit(&mut ran)),
            Step::Rollback => {
                self.model.end(false, &mut ran);
                (answer(self.session.rollback()), Ok(()))
            }
            Step::Remove => {
                self.model.end(false, &mut ran);
                self.registry.remove();
                let closed = std::mem::replace(&mut self.session, self.registry.current().unwrap());
                (answer(insert(&closed, "ghost")), Err("SessionClosed"))
            }
            Step::SetRollbackOnly => {
                self.model.begun = true;
                self.model.top().rollback_only = true;
                (answer(self.session.set_rollback_only("the model says so")), Ok(()))
            }
            Step::OnCommit | Step::OnRollback | Step::OnCompletion => {
                let log = Rc::clone(log);
                let (when, real) = match step {
                    Step::OnCommit => {
                        (When::Commit, self.session.on_commit(move || log.borrow_mut().push((number, n, true))))
                    }
                    Step::OnRollback => {
                        (When::Rollback, self.session.on_rollback(move || log.borrow_mut().push((number, n, false))))
                    }
                    _ => {
                        let hook = move |outcome| log.borrow_mut().push((number, n, outcome == Outcome::Committed));
                        (When::Always, self.session.on_completion(hook))
                    }
                };
                self.model.begun = true;
                self.model.top().hooks.push((n, when));
                (answer(real), Ok(()))
            }
        };
        (real, model, ran)
    }
}

type Log = Rc<RefCell<Vec<Ran>>>;

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, at: usize, real: &T, model: &T) -> Result<(), TestCaseError> {
    if real == model {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{} after step {at}: {what} is {real:?}, the model says {model:?}", db::NAME)))
}

fn play(registries: &[Registry; 2], steps: &[(usize, Step)]) -> Result<(), TestCaseError> {
    for registry in registries {
        registry.remove();
    }
    registries[0]
        .transaction(|session| {
            session.batch_execute("DELETE FROM notes")?;
            insert(session, "m").map(drop)
        })
        .map_err(|error: Error| TestCaseError::fail(error.to_string()))?;
    let engine = registries[0].engine();
    let log = Log::default();
    let mut next = 0;
    let mut pairs = registries.each_ref().map(|registry| Pair {
        registry: registry.clone(),
        session: registry.current().unwrap(),
        guards: Vec::new(),
        model: Model::new(0),
    });
    pairs[1].model.number = 1;
    for (at, (who, step)) in steps.iter().enumerate() {
        let blocked = !db::REMOTE && pairs[1 - who].model.active;
        let pair = &mut pairs[*who];
        let (real, model, ran) = pair.step(step, &mut next, blocked, &log);
        agree("the answer", at, &real, &model)?;
        agree("the hooks that ran", at, &log.take(), &ran)?;
        for pair in &pairs {
            agree("the state", at, &pair.session.state(), &pair.model.state())?;
            agree("in_transaction", at, &pair.session.in_transaction(), &pair.model.begun)?;
            agree("in_nested_transaction", at, &pair.session.in_nested_transaction(), &(pair.model.frames.len() > 1))?;
            if pair.model.active && !pair.model.failed() {
                let seen = pair.rows(&pair.session).map_err(|error| TestCaseError::fail(error.to_string()))?;
                agree("what the session sees", at, &seen, &pair.model.frames.last().unwrap().rows)?;
            }
            let anybody_active = pairs.iter().any(|pair| pair.model.active);
            if db::CONCURRENT || !anybody_active {
                let reader = Session::with_options(engine, read_only()).unwrap();
                let stored = pair.rows(&reader).map_err(|error| TestCaseError::fail(error.to_string()))?;
                agree("what is stored", at, &stored, &pair.model.stored)?;
                reader.commit().unwrap();
            }
        }
        let active = pairs.iter().filter(|pair| pair.model.active).count();
        agree("the number of connections in use", at, &engine.connections_in_use().len(), &active)?;
    }
    Ok(())
}

#[test]
fn random_sequences_agree_with_a_plain_model_after_each_step() {
    let database = Database::new();
    let first = database.registry();
    // The second session is another registry's, on the same engine and the same thread.
    let second = Registry::new(first.engine().clone());
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 64;
    }
    let registries = [first, second];
    let result = TestRunner::new(config).run(&steps(), |steps| play(&registries, &steps));
    for registry in &registries {
        registry.remove();
    }
    result.unwrap_or_else(|failure| panic!("{failure}"));
    for registry in &registries {
        assert!(registry.inspect().sessions.is_empty());
    }
}

#[test]
fn a_guard_that_outlives_its_transaction_never_touches_a_savepoint_of_the_next() {
    let database = Database::new();
    let registry = database.registry();
    let session = registry.current().unwrap();
    for way in 0..3 {
        let old = session.begin_nested().unwrap();
        session.rollback().unwrap();
        let new = session.begin_nested().unwrap();
        insert(&session, &way.to_string()).unwrap();
        match way {
            0 => drop(old),
            1 => drop(old.rollback().unwrap()),
            _ => assert!(matches!(old.commit(), Err(Error::SavepointGone))),
        }
        assert!(session.in_nested_transaction());
        new.commit().unwrap();
        session.commit().unwrap();
    }
    registry.remove();
    assert_eq!(db::stored(&registry), ["0", "1", "2"]);
}
