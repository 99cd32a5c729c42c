//! What a client shows to read the metrics, and the checks of passwords: few at once, because each costs time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use metrics::Counter;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::metrics::Registry;
use crate::metrics::family::families;
use crate::services::http::users::{Shown, Users};

families! {
    UNAUTHORIZED = "varta_http_unauthorized_total", "Requests for the metrics that were refused for want of a token or a password.";
}

/// The most checks that wait for their turn.
const MAX_WAITING: usize = 16;
/// Of these the most of one address: others find a place beside who guesses.
const MAX_WAITING_OF_ADDRESS: usize = 4;

/// What a request shows.
#[derive(Debug)]
pub(super) enum Credentials {
    None,
    /// A token, as it came.
    Bearer(Zeroizing<Vec<u8>>),
    /// A name, a colon and a password.
    Basic(Zeroizing<Vec<u8>>),
    /// Nothing that this server knows.
    Other,
}

impl Credentials {
    /// Those of the header `Authorization`, whose scheme may be in any case (RFC 9110, section 11.1).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        headers.get(AUTHORIZATION).map_or(Credentials::None, |value| Credentials::parse(value.as_bytes()))
    }

    fn parse(header: &[u8]) -> Self {
        let Some(space) = header.iter().position(|byte| *byte == b' ') else { return Credentials::Other };
        let (scheme, rest) = header.split_at(space);
        let rest = rest.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Credentials::Bearer(Zeroizing::new(rest.to_vec()));
        }
        match STANDARD.decode(rest) {
            Ok(pair) if scheme.eq_ignore_ascii_case(b"basic") => Credentials::Basic(Zeroizing::new(pair)),
            Ok(_) | Err(_) => Credentials::Other,
        }
    }
}

/// Whether a request may read the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allowed,
    /// It shows nothing.
    Missing,
    /// What it shows is wrong.
    Wrong,
    /// So many passwords wait to be checked that this one is not.
    Busy,
}

/// Counts the requests that were refused, by what they showed.
#[derive(Clone)]
pub(super) struct Unauthorized {
    missing: Counter,
    wrong: Counter,
    busy: Counter,
}

impl Unauthorized {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |reason| registry.counter(UNAUTHORIZED, &[("reason", reason)]);
        Unauthorized { missing: counter("missing"), wrong: counter("wrong"), busy: counter("busy") }
    }

    /// The refusal that this answer is; `None` for one that may read. `challenges` are the schemes that help.
    pub(super) fn refusal(
        &self,
        answer: Answer,
        challenges: impl Iterator<Item = &'static str>,
    ) -> Option<Response> {
        let counter = match answer {
            Answer::Allowed => return None,
            Answer::Missing => &self.missing,
            Answer::Wrong => &self.wrong,
            Answer::Busy => &self.busy,
        };
        counter.increment(1);
        if answer == Answer::Busy {
            let later = [(RETRY_AFTER, "1")];
            let text = "too many passwords are being checked\n";
            return Some((StatusCode::TOO_MANY_REQUESTS, later, text).into_response());
        }
        let mut refusal = (StatusCode::UNAUTHORIZED, "a token or a password is needed\n").into_response();
        for challenge in challenges {
            refusal.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        Some(refusal)
    }
}

/// The checks of passwords that wait for their turn.
#[derive(Debug)]
pub(super) struct PasswordChecks {
    /// One at a time: more would take processors from what else this host does.
    turn: Arc<Semaphore>,
    waiting: Mutex<HashMap<Option<IpAddr>, usize>>,
}

impl Default for PasswordChecks {
    fn default() -> Self {
        PasswordChecks { turn: Arc::new(Semaphore::new(1)), waiting: Mutex::default() }
    }
}

impl PasswordChecks {
    /// Checks a name and a password, on another thread unless they were accepted before.
    pub(super) async fn check(
        &self,
        users: Arc<Users>,
        pair: Zeroizing<Vec<u8>>,
        peer: Option<IpAddr>,
    ) -> Answer {
        let Some(shown) = shown(&pair) else { return Answer::Wrong };
        if users.remember(shown) {
            return Answer::Allowed;
        }
        let Some(_place) = Place::take(&self.waiting, peer) else { return Answer::Busy };
        // The semaphore is never closed.
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else { return Answer::Busy };
        // A request that showed the same may have been accepted meanwhile.
        if users.remember(shown) {
            return Answer::Allowed;
        }
        let checked = spawn_blocking(move || {
            // To the end of the check, also when the client has gone.
            let _turn = turn;
            self::shown(&pair).is_some_and(|shown| users.check(shown))
        });
        if checked.await.unwrap_or(false) { Answer::Allowed } else { Answer::Wrong }
    }
}

fn shown(pair: &[u8]) -> Option<Shown<'_>> {
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(Shown { name: &pair[..colon], password: &pair[colon + 1..] })
}

/// The place of a check that waits.
struct Place<'c> {
    waiting: &'c Mutex<HashMap<Option<IpAddr>, usize>>,
    network: Option<IpAddr>,
}

impl<'c> Place<'c> {
    fn take(waiting: &'c Mutex<HashMap<Option<IpAddr>, usize>>, peer: Option<IpAddr>) -> Option<Self> {
        let network = peer.map(network);
        let mut counts = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = counts.get(&network).copied().unwrap_or(0);
        if of_network >= MAX_WAITING_OF_ADDRESS || counts.values().sum::<usize>() >= MAX_WAITING {
            return None;
        }
        counts.insert(network, of_network + 1);
        Some(Place { waiting, network })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// What one client may have more than one address of: of IPv6 the first 64 bits, and all that is loopback.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(address) => IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_may_be_in_any_case_and_is_needed() {
        for header in ["Bearer abc", "bearer abc", "BEARER abc", "bEaReR   abc "] {
            let Credentials::Bearer(token) = Credentials::parse(header.as_bytes()) else {
                panic!("{header}")
            };
            assert_eq!(token.as_slice(), b"abc", "{header}");
        }
        for header in ["Basic YTpiOmM=", "basic YTpiOmM=", "BASIC  YTpiOmM= "] {
            let Credentials::Basic(pair) = Credentials::parse(header.as_bytes()) else { panic!("{header}") };
            let Shown { name, password } = shown(&pair).unwrap();
            assert_eq!((name, password), (&b"a"[..], &b"b:c"[..]), "{header}");
        }
        for header in
            ["abc", "Bearerabc", "Basic", "", " Bearer abc", "Digest YTpi", "Basic ?", "Basic YTpiOmM"]
        {
            assert!(matches!(Credentials::parse(header.as_bytes()), Credentials::Other), "{header}");
        }
        assert!(shown(b"no colon").is_none());
    }

    fn users() -> (tempfile::TempDir, Arc<Users>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let hash = bcrypt::hash_with_result("secret", 4).unwrap().format_for_version(bcrypt::Version::TwoB);
        std::fs::write(&path, format!("a:{hash}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let users = Users::read(&path).unwrap();
        (directory, Arc::new(users))
    }

    #[tokio::test]
    async fn while_passwords_are_guessed_one_is_checked_at_a_time_and_who_was_accepted_waits_for_none() {
        let (_directory, users) = users();
        let checks = PasswordChecks::default();
        let check = |pair: &str, peer: &str| {
            let pair = Zeroizing::new(pair.as_bytes().to_vec());
            checks.check(Arc::clone(&users), pair, Some(peer.parse().unwrap()))
        };
        let (guesser, other) = ("192.0.2.1", "192.0.2.2");
        assert_eq!(check("a:secret", other).await, Answer::Allowed);
        // A check that goes on.
        let turn = Arc::clone(&checks.turn).acquire_owned().await.unwrap();
        let mut guesses: Vec<_> =
            (0..MAX_WAITING_OF_ADDRESS).map(|n| Box::pin(check(&format!("a:{n}"), guesser))).collect();
        for guess in &mut guesses {
            tokio::select! {
                biased;
                answer = guess.as_mut() => panic!("{answer:?} before its turn"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(check("a:guess", guesser).await, Answer::Busy);
        assert_eq!(check("a:secret", guesser).await, Answer::Allowed);
        assert_eq!(check("no colon", guesser).await, Answer::Wrong);
        let mut mistaken = Box::pin(check("a:mistake", other));
        tokio::select! {
            biased;
            answer = mistaken.as_mut() => panic!("{answer:?} before its turn"),
            () = tokio::task::yield_now() => drop(turn),
        }
        for guess in guesses {
            assert_eq!(guess.await, Answer::Wrong);
        }
        assert_eq!(mistaken.await, Answer::Wrong);
        assert!(checks.waiting.lock().unwrap().is_empty());
    }

    #[test]
    fn one_address_takes_no_more_than_its_share_of_the_places_and_gives_them_back() {
        let waiting = Mutex::default();
        let of = |address: &str| Place::take(&waiting, Some(address.parse().unwrap()));
        let loopback: Vec<_> = (1..=4).map(|n| of(&format!("127.0.0.{n}")).unwrap()).collect();
        assert!(of("127.9.9.9").is_none() && of("::1").is_none());
        let of_net: Vec<_> = (1..=4).map(|n| of(&format!("2001:db8::{n}")).unwrap()).collect();
        assert!(of("2001:db8:0:0:ffff::").is_none());
        let others: Vec<_> = (1..=8).map(|n| of(&format!("192.0.2.{n}")).unwrap()).collect();
        assert!(of("192.0.2.9").is_none(), "all places are taken");
        drop(of_net);
        assert!(of("192.0.2.9").is_some() && of("2001:db8::1").is_some() && of("::1").is_none());
        drop((loopback, others));
        assert!(waiting.lock().unwrap().is_empty());
    }
}
