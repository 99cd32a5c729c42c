//! `varta-server doctor` against a healthy server, against none, and against prepared faults, each of which it names.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{self, Command};
use std::time::Duration;

use serde_json::Value;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, Datagrams, Ended, Options, Scratch, Server, loopback_socket, run_to_its_end, send_from,
    server_command, wait_until,
};
use varta_proto::{Frame, Status};

/// What depends on the host alone.
const OF_HOST: [&str; 6] = ["clock", "cpu", "memory", "queue-length", "receive-buffer", "tasks"];

fn run(socket: &Path, words: &[&str]) -> Ended {
    let mut command = server_command();
    command.env("VARTA_SOCKET", socket).arg("doctor").args(words);
    run_to_its_end(command)
}

fn report(server: &Server) -> Value {
    serde_json::from_str(&run(server.socket(), &["--json"]).stdout).unwrap()
}

/// The checks that warn or failed, without those of the host.
fn wrong_in(report: &Value) -> BTreeSet<String> {
    let checks = report["checks"].as_array().unwrap();
    let is_wrong = |check: &&Value| ["warning", "failed"].contains(&check["outcome"].as_str().unwrap());
    let names = checks.iter().filter(is_wrong).map(|check| check["name"].as_str().unwrap());
    names.filter(|name| !OF_HOST.contains(name)).map(str::to_owned).collect()
}

#[track_caller]
fn assert_names(server: &Server, expected: &[&str]) {
    let expected = expected.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let report = report(server);
    assert_eq!(wrong_in(&report), expected, "{report:#}");
    assert_eq!(run(server.socket(), &[]).status.code(), Some(1));
}

/// Sends beats of this process, with these nonces and so many milliseconds from each nonce to the next.
fn beat(server: &Server, nonces: impl IntoIterator<Item = u64>, millis: u64) {
    let mut datagrams = Datagrams::to(server.socket());
    for nonce in nonces {
        datagrams
            .send(&Frame::new(Status::Ok, process::id(), nonce * millis * 1_000_000, nonce, 0).to_bytes());
    }
    server.await_agents("up", 1);
}

#[test]
fn nothing_is_wrong_with_a_healthy_server_and_every_check_says_what_was_seen() {
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", receiver.local_addr().unwrap());
    let scratch = Scratch::make();
    let options =
        Options::from(["--alertmanager", &url]).udp("127.0.0.1:0").config(&scratch, "stall-after = \"9s\"\n");
    let server = Server::start(options.in_scratch(&scratch));
    beat(&server, 1..=20, 1_000);
    let report = report(&server);
    assert_eq!(wrong_in(&report), BTreeSet::new(), "{report:#}");
    for check in report["checks"].as_array().unwrap() {
        assert_ne!(check["seen"], "", "{check}");
        let is_wrong = ["warning", "failed"].contains(&check["outcome"].as_str().unwrap());
        assert_eq!(check["advice"].is_string(), is_wrong, "{check}");
    }
    let text = run(server.socket(), &[]);
    let is_well = report["ok"].as_bool().unwrap();
    assert_eq!(text.status.code(), Some(i32::from(!is_well)), "{}", text.stdout);
    let lines = text.stdout.lines().filter(|line| !line.starts_with(' ')).count();
    assert_eq!(lines, report["checks"].as_array().unwrap().len() + 1, "{}", text.stdout);
    assert_eq!(text.stderr, "");
}

#[test]
fn without_a_server_that_is_said_and_the_exit_status_is_another() {
    let scratch = Scratch::make();
    let ended = run(&scratch.path("nobody.sock"), &["--json"]);
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(wrong_in(&report), ["server", "sockets"].map(str::to_owned).into());
    let is_skipped = |check: &&Value| check["outcome"] == "skipped";
    assert!(report["checks"].as_array().unwrap().iter().filter(is_skipped).count() > 10, "{report:#}");
}

#[test]
fn a_file_that_cannot_be_used_and_the_reload_that_failed_by_it_are_named() {
    let scratch = Scratch::make();
    let server = Server::start(Options::new().config(&scratch, "stall-after = \"9s\"\n"));
    fs::write(scratch.path("varta.toml"), "stall-after = \"9 apples\"\n").unwrap();
    assert_names(&server, &["configuration"]);
    assert!(!server.reload().status.success());
    assert_names(&server, &["configuration", "faults", "reload"]);
}

#[test]
fn an_alertmanager_at_which_nobody_listens_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(["--alertmanager", &format!("http://{closed}/")]);
    assert_names(&server, &["alertmanagers"]);
}

#[test]
fn an_agent_that_beats_seldom_for_its_deadline_is_named() {
    let server = Server::start(["--stall-after", "1h"]);
    beat(&server, 1..=20, 31 * 60 * 1_000);
    assert_names(&server, &["deadlines"]);
    let report = report(&server);
    let check =
        report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "deadlines").unwrap();
    assert!(check["seen"].as_str().unwrap().contains("beats every 1860000 ms"), "{check}");
}

#[test]
fn an_agent_whose_beats_are_lost_is_named() {
    let server = Server::start(["--stall-after", "1h"]);
    beat(&server, [1, 2, 10, 11], 1_000);
    assert_names(&server, &["lost-beats"]);
}

#[test]
fn beats_that_are_refused_are_named_by_their_outcome() {
    let server = Server::start(Options::new());
    Datagrams::to(server.socket()).send(&[b'x'; 32]);
    wait_until("it is refused", || server.scrape().outcome("bad_magic") > 0.0);
    assert_names(&server, &["refused-beats"]);
    assert!(run(server.socket(), &[]).stdout.contains("1 by unix as bad_magic"));
}

#[test]
fn a_table_of_agents_that_is_full_is_named() {
    let server = Server::start(["--max-agents", "2"]);
    let _known = server.start_agents(2, &[]);
    let _third = AgentProcess::start(server.socket(), &[]);
    server.await_scrape("the third is refused", |scrape| scrape.outcome("capacity") > 0.0);
    assert_names(&server, &["capacity", "refused-beats"]);
}

#[test]
fn what_the_kernel_threw_away_while_the_server_did_not_run_is_named_and_so_is_that_time() {
    let server = Server::start(Options::from(["--udp-receive-buffer", "64KiB"]).udp("127.0.0.1:0"));
    let socket = loopback_socket();
    // A gap counts while an agent is awaited.
    send_from(&socket, server.udp_address(0), &Frame::new(Status::Ok, 10_000_001, 1, 1, 0).to_bytes());
    server.await_agents("up", 1);
    server.pause();
    for nonce in 2..20_000 {
        send_from(
            &socket,
            server.udp_address(0),
            &Frame::new(Status::Ok, 10_000_001, nonce, nonce, 0).to_bytes(),
        );
    }
    server.pause_for(Duration::from_secs(2));
    wait_until("both are counted", || {
        let scrape = server.scrape();
        scrape.sum("varta_kernel_drops_total", &[]) > 0.0
            && scrape.sum("varta_blind_periods_total", &[]) > 0.0
    });
    let wrong = wrong_in(&report(&server));
    assert!(wrong.contains("kernel-drops") && wrong.contains("blindness"), "{wrong:?}");
}

#[test]
fn a_socket_that_another_file_took_the_place_of_is_named_with_the_part_that_is_faulty() {
    let scratch = Scratch::make();
    let server = Server::start(Options::new().in_scratch(&scratch));
    let file = scratch.write("no-socket", "");
    fs::rename(file, server.socket()).unwrap();
    wait_until("the server has seen it", || server.get("/readyz").status != 200);
    assert_names(&server, &["faults", "server", "sockets"]);
}

#[test]
fn descriptors_that_nearly_run_out_are_named() {
    let server = Server::start(["--stall-after", "1h"]);
    let open = || fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    // So many that the three that are left for those who ask it are few beside them.
    let agents = server.start_agents(40, &[]);
    wait_until("the server watches all of them", || open() > agents.len());
    let limit = open() + 3;
    let is_set = Command::new("prlimit")
        .args([format!("--pid={}", server.pid()), format!("--nofile={limit}:{limit}")])
        .status();
    if !is_set.is_ok_and(|status| status.success()) {
        return skip("nobody can set the limit of a process here: that takes `prlimit` of util-linux");
    }
    assert_names(&server, &["descriptors"]);
}

#[test]
fn the_document_explains_every_check_and_no_other() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DOCTOR.md");
    let document = fs::read_to_string(document).unwrap();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let ended = run(Path::new("/nowhere/varta.sock"), &["--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let names = report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap());
    assert_eq!(rows.collect::<Vec<_>>(), names.collect::<Vec<_>>());
}
