//! What other capabilities serve by HTTP, and what every request there has to show.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

use crate::services::http::credentials::{Answer, Unauthorized};
use crate::services::http::routes::Asker;

/// A page may use nothing but what comes from this server, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The headers of every response of a site.
const HEADERS: [(HeaderName, &str); 3] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
];

/// What other capabilities serve beside the metrics.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    /// What is shown to those who may read the metrics. Requests have a [`Caller`] among their extensions.
    pub(crate) guarded: Router,
    /// What holds nothing secret.
    pub(crate) open: Router,
}

/// Who has sent a request that is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Whether it may change something.
    pub(crate) may_act: bool,
    /// Whether it has shown anything.
    pub(crate) has_credentials: bool,
    /// Where it comes from; `None` for who came by a socket of this host.
    pub(crate) address: Option<IpAddr>,
}

/// What the guard needs.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) unauthorized: Unauthorized,
    /// The name of this host.
    pub(super) host: Arc<str>,
}

impl Sites {
    /// All of them, each behind what it needs.
    pub(super) fn behind(self, guard: Guard) -> Router {
        let Sites { guarded, open } = self;
        let guarded = match guarded.has_routes() {
            true => guarded.route_layer(from_fn_with_state(guard, check)),
            false => guarded,
        };
        open.merge(guarded).layer(map_response(with_headers))
    }
}

/// The response of a request that is refused or failed, as in RFC 9457.
pub(crate) fn problem(status: StatusCode, detail: impl AsRef<str>) -> Response {
    let title = status.canonical_reason().unwrap_or("error");
    let body = json!({
        "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail.as_ref(),
    });
    (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    response
}

/// Lets a request pass that may read, and notes whether it may act.
async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let Some(asker) = request.extensions().get::<Asker>().cloned() else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "nothing is known of who asks");
    };
    let headers = request.headers();
    if let Err(fault) = check_addressee(&asker, headers, request.method(), &guard.host) {
        return problem(StatusCode::FORBIDDEN, fault);
    }
    let answer = asker.check(headers).await;
    if let Some(refusal) = guard.unauthorized.refusal(answer, asker.access.challenges()) {
        let detail = match answer {
            Answer::Busy => "too many passwords are being checked; try again in a second",
            _ => "a token or a password is needed, the same as for /metrics, in the header Authorization",
        };
        let mut said = problem(refusal.status(), detail);
        for (name, value) in refusal.headers().iter().filter(|(name, _)| *name != CONTENT_TYPE) {
            said.headers_mut().append(name, value.clone());
        }
        return said;
    }
    let caller = Caller {
        may_act: asker.may_act(headers),
        has_credentials: headers.contains_key(AUTHORIZATION),
        address: asker.address,
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Refuses what a page of another site has a browser send. Who reads without showing anything must ask for this host by
/// an address or its name: a name that somebody else has pointed here makes their page a reader (DNS rebinding).
fn check_addressee(asker: &Asker, headers: &HeaderMap, method: &Method, own: &str) -> Result<(), String> {
    if asker.is_local {
        return Ok(());
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if asker.access.is_open() {
        let Some(host) = host else { return Err("the request has no readable header Host".to_owned()) };
        if !is_name_of(host, own) {
            return Err(format!(
                "the request is for the host `{}`, and without a token or passwords this server answers only for an \
                 IP address, localhost and {own}: ask for one of these, or give it --metrics-token-file",
                host.escape_debug()
            ));
        }
    }
    let is_act = !matches!(*method, Method::GET | Method::HEAD);
    match headers.get(ORIGIN).map(HeaderValue::to_str) {
        Some(origin) if is_act => {
            let authority = origin.ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
            if authority.is_some() && authority == host {
                return Ok(());
            }
            Err("the request comes from a page of another origin".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether a header `Host` names this host itself.
fn is_name_of(header: &str, own: &str) -> bool {
    let name = match header.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => header,
    };
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_address = inner.unwrap_or(name).parse::<IpAddr>().is_ok();
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    is_address || name == "localhost" || name.ends_with(".localhost") || name == own.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shows_nothing_is_answered_only_where_it_asks_for_this_host_itself() {
        let own = [
            "127.0.0.1:9843",
            "127.0.0.1",
            "[::1]:9843",
            "[::1]",
            "localhost:1",
            "a.localhost",
            "Web-1:80",
            "web-1.",
        ];
        let others = [
            "evil.example",
            "web-1.evil.example:9843",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
        ];
        assert_eq!(own.map(|host| is_name_of(host, "web-1")), [true; 8]);
        assert_eq!(others.map(|host| is_name_of(host, "web-1")), [false; 5]);
    }
}
