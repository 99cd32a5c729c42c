//! The file of events of a real server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use serde_json::Value;
use varta_integration_tests::{
    AgentProcess, LIMIT, Options, Scratch, Server, Signal, SmallDisk, agent, line, refused_start, wait_for,
    wait_until,
};

/// A server in which no deadline comes, so that only what the test does is an event.
fn start(path: &Path, arguments: &[&str]) -> Server {
    let options = Options::from(["--stall-after", "1h"]).path("--events-file", path);
    Server::start(options.args(arguments.iter().copied()))
}

#[track_caller]
fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Has an agent report another status than before, so often.
fn change_status(worker: &mut AgentProcess, times: usize) {
    for _ in 0..times {
        worker.ask("status degraded");
        worker.ask("status ok");
    }
}

#[test]
fn every_change_is_a_line_and_all_are_there_when_the_server_is_stopped() {
    let scratch = Scratch::make();
    let path = scratch.path("events.json");
    let mut server = start(&path, &[]);
    let killed = server.start_agent(&["--name", "billing"]);
    let mut left = server.start_agent(&["--name", "mail"]);
    killed.signal(Signal::Kill);
    // It is written at once, and not when the server ends.
    let is_down = |event: &Value| event["pid"] == killed.pid() && event["to"] == "down";
    let event = wait_for(|| events(&path).into_iter().find(is_down));
    let event = event.unwrap_or_else(|| panic!("not written within {LIMIT:?}: {:?}", events(&path)));
    assert_eq!((&event["cause"], &event["signal"]), (&"killed".into(), &9.into()), "{event}");
    assert_eq!((&event["agent"], &event["from"]), (&"billing".into(), &"up".into()), "{event}");
    assert_eq!(
        (&event["transport"], &event["stall_after_ms"]),
        (&"unix".into(), &3_600_000.into()),
        "{event}"
    );
    assert!(event["latency_us"].is_u64() && event["beats"].as_u64() >= Some(1), "{event}");
    let host = [("pid", left.pid().to_string()), ("host", event["host"].as_str().unwrap().to_owned())];
    let host = host.each_ref().map(|(key, value)| (*key, value.as_str()));
    assert_eq!(server.scrape().get("varta_agent_up", &host), Some(1.0), "{event}");
    let at = event["at"].as_str().unwrap();
    assert!(at.len() == 24 && at.starts_with("20") && at.ends_with('Z'), "{event}");
    left.ask("goodbye");
    server.expect(agent(&left).gone());
    let counted = server.scrape().sum("varta_transitions_total", &[]);
    server.stop();
    let all = events(&path);
    assert!(all.len() as f64 >= counted, "{counted} changes are counted, and written are {all:?}");
    let gone = all.iter().find(|event| event["to"] == "gone").unwrap();
    assert_eq!((&gone["cause"], &gone["pid"]), (&"goodbye".into(), &left.pid().into()), "{gone}");

    // The next server adds to it.
    start(&path, &[]).stop();
    assert_eq!(events(&path), all);
}

#[test]
fn a_file_that_is_long_enough_is_renamed_and_the_oldest_go() {
    let scratch = Scratch::make();
    let path = scratch.path("events.json");
    let mut server = start(&path, &["--events-limit", "4KiB", "--events-keep", "2"]);
    let mut worker = AgentProcess::start(server.socket(), &[]);
    change_status(&mut worker, 30);
    server.stop();
    let numbered = |number: u32| path.with_extension(format!("json.{number}"));
    let files = [numbered(2), numbered(1), path.clone()];
    let payloads: Vec<_> = files.iter().flat_map(|file| events(file)).collect();
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 4_096));
    assert!(
        payloads.len() > 10 && payloads.is_sorted_by_key(|event| event["beats"].as_u64()),
        "{payloads:?}"
    );
    assert!(!numbered(3).exists());
}

#[test]
fn a_file_that_was_moved_away_is_followed_by_another() {
    let scratch = Scratch::make();
    let path = scratch.path("events.json");
    let mut server = start(&path, &[]);
    let mut worker = server.start_agent(&[]);
    wait_until("there is an event", || !events(&path).is_empty());
    let moved = scratch.path("moved");
    fs::rename(&path, &moved).unwrap();
    wait_until("there is a new file", || {
        change_status(&mut worker, 1);
        path.exists()
    });
    server.stop();
    let all = [events(&moved), events(&path)].concat();
    assert!(all.is_sorted_by_key(|event| event["beats"].as_u64()), "{all:?}");
}

#[test]
fn a_full_disk_is_logged_and_counted_and_nothing_is_lost() {
    let scratch = Scratch::make();
    let Some(disk) = SmallDisk::mount(&scratch) else { return };
    let path = disk.path("events.json");
    let mut server = start(&path, &[]);
    let mut worker = server.start_agent(&[]);
    disk.fill();
    let errors = |server: &Server| server.scrape().value("varta_events_write_errors_total", &[]);
    wait_until("two failures are counted", || {
        change_status(&mut worker, 5);
        errors(&server) >= 2.0
    });
    // What is there is whole, and the failure is logged once.
    events(&path);
    server.expect(line(path.to_str().unwrap()));
    let logged = server.log().find_all(path.to_str().unwrap());
    assert_eq!(logged.len(), 1, "{logged:?}");
    server.await_beats(&[worker.pid()], 5);
    disk.make_room();
    server.expect(line(path.to_str().unwrap()).with("written to again"));
    let scrape = server.scrape();
    assert_eq!(scrape.sum("varta_sink_dropped_total", &[("sink", "events")]), 0.0);
    server.stop();
    assert!(events(&path).len() as f64 >= scrape.sum("varta_transitions_total", &[]));
}

#[test]
fn a_file_that_cannot_be_opened_keeps_the_server_from_starting() {
    let scratch = Scratch::make();
    let directory = scratch.directory();
    let failure = refused_start(1, &scratch.socket(), [Path::new("--events-file"), directory]);
    assert!(failure.contains(directory.to_str().unwrap()), "{failure}");
}
