//! Notices over TLS: which receiver is trusted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use varta_integration_tests::{AgentProcess, Options, Scratch, Server, foreign, line_with};

const RECEIVER: &str = include_str!("../src/tls_receiver.py");

struct Receiver {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Receiver {
    /// `None` where there is no Python with what it needs.
    fn start(directory: &Path) -> Option<Self> {
        let mut command = foreign::command("venv/bin/python")?;
        let child = command.args(["-c", RECEIVER]).arg(directory).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap();
        Some(Receiver { child, lines, url: format!("https://127.0.0.1:{port}/") })
    }

    fn options(&self) -> Options {
        Options::from(["--stall-after", "1h", "--webhook", &self.url])
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_receiver_is_trusted_by_its_authority_and_not_without() {
    let scratch = Scratch::make();
    let Some(mut receiver) = Receiver::start(scratch.directory()) else { return };
    let stranger = Server::start(receiver.options());
    let mut worker = AgentProcess::start(stranger.socket(), &["--name", "not-sent"]);
    worker.ask("status critical");
    let refusal = stranger.expect(line_with("does not take notices"));
    assert!(refusal.to_string().contains("UnknownIssuer"), "{refusal}");
    drop(stranger);

    let server = Server::start(receiver.options().path("--alert-ca-file", &scratch.path("ca.pem")));
    let mut worker = AgentProcess::start(server.socket(), &["--name", "sent"]);
    worker.ask("status critical");
    let body = receiver.lines.next().unwrap().unwrap();
    assert!(body.contains("\"firing\"") && body.contains("\"sent\""), "{body}");
}
