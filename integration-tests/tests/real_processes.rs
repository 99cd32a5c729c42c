//! Real processes beat to a real server, and then things happen to them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use varta_integration_tests::{AgentProcess, Datagrams, Options, Scrape, Server, Signal, Transition};

/// The name of the worker's program, which is what the kernel calls it and the label `agent` shows.
const NAME: &str = "it-worker";

fn pids(agents: &[AgentProcess]) -> Vec<u32> {
    agents.iter().map(AgentProcess::pid).collect()
}

/// How often it happened that an agent came into the state `to`, whatever the reason.
fn changes(scrape: &Scrape, to: &str) -> f64 {
    scrape.sum("varta_transitions_total", &[("to", to)])
}

/// A line for each change, without what depends on time.
fn told(transitions: &[Transition], pid: u32) -> Vec<String> {
    let own = transitions.iter().filter(|line| line.pid == pid);
    own.map(|line| format!("{} to {}: {}", line.from, line.to, line.cause)).collect()
}

fn assert_nothing_was_refused(scrape: &Scrape) {
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams(), "{}", scrape.text);
    assert_eq!(scrape.value("varta_out_of_order_total", &[]), 0.0);
}

/// What must hold of one process that has done nothing but beat, however it went about it.
#[track_caller]
fn assert_it_was_always_one_agent_and_up(server: &Server, scrape: &Scrape, pid: u32) {
    assert_nothing_was_refused(scrape);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 1.0);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 1.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", pid), 0.0);
    let transitions = server.transitions();
    assert_eq!(told(&transitions, pid), ["none to up: first_beat"]);
    assert_eq!(transitions.len(), 1, "{transitions:?}");
}

/// Two sessions that were taken for one would show as beats lost in between.
#[track_caller]
fn assert_no_more_beats_are_missed_than_were_dropped(agent: &mut AgentProcess, scrape: &Scrape) {
    let dropped: f64 = agent.ask("dropped").strip_prefix("ok ").unwrap().parse().unwrap();
    let lost = scrape.of_agent("varta_agent_beats_lost_total", agent.pid());
    assert!(lost <= dropped, "{lost} are missed, {dropped} were dropped");
}

#[test]
fn of_fifty_processes_only_the_stopped_and_the_killed_one_are_accused() {
    let server = Server::start(["--stall-after", "2s"]);
    let agents: Vec<_> =
        (0..50).map(|_| AgentProcess::start(server.socket(), &["--interval-ms", "200"])).collect();
    server.await_agents("up", 50);

    let (stopped, killed) = (&agents[7], &agents[31]);
    stopped.signal(Signal::Stop);
    killed.signal(Signal::Kill);
    let down = server.await_transition(killed.pid(), "down", "killed");
    assert!(down.silence_ms < 2_000, "no deadline has to pass for it: {down:?}");
    let stalled = server.await_transition(stopped.pid(), "stalled", "stopped");
    assert!(stalled.silence_ms >= 2_000, "{stalled:?}");
    for line in [down, stalled] {
        assert_eq!((line.agent.as_str(), line.from.as_str()), (NAME, "up"));
    }
    let scrape = server.await_scrape("one is stalled and one is down", |scrape| {
        ["stalled", "down"].iter().all(|state| scrape.value("varta_agents", &[("state", state)]) == 1.0)
    });
    for (agent, stalls) in [(stopped, 1.0), (killed, 0.0)] {
        assert_eq!(scrape.of_agent("varta_agent_up", agent.pid()), 0.0);
        assert_eq!(scrape.of_agent("varta_status", agent.pid()), 3.0);
        assert_eq!(scrape.of_agent("varta_stalls_total", agent.pid()), stalls);
    }
    assert_eq!(scrape.value("varta_detection_latency_seconds_count", &[]), 2.0);

    stopped.signal(Signal::Continue);
    let recovered = server.await_transition(stopped.pid(), "up", "recovered");
    assert!(recovered.silence_ms >= 2_000, "{recovered:?}");
    let survivors: Vec<_> = pids(&agents).into_iter().filter(|pid| *pid != killed.pid()).collect();
    let scrape = server.await_beats_and_seconds(&survivors, 5, 2.5);
    assert_eq!(scrape.of_agent("varta_agent_up", stopped.pid()), 1.0);
    assert_eq!(scrape.of_agent("varta_status", stopped.pid()), 0.0);
    assert_eq!(scrape.of_agent("varta_agent_up", killed.pid()), 0.0);
    assert_eq!(scrape.value("varta_agents", &[("state", "up")]), 49.0);

    let transitions = server.transitions();
    for agent in &agents {
        let mut expected = vec!["none to up: first_beat"];
        if agent.pid() == stopped.pid() {
            expected.extend(["up to stalled: stopped", "stalled to up: recovered"]);
        }
        if agent.pid() == killed.pid() {
            expected.push("up to down: killed");
        }
        assert_eq!(told(&transitions, agent.pid()), expected);
    }
    assert_eq!(transitions.len(), 53, "{transitions:?}");
    assert_nothing_was_refused(&scrape);
}

#[test]
fn a_server_that_was_stopped_accuses_nobody_who_still_beats() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut agents: Vec<_> =
        (0..10).map(|_| AgentProcess::start(server.socket(), &["--interval-ms", "200"])).collect();
    server.await_agents("up", 10);
    let seen_before = server.await_beats_and_seconds(&pids(&agents), 3, 0.0);
    assert_eq!(changes(&seen_before, "stalled"), 0.0);

    server.pause();
    // No beat of this time is to be found in the queue afterwards.
    Datagrams::to(server.socket()).fill_the_queue(b"not a frame");
    let (killed, stopped) = (agents.pop().unwrap(), agents.pop().unwrap());
    killed.signal(Signal::Kill);
    stopped.signal(Signal::Stop);
    // Not a wait for anything: that the server does not run for three seconds is what happens to it.
    thread::sleep(Duration::from_secs(3));
    server.signal(Signal::Continue);

    // It is no less watchful for that.
    server.await_transition(killed.pid(), "down", "killed");
    server.await_transition(stopped.pid(), "stalled", "stopped");
    let scrape = server.await_beats_and_seconds(&pids(&agents), 5, 1.5);
    assert_eq!(changes(&scrape, "down"), 1.0, "only the killed one:\n{}", scrape.text);
    assert_eq!(changes(&scrape, "stalled"), 1.0, "only the stopped one:\n{}", scrape.text);
    assert!(scrape.value("varta_blind_periods_total", &[]) >= 1.0);
    let transitions = server.transitions();
    for agent in &agents {
        assert_eq!(scrape.of_agent("varta_agent_up", agent.pid()), 1.0);
        let told = told(&transitions, agent.pid());
        let (first, later) = told.split_first().unwrap();
        assert_eq!(first, "none to up: first_beat");
        // That it was not seen for too long may be said, and that it is seen again.
        let unseen = ["up to unknown: observer_blind", "unknown to up: recovered"];
        assert!(later.chunks(2).all(|pair| pair == unseen), "{told:?}");
    }
}

#[test]
fn a_second_handle_is_the_same_agent_and_either_of_them_keeps_it_up() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut agent = AgentProcess::start(server.socket(), &[]);
    let pid = agent.pid();
    server.await_beats_and_seconds(&[pid], 3, 0.0);
    agent.ask("second");
    server.await_beats_and_seconds(&[pid], 20, 1.5);
    agent.ask("drop-first");
    let scrape = server.await_beats_and_seconds(&[pid], 10, 1.5);
    assert_it_was_always_one_agent_and_up(&server, &scrape, pid);
    assert_no_more_beats_are_missed_than_were_dropped(&mut agent, &scrape);
}

#[test]
fn a_handle_that_is_made_anew_goes_on_where_the_old_one_stopped() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut agent = AgentProcess::start(server.socket(), &[]);
    let pid = agent.pid();
    for _ in 0..5 {
        server.await_beats_and_seconds(&[pid], 3, 0.0);
        agent.ask("recreate");
    }
    let scrape = server.await_beats_and_seconds(&[pid], 5, 1.5);
    assert_it_was_always_one_agent_and_up(&server, &scrape, pid);
    assert_no_more_beats_are_missed_than_were_dropped(&mut agent, &scrape);
}

#[test]
fn a_process_that_makes_a_handle_for_each_beat_is_up() {
    let server = Server::start(["--stall-after", "1s"]);
    let agent = AgentProcess::start(server.socket(), &["--handle-per-beat"]);
    let scrape = server.await_beats_and_seconds(&[agent.pid()], 20, 1.5);
    assert_it_was_always_one_agent_and_up(&server, &scrape, agent.pid());
}

#[test]
fn a_process_that_replaces_itself_by_exec_stays_the_same_agent() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut agent = AgentProcess::start(server.socket(), &[]);
    let pid = agent.pid();
    for _ in 0..3 {
        server.await_beats_and_seconds(&[pid], 5, 0.0);
        assert_eq!(agent.ask("exec"), format!("ready {pid}"));
    }
    let scrape = server.await_beats_and_seconds(&[pid], 5, 1.5);
    assert_it_was_always_one_agent_and_up(&server, &scrape, pid);
}

#[test]
fn a_forked_child_is_an_agent_of_its_own_and_its_parents_fate_is_not_its_own() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut parent = AgentProcess::start(server.socket(), &[]);
    server.await_beats_and_seconds(&[parent.pid()], 3, 0.0);
    let child = parent.fork();
    server.await_agents("up", 2);
    server.await_beats_and_seconds(&[parent.pid(), child], 5, 1.5);

    parent.signal(Signal::Stop);
    server.await_transition(parent.pid(), "stalled", "stopped");
    server.await_beats_and_seconds(&[child], 5, 1.5);
    parent.signal(Signal::Continue);
    server.await_transition(parent.pid(), "up", "recovered");
    parent.signal(Signal::Kill);
    server.await_transition(parent.pid(), "down", "killed");

    let scrape = server.await_beats_and_seconds(&[child], 5, 1.5);
    assert_nothing_was_refused(&scrape);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 2.0);
    assert_eq!(scrape.of_agent("varta_agent_up", parent.pid()), 0.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", parent.pid()), 1.0);
    assert_eq!(scrape.of_agent("varta_agent_up", child), 1.0);
    assert_eq!(told(&server.transitions(), child), ["none to up: first_beat"]);
}

#[test]
fn a_panic_is_critical_at_once_and_the_end_after_it_is_known_for_one() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut agent = AgentProcess::start(server.socket(), &["--panic-hook"]);
    let pid = agent.pid();
    server.await_beats_and_seconds(&[pid], 3, 0.0);
    agent.ask("panic");
    assert_eq!(agent.wait().code(), Some(101), "the panic itself goes on as without the hook");

    let panicked = server.await_transition(pid, "up", "panicked");
    assert_eq!(panicked.status, "critical");
    let down = server.await_transition(pid, "down", "panicked");
    assert_eq!(down.status, "critical");
    let expected = ["none to up: first_beat", "up to up: panicked", "up to down: panicked"];
    assert_eq!(told(&server.transitions(), pid), expected);
    let scrape = server.scrape();
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 0.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", pid), 0.0);
    assert_nothing_was_refused(&scrape);
}

#[test]
fn the_silence_after_a_panic_is_known_for_one_and_so_is_the_end() {
    let server = Server::start(["--stall-after", "1s"]);
    // It survives its panic, and no beat comes after that.
    let mut agent = AgentProcess::start(server.socket(), &["--panic-hook", "--interval-ms", "3600000"]);
    let pid = agent.pid();
    server.await_agents("up", 1);
    agent.ask("panic-in-thread");
    server.await_transition(pid, "up", "panicked");
    let stalled = server.await_transition(pid, "stalled", "panicked");
    assert!(stalled.silence_ms >= 1_000, "{stalled:?}");
    agent.signal(Signal::Kill);
    server.await_transition(pid, "down", "panicked");
    let told = told(&server.transitions(), pid);
    // Before it panics there may be a silence, on a machine that is slow to tell it to.
    assert!(
        told.ends_with(&["up to stalled: panicked".into(), "stalled to down: panicked".into()]),
        "{told:?}"
    );
    let scrape = server.scrape();
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 0.0);
    assert_nothing_was_refused(&scrape);
}

#[test]
fn a_critical_agent_is_an_alarm_before_any_deadline() {
    // No deadline comes in the lifetime of this test.
    let server = Server::start(["--stall-after", "1h"]);
    let mut agent = AgentProcess::start(server.socket(), &["--panic-hook", "--interval-ms", "3600000"]);
    let pid = agent.pid();
    server.await_agents("up", 1);
    agent.ask("panic-in-thread");
    server.await_scrape("the panic is seen", |scrape| {
        scrape.of_agent("varta_status", pid) == 2.0 && scrape.of_agent("varta_agent_up", pid) == 0.0
    });
}

#[test]
fn a_process_that_survives_its_panic_and_beats_on_stays_up() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut agent = AgentProcess::start(server.socket(), &["--panic-hook"]);
    let pid = agent.pid();
    server.await_beats_and_seconds(&[pid], 3, 0.0);
    agent.ask("panic-in-thread");
    server.await_transition(pid, "up", "panicked");
    server.await_transition(pid, "up", "reported");
    let scrape = server.await_beats_and_seconds(&[pid], 5, 1.5);
    assert_nothing_was_refused(&scrape);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 1.0);
    assert_eq!(scrape.of_agent("varta_status", pid), 0.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", pid), 0.0);
    let expected = ["none to up: first_beat", "up to up: panicked", "up to up: reported"];
    assert_eq!(told(&server.transitions(), pid), expected);
}

#[test]
fn a_change_of_status_is_seen_at_once_and_the_payload_comes_with_it() {
    // Neither a deadline nor the next beat in turn comes in the lifetime of this test.
    let server = Server::start(["--stall-after", "1h"]);
    let mut agent = AgentProcess::start(server.socket(), &["--interval-ms", "3600000"]);
    let pid = agent.pid();
    server.await_agents("up", 1);
    agent.ask("payload 4711");
    for (status, value, up) in [("degraded", 1.0, 1.0), ("critical", 2.0, 0.0), ("ok", 0.0, 1.0)] {
        agent.ask(&format!("status {status}"));
        let scrape = server.await_scrape(&format!("the agent is {status}"), |scrape| {
            scrape.of_agent("varta_status", pid) == value
        });
        assert_eq!(scrape.of_agent("varta_agent_up", pid), up);
        assert_eq!(scrape.of_agent("varta_agent_payload", pid), 4711.0);
    }
    let transitions = server.transitions();
    let reported: Vec<_> = transitions[1..].iter().map(|line| line.status.as_str()).collect();
    assert_eq!(reported, ["degraded", "critical", "ok"]);
    assert!(transitions[1..].iter().all(|line| line.cause == "reported" && line.payload == 4711));
}

#[test]
fn every_beat_of_a_process_is_counted_and_named_by_what_the_kernel_calls_it() {
    let server = Server::start(Options::new());
    let mut agent =
        AgentProcess::start(server.socket(), &["--interval-ms", "10", "--beats", "30", "--exit-code", "3"]);
    let pid = agent.pid();
    assert_eq!(agent.wait().code(), Some(3));
    server.await_sample("varta_beats_total", &[("pid", &pid.to_string())], |beats| beats == 30.0);
    let scrape = server.scrape();
    assert_eq!(scrape.datagrams(), 30.0);
    assert_eq!(scrape.of_agent("varta_agent_stall_after_seconds", pid), 5.0);
    let pid = pid.to_string();
    let labels: BTreeSet<_> = scrape
        .samples
        .iter()
        .filter(|sample| sample.labels.get("pid") == Some(&pid))
        .map(|sample| (sample.labels["agent"].as_str(), sample.labels["transport"].as_str()))
        .collect();
    assert_eq!(labels, BTreeSet::from([(NAME, "unix")]));
}
