//! A child process, the test binary itself, that works until it is killed and says what it was told.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use diesel::prelude::*;

use super::bank::Answer;
use super::db::Session;

const FILE: &str = "CRASH_CHILD_FILE";
const FIRST: &str = "CRASH_CHILD_FIRST_NUMBER";

/// In the child: the file, and the number of its first job. `None` in the process that runs the tests.
pub fn orders() -> Option<(String, i64)> {
    let (Ok(file), Ok(first)) = (std::env::var(FILE), std::env::var(FIRST)) else { return None };
    Some((file, first.parse().unwrap()))
}

/// In the child: says what a job was told.
pub fn say(answer: Answer, number: i64) {
    let word = match answer {
        Answer::Stored => "stored",
        Answer::Refused => "refused",
        other => panic!("job {number}: {other:?}"),
    };
    // Begins a line of its own: the test harness has begun one.
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("\n{word} {number}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

/// Lets the child, the test of this name, work on the file, kills it at a random moment, and gives what it had been told.
pub fn killed_child(test: &str, file: &str, first: i64, after_at_most: Duration) -> Vec<(i64, Answer)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FILE, file)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let listener = std::thread::spawn(move || {
        // A line that is cut off was not said.
        let lines = output.lines().map_while(Result::ok);
        let answers = lines.filter_map(|line| {
            let (word, number) = line.split_once(' ')?;
            let answer = match word {
                "stored" => Answer::Stored,
                "refused" => Answer::Refused,
                _ => return None,
            };
            Some((number.parse().ok()?, answer))
        });
        answers.collect::<Vec<(i64, Answer)>>()
    });
    let micros = u64::try_from(after_at_most.as_micros()).unwrap();
    std::thread::sleep(Duration::from_micros(fastrand::u64(0..micros)));
    assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    listener.join().unwrap()
}

#[derive(QueryableByName)]
struct Integrity {
    #[diesel(sql_type = diesel::sql_types::Text)]
    integrity_check: String,
}

pub fn check_integrity(session: &Session) {
    let rows: Vec<Integrity> = session.load(diesel::sql_query("PRAGMA integrity_check")).unwrap();
    assert_eq!(rows.into_iter().map(|row| row.integrity_check).collect::<Vec<_>>(), ["ok"]);
}
