//! The configuration's file: what it can set, what goes before it, and the error when it makes no sense.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;

use varta_integration_tests::{
    Datagrams, Ended, Options, Scratch, Server, Signal, agent, line, line_with, refused_start, wait_until,
    write_secret,
};
use varta_proto::{Frame, Status};

/// A scratch directory, and in it a file with this text.
fn file(text: &str) -> (Scratch, PathBuf) {
    let scratch = Scratch::make();
    let path = scratch.write("varta.toml", text);
    (scratch, path)
}

fn with(path: &Path) -> Options {
    Options::new().path("--config", path)
}

/// Sends one beat of this process, and gives for how long it may be silent after it.
fn stall_after(server: &Server) -> f64 {
    let mut datagrams = Datagrams::to(server.socket());
    datagrams.send(&Frame::new(Status::Ok, process::id(), 1, 1, 0).to_bytes());
    server.expect(agent(process::id()).up());
    server.scrape().of_agent("varta_agent_stall_after_seconds", process::id())
}

/// What a server writes that cannot start because of its file.
#[track_caller]
fn refused(path: &Path) -> String {
    refused_start(2, &Scratch::make().socket(), [Path::new("--config"), path])
}

#[test]
fn the_command_line_goes_before_the_environment_that_before_the_file_and_that_before_the_default() {
    let (_scratch, path) = file("stall-after = \"7s\"\nmax-agents = 3\n");
    let capacity = |server: &Server| server.scrape().value("varta_tracker_capacity", &[]);

    let server = Server::start(with(&path));
    assert_eq!((stall_after(&server), capacity(&server)), (7.0, 3.0));
    let server = Server::start(with(&path).env("VARTA_STALL_AFTER", "8s"));
    assert_eq!((stall_after(&server), capacity(&server)), (8.0, 3.0));
    let server = Server::start(with(&path).env("VARTA_STALL_AFTER", "8s").args(["--stall-after", "9s"]));
    assert_eq!((stall_after(&server), capacity(&server)), (9.0, 3.0));
    // An option that is given counts, also where its value is the default.
    let server = Server::start(with(&path).args(["--stall-after", "5s"]));
    assert_eq!((stall_after(&server), capacity(&server)), (5.0, 3.0));
}

#[test]
fn the_file_may_be_named_by_the_environment_and_lists_replace_its_lists() {
    let (scratch, path) = file("");
    let socket = scratch.path("from-file.sock");
    fs::write(&path, format!("socket = [\"{}\"]\nudp = [\"127.0.0.1:0\", \"[::1]:0\"]\n", socket.display()))
        .unwrap();

    let server = Server::start(Options::new().env("VARTA_CONFIG", &path).finds_its_socket_at(&socket));
    stall_after(&server);
    assert!(server.udp_address(0).is_ipv4() && server.udp_address(1).is_ipv6());
    drop(server);

    let server = Server::start(Options::new().env("VARTA_CONFIG", &path).env("VARTA_UDP", "127.0.0.1:0"));
    stall_after(&server);
    assert_eq!(server.log().find_all("listening on ").len(), 2, "the file's lists are replaced");
}

#[test]
fn a_relative_path_in_the_file_is_relative_to_the_working_directory_as_a_flag_is() {
    let (_scratch, path) = file("metrics-token-file = \"no-such-token\"\n");
    let said = refused(&path);
    assert!(said.contains("varta-server: no-such-token: "), "{said}");
}

#[test]
fn a_file_that_everybody_may_write_to_is_warned_of() {
    let (_scratch, path) = file("");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let server = Server::start(with(&path));
    let warning = server.expect(line(&format!("{}: everybody may write to it", path.display())));
    assert_eq!(warning["level"], "WARN");
}

#[test]
fn a_variable_that_no_option_has_is_warned_of_and_those_of_kubernetes_are_not() {
    let options = Options::new().env("VARTA_STAL_AFTER", "2s").env("VARTA_SERVICE_HOST", "10.0.0.1");
    let server = Server::start(options.env("VARTA_PORT", "tcp://10.0.0.1:9843"));
    let warning = server.expect(line("VARTA_STAL_AFTER: no option has this variable"));
    assert_eq!(warning["level"], "WARN");
    assert!(warning["message"].as_str().unwrap().ends_with("did you mean VARTA_STALL_AFTER?"), "{warning}");
    // Before the first line of the start, as are all others of their kind.
    server.expect(line("listening on "));
    assert_eq!(server.log().find_all("VARTA_").len(), 1);
}

#[test]
fn read_again_its_rules_and_expected_agents_count_and_a_file_that_makes_no_sense_changes_nothing() {
    let (_scratch, path) = file("max-agents = 7\n");
    let server = Server::start(with(&path));
    assert_eq!(stall_after(&server), 5.0);
    let name = fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned();
    let now = |stall_after: &str, expected: &str| {
        format!(
            "max-agents = 8\n[[rule]]\nname = \"{name}\"\nstall-after = \"{stall_after}\"\n\
             [[expected]]\nname = \"{expected}\"\ngrace = \"1h\"\n"
        )
    };
    let read_again = |text: String, said: &str| {
        fs::write(&path, text).unwrap();
        server.signal(Signal::HangUp);
        server.expect(line(&format!("{}{said}", path.display())));
    };
    let in_force = || server.scrape().of_agent("varta_agent_stall_after_seconds", process::id());

    read_again(now("77s", "nobody"), " was read again: 1 rules, 1 expected agents, 0 pauses");
    wait_until("the rule is in force", || in_force() == 77.0);
    server.await_agents("expected", 1);
    let waits = format!("{}: a change of max-agents counts only after a restart", path.display());
    assert_eq!(server.expect(line(&waits))["level"], "WARN");

    fs::write(&path, "rule = 1").unwrap();
    server.signal(Signal::HangUp);
    server.expect(line("keys and configuration stay as they were: "));
    assert_eq!(in_force(), 77.0);
    server.await_agents("expected", 1);

    // An agent that is there already is not awaited.
    read_again(now("88s", &name), " was read again: 1 rules, 1 expected agents, 0 pauses");
    wait_until("the rule is in force", || in_force() == 88.0);
    server.await_agents("expected", 0);
}

#[test]
fn a_reload_that_is_asked_for_takes_over_thresholds_token_and_log_level_and_names_what_waits() {
    let (scratch, path) = file("stall-after = \"5s\"\n");
    let server = Server::start(with(&path));
    assert_eq!(stall_after(&server), 5.0);
    let worker = server.start_agent(&[]);
    let hash = server.scrape().value("varta_config_hash", &[]);
    let token = write_secret(scratch.directory(), "token", "0123456789abcdef");
    let text = format!(
        "stall-after = \"700ms\"\nmax-agents = 9\nlog-level = \"debug\"\nmetrics-token-file = \"{}\"\n",
        token.display()
    );
    fs::write(&path, text).unwrap();
    let Ended { status, stdout, stderr } = server.reload();
    assert!(status.success(), "{stderr}");
    assert!(stdout.starts_with(&format!("{} was read again: 0 rules", path.display())), "{stdout}");
    assert_eq!(stderr, "varta-server: a change of max-agents counts only after a restart\n");
    assert_eq!(server.get("/metrics").status, 401);
    // The deadline of who is there already is the new one.
    worker.signal(Signal::Stop);
    server.expect(agent(&worker).stalled());
    fs::write(&path, "stall-after = \"700ms\"\n").unwrap();
    assert!(server.reload().status.success());
    // At the level debug, which ends with this reload.
    server.expect(line_with("asks on the control socket"));
    let scrape = server.scrape();
    assert_eq!(scrape.of_agent("varta_agent_stall_after_seconds", worker.pid()), 0.7);
    assert_ne!(scrape.value("varta_config_hash", &[]), hash);
}

#[test]
fn a_reload_takes_over_all_or_nothing_and_says_so_until_one_succeeds() {
    let (scratch, path) = file("stall-after = \"5s\"\n");
    let key = write_secret(scratch.directory(), "key", &"01".repeat(32));
    let options = with(&path).args(["--secure-udp", "127.0.0.1:0"]).path("--key-file", &key);
    let server = Server::start(options);
    let successful = || server.scrape().value("varta_config_last_reload_successful", &[]);
    assert_eq!(successful(), 1.0);
    fs::write(&path, "stall-after = 9\n\nmax-agent = 1\n").unwrap();
    let said = server.reload().stderr;
    let ends: Vec<_> = said.lines().filter_map(|line| line.split_once("varta.toml:")).collect();
    assert!(
        ends.len() == 2 && ends[0].1.starts_with("1: stall") && ends[1].1.starts_with("3: max-a"),
        "{said}"
    );
    server.expect(line_with("varta.toml:3: max-agent: there is no such option"));
    // The file is good, and the key is not.
    fs::write(&path, "stall-after = \"9s\"\n").unwrap();
    fs::write(&key, "short").unwrap();
    let Ended { status, stdout, stderr } = server.reload();
    assert_eq!((status.code(), &*stdout), (Some(1), ""));
    assert!(stderr.contains("keys and configuration stay as they were"), "{stderr}");
    assert_eq!((stall_after(&server), successful()), (5.0, 0.0));
    let ready = server.get("/readyz");
    assert_eq!(ready.status, 200, "the server goes on");
    assert!(ready.body.contains("configuration: "), "{}", ready.body);
    fs::write(&key, "02".repeat(32)).unwrap();
    assert!(server.reload().status.success());
    assert_eq!((stall_after(&server), successful()), (9.0, 1.0));
    assert_eq!(server.get("/readyz").body, "ready\n");
}

#[test]
fn the_example_starts_a_server_that_is_like_one_without_a_file() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../varta-server/varta.example.toml");
    let server = Server::start(with(&example));
    assert_eq!(stall_after(&server), 5.0);
    assert_eq!(server.scrape().value("varta_tracker_capacity", &[]), 1_000_000.0);
    assert_eq!(server.log().find_all("listening on ").len(), 1);
}
