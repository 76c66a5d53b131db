//! Running what was registered for the end.

use std::collections::VecDeque;

use super::{Core, HOOKS_AT_MOST};
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::place::Place;
use crate::session::hooks::{Hook, HookError, Outcome};
use crate::session::state::{Refusal, Situation};

impl<C: SessionConnection> Core<C> {
    pub(crate) fn add_hook(&self, hook: Hook, place: Place) -> Result<Vec<HookError>> {
        self.origin.check()?;
        if self.has(Situation::Closed) {
            return Err(self.refuse(Refusal::SessionClosed));
        }
        let too_many = || {
            Err(Error::Configuration(
                "a transaction takes at most 1000 hooks: collect the work and register one".into(),
            ))
        };
        if let Some(queue) = &mut *self.hook_queue.borrow_mut() {
            if queue.len() >= HOOKS_AT_MOST {
                return too_many();
            }
            queue.push_back(hook);
            return Ok(Vec::new());
        }
        if self.has(Situation::Autocommit) {
            return Ok(self.run_hooks(vec![hook], Outcome::Committed));
        }
        self.autobegin(place)?;
        let mut frames = self.frames.borrow_mut();
        if frames.hooks() >= HOOKS_AT_MOST {
            return too_many();
        }
        frames.innermost().hooks.push(hook);
        Ok(Vec::new())
    }

    pub(super) fn run_hooks(&self, hooks: Vec<Hook>, outcome: Outcome) -> Vec<HookError> {
        if hooks.is_empty() {
            return Vec::new();
        }
        let queue = Queue::start(self, hooks);
        let mut errors = Vec::new();
        let mut ran = 0;
        loop {
            let next = self.hook_queue.borrow_mut().as_mut().and_then(VecDeque::pop_front);
            let Some(hook) = next else { break };
            let error = if !hook.is_due(outcome) {
                hook.discard()
            } else if ran >= HOOKS_AT_MOST {
                // Past the limit they are reported instead of run; the last ones had no chance to register more.
                Some(hook.not_run())
            } else {
                ran += 1;
                crate::testing::kept(hook, outcome).and_then(|hook| hook.run(outcome))
            };
            if let Some(error) = error {
                // Its words may be the database's, with values of rows: they are in the report.
                tracing::error!(session = self.id, registered_at = %error.place(), "a hook failed");
                if let Some(table) = self.table() {
                    table.hook_failed();
                }
                errors.push(error);
            }
        }
        let was_in_hook = queue.was_in_hook;
        drop(queue);
        if !was_in_hook {
            self.settle();
        }
        errors
    }
}

/// Hooks are running; ends with the run, whatever way that ends.
struct Queue<'a, C: SessionConnection> {
    core: &'a Core<C>,
    outer: Option<VecDeque<Hook>>,
    was_in_hook: bool,
}

impl<'a, C: SessionConnection> Queue<'a, C> {
    fn start(core: &'a Core<C>, hooks: Vec<Hook>) -> Self {
        let outer = core.hook_queue.borrow_mut().replace(hooks.into());
        let was_in_hook = core.has(Situation::InHook);
        core.set(Situation::InHook, true);
        Self { core, outer, was_in_hook }
    }
}

impl<C: SessionConnection> Drop for Queue<'_, C> {
    fn drop(&mut self) {
        *self.core.hook_queue.borrow_mut() = self.outer.take();
        self.core.set(Situation::InHook, self.was_in_hook);
    }
}
