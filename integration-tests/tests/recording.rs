//! Recordings of real agents, and what replays make of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use varta_integration_tests::{
    AgentProcess, Datagrams, Ended, Options, Server, Signal, run_to_its_end, server_command,
};
use varta_proto::{Frame, Status};

const STALL_AFTER: [&str; 2] = ["--stall-after", "2s"];

/// A directory that outlives servers, and the recording in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
    let path = directory.path().join("recording");
    (directory, path)
}

fn recording(path: &Path) -> Options {
    Options::new().args([Path::new("--record"), path])
}

#[track_caller]
fn stop(mut server: Server) {
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
}

/// Runs a replay. What is meant for a server in the environment is none of its business.
fn run(path: &Path, arguments: &[&str]) -> Ended {
    let mut command = server_command();
    command.env("VARTA_CONFIG", "/nowhere").env("VARTA_DETECTOR", "");
    command.arg("replay").arg(path).args(arguments);
    run_to_its_end(command)
}

#[track_caller]
fn replay(path: &Path, arguments: &[&str]) -> Value {
    let ended = run(path, &[&["--json"], arguments].concat());
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.stdout.lines().count(), 1);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error} in {}", ended.stdout))
}

/// Why a recording cannot be replayed.
#[track_caller]
fn refused(path: &Path, arguments: &[&str], status: i32) -> String {
    let ended = run(path, arguments);
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(status), ""), "{}", ended.stderr);
    ended.stderr
}

#[test]
fn a_replay_finds_who_was_stopped_and_who_was_killed_by_the_policy_that_it_is_given() {
    let (_directory, path) = place();
    let server = Server::start(recording(&path).args(STALL_AFTER));
    let agents: Vec<_> = (0..3)
        .map(|number| AgentProcess::start(server.socket(), &["--name", &format!("name-of-{number}")]))
        .collect();
    server.await_agents("up", 3);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    agents[1].signal(Signal::Stop);
    server.await_state(agents[1].pid(), "stalled");
    agents[1].signal(Signal::Continue);
    server.await_transition(agents[1].pid(), "up", "recovered");
    agents[2].signal(Signal::Kill);
    server.await_state(agents[2].pid(), "down");
    let scrape = server.await_beats_and_seconds(&[agents[0].pid(), agents[1].pid()], 3, 0.0);
    assert_eq!(scrape.value("varta_recording_active", &[]), 1.0);
    assert_eq!(scrape.value("varta_recording_dropped_total", &[]), 0.0);
    assert!(scrape.value("varta_recording_bytes", &[]) > 64.0 * 20.0);
    // One was stalled and one is down: two were found out.
    assert!(scrape.value("varta_detection_time_seconds_count", &[]) >= 2.0);
    let beats = scrape.sum("varta_beats_total", &[]);
    stop(server);

    let report = replay(&path, &[]);
    let recorded = &report["recorded"];
    assert_eq!(recorded["agents"], 3, "{report}");
    assert_eq!((&recorded["torn_bytes"], &recorded["records_missing"]), (&0.into(), &0.into()), "{report}");
    assert!(recorded["beats_accepted"].as_f64() >= Some(beats), "{beats}, {report}");
    let verdicts = &report["verdicts"];
    assert!(verdicts["stalled"].as_u64() >= Some(1), "{report}");
    assert_eq!((&verdicts["taken_back"], &verdicts["down"]), (&verdicts["stalled"], &1.into()), "{report}");
    assert_eq!(report["policy"], "fixed, 2s for all that ask for nothing else");

    let patient = replay(&path, &["--stall-after", "1h"]);
    assert_eq!((&patient["verdicts"]["stalled"], &patient["verdicts"]["down"]), (&0.into(), &1.into()));
    assert_eq!(patient["detection_seconds"]["median"], 3600.0);
    let chen = ["--detector", "chen", "--chen-detect-within", "1500ms"];
    assert!(replay(&path, &chen)["verdicts"]["stalled"].as_u64() >= Some(1));

    let text = run(&path, &[]).stdout;
    for start in ["recording ", "policy ", "found out ", "verdicts ", "mistakes "] {
        assert_eq!(text.lines().filter(|line| line.starts_with(start)).count(), 1, "{start} in\n{text}");
    }
    let refused = refused(&path, &["--phi-threshold", "8"], 2);
    assert!(refused.contains("--phi-threshold: does nothing without --detector phi"), "{refused}");
}

#[test]
fn a_mistake_is_owned_up_to_and_a_replay_finds_it_too() {
    let (_directory, path) = place();
    let server = Server::start(recording(&path).args(["--stall-after", "300ms"]));
    let mut datagrams = Datagrams::to(server.socket());
    let mut beat = |nonce| {
        let frame = Frame::new(Status::Ok, process::id(), nonce * 100_000_000, nonce, 0);
        datagrams.send(&frame.to_bytes());
    };
    beat(1);
    server.await_state(process::id(), "stalled");
    // The beats between are missing.
    beat(9);
    server.await_transition(process::id(), "up", "recovered");
    let scrape = server
        .await_scrape("the mistake is counted", |scrape| scrape.value("varta_mistakes_total", &[]) == 1.0);
    assert_eq!(scrape.of_agent("varta_agent_mistakes_total", process::id()), 1.0);
    assert_eq!(scrape.value("varta_mistake_duration_seconds_count", &[]), 1.0);
    let told = server.log().lines().into_iter().find(|line| line.contains("this server's mistake")).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(told["mistake_ms"].is_u64() && told["cause"] == "recovered", "{told}");
    stop(server);

    let report = replay(&path, &[]);
    let named = report["mistakes"]["agents"][0]["agent"].as_str().unwrap();
    assert!(named.ends_with(&format!("[{}]", process::id())), "{report}");
    assert_eq!(report["verdicts"]["mistakes"], 1, "{report}");
    assert_eq!(report["recorded"]["beats_lost"], 7, "{report}");
}

#[test]
fn a_replay_knows_when_the_server_could_not_see() {
    let (_directory, path) = place();
    let server = Server::start(recording(&path).args(STALL_AFTER));
    let agents = [(); 3].map(|()| AgentProcess::start(server.socket(), &[]));
    let pids = agents.each_ref().map(AgentProcess::pid);
    server.await_beats_and_seconds(&pids, 5, 0.0);
    server.pause();
    // Not a wait for anything: that the server does not run for three seconds is what happens to it.
    thread::sleep(Duration::from_secs(3));
    server.signal(Signal::Continue);
    let scrape = server.await_beats_and_seconds(&pids, 5, 0.0);
    let blind = scrape.value("varta_blind_periods_total", &[]);
    stop(server);

    let report = replay(&path, &[]);
    let recorded = &report["recorded"];
    assert!(recorded["blind_periods"].as_f64() >= Some(blind.max(1.0)), "{blind}, {report}");
    assert!(recorded["blind_seconds"].as_f64() > Some(2.0), "{report}");
    assert_eq!(report["verdicts"]["stalled"], 0, "{report}");
}

#[test]
fn a_recording_that_is_as_long_as_it_may_be_ends_and_the_server_goes_on() {
    let (_directory, path) = place();
    let server = Server::start(recording(&path).args(["--record-limit", "4096"]));
    let agent = AgentProcess::start(server.socket(), &["--interval-ms", "5"]);
    server.await_agents("up", 1);
    server.await_sample("varta_recording_bytes", &[], |bytes| bytes > 3_000.0);
    server.await_sample("varta_recording_active", &[], |active| active == 0.0);
    let scrape = server.await_beats_and_seconds(&[agent.pid()], 20, 0.0);
    assert_eq!(scrape.value("varta_recording_dropped_total", &[]), 0.0);
    let ends: Vec<_> =
        server.log().lines().into_iter().filter(|line| line.contains("--record-limit 4096")).collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    stop(server);
    let length = fs::metadata(&path).unwrap().len();
    assert!(length <= 4_096 && length.is_multiple_of(64), "{length}");
    assert_eq!(replay(&path, &[])["recorded"]["agents"], 1);
}

#[test]
fn a_file_that_is_there_keeps_the_server_from_starting_and_stays_as_it_is() {
    let (directory, path) = place();
    fs::write(&path, "of somebody").unwrap();
    let mut command = server_command();
    command.args(["--metrics-addr", "127.0.0.1:0", "--socket"]).arg(directory.path().join("varta.sock"));
    command.arg("--record").arg(&path);
    let ended = run_to_its_end(command);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("give another name with --record"), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), "of somebody");
}

#[test]
fn what_is_no_recording_or_a_part_of_one_is_told_with_the_place() {
    let (directory, path) = place();
    let server = Server::start(recording(&path));
    let agent = AgentProcess::start(server.socket(), &[]);
    server.await_agents("up", 1);
    server.await_beats_and_seconds(&[agent.pid()], 5, 0.0);
    stop(server);
    let whole = fs::read(&path).unwrap();

    let copy = directory.path().join("copy");
    let with = |bytes: &[u8]| {
        fs::write(&copy, bytes).unwrap();
        copy.as_path()
    };
    let cut = replay(with(&whole[..whole.len() - 10]), &[]);
    assert_eq!(cut["recorded"]["torn_bytes"], 54, "{cut}");
    assert!(run(&copy, &[]).stdout.contains("the last record was cut off; its 54 bytes are passed over"));
    let mut broken = whole.clone();
    broken[3 * 64 + 9] ^= 1;
    let said = refused(with(&broken), &[], 1);
    assert!(said.contains("copy: the record at byte 192: its checksum does not fit"), "{said}");
    let said = refused(with(b"[options]"), &[], 1);
    assert!(said.contains("copy: is not a recording of varta-server"), "{said}");
    let said = refused(&directory.path().join("none"), &[], 1);
    assert!(said.contains("none: cannot be read: No such file"), "{said}");
    assert!(refused(&path, &["--max-agents", "1"], 2).contains("--max-agents"));
}
