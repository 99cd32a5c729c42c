//! The file of events of a real server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, LIMIT, Options, Server, Signal, SmallDisk, run_to_its_end, server_command, wait_for,
};

/// A directory that outlives servers, and the file in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
    let path = directory.path().join("events.json");
    (directory, path)
}

/// A server in which no deadline comes, so that only what the test does is an event.
fn start(path: &Path, arguments: &[&str]) -> Server {
    let options = Options::new().args([Path::new("--events-file"), path]).args(["--stall-after", "1h"]);
    Server::start(options.args(arguments.iter().copied()))
}

#[track_caller]
fn stop(mut server: Server) {
    server.signal(Signal::Terminate);
    assert!(server.wait().success());
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
fn change_status(agent: &mut AgentProcess, times: usize) {
    for _ in 0..times {
        agent.ask("status degraded");
        agent.ask("status ok");
    }
}

#[test]
fn every_change_is_a_line_and_all_are_there_when_the_server_is_stopped() {
    let (_directory, path) = place();
    let server = start(&path, &[]);
    let mut killed = AgentProcess::start(server.socket(), &["--name", "billing"]);
    let mut left = AgentProcess::start(server.socket(), &["--name", "mail"]);
    server.await_agents("up", 2);
    killed.signal(Signal::Kill);
    killed.wait();
    // It is written at once, and not when the server ends.
    let told = wait_for(|| {
        let of_it = |event: &Value| event["pid"] == killed.pid() && event["to"] == "down";
        events(&path).into_iter().find(of_it)
    });
    let told = told.unwrap_or_else(|| panic!("not told within {LIMIT:?}: {:?}", events(&path)));
    assert_eq!((&told["cause"], &told["signal"]), (&"killed".into(), &9.into()), "{told}");
    assert_eq!((&told["agent"], &told["from"]), (&"billing".into(), &"up".into()), "{told}");
    assert_eq!((&told["transport"], &told["stall_after_ms"]), (&"unix".into(), &3_600_000.into()), "{told}");
    assert!(told["latency_us"].is_u64() && told["beats"].as_u64() >= Some(1), "{told}");
    let host = [("pid", left.pid().to_string()), ("host", told["host"].as_str().unwrap().to_owned())];
    let host = host.each_ref().map(|(key, value)| (*key, value.as_str()));
    assert_eq!(server.scrape().get("varta_agent_up", &host), Some(1.0), "{told}");
    let at = told["at"].as_str().unwrap();
    assert!(at.len() == 24 && at.starts_with("20") && at.ends_with('Z'), "{told}");
    left.ask("goodbye");
    server.await_state(left.pid(), "gone");
    let counted = server.scrape().sum("varta_transitions_total", &[]);
    stop(server);
    let all = events(&path);
    assert!(all.len() as f64 >= counted, "{counted} changes are counted, and told are {all:?}");
    let gone = all.iter().find(|event| event["to"] == "gone").unwrap();
    assert_eq!((&gone["cause"], &gone["pid"]), (&"goodbye".into(), &left.pid().into()), "{gone}");

    // The next server adds to it.
    stop(start(&path, &[]));
    assert_eq!(events(&path), all);
}

#[test]
fn a_file_that_is_long_enough_is_renamed_and_the_oldest_go() {
    let (_directory, path) = place();
    let server = start(&path, &["--events-limit", "4096", "--events-keep", "2"]);
    let mut agent = AgentProcess::start(server.socket(), &[]);
    change_status(&mut agent, 30);
    stop(server);
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
    let (directory, path) = place();
    let server = start(&path, &[]);
    let mut agent = AgentProcess::start(server.socket(), &[]);
    server.await_agents("up", 1);
    assert!(wait_for(|| (!events(&path).is_empty()).then_some(())).is_some());
    let moved = directory.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    let followed = wait_for(|| {
        change_status(&mut agent, 1);
        path.exists().then_some(())
    });
    assert!(followed.is_some(), "there is no new file within {LIMIT:?}");
    stop(server);
    let all = [events(&moved), events(&path)].concat();
    assert!(all.is_sorted_by_key(|event| event["beats"].as_u64()), "{all:?}");
}

#[test]
fn a_full_disk_is_told_and_counted_and_nothing_is_lost() {
    let (directory, _) = place();
    let mounted = directory.path().join("disk");
    fs::create_dir(&mounted).unwrap();
    let Some(_disk) = SmallDisk::mount(&mounted) else { return skip("nothing can be mounted here") };
    let path = mounted.join("events.json");
    let server = start(&path, &[]);
    let mut agent = AgentProcess::start(server.socket(), &[]);
    server.await_agents("up", 1);
    let ballast = mounted.join("ballast");
    // What finds no room any more is no fault here.
    let _ = fs::write(&ballast, vec![0; 1 << 20]);
    let errors = |server: &Server| server.scrape().value("varta_events_write_errors_total", &[]);
    let counted = wait_for(|| {
        change_status(&mut agent, 5);
        (errors(&server) >= 2.0).then_some(())
    });
    assert!(counted.is_some(), "no failure is counted within {LIMIT:?}");
    // What is there is whole, and it is said once.
    events(&path);
    let said = || server.log().find_all(path.to_str().unwrap());
    assert_eq!(said().len(), 1, "{:?}", said());
    server.await_beats_and_seconds(&[agent.pid()], 5, 0.0);
    fs::remove_file(&ballast).unwrap();
    let again = wait_for(|| {
        let is_it =
            |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("written to again"));
        said().iter().any(is_it).then_some(())
    });
    assert!(again.is_some(), "it does not write again within {LIMIT:?}");
    let scrape = server.scrape();
    assert_eq!(scrape.sum("varta_sink_dropped_total", &[("sink", "events")]), 0.0);
    stop(server);
    assert!(events(&path).len() as f64 >= scrape.sum("varta_transitions_total", &[]));
}

#[test]
fn a_file_that_cannot_be_opened_keeps_the_server_from_starting() {
    let (directory, _) = place();
    let mut command = server_command();
    command.env("VARTA_METRICS_ADDR", "127.0.0.1:0").arg("--socket").arg(directory.path().join("varta.sock"));
    command.arg("--events-file").arg(directory.path());
    let ended = run_to_its_end(command);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(directory.path().to_str().unwrap()), "{}", ended.stderr);
}
