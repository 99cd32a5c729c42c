//! Agents and servers in PID namespaces of their own, as containers have them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use varta_integration_tests::{
    AgentProcess, Options, Server, Signal, agent, children, into_pid_namespace, line_with,
    pid_namespaces_work, sys, worker_command,
};

/// One of our agents as process 1 of a namespace, and the pid that it has outside.
fn contained_agent(server: &Server) -> (AgentProcess, u32) {
    let mut command = worker_command();
    command.arg("--socket").arg(server.socket()).arg("--panic-hook");
    let worker = AgentProcess::run(into_pid_namespace(&command));
    let [pid] = children(worker.pid())[..] else { panic!("it has one child") };
    (worker, pid)
}

#[test]
fn process_1_of_a_container_is_an_agent_like_any_other() {
    if !pid_namespaces_work() {
        return;
    }
    let server = Server::start(["--stall-after", "1s"]);
    // Two of them: they have the same pid within their containers.
    let [(first, first_pid), (mut second, second_pid)] = [(); 2].map(|()| contained_agent(&server));
    server.await_agents("up", 2);
    server.await_beats_and_seconds(&[first_pid, second_pid], 5, 1.5);

    sys::send_signal(first_pid, Signal::Stop).unwrap();
    server.expect(agent(first_pid).stalled().seen_as("stopped").within(Duration::from_secs(1)));
    sys::send_signal(first_pid, Signal::Continue).unwrap();
    server.expect(agent(first_pid).up().because("recovered"));
    second.ask("panic-in-thread");
    server.expect(agent(second_pid).up().because("panicked"));

    let scrape = server.await_beats_and_seconds(&[first_pid, second_pid], 5, 1.5);
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams());
    assert_eq!(scrape.of_agent("varta_stalls_total", second_pid), 0.0);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 2.0);

    // The end of one of them is not that of the other, which has the same pid within its container.
    sys::send_signal(first_pid, Signal::Kill).unwrap();
    server.expect(agent(first_pid).down().because("killed"));
    let scrape = server.await_beats_and_seconds(&[second_pid], 5, 1.5);
    assert_eq!(scrape.of_agent("varta_agent_up", second_pid), 1.0);
    drop(first);
}

#[test]
fn process_1_of_a_container_may_send_the_pid_that_it_has_there() {
    if !pid_namespaces_work() {
        return;
    }
    let server = Server::start(["--stall-after", "1h"]);
    let mut command = worker_command();
    command.arg("--socket").arg(server.socket()).arg("--plain");
    let worker = AgentProcess::run(into_pid_namespace(&command));
    let [pid] = children(worker.pid())[..] else { panic!("it has one child") };
    server.await_beats(&[pid], 3);
    let scrape = server.scrape();
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams());
}

#[test]
fn a_sender_that_the_server_cannot_see_is_refused_for_that() {
    if !pid_namespaces_work() {
        return;
    }
    let server = Server::start(Options::new().in_a_container());
    let worker = AgentProcess::start(server.socket(), &["--beats", "5"]);
    let scrape = server.await_scrape("all beats are refused", |scrape| scrape.outcome("unattested") == 5.0);
    assert_eq!(scrape.datagrams(), 5.0);
    assert_eq!(scrape.value("varta_frame_auth_failures_total", &[]), 5.0);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 0.0);
    let who = format!("a process of uid {}", sys::user());
    server.expect(line_with(&who).with("PID namespace that this server cannot see").with("--pid=host"));
    drop(worker);
}
