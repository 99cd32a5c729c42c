//! The HTTP server: `/metrics` for Prometheus, `/healthz` and `/readyz` for supervisors of the server.
//!
//! It runs on another thread than the beats. It queries the engine in slices, and every connection, request
//! and scrape is bounded.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as BoundListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::accept::{Listener, accept};
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::logging;
use crate::base::silent_clients::{Client, SilentClients};
use crate::base::time::MonoTime;
use crate::engine::query::{Query, Slice};
use crate::ingest::kernel_drops::KernelDrops;
use crate::metrics::agent_rows::{AgentMetrics, AgentRows};
use crate::metrics::faults::Faults;
use crate::metrics::openmetrics;
use crate::services::context::Context;
use crate::services::http::access::Access;
use crate::services::http::body::{Gzip, InSteps, Plain};
use crate::services::http::connections::{Limits, ScrapePlaces, StallGuard};
use crate::services::http::credentials::{Answer, Unauthorized};
use crate::services::http::listener::Guarded;
use crate::services::http::metrics::ServerMetrics;
use crate::services::http::negotiation::{Format, wants_gzip};
use crate::services::http::options::HttpOptions;
use crate::services::http::reload::{Place, Reload, bind_or_take, listen};
use crate::services::http::tls::{self, HandshakeFailures, Opened};

/// The longest time for the engine to answer `/readyz`.
const PING_WITHIN: Duration = Duration::from_secs(1);
/// The most bytes of the head of a request.
const MAX_HEAD_LEN: usize = 16 << 10;

/// The capability before it runs: a bound socket, or none.
#[derive(Debug)]
pub(crate) struct Http {
    listener: Option<BoundListener>,
    access: Access,
    place: Place,
}

impl Http {
    /// Takes the address, if there is one.
    ///
    /// # Errors
    ///
    /// When it cannot be had.
    pub(crate) fn open(options: HttpOptions, context: &Context) -> Result<Self, Error> {
        let address = options.address;
        let listener = address.map(|address| bind_or_take(address, &context.given)).transpose()?;
        Ok(Http { listener, access: Access::new(options.into()), place: Place::new(address) })
    }

    /// Where it is served, with the port that was picked if 0 was asked for.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The way to change it while it runs.
    pub(crate) fn reload(&self) -> Reload {
        Reload(self.place.clone())
    }

    /// Serves until all else has ended.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch the socket.
    pub(crate) fn start(self, context: &mut Context, kernel_drops: KernelDrops) -> Result<(), Error> {
        let Http { listener, access, place } = self;
        access.warn();
        if let Some(socket) = listener {
            place.take(Some(listen(socket, access)?));
        }
        let listener = place.listener();
        let site = HttpContext {
            queries: context.queries.clone(),
            metrics: ServerMetrics::new(&context.registry, kernel_drops),
            handshake_failures: HandshakeFailures::new(&context.registry),
            unauthorized: Unauthorized::new(&context.registry),
            clock: context.clock,
            faults: context.faults.clone(),
            log_lines_dropped: logging::lines_dropped,
        };
        let stop = context.stop_last.clone();
        let limits = Limits::of(context.descriptors.connections);
        context.spawn_last("metrics endpoint", async move {
            serve(listener, site, limits, stop).await;
            Ok(())
        });
        Ok(())
    }
}

/// What the routes need.
pub(super) struct HttpContext {
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) metrics: ServerMetrics,
    pub(super) handshake_failures: HandshakeFailures,
    pub(super) unauthorized: Unauthorized,
    pub(super) clock: Clock,
    pub(super) faults: Faults,
    /// Returns the number of log lines dropped so far.
    pub(super) log_lines_dropped: fn() -> u64,
}

struct HttpState {
    site: HttpContext,
    scrapes: ScrapePlaces,
}

/// Serves until `stop` is cancelled, then gives responses in progress a short while.
pub(super) async fn serve<L: Listener>(
    listener: L,
    site: HttpContext,
    limits: Limits,
    stop: CancellationToken,
) where
    L::Stream: Guarded + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let scrapes = ScrapePlaces::new(&limits);
    let handshake_failures = site.handshake_failures.clone();
    let shared = Arc::new(HttpState { site, scrapes: scrapes.clone() });
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
    let silent = SilentClients::default();
    let make_room = || silent.evict_oldest();
    let connections = accept(&listener, limits.connections, &stop, warn, make_room, |stream| {
        let deadline = Instant::now() + limits.head_within;
        let (access, peer) = (stream.access(), L::peer(&stream));
        let tls = access.tls();
        let asker = Asker { access, address: peer.map(|peer| peer.ip()) };
        let talk = Conversation { client: silent.enter(), deadline, stop: stop.clone(), asker };
        let stream = StallGuard::new(stream, limits, scrapes.clone());
        let (router, failures) = (router.clone(), handshake_failures.clone());
        async move {
            let Some(config) = tls else { return talk.hold(stream, router).await };
            let opened = tokio::select! {
                opened = tls::open(stream, config, deadline) => opened,
                () = talk.client.evicted() => return,
                () = talk.stop.cancelled() => return,
            };
            match opened {
                Ok(Opened::Tls(stream)) => talk.hold(stream, router).await,
                Ok(Opened::Plain(stream)) => {
                    failures.plaintext();
                    talk.hold(stream, Router::new().fallback(speaks_https)).await;
                }
                Err(fault) => failures.failed(&fault, peer),
            }
        }
    })
    .await;
    let _ = timeout(PING_WITHIN, connections.wait()).await;
}

/// The answer to a request in plaintext where TLS is spoken.
async fn speaks_https() -> Response {
    (StatusCode::BAD_REQUEST, "this address speaks HTTPS, and the request came in plaintext\n")
        .into_response()
}

/// Who sends a request.
#[derive(Clone, Debug)]
struct Asker {
    /// What its request must show.
    access: Access,
    address: Option<IpAddr>,
}

impl Asker {
    /// Whether a request with these headers may read the metrics.
    async fn check(&self, headers: &HeaderMap) -> Answer {
        self.access.check(headers, self.address).await
    }
}

/// A connection until its end.
struct Conversation {
    client: Client,
    /// By when the client has to send the head of its request.
    deadline: Instant,
    stop: CancellationToken,
    asker: Asker,
}

impl Conversation {
    /// Answers one request.
    async fn hold<S>(self, stream: S, router: Router)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Conversation { client, deadline, stop, asker } = self;
        let client = Arc::new(client);
        let (routes, asking) = (TowerToHyperService::new(router), Arc::clone(&client));
        let service = service_fn(move |mut request: Request<Incoming>| {
            asking.has_asked();
            request.extensions_mut().insert(asker.clone());
            let asked = Asked::of(&request);
            let answer = routes.call(request);
            async move { answer.await.inspect(|answer| asked.debug(answer.status())) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(deadline.saturating_duration_since(Instant::now()))
            .keep_alive(false)
            // A client may close its sending direction before it has the response.
            .half_close(true)
            .max_buf_size(MAX_HEAD_LEN)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // Errors of a single client are not logged: hyper has answered as far as possible.
        let _ = tokio::select! {
            served = connection.as_mut() => served,
            () = client.evicted() => return,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
    }
}

async fn ready(
    State(shared): State<Arc<HttpState>>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
) -> Response {
    let (answer, answered) = oneshot::channel();
    let ping = async {
        shared.site.queries.send(Query::Ping(answer)).await.ok()?;
        answered.await.ok()
    };
    match timeout(PING_WITHIN, ping).await {
        Ok(Some(())) => {
            // Names of files are for those who may read the metrics.
            let is_allowed = asker.check(&headers).await == Answer::Allowed;
            let (is_ready, faults) = shared.site.faults.report(is_allowed);
            let (status, said) = match is_ready {
                true => (StatusCode::OK, "ready"),
                false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
            };
            (status, format!("{said}\n{faults}")).into_response()
        }
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: the server is stopping\n").into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready: the tracker has not answered for a second\n")
            .into_response(),
    }
}

async fn metrics(
    State(shared): State<Arc<HttpState>>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
) -> Response {
    let (answer, access) = (asker.check(&headers).await, &asker.access);
    if let Some(refusal) = shared.site.unauthorized.refusal(answer, access.challenges()) {
        return refusal;
    }
    let Some(place) = shared.scrapes.take().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n").into_response();
    };
    let Some(rows) = collect_rows(&shared.site.queries, access.agent_metrics()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n").into_response();
    };
    let HttpContext { clock, log_lines_dropped, .. } = &shared.site;
    let omitted = rows.omitted();
    let expiry = access.certificate_expiry();
    let families =
        shared.site.metrics.render(clock.now() - MonoTime::START, omitted, log_lines_dropped(), expiry);
    let format = Format::wanted(&headers);
    let pieces: VecDeque<Bytes> = match format {
        Format::Text => std::iter::once(Bytes::from(families)).chain(rows.into_pieces()).collect(),
        Format::OpenMetrics => {
            let families = Bytes::from(openmetrics::rewrite(&families));
            let rows = rows.into_pieces().flat_map(|family| openmetrics::rewrite_rows(&family));
            std::iter::once(families).chain(rows).chain([Bytes::from(openmetrics::END)]).collect()
        }
    };
    let is_compressed = wants_gzip(&headers);
    tracing::trace!(
        target: "varta::http",
        "a scrape has {} bytes in {} pieces, {format:?}{}; {omitted} agents have no rows",
        pieces.iter().map(Bytes::len).sum::<usize>(),
        pieces.len(),
        if is_compressed { ", and is compressed" } else { "" }
    );
    let head = [(CONTENT_TYPE, format.content_type()), (VARY, "Accept, Accept-Encoding")];
    if is_compressed {
        let body = InSteps::new(place.hold_for(Gzip::new(pieces)));
        return (head, [(CONTENT_ENCODING, "gzip")], Body::new(body)).into_response();
    }
    (head, Body::new(Plain { pieces: place.hold_for(pieces.into_iter()).collect() })).into_response()
}

/// A request as it is told to who looks into it, if anybody does.
struct Asked(Option<(String, Instant)>);

impl Asked {
    fn of<B>(request: &Request<B>) -> Self {
        let is_wanted = tracing::enabled!(target: "varta::http", tracing::Level::DEBUG);
        // Without its query, which may have secrets in it.
        let line = || format!("{} {}", request.method(), request.uri().path().escape_debug());
        Asked(is_wanted.then(|| (line(), Instant::now())))
    }

    fn debug(self, status: StatusCode) {
        let Some((line, since)) = self.0 else { return };
        let (status, took) = (status.as_u16(), since.elapsed());
        tracing::debug!(target: "varta::http", request = line, status, "{line}: {status} after {took:.3?}");
    }
}

/// Collects the series of all agents from the engine, a slice at a time. `None` when the engine has ended.
async fn collect_rows(queries: &mpsc::Sender<Query>, which: AgentMetrics) -> Option<Box<AgentRows>> {
    let (answer, answered) = oneshot::channel();
    queries.send(Query::StartRows { which, answer }).await.ok()?;
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
