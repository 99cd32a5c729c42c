//! The published programs that speak the protocol: their clients with our server, our agent with their
//! observer.

use std::time::Duration;

use varta_integration_tests::{
    AgentProcess, Network, Options, Route, Scrape, Scratch, Server, Signal, Watch, agent, loopbacks,
};

/// A deadline comes soon after the last beat.
const STALL_AFTER: [&str; 2] = ["--stall-after", "1s"];
const DEADLINE: Duration = Duration::from_secs(1);

/// What must hold of a published client.
#[track_caller]
fn assert_it_is_served_like_our_own(server: &Server, mut worker: AgentProcess) {
    let pid = worker.pid();
    server.await_agents("up", 1);
    let scrape = server.await_beats(&[pid], 5);
    assert_eq!(scrape.of_agent("varta_agent_payload", pid), 7.0);

    worker.ask("second");
    server.await_beats_and_seconds(&[pid], 20, 1.5);
    worker.ask("status degraded");
    server.await_scrape("its status is seen", |scrape| scrape.of_agent("varta_status", pid) == 1.0);

    worker.signal(Signal::Stop);
    server.expect(agent(pid).stalled().seen_as("stopped").after_silence(DEADLINE).within(DEADLINE));
    worker.signal(Signal::Continue);
    server.expect(agent(pid).up().because("recovered"));
    let scrape = server.await_beats_and_seconds(&[pid], 5, 1.5);
    assert_eq!(scrape.of_agent("varta_stalls_total", pid), 1.0);

    worker.ask("panic");
    assert!(!worker.wait().success());
    server.expect(agent(pid).down().because("panicked"));

    let scrape = server.scrape();
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams(), "{}", scrape.text);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 1.0);
    assert_eq!(server.transitions().len(), 6);
    let history = ["up: first_beat", "up: reported", "stalled: stopped", "up: recovered"];
    server.expect_history(pid, &[&history[..], &["up: panicked", "down: panicked"]].concat());
}

#[test]
fn the_published_rust_client_is_served_like_our_own() {
    let server = Server::start(STALL_AFTER);
    let worker = AgentProcess::start_foreign(&Route::Unix(server.socket().into()));
    assert_it_is_served_like_our_own(&server, worker);
}

#[test]
fn the_published_python_client_is_served_like_our_own() {
    let server = Server::start(STALL_AFTER);
    let Some(worker) = AgentProcess::start_python(&Route::Unix(server.socket().into())) else { return };
    assert_it_is_served_like_our_own(&server, worker);
}

/// What must hold of a published client, which cannot say that it counts, under a rule that says it.
#[track_caller]
fn assert_that_it_counts(start: impl FnOnce(&Route) -> Option<AgentProcess>) {
    let scratch = Scratch::make();
    let config = "[[rule]]\nname = \"*\"\nprogress = \"payload\"\nno-progress-after = \"500ms\"\n";
    let server = Server::start(Options::from(["--stall-after", "1h"]).config(&scratch, config));
    let Some(mut worker) = start(&Route::Unix(server.socket().into())) else { return };
    let pid = worker.pid();
    server.expect(agent(pid).stalled().because("no_progress"));
    let before = server.scrape().of_agent("varta_beats_total", pid);
    server.await_scrape("it beats on", |scrape| scrape.of_agent("varta_beats_total", pid) > before + 2.0);
    assert_eq!(server.scrape().value("varta_agents", &[("state", "stalled")]), 1.0);
    worker.ask("count");
    server.expect(agent(pid).up().because("progressed"));
}

#[test]
fn the_published_clients_make_progress_under_a_rule() {
    assert_that_it_counts(|route| Some(AgentProcess::start_foreign(route)));
    assert_that_it_counts(AgentProcess::start_python);
}

/// The value of an agent's row in the observer's metrics.
fn of_agent(scrape: &Scrape, name: &str, pid: u32) -> Option<f64> {
    scrape.get(name, &[("pid", &pid.to_string())])
}

fn status(scrape: &Scrape, pid: u32) -> Option<f64> {
    of_agent(scrape, "varta_status", pid)
}

fn beats(scrape: &Scrape, pid: u32) -> f64 {
    of_agent(scrape, "varta_beats_total", pid).unwrap_or_default()
}

/// Every datagram has reached the agent that it was from.
#[track_caller]
fn assert_nothing_was_refused(scrape: &Scrape) {
    for refusals in [
        "varta_decode_errors_total",
        "varta_frame_auth_failures_total",
        "varta_frame_decrypt_failures_total",
        "varta_truncated_datagrams_total",
        "varta_rate_limited_total",
        "varta_origin_conflict_total",
    ] {
        assert_eq!(scrape.sum(refusals, &[]), 0.0, "{refusals} in\n{}", scrape.text);
    }
}

/// What must hold of an agent of ours that beats to the published observer, which stalls it after a second.
#[track_caller]
fn assert_the_observer_serves_it(watch: &Watch) {
    let mut worker = AgentProcess::start_on(watch.route(), &[]);
    let pid = worker.pid();
    watch.await_scrape("beats are counted", |scrape| {
        beats(scrape, pid) >= 5.0 && status(scrape, pid) == Some(0.0)
    });
    worker.ask("status degraded");
    watch.await_scrape("the status is seen", |scrape| status(scrape, pid) == Some(1.0));
    let scrape = watch.await_scrape("beats go on", |scrape| beats(scrape, pid) >= 20.0);
    assert_eq!(of_agent(&scrape, "varta_stalls_total", pid), Some(0.0));

    worker.signal(Signal::Stop);
    watch.await_scrape("the silence is noticed", |scrape| status(scrape, pid) == Some(3.0));
    worker.signal(Signal::Continue);
    let scrape = watch.await_scrape("it is back", |scrape| status(scrape, pid) == Some(1.0));
    assert_eq!(of_agent(&scrape, "varta_stalls_total", pid), Some(1.0));
    assert_nothing_was_refused(&scrape);
}

/// The observer has one socket for beats over a network, so that there is one observer for each address.
#[track_caller]
fn assert_the_observer_serves_it_over(network: Network) {
    for address in loopbacks() {
        let Some(watch) = Watch::on(network, address, DEADLINE) else { return };
        assert_the_observer_serves_it(&watch);
    }
}

#[test]
fn our_agent_is_served_by_the_published_observer() {
    let Some(watch) = Watch::on_unix_socket(DEADLINE) else { return };
    assert_the_observer_serves_it(&watch);
}

#[test]
fn our_agent_is_served_by_the_published_observer_over_udp() {
    assert_the_observer_serves_it_over(Network::Plain);
}

#[test]
fn our_agent_is_served_by_the_published_observer_under_a_shared_key() {
    assert_the_observer_serves_it_over(Network::SharedKey);
}

#[test]
fn our_agent_is_served_by_the_published_observer_under_a_master_key() {
    assert_the_observer_serves_it_over(Network::MasterKey);
}

#[test]
fn a_forked_child_of_our_agent_is_understood_by_the_published_observer_over_every_network() {
    for network in Network::ALL {
        let Some(watch) = Watch::on(network, loopbacks()[0], Duration::from_secs(3600)) else { return };
        let mut parent = AgentProcess::start_on(watch.route(), &[]);
        watch.await_scrape("the parent beats", |scrape| beats(scrape, parent.pid()) >= 3.0);
        let child = parent.fork();
        let before = watch.await_scrape("the child beats too", |scrape| beats(scrape, child) >= 5.0);
        let scrape = watch.await_scrape("both beat on", |scrape| {
            let more = |pid| beats(scrape, pid) >= beats(&before, pid) + 5.0;
            more(parent.pid()) && more(child)
        });
        assert_nothing_was_refused(&scrape);
        assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 2.0, "{network:?}");
    }
}

/// The process survives, and neither its next beat nor a deadline comes in the lifetime of the test.
#[track_caller]
fn assert_the_observer_understands_our_panic_hook(watch: &Watch) {
    let mut worker = AgentProcess::start_on(watch.route(), &["--panic-hook", "--interval-ms", "3600000"]);
    let pid = worker.pid();
    watch.await_scrape("it is known", |scrape| status(scrape, pid) == Some(0.0));
    worker.ask("panic-in-thread");
    let scrape = watch.await_scrape("the panic is critical", |scrape| status(scrape, pid) == Some(2.0));
    assert_nothing_was_refused(&scrape);
}

#[test]
fn our_panic_hook_is_understood_by_the_published_observer() {
    let Some(watch) = Watch::on_unix_socket(Duration::from_secs(3600)) else { return };
    assert_the_observer_understands_our_panic_hook(&watch);
}

#[test]
fn our_panic_hook_is_understood_by_the_published_observer_over_every_network() {
    for network in Network::ALL {
        for address in loopbacks() {
            let Some(watch) = Watch::on(network, address, Duration::from_secs(3600)) else { return };
            assert_the_observer_understands_our_panic_hook(&watch);
        }
    }
}
