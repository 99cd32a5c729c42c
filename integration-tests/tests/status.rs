//! `varta-server status`: how a running server and its agents are, for a person and for scripts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;

use serde_json::Value;
use varta_integration_tests::{
    Ended, Options, Receiver, Scratch, Server, Signal, agent, metric, run_to_its_end, server_command,
    wait_until,
};

fn ask(server: &Server, words: &[&str]) -> Ended {
    let mut command = server_command();
    command.env("VARTA_SOCKET", server.socket()).args(words);
    run_to_its_end(command)
}

fn status(server: &Server) -> Ended {
    ask(server, &["status"])
}

fn json(server: &Server) -> Value {
    let ended = ask(server, &["status", "--json"]);
    assert_eq!(ended.stderr, "");
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn all_is_well_until_somebody_is_in_alarm_and_then_it_is_said_who_since_when_and_why() {
    let server = Server::start(["--stall-after", "1s", "--replaced-within", "0s"]);
    let well = status(&server);
    assert_eq!(well.status.code(), Some(0), "{}", well.stdout);
    assert!(well.stdout.ends_with(": ready\nno agents\nnobody is in alarm\n"), "{}", well.stdout);

    let mut workers =
        ["stopped", "killed", "critical", "fine"].map(|name| server.start_agent(&["--name", name]));
    let [stopped, killed, critical, _] = &mut workers;
    stopped.signal(Signal::Stop);
    killed.signal(Signal::Kill);
    killed.wait();
    critical.ask("status critical");
    server.expect(agent(&*stopped).stalled());
    server.expect(agent(&*killed).down());
    server.expect(metric("varta_agent_alarm").with("agent", "critical").is(1.0));
    wait_until("all three are told", || json(&server)["alarms_in_all"] == 3);

    let told = status(&server);
    assert_eq!(told.status.code(), Some(1));
    let lines: Vec<_> = told.stdout.lines().collect();
    assert_eq!(lines[1], "4 agents: 2 up, 1 stalled, 1 down");
    let pids = [killed.pid(), critical.pid(), stopped.pid()];
    let expected = [
        (
            "down since 20",
            format!("killed[{}] went from up to down: its process was killed by SIGKILL", pids[0]),
        ),
        (
            "critical since 20",
            format!("critical[{}] went from up to up (critical): it reports critical", pids[1]),
        ),
        ("stalled since 20", format!("stopped[{}] went from up to stalled: its process is stopped", pids[2])),
    ];
    assert_eq!(lines.len(), 2 + expected.len(), "{}", told.stdout);
    for (line, (start, part)) in lines[2..].iter().zip(expected) {
        assert!(line.starts_with(start) && line.contains(&part), "{line}");
    }

    let report = json(&server);
    let first = &report["alarms"][0];
    assert_eq!(
        (&first["problem"], &first["cause"], &first["signal"]),
        (&"down".into(), &"killed".into(), &9.into())
    );
    assert_eq!((&report["agents"]["up"], &report["pid"]), (&2.into(), &server.pid().into()));
    assert!(report["alarms"][2]["dossier"].to_string().contains("a signal has stopped it"), "{report}");
    assert_eq!(
        report["alarms"][0]["id"].as_str().unwrap().split('@').next().unwrap(),
        format!("killed[{}]", pids[0])
    );

    let worst: Value = serde_json::from_str(&server.get("/api/v1/alarms?limit=2").body).unwrap();
    assert_eq!(worst["total"], 3);
    assert_eq!(worst["alarms"], Value::from(report["alarms"].as_array().unwrap()[..2].to_vec()));
    assert_eq!(server.get("/api/v1/alarms?limit=501").status, 400);
}

#[test]
fn whoever_is_paused_or_acknowledged_is_marked_and_a_pause_makes_it_well() {
    let receiver = Receiver::start([]);
    let server =
        Server::start(Options::from(["--stall-after", "1s", "--webhook"]).args([receiver.url("/hook")]));
    let worker = server.start_agent(&["--name", "billing"]);
    worker.signal(Signal::Stop);
    server.expect(agent(&worker).stalled());
    receiver.await_requests(1);
    assert!(ask(&server, &["ack", "billing"]).status.success());
    wait_until("it is acknowledged", || json(&server)["alarms"][0]["acknowledged"] == true);
    let told = status(&server);
    assert_eq!(told.status.code(), Some(1));
    assert!(told.stdout.contains(" (acknowledged): billing["), "{}", told.stdout);

    assert!(ask(&server, &["pause", "bill*", "--for", "1h"]).status.success());
    let paused = status(&server);
    assert_eq!(paused.status.code(), Some(0), "{}", paused.stdout);
    assert!(paused.stdout.contains("\n1 pause is in force\nstalled since 20"), "{}", paused.stdout);
    assert!(paused.stdout.contains(" (paused)"), "{}", paused.stdout);

    worker.signal(Signal::Continue);
    server.expect(agent(&worker).up());
    wait_until("it is well", || json(&server)["alarms_in_all"] == 0);
}

#[test]
fn a_server_that_starts_again_knows_who_was_in_alarm_and_says_that_it_has_not_seen_why() {
    let scratch = Scratch::make();
    let options = || Options::from(["--stall-after", "1h", "--replaced-within", "0s"]).in_scratch(&scratch);
    let mut server = Server::start(options());
    let mut worker = server.start_agent(&["--name", "billing"]);
    worker.signal(Signal::Kill);
    worker.wait();
    server.expect(agent(&worker).down());
    server.stop();
    let server = Server::start(options());
    wait_until("it is told", || json(&server)["alarms_in_all"] == 1);
    let told = status(&server);
    let line =
        format!("down: billing[{}] is down; this server has not seen how it came to be so\n", worker.pid());
    assert!(told.status.code() == Some(1) && told.stdout.ends_with(&line), "{}", told.stdout);
    assert_eq!(json(&server)["alarms"][0]["cause"], Value::Null);

    assert!(ask(&server, &["forget", "billing"]).status.success());
    wait_until("it is forgotten", || json(&server)["alarms_in_all"] == 0);
}

#[test]
fn a_part_that_does_not_work_is_named_and_a_server_that_does_not_answer_is_neither_well_nor_ill() {
    let scratch = Scratch::make();
    let path = scratch.write("varta.toml", "stall-after = \"1h\"\n");
    let mut server = Server::start(Options::new().path("--config", &path));
    fs::write(&path, "stall-after = 7\n").unwrap();
    assert!(!server.reload().status.success());
    let told = status(&server);
    assert_eq!(told.status.code(), Some(1));
    let fault = format!("\ndoes not work: configuration: {}", path.display());
    assert!(told.stdout.contains(&fault), "{}", told.stdout);

    server.stop();
    let unknown = status(&server);
    assert_eq!((unknown.status.code(), unknown.stdout.as_str()), (Some(2), ""));
    assert!(unknown.stderr.contains("no server answers here"), "{}", unknown.stderr);
}
