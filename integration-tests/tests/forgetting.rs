//! Agents that a user has the server forget: their rows and alerts end, and the audit log says who asked and why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use serde_json::Value;
use varta_integration_tests::{
    Ended, Network, Options, Receiver, RemoteAgent, Scratch, Server, Signal, agent, any_agent, line, metric,
    run_server, run_to_its_end, server_command, sys,
};

/// Asks the server to forget agents.
fn forget(server: &Server, words: &[&str]) -> Ended {
    let mut command = server_command();
    command.env("VARTA_SOCKET", server.socket()).arg("forget").args(words);
    run_to_its_end(command)
}

/// The values of the row that says whether an agent of this name is up.
fn rows(server: &Server, name: &str) -> Vec<f64> {
    server.scrape().matching("varta_agent_up", &[("agent", name)]).map(|row| row.value).collect()
}

/// The records of an event in an audit log.
fn records(log: &Path, event: &str) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["event"] == event).collect()
}

#[test]
fn the_row_and_the_alert_of_a_dead_agent_end_at_once_and_the_audit_log_says_who_asked_and_why() {
    let receiver = Receiver::start([]);
    let scratch = Scratch::make();
    let log = scratch.path("audit.log");
    let options = Options::from(["--stall-after", "1h", "--webhook"]).args([receiver.url("/hook")]);
    let server = Server::start(options.in_scratch(&scratch).path("--audit-log", &log));
    let mut workers = ["billing", "billing", "mail"].map(|name| server.start_agent(&["--name", name]));
    server.await_agents("up", 3);
    workers[0].signal(Signal::Kill);
    workers[0].wait();
    let (dead, alive) = (workers[0].pid(), workers[1].pid());
    server.expect(agent(&workers[0]).down());
    receiver.await_requests(1);

    let said = forget(&server, &["billing", "--reason", "host is retired"]);
    assert!(said.status.success(), "{}", said.stderr);
    assert_eq!(said.stdout, format!("1 agent is forgotten: billing[{dead}]\n"));
    assert!(said.stderr.contains(&format!("1 agent lives and is kept: billing[{alive}]")), "{}", said.stderr);
    let ended = receiver.await_requests(2).remove(1).json();
    assert_eq!((&ended["kind"], &ended["agent"]["pid"]), (&"resolved".into(), &dead.into()));
    let summary = ended["summary"].as_str().unwrap();
    assert!(summary.starts_with(&format!("billing[{dead}] was forgotten: a user asked for it")), "{summary}");
    let scrape = server.scrape();
    let rows = |pid: u32| scrape.get("varta_agent_up", &[("pid", &pid.to_string())]);
    assert_eq!((rows(dead), rows(alive)), (None, Some(1.0)));
    server.expect(metric("varta_alerts_firing").is(0.0));
    server.expect(line(&format!("forgotten, by uid {}: billing[{dead}]: host is retired", sys::user())));

    // Its process is another's of which nothing is known.
    let said = forget(&server, &[&dead.to_string()]);
    assert_eq!((said.status.code(), said.stdout.as_str()), (Some(1), ""));
    assert!(said.stderr.contains(&format!("nobody has the name or pid {dead}")), "{}", said.stderr);
    let said = forget(&server, &["mail"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stderr.contains(&format!("mail[{}] lives", workers[2].pid())), "{}", said.stderr);

    let whole = run_server([Path::new("audit"), Path::new("verify"), &log]);
    assert!(whole.status.success(), "{}", whole.stderr);
    let [asked, done] = ["forget_requested", "forget_done"].map(|event| records(&log, event));
    assert_eq!((asked.len(), done.len()), (3, 3));
    let forgotten = records(&log, "forgotten");
    assert_eq!(forgotten.len(), 1);
    for record in [&asked[0], &forgotten[0], &done[0]] {
        assert_eq!(
            (&record["pattern"], &record["uid"], &record["reason"]),
            (&"billing".into(), &sys::user().into(), &"host is retired".into()),
            "{record}"
        );
    }
    assert_eq!((&forgotten[0]["agent"], &forgotten[0]["pid"]), (&"billing".into(), &dead.into()));
    assert_eq!((&done[0]["agents"], &done[0]["living"]), (&1.into(), &1.into()));
}

#[test]
fn who_was_forgotten_is_not_known_to_the_next_server_and_a_replay_forgets_it_too() {
    let scratch = Scratch::make();
    let recording = scratch.path("recording");
    let options = Options::from(["--stall-after", "1h"]).in_scratch(&scratch);
    let mut server = Server::start(options.path("--record", &recording));
    let mut workers = ["billing", "mail"].map(|name| server.start_agent(&["--name", name]));
    for worker in &mut workers {
        worker.signal(Signal::Kill);
        worker.wait();
        server.expect(agent(&*worker).down());
    }
    assert!(forget(&server, &["billing"]).status.success());
    server.stop();
    let replayed = run_server([Path::new("replay"), &recording, Path::new("--json")]);
    assert!(replayed.status.success(), "{}", replayed.stderr);
    let server = Server::start(Options::from(["--stall-after", "1h"]).in_scratch(&scratch));
    server.await_agents("down", 1);
    assert_eq!(server.scrape().of_agent("varta_agent_up", workers[1].pid()), 0.0);
    assert_eq!(forget(&server, &["billing"]).status.code(), Some(1));
}

#[test]
fn an_agent_of_another_host_that_is_silent_and_one_that_never_came_are_forgotten() {
    let scratch = Scratch::make();
    let expected = "[[expected]]\nname = \"backup\"\ngrace = \"10ms\"\n";
    let options = Options::from(["--stall-after", "500ms"]).udp("127.0.0.1:0");
    let server = Server::start(options.config(&scratch, expected));
    let mut remote = RemoteAgent::new(Network::Plain, server.udp_address(0), 7);
    let beat = remote.beat();
    remote.send(&beat);
    server.expect(agent(7).stalled());
    server.expect(any_agent().named("backup").becomes("expected"));
    assert!(!rows(&server, "backup").is_empty());
    let said = forget(&server, &["7"]);
    assert!(said.status.success() && said.stdout.contains("[7]"), "{}{}", said.stdout, said.stderr);
    assert_eq!(forget(&server, &["back*"]).stdout, "1 agent is forgotten: backup\n");
    server.await_agents("stalled", 0);
    assert_eq!(rows(&server, "backup"), Vec::<f64>::new());
}

#[test]
fn nobody_is_forgotten_whose_end_the_audit_log_cannot_record() {
    let scratch = Scratch::make();
    let log = scratch.path("audit.log");
    let start = || Server::start(Options::from(["--stall-after", "1h"]).path("--audit-log", &log));
    start().stop();
    // Another program has emptied it, and nobody has decided to begin a new one.
    fs::write(&log, "").unwrap();
    let server = start();
    let mut worker = server.start_agent(&["--name", "billing"]);
    worker.signal(Signal::Kill);
    worker.wait();
    server.expect(agent(&worker).down());
    let said = forget(&server, &["billing"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stderr.contains("nobody is forgotten: the audit log"), "{}", said.stderr);
    assert_eq!(server.scrape().of_agent("varta_agent_up", worker.pid()), 0.0);
}
