//! Routes, and a server that stops gracefully.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Json;
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::database::Database;
use crate::error::ServiceError;
use crate::handlers::{posts, users};
use crate::layer::handler;

/// How long a stopping server waits for requests that are under way.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// The largest body of a request, in bytes.
const LARGEST_BODY: usize = 64 * 1024;

pub(crate) struct Server {
    runtime: Runtime,
    listener: TcpListener,
    database: Database,
}

impl Server {
    /// Takes the port; requests are answered once it [runs](Server::run).
    pub(crate) fn bind(address: SocketAddr, database: Database) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("users-service")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        Ok(Self { runtime, listener, database })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done; then takes no new connections, finishes the requests that are under way, ends the
    /// database threads and closes every connection. Runs on the calling thread, which belongs to no runtime.
    pub(crate) fn run(self, extra: Router, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), String> {
        let database = self.database;
        let router = routes(&database, extra);
        let served = self.runtime.block_on(async {
            let (stopping, mut is_stopping) = tokio::sync::watch::channel(());
            let serve = axum::serve(self.listener, router).with_graceful_shutdown(async move {
                stop.await;
                let _ = stopping.send(());
            });
            let too_late = async {
                // An error means that the server is gone, and then nobody waits for this.
                let _ = is_stopping.changed().await;
                tokio::time::sleep(LAST_REQUESTS).await;
            };
            tokio::select! {
                served = serve => served.map_err(|error| error.to_string()),
                () = too_late => Err(format!("requests were still under way after {LAST_REQUESTS:?}")),
            }
        });
        // Blocking threads, where there are any, end here, and what one of them left open is rolled back by its end. Only
        // dropping the runtime would wait for a stuck one for ever.
        self.runtime.shutdown_timeout(LAST_REQUESTS);
        let ended = database.shutdown(LAST_REQUESTS);
        let closed = database.registry().shutdown(LAST_REQUESTS);
        served.and(ended.and(closed).map_err(|error| error.to_string()))
    }
}

fn routes(database: &Database, extra: Router) -> Router {
    let user = get(handler(database, users::get))
        .put(handler(database, users::replace))
        .patch(handler(database, users::change))
        .delete(handler(database, users::delete));
    let post = get(handler(database, posts::get))
        .patch(handler(database, posts::change))
        .delete(handler(database, posts::delete));
    Router::new()
        .route("/users", get(handler(database, users::list)).post(handler(database, users::create)))
        .route("/users/{nickname}", user)
        .route("/users/{nickname}/posts", get(handler(database, posts::list)).post(handler(database, posts::create)))
        .route("/users/{nickname}/posts/{id}", post)
        .route("/health", get(health).with_state(database.clone()))
        .merge(extra)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
}

/// How sessions and database threads are doing. A snapshot of counts: no session, no database, so it may run on a worker
/// thread.
#[derive(Serialize)]
struct Health {
    open_transactions: usize,
    connections_in_use: usize,
    connections_at_most: usize,
    waiting: usize,
    leaked_sessions: u64,
    threads: Vec<Threads>,
}

/// One kind of database threads, and what they have done.
#[derive(Serialize)]
struct Threads {
    duty: &'static str,
    threads: usize,
    queued: usize,
    running: usize,
    succeeded: u64,
    failed: u64,
    cancelled: u64,
    refused: u64,
}

async fn health(State(database): State<Database>) -> Json<Health> {
    let report = database.registry().inspect();
    let lanes = database.inspect().lanes;
    Json(Health {
        open_transactions: report.open_transactions().count(),
        connections_in_use: report.connections.len(),
        connections_at_most: report.max_size,
        waiting: report.waiting,
        leaked_sessions: report.counters.leaks,
        threads: lanes
            .iter()
            .map(|lane| Threads {
                duty: lane.duty,
                threads: lane.threads,
                queued: lane.queued,
                running: lane.running.len(),
                succeeded: lane.succeeded,
                failed: lane.failed,
                cancelled: lane.cancelled,
                refused: lane.refused,
            })
            .collect(),
    })
}

async fn no_such_route(uri: Uri) -> ServiceError {
    ServiceError::Refused(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn no_such_method(method: Method, uri: Uri) -> ServiceError {
    ServiceError::Refused(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
