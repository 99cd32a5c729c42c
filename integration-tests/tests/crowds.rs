//! Many agents at once: what happens to all of them in one moment is one incident, and the silence of all of
//! them is first taken for a fault of the server's own sight.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use varta_integration_tests::{
    Network, Options, RemoteAgent, Server, Signal, agent, line, loopbacks, wait_until,
};

const AGENTS: usize = 40;
/// More than the ten that make an incident, and few enough for timely looks at all of them.
const STOPPED: usize = 16;
const STALL_AFTER: [&str; 2] = ["--stall-after", "2s"];

/// How many changes to this verdict are lines of this level.
fn lines_at(server: &Server, level: &str, to: &str) -> usize {
    let changes = server.log().find_all("").into_iter().filter(|line| line["target"] == "varta::agent");
    changes.filter(|line| line["level"] == level && line["to"] == to).count()
}

#[test]
fn workers_that_are_stopped_together_are_one_incident_and_not_as_many_alarms() {
    wait_until("the server sees in time that all of them are stopped", || {
        let server = Server::start(STALL_AFTER);
        // Their beats, and with that the looks at them, do not come all at once.
        let workers = server.start_agents(STOPPED, &["--interval-ms", "300"]);
        for worker in &workers {
            worker.signal(Signal::Stop);
        }
        server.await_agents("stalled", STOPPED);
        let scrape = server.scrape();
        let changes = |to, cause| scrape.sum("varta_transitions_total", &[("to", to), ("cause", cause)]);
        let was_doubted = changes("unknown", "observer_blind") + changes("unknown", "lossy") > 0.0;
        if was_doubted || changes("stalled", "stopped") != STOPPED as f64 {
            // Some looks came too late, because the machine is busy. What is seen is not doubted.
            return false;
        }
        let began = server.expect(line("incident 1: many agents of this host are stalled at once"));
        assert_eq!(began["level"], "WARN");
        let over = server.expect(line("incident 1 is over: 16 agents of this host became stalled"));
        assert_eq!((&over["agents"], &over["cause"]), (&STOPPED.into(), &"stopped".into()));
        // Those before the incident began are warnings, the others are not.
        let levels = ["WARN", "INFO"].map(|level| lines_at(&server, level, "stalled"));
        assert_eq!(levels, [9, STOPPED - 9]);
        assert_eq!(server.scrape().value("varta_incidents_total", &[]), 1.0);
        for worker in &workers {
            worker.signal(Signal::Continue);
        }
        server.await_agents("up", STOPPED);
        true
    });
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
    for remote in &agents {
        server.expect(agent(remote).unknown().because("observer_blind"));
    }
    // One half was there all the time.
    let (there, away) = agents.split_at_mut(AGENTS / 2);
    beat(there);
    for remote in &*away {
        server.expect_history(remote, &["up: first_beat", "stalled: unreachable"]);
    }
    for remote in &*there {
        server.expect(agent(remote).up().because("recovered").from("unknown"));
    }
}
