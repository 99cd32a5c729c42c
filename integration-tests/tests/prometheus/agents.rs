//! Alerts about agents.

use varta_integration_tests::{
    AgentProcess, Options, Prometheus, Scratch, Server, Signal, agent, metric, run_to_its_end,
    server_command, wait_until,
};

use crate::prometheus;

/// Enough for an agent that flaps.
const FALLS: u32 = 6;

fn forget(server: &Server, name: &str) {
    let mut command = server_command();
    command.env("VARTA_SOCKET", server.socket()).args(["forget", name]);
    let ended = run_to_its_end(command);
    assert!(ended.status.success(), "{}", ended.stderr);
}

fn stop(server: &Server, worker: &AgentProcess) {
    worker.signal(Signal::Stop);
    server.expect(agent(worker).stalled());
}

fn go_on(server: &Server, worker: &AgentProcess) {
    worker.signal(Signal::Continue);
    server.expect(agent(worker).up());
}

fn kill(server: &Server, worker: &mut AgentProcess) {
    worker.signal(Signal::Kill);
    worker.wait();
    server.expect(agent(&*worker).down());
}

/// Waits until Prometheus has seen how often an agent has failed so far: it tells an increase from there on.
fn await_scraped(prometheus: &Prometheus, server: &Server, metric: &str, name: &str) {
    wait_until("it is scraped", || {
        let value = server.scrape().value(metric, &[("agent", name)]);
        prometheus.count(&format!("{metric}{{agent=\"{name}\"}} == {value}")) == 1
    });
}

#[test]
fn what_is_wrong_with_an_agent_is_an_alert_until_it_is_not() {
    let scratch = Scratch::make();
    let config = "[[expected]]\nname = \"billing\"\ngrace = \"1s\"\n";
    let server = Server::start(Options::from(["--stall-after", "1s"]).config(&scratch, config));
    let Some(prometheus) = prometheus(server.address(), "1s") else { return };

    let missing = prometheus.await_alert("VartaAgentMissing", &[("agent", "billing")]);
    let summary = missing["annotations"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("billing has never come on "), "{summary}");
    let mut billing = server.start_agent(&["--name", "billing"]);
    prometheus.await_end("VartaAgentMissing", ("agent", "billing"));

    billing.ask("status critical");
    prometheus.await_alert("VartaAgentCritical", &[("agent", "billing")]);
    billing.ask("status ok");
    prometheus.await_end("VartaAgentCritical", ("agent", "billing"));

    stop(&server, &billing);
    prometheus.await_alert("VartaAgentStalled", &[("agent", "billing"), ("transport", "unix")]);
    // It gets worse: one alert, and not two.
    kill(&server, &mut billing);
    prometheus.await_alert("VartaAgentDown", &[("agent", "billing")]);
    prometheus.await_end("VartaAgentStalled", ("agent", "billing"));

    let successor = server.start_agent(&["--name", "billing"]);
    prometheus.await_end("VartaAgentDown", ("agent", "billing"));

    let mut forgotten = server.start_agent(&["--name", "forgotten"]);
    kill(&server, &mut forgotten);
    prometheus.await_alert("VartaAgentDown", &[("agent", "forgotten")]);
    forget(&server, "forgotten");
    prometheus.await_end("VartaAgentDown", ("agent", "forgotten"));
    drop(successor);
}

#[test]
fn a_job_that_is_late_is_an_alert_until_it_begins_and_one_that_overlaps_is_another() {
    let scratch = Scratch::make();
    let config = "[[job]]\nname = \"backup\"\nevery = \"1s\"\ngrace = \"1s\"\n";
    let server = Server::start(Options::from(["--stall-after", "1h"]).config(&scratch, config));
    let Some(prometheus) = prometheus(server.address(), "1s") else { return };
    let late = prometheus.await_alert("VartaJobLate", &[("agent", "backup")]);
    let summary = late["annotations"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("The job backup has not begun, as "), "{summary}");
    assert!(prometheus.firing("VartaAgentMissing").is_empty());
    let run = server.start_agent(&["--name", "backup"]);
    prometheus.await_end("VartaJobLate", ("agent", "backup"));

    await_scraped(&prometheus, &server, "varta_job_overlaps_total", "backup");
    let other = server.start_agent(&["--name", "backup"]);
    prometheus.await_alert("VartaJobOverlapping", &[("agent", "backup")]);
    prometheus.await_end("VartaJobOverlapping", ("agent", "backup"));
    drop((run, other));
}

#[test]
fn a_stall_between_two_scrapes_and_falls_again_and_again_are_told() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut crashing = server.start_agent(&["--name", "crashing"]);
    let [brief, flapping] = ["brief", "flapping"].map(|name| server.start_agent(&["--name", name]));
    let crowd = server.start_agents(12, &["--name", "crowd"]);
    let Some(prometheus) = prometheus(server.address(), "3s") else { return };
    await_scraped(&prometheus, &server, "varta_stalls_total", "brief");

    stop(&server, &brief);
    go_on(&server, &brief);
    prometheus.await_alert("VartaAgentStalled", &[("agent", "brief")]);
    assert!(prometheus.firing("VartaAgentFlapping").is_empty());

    let stalls = metric("varta_stalls_total").with("agent", "flapping");
    let is_up = metric("varta_agent_up").with("agent", "flapping");
    for fall in 1..=FALLS {
        flapping.signal(Signal::Stop);
        server.expect(stalls.clone().at_least(f64::from(fall)));
        flapping.signal(Signal::Continue);
        server.expect(is_up.clone().is(1.0));
        crashing.signal(Signal::Kill);
        crashing.wait();
        crashing = server.start_agent(&["--name", "crashing"]);
    }
    prometheus.await_alert("VartaAgentFlapping", &[("agent", "flapping")]);
    prometheus.await_alert("VartaAgentRestarting", &[("agent", "crashing")]);

    for worker in &crowd {
        worker.signal(Signal::Stop);
    }
    prometheus.await_alert("VartaManyAgentsUnhealthy", &[]);
    for worker in &crowd {
        go_on(&server, worker);
    }
    for (alert, name) in [
        ("VartaAgentStalled", "brief"),
        ("VartaAgentFlapping", "flapping"),
        ("VartaAgentRestarting", "crashing"),
    ] {
        prometheus.await_end(alert, ("agent", name));
    }
    prometheus.await_end("VartaManyAgentsUnhealthy", ("severity", "critical"));
}
