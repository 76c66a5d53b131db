//! The small examples run to their end, check themselves, and say what they saw.
//!
//! `cargo test` builds the examples first; `cargo test --test examples` alone needs `cargo build --examples` before it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

mod support;
#[cfg(all(feature = "mysql", not(any(feature = "sqlite", feature = "postgres"))))]
use support::mysql as db;
#[cfg(all(feature = "postgres", not(feature = "sqlite")))]
use support::postgres as db;
#[cfg(feature = "sqlite")]
use support::sqlite_file as db;

/// `target/<profile>/examples/<name>`, beside the folder of this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(std::path::Path::parent).unwrap();
    profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// Runs an example on a database of its own; gives what it printed.
fn run(name: &str) -> String {
    let database = db::Database::new();
    let output = Command::new(example(name))
        .env("DATABASE_URL", &database.url)
        .output()
        .unwrap_or_else(|error| panic!("{name} could not be started ({error}): `cargo build --examples` builds it"));
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} ended with {}:\n{printed}\n{errors}", output.status);
    printed
}

fn assert_says(printed: &str, lines: &[&str]) {
    for line in lines {
        assert!(printed.lines().any(|printed| printed.contains(line)), "no line says {line:?}:\n{printed}");
    }
}

#[test]
fn store_per_thread_gives_each_thread_its_own_store() {
    assert_says(
        &run("store_per_thread"),
        &[
            "ok: asking again on this thread gives the same store",
            "ok: another thread has another store",
            "ok: and the old handle is closed",
            "ok: two names on one thread are two stores",
            "ok: each has a transaction of its own",
        ],
    );
}

#[test]
fn worker_threads_keep_failures_to_themselves() {
    assert_says(
        &run("worker_threads"),
        &[
            "ok: jobs that run at the same time have a session each",
            "120 of 120 transfers committed",
            "ok: a job that panics harms nobody else",
            "balances: [1000, 1000, 1001, 999]",
            "ok: no connection is held any more",
        ],
    );
}

#[test]
fn thread_per_client_stores_what_it_answered() {
    assert_says(
        &run("thread_per_client"),
        &[
            "12 clients, 4 connections",
            "ok: each client got the answers that the protocol promises",
            "ok: the server stops also while a client is connected and silent",
            "61 members stored",
            "ok: and the renamed ones kept their full names",
        ],
    );
}

#[test]
fn serialized_brings_results_and_errors_back_from_one_thread() {
    assert_says(
        &run("serialized"),
        &[
            "ok: one after the other",
            "the nickname ann is taken",
            "User bob doesn't exist",
            "ok: errors come back like results",
            "ok: and the thread goes on",
            "100 users created and found by as many tasks",
            "ok: shutdown waits for what is under way",
            "ok: and refuses what comes later",
            "ok: everybody is stored",
            "ok: after the end the database is closed",
        ],
    );
}

#[cfg(feature = "axum")]
#[test]
fn axum_routes_store_what_they_answered_with_success() {
    assert_says(
        &run("axum_routes"),
        &[
            "ok: and is there for the next request",
            "four clients add the same name: [201, 409, 409, 409]",
            "ok: a refused answer undoes what came before it",
            "ok: and so does an error",
            "ok: after the end no job waits or runs",
            "stored: ann, bob, cy, dee",
        ],
    );
}

#[cfg(feature = "sqlite")]
#[test]
fn unit_of_work_makes_few_statements_of_what_happened_to_objects() {
    let printed = run("unit_of_work");
    assert_says(
        &printed,
        &[
            "ok: and each book has its author's id",
            "ok: the same row is the same object",
            "ok: the object has the new version",
            "ok: the object is what it was before the savepoint",
            "ok: the second attempt was stored, on top of the other change",
            "Anna: On sessions, On transactions",
            "2500 rows so far",
            "ok: all of them are there",
        ],
    );
    let sent = |words: &str| printed.lines().filter(|line| line.trim_start().starts_with(words)).count();
    assert_eq!(sent("SELECT `books`.`id`"), 1, "the books of all authors are one query: {printed}");
}

#[cfg(feature = "sqlite")]
#[test]
fn group_commit_stores_what_it_acknowledged_in_fewer_transactions() {
    let printed = run("group_commit");
    assert_says(
        &printed,
        &[
            "ok: one-by-one: what was acknowledged survives a power failure",
            "ok: one-by-one: exactly the acknowledged orders are stored",
            "ok: group-commit: what was acknowledged survives a power failure",
            "ok: group-commit: exactly the acknowledged orders are stored",
        ],
    );
    let transactions = |name: &str| -> u32 {
        let line = printed.lines().find(|line| line.starts_with(name)).unwrap();
        let (before, _) = line.split_once(" transactions").unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // 16 clients, 50 orders each, of which a tenth is refused.
    assert_eq!(transactions("one-by-one"), 800, "{printed}");
    assert!(transactions("group-commit") < 800, "{printed}");
}

#[test]
fn pool_or_thread_measures_both_and_closes_every_connection() {
    let printed = run("pool_or_thread");
    assert_says(
        &printed,
        &[
            "ok: shared pool: after shutdown no thread's connection is left",
            "ok: one a thread: after shutdown no thread's connection is left",
            "ok: one a thread: and every thread's new work is refused",
            "ok: close_all: its connection closes then",
        ],
    );
    let measured: Vec<Vec<&str>> = printed
        .lines()
        .filter(|line| line.starts_with("shared pool ") || line.starts_with("one a thread "))
        .map(|line| line.split_whitespace().rev().take(4).collect())
        .collect();
    assert_eq!(measured.len(), 2, "{printed}");
    for row in measured {
        let [rate, _time, connections, threads] = row[..] else { panic!("{printed}") };
        assert!(rate.parse::<f64>().unwrap() > 0.0, "{printed}");
        assert!(connections.parse::<u32>().unwrap() >= 1, "{printed}");
        assert_eq!(threads, "8", "{printed}");
    }
}
