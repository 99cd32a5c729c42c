//! Addresses to listen on as people write them: `127.0.0.1:9843`, `[::1]:9843`, `localhost:9843`.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

use crate::base::error::Error;
use crate::base::options::look_ups::LookUps;

/// The longest name of a host, in bytes.
const MAX_HOST_LEN: usize = 253;

/// An IP address or the name of a host, and a port. The name has not been looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort(Host);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(SocketAddr),
    Name(String, u16),
}

/// Parses an address, without a look-up of its name.
///
/// A name that ends in a number is refused: it is an IP address with a mistake, which resolvers complete to
/// another one.
pub(crate) fn parse_host_port(text: &str) -> Result<HostPort, String> {
    let named = || {
        let (host, port) = text.rsplit_once(':')?;
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next()?;
        let is_name = host.len() <= MAX_HOST_LEN
            && host.bytes().all(is_letter)
            && !host.starts_with(['-', '.'])
            && !is_number(last);
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
        (is_name && is_port).then(|| Some(Host::Name(host.to_owned(), port.parse().ok()?)))?
    };
    let host = text.parse().map(Host::Ip).ok().or_else(named);
    host.map(HostPort).ok_or_else(|| {
        "is neither IP:PORT nor HOST:PORT, as in 127.0.0.1:9843, [::1]:9843 or localhost:9843".to_owned()
    })
}

/// Whether resolvers take a label for a number: digits, or hexadecimal ones behind `0x`.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or(label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl HostPort {
    /// The address of the host: of several the first IPv4 address, else the first IPv6 address, so that
    /// `localhost` is 127.0.0.1. Blocks while the name is looked up.
    ///
    /// # Errors
    ///
    /// [`Error::HostName`] of `option` when the name has no address.
    pub(crate) fn resolve(&self, option: &'static str, look_ups: LookUps) -> Result<SocketAddr, Error> {
        let by_resolver = |host: &str, port| (host, port).to_socket_addrs().map(Vec::from_iter);
        look_ups.find(|| self.resolve_by(option, by_resolver), || self.stand_in())
    }

    /// The address, or for a name a loopback address of its own: names that differ have addresses that differ, but
    /// for rare chance.
    pub(crate) fn stand_in(&self) -> SocketAddr {
        match &self.0 {
            Host::Ip(address) => *address,
            Host::Name(host, port) => {
                let add = |number: u32, byte: u8| number.wrapping_mul(31).wrapping_add(byte.into());
                let [_, a, b, c] = host.bytes().fold(0, add).to_be_bytes();
                (Ipv4Addr::new(127, a, b, c), *port).into()
            }
        }
    }

    fn resolve_by(
        &self,
        option: &'static str,
        look_up: impl FnOnce(&str, u16) -> io::Result<Vec<SocketAddr>>,
    ) -> Result<SocketAddr, Error> {
        let (host, port) = match &self.0 {
            Host::Ip(address) => return Ok(*address),
            Host::Name(host, port) => (host, *port),
        };
        let failed = |source| Error::HostName { option, host: host.clone(), port, source };
        let addresses = look_up(host, port).map_err(failed)?;
        let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        first
            .copied()
            .ok_or_else(|| failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Host::Ip(address) => address.fmt(f),
            Host::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, found: &[&str]) -> Result<String, String> {
        let found = found.iter().map(|address| address.parse().unwrap()).collect();
        let address = parse_host_port(text).unwrap().resolve_by("--udp", |_, _| Ok(found));
        address.map(|address| address.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_is_an_ip_or_a_name_with_a_port() {
        for text in
            ["127.0.0.1:0", "[::1]:9843", "localhost:9843", "a-b_c.d.example.:1", "10.example:9", "x:65535"]
        {
            assert_eq!(parse_host_port(text).map(|address| address.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            ":9843",
            "localhost",
            "localhost:",
            "localhost:x",
            "localhost:+1",
            "localhost:65536",
            "::1:9843",
            "127.1:9843",
            "10.0.0:1",
            "256.0.0.1:1",
            "0x7f000001:1",
            "127.0.0.0X1:1",
            "0x:1",
            "1:1",
            "a b:1",
            "größe:1",
            "http://a:1",
            ".a:1",
            "-a:1",
            "[a]:1",
            &format!("{}:1", "a".repeat(254)),
        ] {
            let error = parse_host_port(text).unwrap_err();
            assert!(error.contains("localhost:9843"), "{text}: {error}");
        }
    }

    #[test]
    fn of_several_addresses_the_first_of_ipv4_is_taken_and_else_the_first() {
        let of = |found: &[&str]| resolved("a:9843", found);
        assert_eq!(of(&["[::1]:9843", "127.0.0.1:9843", "127.0.0.2:9843"]), Ok("127.0.0.1:9843".to_owned()));
        assert_eq!(of(&["[::1]:9843", "[::2]:9843"]), Ok("[::1]:9843".to_owned()));
        assert_eq!(resolved("[::1]:9", &["127.0.0.1:9"]), Ok("[::1]:9".to_owned()), "nothing to look up");
    }

    #[test]
    fn a_name_without_an_address_is_an_error_that_names_it_and_says_what_the_resolver_said() {
        assert_eq!(
            resolved("a:9843", &[]),
            Err("--udp a:9843: the address of the host a cannot be found: the name has no address".to_owned())
        );
        let failed = parse_host_port("db.example:1")
            .unwrap()
            .resolve_by("--udp", |_, _| Err(io::Error::other("try again")))
            .unwrap_err();
        assert!(
            failed.to_string().ends_with("of the host db.example cannot be found: try again"),
            "{failed}"
        );
        assert_eq!(failed.exit_status(), 1, "it may be found later");
    }
}
