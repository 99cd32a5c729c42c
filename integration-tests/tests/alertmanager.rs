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
        program()?;
        let people = Receiver::start([]);
        let scratch = Scratch::make();
        // Each alert is a notification of its own, sent at once and again only after a day.
        let config = format!(
            "route:\n  receiver: people\n  group_by: ['...']\n  group_wait: 0s\n  group_interval: 1s\n  \
             repeat_interval: 24h\nreceivers:\n- name: people\n  webhook_configs:\n  - url: {}\n    send_resolved: true\n",
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

    /// The states of its notifications about an agent, in order.
    fn notified(&self, name: &str) -> Vec<String> {
        let requests = self.people.requests();
        let alerts = requests.iter().flat_map(|request| request.json()["alerts"].as_array().unwrap().clone());
        let of_it = alerts.filter(|alert| alert["labels"]["agent"] == name);
        of_it.map(|alert| alert["status"].as_str().unwrap().to_owned()).collect()
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
    assert_eq!(first["labels"]["alertname"], "VartaAgentUnhealthy");
    assert_eq!(first["labels"]["pid"], worker.pid().to_string());
    assert!(first["annotations"]["summary"].as_str().unwrap().contains("critical"), "{first}");
    alertmanager.await_notified("worker", &["firing"]);
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
