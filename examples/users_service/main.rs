//! Users and their posts over HTTP: an async server at the edge, plain synchronous handlers that say `Session::current()` inside.
//!
//! `cargo run --example users_service` serves a SQLite file; `-- --help` shows the options. The same code serves
//! PostgreSQL or MySQL with `--no-default-features --features postgres` (or `mysql`).
//!
//! Where to read: `handlers.rs` is what an application writes, `layer.rs` what it needs once, `error.rs` turns errors into
//! answers, `database.rs` and `server.rs` start things. `demo.rs` drives it all with real clients and checks the answers.

mod database;
mod demo;
mod error;
mod handlers;
mod layer;
mod model;
mod options;
mod requests;
mod schema;
mod server;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use options::Options;
use server::Server;

/// How long a request waits for a database thread, and there for the write gate and a connection, before it is answered
/// with 503.
const PATIENCE: Duration = Duration::from_secs(5);
/// The command line can't be understood.
const BAD_OPTIONS: u8 = 2;

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            complain(&format!("{error}\nTry --help."));
            return ExitCode::from(BAD_OPTIONS);
        }
    };
    let result = match &options {
        Options { help: true, .. } => {
            say(&options::help());
            Ok(())
        }
        Options { demo: true, .. } => demo::run(&options),
        _ => serve(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), String> {
    let url = options.database.as_deref().unwrap_or_default();
    let database = database::open(url, options.pool_size, PATIENCE).map_err(in_words)?;
    let server = Server::bind(options.address, database)
        .map_err(|error| format!("can't listen on {}: {error}", options.address))?;
    say(&format!("listening on http://{}", server.address().map_err(in_words)?));
    server.run(axum::Router::new(), async {
        tokio::select! {
            () = interrupted() => {}
            () = terminated() => {}
        }
        say("stopping: no new connections, finishing the requests that are under way");
    })?;
    say("stopped: every transaction has ended, every connection is closed");
    Ok(())
}

/// Ctrl-C.
async fn interrupted() {
    // Without a handler for it there is nothing to wait for, and the process just ends on it.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// SIGTERM, by which service managers and containers stop a service.
async fn terminated() {
    #[cfg(unix)]
    if let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        signal.recv().await;
        return;
    }
    std::future::pending::<()>().await;
}

pub(crate) fn in_words(error: impl Display) -> String {
    error.to_string()
}

/// A line on standard output. Nobody reading it any more is no reason to die, as `println!` would.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "users_service: {line}");
}
