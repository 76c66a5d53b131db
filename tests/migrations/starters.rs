//! Processes that start at once: this test's own binary, told by the environment to be a starter.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use diesel::migration::MigrationConnection;
use diesel_migrations::{FileBasedMigrations, MigrationHarness};
use diesel_session::{Engine, SessionConnection};

const BACKEND: &str = "MIGRATION_STARTER_BACKEND";
const URL: &str = "MIGRATION_STARTER_URL";
const FOLDER: &str = "MIGRATION_STARTER_FOLDER";

const READY: &str = "starter: ready";
const APPLIED: &str = "starter: applied ";

/// What a starter process runs. In the process that runs the tests it has nothing to do.
#[test]
fn starter_process() {
    let Ok(backend) = std::env::var(BACKEND) else { return };
    let (url, folder) = (std::env::var(URL).unwrap(), std::env::var(FOLDER).unwrap());
    match backend.as_str() {
        #[cfg(feature = "sqlite")]
        "sqlite file" => start::<diesel::sqlite::SqliteConnection>(&url, &folder),
        #[cfg(feature = "postgres")]
        "PostgreSQL" => start::<diesel::pg::PgConnection>(&url, &folder),
        #[cfg(feature = "mysql")]
        "MySQL/MariaDB" => start::<diesel::mysql::MysqlConnection>(&url, &folder),
        other => panic!("no such backend: {other}"),
    }
}

fn start<C>(url: &str, folder: &str)
where
    C: SessionConnection + MigrationConnection + MigrationHarness<C::Backend>,
{
    let migrations = FileBasedMigrations::from_path(folder).unwrap();
    // The test harness has begun a line.
    say(&format!("\n{READY}"));
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    let engine = Engine::<C>::new(url).unwrap();
    for version in engine.run_migrations(migrations).unwrap() {
        say(&format!("{APPLIED}{version}"));
    }
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").unwrap();
    stdout.flush().unwrap();
}

struct Starter {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Starter {
    fn new(backend: &str, url: &str, folder: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "starters::starter_process", "--nocapture"])
            .env(BACKEND, backend)
            .env(URL, url)
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim_end() != READY {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "a starter ended before it was ready");
        }
        Self { process, output }
    }

    fn go(&mut self) {
        self.process.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }

    /// The versions that this one applied, or what it said when it failed.
    fn end(self) -> Result<Vec<String>, String> {
        let lines: Vec<String> = self.output.lines().map(Result::unwrap).collect();
        let ended = self.process.wait_with_output().unwrap();
        if !ended.status.success() {
            return Err(format!("{}\n{}", lines.join("\n"), String::from_utf8_lossy(&ended.stderr)));
        }
        Ok(lines.iter().filter_map(|line| line.strip_prefix(APPLIED)).map(str::to_owned).collect())
    }
}

/// Starts `n` processes, lets all of them begin at the same moment, and gives the versions that each applied.
pub(crate) fn start_at_once(n: usize, backend: &str, url: &str, folder: &str) -> Vec<Result<Vec<String>, String>> {
    let mut starters: Vec<Starter> = (0..n).map(|_| Starter::new(backend, url, folder)).collect();
    starters.iter_mut().for_each(Starter::go);
    starters.into_iter().map(Starter::end).collect()
}
