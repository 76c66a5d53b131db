//! Many clients, each storing one row durably and waiting until it is: four ways to share one SQLite file.
//!
//! `cargo bench --bench executor`: 1, 8 and 64 clients on a WAL file with synchronous=FULL. The contenders take turns round
//! by round in one process; a ratio is the median of the rounds' ratios to the mutex. After each turn the rows are counted:
//! every acknowledged one has to be there, once.
//!
//! Options after `--`:
//!
//! - `--check`: end with an error where an aim is missed;
//! - `--rounds N` (3), `--seconds S` (1.5 a turn), `--clients N`: instead of 1, 8 and 64;
//! - `--only TEXT`: only contenders whose name contains the text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::process::ExitCode;

#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(not(feature = "sqlite"))]
fn main() -> ExitCode {
    println!("this benchmark needs the feature `sqlite`");
    ExitCode::SUCCESS
}

#[cfg(feature = "sqlite")]
fn main() -> ExitCode {
    let options = match sqlite::Options::parse() {
        Ok(options) => options,
        Err(message) => {
            println!("{message}");
            return ExitCode::FAILURE;
        }
    };
    match sqlite::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("{message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::sync::{Barrier, Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use diesel::connection::SimpleConnection;
    use diesel::prelude::*;
    use diesel_session::{Executor, GroupCommit, Synchronous, WhenFull};

    use crate::support::sqlite_file::{Conn, Database, Registry};

    diesel::table! {
        stored (id) {
            id -> Integer,
            client -> Integer,
        }
    }

    const SETTINGS: &str =
        "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = 1";
    /// The contender that the others are compared with.
    const BASE: usize = 1;

    pub(crate) struct Options {
        check: bool,
        rounds: usize,
        turn: Duration,
        clients: Vec<usize>,
        only: Option<String>,
    }

    impl Options {
        pub(crate) fn parse() -> Result<Self, String> {
            let turn = Duration::from_millis(1_500);
            let mut options = Self { check: false, rounds: 3, turn, clients: vec![1, 8, 64], only: None };
            let mut args = std::env::args().skip(1);
            while let Some(arg) = args.next() {
                let mut value = || args.next().ok_or(format!("{arg} needs a value"));
                match arg.as_str() {
                    // Cargo passes it to every benchmark.
                    "--bench" => {}
                    "--check" => options.check = true,
                    "--rounds" => options.rounds = value()?.parse().map_err(|_| "--rounds takes a number")?,
                    "--seconds" => {
                        let seconds = value()?.parse().map_err(|_| "--seconds takes a number")?;
                        options.turn = Duration::from_secs_f64(seconds);
                    }
                    "--clients" => options.clients = vec![value()?.parse().map_err(|_| "--clients takes a number")?],
                    "--only" => options.only = Some(value()?),
                    other => return Err(format!("unknown option {other}")),
                }
            }
            Ok(options)
        }
    }

    /// What one client does its work with; says whether its row was stored.
    type Client<'a> = Box<dyn FnMut(i32) -> bool + Send + 'a>;

    trait Contender {
        fn name(&self) -> &'static str;
        fn file(&self) -> &str;
        fn client(&self) -> Client<'_>;
    }

    fn insert(conn: &mut Conn, client: i32) -> QueryResult<usize> {
        conn.immediate_transaction(|conn| {
            diesel::insert_into(stored::table).values(stored::client.eq(client)).execute(conn)
        })
    }

    fn connect(file: &str) -> Conn {
        let mut conn = Conn::establish(file).unwrap();
        conn.batch_execute(SETTINGS).unwrap();
        conn
    }

    fn database() -> Database {
        let database = Database::new();
        connect(&database.url)
            .batch_execute("CREATE TABLE stored (id INTEGER PRIMARY KEY NOT NULL, client INTEGER NOT NULL)")
            .unwrap();
        database
    }

    /// A connection for each client, which meet at SQLite's own lock.
    struct EachItsOwn(Database);

    impl Contender for EachItsOwn {
        fn name(&self) -> &'static str {
            "Diesel, a connection each"
        }

        fn file(&self) -> &str {
            &self.0.url
        }

        fn client(&self) -> Client<'_> {
            let mut conn = connect(&self.0.url);
            Box::new(move |client| insert(&mut conn, client).is_ok())
        }
    }

    struct OneForAll(Database, Mutex<Conn>);

    impl Contender for OneForAll {
        fn name(&self) -> &'static str {
            "Diesel, a mutex around one"
        }

        fn file(&self) -> &str {
            &self.0.url
        }

        fn client(&self) -> Client<'_> {
            Box::new(|client| insert(&mut self.1.lock().unwrap_or_else(PoisonError::into_inner), client).is_ok())
        }
    }

    struct Jobs(&'static str, Database, Executor<Conn>);

    impl Jobs {
        fn new(name: &'static str, group: Option<GroupCommit>) -> Self {
            let database = database();
            let engine = database.builder().synchronous(Synchronous::Full).build().unwrap();
            let mut builder = Executor::builder(Registry::new(engine)).when_full(WhenFull::Wait);
            if let Some(group) = group {
                builder = builder.group_commit(group);
            }
            let executor = builder.build().unwrap();
            Self(name, database, executor)
        }
    }

    impl Contender for Jobs {
        fn name(&self) -> &'static str {
            self.0
        }

        fn file(&self) -> &str {
            &self.1.url
        }

        fn client(&self) -> Client<'_> {
            Box::new(|client| {
                let row = diesel::insert_into(stored::table).values(stored::client.eq(client));
                self.2.run(move |session| session.execute(row)).wait().is_ok()
            })
        }
    }

    /// What one contender did with so many clients.
    #[derive(Default)]
    struct Seen {
        a_second: Vec<f64>,
        took: Vec<Duration>,
        errors: usize,
        least: f64,
    }

    impl Seen {
        fn at(&self, per_mille: usize) -> f64 {
            let place = self.took.len().saturating_sub(1) * per_mille / 1_000;
            self.took.get(place).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
        }
    }

    /// Lets the clients work for one turn.
    fn turn(contender: &dyn Contender, clients: usize, long: Duration, seen: &mut Seen) {
        let before = count(contender.file());
        let start = Barrier::new(clients);
        let each: Vec<(Vec<Duration>, usize)> = std::thread::scope(|scope| {
            let start = &start;
            let threads: Vec<_> = (0..clients)
                .map(|client| {
                    let mut work = contender.client();
                    scope.spawn(move || {
                        let client = i32::try_from(client).unwrap();
                        let (mut took, mut errors) = (Vec::with_capacity(1 << 16), 0);
                        start.wait();
                        let started = Instant::now();
                        while started.elapsed() < long {
                            let before = Instant::now();
                            if work(client) {
                                took.push(before.elapsed());
                            } else {
                                errors += 1;
                            }
                        }
                        (took, errors)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let done: usize = each.iter().map(|(took, _)| took.len()).sum();
        assert_eq!(count(contender.file()) - before, done, "{}: not what was acknowledged", contender.name());
        let least = each.iter().map(|(took, _)| took.len()).min().unwrap_or_default();
        seen.least = least as f64 * clients as f64 / done as f64;
        seen.a_second.push(done as f64 / long.as_secs_f64());
        for (took, errors) in each {
            seen.took.extend(took);
            seen.errors += errors;
        }
    }

    fn count(file: &str) -> usize {
        let count: i64 = stored::table.count().get_result(&mut connect(file)).unwrap();
        usize::try_from(count).unwrap()
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn run(options: &Options) -> Result<(), String> {
        let database_of_one = database();
        let one = Mutex::new(connect(&database_of_one.url));
        let contenders: [Box<dyn Contender>; 4] = [
            Box::new(EachItsOwn(database())),
            Box::new(OneForAll(database_of_one, one)),
            Box::new(Jobs::new("executor", None)),
            Box::new(Jobs::new("executor, group commit", Some(GroupCommit::new()))),
        ];
        let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only));
        println!(
            "{:<10} {:<27} {:>9} {:>6}  {:>9} {:>9} {:>10} {:>11} {:>7}",
            "", "", "commits/s", "ratio", "p50", "p99", "max", "least/mean", "errors"
        );
        let mut missed = Vec::new();
        for clients in options.clients.iter().copied() {
            let mut seen: Vec<Seen> = contenders.iter().map(|_| Seen::default()).collect();
            for _ in 0..options.rounds {
                for (contender, seen) in contenders.iter().zip(&mut seen).filter(|(one, _)| wanted(one.name())) {
                    turn(&**contender, clients, options.turn, seen);
                }
            }
            let base = seen[BASE].a_second.clone();
            for (contender, seen) in contenders.iter().zip(&mut seen).filter(|(one, _)| wanted(one.name())) {
                seen.took.sort_unstable();
                let ratio = median(seen.a_second.iter().zip(&base).map(|(own, base)| own / base).collect());
                println!(
                    "{:<10} {:<27} {:>9.0} {ratio:>6.2}  {:>6.3} ms {:>6.2} ms {:>7.1} ms {:>11.2} {:>7}",
                    if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") },
                    contender.name(),
                    median(seen.a_second.clone()),
                    seen.at(500),
                    seen.at(990),
                    seen.at(1_000),
                    seen.least,
                    seen.errors
                );
                if contender.name().starts_with("executor") {
                    missed.extend(misses(contender.name(), clients, ratio, seen));
                }
            }
        }
        if options.check && !missed.is_empty() { Err(missed.join("\n")) } else { Ok(()) }
    }

    /// Which aims a contender missed.
    fn misses(name: &str, clients: usize, ratio: f64, seen: &Seen) -> Vec<String> {
        let mut missed = Vec::new();
        let is_grouped = name.contains("group");
        let at_least = match clients {
            64.. if is_grouped => 7.0,
            8.. if is_grouped => 2.5,
            1 => 0.9,
            _ => 0.0,
        };
        if ratio < at_least {
            missed.push(format!("{name}, {clients} client(s): {ratio:.2} of the mutex, not {at_least}"));
        }
        if seen.at(1_000) >= 50.0 {
            missed.push(format!("{name}, {clients} client(s): one waited {:.1} ms", seen.at(1_000)));
        }
        if seen.errors > 0 {
            missed.push(format!("{name}, {clients} client(s): {} error(s)", seen.errors));
        }
        missed
    }
}
