//! Names and passwords for the metrics, as in files of htpasswd.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use varta_integration_tests::http::{self, Response};
use varta_integration_tests::{Options, Scrape, Scratch, Server, run_server, wait_until, write_secret};

/// `name:secret`, `name:other`, and `prometheus:secret` as a header.
const SECRET: &str = "Basic bmFtZTpzZWNyZXQ=";
const OTHER: &str = "Basic bmFtZTpvdGhlcg==";
const UNKNOWN: &str = "Basic cHJvbWV0aGV1czpzZWNyZXQ=";
/// Of the passwords `secret` and `other`, by crypt(3) of libxcrypt.
const SECRET_HASH: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
const OTHER_HASH: &str = "$2y$04$abcdefghijklmnopqrstuu0HtfOlPbTiymk5tcV.3TsFPDd3SYZqu";
/// Of `secret`, with a cost that keeps a check from ending at once.
const SLOW_HASH: &str = "$2y$10$abcdefghijklmnopqrstuuqflPDzB6gcMhKa1rZqKiun2YGL5sa2u";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn users(scratch: &Scratch, hash: &str) -> PathBuf {
    write_secret(scratch.directory(), "users", &format!("# who scrapes\nname:{hash}"))
}

fn get(server: &Server, path: &str, shown: &str) -> Response {
    http::get(server.address(), path, &[("Authorization", shown)]).unwrap()
}

fn refused(server: &Server, reason: &str) -> f64 {
    let text = get(server, "/metrics", SECRET).body;
    Scrape::parse(&text).unwrap().value("varta_http_unauthorized_total", &[("reason", reason)])
}

#[test]
fn a_name_with_its_password_reads_the_metrics_and_nothing_else_does() {
    let scratch = Scratch::make();
    let server =
        Server::start(Options::new().path("--metrics-basic-auth-file", &users(&scratch, SECRET_HASH)));
    let refusal = server.get("/metrics");
    assert_eq!((refusal.status, refusal.body.contains("varta_")), (401, false));
    assert_eq!(refusal.header("www-authenticate"), Some("Basic realm=\"varta\", charset=\"UTF-8\""));
    // The second time without a check.
    for _ in 0..2 {
        assert_eq!(get(&server, "/metrics", SECRET).status, 200);
    }
    let bearer = format!("Bearer {TOKEN}");
    for wrong in [OTHER, UNKNOWN, "Basic bmFtZTo=", "Basic bmFtZQ==", "Basic !", "Basic ", &bearer, ""] {
        assert_eq!(get(&server, "/metrics", wrong).status, 401, "{wrong}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert_eq!(
        (refused(&server, "missing"), refused(&server, "wrong"), refused(&server, "busy")),
        (1.0, 8.0, 0.0)
    );
    let log = server.log().lines().concat();
    assert!(!log.contains("secret") && !log.contains(&SECRET_HASH[4..]), "{log}");
}

#[test]
fn with_a_token_beside_it_either_is_enough() {
    let scratch = Scratch::make();
    let token = write_secret(scratch.directory(), "token", TOKEN);
    let options = Options::new().path("--metrics-token-file", &token);
    let server = Server::start(options.path("--metrics-basic-auth-file", &users(&scratch, SECRET_HASH)));
    assert_eq!(get(&server, "/metrics", SECRET).status, 200);
    assert_eq!(get(&server, "/metrics", &format!("Bearer {TOKEN}")).status, 200);
    assert_eq!(get(&server, "/metrics", &format!("Bearer {TOKEN}x")).status, 401);
    let refusal = server.get("/metrics");
    let challenges: Vec<_> = refusal.headers.iter().filter(|(name, _)| name == "www-authenticate").collect();
    assert_eq!((refusal.status, challenges.len()), (401, 2), "{challenges:?}");
}

#[test]
fn with_passwords_metrics_may_be_for_the_network() {
    let scratch = Scratch::make();
    let options = Options::new().args(["--metrics-addr", "0.0.0.0:0"]);
    let server = Server::start(options.path("--metrics-basic-auth-file", &users(&scratch, SECRET_HASH)));
    assert_eq!((server.get("/metrics").status, get(&server, "/metrics", SECRET).status), (401, 200));
}

#[test]
fn a_reload_has_the_passwords_of_the_file_count_and_a_broken_file_changes_nothing() {
    let scratch = Scratch::make();
    let path = users(&scratch, SECRET_HASH);
    let server = Server::start(Options::new().config(&scratch, "").path("--metrics-basic-auth-file", &path));
    let reload =
        || run_server([Path::new("reload"), Path::new("--control-socket"), &server.control_socket()]);
    assert_eq!(get(&server, "/metrics", SECRET).status, 200);
    fs::write(&path, "name:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n").unwrap();
    let said = reload().stderr;
    assert!(said.contains("users: line 1: the password is not hashed by bcrypt"), "{said}");
    assert_eq!(get(&server, "/metrics", SECRET).status, 200);
    fs::write(&path, format!("name:{OTHER_HASH}\n")).unwrap();
    assert!(reload().status.success());
    assert_eq!((get(&server, "/metrics", SECRET).status, get(&server, "/metrics", OTHER).status), (401, 200));
}

#[test]
fn while_passwords_are_guessed_who_was_accepted_is_served_and_the_server_does_its_work() {
    let scratch = Scratch::make();
    let server = Server::start(Options::new().path("--metrics-basic-auth-file", &users(&scratch, SLOW_HASH)));
    assert_eq!(get(&server, "/metrics", SECRET).status, 200);
    let worker = server.start_agent(&[]);
    let guess = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {OTHER}\r\n\r\n");
    let guesses: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = http::connect(server.address()).unwrap();
            stream.write_all(guess.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(get(&server, "/metrics", SECRET).status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    for mut stream in guesses {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 ") || answer.starts_with("HTTP/1.1 429 "), "{answer}");
    }
    assert_eq!(refused(&server, "wrong") + refused(&server, "busy"), 40.0);
    wait_until("the worker beats", || {
        let text = get(&server, "/metrics", SECRET).body;
        let pid = worker.pid().to_string();
        Scrape::parse(&text)
            .unwrap()
            .get("varta_beats_total", &[("pid", &pid)])
            .is_some_and(|beats| beats >= 1.0)
    });
}
