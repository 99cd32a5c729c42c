//! The HTTP server: `/metrics` for Prometheus, `/healthz` and `/readyz` for supervisors of the server.
//!
//! It runs on another thread than the beats. It queries the engine in slices, and every connection, request
//! and scrape is bounded.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as BoundListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::base::accept::accept;
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::logging;
use crate::base::secret::Secret;
use crate::base::time::MonoTime;
use crate::engine::query::{Query, Slice};
use crate::ingest::kernel_drops::KernelDrops;
use crate::metrics::agent_rows::{AgentMetrics, AgentRows};
use crate::services::context::Context;
use crate::services::http::metrics::ServerMetrics;
use crate::services::http::options::HttpOptions;

/// The content type with its version, without which Prometheus 3 refuses the scrape.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The most connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// The most scrapes at once: each may hold the series of many agents in memory.
const SCRAPES: usize = 4;
/// The longest time for a client to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The longest duration of a connection. Each serves one request, so this ends only those of slow readers.
const CONNECTION_WITHIN: Duration = Duration::from_secs(30);
/// The longest time for the engine to answer `/readyz`.
const PING_WITHIN: Duration = Duration::from_secs(1);

/// The capability before it runs: a bound socket, or none.
#[derive(Debug)]
pub(crate) struct Http {
    listener: Option<BoundListener>,
    options: HttpOptions,
}

impl Http {
    /// Takes the address, if there is one.
    ///
    /// # Errors
    ///
    /// When it cannot be had.
    pub(crate) fn open(options: HttpOptions) -> Result<Self, Error> {
        Ok(Http { listener: options.address.map(bind).transpose()?, options })
    }

    /// Where it is served, with the port that was picked if 0 was asked for.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until all else has ended.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch the socket.
    pub(crate) fn start(self, context: &mut Context, kernel_drops: KernelDrops) -> Result<(), Error> {
        let Http { listener: Some(listener), options } = self else { return Ok(()) };
        let listener = TcpListener::from_std(listener)
            .map_err(|source| Error::Runtime { action: "watch the metrics socket", source })?;
        let site = HttpContext {
            queries: context.queries.clone(),
            metrics: ServerMetrics::new(&context.registry, kernel_drops),
            token: options.token,
            agent_metrics: options.agent_metrics,
            clock: context.clock,
            log_lines_dropped: logging::lines_dropped,
        };
        let stop = context.stop_last.clone();
        context.spawn_last("metrics endpoint", async {
            serve(listener, site, stop).await;
            Ok(())
        });
        Ok(())
    }
}

fn bind(address: SocketAddr) -> Result<BoundListener, Error> {
    let failed = |source| Error::MetricsAddress { address, source };
    let listener = BoundListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// What the routes need.
struct HttpContext {
    queries: mpsc::Sender<Query>,
    metrics: ServerMetrics,
    token: Option<Secret>,
    agent_metrics: AgentMetrics,
    clock: Clock,
    /// Returns the number of log lines dropped so far.
    log_lines_dropped: fn() -> u64,
}

struct HttpState {
    site: HttpContext,
    scrapes: Arc<Semaphore>,
}

/// Serves until `stop` is cancelled, then gives responses in progress a short while.
async fn serve(listener: TcpListener, site: HttpContext, stop: CancellationToken) {
    let shared = Arc::new(HttpState { site, scrapes: Arc::new(Semaphore::new(SCRAPES)) });
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(shared);
    let warn = |error: &io::Error| {
        tracing::warn!(
            target: "varta::http",
            "cannot accept a connection for metrics: {error}; trying again"
        );
    };
    let connections = accept(&listener, CONNECTIONS, &stop, warn, |stream| {
        let (router, stop) = (router.clone(), stop.clone());
        async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .keep_alive(false)
                // A client may close its sending direction before it has the response.
                .half_close(true)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            let mut connection = std::pin::pin!(connection);
            // Errors of a single client are not logged: hyper has answered as far as possible.
            let _ = timeout(CONNECTION_WITHIN, async {
                tokio::select! {
                    served = connection.as_mut() => served,
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            })
            .await;
        }
    })
    .await;
    let _ = timeout(PING_WITHIN, connections.wait()).await;
}

async fn ready(State(shared): State<Arc<HttpState>>) -> Response {
    let (answer, answered) = oneshot::channel();
    let ping = async {
        shared.site.queries.send(Query::Ping(answer)).await.ok()?;
        answered.await.ok()
    };
    match timeout(PING_WITHIN, ping).await {
        Ok(Some(())) => "ready\n".into_response(),
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: the server is stopping\n").into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: the tracker has not answered for a second\n")
            .into_response(),
    }
}

async fn metrics(State(shared): State<Arc<HttpState>>, headers: HeaderMap) -> Response {
    if let Some(token) = &shared.site.token {
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if !shown.is_some_and(|shown| token.matches(shown)) {
            let challenge = [(WWW_AUTHENTICATE, "Bearer")];
            return (StatusCode::UNAUTHORIZED, challenge, "a bearer token is needed\n").into_response();
        }
    }
    let Ok(place) = Arc::clone(&shared.scrapes).acquire_owned().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let Some(rows) = collect_rows(&shared.site).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n").into_response();
    };
    let HttpContext { clock, log_lines_dropped, .. } = &shared.site;
    let families =
        shared.site.metrics.render(clock.now() - MonoTime::START, rows.omitted(), log_lines_dropped());
    let pieces = std::iter::once(Bytes::from(families)).chain(rows.into_pieces()).collect();
    ([(CONTENT_TYPE, TEXT_FORMAT)], Body::new(BodyChunks { pieces, _place: place })).into_response()
}

/// Collects the series of all agents from the engine, a slice at a time. `None` when the engine has ended.
async fn collect_rows(site: &HttpContext) -> Option<Box<AgentRows>> {
    let HttpContext { queries, agent_metrics: which, .. } = site;
    let (answer, answered) = oneshot::channel();
    queries.send(Query::StartRows { which: *which, answer }).await.ok()?;
    let mut rows = answered.await.ok()?;
    let mut from = 0;
    loop {
        let (answer, answered) = oneshot::channel();
        queries.send(Query::AddRows { rows, from, answer }).await.ok()?;
        let Slice { rows: more, next } = answered.await.ok()?;
        rows = more;
        match next {
            Some(next) => from = next,
            None => return Some(rows),
        }
    }
}

/// A response body of separate chunks, which are not copied into one.
struct BodyChunks {
    pieces: VecDeque<Bytes>,
    /// Held until the client has read everything: the permit bounds the memory, not the work.
    _place: OwnedSemaphorePermit,
}

impl HttpBody for BodyChunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum())
    }
}
