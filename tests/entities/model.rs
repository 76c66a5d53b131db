//! Random steps of everything that a session does with entities agree, one by one, with a plain model in memory.
//!
//! Each run of steps has a seed. A failure prints it with the shortest list of its steps that still fails; `MODEL_SEED` runs
//! that one alone. `DIESEL_SESSION_LONG` runs 100 000 steps.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel_session::ObjectState::{Pending, Persistent};

use self::real::{Handle, Real, Shown};
use self::reference::{FLUSH_FAILED, Model, Told};
use self::rows::Rows;
use self::steps::{Action, Step};
use super::tools::Fixture;

mod real;
mod reference;
mod rows;
mod steps;

const STEPS_A_RUN: usize = 50;
const RUNS: usize = 60;
const RUNS_OF_A_LONG_TEST: usize = 2_000;

/// What a flush that was refused may answer.
const REFUSALS: [&str; 3] = ["Statement", "StaleData", "NotPersistent"];

struct Play<'a> {
    model: Model,
    real: Real,
    fixture: &'a Fixture,
    done: Vec<Action>,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let Some(action) = step.meet(&self.model) else { return Ok(()) };
        self.done.push(action.clone());
        let real = self.real.step(&action);
        let rows = self.real.rows()?;
        let told = Told { went_well: real.is_ok(), rows: rows.as_ref() };
        let expected = self.model.step(&action, &told);
        self.answers(real, expected)?;
        self.model.sweep();
        if matches!(action, Action::Remove) {
            self.handles()?;
            self.real = Real::new(&self.fixture.registry);
            self.model = Model::new(self.model.stored.clone());
        }
        self.handles()?;
        agree("the state", &self.real.session.state(), &self.model.session_state())?;
        match rows {
            Some(rows) => agree("what is in the database", &rows, &self.model.rows)?,
            None => return Ok(()),
        }
        self.lists()
    }

    /// The call answered what it should, and gave the handles that it should.
    fn answers(&mut self, real: real::Answer, expected: reference::Answer) -> Result<(), String> {
        let handles = match (real, expected) {
            (Ok(handles), Ok(expected)) if handles.len() == expected.len() => expected.into_iter().zip(handles),
            (Err(name), Err(FLUSH_FAILED)) if REFUSALS.contains(&name.as_str()) => return Ok(()),
            (Err(name), Err(expected)) if name == expected => return Ok(()),
            (real, expected) => {
                let real = real.map(|handles| handles.len());
                return Err(format!("the call answers {real:?}, the model says {expected:?}"));
            }
        };
        for (n, handle) in handles {
            self.real.handles.resize(self.model.objects.len(), None);
            let same = self.real.handles.iter().position(|other| other.as_ref() == Some(&handle));
            let is_new = self.real.handles[n].is_none();
            if same.is_some_and(|same| same != n) || same.is_none() && !is_new {
                return Err(format!("the call gives the handle of object {same:?}, the model says {n}"));
            }
            self.real.handles[n] = Some(handle);
            self.model.objects[n].as_mut().unwrap().held = true;
        }
        Ok(())
    }

    fn handles(&self) -> Result<(), String> {
        for (n, handle) in self.real.handles.iter().enumerate() {
            let Some(handle) = handle else { continue };
            let object = self.model.object(n);
            let shown = Shown {
                state: object.state,
                value: object.value.clone(),
                key: object.value.as_ref().map(rows::Row::key),
                is_stale: object.is_stale(),
                is_modified: object.is_modified(),
            };
            agree(&format!("object {n}"), &self.real.shown(handle), &shown)?;
            let is_fresh = object.state == Persistent && object.fresh && object.base.is_none() && !self.model.failed();
            let key = object.value.as_ref().map(rows::Row::key);
            if is_fresh && key.and_then(|key| self.model.rows.get(&key)) != object.value.as_ref() {
                return Err(format!("object {n} is not stale, and not what the database holds"));
            }
        }
        Ok(())
    }

    fn lists(&self) -> Result<(), String> {
        let model = &self.model;
        let numbers = |wanted: &dyn Fn(&reference::Object) -> bool| -> Vec<usize> {
            model.live().filter(|(_, object)| wanted(object)).map(|(n, _)| n).collect()
        };
        let expected = [
            ("new", numbers(&|object| object.state == Pending)),
            ("dirty", numbers(&|object| object.state == Persistent && object.differs() && !object.marked)),
            ("deleted", numbers(&|object| object.state == Persistent && object.marked)),
            ("tracked", numbers(&|object| object.state == Persistent)),
        ];
        for ((name, expected), real) in expected.into_iter().zip(self.real.lists()) {
            let is_there = |n: &usize| match &self.real.handles.get(*n).cloned().flatten() {
                Some(handle) => real.iter().filter(|other: &&Handle| *other == handle).count() == 1,
                None => true,
            };
            if real.len() != expected.len() || !expected.iter().all(is_there) {
                let real: Vec<_> = real
                    .iter()
                    .map(|handle| self.real.handles.iter().position(|other| other.as_ref() == Some(handle)))
                    .collect();
                return Err(format!("{name} objects are {real:?}, the model says {expected:?}"));
            }
        }
        Ok(())
    }
}

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, real: &T, model: &T) -> Result<(), String> {
    if real == model { Ok(()) } else { Err(format!("{what} is\n  {real:?}, the model says\n  {model:?}")) }
}

/// Plays the steps on an empty database; gives what they were there, and what went wrong.
fn play(fixture: &Fixture, steps: &[Step]) -> Result<(), String> {
    fixture
        .registry
        .transaction(|session| fixture.clear(session))
        .map_err(|error: diesel_session::Error| error.to_string())?;
    let mut play =
        Play { model: Model::new(Rows::new()), real: Real::new(&fixture.registry), fixture, done: Vec::new() };
    let played = catch_unwind(AssertUnwindSafe(|| steps.iter().try_for_each(|step| play.step(step))));
    let result = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    });
    result.map_err(|error| {
        let done: Vec<String> = play.done.iter().map(|action| format!("  {action:?}")).collect();
        format!("after\n{}\n{error}", done.join("\n"))
    })
}

/// Leaves out whatever is not needed for the failure.
fn shortest(fixture: &Fixture, mut steps: Vec<Step>, mut error: String) -> String {
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(start..(start + size).min(steps.len()));
            match play(fixture, &fewer) {
                Err(other) => (steps, error) = (fewer, other),
                Ok(()) => start += size,
            }
        }
        size /= 2;
    }
    error
}

#[test]
fn random_steps_agree_with_a_plain_model_after_each_of_them() {
    let fixture = Fixture::new();
    let runs = if std::env::var_os("DIESEL_SESSION_LONG").is_some() { RUNS_OF_A_LONG_TEST } else { RUNS };
    let seeds: Vec<u64> = match std::env::var("MODEL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..runs).map(|_| fastrand::u64(0..1_000_000_000)).collect(),
    };
    for seed in seeds {
        let steps = steps::random(&mut fastrand::Rng::with_seed(seed), STEPS_A_RUN);
        if let Err(error) = play(&fixture, &steps) {
            panic!("seed {seed}: {}", shortest(&fixture, steps, error));
        }
    }
}
