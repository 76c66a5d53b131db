//! Another process, the test binary itself, that writes to a SQLite file in a loop and holds its lock for a while each time.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use super::db::Conn;

const FILE: &str = "LOCK_HOLDER_FILE";
const HOLD: &str = "LOCK_HOLDER_MILLISECONDS";

/// SQLite's busy handler looks again after at most 100 ms (`sqliteDefaultBusyCallback`): a shorter gap may go unseen.
const GAP: Duration = Duration::from_millis(150);
const HELD: &str = "holder: held ";
const HOLDER_NUMBERS: i64 = 1_000_000;

/// What the other process runs: it holds the write lock for a random time, again and again, until its input ends. In the
/// process that runs the tests it has nothing to do.
pub fn hold() {
    let (Ok(file), Ok(hold)) = (std::env::var(FILE), std::env::var(HOLD)) else { return };
    let longest: u64 = hold.parse().unwrap();
    let ended = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let mut conn = Conn::establish(&file).unwrap();
    conn.batch_execute("PRAGMA busy_timeout = 60000").unwrap();
    for number in HOLDER_NUMBERS.. {
        conn.batch_execute("BEGIN IMMEDIATE").unwrap();
        conn.batch_execute(&format!("INSERT INTO jobs (number) VALUES ({number})")).unwrap();
        say(&format!("\n{HELD}{number}"));
        std::thread::sleep(Duration::from_millis(fastrand::u64(longest / 2..=longest)));
        conn.batch_execute("COMMIT").unwrap();
        if ended.is_finished() {
            break;
        }
        std::thread::sleep(GAP);
    }
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").unwrap();
    stdout.flush().unwrap();
}

pub struct Holder {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Holder {
    /// Starts the process, which runs the test of this name, and waits until it holds the lock.
    pub fn new(test: &str, file: &str, longest: Duration) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(FILE, file)
            .env(HOLD, longest.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut holder = Self { process, output };
        holder.wait_for_lock();
        holder
    }

    /// Waits until it says that it took the lock once more.
    pub fn wait_for_lock(&mut self) {
        let mut line = String::new();
        while !line.starts_with(HELD) {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the other process ended");
        }
    }

    /// Lets it end, and gives the numbers that it stored.
    pub fn end(mut self) -> Vec<i64> {
        drop(self.process.stdin.take());
        let rest: Vec<String> = self.output.lines().map(Result::unwrap).collect();
        assert!(self.process.wait().unwrap().success());
        rest.iter().filter_map(|line| line.strip_prefix(HELD)?.parse().ok()).collect()
    }
}
