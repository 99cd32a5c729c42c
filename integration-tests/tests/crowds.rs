//! Many agents at once: what falls in one moment is one incident, and a silence of all of them is doubted first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use varta_integration_tests::{
    AgentProcess, LIMIT, Network, Options, RemoteAgent, Server, Signal, loopbacks, wait_for,
};

const AGENTS: usize = 40;
const STALL_AFTER: [&str; 2] = ["--stall-after", "2s"];

/// Waits for a line of the log that begins so.
#[track_caller]
fn await_line(server: &Server, start: &str) -> Value {
    let line = wait_for(|| server.log().find(start));
    assert!(line.is_some(), "no line within {LIMIT:?} that begins with: {start}");
    line.unwrap()
}

/// The lines that speak of an agent, as warnings or not.
fn lines_at(server: &Server, level: &str, to: &str) -> usize {
    let lines = server.log().lines();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["target"] == "varta::agent" && line["level"] == level && line["to"] == to)
        .count()
}

#[test]
fn workers_that_are_stopped_together_are_one_incident_and_not_as_many_alarms() {
    let server = Server::start(STALL_AFTER);
    let agents: Vec<_> = (0..AGENTS).map(|_| AgentProcess::start(server.socket(), &[])).collect();
    server.await_agents("up", AGENTS);
    for agent in &agents {
        agent.signal(Signal::Stop);
    }
    server.await_agents("stalled", AGENTS);
    let began = await_line(&server, "incident 1: many agents of this host are stalled at once");
    assert_eq!(began["level"], "WARN");
    let over = await_line(&server, "incident 1 is over: 40 agents of this host became stalled");
    assert_eq!((&over["agents"], &over["cause"]), (&Value::from(AGENTS), &Value::from("stopped")));
    // Those that came before it was one, and nothing for the others but what is there for who looks for it.
    assert_eq!((lines_at(&server, "WARN", "stalled"), lines_at(&server, "INFO", "stalled")), (9, AGENTS - 9));
    let scrape = server.scrape();
    assert_eq!(scrape.value("varta_incidents_total", &[]), 1.0);
    // That they are stopped is seen, so nobody doubts it.
    assert_eq!(
        scrape.value("varta_transitions_total", &[("to", "stalled"), ("cause", "stopped")]),
        AGENTS as f64
    );
    assert_eq!(scrape.sum("varta_transitions_total", &[("to", "unknown")]), 0.0);
    for agent in &agents {
        agent.signal(Signal::Continue);
    }
    server.await_agents("up", AGENTS);
}

#[test]
fn when_nothing_comes_from_a_whole_network_nobody_is_accused_before_a_second_chance_is_over() {
    let address = loopbacks()[0];
    let server = Server::start(Options::new().args(STALL_AFTER).on(Network::SharedKey, &[address]));
    let source = server.secure_udp_address(0);
    let pids = 1_000..1_000 + u32::try_from(AGENTS).unwrap();
    let mut agents: Vec<_> = pids.map(|pid| RemoteAgent::new(Network::SharedKey, source, pid)).collect();
    let beat = |agents: &mut [RemoteAgent]| {
        for agent in agents {
            agent.beat();
        }
    };
    beat(&mut agents);
    server.await_agents("unknown", AGENTS);
    for agent in &agents {
        server.await_transition(agent.pid(), "unknown", "observer_blind");
    }
    // One half was there all the time.
    let (there, away) = agents.split_at_mut(AGENTS / 2);
    beat(there);
    for agent in &*away {
        server.await_transition(agent.pid(), "stalled", "unreachable");
        assert_eq!(server.told(agent.pid()), ["up: first_beat", "stalled: unreachable"]);
    }
    for agent in there {
        let told = server.told(agent.pid());
        assert_eq!(told[..2], ["up: first_beat", "up: recovered"], "{told:?}");
    }
}
