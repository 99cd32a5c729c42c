//! Agents that are paused for a time: on the control socket, by the configuration's file, and over restarts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, Ended, LIMIT, Options, Scratch, Server, Signal, agent, line, metric, refused_start,
    run_to_its_end, server_command, sys,
};

const NOBODY: u32 = 65_534;

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

/// The same where it cannot. Gives what it writes to standard error.
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
    server.expect(metric("varta_pauses").is(count));
}

#[test]
fn the_commands_find_a_server_by_its_configuration_file() {
    let scratch = Scratch::make();
    let [file, control] = ["varta.toml", "elsewhere.control"].map(|name| scratch.path(name));
    let other = scratch.path("other.toml");
    let text = format!("socket = \"{}\"\n", scratch.socket().display());
    fs::write(&other, &text).unwrap();
    fs::write(&file, text + &format!("control-socket = \"{}\"\n", control.display())).unwrap();
    let server =
        Server::start(Options::new().env("VARTA_CONFIG", &file).finds_its_socket_at(&scratch.socket()));
    server.expect(line("requests (pause, forget, ack, reload) are taken on "));
    let asked = |variables: &[(&str, &Path)], words: &[&str]| {
        let mut command = server_command();
        command.envs(variables.iter().copied()).args(words);
        run_to_its_end(command)
    };
    let pauses = asked(&[], &["pauses", "--config", file.to_str().unwrap()]);
    assert_eq!((pauses.stdout.as_str(), pauses.stderr.as_str()), ("nobody is paused\n", ""));
    let paused = asked(&[("VARTA_CONFIG", &file)], &["pause", "a", "--for", "1h"]);
    assert!(paused.stdout.starts_with("a is paused until "), "{paused:?}");
    // A variable goes before the file, and a flag before both; where the file has no control socket it is
    // beside the socket.
    let nowhere = Path::new("/nowhere/control");
    let variables = [("VARTA_CONFIG", file.as_path()), ("VARTA_CONTROL_SOCKET", nowhere)];
    assert!(asked(&variables, &["pauses"]).stderr.contains("/nowhere/control: no server answers here"));
    assert!(asked(&variables, &["pauses", "--control-socket", control.to_str().unwrap()]).status.success());
    let beside = asked(&[], &["pauses", "--config", other.to_str().unwrap()]).stderr;
    assert!(beside.contains(&format!("{}.control: no server", scratch.socket().display())), "{beside}");
    fs::write(&other, "\ncontrol-socket = \"none\"").unwrap();
    let off = asked(&[("VARTA_CONFIG", &other)], &["pauses"]);
    assert_eq!(off.status.code(), Some(2));
    assert!(off.stderr.contains("other.toml:2: control-socket none: is turned off"), "{off:?}");
}

fn requests(server: &Server, outcome: &str) -> f64 {
    server.scrape().value("varta_control_requests_total", &[("outcome", outcome)])
}

#[test]
fn agents_are_paused_listed_and_resumed() {
    let server = Server::start(Options::new());
    assert_eq!(done(&server, &["pauses"]), "nobody is paused\n");
    assert_eq!(fs::metadata(server.control_socket()).unwrap().permissions().mode() & 0o777, 0o600);

    let said = done(&server, &["pause", "batch-*", "--for", "1h", "--reason", "kernel update"]);
    assert!(said.starts_with("batch-* is paused until 2"), "{said}");
    await_in_force(&server, 1.0);
    let me = format!("uid {}", sys::user());
    let paused = server.expect(line("batch-* is paused until "));
    assert_eq!(
        (paused["by"].as_str(), paused["reason"].as_str()),
        (Some(me.as_str()), Some("kernel update"))
    );
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
    server.expect(line(&format!("batch-* is no longer paused: {me} has lifted")));
    await_in_force(&server, 0.0);
    refused(&server, &["resume", "batch-*"]);
    assert_eq!(listed(&server), []);
    assert_eq!(requests(&server, "refused"), 2.0);
    assert_eq!(requests(&server, "malformed"), 0.0);
    assert!(requests(&server, "ok") >= 7.0);
}

#[test]
fn a_pause_says_whom_it_matches_now_and_warns_when_that_is_nobody() {
    let server = Server::start(Options::new());
    let pause = |pattern: &str| {
        let ended = command(server.socket(), &["pause", pattern, "--for", "1h"]);
        assert!(ended.status.success(), "{}", ended.stderr);
        (ended.stdout.lines().nth(1).map(str::to_owned), ended.stderr)
    };
    let agents: Vec<_> = ["batch-1", "batch-2", "batch-2", "mail"]
        .iter()
        .map(|name| AgentProcess::start(server.socket(), &["--name", name]))
        .collect();
    server.await_agents("up", agents.len());
    assert_eq!(pause("mail").0.as_deref(), Some("it matches 1 agent now: mail"));
    assert_eq!(pause("batch-*").0.as_deref(), Some("it matches 3 agents now: batch-1, batch-2"));
    let (matched, warning) = pause("bacth-*");
    assert_eq!(matched, None);
    assert!(warning.contains("no agent has a name that bacth-* matches now"), "{warning}");
    // It is a pause all the same.
    assert_eq!(listed(&server).len(), 3);
}

#[test]
fn a_duration_that_may_mean_two_things_is_refused_everywhere() {
    let socket = Path::new("/nowhere");
    let ended = command(socket, &["pause", "batch-*", "--for", "1M"]);
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("1m") && ended.stderr.contains("30d"), "{}", ended.stderr);
    let said = refused_start(2, socket, ["--forget-after", "1M"]);
    assert!(said.contains("minutes or months"), "{said}");
}

#[test]
fn a_pause_ends_by_itself() {
    let server = Server::start(Options::new());
    done(&server, &["pause", "batch-*", "--for", "1s"]);
    server.expect(line("batch-* is no longer paused: the time that uid "));
    await_in_force(&server, 0.0);
    assert_eq!(listed(&server), []);
    refused(&server, &["resume", "batch-*"]);
}

#[test]
fn recovery_leaves_an_agent_that_is_paused_alone_and_its_metrics_are_as_always() {
    let rules = ["--stall-after", "1s", "--recovery-exec", "/bin/true"];
    let server = Server::start(rules);
    let workers = ["batch-1", "mail"].map(|name| server.start_agent(&["--name", name]));
    done(&server, &["pause", "batch-*", "--for", "1h"]);
    for worker in &workers {
        worker.signal(Signal::Kill);
        server.expect(agent(worker).down().because("killed"));
    }
    server.expect(metric("varta_recovery_refused_total").with("reason", "paused").is(1.0));
    let actions = metric("varta_recovery_actions_total").with("action", "command").with("result", "done");
    server.expect(actions.is(1.0));
    for worker in &workers {
        assert_eq!(server.scrape().of_agent("varta_agent_up", worker.pid()), 0.0);
    }
}

#[test]
fn without_a_state_directory_the_answer_says_that_a_restart_forgets_the_pause() {
    let server = Server::start(Options::new());
    let ended = command(server.socket(), &["pause", "a", "--for", "1h"]);
    assert!(ended.status.success() && ended.stderr.contains("no --state-dir"), "{}", ended.stderr);
}

#[test]
fn with_a_state_directory_the_next_server_goes_on_also_after_a_kill() {
    let scratch = Scratch::make();
    let socket = scratch.socket();
    let start = || Server::start(Options::new().in_scratch(&scratch));
    let mut server = start();
    for words in [["pause", "long", "--for", "1h"], ["pause", "short", "--for", "1s"]] {
        let ended = command(&socket, &words);
        assert!(ended.status.success() && !ended.stderr.contains("--state-dir"), "{}", ended.stderr);
    }
    done(&server, &["pause", "lifted", "--for", "1h"]);
    done(&server, &["resume", "lifted"]);
    server.kill();
    assert!(server.control_socket().exists(), "it could not clear up");

    let mut server = start();
    server.expect(line("long is paused until "));
    // The other is over by now, or will be.
    await_in_force(&server, 1.0);
    assert_eq!(listed(&server), [("long".to_owned(), true)]);
    server.stop();
    assert!(!server.control_socket().exists());

    // The file is not as a server wrote it.
    let file = scratch.write("state/pauses.json", "{\"v\":1,\"pauses\":[7]}");
    let server = start();
    server.expect(line(&format!("{}: is broken (", file.display())));
    assert!(scratch.path("state/pauses.json.corrupt").exists());
    assert_eq!(listed(&server), []);
}

#[test]
fn a_pause_that_cannot_be_written_is_in_force_and_the_failure_is_reported() {
    let scratch = Scratch::make();
    let server = Server::start(Options::new().in_scratch(&scratch));
    let file = scratch.path("state/pauses.json");
    // A directory that is not empty cannot be replaced by a file, not even by root.
    fs::create_dir_all(file.join("in-the-way")).unwrap();
    let ended = command(server.socket(), &["pause", "a", "--for", "1h"]);
    assert!(
        ended.status.success() && ended.stderr.contains("pauses.json: cannot be written"),
        "{}",
        ended.stderr
    );
    server.expect(line(&format!("{}: cannot be written", file.display())));
    await_in_force(&server, 1.0);
}

#[test]
fn a_control_socket_belongs_to_one_server_and_may_be_elsewhere_or_nowhere() {
    let scratch = Scratch::make();
    let path = scratch.path("control");
    let with = |path: &Path| Options::new().path("--control-socket", path);
    let server = Server::start(with(&path));
    assert!(!server.control_socket().exists());
    assert!(refused(&server, &["pauses"]).contains("no server answers here"));
    let there = ["pauses", "--control-socket", path.to_str().unwrap()];
    assert_eq!(done(&server, &there), "nobody is paused\n");

    let other = scratch.socket();
    let failure = refused_start(1, &other, [Path::new("--control-socket"), &path]);
    let expected = format!("{}: another server is listening", path.display());
    assert!(failure.contains(&expected) && failure.contains("--control-socket"), "{failure}");
    assert!(!other.exists(), "it leaves nothing behind");
    assert_eq!(done(&server, &there), "nobody is paused\n");

    let without = Server::start(with(Path::new("none")));
    assert!(!without.control_socket().exists());
    let said = refused(&without, &["pause", "a", "--for", "1h"]);
    assert!(said.contains("no server answers here") && said.contains("--control-socket"), "{said}");
    let mut remote = Server::start(Options::new().without_unix_socket().udp("127.0.0.1:0"));
    remote.stop();
    assert!(remote.log().find("requests (pause, forget, ack, reload)").is_none());
}

fn connect(server: &Server) -> UnixStream {
    UnixStream::connect(server.control_socket()).unwrap()
}

/// Sends bytes on a connection of its own, and gives the answer.
#[track_caller]
fn say(server: &Server, bytes: &[u8]) -> Value {
    let mut stream = connect(server);
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
    let long = vec![b'x'; 1 << 20];
    let deep = "[".repeat(8_000);
    let garbage: Vec<u8> = (0..=255).collect();
    let hostile: [(&[u8], &str); 9] = [
        (b"", "is not JSON"),
        (b"\n", "is not JSON"),
        (&garbage, "goes on behind its line"),
        (&long, "is longer than 8192 bytes"),
        (deep.as_bytes(), "is not JSON: recursion limit exceeded"),
        (b"get / HTTP/1.1\r\n", "is not JSON"),
        (b"{\"v\":1,\"do\":\"pauses\",\"x\":1}\n", "x: there is no such key here"),
        (b"{\"v\":1,\"do\":\"pauses\"}\n{\"v\":1,\"do\":\"pauses\"}\n", "goes on behind its line"),
        (b"{\"v\":1,\"do\":\"pause\",\"pattern\":\"*\",\"for_ms\":1}\n", "for_ms: 1ms is not between"),
    ];
    for (bytes, said) in hostile {
        let answer = say(&server, bytes);
        assert_eq!(answer["outcome"], "malformed", "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(said), "{answer}");
    }
    assert_eq!(requests(&server, "malformed"), hostile.len() as f64);

    // What begins as HTTP does is answered so.
    let mut stream = connect(&server);
    stream.write_all(b"GARBAGE\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");

    // A client that sends nothing or does not end its line is cut off after a second; others wait for no
    // longer.
    let silent: Vec<UnixStream> = (0..24).map(|_| connect(&server)).collect();
    for mut stream in silent.iter().step_by(2) {
        stream.write_all(b"{\"v\":1,").unwrap();
    }
    assert_eq!(listed(&server), []);
    for stream in silent {
        let answer = heard(stream);
        assert!(answer["error"].as_str().unwrap().contains("did not come within 1s"), "{answer}");
    }
    // Clients that leave at once, or do not take the answer.
    for _ in 0..64 {
        let mut stream = connect(&server);
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
    let path = server.control_socket();
    let connect = || sys::as_user(NOBODY, || UnixStream::connect(&path)).unwrap();
    assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    // When the file is open to all, the kernel still says which user connects.
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let mut stream = connect().unwrap();
    let _ = stream.write_all(b"{\"v\":1,\"do\":\"pause\",\"pattern\":\"*\",\"for_ms\":3600000}\n");
    let answer = heard(stream);
    assert_eq!(answer["outcome"], "refused", "{answer}");
    assert!(answer["error"].as_str().unwrap().starts_with("uid 65534 may ask for nothing here"), "{answer}");
    assert_eq!(requests(&server, "refused"), 1.0);
    assert_eq!(listed(&server), []);
}

#[test]
fn pauses_of_the_file_are_in_force_and_read_again_and_leave_those_that_were_asked_for() {
    let later = "[[pause]]\nname = \"later\"\nfrom = 9000-01-01T00:00:00Z\nreason = \"far away\"\n";
    let over = "[[pause]]\nname = \"over\"\nuntil = 2000-01-01T00:00:00+01:00\n";
    let scratch = Scratch::make();
    let text = format!("[[pause]]\nname = \"now\"\n{later}{over}");
    let server = Server::start(Options::new().config(&scratch, &text));
    let now = server.expect(line("now is paused until further notice, by configuration"));
    assert_eq!(now["by"], "configuration");
    await_in_force(&server, 1.0);
    assert_eq!(listed(&server), [("now".to_owned(), true), ("later".to_owned(), false)]);
    assert!(done(&server, &["pauses"]).contains(" (to come)"));
    done(&server, &["pause", "asked", "--for", "1h"]);
    await_in_force(&server, 2.0);
    let said = refused(&server, &["resume", "now"]);
    assert!(said.contains("now is paused by the configuration's file"), "{said}");

    let read_again = |text: &str, start: &str| {
        scratch.write("varta.toml", text);
        server.signal(Signal::HangUp);
        server.expect(line(start))
    };
    let name = scratch.path("varta.toml");
    let name = name.display();
    read_again("[[pause]]\nname = 7\n", "keys and configuration stay as they were: ");
    assert_eq!(listed(&server).len(), 3);
    let text = format!("{later}[[pause]]\nname = \"new\"\nuntil = 9000-01-01T00:00:00Z\n");
    read_again(&text, &format!("{name} was read again: 0 rules, 0 expected agents, 2 pauses"));
    server.expect(line("now is no longer paused: that was taken out of the configuration's file"));
    server.expect(line("new is paused until 9000-01-01T00:00:00.000Z, by configuration"));
    let expected = [("later", false), ("new", true), ("asked", true)];
    assert_eq!(listed(&server), expected.map(|(name, is_in_force)| (name.to_owned(), is_in_force)));
    await_in_force(&server, 2.0);
}
