//! Notices over TLS: who is trusted, and who is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use varta_integration_tests::{AgentProcess, Options, Server, foreign, wait_for};

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
    let directory = tempfile::tempdir().unwrap();
    let Some(mut receiver) = Receiver::start(directory.path()) else { return };
    let ca: PathBuf = directory.path().join("ca.pem");
    let stranger = Server::start(receiver.options());
    let mut worker = AgentProcess::start(stranger.socket(), &["--name", "told-to-nobody"]);
    worker.ask("status critical");
    let is_refused = || {
        let lines = stranger.log().lines();
        lines.into_iter().find(|line| line.contains("does not take notices"))
    };
    let said = wait_for(is_refused).expect("it says that it cannot send");
    assert!(said.contains("UnknownIssuer"), "{said}");
    drop(stranger);

    let server = Server::start(receiver.options().args([Path::new("--alert-ca-file"), &ca]));
    let mut worker = AgentProcess::start(server.socket(), &["--name", "told"]);
    worker.ask("status critical");
    let body = receiver.lines.next().unwrap().unwrap();
    assert!(body.contains("\"firing\"") && body.contains("\"told\""), "{body}");
}
