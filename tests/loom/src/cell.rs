//! The completion cell: whoever waits gets the answer, once.

use std::future::poll_fn;
use std::sync::Arc;

use loom::future::block_on;
use loom::thread;

use crate::answer::{Answer, Got};

fn given(got: Got<u32>) -> Option<u32> {
    match got {
        Got::Given(value) => Some(value),
        Got::Taken | Got::Abandoned => None,
    }
}

#[test]
fn a_thread_that_waits_is_woken_by_the_answer() {
    loom::model(|| {
        let answer = Arc::new(Answer::new());
        let giver = Arc::clone(&answer);
        let thread = thread::spawn(move || assert!(giver.give(7).is_none()));
        assert_eq!(answer.wait(None).and_then(given), Some(7));
        thread.join().unwrap();
        assert!(matches!(answer.wait(None), Some(Got::Taken)));
    });
}

#[test]
fn a_task_that_waits_is_woken_by_the_answer() {
    loom::model(|| {
        let answer = Arc::new(Answer::new());
        let giver = Arc::clone(&answer);
        let thread = thread::spawn(move || assert!(giver.give(7).is_none()));
        let got = block_on(poll_fn(|context| answer.poll(context)));
        assert_eq!(given(got), Some(7));
        thread.join().unwrap();
    });
}

#[test]
fn a_waiter_hears_that_there_will_be_no_answer() {
    loom::model(|| {
        let answer = Arc::new(Answer::<u32>::new());
        let loser = Arc::clone(&answer);
        let thread = thread::spawn(move || loser.abandon());
        assert!(matches!(answer.wait(None), Some(Got::Abandoned)));
        thread.join().unwrap();
        assert!(answer.give(7).is_some(), "too late");
    });
}

#[test]
fn of_two_answers_one_stands_and_the_other_comes_back() {
    loom::model(|| {
        let answer = Arc::new(Answer::new());
        let threads = [1, 2].map(|n| {
            let giver = Arc::clone(&answer);
            thread::spawn(move || giver.give(n))
        });
        let stands = answer.wait(None).and_then(given).unwrap();
        let back: Vec<u32> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(back, [3 - stands]);
    });
}

#[test]
fn an_answer_is_taken_by_one_of_two_threads_that_wait() {
    loom::model(|| {
        let answer = Arc::new(Answer::new());
        let other = Arc::clone(&answer);
        let thread = thread::spawn(move || other.wait(None).and_then(given));
        answer.give(7);
        let mine = answer.wait(None).and_then(given);
        let others = thread.join().unwrap();
        assert!(matches!((mine, others), (Some(7), None) | (None, Some(7))));
    });
}
