//! `-- --demo`: the service starts itself on a free port, real clients use and misuse it all at once, and every answer and
//! what the database holds afterwards is compared with what it should be.

mod client;
mod routes;
mod steps;
mod table;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diesel::prelude::*;
use tokio::sync::oneshot;

use crate::database::{self, NAME, Registry};
use crate::options::Options;
use crate::schema::{posts, users};
use crate::server::Server;
use crate::{in_words, say};
use steps::Steps;
use table::Table;

/// Short, because the demo waits for it where it uses every connection; long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(options: &Options) -> Result<(), String> {
    if options.pool_size < 2 {
        return Err("--demo needs --pool-size 2 or more: one session is left open while others are used".into());
    }
    // Without a database of the user's, SQLite has a temporary one, which goes when this function ends.
    let folder = tempfile::tempdir().map_err(in_words)?;
    let temporary = folder.path().join("demo.db").to_string_lossy().into_owned();
    let url = options.database.as_deref().unwrap_or(&temporary);

    let database = database::open(url, options.pool_size, PATIENCE).map_err(in_words)?;
    let registry = database.registry().clone();
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), database.clone()).map_err(in_words)?;
    let base = format!("http://{}", server.address().map_err(in_words)?);
    say(&format!("{NAME} with {} connections, served at {base}", options.pool_size));
    say("What the server says about a panic belongs to the demo.\n");

    // The server on a thread of its own; this one becomes the clients, and looks into the database beside them.
    let (stop, stopped) = oneshot::channel();
    let bad_handlers = routes::routes(&database);
    let serving = std::thread::spawn(move || server.run(bad_handlers, async { stopped.await.unwrap_or_default() }));

    let prefix = prefix();
    let mut table = Table::default();
    if let Err(error) =
        (Steps { base: &base, database: &database, registry: &registry, prefix: &prefix, table: &mut table }).run()
    {
        table.failed(error);
    }
    if let Err(error) = clean_up(&registry, &prefix) {
        table.failed(format!("cleaning up: {error}"));
    }
    // The receiver is gone only if the server ended by itself, and then joining tells why.
    let _ = stop.send(());
    match serving.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => table.failed(format!("stopping: {error}")),
        Err(_) => table.failed("the server panicked".into()),
    }
    let report = registry.inspect();
    let jobs = database.inspect();
    let left = format!(
        "{} jobs, {} open transactions, {} connections in use",
        jobs.queued() + jobs.running(),
        report.open_transactions().count(),
        report.connections.len()
    );
    table.row("the server stops", &[], &[], (left, "0 jobs, 0 open transactions, 0 connections in use".into()));

    for line in table.lines() {
        say(&line);
    }
    match table.differences() {
        [] => {
            say("demo: ok");
            Ok(())
        }
        differences => Err(format!("demo: not as expected\n  {}", differences.join("\n  "))),
    }
}

/// Belongs to this run alone.
fn prefix() -> String {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("demo-{}-{}", std::process::id(), since_epoch.as_millis())
}

/// Removes what a failed step left; after a good run there is nothing.
fn clean_up(registry: &Registry, prefix: &str) -> Result<(), diesel_session::Error> {
    let ours = users::table.filter(users::nickname.like(format!("{prefix}%")));
    let theirs = posts::table.filter(posts::user_id.eq_any(ours.clone().select(users::id)));
    registry.transaction(|session| {
        session.execute(diesel::delete(theirs))?;
        session.execute(diesel::delete(ours)).map(drop)
    })
}
