//! Agents of the published clients and of our own that beat over a network: by UDP in plain sight, and
//! sealed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::time::Duration;

use varta_integration_tests::{
    ANOTHER_KEY, AgentProcess, Network, Options, Route, SHARED_KEY, Scrape, Server, Signal, agent, line,
    loopbacks, write_secret,
};

/// A deadline comes soon after the last beat.
const STALL_AFTER: [&str; 2] = ["--stall-after", "1s"];
const DEADLINE: Duration = Duration::from_secs(1);

/// A server that listens for such beats on every loopback address there is, and the routes there.
#[track_caller]
fn listening(network: Network, options: impl Into<Options>) -> (Server, Vec<Route>) {
    let addresses = loopbacks();
    let server = Server::start(options.into().on(network, &addresses));
    let routes: Vec<_> = (0..addresses.len()).map(|n| server.route(network, n)).collect();
    (server, routes)
}

fn pids(workers: &[AgentProcess]) -> Vec<u32> {
    workers.iter().map(AgentProcess::pid).collect()
}

fn assert_nothing_was_refused(scrape: &Scrape) {
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams(), "{}", scrape.text);
    assert_eq!(scrape.value("varta_out_of_order_total", &[]), 0.0);
}

fn host(route: &Route) -> String {
    match route {
        Route::Unix(_) => String::new(),
        Route::Udp(address) | Route::SharedKey(address, _) | Route::MasterKey(address, _) => {
            address.ip().to_string()
        }
    }
}

/// Every metric and every line of the log has the address and the transport of an agent.
#[track_caller]
fn assert_it_is_known_by_its_address(server: &Server, network: Network, route: &Route, pid: u32) {
    let host = host(route);
    let pid = pid.to_string();
    let labels = [("pid", &*pid), ("agent", &*host), ("host", &*host), ("transport", network.label())];
    let scrape = server.scrape();
    for row in ["varta_beats_total", "varta_stalls_total", "varta_status", "varta_agent_up"] {
        assert_eq!(scrape.matching(row, &labels).count(), 1, "{row} {labels:?} in\n{}", scrape.text);
    }
    assert_eq!(scrape.matching("varta_status", &[("pid", &pid), ("twin", "2")]).count(), 0);
    for change in server.transitions().into_iter().filter(|change| change.pid.to_string() == pid) {
        let labels = (&*change.agent, &*change.host, &*change.transport);
        assert_eq!(labels, (&*host, &*host, network.label()), "{change}");
    }
}

/// Whether the panic hook of a kind of agent sends over a network.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PanicHook {
    Yes,
    No,
}

/// What must hold of agents that beat the payload 7 over a network, one to each address that the server has,
/// and do what the programs that beat do.
#[track_caller]
fn assert_they_are_served(network: Network, hook: PanicHook, start: impl Fn(&Route) -> Option<AgentProcess>) {
    let (server, routes) = listening(network, STALL_AFTER);
    let Some(mut workers): Option<Vec<_>> = routes.iter().map(start).collect() else { return };
    let pids = pids(&workers);
    server.await_agents("up", workers.len());
    let scrape = server.await_beats(&pids, 5);
    for (route, pid) in routes.iter().zip(&pids) {
        assert_eq!(scrape.of_agent("varta_agent_payload", *pid), 7.0);
        assert_it_is_known_by_its_address(&server, network, route, *pid);
    }

    for worker in &mut workers {
        worker.ask("recreate");
    }
    server.await_beats_and_seconds(&pids, 10, 1.5);
    for worker in &mut workers {
        worker.ask("status degraded");
    }
    server.await_scrape("their status is seen", |scrape| {
        pids.iter().all(|pid| scrape.of_agent("varta_status", *pid) == 1.0)
    });

    for worker in &workers {
        worker.signal(Signal::Stop);
    }
    for pid in &pids {
        let stalled = agent(*pid).stalled().because("unreachable");
        server.expect(stalled.after_silence(DEADLINE).within(DEADLINE));
    }
    for worker in &workers {
        worker.signal(Signal::Continue);
    }
    for pid in &pids {
        server.expect(agent(*pid).up().because("recovered"));
    }
    let scrape = server.await_beats_and_seconds(&pids, 5, 1.5);
    for pid in &pids {
        assert_eq!(scrape.of_agent("varta_stalls_total", *pid), 1.0);
    }

    for worker in &mut workers {
        worker.ask("panic");
        assert!(!worker.wait().success());
    }
    let mut history = vec!["up: first_beat", "up: reported", "stalled: unreachable", "up: recovered"];
    match hook {
        PanicHook::Yes => history.extend(["up: panicked", "stalled: panicked"]),
        PanicHook::No => history.push("stalled: unreachable"),
    }
    for (route, pid) in routes.iter().zip(&pids) {
        server.expect_history(*pid, &history);
        assert_it_is_known_by_its_address(&server, network, route, *pid);
    }
    let scrape = server.await_agents("stalled", workers.len());
    assert_nothing_was_refused(&scrape);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), workers.len() as f64);
}

#[expect(clippy::unnecessary_wraps, reason = "others may not be there")]
fn our_own(route: &Route) -> Option<AgentProcess> {
    let mut worker = AgentProcess::start_on(route, &["--panic-hook"]);
    worker.ask("payload 7");
    Some(worker)
}

#[expect(clippy::unnecessary_wraps, reason = "others may not be there")]
fn published(route: &Route) -> Option<AgentProcess> {
    Some(AgentProcess::start_foreign(route))
}

#[test]
fn our_agent_is_served_over_udp() {
    assert_they_are_served(Network::Plain, PanicHook::Yes, our_own);
}

#[test]
fn our_agent_is_served_under_a_shared_key() {
    assert_they_are_served(Network::SharedKey, PanicHook::Yes, our_own);
}

#[test]
fn our_agent_is_served_under_a_master_key() {
    assert_they_are_served(Network::MasterKey, PanicHook::Yes, our_own);
}

#[test]
fn the_published_rust_client_is_served_over_udp() {
    assert_they_are_served(Network::Plain, PanicHook::Yes, published);
}

#[test]
fn the_published_rust_client_is_served_under_a_shared_key() {
    assert_they_are_served(Network::SharedKey, PanicHook::Yes, published);
}

#[test]
fn the_published_rust_client_is_served_under_a_master_key() {
    assert_they_are_served(Network::MasterKey, PanicHook::No, published);
}

#[test]
fn the_published_python_client_is_served_over_udp() {
    assert_they_are_served(Network::Plain, PanicHook::Yes, AgentProcess::start_python);
}

#[test]
fn the_published_python_client_is_served_under_a_shared_key() {
    assert_they_are_served(Network::SharedKey, PanicHook::Yes, AgentProcess::start_python);
}

#[test]
fn the_published_python_client_is_served_under_a_master_key() {
    assert_they_are_served(Network::MasterKey, PanicHook::No, AgentProcess::start_python);
}

#[test]
fn a_forked_child_is_an_agent_of_its_own_over_every_network() {
    for network in Network::ALL {
        let (server, routes) = listening(network, STALL_AFTER);
        let mut parents: Vec<_> = routes.iter().map(|route| AgentProcess::start_on(route, &[])).collect();
        server.await_beats(&pids(&parents), 3);
        let children: Vec<_> = parents.iter_mut().map(AgentProcess::fork).collect();
        server.await_agents("up", 2 * parents.len());
        server.await_beats_and_seconds(&[pids(&parents), children.clone()].concat(), 5, 1.5);

        for parent in &parents {
            parent.signal(Signal::Kill);
        }
        for pid in pids(&parents) {
            server.expect(agent(pid).stalled().because("unreachable").within(DEADLINE));
        }
        let scrape = server.await_beats_and_seconds(&children, 5, 1.5);
        assert_nothing_was_refused(&scrape);
        assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 2.0 * parents.len() as f64, "{network:?}");
        for (route, child) in routes.iter().zip(children) {
            assert_eq!(server.history(child), ["up: first_beat"], "{network:?}");
            assert_it_is_known_by_its_address(&server, network, route, child);
        }
    }
}

#[test]
fn a_handle_that_is_made_again_beats_from_another_port_as_the_same_agent() {
    for network in Network::ALL {
        let (server, routes) = listening(network, STALL_AFTER);
        let mut workers: Vec<_> = routes.iter().map(|route| AgentProcess::start_on(route, &[])).collect();
        let pids = pids(&workers);
        for _ in 0..5 {
            server.await_beats(&pids, 3);
            for worker in &mut workers {
                worker.ask("recreate");
            }
        }
        let scrape = server.await_beats_and_seconds(&pids, 5, 1.5);
        assert_nothing_was_refused(&scrape);
        assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), workers.len() as f64, "{network:?}");
        for (route, pid) in routes.iter().zip(pids) {
            assert_eq!(server.history(pid), ["up: first_beat"], "{network:?}");
            assert_it_is_known_by_its_address(&server, network, route, pid);
        }
    }
}

#[test]
fn a_process_that_makes_a_handle_for_each_beat_is_one_agent_over_every_network() {
    for network in Network::ALL {
        let (server, routes) = listening(network, STALL_AFTER);
        let worker = AgentProcess::start_on(&routes[0], &["--handle-per-beat"]);
        let scrape = server.await_beats_and_seconds(&[worker.pid()], 20, 1.5);
        assert_nothing_was_refused(&scrape);
        assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 1.0, "{network:?}");
        assert_eq!(server.history(worker.pid()), ["up: first_beat"], "{network:?}");
    }
}

#[test]
fn a_process_that_replaces_itself_by_exec_stays_the_same_agent_over_every_network() {
    for network in Network::ALL {
        let (server, routes) = listening(network, STALL_AFTER);
        let mut worker = AgentProcess::start_on(&routes[0], &[]);
        let pid = worker.pid();
        for _ in 0..3 {
            server.await_beats(&[pid], 5);
            assert_eq!(worker.ask("exec"), format!("ready {pid}"));
        }
        let scrape = server.await_beats_and_seconds(&[pid], 5, 1.5);
        assert_nothing_was_refused(&scrape);
        assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 1.0, "{network:?}");
        assert_eq!(server.history(pid), ["up: first_beat"], "{network:?}");
    }
}

#[test]
fn two_handles_that_live_look_like_two_hosts_behind_one_address_and_are_two_agents() {
    let (server, routes) = listening(Network::Plain, STALL_AFTER);
    let mut worker = AgentProcess::start_on(&routes[0], &[]);
    let pid = worker.pid();
    server.await_beats(&[pid], 3);
    worker.ask("second");
    let scrape = server.await_agents("up", 2);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 2.0);
    let pid = pid.to_string();
    let second = |scrape: &Scrape| scrape.get("varta_beats_total", &[("pid", &pid), ("twin", "2")]);
    server.await_scrape("the second beats on", |scrape| second(scrape).is_some_and(|beats| beats >= 15.0));
    worker.ask("drop-first");
    let scrape = server.await_agents("stalled", 1);
    assert_eq!(scrape.value("varta_agents", &[("state", "up")]), 1.0, "{}", scrape.text);
}

#[test]
fn a_process_that_survives_its_panic_and_beats_on_stays_up_over_every_network() {
    for network in Network::ALL {
        let (server, routes) = listening(network, STALL_AFTER);
        let mut workers: Vec<_> =
            routes.iter().map(|route| AgentProcess::start_on(route, &["--panic-hook"])).collect();
        let pids = pids(&workers);
        server.await_beats(&pids, 3);
        // Each of them is accepted: no two are sealed with the same nonce.
        for _ in 0..2 {
            for worker in &mut workers {
                worker.ask("panic-in-thread");
            }
            server.await_beats(&pids, 3);
        }
        let scrape = server.await_beats_and_seconds(&pids, 5, 1.5);
        assert_nothing_was_refused(&scrape);
        for pid in pids {
            assert_eq!(scrape.of_agent("varta_status", pid), 0.0);
            let survived = ["up: panicked", "up: reported"];
            assert_eq!(server.history(pid), [&["up: first_beat"][..], &survived, &survived].concat());
        }
    }
}

#[test]
fn a_panic_is_critical_before_any_deadline_over_every_network() {
    for network in Network::ALL {
        // No deadline comes in the lifetime of this test, and no beat after the first.
        let (server, routes) = listening(network, ["--stall-after", "1h"]);
        for route in &routes {
            let mut worker = AgentProcess::start_on(route, &["--panic-hook", "--interval-ms", "3600000"]);
            let pid = worker.pid();
            server.await_beats(&[pid], 0);
            worker.ask("panic");
            server.expect(agent(pid).up().because("panicked").with_status("critical"));
            let scrape = server.scrape();
            assert_eq!(scrape.of_agent("varta_status", pid), 2.0);
            assert_eq!(scrape.of_agent("varta_agent_up", pid), 0.0);
        }
    }
}

#[test]
fn an_agent_with_another_key_is_refused_and_counted_for_that() {
    for network in [Network::SharedKey, Network::MasterKey] {
        let (server, routes) = listening(network, STALL_AFTER);
        let key = write_secret(server.directory(), "another.key", ANOTHER_KEY);
        for route in &routes {
            let other = match route {
                Route::SharedKey(address, _) => Route::SharedKey(*address, key.clone()),
                Route::MasterKey(address, _) => Route::MasterKey(*address, key.clone()),
                Route::Unix(_) | Route::Udp(_) => continue,
            };
            assert!(AgentProcess::start_on(&other, &["--beats", "5"]).wait().success());
        }
        let refused = 5.0 * routes.len() as f64;
        let scrape = server.await_datagrams(refused);
        assert_eq!(scrape.outcome("decrypt_failed"), refused, "{}", scrape.text);
        assert_eq!(scrape.value("varta_frame_decrypt_failures_total", &[]), refused);
        assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 0.0);
    }
}

#[test]
fn an_agent_that_still_has_the_key_from_before_is_served() {
    let options = Options::from(STALL_AFTER).accepted_keys(ANOTHER_KEY);
    let (server, routes) = listening(Network::SharedKey, options);
    let key = write_secret(server.directory(), "another.key", ANOTHER_KEY);
    let before = Route::SharedKey(server.secure_udp_address(0), key);
    let workers = [AgentProcess::start_on(&before, &[]), AgentProcess::start_on(&routes[0], &[])];
    server.await_agents("up", 2);
    let scrape = server.await_beats_and_seconds(&pids(&workers), 5, 1.5);
    assert_nothing_was_refused(&scrape);
}

#[test]
fn keys_are_rotated_without_a_restart_and_an_agent_with_an_old_key_is_refused_only_then() {
    let (server, routes) = listening(Network::SharedKey, STALL_AFTER);
    let old = AgentProcess::start_on(&routes[0], &[]);
    server.await_agents("up", 1);

    let read_again = |keys: &str, number: usize| {
        let Route::SharedKey(_, path) = &routes[0] else { return };
        fs::write(path, keys).unwrap();
        server.signal(Signal::HangUp);
        assert_eq!(server.expect(line("the key files were read again").nth(number))["keys"], 1);
    };
    read_again(ANOTHER_KEY, 1);
    server.expect(agent(&old).stalled().because("unreachable").within(DEADLINE));
    let new = AgentProcess::start_on(&routes[0], &[]);
    let scrape = server.await_beats_and_seconds(&[new.pid()], 5, 1.5);
    assert!(scrape.value("varta_frame_decrypt_failures_total", &[]) > 0.0);

    read_again(SHARED_KEY, 2);
    server.expect(agent(&old).up().because("recovered"));
    server.expect(agent(&new).stalled().because("unreachable").within(DEADLINE));
    assert_eq!(server.scrape().value("varta_watch_pids_tracked", &[]), 2.0);
}

#[test]
fn one_server_serves_every_network_at_once_and_needs_no_unix_socket() {
    let addresses = loopbacks();
    let options = Options::from(STALL_AFTER).without_unix_socket().key_of(Network::MasterKey);
    let options = options.on(Network::Plain, &addresses).on(Network::SharedKey, &addresses);
    let server = Server::start(options);
    assert!(!server.socket().exists());
    let start = |network| AgentProcess::start_on(&server.route(network, 0), &["--panic-hook"]);
    let mut workers = Network::ALL.map(start);
    server.await_agents("up", 3);
    let scrape = server.await_beats_and_seconds(&pids(&workers), 5, 1.5);
    assert_nothing_was_refused(&scrape);
    for worker in &mut workers {
        worker.ask("panic");
        server.expect(agent(&*worker).stalled().because("panicked").within(DEADLINE));
    }
    let scrape = server.scrape();
    assert_nothing_was_refused(&scrape);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 3.0);
}
