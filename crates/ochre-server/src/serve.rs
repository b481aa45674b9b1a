//! Listening, serving, and stopping without leaving anything half done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::http::Uri;
use axum::middleware::Next;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::app::App;
use crate::auth;
use crate::config::Config;
use crate::connections::{Connections, Guard};
use crate::extensions::Loaded;
use crate::layers;
use crate::openapi;
use crate::operations::{self, Permissions};
use crate::parameters::{self, QueryParameters};
use crate::routes;
use crate::routes::documentation::Document;
use crate::routes::unknown;
use crate::sending::{Patient, busy_until_sent};
use crate::tls::Tls;

/// A connection may be idle, or take to send the head of a request, this long: longer than load balancers
/// keep theirs, so that they never send into one that is just being closed.
const HEAD_PATIENCE: Duration = Duration::from_secs(120);
/// A TLS handshake has this long.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// The head of a request takes at most this many bytes.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// Serves a connection until it ends, or has to give way to others while it is idle.
async fn until_it_gives_way<E: std::fmt::Display>(guard: Guard, connection: impl Future<Output = Result<(), E>>) {
    tokio::select! {
        served = connection => if let Err(error) = served {
            tracing::debug!(%error, "a connection ended with an error");
        },
        () = guard.asked_to_end() => tracing::debug!("an idle connection gave way to a new one"),
    }
}

/// The whole service: extensions started, and routes in their layers. [`Server`] serves it; tests call it in process.
///
/// # Errors
/// An extension cannot be started: which, and why.
pub fn service(app: App, extensions: &Loaded) -> Result<Router, String> {
    extensions.connect(&app);
    for extension in extensions.api() {
        let started = extension.started(app.database());
        started.map_err(|failure| format!("extension '{}' cannot be started: {failure}", extension.name()))?;
    }
    let origins = app.config().server.cors_allow_origins.clone();
    let guard = auth::Guard::new(app.clone(), Permissions::of(extensions.api()), extensions.permissions());
    let guarded = axum::middleware::from_fn_with_state(guard, auth::guard);
    let checked = axum::middleware::from_fn_with_state(QueryParameters::of(extensions.api()), parameters::check);
    let counted = axum::middleware::from_fn_with_state(app.clone(), layers::count);
    let document = Document(openapi::document(extensions.api()).to_string().into());
    let own = extensions.api().iter().flat_map(|extension| Arc::clone(extension).operations());
    let paths: Vec<&str> =
        routes::descriptions().map(|own| own.path).chain(own.map(|own| own.description.path)).collect();
    let mut router = routes::router()
        .merge(operations::router(extensions.api()))
        .fallback(async move |uri: Uri| unknown::not_found(&uri, &paths))
        .layer(Extension(document))
        .layer(checked)
        .layer(guarded)
        .layer(counted)
        .layer(CompressionLayer::new())
        .layer(axum::middleware::from_fn(layers::no_local_compression));
    if !origins.is_empty() {
        let allow = if origins.iter().any(|origin| origin == "*") {
            AllowOrigin::any()
        } else {
            AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()))
        };
        router = router.layer(CorsLayer::new().allow_origin(allow).allow_methods(Any).allow_headers(Any));
    }
    let router = router
        .layer(axum::middleware::from_fn(layers::drain_body))
        .layer(axum::middleware::from_fn(layers::request_id))
        .with_state(app);
    // Around the whole, since routes are found by the path as it then is.
    Ok(Router::new().fallback_service(router).layer(axum::middleware::from_fn(unknown::without_slash_at_the_end)))
}

/// A server bound to its address.
pub struct Server {
    listener: TcpListener,
    tls: Option<Tls>,
}

impl Server {
    /// Binds the address of the configuration. Requests wait until [`Server::run`].
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub async fn bind(config: &Config) -> std::io::Result<Self> {
        let tls = Tls::new(config)?;
        let listener = TcpListener::bind((config.server.host.as_str(), config.server.port)).await?;
        Ok(Self { listener, tls })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Whether it speaks TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop` completes; then takes no new requests, finishes those in flight, as far as that takes no
    /// longer than `server.stop_timeout_ms`, and returns. `waiting` is told how many there are.
    ///
    /// # Errors
    /// An extension cannot be started: which, and why.
    pub async fn run(
        self, app: App, extensions: Loaded, stop: impl Future<Output = ()>, waiting: impl FnOnce(usize),
    ) -> Result<(), String> {
        let (arriving, patience) = (Arc::clone(app.arriving()), app.config().server.stop_timeout_ms);
        let router = service(app, &extensions)?;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(HEAD_BYTES_MAX);
        let graceful = GracefulShutdown::new();
        let connections = Connections::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let (stream, peer) = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file handles, most likely: wait for some to come back.
                        tracing::warn!(%error, "could not accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = &mut stop => break,
            };
            let _ = stream.set_nodelay(true);
            let guard = tokio::select! {
                guard = connections.enter() => guard,
                () = &mut stop => break,
            };
            let open = guard.open();
            let busy = axum::middleware::from_fn(move |request: Request, next: Next| {
                let busy = open.begin();
                async move { busy_until_sent(next.run(request).await, busy) }
            });
            let router = router.clone().layer(busy).layer(axum::Extension(ConnectInfo(peer)));
            let service = TowerToHyperService::new(router);
            let Some(acceptor) = self.tls.as_ref().map(Tls::acceptor) else {
                let watcher = graceful.watcher();
                let connection = http.serve_connection(TokioIo::new(Patient::new(stream)), service);
                tokio::spawn(until_it_gives_way(guard, watcher.watch(connection)));
                continue;
            };
            let (http, watcher) = (http.clone(), graceful.watcher());
            let connection = async move {
                match tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(Patient::new(stream))).await {
                    Ok(Ok(stream)) => {
                        let served = watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await;
                        served.map_err(|error| error.to_string())
                    }
                    Ok(Err(error)) => Err(format!("the TLS handshake failed: {error}")),
                    Err(_) => Err("the TLS handshake took too long".to_owned()),
                }
            };
            tokio::spawn(until_it_gives_way(guard, connection));
        }
        drop(self.listener);
        waiting(connections.busy());
        arriving.stop();
        extensions.api().iter().rev().for_each(|extension| extension.stopped());
        if tokio::time::timeout(Duration::from_millis(patience), graceful.shutdown()).await.is_err() {
            tracing::warn!(
                requests = connections.busy(),
                "some requests did not finish in time; unacknowledged writes may or may not have been kept"
            );
        }
        Ok(())
    }
}
