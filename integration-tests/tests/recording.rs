//! Recordings of real agents, and what replays make of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process;
use std::time::Duration;

use serde_json::Value;
use varta_integration_tests::{
    AgentProcess, Datagrams, Ended, Options, Scratch, Server, Signal, agent, line_with, metric,
    refused_start, run_to_its_end, server_command,
};
use varta_proto::{Frame, Status};

const STALL_AFTER: [&str; 2] = ["--stall-after", "2s"];
const DEADLINE: Duration = Duration::from_secs(2);

fn recording(path: &Path) -> Options {
    Options::new().path("--record", path)
}

/// Runs a replay. It does not read the variables that are for a server.
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
fn a_replay_finds_the_stopped_and_the_killed_agent_by_the_policy_that_it_is_given() {
    let scratch = Scratch::make();
    let path = scratch.path("recording");
    let mut server = Server::start(recording(&path).args(STALL_AFTER));
    let workers = [0, 1, 2].map(|number| server.start_agent(&["--name", &format!("name-of-{number}")]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    workers[1].signal(Signal::Stop);
    server.expect(agent(&workers[1]).stalled().within(DEADLINE));
    workers[1].signal(Signal::Continue);
    server.expect(agent(&workers[1]).up().because("recovered"));
    workers[2].signal(Signal::Kill);
    server.expect(agent(&workers[2]).down());
    let scrape = server.await_beats(&[workers[0].pid(), workers[1].pid()], 3);
    assert_eq!(scrape.value("varta_recording_active", &[]), 1.0);
    assert_eq!(scrape.value("varta_recording_dropped_total", &[]), 0.0);
    assert!(scrape.value("varta_recording_bytes", &[]) > 64.0 * 20.0);
    // One was stalled and one is down: two were detected.
    assert!(scrape.value("varta_detection_time_seconds_count", &[]) >= 2.0);
    let beats = scrape.sum("varta_beats_total", &[]);
    server.stop();

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
    let scratch = Scratch::make();
    let path = scratch.path("recording");
    let mut server = Server::start(recording(&path).args(["--stall-after", "300ms"]));
    let mut datagrams = Datagrams::to(server.socket());
    let mut beat = |nonce| {
        let frame = Frame::new(Status::Ok, process::id(), nonce * 100_000_000, nonce, 0);
        datagrams.send(&frame.to_bytes());
    };
    beat(1);
    server.expect(agent(process::id()).stalled());
    // The beats between are missing.
    beat(9);
    server.expect(agent(process::id()).up().because("recovered"));
    let scrape = server.expect(metric("varta_mistakes_total").is(1.0));
    assert_eq!(scrape.of_agent("varta_agent_mistakes_total", process::id()), 1.0);
    assert_eq!(scrape.value("varta_mistake_duration_seconds_count", &[]), 1.0);
    let recovered = server.expect(line_with("this server's mistake"));
    assert!(recovered["mistake_ms"].is_u64() && recovered["cause"] == "recovered", "{recovered}");
    server.stop();

    let report = replay(&path, &[]);
    let named = report["mistakes"]["agents"][0]["agent"].as_str().unwrap();
    assert!(named.ends_with(&format!("[{}]", process::id())), "{report}");
    assert_eq!(report["verdicts"]["mistakes"], 1, "{report}");
    assert_eq!(report["recorded"]["beats_lost"], 7, "{report}");
}

#[test]
fn a_replay_knows_when_the_server_could_not_see() {
    let scratch = Scratch::make();
    let path = scratch.path("recording");
    let mut server = Server::start(recording(&path).args(STALL_AFTER));
    let workers = [(); 3].map(|()| server.start_agent(&[]));
    let pids = workers.each_ref().map(AgentProcess::pid);
    server.await_beats(&pids, 5);
    server.pause_for(Duration::from_secs(3));
    let scrape = server.await_beats(&pids, 5);
    let blind = scrape.value("varta_blind_periods_total", &[]);
    server.stop();

    let report = replay(&path, &[]);
    let recorded = &report["recorded"];
    assert!(recorded["blind_periods"].as_f64() >= Some(blind.max(1.0)), "{blind}, {report}");
    assert!(recorded["blind_seconds"].as_f64() > Some(2.0), "{report}");
    assert_eq!(report["verdicts"]["stalled"], 0, "{report}");
}

#[test]
fn a_recording_that_is_as_long_as_it_may_be_ends_and_the_server_goes_on() {
    let scratch = Scratch::make();
    let path = scratch.path("recording");
    let mut server = Server::start(recording(&path).args(["--record-limit", "4096"]));
    let worker = server.start_agent(&["--interval-ms", "5"]);
    server.expect(metric("varta_recording_bytes").at_least(3_000.0));
    server.expect(metric("varta_recording_active").is(0.0));
    let scrape = server.await_beats(&[worker.pid()], 20);
    assert_eq!(scrape.value("varta_recording_dropped_total", &[]), 0.0);
    server.expect(line_with("--record-limit 4096"));
    let lines = server.log().lines();
    assert_eq!(lines.iter().filter(|line| line.contains("--record-limit 4096")).count(), 1, "{lines:?}");
    server.stop();
    let length = fs::metadata(&path).unwrap().len();
    assert!(length <= 4_096 && length.is_multiple_of(64), "{length}");
    assert_eq!(replay(&path, &[])["recorded"]["agents"], 1);
}

#[test]
fn a_file_that_is_there_keeps_the_server_from_starting_and_stays_as_it_is() {
    let scratch = Scratch::make();
    let path = scratch.path("recording");
    fs::write(&path, "of somebody").unwrap();
    let failure = refused_start(1, &scratch.socket(), [Path::new("--record"), &path]);
    assert!(failure.contains("give another name with --record"), "{failure}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "of somebody");
}

#[test]
fn a_recording_that_is_broken_or_cut_off_is_reported_with_the_place() {
    let scratch = Scratch::make();
    let path = scratch.path("recording");
    let mut server = Server::start(recording(&path));
    let worker = server.start_agent(&[]);
    server.await_beats(&[worker.pid()], 5);
    server.stop();
    let whole = fs::read(&path).unwrap();

    let copy = scratch.path("copy");
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
    let said = refused(&scratch.path("none"), &[], 1);
    assert!(said.contains("none: cannot be read: No such file"), "{said}");
    assert!(refused(&path, &["--max-agents", "1"], 2).contains("--max-agents"));
}

#[test]
fn a_replay_draws_gaps_deadlines_and_mistakes_into_a_file_in_the_place_of_an_earlier_one() {
    let scratch = Scratch::make();
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/formats/0.1/recording.varta");
    let picture = scratch.write("picture.svg", "an earlier one");
    let path = picture.to_str().unwrap();
    let report = replay(&recording, &["--stall-after", "10ms", "--plot", path]);
    let drawn = fs::read_to_string(&picture).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.trim_end().ends_with("</svg>"), "{drawn}");
    assert_eq!(
        drawn.matches("<circle").count() as u64,
        report["verdicts"]["mistakes"].as_u64().unwrap(),
        "{report}"
    );
    for text in ["gaps", "deadlines", "fixed, 10ms"] {
        assert!(drawn.contains(text), "{text} in {drawn}");
    }
    let nowhere = scratch.path("no/picture.svg");
    let said = refused(&recording, &["--plot", nowhere.to_str().unwrap()], 1);
    assert!(said.contains("no/picture.svg: cannot be written: ") && said.contains("--plot"), "{said}");
}
