//! The metrics address over TLS: who is served, who is told what is wrong, and what a reload changes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use varta_integration_tests::tls::Authority;
use varta_integration_tests::{
    Ended, Options, Prometheus, Scrape, Scratch, Server, foreign, http, line_with, refused_start, run_server,
    run_to_its_end, wait_until, write_secret,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// Of the password `secret`, by crypt(3) of libxcrypt.
const SECRET_HASH: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
/// More than the server serves at once.
const CROWD: usize = 400;
/// The end of a validity that no run of this test sees.
const LATE: i32 = 2100;

/// An authority, and a server with a certificate of it.
fn start(options: impl Into<Options>) -> (Scratch, Authority, Server) {
    let scratch = Scratch::make();
    let authority = Authority::new(scratch.directory());
    let files = authority.issue("server", LATE);
    let server = Server::start(options.into().args(files.options()));
    (scratch, authority, server)
}

fn scrape(authority: &Authority, server: &Server) -> Scrape {
    let answer = authority.get(server.address(), "/metrics", &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    Scrape::parse(&answer.body).unwrap()
}

fn failures(authority: &Authority, server: &Server, reason: &str) -> f64 {
    scrape(authority, server).value("varta_tls_handshake_failures_total", &[("reason", reason)])
}

/// What is read until the server closes the connection.
fn read_to_the_end(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    // What it did not read makes the end a hard one.
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

fn reload(server: &Server) -> Ended {
    run_server([Path::new("reload"), Path::new("--control-socket"), &server.control_socket()])
}

#[test]
fn everything_is_served_over_tls_1_2_and_1_3() {
    let (_scratch, authority, server) = start(Options::new());
    for (version, number) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let mut stream = authority.connect(server.address(), &[version]).unwrap();
            let answer = http::get_over(&mut stream, server.address(), path, &[]).unwrap();
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(stream.conn.protocol_version(), Some(number));
        }
    }
    let line = server.expect(line_with("metrics on https://"));
    assert!(line.to_string().contains(&format!("https://{}/metrics", server.address())), "{line}");
    let gzip = authority.get(server.address(), "/metrics", &[("Accept-Encoding", "gzip")]).unwrap();
    assert_eq!((gzip.status, gzip.header("content-encoding")), (200, Some("gzip")));
}

#[test]
fn who_speaks_plaintext_is_told_that_the_address_speaks_https_and_nothing_else() {
    let (_scratch, authority, server) = start(Options::new());
    for path in ["/metrics", "/healthz", "/readyz", "/"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.body, "this address speaks HTTPS, and the request came in plaintext\n");
    }
    for nonsense in [&b"\0\0\0\0"[..], b"*1\r\n$4\r\nPING\r\n", b"\x15\x03\x01\x00\x02\x02\x28"] {
        let mut stream = http::connect(server.address()).unwrap();
        stream.write_all(nonsense).unwrap();
        let said = read_to_the_end(stream);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
    }
    assert_eq!(failures(&authority, &server, "plaintext"), 7.0);
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_counted_and_named_in_the_log() {
    let (_scratch, authority, server) = start(Options::new());
    let scratch = Scratch::make();
    let stranger = Authority::new(scratch.directory());
    let error = stranger.get(server.address(), "/metrics", &[]).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let line = server.expect(line_with("has ended the TLS handshake"));
    assert!(line.to_string().contains("127.0.0.1:"), "{line}");
    assert_eq!(failures(&authority, &server, "refused"), 1.0);
}

#[test]
fn handshakes_that_do_not_go_on_keep_nobody_out() {
    let (_scratch, authority, server) = start(Options::new());
    // A record of the handshake that announces more than it has.
    let begun = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let crowd: Vec<_> = (0..CROWD)
        .map(|_| {
            let mut stream = http::connect(server.address()).unwrap();
            stream.write_all(begun).unwrap();
            stream
        })
        .collect();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(authority.get(server.address(), path, &[]).unwrap().status, 200, "{path}");
    }
    for stream in crowd {
        assert!(!read_to_the_end(stream).contains("HTTP"));
    }
    let mut whole = http::connect(server.address()).unwrap();
    whole.write_all(&begun.repeat(100)).unwrap();
    read_to_the_end(whole);
    assert_eq!(failures(&authority, &server, "protocol"), 1.0);
}

#[test]
fn a_reload_gives_new_connections_another_certificate_and_one_that_cannot_be_used_changes_nothing() {
    let scratch = Scratch::make();
    let [former, present] = ["former", "present"].map(|name| {
        fs::create_dir(scratch.path(name)).unwrap();
        Authority::new(&scratch.path(name))
    });
    let files = former.issue("server", LATE);
    let copy = |name: &str| {
        let other = present.issue("server", 2090);
        fs::copy(other.certificate, &files.certificate).unwrap();
        if name == "both" {
            fs::copy(other.key, &files.key).unwrap();
        }
    };
    let server = Server::start(Options::new().config(&scratch, "").args(files.options()));
    let expiry =
        |authority| scrape(authority, &server).value("varta_tls_certificate_expiry_timestamp_seconds", &[]);
    assert_eq!(expiry(&former), 4_133_894_400.0);
    // Its key is that of the former one.
    copy("certificate");
    let refused = reload(&server);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("server.key: does not belong to the first certificate"),
        "{}",
        refused.stderr
    );
    assert_eq!(expiry(&former), 4_133_894_400.0);
    assert!(
        former.get(server.address(), "/readyz", &[]).unwrap().body.contains("server.key: does not belong")
    );

    copy("both");
    let taken = reload(&server);
    assert!(taken.status.success(), "{}", taken.stderr);
    assert_eq!(expiry(&present), 3_818_361_600.0);
    assert!(former.get(server.address(), "/metrics", &[]).is_err());
}

#[test]
fn a_reload_turns_tls_on_and_off() {
    let scratch = Scratch::make();
    let authority = Authority::new(scratch.directory());
    let [certificate, _] = [authority.issue("server", LATE), authority.issue("other", LATE)];
    let server = Server::start(Options::new().config(&scratch, ""));
    assert_eq!(server.get("/healthz").status, 200);
    let table = format!(
        "metrics-tls-cert = \"{}\"\nmetrics-tls-key = \"{}\"\n",
        certificate.certificate.display(),
        certificate.key.display()
    );
    scratch.write("varta.toml", &table);
    assert!(reload(&server).status.success());
    assert_eq!(server.get("/healthz").status, 400);
    assert_eq!(authority.get(server.address(), "/healthz", &[]).unwrap().status, 200);
    scratch.write("varta.toml", "");
    assert!(reload(&server).status.success());
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_certificate_that_has_expired_is_served_with_a_warning() {
    let scratch = Scratch::make();
    let authority = Authority::new(scratch.directory());
    let server = Server::start(Options::new().args(authority.issue("server", 2021).options()));
    let warning = server.expect(line_with("a certificate has expired at 2021-12-31T00:00:00.000Z"));
    assert!(warning.to_string().contains("server.pem"), "{warning}");
    assert!(authority.get(server.address(), "/healthz", &[]).is_err());
}

#[test]
fn tls_alone_does_not_open_the_metrics_to_the_network_and_with_a_token_it_does() {
    let scratch = Scratch::make();
    let authority = Authority::new(scratch.directory());
    let certificate = authority.issue("server", LATE);
    let everywhere = ["--metrics-addr".to_owned(), "0.0.0.0:0".to_owned()];
    let arguments = everywhere.iter().cloned().chain(certificate.options());
    let said = refused_start(2, &scratch.socket(), arguments);
    assert!(said.contains("--metrics-addr 0.0.0.0:0: is not a loopback address"), "{said}");
    let token = write_secret(scratch.directory(), "token", TOKEN);
    let options = Options::new().args(certificate.options()).args(everywhere);
    let server = Server::start(options.path("--metrics-token-file", &token));
    let address = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    assert_eq!(authority.get(address, "/metrics", &[]).unwrap().status, 401);
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(authority.get(address, "/metrics", &[("Authorization", &bearer)]).unwrap().status, 200);
}

#[test]
fn curl_and_its_tls_are_served() {
    let (_scratch, authority, server) = start(Options::new());
    let Some(mut curl) = foreign::installed("curl") else { return };
    let url = format!("https://{}/metrics", server.address());
    curl.args(["--silent", "--show-error", "--fail", "--http2", "--cacert"]).arg(&authority.path).arg(url);
    let ended = run_to_its_end(curl);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.contains("varta_watch_uptime_seconds"));
}

/// Has a Prometheus scrape by a configuration of the documents, with these replacements, until it has succeeded over
/// HTTPS. Whether there is a Prometheus.
fn is_scraped_by_prometheus(block: usize, replacements: &[(&str, String)]) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/HTTP.md");
    let document = fs::read_to_string(path).unwrap();
    let blocks = document.split("```yaml\n").filter(|block| block.starts_with("scrape_configs:"));
    let block = blocks.filter_map(|block| block.split("```").next()).nth(block).unwrap();
    let config = replacements.iter().fold(block.to_owned(), |text, (shown, real)| {
        assert!(text.contains(shown), "{shown} is not in {text}");
        text.replace(shown, real)
    });
    let config = format!("global:\n  scrape_interval: 1s\n{config}");
    let Some(prometheus) = Prometheus::start(&config, &[]) else { return false };
    wait_until("its scrape has succeeded", || {
        let Some(targets) = prometheus.get("/api/v1/targets") else { return false };
        let target = &targets["activeTargets"][0];
        target["health"] == "up"
            && target["scrapeUrl"].as_str().is_some_and(|url| url.starts_with("https://"))
    });
    true
}

#[test]
fn prometheus_scrapes_it_with_the_token_by_the_configuration_of_the_documents() {
    let scratch = Scratch::make();
    let token = write_secret(scratch.directory(), "token", TOKEN);
    let (_scratch, authority, server) = start(Options::new().path("--metrics-token-file", &token));
    let was_scraped = is_scraped_by_prometheus(
        0,
        &[
            ("/etc/prometheus/varta-ca.pem", authority.path.display().to_string()),
            ("/etc/prometheus/varta.token", token.display().to_string()),
            ("varta.example:9843", server.address().to_string()),
        ],
    );
    let refused = authority.get(server.address(), "/metrics", &[]).unwrap();
    assert!(!was_scraped || refused.status == 401);
}

#[test]
fn prometheus_scrapes_it_with_a_password_by_the_configuration_of_the_documents() {
    let scratch = Scratch::make();
    let users = write_secret(scratch.directory(), "users", &format!("prometheus:{SECRET_HASH}"));
    let password = write_secret(scratch.directory(), "password", "secret");
    let (_scratch, authority, server) = start(Options::new().path("--metrics-basic-auth-file", &users));
    let was_scraped = is_scraped_by_prometheus(
        1,
        &[
            ("/etc/prometheus/varta-ca.pem", authority.path.display().to_string()),
            ("/etc/prometheus/varta.password", password.display().to_string()),
            ("varta.example:9843", server.address().to_string()),
        ],
    );
    let refused = authority.get(server.address(), "/metrics", &[]).unwrap();
    assert!(!was_scraped || refused.status == 401);
}
