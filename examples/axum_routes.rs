//! Plain functions as routes: no `async`, no connection argument, and nothing about threads or transactions in them.
//!
//! The example serves a small phone book, drives it with real clients, stops it and looks at what is stored.
//!
//! `cargo run --example axum_routes --features axum`
#![allow(missing_docs, reason = "what diesel::table! makes has none")]
#![allow(clippy::print_stdout, reason = "it reports to its reader")]

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, Path};
use axum::http::StatusCode;
use axum::routing::{get, post};
use diesel::prelude::*;
use diesel_session::axum::Problem;
use diesel_session::{Executor, ScopedSession};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

mod support;
use support::{Conn, Database, check};

type Session = diesel_session::Session<Conn>;

diesel::table! {
    example_numbers (name) {
        name -> Text,
        number -> Text,
    }
}

// ---- what an application writes ----

#[derive(Deserialize, Insertable)]
#[diesel(table_name = example_numbers)]
struct Entry {
    name: String,
    number: String,
}

/// A name that is there already violates the primary key: `Problem` makes 409 of it.
fn add(Json(entry): Json<Entry>) -> Result<StatusCode, Problem> {
    Session::current()?.execute(diesel::insert_into(example_numbers::table).values(entry))?;
    Ok(StatusCode::CREATED)
}

/// All of them, or none: whatever fails undoes what came before it.
fn add_all(Json(entries): Json<Vec<Entry>>) -> Result<(StatusCode, String), Problem> {
    let session = Session::current()?;
    let mut added = 0;
    for entry in entries {
        if entry.number.is_empty() {
            // An answer of 400 or above is rolled back too.
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, format!("{} has no number", entry.name)));
        }
        added += session.execute(diesel::insert_into(example_numbers::table).values(entry))?;
    }
    Ok((StatusCode::CREATED, added.to_string()))
}

/// A name that is not there: 404.
fn find(Path(name): Path<String>) -> Result<String, Problem> {
    Ok(Session::current()?.first(example_numbers::table.find(name).select(example_numbers::number))?)
}

fn routes(executor: &Executor<Conn>) -> Router {
    Router::new()
        .route("/numbers", post(executor.handler(add)).put(executor.handler(add_all)))
        .route("/numbers/{name}", get(executor.read_handler(find)))
}

// ---- start, use, stop ----

fn main() -> Result<(), Box<dyn Error>> {
    let database = Database::open()?;
    let columns = "name VARCHAR(64) NOT NULL PRIMARY KEY, number VARCHAR(64) NOT NULL";
    let engine = database.engine("numbers", "example_numbers", columns, |builder| builder.max_size(4))?;
    let executor = Executor::new(ScopedSession::new(engine))?;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let base = format!("http://{}/numbers", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let router = routes(&executor);
    let server = runtime.spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(async { stopped.await.unwrap_or_default() }).await
    });

    let used = use_it(&base);
    // The server is gone only if it ended by itself, and then waiting for it tells why.
    let _ = stop.send(());
    runtime.block_on(server)??;
    executor.shutdown(Duration::from_secs(10))?;
    used?;

    let report = executor.inspect();
    println!("{report}");
    check("after the end no job waits or runs", (report.queued(), report.running()) == (0, 0))?;
    let names: Vec<String> = executor.registry().read(|session| {
        session.load(example_numbers::table.select(example_numbers::name).order(example_numbers::name))
    })?;
    println!("stored: {}", names.join(", "));
    check("what was answered with success is stored, and nothing else", names == ["ann", "bob", "cy", "dee"])
}

fn use_it(base: &str) -> Result<(), Box<dyn Error>> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let add = |name: &str| -> Result<u16, ureq::Error> {
        let answer = agent.post(base).send_json(serde_json::json!({ "name": name, "number": "555" }))?;
        Ok(answer.status().as_u16())
    };
    check("a name is added", add("ann")? == 201)?;
    check(
        "and is there for the next request",
        agent.get(format!("{base}/ann")).call()?.body_mut().read_to_string()? == "555",
    )?;
    check("a name that is not there is 404", agent.get(format!("{base}/zoe")).call()?.status() == 404)?;

    let together: Vec<_> = std::thread::scope(|threads| {
        let clients = [(); 4].map(|()| threads.spawn(|| add("bob").map_err(|error| error.to_string())));
        clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let mut statuses = Vec::new();
    for answer in together {
        statuses.push(answer.map_err(|_| "a client panicked")??);
    }
    statuses.sort_unstable();
    println!("four clients add the same name: {statuses:?}");
    check("one of them is told 201, the others 409", statuses == [201, 409, 409, 409])?;

    let put = |names: [(&str, &str); 2]| -> Result<u16, ureq::Error> {
        let entries = names.map(|(name, number)| serde_json::json!({ "name": name, "number": number }));
        Ok(agent.put(base).send_json(entries)?.status().as_u16())
    };
    check("two at once", put([("cy", "1"), ("dee", "2")])? == 201)?;
    check("a refused answer undoes what came before it", put([("eve", "1"), ("fay", "")])? == 422)?;
    check("and so does an error", put([("gil", "1"), ("ann", "2")])? == 409)
}
