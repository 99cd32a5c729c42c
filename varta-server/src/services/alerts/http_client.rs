//! The HTTP client of all destinations, its limits, and what a response means for a retry.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect;
use reqwest::{Client, Response, StatusCode};
use rustls::pki_types::CertificateDer;

use crate::base::backoff::{MAX_DELAY, MIN_DELAY};
use crate::base::error::Error;
use crate::base::files::certificates;
use crate::base::time::WallTime;
use crate::services::alerts::url::AlertUrl;

/// The timeout of a connection attempt.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The timeout of a whole exchange.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The most bytes read from a response: its body matters only for the reason of a refusal.
const MAX_ANSWER_LEN: usize = 16 << 10;
/// The most characters of a reason in the log.
const MAX_REASON_LEN: usize = 200;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::services) struct Answer {
    pub(in crate::services) result: DeliveryResult,
    /// What the receiver's clock showed, in whole seconds, if it told.
    pub(super) date: Option<WallTime>,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::services) enum DeliveryResult {
    /// Status 2xx.
    Taken,
    /// A status that a repeat would not change, with the reason.
    Refused(String),
    /// A temporary failure, with its reason and the delay that `Retry-After` asks for.
    Failed(String, Option<Duration>),
}

/// What became of it, as the end of a sentence.
impl fmt::Display for DeliveryResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeliveryResult::Taken => f.write_str("taken"),
            DeliveryResult::Refused(reason) => write!(f, "refused: {reason}"),
            DeliveryResult::Failed(reason, _) => write!(f, "not taken: {reason}"),
        }
    }
}

/// Builds the client. `ca_option` is the option that gave the file. The certificates of the host are loaded only if a destination needs them.
///
/// # Errors
///
/// A file of certificates that cannot be used, or TLS that cannot be set up.
pub(in crate::services) fn client(
    ca_file: Option<&Path>,
    ca_option: &str,
    needs_tls: bool,
) -> Result<Client, Error> {
    let failed = |error: &dyn std::error::Error| Error::Runtime {
        action: "set up the client for HTTP",
        source: std::io::Error::other(chain(error)),
    };
    let mut roots = rustls::RootCertStore::empty();
    if needs_tls {
        let found = rustls_native_certs::load_native_certs();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        if taken == 0 && ca_file.is_none() {
            tracing::warn!(
                target: "varta::alerts",
                "this host has no certificates of authorities, so nothing can be sent over https; install its package of \
                 them (ca-certificates), or give {ca_option}"
            );
        }
    }
    if let Some(path) = ca_file {
        let refused = |fault: String| Error::configuration_file(path, format!("{fault}; see {ca_option}"));
        for certificate in certificates::read(path).map_err(refused)? {
            roots
                .add(certificate)
                .map_err(|error| refused(format!("one of its certificates cannot be used: {error}")))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("varta-server/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_WITHIN)
        .timeout(ANSWER_WITHIN)
        // Only the configured host is contacted, none that a response redirects to.
        .redirect(redirect::Policy::none())
        .pool_max_idle_per_host(1)
        .build()
        .map_err(|error| failed(&error))
}

/// The certificates of authorities in a file.
///
/// # Errors
///
/// A file that cannot be used.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    read_authorities(path, "--alert-ca-file")
}

/// Checks that the certificates in a file can be read. `option` names the file.
///
/// # Errors
///
/// A file that cannot be used.
pub(in crate::services) fn check_certificates(path: &Path, option: &str) -> Result<(), Error> {
    read_authorities(path, option).map(drop)
}

fn read_authorities(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    certificates::read(path)
        .map_err(|fault| Error::configuration_file(path, format!("{fault}; see {option}")))
}

/// The type of JSON.
pub(super) const JSON: &str = "application/json";

/// Posts a body, and classifies the response.
pub(in crate::services) async fn post(
    client: &Client,
    url: &AlertUrl,
    content_type: &'static str,
    headers: HeaderMap,
    body: String,
) -> Answer {
    let bytes = body.len();
    let request = client
        .post(url.get().clone())
        .header(CONTENT_TYPE, HeaderValue::from_static(content_type))
        .headers(headers)
        .body(body);
    let answer = match request.send().await {
        Ok(response) => judge(response).await,
        // Without the URL the error has no secrets in it.
        Err(error) => {
            Answer { result: DeliveryResult::Failed(chain(&error.without_url()), None), date: None }
        }
    };
    tracing::debug!(target: "varta::alerts", bytes, "{url}: {bytes} bytes are {}", answer.result);
    answer
}

async fn judge(response: Response) -> Answer {
    let status = response.status();
    let date = response.headers().get(DATE).and_then(moment);
    let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
    let said = beginning(response).await;
    if status.is_success() {
        return Answer { result: DeliveryResult::Taken, date };
    }
    let reason = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    let may_pass = status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let result =
        if may_pass { DeliveryResult::Failed(reason, retry_after) } else { DeliveryResult::Refused(reason) };
    Answer { result, date }
}

/// The moment of a `Date`; `None` for one that is none.
fn moment(value: &HeaderValue) -> Option<WallTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok().map(WallTime::from)
}

/// The seconds of `Retry-After` within bounds; `None` for its other form, a date (RFC 9110, section 10.2.3).
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(MIN_DELAY, MAX_DELAY))
}

/// The beginning of the body, as one line for the log.
async fn beginning(mut response: Response) -> String {
    let mut said = Vec::new();
    // Unread data closes the connection. An error while reading does not change the status.
    while let Ok(Some(chunk)) = response.chunk().await {
        said.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER_LEN - said.len())]);
        if said.len() >= MAX_ANSWER_LEN {
            break;
        }
    }
    let text = String::from_utf8_lossy(&said);
    let line: String = text.chars().take(MAX_REASON_LEN).collect();
    line.trim().escape_debug().to_string()
}

/// An error with all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_believed_within_bounds() {
        let of = |text| seconds(&HeaderValue::from_static(text));
        assert_eq!(of("3"), Some(Duration::from_secs(3)));
        assert_eq!(of("86400"), Some(MAX_DELAY));
        assert_eq!(of("0"), Some(MIN_DELAY));
        assert_eq!((of("-1"), of("soon"), of("Fri, 31 Dec 1999 23:59:59 GMT")), (None, None, None));
    }

    #[test]
    fn a_date_is_read_and_what_is_none_tells_nothing() {
        let of = |text| moment(&HeaderValue::from_static(text));
        let read = of("Fri, 15 Jan 2027 08:00:00 GMT").unwrap();
        assert_eq!(read.to_string(), "2027-01-15T08:00:00.000Z");
        assert_eq!((of("soon"), of(""), of("Fri, 99 Jan 2027 08:00:00 GMT")), (None, None, None));
    }

    #[test]
    fn a_pipe_in_place_of_certificates_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let refused = client(Some(&pipe), "--alert-ca-file", true).unwrap_err();
        assert_eq!(refused.exit_status(), 2);
        let said = format!("{}: is not a regular file; see --alert-ca-file", pipe.display());
        assert_eq!(refused.to_string(), said);
    }

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = client(Some(file.path()), "--alert-ca-file", false).unwrap_err();
        assert_eq!(said.exit_status(), 2);
        assert!(said.to_string().starts_with(file.path().to_str().unwrap()), "{said}");
        std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
            .unwrap();
        assert!(client(Some(file.path()), "--alert-ca-file", false).is_err());
        client(None, "--alert-ca-file", false).unwrap();
    }
}
