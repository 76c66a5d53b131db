//! This crate beside what one would take instead: the raw driver, Diesel as most write it, Diesel tuned by hand, SeaORM.
//!
//! They do the same work, take turns round by round in one process, and are compared by the ratio to the raw driver. What is
//! stored is checked after every turn; wrong data ends the program with an error. `--help` says how to run it.
//!
//! A round trip to a server on the same machine takes a multiple where the scheduler puts the two on different cores. The
//! committed figures of servers are of both on one: `taskset -acp 0 PID` for each of the server's processes, `taskset -c 0` for
//! this program.

// The contenders that know only Diesel are compiled once for each backend.
#![allow(clippy::duplicate_mod)]

use std::process::ExitCode;

use measure::{Measured, Plan};
use options::{Command, Options};
use work::{Arena, Fallible, Sizes, Work};

mod check;
#[path = "../../growth/machine.rs"]
mod machine;
mod measure;
#[path = "../../../tests/budgets/models.rs"]
mod models;
#[cfg(feature = "mysql")]
mod mysql;
mod options;
mod plot;
#[cfg(feature = "postgres")]
mod postgres;
mod records;
mod report;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
mod work;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Fallible {
    match options::parse()? {
        Command::Help => println!("{}", options::USAGE),
        Command::Plot { out, files } => {
            let saved = files.iter().map(|file| report::load(file)).collect::<Fallible<Vec<_>>>()?;
            std::fs::write(out, plot::svg(&saved)?)?;
        }
        Command::Measure(backend, options) => {
            let head = report::head(&backend, &version(&backend)?, &options)?;
            // Read first: it may be the file that is saved.
            let baseline = options.against.as_ref().map(|file| report::load(file)).transpose()?;
            if baseline.as_ref().is_some_and(|baseline| baseline.backend != backend) {
                return Err(format!("the figures to compare with are not those of {backend}").into());
            }
            print!("{head}");
            let rows = all(&backend, &options)?;
            let end = machine::load_average();
            println!("# load at the end: {end}");
            if let Some(file) = &options.save {
                report::save(file, &format!("{head}# load at the end: {end}\n"), &backend, &rows)?;
            }
            if let Some(baseline) = &baseline {
                print!("{}", report::against(baseline, &rows));
            }
        }
    }
    Ok(())
}

/// Measures every work that is asked for, and prints each as soon as it is done.
fn all(backend: &str, options: &Options) -> Fallible<Vec<Measured>> {
    let sizes = options.sizes();
    let plan = Plan { sizes, remote: backend != "sqlite" };
    println!("{}", report::TABLE_HEAD);
    let mut rows = Vec::new();
    for work in Work::ALL.into_iter().filter(|work| options.wants(*work)) {
        if work == Work::W1Full && plan.remote {
            continue;
        }
        // A database for each work: none begins with what another left behind.
        let mut arena = arena(backend, sizes, work)?;
        let measured = measure::measure(&mut *arena, work, plan, options)?;
        print!("{}", report::table(&measured));
        rows.extend(measured);
    }
    Ok(rows)
}

fn arena(backend: &str, sizes: Sizes, work: Work) -> Fallible<Box<dyn Arena>> {
    Ok(match backend {
        #[cfg(feature = "sqlite")]
        "sqlite" => Box::new(sqlite::Sqlite::new(sizes, work == Work::W1Full)?),
        #[cfg(feature = "postgres")]
        "postgres" => Box::new(postgres::Postgres::new(sizes)?),
        #[cfg(feature = "mysql")]
        "mysql" => Box::new(mysql::Mysql::new(sizes)?),
        other => return Err(format!("no backend {other} for {} here: is its feature on?", work.name()).into()),
    })
}

fn version(backend: &str) -> Fallible<String> {
    match backend {
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::version(),
        #[cfg(feature = "postgres")]
        "postgres" => postgres::version(),
        #[cfg(feature = "mysql")]
        "mysql" => mysql::version(),
        other => Err(format!("no backend {other} here: is its feature on?\n\n{}", options::USAGE).into()),
    }
}
