//! An executor without its connection type: lanes, submission, shutdown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::clock::Clock;
use super::handle::JobHandle;
use super::job::{Header, Job};
use super::lane::{Duty, Lane, Spot, count, mine};
use super::queue::{Pushed, Times};
use super::waits::Waits;
use crate::engine::LockClock;
use crate::error::{Error, Result};
use crate::fork::Origin;
use crate::inspect::Holders;

/// What a submission does where every place in the queue is taken. The calling thread is held up in no case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// The job is answered at once with [`Error::QueueFull`]. The default: overload is told before the database feels it.
    #[default]
    Refuse,
    /// The job stands behind the queue until there is a place, at most so long; then [`Error::QueueFull`].
    WaitFor(Duration),
    /// The job stands behind the queue for as long as it takes: then only the callers bound how many stand there.
    Wait,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Shell {
    pub(crate) id: u64,
    pub(crate) origin: Origin,
    pub(crate) lanes: Vec<Arc<Lane>>,
    when_full: WhenFull,
    clock: Arc<Clock>,
    crew: Mutex<Crew>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Crew {
    /// How many threads live.
    alive: usize,
    is_shut_down: bool,
}

impl Shell {
    /// Lanes with their number of threads.
    pub(crate) fn new(
        lanes: &[(Duty, usize)],
        places: usize,
        when_full: WhenFull,
        origin: Origin,
        lock: Option<&Arc<LockClock>>,
    ) -> Arc<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let waits = Waits::new(id, lanes.iter().map(|(_, threads)| *threads).collect());
        let lanes = lanes
            .iter()
            .enumerate()
            .map(|(index, (duty, threads))| Arc::new(Lane::new(*duty, index, *threads, places, &waits, lock.cloned())))
            .collect();
        Arc::new(Self {
            id,
            origin,
            lanes,
            when_full,
            clock: Arc::default(),
            crew: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane for this duty; reads go with the rest where they have no threads of their own.
    pub(crate) fn lane(&self, duty: Duty) -> Option<&Arc<Lane>> {
        let of = |duty| self.lanes.iter().find(|lane| lane.duty == duty && lane.threads > 0);
        of(duty).or_else(|| if duty == Duty::Read { of(Duty::Work) } else { None })
    }

    /// Queues a job.
    pub(crate) fn submit<T, E: From<Error>>(
        &self,
        duty: Duty,
        header: Header,
        make: impl FnOnce(&Arc<Answer<Result<T, E>>>) -> Job,
    ) -> JobHandle<T, E> {
        if let Err(error) = self.origin.check() {
            return JobHandle::refused(error);
        }
        let Some(lane) = self.lane(duty) else {
            return JobHandle::refused(Error::ShutDown);
        };
        let answer = Arc::new(Answer::new());
        let job = make(&answer);
        let room_until = match self.when_full {
            WhenFull::WaitFor(patience) => header.submitted.checked_add(patience),
            WhenFull::Refuse | WhenFull::Wait => None,
        };
        let deadline = header.deadline.map(|deadline| deadline.at);
        let times = Times { not_before: None, deadline, room_until };
        let may_stand = self.when_full != WhenFull::Refuse;
        count(&lane.counts.submitted);
        let (job, error) = match lane.queue.push(job, times, may_stand) {
            Pushed::In(ticket) => {
                for at in [deadline, room_until].into_iter().flatten() {
                    self.clock.set(at, &self.lanes);
                }
                return JobHandle::new(answer, Spot::Job(Arc::clone(lane), ticket));
            }
            Pushed::Full(job, queued) => (job, Error::QueueFull { queued, waited: Duration::ZERO }),
            Pushed::Closed(job) => (job, Error::ShutDown),
        };
        count(&lane.counts.refused);
        job.answer(Some(error));
        JobHandle::answered(answer)
    }

    // ---- its threads ----

    /// Counts a thread that is about to start; none after the end.
    pub(crate) fn hire(&self) -> bool {
        let mut crew = self.crew();
        if !crew.is_shut_down {
            crew.alive += 1;
        }
        !crew.is_shut_down
    }

    /// Whether it is at its end for good, though a job may still run.
    pub(crate) fn is_shut_down(&self) -> bool {
        // Its lock may be held by a thread that does not exist in a forked child.
        !self.origin.is_elsewhere() && self.crew().is_shut_down
    }

    /// A thread has ended, or could not be started.
    pub(crate) fn leave(&self) {
        self.crew().alive -= 1;
        self.changed.notify_all();
    }

    /// Takes nothing new, waits until all is done; see `Executor::shutdown`.
    pub(crate) fn shut_down(&self, patience: Duration) -> Result<()> {
        self.origin.check()?;
        if mine(self.id).is_some() {
            return Err(Error::WouldHang);
        }
        let started = Instant::now();
        for lane in &self.lanes {
            lane.queue.drain();
        }
        let mut crew = self.crew();
        while crew.alive > 0 {
            let waited = started.elapsed();
            if waited >= patience {
                drop(crew);
                let refused = self.refuse_all();
                let running = self.running();
                return Err(Error::NotDrained { waited, refused, running });
            }
            crew = self.changed.wait_timeout(crew, patience - waited).unwrap_or_else(PoisonError::into_inner).0;
        }
        crew.is_shut_down = true;
        drop(crew);
        self.refuse_all();
        Ok(())
    }

    /// Serves nothing from now on; says how many jobs were refused.
    pub(crate) fn refuse_all(&self) -> usize {
        self.crew().is_shut_down = true;
        self.clock.stop();
        let mut refused = 0;
        for lane in &self.lanes {
            for job in lane.queue.close() {
                refused += 1;
                lane.refuse(job, Error::ShutDown);
            }
        }
        refused
    }

    fn running(&self) -> Holders {
        self.lanes.iter().flat_map(|lane| lane.running().iter().cloned().collect::<Vec<_>>()).collect()
    }
}
