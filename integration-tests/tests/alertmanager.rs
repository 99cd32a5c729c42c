//! The real Alertmanager: what it knows of our alerts, and what it tells people of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use varta_integration_tests::{
    AgentProcess, Options, Receiver, Server, Signal, foreign, http, sys, wait_for,
};

const PROGRAM: &str = "prometheus-alertmanager";
/// Short enough to be waited for; an alert lasts for three times that without being sent again.
const RESEND: [&str; 2] = ["--alert-resend-every", "2s"];

/// An Alertmanager with what it remembers, and whom it tells.
struct Alertmanager {
    address: SocketAddr,
    directory: TempDir,
    people: Receiver,
    running: Option<Child>,
}

impl Alertmanager {
    /// One that does not run yet; `None` where there is none to be had.
    fn new() -> Option<Self> {
        program()?;
        let people = Receiver::start([]);
        let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
        // Each alert is told by itself and at once, and again only after a day.
        let config = format!(
            "route:\n  receiver: people\n  group_by: ['...']\n  group_wait: 0s\n  group_interval: 1s\n  \
             repeat_interval: 24h\nreceivers:\n- name: people\n  webhook_configs:\n  - url: {}\n    send_resolved: true\n",
            people.url("/")
        );
        fs::write(directory.path().join("config.yml"), config).unwrap();
        Some(Alertmanager { address: Receiver::nowhere(), directory, people, running: None })
    }

    fn start(&mut self) {
        let mut command = program().unwrap();
        let option =
            |name: &str, path: &str| format!("{name}={}", self.directory.path().join(path).display());
        command
            .arg(option("--config.file", "config.yml"))
            .arg(option("--storage.path", "data"))
            .args(["--cluster.listen-address=", &format!("--web.listen-address={}", self.address)])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.running = Some(command.spawn().unwrap());
        let is_ready = || http::get(self.address, "/-/ready", &[]).is_ok_and(|answer| answer.status == 200);
        assert!(wait_for(|| is_ready().then_some(())).is_some(), "it is not ready");
    }

    /// Stops it in order, so that it remembers whom it told what.
    fn stop(&mut self) {
        let mut running = self.running.take().unwrap();
        sys::send_signal(running.id(), Signal::Terminate).unwrap();
        assert!(wait_for(|| running.try_wait().unwrap()).is_some(), "it does not stop");
    }

    fn options(&self) -> Options {
        let options = Options::from(["--stall-after", "2s"]).args(RESEND);
        options.args(["--alertmanager".to_owned(), format!("http://{}", self.address)])
    }

    /// What it knows of the alert of an agent that fires.
    fn active(&self, agent: &str) -> Option<Value> {
        let path = format!("/api/v2/alerts?filter=agent%3D%22{agent}%22");
        let answer = http::get(self.address, &path, &[]).ok()?;
        let mut alerts: Vec<Value> = serde_json::from_str(&answer.body).ok()?;
        assert!(alerts.len() <= 1, "{alerts:?}");
        alerts.pop()
    }

    #[track_caller]
    fn await_active(&self, agent: &str) -> Value {
        wait_for(|| self.active(agent)).unwrap_or_else(|| panic!("it does not know of {agent}"))
    }

    /// What it has told people of an agent, in order.
    fn told(&self, agent: &str) -> Vec<String> {
        let requests = self.people.requests();
        let alerts = requests.iter().flat_map(|request| request.json()["alerts"].as_array().unwrap().clone());
        let of_it = alerts.filter(|alert| alert["labels"]["agent"] == agent);
        of_it.map(|alert| alert["status"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn await_told(&self, agent: &str, expected: &[&str]) {
        let is_so = wait_for(|| (self.told(agent) == expected).then_some(()));
        assert!(is_so.is_some(), "of {agent} it told {:?}, and not {expected:?}", self.told(agent));
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

fn agent(socket: &Path, name: &str) -> AgentProcess {
    AgentProcess::start(socket, &["--name", name])
}

#[test]
fn an_alert_fires_stays_the_same_one_while_it_lasts_and_ends() {
    let Some(mut alertmanager) = Alertmanager::new() else { return };
    alertmanager.start();
    let server = Server::start(alertmanager.options());
    let mut worker = agent(server.socket(), "worker");
    worker.ask("status critical");
    let first = alertmanager.await_active("worker");
    assert_eq!(first["labels"]["alertname"], "VartaAgentUnhealthy");
    assert_eq!(first["labels"]["pid"], worker.pid().to_string());
    assert!(first["annotations"]["summary"].as_str().unwrap().contains("critical"), "{first}");
    alertmanager.await_told("worker", &["firing"]);
    // Beyond the time at which it would have ended by itself.
    let lasts = wait_for(|| {
        alertmanager.active("worker").filter(|alert| alert["updatedAt"].as_str() > first["endsAt"].as_str())
    });
    let last = lasts.expect("it is sent again");
    assert_eq!((&last["startsAt"], &last["labels"]), (&first["startsAt"], &first["labels"]));
    worker.ask("status ok");
    alertmanager.await_told("worker", &["firing", "resolved"]);
    assert_eq!(alertmanager.active("worker"), None);
}

#[test]
fn one_that_was_away_has_missed_nothing_and_tells_nothing_twice() {
    let Some(mut alertmanager) = Alertmanager::new() else { return };
    let server = Server::start(alertmanager.options());
    let start = |name| agent(server.socket(), name);
    let [mut lasting, mut brief, mut mended, mut late] = ["lasting", "brief", "mended", "late"].map(start);
    for agent in [&mut lasting, &mut brief, &mut mended] {
        agent.ask("status critical");
    }
    brief.ask("status ok");
    alertmanager.start();
    let first = alertmanager.await_active("lasting");
    alertmanager.await_told("lasting", &["firing"]);
    alertmanager.await_told("mended", &["firing"]);
    alertmanager.stop();
    mended.ask("status ok");
    late.ask("status critical");
    alertmanager.start();
    alertmanager.await_told("late", &["firing"]);
    alertmanager.await_told("mended", &["firing", "resolved"]);
    let last = alertmanager.await_active("lasting");
    assert_eq!(last["startsAt"], first["startsAt"]);
    lasting.ask("status ok");
    alertmanager.await_told("lasting", &["firing", "resolved"]);
    assert_eq!(alertmanager.told("brief"), [""; 0]);
}

#[test]
fn a_server_that_was_killed_goes_on_where_it_was() {
    let Some(mut alertmanager) = Alertmanager::new() else { return };
    alertmanager.start();
    let place = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
    let (socket, state) = (place.path().join("varta.sock"), place.path().join("state"));
    let start =
        || Server::start(alertmanager.options().socket(&socket).args([Path::new("--state-dir"), &state]));
    let mut server = start();
    let [mut broken, mut mended] = ["broken", "mended"].map(|name| agent(&socket, name));
    broken.ask("status critical");
    mended.ask("status critical");
    let before = alertmanager.await_active("broken");
    alertmanager.await_told("mended", &["firing"]);
    let is_kept = || {
        let read = |name: &str| fs::read(state.join(name)).unwrap_or_default();
        let all = [read("varta.db"), read("varta.db-wal")].concat();
        let has = |bytes: &[u8], name: &str| bytes.windows(name.len()).any(|at| at == name.as_bytes());
        let are_kept = |name| has(&all, name) && has(&read("alerts.json"), name);
        (are_kept("broken") && are_kept("mended")).then_some(())
    };
    assert!(wait_for(is_kept).is_some());
    server.signal(Signal::Kill);
    server.wait();
    mended.ask("status ok");
    let server = start();
    alertmanager.await_told("mended", &["firing", "resolved"]);
    server.await_state(broken.pid(), "up");
    let lasts = wait_for(|| {
        alertmanager.active("broken").filter(|alert| alert["updatedAt"].as_str() > before["endsAt"].as_str())
    });
    let last = lasts.expect("it is sent again");
    assert_eq!((&last["startsAt"], &last["labels"]), (&before["startsAt"], &before["labels"]));
    assert_eq!(alertmanager.told("broken"), ["firing"]);
}
