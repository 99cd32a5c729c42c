//! Alarms that a user acknowledges: the alert fires on, and nothing more is sent about it until the state changes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use serde_json::Value;
use varta_integration_tests::{
    Ended, Options, Receiver, Request, Scratch, Server, Signal, agent, line, metric, run_to_its_end,
    server_command, sys, wait_until,
};

/// Runs one of the commands that speak to a running server.
fn command(server: &Server, words: &[&str]) -> Ended {
    let mut command = server_command();
    command.env("VARTA_SOCKET", server.socket()).args(words);
    run_to_its_end(command)
}

fn kinds(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|request| request.json()["kind"].as_str().unwrap().to_owned()).collect()
}

/// The newest firing alert that an Alertmanager has got, with its annotation about an acknowledgement.
fn newest(alertmanager: &Receiver) -> Option<(String, Option<String>)> {
    let request = alertmanager.requests().pop()?.json();
    let alert = request.as_array()?.iter().rfind(|alert| alert["annotations"]["resolved"].is_null())?.clone();
    let annotation = alert["annotations"]["acknowledged"].as_str().map(str::to_owned);
    Some((alert["labels"]["alertname"].as_str()?.to_owned(), annotation))
}

fn records(log: &Path, event: &str) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["event"] == event).collect()
}

#[test]
fn an_acknowledged_alarm_is_in_the_alert_and_in_the_audit_log_until_the_agent_recovers_also_after_a_restart()
{
    let [webhook, alertmanager] = [(); 2].map(|()| Receiver::start([]));
    let scratch = Scratch::make();
    let log = scratch.path("audit.log");
    let start = || {
        let options =
            Options::from(["--stall-after", "1h", "--alert-resend-every", "1s"]).in_scratch(&scratch);
        let to =
            ["--webhook".to_owned(), webhook.url("/hook"), "--alertmanager".to_owned(), alertmanager.url("")];
        Server::start(options.args(to).path("--audit-log", &log))
    };
    let mut server = start();
    let mut worker = server.start_agent(&["--name", "billing"]);
    let said = command(&server, &["ack", "billing"]);
    assert_eq!((said.status.code(), said.stdout.as_str()), (Some(1), ""));
    assert!(said.stderr.contains("nobody with the name or pid billing is in alarm"), "{}", said.stderr);
    worker.ask("status critical");
    webhook.await_requests(1);
    let said = command(&server, &["ack", "billing", "--reason", "on it"]);
    assert!(said.status.success(), "{}", said.stderr);
    assert_eq!(said.stdout, format!("1 alarm is acknowledged: billing[{}]\n", worker.pid()));
    let me = sys::user();
    server.expect(line(&format!("acknowledged, by uid {me}: the alarm of billing[{}]: on it", worker.pid())));
    let is_told = || match newest(&alertmanager) {
        Some((name, Some(text))) => {
            name == "VartaAgentCritical"
                && text.starts_with(&format!("by uid {me} at 2"))
                && text.ends_with(": on it")
        }
        _ => false,
    };
    wait_until("the alert says who has acknowledged it", is_told);
    for (event, count) in [("ack_requested", 2), ("acknowledged", 1), ("ack_done", 2)] {
        let records = records(&log, event);
        assert_eq!(records.len(), count, "{event}");
        let last = &records[count - 1];
        assert_eq!(
            (&last["pattern"], &last["uid"], &last["reason"]),
            (&"billing".into(), &me.into(), &"on it".into())
        );
    }
    wait_until("it is in the file", || {
        fs::read_to_string(scratch.path("state/alerts.json")).is_ok_and(|text| text.contains("\"on it\""))
    });

    server.kill();
    let before = alertmanager.requests().len();
    let server = start();
    wait_until("the next server goes on", || alertmanager.requests().len() > before && is_told());
    worker.ask("status critical");
    worker.ask("status ok");
    worker.ask("status critical");
    let requests = webhook.await_requests(3);
    assert_eq!(kinds(&requests), ["firing", "resolved", "firing"]);
    wait_until("the next alert is not acknowledged", || {
        newest(&alertmanager) == Some(("VartaAgentCritical".to_owned(), None))
    });

    command(&server, &["ack", &worker.pid().to_string()]);
    let said = command(&server, &["unack", "bill*"]);
    assert_eq!(said.stdout, format!("1 alarm is no longer acknowledged: billing[{}]\n", worker.pid()));
    assert_eq!(records(&log, "unacknowledged").len(), 1);
    assert_eq!(command(&server, &["unack", "billing"]).status.code(), Some(1));
}

#[test]
fn recovery_acts_as_before_and_says_nothing_about_an_agent_whose_alarm_is_acknowledged() {
    let webhook = Receiver::start([]);
    let options = ["--stall-after", "1h", "--recovery-exec", "/bin/false", "--recovery-attempts", "1"];
    let options = Options::from(options).args([
        "--recovery-debounce",
        "5s",
        "--recovery-backoff",
        "1ms",
        "--replaced-within",
        "0s",
    ]);
    let server = Server::start(options.args(["--webhook".to_owned(), webhook.url("/hook")]));
    let mut workers = ["known", "unknown"].map(|name| server.start_agent(&["--name", name]));
    for worker in &mut workers {
        worker.signal(Signal::Kill);
        worker.wait();
        server.expect(agent(&*worker).down());
    }
    webhook.await_requests(2);
    let said = command(&server, &["ack", "known"]);
    assert!(said.status.success() && said.stderr.contains("no --state-dir"), "{}", said.stderr);
    let commands = metric("varta_recovery_actions_total").with("action", "command").with("result", "failed");
    server.expect(commands.is(2.0));
    let notices = metric("varta_notifications_total").with("destination", "webhook");
    server.expect(notices.with("outcome", "acknowledged").is(1.0));
    let requests = webhook.await_requests(3);
    let told: Vec<_> = requests[2..].iter().map(|request| request.json()["agent"]["name"].clone()).collect();
    assert_eq!((kinds(&requests[2..]), told), (vec!["recovery".to_owned()], vec!["unknown".into()]));
}

#[test]
fn without_a_receiver_of_alerts_there_is_nothing_to_acknowledge() {
    let server = Server::start(Options::new());
    for task in ["ack", "unack"] {
        let said = command(&server, &[task, "billing"]);
        assert_eq!(said.status.code(), Some(1));
        assert!(said.stderr.contains("this server sends no alerts"), "{}", said.stderr);
    }
}
