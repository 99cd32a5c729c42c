//! What each path is answered with.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::base::clock::Clock;
use crate::base::time::MonoTime;
use crate::engine::query::{Query, Slice};
use crate::metrics::agent_rows::{AgentMetrics, AgentRows};
use crate::metrics::faults::Faults;
use crate::metrics::openmetrics;
use crate::services::http::access::Access;
use crate::services::http::body::{Plain, compressed};
use crate::services::http::connections::Limits;
use crate::services::http::credentials::{Answer, Unauthorized};
use crate::services::http::metrics::ServerMetrics;
use crate::services::http::negotiation::{Format, wants_gzip};
use crate::services::http::readers::Readers;
use crate::services::http::scrapes::{Kind, Scrapes};
use crate::services::http::sites::{Guard, Sites};
use crate::services::http::tls::HandshakeFailures;

/// The longest time for the engine to answer `/readyz`.
pub(super) const PING_WITHIN: Duration = Duration::from_secs(1);

/// What the routes need.
pub(super) struct HttpContext {
    pub(super) queries: mpsc::Sender<Query>,
    pub(super) metrics: ServerMetrics,
    pub(super) handshake_failures: HandshakeFailures,
    pub(super) unauthorized: Unauthorized,
    pub(super) readers: Readers,
    pub(super) clock: Clock,
    pub(super) faults: Faults,
    /// The name of this host.
    pub(super) host: Arc<str>,
    /// Returns the number of log lines dropped so far.
    pub(super) log_lines_dropped: fn() -> u64,
}

struct HttpState {
    site: HttpContext,
    scrapes: Arc<Scrapes>,
}

/// All routes, with so many bodies of scrapes in memory.
pub(super) fn routes(site: HttpContext, limits: &Limits, sites: Sites) -> Router {
    let guard = Guard { unauthorized: site.unauthorized.clone(), host: Arc::clone(&site.host) };
    let scrapes = Arc::new(Scrapes::new(limits.scrapes, site.readers.clone()));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Arc::new(HttpState { site, scrapes }))
        .merge(sites.behind(guard))
}

/// What answers requests in plaintext where TLS is spoken.
pub(super) fn refusals() -> Router {
    Router::new().fallback(speaks_https)
}

async fn speaks_https() -> Response {
    (StatusCode::BAD_REQUEST, "this address speaks HTTPS, and the request came in plaintext\n")
        .into_response()
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    /// What its request must show.
    pub(super) access: Access,
    /// Where it comes from, where that is known.
    pub(super) address: Option<IpAddr>,
    /// Whether it came by the control socket, whose users may do everything.
    pub(super) is_local: bool,
}

impl Asker {
    /// Whether a request with these headers may read the metrics.
    pub(super) async fn check(&self, headers: &HeaderMap) -> Answer {
        if self.is_local {
            return Answer::Allowed;
        }
        self.access.check(headers, self.address).await
    }

    /// Whether a request with these headers may change something.
    pub(super) fn may_act(&self, headers: &HeaderMap) -> bool {
        self.is_local || self.access.may_act(headers)
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
    let kind = Kind {
        format: Format::wanted(&headers),
        is_compressed: wants_gzip(&headers),
        agents: access.agent_metrics(),
    };
    let expiry = access.certificate_expiry();
    let making = Arc::clone(&shared);
    let body = shared.scrapes.get(kind, || async move { body(&making.site, kind, expiry).await }).await;
    let Some(body) = body else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n").into_response();
    };
    let head = [(CONTENT_TYPE, kind.format.content_type()), (VARY, "Accept, Accept-Encoding")];
    let body = Body::new(Plain { pieces: body.iter().cloned().collect() });
    match kind.is_compressed {
        true => (head, [(CONTENT_ENCODING, "gzip")], body).into_response(),
        false => (head, body).into_response(),
    }
}

/// Makes the body of a scrape. `None` when the engine has ended.
async fn body(site: &HttpContext, kind: Kind, certificate_expiry: f64) -> Option<Vec<Bytes>> {
    let Kind { format, is_compressed, agents } = kind;
    let rows = collect_rows(&site.queries, agents).await?;
    let omitted = rows.omitted();
    let uptime = site.clock.now() - MonoTime::START;
    let families = site.metrics.render(uptime, omitted, (site.log_lines_dropped)(), certificate_expiry);
    let pieces: VecDeque<Bytes> = match format {
        Format::Text => std::iter::once(Bytes::from(families)).chain(rows.into_pieces()).collect(),
        Format::OpenMetrics => {
            let families = Bytes::from(openmetrics::rewrite(&families));
            let rows = rows.into_pieces().flat_map(|family| openmetrics::rewrite_rows(&family));
            std::iter::once(families).chain(rows).chain([Bytes::from(openmetrics::END)]).collect()
        }
    };
    tracing::trace!(
        target: "varta::http",
        "a scrape has {} bytes in {} pieces, {format:?}{}; {omitted} agents have no rows",
        pieces.iter().map(Bytes::len).sum::<usize>(),
        pieces.len(),
        if is_compressed { ", and is compressed" } else { "" }
    );
    Some(if is_compressed { compressed(pieces).await } else { pieces.into() })
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
