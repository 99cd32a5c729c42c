//! How the server starts, its errors when it cannot, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use varta_integration_tests::{
    AgentProcess, Datagrams, Options, Scratch, Server, Signal, agent, http, line, refused_start, run_server,
    run_to_its_end, server_command, worker_command,
};
use varta_proto::{Frame, Status};

const NO_OPTIONS: [&str; 0] = [];
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Every option of this version that takes a value. Unit files rely on them.
const OPTIONS: [&str; 85] = [
    "socket",
    "socket-mode",
    "notify-socket",
    "notify-socket-mode",
    "socket-group",
    "control-socket",
    "allow-uid",
    "allow-gid",
    "udp",
    "secure-udp",
    "key-file",
    "accepted-key-file",
    "master-key-file",
    "socket-queue",
    "udp-receive-buffer",
    "metrics-addr",
    "metrics-token-file",
    "api-token-file",
    "metrics-basic-auth-file",
    "metrics-tls-cert",
    "metrics-tls-key",
    "stall-after",
    "no-progress-after",
    "longest-silence",
    "detector",
    "phi-threshold",
    "phi-acceptable-pause",
    "phi-min-deviation",
    "chen-mistake-every",
    "chen-detect-within",
    "chen-corrected-within",
    "min-learned-stall-after",
    "max-learned-stall-after",
    "config",
    "max-agents",
    "max-agents-per-source",
    "max-shm-agents",
    "agent-metrics",
    "max-beat-rate",
    "max-total-rate",
    "forget-after",
    "replaced-within",
    "state-dir",
    "record",
    "record-limit",
    "recovery-exec",
    "recovery-debounce",
    "recovery-timeout",
    "recovery-attempts",
    "recovery-backoff",
    "recovery-group-budget",
    "recovery-max-pressure",
    "recovery-budget",
    "recovery-env",
    "events-file",
    "events-limit",
    "events-keep",
    "audit-log",
    "audit-key-file",
    "audit-limit",
    "audit-keep",
    "alertmanager",
    "webhook",
    "webhook-key-file",
    "webhook-signature",
    "webhook-template",
    "mail-relay",
    "mail-from",
    "mail-to",
    "mail-credentials-file",
    "mail-template",
    "alert-ca-file",
    "alert-resend-every",
    "alert-give-up-after",
    "flap-limit",
    "flap-window",
    "heartbeat-url",
    "heartbeat-every",
    "heartbeat-ca-file",
    "beat-to",
    "beat-every",
    "hw-watchdog",
    "hw-watchdog-timeout",
    "log-format",
    "log-level",
];

/// Those of them whose values may hold secrets.
const HIDDEN: [&str; 4] = ["alertmanager", "webhook", "mail-relay", "heartbeat-url"];

/// And every one that takes none.
const SWITCHES: [&str; 5] = [
    "allow-plaintext-remote",
    "recovery-dry-run",
    "allow-recovery-for-remote",
    "recovery-without-audit",
    "take-over",
];

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// Sends one beat of this process, and waits until it is known.
#[track_caller]
fn introduce(server: &Server) {
    let mut datagrams = Datagrams::to(server.socket());
    datagrams.send(&Frame::new(Status::Ok, process::id(), 1, 1, 0).to_bytes());
    server.expect(agent(process::id()).up());
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

// Help and version.

#[test]
fn help_names_every_option_with_its_variable() {
    let ended = run_server(["--help"]);
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
    let written = OPTIONS.map(|name| (name, format!("--{name} <")));
    for (name, option) in written.into_iter().chain(SWITCHES.map(|name| (name, format!("--{name}\n")))) {
        let variable = format!("VARTA_{}", name.replace('-', "_").to_uppercase());
        // The value of a variable that may hold secrets is not shown.
        let end = if HIDDEN.contains(&name) { "]" } else { "=" };
        assert_says(&ended.stdout, &[&option, &format!("[env: {variable}{end}")]);
    }
    let named: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with("      --")).collect();
    assert_eq!(named.len(), OPTIONS.len() + SWITCHES.len(), "an option that nobody expects: {named:#?}");
    assert_says(&ended.stdout, &["Exit status: 0", "SIGTERM", "SIGHUP"]);
}

#[test]
fn version_is_a_line_of_name_version_and_commit() {
    let ended = run_server(["--version"]);
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
    let (name_and_version, commit) = ended.stdout.trim_end().split_once(" (").unwrap();
    assert_eq!(name_and_version, concat!("varta-server ", env!("CARGO_PKG_VERSION")));
    assert!(commit.len() > 1 && commit.ends_with(')') && !commit.contains('\n'), "{commit}");
}

// What is in its way.

#[test]
fn a_second_server_on_a_socket_is_refused_and_the_first_goes_on() {
    let first = Server::start(Options::new());
    let worker = AgentProcess::start(first.socket(), &[]);
    let before = identity(first.socket()).unwrap();
    let said = refused_start(1, first.socket(), NO_OPTIONS);
    assert_says(&said, &[first.socket().to_str().unwrap(), "another server is listening"]);
    assert_eq!(identity(first.socket()).unwrap(), before);
    first.await_beats(&[worker.pid()], 5);
    // And an agent that comes now finds the first.
    let late = AgentProcess::start(first.socket(), &[]);
    first.await_beats(&[worker.pid(), late.pid()], 1);
}

#[test]
fn the_socket_of_a_server_that_was_killed_is_replaced() {
    let scratch = Scratch::make();
    let path = scratch.socket();
    let mut first = Server::start(Options::new().socket(&path));
    first.signal(Signal::Kill);
    first.wait();
    assert!(path.exists(), "a killed server cannot clean up");
    let second = Server::start(Options::new().socket(&path));
    introduce(&second);
}

#[test]
fn a_file_that_is_no_socket_is_refused_and_left_as_it_is() {
    let scratch = Scratch::make();
    let path = scratch.socket();
    fs::write(&path, "precious").unwrap();
    assert_says(&refused_start(1, &path, NO_OPTIONS), &[path.to_str().unwrap(), "not a socket"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    let link = scratch.path("link.sock");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_says(&refused_start(1, &link, NO_OPTIONS), &[link.to_str().unwrap(), "not a socket"]);
    assert_eq!(fs::read_link(&link).unwrap(), path);
}

#[test]
fn a_port_that_is_taken_is_named_and_no_socket_is_left_behind() {
    let scratch = Scratch::make();
    let socket = scratch.socket();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_says(&refused_start(1, &socket, ["--metrics-addr", &address]), &[&address, "--metrics-addr"]);
    assert!(!socket.exists());
}

// Where it finds and puts things.

#[test]
fn a_server_and_an_agent_without_any_options_find_each_other() {
    let runtime = Scratch::make();
    let directory = runtime.path("varta");
    let socket = directory.join("varta.sock");
    let server = Server::start(
        Options::new().env("XDG_RUNTIME_DIR", runtime.directory()).finds_its_socket_at(&socket),
    );
    assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);

    let mut command = worker_command();
    command.arg("--default-socket").env("XDG_RUNTIME_DIR", runtime.directory());
    let worker = AgentProcess::run(command);
    server.await_beats(&[worker.pid()], 3);
}

#[test]
fn systemds_runtime_directory_goes_before_the_users() {
    let scratches = [Scratch::make(), Scratch::make()];
    let [systemd, user] = scratches.each_ref().map(Scratch::directory);
    let socket = systemd.join("varta.sock");
    let options = Options::new().env("RUNTIME_DIRECTORY", systemd).env("XDG_RUNTIME_DIR", user);
    introduce(&Server::start(options.finds_its_socket_at(&socket)));
    assert!(!user.join("varta").exists());
}

#[test]
fn a_default_directory_that_others_may_write_to_is_refused() {
    let runtime = Scratch::make();
    let directory = runtime.path("varta");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    let mut command = server_command();
    command.args(["--metrics-addr", "127.0.0.1:0"]).env("XDG_RUNTIME_DIR", runtime.directory());
    let ended = run_to_its_end(command);
    assert_eq!(ended.status.code(), Some(1));
    assert_says(&ended.stderr, &[directory.to_str().unwrap(), "0700"]);
}

#[test]
fn the_socket_has_the_mode_and_the_first_line_the_place() {
    let server = Server::start(["--socket-mode", "0620"]);
    assert_eq!(fs::metadata(server.socket()).unwrap().mode() & 0o777, 0o620);
    let first = server.log().find("listening on unix:").unwrap();
    assert_eq!(first["path"].as_str(), server.socket().to_str());
    assert!(server.log().lines()[0].contains("listening on unix:"), "it is the first line");
}

#[test]
fn directories_that_are_missing_are_made_for_their_owner_only_and_logged() {
    let scratch = Scratch::make();
    // (Option, directory, file in it, mode of the directory.)
    let places = [
        ("--socket", "run/varta", "varta.sock", 0o700),
        ("--control-socket", "control/varta", "control", 0o700),
        ("--state-dir", "lib/varta", "varta.db", 0o700),
        ("--record", "recordings/today", "beats", 0o700),
        ("--events-file", "log/varta", "events.json", 0o750),
        ("--audit-log", "audit/varta", "audit.log", 0o700),
    ];
    let options = places.iter().fold(Options::new(), |options, (option, directory, file, _)| {
        let directory = scratch.path(directory);
        match *option {
            "--socket" => options.socket(&directory.join(file)),
            "--state-dir" => options.path(option, &directory),
            _ => options.path(option, &directory.join(file)),
        }
    });
    let server = Server::start(options);
    for (option, directory, file, mode) in places {
        let path = scratch.path(directory);
        let made =
            server.expect(line(&format!("made the directory {} with mode {mode:04o}", path.display())));
        assert_eq!(made["level"], "INFO");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{option}");
        assert!(path.join(file).exists(), "{option}");
    }
}

#[test]
fn several_sockets_lead_to_the_same_server() {
    let other = Scratch::make();
    let path = other.path("other.sock");
    let server = Server::start(Options::new().args(["--socket", path.to_str().unwrap()]));
    let workers = [server.socket(), &path].map(|socket| AgentProcess::start(socket, &[]));
    server.await_beats(&workers.each_ref().map(AgentProcess::pid), 3);
}

#[test]
fn an_option_comes_from_the_environment_unless_it_is_on_the_command_line() {
    let stall_after = |server: &Server| {
        introduce(server);
        server.scrape().of_agent("varta_agent_stall_after_seconds", process::id())
    };
    assert_eq!(stall_after(&Server::start(Options::new())), 5.0);
    let variable = || Options::new().env("VARTA_STALL_AFTER", "1m30s").env("VARTA_MAX_AGENTS", "7");
    let server = Server::start(variable());
    assert_eq!(stall_after(&server), 90.0);
    assert_eq!(server.scrape().value("varta_tracker_capacity", &[]), 7.0);
    let server = Server::start(variable().args(["--stall-after", "2500ms"]));
    assert_eq!(stall_after(&server), 2.5);
    assert_eq!(server.scrape().value("varta_tracker_capacity", &[]), 7.0);
}

// Who may read the metrics.

#[test]
fn a_host_may_be_named_and_its_first_ipv4_address_is_taken() {
    let server = Server::start(["--metrics-addr", "localhost:0", "--udp", "localhost:0"]);
    assert!(server.address().ip().is_ipv4() && server.address().ip().is_loopback());
    server.expect(line("listening on udp:127.0.0.1:"));
    // No resolver is asked for a label of more than 63 letters, and none knows it.
    let host = "x".repeat(70);
    let address = format!("{host}:9844");
    for option in ["--udp", "--secure-udp", "--metrics-addr"] {
        let scratch = Scratch::make();
        // Which --secure-udp needs, and the others do not take.
        let key = (option == "--secure-udp").then_some(["--key-file", "key"]);
        let words = [option, &address].into_iter().chain(key.into_iter().flatten());
        let said = refused_start(1, &scratch.socket(), words);
        assert_says(
            &said,
            &[&format!("{option} {address}: the address of the host {host} cannot be found: ")],
        );
        assert!(!scratch.socket().exists());
    }
}

#[test]
fn a_token_is_asked_for_everything_but_health() {
    let scratch = Scratch::make();
    let path = scratch.path("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let server = Server::start(["--metrics-token-file", path.to_str().unwrap()]);
    let status = |path: &str, shown: Option<&str>| {
        let headers: Vec<_> = shown.map(|shown| ("Authorization", shown)).into_iter().collect();
        http::get(server.address(), path, &headers).unwrap().status
    };

    let refused = server.get("/metrics");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert!(!refused.body.contains("varta_"));
    assert_eq!(status("/metrics", Some(&format!("Bearer {TOKEN}"))), 200);
    for scheme in ["bearer", "BEARER"] {
        assert_eq!(status("/metrics", Some(&format!("{scheme} {TOKEN}"))), 200, "{scheme}");
    }
    for wrong in [&format!("Bearer {TOKEN}x"), &format!("Basic {TOKEN}"), TOKEN, "Bearer ", ""] {
        assert_eq!(status("/metrics", Some(wrong)), 401, "{wrong}");
    }
    assert_eq!((status("/healthz", None), status("/readyz", None)), (200, 200));
    assert!(!server.log().lines().concat().contains(TOKEN));
}

#[test]
fn a_pipe_given_as_any_file_ends_the_start_at_once_and_is_named() {
    let scratch = Scratch::make();
    let pipe = scratch.path("pipe");
    mkfifo(&pipe, Mode::from_bits_truncate(0o600)).unwrap();
    let state = scratch.path("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    let name = pipe.to_str().unwrap();
    let https = "https://localhost:9093";
    let exec = "--recovery-exec=true";
    for arguments in [
        &["--config", name][..],
        &["--metrics-token-file", name],
        &["--metrics-basic-auth-file", name],
        &["--metrics-tls-cert", name, "--metrics-tls-key", "tls.key"],
        &["--secure-udp", "127.0.0.1:0", "--key-file", name],
        &["--secure-udp", "127.0.0.1:0", "--accepted-key-file", name],
        &["--secure-udp", "127.0.0.1:0", "--master-key-file", name],
        &["--alertmanager", https, "--alert-ca-file", name],
        &["--webhook", https, "--webhook-key-file", name],
        &["--events-file", name],
        &[exec, "--audit-log", name],
        &[exec, "--audit-log", "audit.log", "--audit-key-file", name],
        &["--state-dir", name],
        &["--record", name],
    ] {
        let mut command = server_command();
        command
            .env("VARTA_METRICS_ADDR", "127.0.0.1:0")
            .arg("--socket")
            .arg(scratch.socket())
            .args(arguments);
        let ended = run_to_its_end(command);
        assert!(matches!(ended.status.code(), Some(1 | 2)), "{arguments:?}: {:?}", ended.status);
        assert!(ended.stderr.contains(name), "{arguments:?}: {}", ended.stderr);
    }
    for file in ["varta.db", "varta.db-journal", "varta.db-wal", "varta.lock"] {
        let path = state.join(file);
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let said = refused_start(1, &scratch.socket(), ["--state-dir", state.to_str().unwrap()]);
        assert!(said.contains("varta.") && said.contains("is not a regular file"), "{file}: {said}");
        fs::remove_dir_all(&state).unwrap();
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    }
    let said = refused_start(1, &pipe.join("varta.sock"), NO_OPTIONS);
    assert!(said.contains(name), "{said}");
}

#[test]
fn with_a_token_metrics_may_be_for_the_network() {
    let scratch = Scratch::make();
    let path = scratch.path("token");
    fs::write(&path, TOKEN).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let options = ["--metrics-addr", "0.0.0.0:0", "--metrics-token-file", path.to_str().unwrap()];
    assert_eq!(Server::start(options).get("/metrics").status, 401);
}

// How it ends.

#[test]
fn a_signal_to_stop_ends_it_in_order_and_its_socket_goes() {
    for signal in [Signal::Terminate, Signal::Interrupt] {
        let mut server = Server::start(Options::new());
        let worker = AgentProcess::start(server.socket(), &["--interval-ms", "10"]);
        server.await_beats(&[worker.pid()], 3);
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "{signal:?}");
        assert!(!server.socket().exists(), "{signal:?}");
        assert!(http::connect(server.address()).is_err(), "{signal:?}");
        assert!(server.log().find("stopping").is_some(), "{signal:?}");
    }
}

#[test]
fn a_hang_up_does_not_stop_it() {
    let server = Server::start(Options::new());
    let worker = AgentProcess::start(server.socket(), &[]);
    for _ in 0..3 {
        server.signal(Signal::HangUp);
    }
    server.expect(line("there is no file to read again"));
    server.await_beats(&[worker.pid()], 3);
}

#[test]
fn a_socket_that_took_the_place_of_its_own_is_not_removed() {
    let mut server = Server::start(Options::new());
    fs::remove_file(server.socket()).unwrap();
    let _successor = UnixDatagram::bind(server.socket()).unwrap();
    let before = identity(server.socket()).unwrap();
    server.signal(Signal::Terminate);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(identity(server.socket()).unwrap(), before);
}

#[test]
fn an_empty_variable_counts_as_unset_and_a_switch_takes_the_usual_words() {
    let options = OPTIONS.into_iter().chain(SWITCHES).filter(|name| *name != "socket");
    let cleared = options.fold(Options::new(), |options, name| {
        options.env(&format!("VARTA_{}", name.replace('-', "_").to_uppercase()), "")
    });
    // It is started with some of these as the tests need them; those are on its command line.
    let server = Server::start(cleared.args(["--metrics-addr", "127.0.0.1:0", "--log-format", "json"]));
    assert_eq!(server.log().find_all("listening on ").len(), 1);
    drop(server);
    for (word, is_taken) in [("1", true), ("true", true), ("0", false), ("no", false)] {
        let mut command = server_command();
        command.env("VARTA_ALLOW_PLAINTEXT_REMOTE", word).args(["--socket", "none", "--udp", "0.0.0.0:0"]);
        // Where plaintext is allowed the next fault is reported.
        command.args(["--metrics-addr", "0.0.0.0:0"]);
        let said = run_to_its_end(command).stderr;
        assert_eq!(said.contains("--udp 0.0.0.0:0: is not a loopback"), !is_taken, "{word}: {said}");
    }
}

/// Has this process change its status so often that the log is more than a pipe takes, which is 64 KiB: each
/// change is a line of more than 200 bytes.
#[track_caller]
fn assert_beats_are_taken_whatever_becomes_of_the_log(mut server: Server) {
    const CHANGES: u32 = 3_000;
    let mut datagrams = Datagrams::to(server.socket());
    for nonce in 1..=CHANGES {
        let status = if nonce % 2 == 0 { Status::Ok } else { Status::Degraded };
        let nonce = u64::from(nonce);
        datagrams.send(&Frame::new(status, process::id(), nonce * 1_000, nonce, 0).to_bytes());
    }
    let scrape = server.await_datagrams(datagrams.sent());
    assert_eq!(scrape.of_agent("varta_beats_total", process::id()), f64::from(CHANGES));
    assert_eq!(scrape.sum("varta_transitions_total", &[]), f64::from(CHANGES));
    server.await_ready();
    server.signal(Signal::Terminate);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!server.socket().exists());
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_beats_nor_the_end() {
    let server = Server::start(Options::from(["--stall-after", "1h"]).leave_log_unread());
    assert_beats_are_taken_whatever_becomes_of_the_log(server);
}

#[test]
fn a_log_whose_reader_has_gone_holds_up_neither_beats_nor_the_end() {
    let mut server = Server::start(Options::from(["--stall-after", "1h"]).leave_log_unread());
    server.close_log();
    assert_beats_are_taken_whatever_becomes_of_the_log(server);
}

#[test]
fn figures_in_the_log_are_numbers() {
    let server = Server::start(["--stall-after", "100ms"]);
    introduce(&server);
    server.expect(agent(process::id()).stalled());
    let mut lines = vec![("stall_after_ms", server.expect(line("listening on unix:")))];
    // Not every host has a short queue to warn of.
    lines.extend(server.log().find("only 11 beats fit").map(|line| ("max_dgram_qlen", line)));
    let changes = server.log().find_all("").into_iter().filter(|line| line["target"] == "varta::agent");
    for change in changes {
        lines.extend(["pid", "silence_ms", "payload", "beats"].map(|field| (field, change.clone())));
    }
    assert!(lines.len() >= 9, "{lines:?}");
    for (field, line) in lines {
        assert!(line[field].is_number(), "{field} in {line}");
    }
    let exited = AgentProcess::start(server.socket(), &["--beats", "3", "--exit-code", "4"]);
    let killed = AgentProcess::start(server.socket(), &[]);
    killed.signal(Signal::Kill);
    for (pid, cause, field) in [(exited.pid(), "exited", "exit_code"), (killed.pid(), "killed", "signal")] {
        server.expect(agent(pid).down().because(cause));
        let line = server.log().find_all(&format!("it-worker[{pid}]")).pop().unwrap();
        assert!(line[field].is_number(), "{field} in {line}");
    }
}
