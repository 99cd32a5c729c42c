//! A reload changes what a running server is connected to: all of it or nothing, and without a gap.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use varta_integration_tests::{Ended, Options, Scratch, Server, http, line};

/// A server with a file, which has this text at first.
struct Reloaded {
    server: Server,
    path: PathBuf,
    _scratch: Scratch,
}

impl Reloaded {
    fn start(text: &str, options: Options) -> Self {
        let scratch = Scratch::make();
        let path = scratch.write("varta.toml", text);
        Reloaded { server: Server::start(options.path("--config", &path)), path, _scratch: scratch }
    }

    /// Has this text count.
    #[track_caller]
    fn take_over(&self, text: &str) -> String {
        fs::write(&self.path, text).unwrap();
        let Ended { status, stdout, stderr } = self.server.reload();
        assert!(status.success(), "{stderr}");
        assert_eq!(stderr, "", "nothing waits for a restart");
        stdout
    }

    /// Why this text does not count.
    #[track_caller]
    fn refuse(&self, text: &str) -> String {
        fs::write(&self.path, text).unwrap();
        let Ended { status, stderr, .. } = self.server.reload();
        assert_eq!(status.code(), Some(1), "{stderr}");
        stderr
    }
}

/// Where metrics are served after so many changes of the address.
fn metrics_address(server: &Server, number: usize) -> SocketAddr {
    server.expect(line("metrics on "));
    let lines = server.log().find_all("metrics on ");
    lines[number]["address"].as_str().unwrap().parse().unwrap()
}

#[test]
fn metrics_move_to_another_address_by_a_reload_and_who_is_connected_is_served_to_the_end() {
    // An empty variable leaves the address to the file.
    let options = Options::new().env("VARTA_METRICS_ADDR", "");
    let reloaded = Reloaded::start("metrics-addr = \"127.0.0.1:0\"\n", options);
    let server = &reloaded.server;
    let first = server.address();
    let mut connected = TcpStream::connect(first).unwrap();
    reloaded.take_over("metrics-addr = \"127.0.0.2:0\"\n");
    let second = metrics_address(server, 1);
    assert_eq!(http::get(second, "/metrics", &[]).unwrap().status, 200);
    assert!(TcpStream::connect(first).is_err(), "the former address is closed");
    connected.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connected.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let said = reloaded.refuse(&format!("metrics-addr = \"{taken}\"\nstall-after = \"9s\"\n"));
    assert!(said.contains(&format!("{taken}: cannot listen for metrics")), "{said}");
    assert_eq!(http::get(second, "/metrics", &[]).unwrap().status, 200, "all is as it was");

    reloaded.take_over("metrics-addr = \"none\"\n");
    server.expect(line("metrics are served nowhere"));
    assert!(TcpStream::connect(second).is_err());
    reloaded.take_over("metrics-addr = \"127.0.0.1:0\"\n");
    assert_eq!(http::get(metrics_address(server, 2), "/readyz", &[]).unwrap().status, 200);
}
