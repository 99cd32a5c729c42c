//! Agents and servers in PID namespaces of their own, as containers have them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, Options, Server, Signal, into_pid_namespace, pid_namespaces_work, sys, worker_command,
};

fn cannot_be_shown_here() -> bool {
    let cannot = !pid_namespaces_work();
    if cannot {
        skip("no PID namespaces can be made here: that takes root, `unshare` and a kernel that allows it");
    }
    cannot
}

/// One of our agents as process 1 of a namespace, and the pid that it has outside.
fn contained_agent(server: &Server) -> (AgentProcess, u32) {
    let mut command = worker_command();
    command.arg("--socket").arg(server.socket()).arg("--panic-hook");
    let agent = AgentProcess::run(into_pid_namespace(&command));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.pid())).unwrap();
    (agent, children.trim().parse().unwrap())
}

#[test]
fn process_1_of_a_container_is_an_agent_like_any_other() {
    if cannot_be_shown_here() {
        return;
    }
    let server = Server::start(["--stall-after", "1s"]);
    // Two of them: within their containers they have the same pid.
    let [(first, first_pid), (mut second, second_pid)] = [(); 2].map(|()| contained_agent(&server));
    server.await_agents("up", 2);
    server.await_beats_and_seconds(&[first_pid, second_pid], 5, 1.5);

    sys::send_signal(first_pid, Signal::Stop).unwrap();
    server.await_transition(first_pid, "stalled", "stopped");
    sys::send_signal(first_pid, Signal::Continue).unwrap();
    server.await_transition(first_pid, "up", "recovered");
    second.ask("panic-in-thread");
    server.await_transition(second_pid, "up", "panicked");

    let scrape = server.await_beats_and_seconds(&[first_pid, second_pid], 5, 1.5);
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams());
    assert_eq!(scrape.of_agent("varta_stalls_total", second_pid), 0.0);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 2.0);

    // The end of one of them is not the other's, whose pid is the same within.
    sys::send_signal(first_pid, Signal::Kill).unwrap();
    server.await_transition(first_pid, "down", "killed");
    let scrape = server.await_beats_and_seconds(&[second_pid], 5, 1.5);
    assert_eq!(scrape.of_agent("varta_agent_up", second_pid), 1.0);
    drop(first);
}

#[test]
fn a_sender_that_the_server_cannot_see_is_refused_for_that() {
    if cannot_be_shown_here() {
        return;
    }
    let server = Server::start(Options::new().in_a_container());
    let agent = AgentProcess::start(server.socket(), &["--beats", "5"]);
    let scrape = server.await_scrape("all beats are refused", |scrape| scrape.outcome("unattested") == 5.0);
    assert_eq!(scrape.datagrams(), 5.0);
    assert_eq!(scrape.value("varta_frame_auth_failures_total", &[]), 5.0);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 0.0);
    drop(agent);
}
