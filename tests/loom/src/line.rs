//! The queue: every job that is taken is served once, or taken back once, and no thread sleeps while there is work.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use crate::answer::{Answer, Got};
use crate::queue::{Entry, Pushed, Queue, Times};

type Line = Arc<Queue<u32>>;

fn push(line: &Queue<u32>, job: u32) -> Option<u64> {
    match line.push(job, Times::default(), false) {
        Pushed::In(ticket) => Some(ticket),
        Pushed::Full(back, _) | Pushed::Closed(back) => {
            assert_eq!(back, job);
            None
        }
    }
}

fn serve(line: &Queue<u32>) -> Vec<u32> {
    std::iter::from_fn(|| line.next()).map(|entry| entry.job).collect()
}

#[test]
fn two_threads_serve_what_two_others_submit_and_end_when_it_is_drained() {
    loom::model(|| {
        let line: Line = Arc::new(Queue::new(2));
        let submitter = Arc::clone(&line);
        let submits = thread::spawn(move || push(&submitter, 1));
        let server = Arc::clone(&line);
        let serves = thread::spawn(move || serve(&server));
        let second = push(&line, 2);
        let first = submits.join().unwrap();
        assert!(first.is_some() && second.is_some());
        line.drain();
        let mut served = serve(&line);
        served.extend(serves.join().unwrap());
        served.sort_unstable();
        assert_eq!(served, [1, 2]);
    });
}

#[test]
fn threads_that_sleep_are_woken_by_submissions() {
    loom::model(|| {
        let line: Line = Arc::new(Queue::new(2));
        let servers = [(), ()].map(|()| {
            let line = Arc::clone(&line);
            thread::spawn(move || line.next().map(|entry| entry.job))
        });
        push(&line, 1);
        push(&line, 2);
        let mut served = servers.map(|server| server.join().unwrap().unwrap());
        served.sort_unstable();
        assert_eq!(served, [1, 2]);
    });
}

#[test]
fn a_thread_that_sleeps_is_woken_by_a_job_that_is_put_back() {
    loom::model(|| {
        let line: Line = Arc::new(Queue::new(1));
        let servers = [(), ()].map(|()| {
            let line = Arc::clone(&line);
            thread::spawn(move || {
                let Some(entry) = line.next() else { return };
                if entry.job == 0 {
                    line.push_again(Entry { job: 1, ..entry }).unwrap();
                }
            })
        });
        push(&line, 0);
        for server in servers {
            server.join().unwrap();
        }
        assert_eq!(line.len(), 0);
    });
}

#[test]
fn a_job_is_served_or_cancelled_and_never_both() {
    loom::model(|| {
        let line: Line = Arc::new(Queue::new(2));
        let ticket = push(&line, 1).unwrap();
        let server = Arc::clone(&line);
        let serves = thread::spawn(move || serve(&server));
        let canceller = Arc::clone(&line);
        let cancels = thread::spawn(move || canceller.remove(ticket, |_| true));
        push(&line, 2);
        let cancelled = cancels.join().unwrap();
        line.drain();
        let served = serves.join().unwrap();
        match cancelled {
            Some(1) => assert_eq!(served, [2]),
            None => assert_eq!(served, [1, 2]),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_submission_that_meets_the_end_is_served_or_comes_back() {
    loom::model(|| {
        let line: Line = Arc::new(Queue::new(1));
        let server = Arc::clone(&line);
        let serves = thread::spawn(move || serve(&server));
        let closer = Arc::clone(&line);
        let closes = thread::spawn(move || closer.close());
        let is_in = push(&line, 1).is_some();
        let left = closes.join().unwrap();
        let served = serves.join().unwrap();
        assert_eq!(left.len() + served.len(), usize::from(is_in));
        assert!(push(&line, 2).is_none());
    });
}

#[test]
fn no_more_jobs_wait_than_there_are_places_for() {
    loom::model(|| {
        let line: Line = Arc::new(Queue::new(1));
        let submitters = [1, 2].map(|job| {
            let line = Arc::clone(&line);
            thread::spawn(move || push(&line, job).is_some())
        });
        let taken = submitters.map(|thread| thread.join().unwrap());
        // Nobody serves, so there is the one place.
        assert!(taken[0] != taken[1], "{taken:?}");
        assert_eq!(line.len(), 1);
    });
}

#[test]
fn a_job_that_is_put_back_is_served_again_also_when_the_queue_is_drained_meanwhile() {
    loom::model(|| {
        let line: Line = Arc::new(Queue::new(1));
        push(&line, 1);
        let server = Arc::clone(&line);
        let serves = thread::spawn(move || {
            let Some(Entry { ticket, job, times }) = server.next() else { return 0 };
            server.push_again(Entry { ticket, job: job + 1, times }).unwrap();
            serve(&server).len()
        });
        let other = Arc::clone(&line);
        let helps = thread::spawn(move || serve(&other).len());
        line.drain();
        // Once before it is put back and once after.
        let served = serves.join().unwrap() + helps.join().unwrap();
        assert!(served == 1, "{served}");
    });
}

#[test]
fn whoever_waits_for_a_job_hears_of_its_end_whether_it_is_served_or_cancelled() {
    loom::model(|| {
        let line: Arc<Queue<Arc<Answer<&str>>>> = Arc::new(Queue::new(1));
        let answer = Arc::new(Answer::new());
        let Pushed::In(ticket) = line.push(Arc::clone(&answer), Times::default(), false) else { panic!("full") };
        let server = Arc::clone(&line);
        let serves = thread::spawn(move || {
            while let Some(entry) = server.next() {
                assert!(entry.job.give("served").is_none());
            }
        });
        let canceller = Arc::clone(&line);
        let cancels = thread::spawn(move || {
            if let Some(answer) = canceller.remove(ticket, |_| true) {
                assert!(answer.give("cancelled").is_none());
            }
            canceller.drain();
        });
        let heard = Mutex::new(answer.wait(None));
        serves.join().unwrap();
        cancels.join().unwrap();
        assert!(matches!(heard.into_inner().unwrap(), Some(Got::Given("served" | "cancelled"))));
    });
}
