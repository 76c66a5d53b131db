//! A database thread: runs one job after another, each in a session of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{GroupCommit, Usual};
use super::bearing::CENTURY;
use super::job::Job;
use super::lane::{Duty, Lane, count, enlist};
use super::queue::Entry;
use super::shell::Shell;
use super::waits::Seat;
use crate::backend::SessionConnection;
use crate::error::{Error, Result};
use crate::scope::ScopedSession;
use crate::scope::job::{Ask, End};
use crate::unit::Attempt;

pub(super) struct Worker<C: SessionConnection> {
    pub(super) shell: Arc<Shell>,
    pub(super) lane: Arc<Lane>,
    pub(super) registry: ScopedSession<C>,
    /// Its number in the lane.
    pub(super) number: usize,
    pub(super) group: Option<GroupCommit>,
}

impl<C: SessionConnection> Clone for Worker<C> {
    fn clone(&self) -> Self {
        Self {
            shell: Arc::clone(&self.shell),
            lane: Arc::clone(&self.lane),
            registry: self.registry.clone(),
            number: self.number,
            group: self.group,
        }
    }
}

impl<C: SessionConnection> Worker<C> {
    /// Starts the thread.
    pub(super) fn start(self) -> Result<()> {
        if !self.shell.hire() {
            return Err(Error::ShutDown);
        }
        let shell = Arc::clone(&self.shell);
        let name = format!("database {} {}", self.lane.duty.label(), self.number);
        let started = std::thread::Builder::new().name(name).spawn(move || self.live());
        started.map(drop).map_err(|error| {
            shell.leave();
            Error::Configuration(format!("a database thread could not be started: {error}").into())
        })
    }

    fn live(self) {
        let mut heir = Heir { worker: &self, is_needed: true };
        enlist(self.shell.id, Seat { lane: self.lane.index, number: self.number });
        self.registry.enter(|| {
            let mut bench = Bench::default();
            while let Some(entry) = self.lane.queue.next() {
                self.serve(entry, &mut bench);
            }
        });
        heir.is_needed = false;
    }

    fn serve(&self, entry: Entry<Job>, bench: &mut Bench) {
        if let Some(late) = entry.job.header.late() {
            let error = self.lane.too_late(&entry.job.header, late);
            return self.lane.refuse(entry.job, error);
        }
        match self.group {
            Some(group) if bench.alone == 0 && self.may_share(group, &entry.job.header) => {
                self.serve_batch(group, entry, bench);
            }
            _ => self.serve_alone(entry, bench),
        }
    }

    pub(super) fn serve_alone(&self, mut entry: Entry<Job>, bench: &mut Bench) {
        let ask = ask(&entry.job);
        let shown = self.lane.show(ask.place);
        // What bears an `AsyncSession` has ended its transaction itself: nothing is left to commit.
        let commits = self.lane.duty != Duty::Bear;
        let end = self.registry.attempt(&ask, |session| entry.job.run(session) && commits);
        drop(shown);
        count(&self.lane.counts.transactions);
        bench.alone = bench.alone.saturating_sub(1);
        self.settle(entry, end);
    }

    /// Answers a job that has ended, or queues it again.
    pub(super) fn settle(&self, entry: Entry<Job>, end: End) {
        let Entry { ticket, mut job, mut times } = entry;
        let counts = &self.lane.counts;
        match end {
            End::Over(instead) => {
                count(if instead.is_none() && job.is_ok { &counts.succeeded } else { &counts.failed });
                job.answer(instead);
            }
            End::Again(pause, instead) => {
                count(&counts.retried);
                let header = &mut job.header;
                header.has_begun = true;
                header.attempt = header.attempt.map(|attempt| Attempt { number: attempt.number + 1, ..attempt });
                // It has begun: its deadline bounds its attempts from inside.
                times.deadline = None;
                times.room_until = None;
                let now = Instant::now();
                // Further away than the clock reaches is never.
                times.not_before = (pause > Duration::ZERO).then(|| now.checked_add(pause).unwrap_or(now + CENTURY));
                job.instead = instead.map(Box::new);
                if let Err(job) = self.lane.queue.push_again(Entry { ticket, job, times }) {
                    self.lane.refuse(job, Error::ShutDown);
                }
            }
        }
    }
}

pub(super) fn ask(job: &Job) -> Ask {
    let header = &job.header;
    Ask {
        options: header.options,
        asked: header.asked,
        deadline: header.deadline,
        attempt: header.attempt,
        place: header.place,
    }
}

/// What a thread remembers from job to job.
#[derive(Debug, Default)]
pub(super) struct Bench {
    /// How many jobs are still to be run alone, since one of them lost a batch.
    pub(super) alone: usize,
    /// How long jobs take.
    pub(super) usual: Usual,
}

fn tell(replaced: Result<()>) {
    let thread = std::thread::current();
    match replaced {
        Ok(()) => tracing::error!(thread = thread.name(), "a database thread died: another one takes its place"),
        Err(error) => {
            tracing::error!(thread = thread.name(), %error, "a database thread died, and nothing took its place");
        }
    }
}

/// Puts another thread in the place of one that dies.
struct Heir<'a, C: SessionConnection> {
    worker: &'a Worker<C>,
    is_needed: bool,
}

impl<C: SessionConnection> Drop for Heir<'_, C> {
    fn drop(&mut self) {
        if self.is_needed {
            let replaced = self.worker.clone().start();
            if replaced.is_err() {
                self.worker.lane.vacate();
            }
            // It may be the log that this thread died of.
            let _ = catch_unwind(AssertUnwindSafe(|| tell(replaced)));
        }
        self.worker.shell.leave();
    }
}
