//! The HTTP server: `/metrics` for Prometheus, `/healthz` and `/readyz` for supervisors of the server.
//!
//! It runs on another thread than the beats. It queries the engine in slices, and every connection, request
//! and scrape is bounded.

use std::io;
use std::net::{SocketAddr, TcpListener as BoundListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::accept::{Listener, MakeRoom, accept};
use crate::base::error::Error;
use crate::base::logging;
use crate::base::silent_clients::{Client, SilentClients};
use crate::ingest::kernel_drops::KernelDrops;
use crate::services::context::Context;
use crate::services::http::access::Access;
use crate::services::http::connections::{Limits, StallGuard};
use crate::services::http::credentials::Unauthorized;
use crate::services::http::listener::Guarded;
use crate::services::http::metrics::ServerMetrics;
use crate::services::http::options::HttpOptions;
use crate::services::http::readers::{GRACE, Reader, Readers};
use crate::services::http::reload::{Place, Reload, bind_or_take, listen};
use crate::services::http::routes::{Asker, HttpContext, PING_WITHIN, refusals, routes};
use crate::services::http::sites::Sites;
use crate::services::http::tls::{self, HandshakeFailures, Opened};

/// The most bytes of the head of a request.
const MAX_HEAD_LEN: usize = 16 << 10;

/// The media type of answers that have no end.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

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

    /// Serves until all else has ended, with `sites` beside the metrics. `local` has the connections of users of this
    /// host who need not show anything.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch the socket.
    pub(crate) fn start(
        self,
        context: &mut Context,
        kernel_drops: KernelDrops,
        sites: Sites,
        local: mpsc::Receiver<UnixStream>,
    ) -> Result<(), Error> {
        let Http { listener, access, place } = self;
        access.warn();
        if let Some(socket) = listener {
            place.take(Some(listen(socket, access)?));
        }
        let listener = place.listener(local);
        let site = HttpContext {
            queries: context.queries.clone(),
            metrics: ServerMetrics::new(&context.registry, kernel_drops),
            handshake_failures: HandshakeFailures::new(&context.registry),
            unauthorized: Unauthorized::new(&context.registry),
            readers: Readers::new(&context.registry),
            clock: context.clock,
            faults: context.faults.clone(),
            host: Arc::clone(&context.host),
            log_lines_dropped: logging::lines_dropped,
        };
        let ends = Ends {
            stop: context.stop_last.clone(),
            is_handed_over: context.is_handed_over.clone(),
            last_answers: context.last_answers.clone(),
        };
        let limits = Limits::of(context.descriptors.connections);
        context.spawn_last("metrics endpoint", async move {
            serve(listener, site, limits, sites, ends).await;
            Ok(())
        });
        Ok(())
    }
}

/// How the endpoint ends.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    /// Cancelled when the server stops.
    pub(super) stop: CancellationToken,
    /// Cancelled when another server has taken over, which accepts connections from then on.
    pub(super) is_handed_over: CancellationToken,
    /// What this server still answers then.
    pub(super) last_answers: TaskTracker,
}

/// Serves until the server stops, and then gives responses in progress a short while; or until another server has
/// taken over: whoever was accepted before has its answer, and those who come wait for that server.
pub(super) async fn serve<L: Listener>(
    listener: L,
    site: HttpContext,
    limits: Limits,
    sites: Sites,
    ends: Ends,
) where
    L::Stream: Guarded + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (handshake_failures, readers) = (site.handshake_failures.clone(), site.readers.clone());
    let router = routes(site, &limits, sites);
    let warn = |error: &io::Error| {
        tracing::warn!(
            target: "varta::http",
            "cannot accept a connection for metrics: {error}; trying again"
        );
    };
    let clients = Clients { silent: SilentClients::default(), readers };
    let Ends { stop, is_handed_over, last_answers } = ends;
    let (is_over, cut) = (is_handed_over.child_token(), CancellationToken::new());
    let accepting = accept(&listener, limits.connections, &is_over, warn, &clients, |stream| {
        let deadline = Instant::now() + limits.head_within;
        let (access, peer, is_local) = (stream.access(), L::peer(&stream), stream.is_local());
        let tls = if is_local { None } else { access.tls() };
        let asker = Asker { access, address: peer.map(|peer| peer.ip()), is_local };
        let reader = Arc::new(clients.readers.enter());
        let stream = StallGuard::new(stream, limits.stalled_within, Arc::clone(&reader));
        let talk =
            Conversation { client: clients.silent.enter(), reader, deadline, stop: cut.clone(), asker };
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
                    talk.hold(stream, refusals()).await;
                }
                Err(fault) => failures.failed(&fault, peer),
            }
        }
    });
    let mut accepting = pin!(accepting);
    let connections = tokio::select! {
        biased;
        connections = &mut accepting => connections,
        () = stop.cancelled() => {
            is_over.cancel();
            if !is_handed_over.is_cancelled() {
                cut.cancel();
            }
            accepting.await
        }
    };
    if is_handed_over.is_cancelled() {
        last_answers.spawn(async move { connections.wait().await });
    } else {
        let _ = timeout(PING_WITHIN, connections.wait()).await;
    }
}

/// Those who have connections. For another, one ends that has said nothing for a while, else one that reads slowly,
/// else one that has said nothing yet.
struct Clients {
    silent: SilentClients,
    readers: Readers,
}

impl MakeRoom for Clients {
    async fn make_room(&self) {
        let Clients { silent, readers } = self;
        if silent.evict_oldest(GRACE).await {
            return readers.has_evicted_silent();
        }
        if readers.cut_slowest().await {
            return;
        }
        if silent.evict_oldest(Duration::ZERO).await {
            return readers.has_evicted_silent();
        }
        readers.make_room().await;
    }
}

/// A connection until its end.
struct Conversation {
    client: Client,
    reader: Arc<Reader>,
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
        let Conversation { client, reader, deadline, stop, asker } = self;
        let client = Arc::new(client);
        let (routes, asking, reading) =
            (TowerToHyperService::new(router), Arc::clone(&client), Arc::clone(&reader));
        let service = service_fn(move |mut request: Request<Incoming>| {
            asking.has_asked();
            reading.has_asked();
            request.extensions_mut().insert(asker.clone());
            let asked = Asked::of(&request);
            let answer = routes.call(request);
            let streaming = Arc::clone(&reading);
            async move {
                answer.await.inspect(|answer| {
                    if answer.headers().get(CONTENT_TYPE).is_some_and(|media| media == EVENT_STREAM) {
                        streaming.is_streaming();
                    }
                    asked.debug(answer.status());
                })
            }
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
            () = reader.cut() => return,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
    }
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
