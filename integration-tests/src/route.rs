//! The routes from an agent to the program that watches it.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::foreign::skip;

/// How the beats of an agent get to the program that watches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Through the Unix socket at this path.
    Unix(PathBuf),
    /// By UDP to this address, in plain sight.
    Udp(SocketAddr),
    /// By UDP to this address, sealed with the key in this file, which all agents share.
    SharedKey(SocketAddr, PathBuf),
    /// By UDP to this address, sealed with a key that the agent derives from the master key in this file.
    MasterKey(SocketAddr, PathBuf),
}

impl Route {
    /// The arguments by which a program that beats takes the route.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let udp = |option: &str, address: &SocketAddr| [option.into(), address.to_string().into()];
        let file = |option: &str, path: &Path| [option.into(), path.into()];
        match self {
            Route::Unix(path) => file("--socket", path).into(),
            Route::Udp(address) => udp("--udp", address).into(),
            Route::SharedKey(address, key) => {
                [udp("--secure-udp", address), file("--key-file", key)].concat()
            }
            Route::MasterKey(address, key) => {
                [udp("--secure-udp", address), file("--master-key-file", key)].concat()
            }
        }
    }

    /// Takes the arguments for a route out of a program's arguments; `None` when there are none.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in words.
    pub fn take_from(arguments: &mut Vec<OsString>) -> Result<Option<Self>, String> {
        let mut value = |option: &str| {
            let at = arguments.iter().position(|argument| argument == option)?;
            arguments.drain(at..arguments.len().min(at + 2)).nth(1)
        };
        let [socket, udp, secure_udp] = ["--socket", "--udp", "--secure-udp"].map(&mut value);
        let [key, master_key] = ["--key-file", "--master-key-file"].map(&mut value);
        let address = |text: OsString| {
            let parsed = text.to_str().and_then(|text| text.parse().ok());
            parsed.ok_or_else(|| format!("{} is no address", text.display()))
        };
        Ok(Some(match (socket, udp, secure_udp, key, master_key) {
            (None, None, None, None, None) => return Ok(None),
            (Some(path), None, None, None, None) => Route::Unix(path.into()),
            (None, Some(udp), None, None, None) => Route::Udp(address(udp)?),
            (None, None, Some(udp), Some(key), None) => Route::SharedKey(address(udp)?, key.into()),
            (None, None, Some(udp), None, Some(key)) => Route::MasterKey(address(udp)?, key.into()),
            _ => return Err("one route at a time, and with the key that it needs".to_owned()),
        }))
    }
}

/// What beats over a network are, without where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// UDP in plain sight.
    Plain,
    /// UDP, sealed with [`SHARED_KEY`].
    SharedKey,
    /// UDP, sealed with keys that are derived from [`MASTER_KEY`].
    MasterKey,
}

impl Network {
    /// All there are.
    pub const ALL: [Network; 3] = [Network::Plain, Network::SharedKey, Network::MasterKey];

    /// The value of the metric label `transport`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Network::Plain => "udp",
            Network::SharedKey | Network::MasterKey => "secure_udp",
        }
    }

    /// The route to `address`, with the key that the program there has in its `directory`.
    #[must_use]
    pub fn route(self, address: SocketAddr, directory: &Path) -> Route {
        match self {
            Network::Plain => Route::Udp(address),
            Network::SharedKey => Route::SharedKey(address, directory.join(KEY_OPTION.file)),
            Network::MasterKey => Route::MasterKey(address, directory.join(MASTER_KEY_OPTION.file)),
        }
    }

    /// The key of the program that listens, and the option for it.
    pub(crate) fn secret(self) -> Option<Secret> {
        match self {
            Network::Plain => None,
            Network::SharedKey => Some(KEY_OPTION),
            Network::MasterKey => Some(MASTER_KEY_OPTION),
        }
    }
}

/// The key that the program that listens shares with all agents.
pub const SHARED_KEY: &str = "5d1f0a3c7e9b2846d0c1b2a3948576f7e8d9cabb0c1d2e3f405162738495a6b7";
/// The key from which an agent derives its own.
pub const MASTER_KEY: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90112233445566778899aabbccddeeff00";
/// A key with which no program listens, unless a test has it so.
pub const ANOTHER_KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0";

const KEY_OPTION: Secret = Secret { option: "--key-file", file: "shared.key", text: SHARED_KEY };
const MASTER_KEY_OPTION: Secret =
    Secret { option: "--master-key-file", file: "master.key", text: MASTER_KEY };

/// A secret that a program reads from a file, because every user can see its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secret {
    /// The option that names the file. The published observer has the same ones as our server.
    pub(crate) option: &'static str,
    /// The name of the file.
    pub(crate) file: &'static str,
    /// What is in it.
    pub(crate) text: &'static str,
}

impl Secret {
    /// Writes the file, and has the program read it.
    pub(crate) fn give(self, command: &mut Command, directory: &Path) {
        command.arg(self.option).arg(write_secret(directory, self.file, self.text));
    }
}

/// Writes a file that only its owner can read, as key and token files have to be, and gives its path.
#[must_use]
#[track_caller]
pub fn write_secret(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| writeln!(file, "{text}"));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// This host's own addresses, of IPv4 and, where there is such a thing, of IPv6.
#[must_use]
pub fn loopbacks() -> Vec<IpAddr> {
    let exists = |address: &IpAddr| match UdpSocket::bind((*address, 0)) {
        Ok(_) => true,
        Err(error) => {
            skip(&format!("there is no address {address} here: {error}"));
            false
        }
    };
    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].into_iter().filter(exists).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(arguments: &[&str]) -> (Result<Option<Route>, String>, Vec<OsString>) {
        let mut arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
        (Route::take_from(&mut arguments), arguments)
    }

    #[test]
    fn a_route_survives_the_way_through_arguments() {
        let addresses: [SocketAddr; 2] = ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()];
        let mut routes = vec![Route::Unix("/run/varta.sock".into())];
        for network in Network::ALL {
            routes.extend(addresses.map(|address| network.route(address, Path::new("/run"))));
        }
        for route in routes {
            let mut arguments = [vec!["--beats".into()], route.arguments(), vec!["7".into()]].concat();
            assert_eq!(Route::take_from(&mut arguments), Ok(Some(route)));
            assert_eq!(arguments, ["--beats", "7"]);
        }
        assert_eq!(taken(&["--beats", "7"]).0, Ok(None));
    }

    #[test]
    fn what_is_no_route_is_refused() {
        for arguments in [
            &["--udp", "localhost"][..],
            &["--udp", "127.0.0.1:7", "--socket", "/run/varta.sock"],
            &["--secure-udp", "127.0.0.1:7"],
            &["--secure-udp", "127.0.0.1:7", "--key-file", "/a", "--master-key-file", "/b"],
            &["--key-file", "/a"],
        ] {
            assert!(taken(arguments).0.is_err(), "{arguments:?}");
        }
    }
}
