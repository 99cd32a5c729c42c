//! Storms of changes: the log is bounded and says what it leaves out, and nothing else lacks any of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use varta_integration_tests::{
    Network, Options, RemoteAgent, Scratch, Server, agent, line_with, loopback_socket, loopbacks, wait_until,
};

const AGENTS: u32 = 300;
/// Changes of verdict, of which the log would have some megabytes.
const CHANGES: f64 = 10_000.0;
/// Lines of a kind at once and each second from then on, and the most bytes of a line in this test.
const AT_ONCE: f64 = 1_000.0;
const A_SECOND: f64 = 10.0;
const LINE: f64 = 1_024.0;

#[test]
fn hundreds_of_agents_that_stall_and_recover_without_end_write_a_bounded_log_that_says_what_it_lacks() {
    let scratch = Scratch::make();
    let events = scratch.path("events.json");
    let options = Options::from(["--stall-after", "20ms"]).path("--events-file", &events);
    let started = Instant::now();
    let mut server = Server::start(options.on(Network::SharedKey, &[loopbacks()[0]]));
    let (address, socket) = (server.secure_udp_address(0), Arc::new(loopback_socket()));
    let agent_with = |pid| RemoteAgent::on(Arc::clone(&socket), Network::SharedKey, address, pid);

    // The first alarm of a quiet time is there at once, long before a storm.
    let mut first = agent_with(999);
    first.beat();
    server.expect(agent(&first).stalled());

    let mut agents: Vec<_> = (1_000..1_000 + AGENTS).map(agent_with).collect();
    wait_until("all of them went up and down often", || {
        // Longer than a deadline, so that each beat is a change and each silence another.
        agents.iter_mut().for_each(|agent| _ = agent.beat());
        std::thread::sleep(Duration::from_millis(50));
        server.scrape().sum("varta_transitions_total", &[]) >= CHANGES
    });
    server.expect(line_with("lines about agents were left out").with("by kind alarm").with("events file"));
    agents.clear();
    server.await_agents("stalled", AGENTS as usize + 1);
    let (mut counted, mut lines) = (0.0, 0.0);
    wait_until("every change is a line or is counted as left out", || {
        let scrape = server.scrape();
        let suppressed = |kind| scrape.value("varta_log_lines_suppressed_total", &[("kind", kind)]);
        assert_eq!(["report", "plaintext", "other"].map(suppressed), [0.0; 3]);
        counted = scrape.sum("varta_transitions_total", &[]);
        lines = server.log().transitions().len() as f64;
        lines + suppressed("alarm") + suppressed("change") == counted
    });
    server.stop();

    let most = 2.0 * (AT_ONCE + A_SECOND * (started.elapsed().as_secs_f64() + 1.0));
    assert!(lines <= most, "{lines} lines, and at most {most}");
    let bytes: usize = server.log().lines().iter().map(|line| line.len() + 1).sum();
    assert!(bytes as f64 <= LINE * (most + 500.0), "{bytes} bytes for {counted} changes");
    let written = fs::read_to_string(&events).unwrap().lines().count() as f64;
    assert_eq!(written, counted, "the events file has all of them");
}
