//! Agents that are paused for a time: on the control socket, by the configuration's file, and over restarts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, Ended, LIMIT, Options, Server, Signal, run_to_its_end, server_command, sys, wait_for,
};

const NOBODY: u32 = 65_534;

/// The control socket of the server whose socket is here.
fn control(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".control");
    path.into()
}

/// Runs one of the commands that speak to a running server.
fn command(socket: &Path, words: &[&str]) -> Ended {
    let mut command = server_command();
    command.env("VARTA_SOCKET", socket).args(words);
    run_to_its_end(command)
}

/// The same where it is expected to do what it should. Gives what it prints.
#[track_caller]
fn done(server: &Server, words: &[&str]) -> String {
    let ended = command(server.socket(), words);
    assert!(ended.status.success(), "{words:?}: {}", ended.stderr);
    ended.stdout
}

/// The same where it cannot. Gives what it says.
#[track_caller]
fn refused(server: &Server, words: &[&str]) -> String {
    let ended = command(server.socket(), words);
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{words:?}: {}", ended.stderr);
    ended.stderr
}

/// The patterns of all pauses, and whether each is in force.
#[track_caller]
fn listed(server: &Server) -> Vec<(String, bool)> {
    let text = done(server, &["pauses", "--json"]);
    let listed: Value = serde_json::from_str(&text).unwrap();
    let pauses = listed["pauses"].as_array().unwrap();
    let of =
        |pause: &Value| (pause["pattern"].as_str().unwrap().to_owned(), pause["in_force"].as_bool().unwrap());
    pauses.iter().map(of).collect()
}

#[track_caller]
fn await_in_force(server: &Server, count: f64) {
    server.await_sample("varta_pauses", &[], |value| value == count);
}

#[track_caller]
fn await_line(server: &Server, start: &str) -> Value {
    wait_for(|| server.log().find(start))
        .unwrap_or_else(|| panic!("not in the log within {LIMIT:?}: {start}"))
}

fn requests(server: &Server, outcome: &str) -> f64 {
    server.scrape().value("varta_control_requests_total", &[("outcome", outcome)])
}

#[test]
fn agents_are_paused_listed_and_resumed() {
    let server = Server::start(Options::new());
    assert_eq!(done(&server, &["pauses"]), "nobody is paused\n");
    assert_eq!(fs::metadata(control(server.socket())).unwrap().permissions().mode() & 0o777, 0o600);

    let said = done(&server, &["pause", "batch-*", "--for", "1h", "--reason", "kernel update"]);
    assert!(said.starts_with("batch-* is paused until 2"), "{said}");
    await_in_force(&server, 1.0);
    let me = format!("uid {}", sys::user());
    let line = await_line(&server, "batch-* is paused until ");
    assert_eq!((line["by"].as_str(), line["reason"].as_str()), (Some(me.as_str()), Some("kernel update")));
    assert_eq!(listed(&server), [("batch-*".to_owned(), true)]);
    let table = done(&server, &["pauses"]);
    assert!(
        table.starts_with("PATTERN  FROM ") && table.ends_with(&format!("  {me}  kernel update\n")),
        "{table}"
    );

    // The same pattern once more is the same pause, for another time.
    done(&server, &["pause", "batch-*", "--for", "2h"]);
    assert_eq!(listed(&server).len(), 1);

    let said = refused(&server, &["resume", "batch-1"]);
    assert!(said.contains("there is no pause of batch-1; `varta-server pauses`"), "{said}");
    assert_eq!(done(&server, &["resume", "batch-*"]), "the pause of batch-* is lifted\n");
    await_line(&server, &format!("batch-* is no longer paused: {me} has lifted"));
    await_in_force(&server, 0.0);
    refused(&server, &["resume", "batch-*"]);
    assert_eq!(listed(&server), []);
    assert_eq!(requests(&server, "refused"), 2.0);
    assert_eq!(requests(&server, "malformed"), 0.0);
    assert!(requests(&server, "ok") >= 7.0);
}

#[test]
fn a_pause_ends_by_itself() {
    let server = Server::start(Options::new());
    done(&server, &["pause", "batch-*", "--for", "1s"]);
    await_line(&server, "batch-* is no longer paused: the time that uid ");
    await_in_force(&server, 0.0);
    assert_eq!(listed(&server), []);
    refused(&server, &["resume", "batch-*"]);
}

#[test]
fn nothing_is_done_about_an_agent_that_is_paused_and_it_is_shown_as_always() {
    let rules = ["--stall-after", "1s", "--recovery-exec", "/bin/true"];
    let server = Server::start(rules);
    let agents = ["batch-1", "mail"].map(|name| AgentProcess::start(server.socket(), &["--name", name]));
    server.await_agents("up", 2);
    done(&server, &["pause", "batch-*", "--for", "1h"]);
    for agent in &agents {
        agent.signal(Signal::Kill);
        server.await_transition(agent.pid(), "down", "killed");
    }
    server.await_sample("varta_recovery_refused_total", &[("reason", "paused")], |value| value == 1.0);
    let labels = [("action", "command"), ("result", "done")];
    server.await_sample("varta_recovery_actions_total", &labels, |value| value == 1.0);
    for agent in &agents {
        assert_eq!(server.scrape().of_agent("varta_agent_up", agent.pid()), 0.0);
    }
}

#[test]
fn without_a_state_directory_the_person_who_asks_is_told_that_a_restart_forgets_it() {
    let server = Server::start(Options::new());
    let ended = command(server.socket(), &["pause", "a", "--for", "1h"]);
    assert!(ended.status.success() && ended.stderr.contains("no --state-dir"), "{}", ended.stderr);
}

#[test]
fn with_a_state_directory_the_next_server_goes_on_also_after_a_kill() {
    let place = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
    let (socket, state) = (place.path().join("varta.sock"), place.path().join("state"));
    let start = || Server::start(Options::new().socket(&socket).args([Path::new("--state-dir"), &state]));
    let mut server = start();
    for words in [["pause", "long", "--for", "1h"], ["pause", "short", "--for", "1s"]] {
        let ended = command(&socket, &words);
        assert!(ended.status.success() && ended.stderr.is_empty(), "{}", ended.stderr);
    }
    done(&server, &["pause", "lifted", "--for", "1h"]);
    done(&server, &["resume", "lifted"]);
    server.signal(Signal::Kill);
    server.wait();
    assert!(control(&socket).exists(), "it could not clear up");

    let mut server = start();
    await_line(&server, "long is paused until ");
    // The other is over by now, or will be.
    await_in_force(&server, 1.0);
    assert_eq!(listed(&server), [("long".to_owned(), true)]);
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
    assert!(!control(&socket).exists());

    // Somebody has spoilt it.
    fs::write(state.join("pauses.json"), "{\"v\":1,\"pauses\":[7]}").unwrap();
    let server = start();
    await_line(&server, &format!("{}: is broken (", state.join("pauses.json").display()));
    assert!(state.join("pauses.json.corrupt").exists());
    assert_eq!(listed(&server), []);
}

#[test]
fn a_pause_that_cannot_be_kept_counts_and_is_told_to_be_in_danger() {
    let state = tempfile::tempdir().unwrap();
    let server = Server::start(Options::new().args([Path::new("--state-dir"), state.path()]));
    // What a directory cannot be written over by, also not by root.
    fs::create_dir_all(state.path().join("pauses.json/in-the-way")).unwrap();
    let ended = command(server.socket(), &["pause", "a", "--for", "1h"]);
    assert!(
        ended.status.success() && ended.stderr.contains("pauses.json: cannot be written"),
        "{}",
        ended.stderr
    );
    await_line(&server, &format!("{}: cannot be written", state.path().join("pauses.json").display()));
    await_in_force(&server, 1.0);
}

#[test]
fn a_control_socket_belongs_to_one_server_and_may_be_elsewhere_or_nowhere() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("control");
    let with = |path: &Path| Options::new().args([Path::new("--control-socket"), path]);
    let server = Server::start(with(&path));
    assert!(!control(server.socket()).exists());
    assert!(refused(&server, &["pauses"]).contains("no server answers here"));
    let there = ["pauses", "--control-socket", path.to_str().unwrap()];
    assert_eq!(done(&server, &there), "nobody is paused\n");

    let mut second = server_command();
    second.env("VARTA_METRICS_ADDR", "127.0.0.1:0").args(["--control-socket".as_ref(), path.as_os_str()]);
    let other = place.path().join("varta.sock");
    second.arg("--socket").arg(&other);
    let ended = run_to_its_end(second);
    assert_eq!(ended.status.code(), Some(1));
    let expected = format!("{}: another server is listening", path.display());
    assert!(
        ended.stderr.contains(&expected) && ended.stderr.contains("--control-socket"),
        "{}",
        ended.stderr
    );
    assert!(!other.exists(), "it leaves nothing behind");
    assert_eq!(done(&server, &there), "nobody is paused\n");

    let without = Server::start(with(Path::new("none")));
    assert!(!control(without.socket()).exists());
    let said = refused(&without, &["pause", "a", "--for", "1h"]);
    assert!(said.contains("no server answers here") && said.contains("--control-socket"), "{said}");
    let remote = Server::start(Options::new().without_unix_socket().udp("127.0.0.1:0"));
    assert!(remote.log().find("pauses can be asked for").is_none());
}

/// Sends bytes on a connection of its own, and gives the answer.
#[track_caller]
fn say(socket: &Path, bytes: &[u8]) -> Value {
    let mut stream = UnixStream::connect(control(socket)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // A server that has read enough hangs up, and its answer can still be read.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    heard(stream)
}

#[track_caller]
fn heard(mut stream: UnixStream) -> Value {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    // To the end, of whatever kind that is.
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        answer.extend_from_slice(&piece[..length]);
    }
    serde_json::from_slice(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[test]
fn hostile_input_is_answered_counted_and_hurts_nobody() {
    let server = Server::start(Options::new());
    let socket = server.socket();
    let long = vec![b'x'; 1 << 20];
    let deep = "[".repeat(8_000);
    let garbage: Vec<u8> = (0..=255).collect();
    let hostile: [(&[u8], &str); 9] = [
        (b"", "is not JSON"),
        (b"\n", "is not JSON"),
        (&garbage, "goes on behind its line"),
        (&long, "is longer than 8192 bytes"),
        (deep.as_bytes(), "is not JSON: recursion limit exceeded"),
        (b"GET / HTTP/1.1\r\n", "is not JSON"),
        (b"{\"v\":1,\"do\":\"pauses\",\"x\":1}\n", "x: there is no such key here"),
        (b"{\"v\":1,\"do\":\"pauses\"}\n{\"v\":1,\"do\":\"pauses\"}\n", "goes on behind its line"),
        (b"{\"v\":1,\"do\":\"pause\",\"pattern\":\"*\",\"for_ms\":1}\n", "for_ms: 1ms is not between"),
    ];
    for (bytes, said) in hostile {
        let answer = say(socket, bytes);
        assert_eq!(answer["outcome"], "malformed", "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(said), "{answer}");
    }
    assert_eq!(requests(&server, "malformed"), hostile.len() as f64);

    // Who says nothing, and who does not end his line, is cut off after a second; others wait for no longer.
    let silent: Vec<UnixStream> = (0..24).map(|_| UnixStream::connect(control(socket)).unwrap()).collect();
    for mut stream in silent.iter().step_by(2) {
        stream.write_all(b"{\"v\":1,").unwrap();
    }
    assert_eq!(listed(&server), []);
    for stream in silent {
        let answer = heard(stream);
        assert!(answer["error"].as_str().unwrap().contains("did not come within 1s"), "{answer}");
    }
    // Who leaves at once, or does not take his answer.
    for _ in 0..64 {
        let mut stream = UnixStream::connect(control(socket)).unwrap();
        stream.write_all(b"{\"v\":1,\"do\":\"pauses\"}\n").unwrap();
    }
    assert_eq!(listed(&server), []);
    await_in_force(&server, 0.0);
}

#[test]
fn another_user_is_refused_and_counted() {
    if sys::user() != 0 {
        skip("only root can become another user");
        return;
    }
    let server = Server::start(Options::new().open_to_all());
    let path = control(server.socket());
    let connect = || sys::as_user(NOBODY, || UnixStream::connect(&path)).unwrap();
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    // Somebody has opened the file to all; the kernel still says who comes.
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let mut stream = connect().unwrap();
    let _ = stream.write_all(b"{\"v\":1,\"do\":\"pause\",\"pattern\":\"*\",\"for_ms\":3600000}\n");
    let answer = heard(stream);
    assert_eq!(answer["outcome"], "refused", "{answer}");
    assert!(answer["error"].as_str().unwrap().starts_with("uid 65534 may ask for nothing here"), "{answer}");
    assert_eq!(requests(&server, "refused"), 1.0);
    assert_eq!(listed(&server), []);
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("varta.toml");
    fs::write(&path, text).unwrap();
    (directory, path)
}

#[test]
fn pauses_of_the_file_are_in_force_and_read_again_and_leave_those_that_were_asked_for() {
    let later = "[[pause]]\nname = \"later\"\nfrom = 9000-01-01T00:00:00Z\nreason = \"far away\"\n";
    let over = "[[pause]]\nname = \"over\"\nuntil = 2000-01-01T00:00:00+01:00\n";
    let (_directory, path) = file(&format!("[[pause]]\nname = \"now\"\n{later}{over}"));
    let server = Server::start(Options::new().args([Path::new("--config"), &path]));
    let line = await_line(&server, "now is paused until further notice, by configuration");
    assert_eq!(line["by"], "configuration");
    await_in_force(&server, 1.0);
    assert_eq!(listed(&server), [("now".to_owned(), true), ("later".to_owned(), false)]);
    assert!(done(&server, &["pauses"]).contains(" (to come)"));
    done(&server, &["pause", "asked", "--for", "1h"]);
    await_in_force(&server, 2.0);
    let said = refused(&server, &["resume", "now"]);
    assert!(said.contains("now is paused by the configuration's file"), "{said}");

    let read_again = |text: &str, start: &str| {
        fs::write(&path, text).unwrap();
        server.signal(Signal::HangUp);
        await_line(&server, start)
    };
    let name = path.display();
    read_again("[[pause]]\nname = 7\n", "rules, expected agents and pauses stay as they were: ");
    assert_eq!(listed(&server).len(), 3);
    let text = format!("{later}[[pause]]\nname = \"new\"\nuntil = 9000-01-01T00:00:00Z\n");
    read_again(&text, &format!("{name} was read again: 0 rules, 0 expected agents and 2 pauses"));
    await_line(&server, "now is no longer paused: that was taken out of the configuration's file");
    await_line(&server, "new is paused until 9000-01-01T00:00:00.000Z, by configuration");
    let expected = [("later", false), ("new", true), ("asked", true)];
    assert_eq!(listed(&server), expected.map(|(name, is_in_force)| (name.to_owned(), is_in_force)));
    await_in_force(&server, 2.0);
}
