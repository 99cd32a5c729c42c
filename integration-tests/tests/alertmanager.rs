//! The real Alertmanager: what it knows of our alerts, and its notifications of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use varta_integration_tests::{
    AgentProcess, Options, Receiver, Scratch, Server, Signal, agent, await_in_database, foreign, http, sys,
    wait_for, wait_until,
};

const PROGRAM: &str = "prometheus-alertmanager";
/// Short enough to wait for; an alert that is not sent again lasts for three times this.
const RESEND: [&str; 2] = ["--alert-resend-every", "2s"];

/// Each alert is a notification of its own, sent at once and again only after a day.
const AT_ONCE: &str = "1s";
/// Notifications of what has changed since wait for this long.
const LATER: &str = "10s";

/// Rules of inhibition that many configurations have, each with labels that are to be equal: those of
/// kube-prometheus, of Debian's package and of the sample of Alertmanager's own documentation, and others.
const EQUAL: [&str; 5] = [
    "'namespace', 'alertname'",
    "'alertname'",
    "'alertname', 'dev', 'instance'",
    "'alertname', 'cluster', 'service'",
    "'instance'",
];

/// An Alertmanager with its data, and the receiver that it notifies.
struct Alertmanager {
    address: SocketAddr,
    scratch: Scratch,
    people: Receiver,
    running: Option<Child>,
}

impl Alertmanager {
    /// One that does not run yet; `None` where there is none to be had.
    fn new() -> Option<Self> {
        Self::with(AT_ONCE, "")
    }

    /// The same with an interval of its groups, and with more in its configuration.
    fn with(group_interval: &str, more: &str) -> Option<Self> {
        program()?;
        let people = Receiver::start([]);
        let scratch = Scratch::make();
        let config = format!(
            "route:\n  receiver: people\n  group_by: ['...']\n  group_wait: 0s\n  group_interval: {group_interval}\n  \
             repeat_interval: 24h\nreceivers:\n- name: people\n  webhook_configs:\n  - url: {}\n    send_resolved: true\n\
             {more}",
            people.url("/")
        );
        scratch.write("config.yml", &config);
        Some(Alertmanager { address: Receiver::nowhere(), scratch, people, running: None })
    }

    fn start(&mut self) {
        let mut command = program().unwrap();
        let option = |name: &str, path: &str| format!("{name}={}", self.scratch.path(path).display());
        command
            .arg(option("--config.file", "config.yml"))
            .arg(option("--storage.path", "data"))
            .args(["--cluster.listen-address=", &format!("--web.listen-address={}", self.address)])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.running = Some(command.spawn().unwrap());
        wait_until("it is ready", || {
            http::get(self.address, "/-/ready", &[]).is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Stops it in order, so that it remembers its notifications.
    fn stop(&mut self) {
        let mut running = self.running.take().unwrap();
        sys::send_signal(running.id(), Signal::Terminate).unwrap();
        wait_until("it has stopped", || running.try_wait().unwrap().is_some());
    }

    fn options(&self) -> Options {
        let options = Options::from(["--stall-after", "2s"]).args(RESEND);
        options.args(["--alertmanager".to_owned(), format!("http://{}", self.address)])
    }

    /// What it knows of the alert of an agent that fires.
    fn active(&self, name: &str) -> Option<Value> {
        let path = format!("/api/v2/alerts?filter=agent%3D%22{name}%22");
        let answer = http::get(self.address, &path, &[]).ok()?;
        let mut alerts: Vec<Value> = serde_json::from_str(&answer.body).ok()?;
        assert!(alerts.len() <= 1, "{alerts:?}");
        alerts.pop()
    }

    #[track_caller]
    fn await_active(&self, name: &str) -> Value {
        wait_for(|| self.active(name)).unwrap_or_else(|| panic!("it does not know of {name}"))
    }

    /// Its notifications about an agent, in order.
    fn notifications(&self, name: &str) -> Vec<Value> {
        let requests = self.people.requests();
        let alerts = requests.iter().flat_map(|request| request.json()["alerts"].as_array().unwrap().clone());
        alerts.filter(|alert| alert["labels"]["agent"] == name).collect()
    }

    /// Their states.
    fn notified(&self, name: &str) -> Vec<String> {
        self.notifications(name).iter().map(|alert| alert["status"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn await_notified(&self, name: &str, expected: &[&str]) {
        let is_so = wait_for(|| (self.notified(name) == expected).then_some(()));
        assert!(is_so.is_some(), "of {name} it sent {:?}, and not {expected:?}", self.notified(name));
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It may have ended already.
            let _ = running.kill();
            let _ = running.wait();
        }
    }
}

fn program() -> Option<Command> {
    foreign::installed(PROGRAM)
}

fn start(socket: &Path, name: &str) -> AgentProcess {
    AgentProcess::start(socket, &["--name", name])
}

#[test]
fn an_alert_fires_stays_the_same_one_while_it_lasts_and_ends() {
    let Some(mut alertmanager) = Alertmanager::new() else { return };
    alertmanager.start();
    let server = Server::start(alertmanager.options());
    let mut worker = start(server.socket(), "worker");
    worker.ask("status critical");
    let first = alertmanager.await_active("worker");
    assert_eq!(first["labels"]["alertname"], "VartaAgentCritical");
    assert_eq!(first["labels"]["pid"], worker.pid().to_string());
    assert!(first["annotations"]["summary"].as_str().unwrap().contains("critical"), "{first}");
    alertmanager.await_notified("worker", &["firing"]);
    let shown = server.get("/api/v1/alerts?problem=critical");
    let shown: Value = serde_json::from_str(&shown.body).unwrap();
    let sent = &shown["alerts"][0]["sent"][0];
    assert_eq!((&sent["kind"], &sent["outcome"]), (&"alertmanager".into(), &"taken".into()), "{shown}");
    // Beyond the time at which it would have ended by itself.
    let lasts = wait_for(|| {
        alertmanager.active("worker").filter(|alert| alert["updatedAt"].as_str() > first["endsAt"].as_str())
    });
    let last = lasts.expect("it is sent again");
    assert_eq!((&last["startsAt"], &last["labels"]), (&first["startsAt"], &first["labels"]));
    worker.ask("status ok");
    alertmanager.await_notified("worker", &["firing", "resolved"]);
    assert_eq!(alertmanager.active("worker"), None);
}

#[test]
fn one_that_was_away_has_missed_nothing_and_notifies_nothing_twice() {
    let Some(mut alertmanager) = Alertmanager::new() else { return };
    let server = Server::start(alertmanager.options());
    let names = ["lasting", "brief", "mended", "late"];
    let [mut lasting, mut brief, mut mended, mut late] = names.map(|name| start(server.socket(), name));
    for worker in [&mut lasting, &mut brief, &mut mended] {
        worker.ask("status critical");
    }
    brief.ask("status ok");
    alertmanager.start();
    let first = alertmanager.await_active("lasting");
    alertmanager.await_notified("lasting", &["firing"]);
    alertmanager.await_notified("mended", &["firing"]);
    alertmanager.stop();
    mended.ask("status ok");
    late.ask("status critical");
    alertmanager.start();
    alertmanager.await_notified("late", &["firing"]);
    alertmanager.await_notified("mended", &["firing", "resolved"]);
    let last = alertmanager.await_active("lasting");
    assert_eq!(last["startsAt"], first["startsAt"]);
    lasting.ask("status ok");
    alertmanager.await_notified("lasting", &["firing", "resolved"]);
    assert_eq!(alertmanager.notified("brief"), [""; 0]);
}

#[test]
fn a_server_that_was_killed_goes_on_where_it_was() {
    let Some(mut alertmanager) = Alertmanager::new() else { return };
    alertmanager.start();
    let scratch = Scratch::make();
    let start_server = || Server::start(alertmanager.options().in_scratch(&scratch));
    let mut server = start_server();
    let [mut broken, mut mended] = ["broken", "mended"].map(|name| start(&scratch.socket(), name));
    broken.ask("status critical");
    mended.ask("status critical");
    let before = alertmanager.await_active("broken");
    alertmanager.await_notified("mended", &["firing"]);
    await_in_database(&scratch.state(), &["broken", "mended"]);
    wait_until("the alerts are written", || {
        let kept = scratch.lines("state/alerts.json").concat();
        ["broken", "mended"].iter().all(|name| kept.contains(name))
    });
    server.kill();
    mended.ask("status ok");
    let server = start_server();
    alertmanager.await_notified("mended", &["firing", "resolved"]);
    server.expect(agent(&broken).up());
    let lasts = wait_for(|| {
        alertmanager.active("broken").filter(|alert| alert["updatedAt"].as_str() > before["endsAt"].as_str())
    });
    let last = lasts.expect("it is sent again");
    assert_eq!((&last["startsAt"], &last["labels"]), (&before["startsAt"], &before["labels"]));
    assert_eq!(alertmanager.notified("broken"), ["firing"]);
}

#[test]
fn one_dead_agent_silences_no_alert_of_another_under_the_rules_of_inhibition_that_people_have() {
    let rules = EQUAL.map(|equal| {
        format!(
            "- source_matchers: ['severity = critical']\n  target_matchers: ['severity =~ warning|info']\n  \
             equal: [{equal}]\n"
        )
    });
    let Some(mut alertmanager) = Alertmanager::with(AT_ONCE, &format!("inhibit_rules:\n{}", rules.concat()))
    else {
        return;
    };
    alertmanager.start();
    // The rules are in force: alerts that one name has and no instance are inhibited.
    let alert = |severity: &str, agent: &str| {
        format!(
            r#"{{"labels":{{"alertname":"Other","severity":"{severity}","agent":"{agent}"}},"endsAt":"9999-01-01T00:00:00Z"}}"#
        )
    };
    let both = format!("[{},{}]", alert("critical", "source"), alert("warning", "target"));
    assert_eq!(http::post_json(alertmanager.address, "/api/v2/alerts", &both).unwrap().status, 200);
    wait_until("the rules are in force", || {
        alertmanager.active("target").is_some_and(|alert| alert["status"]["state"] == "suppressed")
    });

    let server = Server::start(alertmanager.options());
    let [mut dead, critical, stalled] =
        ["dead", "critical", "stalled"].map(|name| start(server.socket(), name));
    let mut critical = critical;
    server.await_beats(&[dead.pid(), stalled.pid()], 1);
    dead.signal(Signal::Kill);
    dead.wait();
    critical.ask("status critical");
    alertmanager.await_notified("dead", &["firing"]);
    alertmanager.await_notified("critical", &["firing"]);
    stalled.signal(Signal::Stop);
    alertmanager.await_notified("stalled", &["firing"]);
    let of = |name: &str| {
        let labels = alertmanager.active(name).unwrap()["labels"].clone();
        ["alertname", "severity", "instance"].map(|label| labels[label].as_str().unwrap().to_owned())
    };
    let [dead_of, critical_of, stalled_of] = ["dead", "critical", "stalled"].map(of);
    assert_eq!(dead_of[..2], ["VartaAgentDown", "critical"]);
    assert_eq!(critical_of[..2], ["VartaAgentCritical", "critical"]);
    assert_eq!(stalled_of[..2], ["VartaAgentStalled", "warning"]);
    assert!(stalled_of[2].starts_with(&format!("stalled[{}]@", stalled.pid())), "{stalled_of:?}");
    let state = &alertmanager.active("stalled").unwrap()["status"];
    assert_eq!((&state["state"], state["inhibitedBy"].as_array().unwrap().len()), (&"active".into(), 0));
    stalled.signal(Signal::Continue);
    alertmanager.await_notified("stalled", &["firing", "resolved"]);
}

#[test]
fn a_stall_that_becomes_a_death_pages() {
    let Some(mut alertmanager) = Alertmanager::new() else { return };
    alertmanager.start();
    let server = Server::start(alertmanager.options());
    let mut worker = start(server.socket(), "worker");
    server.await_beats(&[worker.pid()], 1);
    worker.signal(Signal::Stop);
    alertmanager.await_notified("worker", &["firing"]);
    worker.signal(Signal::Kill);
    worker.wait();
    let told = |name: &str, status: &str| {
        let is_it = |alert: &Value| alert["labels"]["alertname"] == name && alert["status"] == status;
        alertmanager.notifications("worker").into_iter().find(is_it)
    };
    let down = wait_for(|| told("VartaAgentDown", "firing")).expect("its death is told");
    let stalled = wait_for(|| told("VartaAgentStalled", "resolved")).expect("its stall is over");
    assert_eq!(down["labels"]["severity"], "critical");
    assert_eq!(down["annotations"]["escalated_from"], "VartaAgentStalled");
    assert!(stalled["annotations"]["escalated"].is_string() && stalled["annotations"]["resolved"].is_null());
    assert_eq!(alertmanager.active("worker").unwrap()["labels"]["alertname"], "VartaAgentDown");
}

#[test]
fn an_end_reaches_people_though_the_alertmanager_is_started_again_before_it_tells_them() {
    let Some(mut alertmanager) = Alertmanager::with(LATER, "") else { return };
    alertmanager.start();
    let server = Server::start(alertmanager.options());
    let mut worker = start(server.socket(), "worker");
    worker.ask("status critical");
    alertmanager.await_notified("worker", &["firing"]);
    alertmanager.await_active("worker");
    worker.ask("status ok");
    wait_until("it has the end", || alertmanager.active("worker").is_none());
    // Nobody is told before the interval of the group is over, and by then it has forgotten what it has not told.
    alertmanager.stop();
    assert_eq!(alertmanager.notified("worker"), ["firing"]);
    alertmanager.start();
    alertmanager.await_notified("worker", &["firing", "resolved"]);
}
