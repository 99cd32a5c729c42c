//! The published observer, running: it may watch an agent of ours in the place of our server.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::foreign;
use crate::http;
use crate::retry::{LIMIT, or_fail, wait_for};
use crate::route::{Network, Route, write_secret};
use crate::scrape::Scrape;

/// The bearer token for its metrics.
const TOKEN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A running observer. It is killed when this is dropped.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    metrics: SocketAddr,
    route: Route,
    /// Removed last.
    _directory: TempDir,
}

impl Watch {
    /// Starts one that listens on a Unix socket; `None` where it [was not fetched](foreign::command).
    #[must_use]
    #[track_caller]
    pub fn on_unix_socket(stall_after: Duration) -> Option<Self> {
        Self::start(stall_after, |_, _| {}, |_, directory| Some(Route::Unix(socket_in(directory))))
    }

    /// Starts one that listens on a UDP socket of this address too, with the key of the network.
    #[must_use]
    #[track_caller]
    pub fn on(network: Network, address: IpAddr, stall_after: Duration) -> Option<Self> {
        let configure = |command: &mut Command, directory: &Path| {
            command.args(["--udp-port", "0", "--udp-bind-addr", &address.to_string()]);
            // It waits so long at its Unix socket before it looks for one datagram at the other.
            command.args(["--read-timeout-ms", "5"]);
            match network.secret() {
                Some(secret) => secret.give(command, directory),
                None => drop(command.arg("--i-accept-plaintext-udp")),
            }
        };
        Self::start(stall_after, configure, |pid, directory| {
            let port = wait_for(|| udp_port(pid))?;
            Some(network.route(SocketAddr::new(address, port), directory))
        })
    }

    #[track_caller]
    fn start(
        stall_after: Duration,
        configure: impl FnOnce(&mut Command, &Path),
        find_route: impl FnOnce(u32, &Path) -> Option<Route>,
    ) -> Option<Self> {
        let mut command = foreign::command("bin/varta-watch")?;
        let directory = tempfile::tempdir().expect("there is a place for temporary directories");
        let path = directory.path();
        command.args(["--threshold-ms", &stall_after.as_millis().to_string(), "--prom-addr", "127.0.0.1:0"]);
        // By default it drops a beat that comes within 10 ms of another, and refuses scrapes that come too
        // often.
        command.args(["--max-beat-rate", "0", "--global-beat-rate", "0"]);
        command.args(["--prom-rate-limit-per-sec", "10000", "--prom-rate-limit-burst", "10000"]);
        command.arg("--prom-token-file").arg(write_secret(path, "token", TOKEN));
        command.arg("--socket").arg(socket_in(path));
        configure(&mut command, path);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let mut address = String::new();
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let read = BufReader::new(stdout).read_line(&mut address);
        let metrics = read.ok().and_then(|_| address.trim().parse().ok());
        let found = metrics.and_then(|metrics| Some((metrics, find_route(child.id(), path)?)));
        let Some((metrics, route)) = found else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not serve; scripts/test puts one there that has all features for it");
        };
        Some(Watch { child, metrics, route, _directory: directory })
    }

    /// The route to it.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Reads its metrics again and again until they are as expected. `what` is the condition in words.
    #[track_caller]
    pub fn await_scrape(&self, what: &str, expected: impl Fn(&Scrape) -> bool) -> Scrape {
        let mut last = String::new();
        let bearer = format!("Bearer {TOKEN}");
        let scrape = wait_for(|| {
            last = http::get(self.metrics, "/metrics", &[("Authorization", &bearer)]).ok()?.body;
            Scrape::parse(&last).ok().filter(&expected)
        });
        or_fail(scrape.ok_or_else(|| format!("not within {LIMIT:?}: {what}\nthe last scrape is\n{last}")))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already; a failure here has no consequence.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("varta.sock")
}

/// The port of the UDP socket that a process has, by the kernel's tables: the observer does not print it. See
/// `proc_pid_net(5)`.
fn udp_port(pid: u32) -> Option<u16> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(Result::ok);
    let sockets: Vec<_> = descriptors
        .filter_map(|descriptor| {
            let target = fs::read_link(descriptor.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    ["udp", "udp6"].into_iter().find_map(|table| {
        let rows = fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok()?;
        rows.lines().find_map(|row| {
            let fields: Vec<_> = row.split_whitespace().collect();
            let is_its_own = sockets.iter().any(|inode| fields.get(9) == Some(&inode.as_str()));
            let (_, port) = fields.get(1).filter(|_| is_its_own)?.split_once(':')?;
            u16::from_str_radix(port, 16).ok()
        })
    })
}
