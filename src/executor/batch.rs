//! Group commit: jobs that wait together share one transaction, and its COMMIT.

use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Header, Job};
use super::lane::count;
use super::queue::Entry;
use super::worker::{Bench, Worker, ask};
use crate::backend::SessionConnection;
use crate::error::{Cause, Error, Reason};
use crate::place::Place;
use crate::scope::job::{End, Fate, Member};
use crate::session::core::Core;

/// How jobs share a COMMIT; see [`ExecutorBuilder::group_commit`](crate::ExecutorBuilder::group_commit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCommit {
    max_jobs: usize,
    max_delay: Duration,
}

impl Default for GroupCommit {
    fn default() -> Self {
        Self { max_jobs: 128, max_delay: Duration::from_millis(2) }
    }
}

impl GroupCommit {
    /// At most 128 jobs and 2 ms.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// At most so many jobs share a COMMIT; at least 1.
    #[must_use]
    pub const fn max_jobs(mut self, jobs: usize) -> Self {
        self.max_jobs = if jobs == 0 { 1 } else { jobs };
        self
    }

    /// For how long, at most, a job that is done waits for others before the COMMIT. Nobody waits for jobs that are yet to
    /// come; and one that is there joins only if jobs submitted at its line usually take less than what is left, so a
    /// line that was not seen before never joins.
    #[must_use]
    pub const fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Whether a job may share its transaction.
    pub(super) fn takes(&self, header: &Header) -> bool {
        self.max_jobs > 1 && !header.has_begun && header.options.may_share()
    }
}

/// How long the jobs of a line usually take. By the line's address: two addresses of one line are two lines.
#[derive(Debug, Default)]
pub(super) struct Usual(HashMap<*const Location<'static>, Duration>);

impl Usual {
    fn of(&self, place: Place) -> Option<Duration> {
        self.0.get(&std::ptr::from_ref(place)).copied()
    }

    /// One that took long is remembered for a while.
    fn learn(&mut self, place: Place, took: Duration) {
        let usual = self.0.entry(std::ptr::from_ref(place)).or_insert(took);
        *usual = if took > *usual { took } else { (*usual * 7 + took) / 8 };
    }
}

/// Jobs that have had their turn in one transaction.
struct Batch<C: SessionConnection> {
    members: Vec<(Entry<Job>, Member<C>)>,
    lost: Option<Cause>,
}

impl<C: SessionConnection> Worker<C> {
    /// Whether a job may be in a batch.
    pub(super) fn may_share(&self, group: GroupCommit, header: &Header) -> bool {
        group.takes(header) && (!header.asked || self.registry.shares_plainly())
    }

    /// Runs a job, and with it those that wait and fit.
    pub(super) fn serve_batch(&self, group: GroupCommit, first: Entry<Job>, bench: &mut Bench) {
        let place = first.job.header.place;
        let outer = match self.registry.shared(place) {
            Ok(outer) => outer,
            Err(error) => return self.settle(first, End::Over(Some(error))),
        };
        let mut batch = Batch { members: Vec::new(), lost: None };
        let mut waits_since = None;
        let mut next = Some(first);
        while let Some(mut entry) = next.take() {
            let ask = ask(&entry.job);
            let started = Instant::now();
            let shown = self.lane.show(ask.place);
            let member = self.registry.attempt_member(&ask, &outer, |session| entry.job.run(session));
            drop(shown);
            let took = started.elapsed();
            let member = match member {
                Ok(member) => member,
                Err(error) => {
                    self.settle(entry, End::Over(Some(error)));
                    break;
                }
            };
            // What others kept it waiting is not of its line.
            bench.usual.learn(ask.place, took.saturating_sub(member.waited()));
            let (is_undone, is_whole) = (member.is_undone(), member.is_whole());
            batch.lost = member.lost();
            batch.members.push((entry, member));
            if batch.lost.is_none() && is_undone && !is_whole && !outer.still_bears(place) {
                batch.lost = Some(outer.lost().unwrap_or_else(|| Cause::new(Reason::EndedOutside, ask.place)));
            }
            if batch.lost.is_some() || (is_undone && is_whole) {
                // Nobody else has written in it.
                let _ = outer.rollback();
                break;
            }
            let age = waits_since.get_or_insert_with(Instant::now).elapsed();
            if batch.members.len() < group.max_jobs {
                next = self.lane.queue.next_now(|job| {
                    let usual = bench.usual.of(job.header.place);
                    self.may_share(group, &job.header)
                        && job.header.late().is_none()
                        && usual.is_some_and(|usual| age + usual <= group.max_delay)
                });
            }
        }
        self.end(batch, &outer, place, bench);
    }

    fn end(&self, batch: Batch<C>, outer: &Rc<Core<C>>, place: Place, bench: &mut Bench) {
        let shown = self.lane.show(place);
        let Batch { members, lost } = batch;
        let fate = match lost {
            Some(cause) if cause.leaves_doubt() => Fate::Unknown(cause),
            Some(cause) => Fate::Lost(cause),
            None => match outer.commit(place) {
                Ok(_) => Fate::Stored,
                Err(Error::CommitUnknown { cause } | Error::ImplicitCommit { cause }) => Fate::Unknown(cause),
                Err(error) => {
                    let cause = error.cause().cloned();
                    Fate::Lost(cause.unwrap_or_else(|| Cause::new(Reason::Refused(Arc::new(error)), place)))
                }
            },
        };
        count(&self.lane.counts.transactions);
        outer.close(place);
        drop(shown);
        let is_only = members.len() == 1;
        if !is_only && !matches!(fate, Fate::Stored) {
            count(&self.lane.counts.lost_batches);
            tracing::warn!(jobs = members.len(), "a transaction that jobs shared was lost");
            bench.alone = members.len();
        }
        for (entry, member) in members {
            // Its hooks may take their time.
            let shown = self.lane.show(entry.job.header.place);
            let end = member.conclude(&fate, is_only);
            drop(shown);
            self.settle(entry, end);
        }
    }
}
