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

use crate::database::Registry;
use crate::error::ServiceError;
use crate::handlers::{posts, users};
use crate::layer::Layer;

/// How long a stopping server waits for requests that are under way.
const LAST_REQUESTS: Duration = Duration::from_secs(10);
/// Blocking threads for each connection: some requests wait for the write gate or spend time outside the database.
const THREADS_PER_CONNECTION: usize = 4;
/// The largest body of a request, in bytes.
const LARGEST_BODY: usize = 64 * 1024;

pub(crate) struct Server {
    runtime: Runtime,
    listener: TcpListener,
    layer: Layer,
}

impl Server {
    /// Takes the port; requests are answered once it [runs](Server::run). `patience` is how long one waits for a thread.
    pub(crate) fn bind(address: SocketAddr, registry: Registry, patience: Duration) -> io::Result<Self> {
        let threads = registry.engine().max_size() * THREADS_PER_CONNECTION;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(threads)
            .thread_name("users-service")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        Ok(Self { runtime, listener, layer: Layer::new(registry, threads, patience) })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(crate) fn layer(&self) -> &Layer {
        &self.layer
    }

    /// Serves until `stop` is done; then takes no new connections, finishes the requests that are under way, ends the
    /// blocking threads and shuts the registry down. Runs on the calling thread, which belongs to no runtime.
    pub(crate) fn run(self, extra: Router, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), String> {
        let registry = self.layer.registry().clone();
        let router = routes(&self.layer, extra);
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
        // The blocking threads end here, and what one of them left open is rolled back by its end. Only dropping the
        // runtime would wait for a stuck handler for ever.
        self.runtime.shutdown_timeout(LAST_REQUESTS);
        served.and(registry.shutdown(LAST_REQUESTS).map_err(|error| error.to_string()))
    }
}

fn routes(layer: &Layer, extra: Router) -> Router {
    let user = get(layer.handler(users::get))
        .put(layer.handler(users::replace))
        .patch(layer.handler(users::change))
        .delete(layer.handler(users::delete));
    let post = get(layer.handler(posts::get)).patch(layer.handler(posts::change)).delete(layer.handler(posts::delete));
    Router::new()
        .route("/users", get(layer.handler(users::list)).post(layer.handler(users::create)))
        .route("/users/{nickname}", user)
        .route("/users/{nickname}/posts", get(layer.handler(posts::list)).post(layer.handler(posts::create)))
        .route("/users/{nickname}/posts/{id}", post)
        .route("/health", get(health).with_state(layer.registry().clone()))
        .merge(extra)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
}

/// How the registry is doing. A snapshot of counts: no session, no database, so it may run on a worker thread.
#[derive(Serialize)]
struct Health {
    open_transactions: usize,
    connections_in_use: usize,
    connections_at_most: usize,
    waiting: usize,
    leaked_sessions: u64,
}

async fn health(State(registry): State<Registry>) -> Json<Health> {
    let report = registry.inspect();
    Json(Health {
        open_transactions: report.open_transactions().count(),
        connections_in_use: report.connections.len(),
        connections_at_most: report.max_size,
        waiting: report.waiting,
        leaked_sessions: report.counters.leaks,
    })
}

async fn no_such_route(uri: Uri) -> ServiceError {
    ServiceError::Refused(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn no_such_method(method: Method, uri: Uri) -> ServiceError {
    ServiceError::Refused(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
