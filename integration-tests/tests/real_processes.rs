//! Real processes beat to a real server, and then things happen to them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::time::Duration;

use varta_integration_tests::{AgentProcess, Datagrams, Options, Scrape, Server, Signal, agent, metric};

/// A deadline comes soon after the last beat.
const STALL_AFTER: [&str; 2] = ["--stall-after", "1s"];
const DEADLINE: Duration = Duration::from_secs(1);
/// A worker that beats so seldom that the socket's queue has room for what its panic hook sends, also while
/// the server waits for a processor for a second or two.
const SELDOM_WITH_A_HOOK: [&str; 3] = ["--panic-hook", "--interval-ms", "250"];
/// The name of the worker's program, which is what the kernel calls it and the label `agent` shows.
const NAME: &str = "it-worker";

fn pids(workers: &[AgentProcess]) -> Vec<u32> {
    workers.iter().map(AgentProcess::pid).collect()
}

/// How often an agent came into the state `to`, for whatever cause.
fn changes(scrape: &Scrape, to: &str) -> f64 {
    scrape.sum("varta_transitions_total", &[("to", to)])
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
    server.expect(agent(pid).up().from("none"));
    assert_eq!(server.history(pid), ["up: first_beat"]);
    assert_eq!(server.transitions().len(), 1);
}

/// Two sessions that were taken for one would show as beats lost in between.
#[track_caller]
fn assert_no_more_beats_are_missed_than_were_dropped(worker: &mut AgentProcess, scrape: &Scrape) {
    let dropped: f64 = worker.ask("dropped").strip_prefix("ok ").unwrap().parse().unwrap();
    let lost = scrape.of_agent("varta_agent_beats_lost_total", worker.pid());
    assert!(lost <= dropped, "{lost} are missed, {dropped} were dropped");
}

#[test]
fn of_fifty_processes_only_the_stopped_and_the_killed_one_are_accused() {
    const TWO_SECONDS: Duration = Duration::from_secs(2);
    let server = Server::start(["--stall-after", "2s"]);
    let workers = server.start_agents(50, &["--interval-ms", "200"]);

    let (stopped, killed) = (&workers[7], &workers[31]);
    stopped.signal(Signal::Stop);
    killed.signal(Signal::Kill);
    // No deadline has to pass for this one.
    server.expect(agent(killed).named(NAME).down().because("killed").from("up"));
    let stalled = agent(stopped).named(NAME).stalled().seen_as("stopped").from("up");
    server.expect(stalled.after_silence(TWO_SECONDS).within(TWO_SECONDS));
    let scrape = server.await_scrape("one is stalled and one is down", |scrape| {
        ["stalled", "down"].iter().all(|state| scrape.value("varta_agents", &[("state", state)]) == 1.0)
    });
    for (worker, stalls) in [(stopped, 1.0), (killed, 0.0)] {
        assert_eq!(scrape.of_agent("varta_agent_up", worker.pid()), 0.0);
        assert_eq!(scrape.of_agent("varta_status", worker.pid()), 3.0);
        assert_eq!(scrape.of_agent("varta_stalls_total", worker.pid()), stalls);
    }
    assert_eq!(scrape.value("varta_detection_latency_seconds_count", &[]), 2.0);

    stopped.signal(Signal::Continue);
    server.expect(agent(stopped).up().because("recovered").after_silence(TWO_SECONDS));
    let survivors: Vec<_> = pids(&workers).into_iter().filter(|pid| *pid != killed.pid()).collect();
    let scrape = server.await_beats_and_seconds(&survivors, 5, 2.5);
    assert_eq!(scrape.of_agent("varta_agent_up", stopped.pid()), 1.0);
    assert_eq!(scrape.of_agent("varta_status", stopped.pid()), 0.0);
    assert_eq!(scrape.of_agent("varta_agent_up", killed.pid()), 0.0);
    assert_eq!(scrape.value("varta_agents", &[("state", "up")]), 49.0);

    for worker in &workers {
        server.expect(agent(worker).up().from("none"));
        let mut expected = vec!["up: first_beat"];
        if worker.pid() == stopped.pid() {
            expected.extend(["stalled: stopped", "up: recovered"]);
        }
        if worker.pid() == killed.pid() {
            expected.push("down: killed");
        }
        server.expect_history(worker, &expected);
    }
    assert_eq!(server.transitions().len(), 53);
    assert_nothing_was_refused(&scrape);
}

#[test]
fn a_server_that_was_stopped_accuses_nobody_who_still_beats() {
    let server = Server::start(Options::from(STALL_AFTER).args(["--socket-queue", "1"]));
    let mut workers = server.start_agents(10, &["--interval-ms", "200"]);
    let seen_before = server.await_beats(&pids(&workers), 3);
    assert_eq!(changes(&seen_before, "stalled"), 0.0);

    server.pause();
    // The queue has no room for a beat of this time.
    Datagrams::to(server.socket()).fill_the_queue(b"not a frame");
    let (killed, stopped) = (workers.pop().unwrap(), workers.pop().unwrap());
    killed.signal(Signal::Kill);
    stopped.signal(Signal::Stop);
    server.pause_for(Duration::from_secs(3));

    // It is no less watchful for that.
    server.expect(agent(&killed).down().because("killed"));
    server.expect(agent(&stopped).stalled().seen_as("stopped").within(DEADLINE));
    let scrape = server.await_beats_and_seconds(&pids(&workers), 5, 1.5);
    assert_eq!(changes(&scrape, "down"), 1.0, "only the killed one:\n{}", scrape.text);
    assert_eq!(changes(&scrape, "stalled"), 1.0, "only the stopped one:\n{}", scrape.text);
    assert!(scrape.value("varta_blind_periods_total", &[]) >= 1.0);
    for worker in &workers {
        assert_eq!(scrape.of_agent("varta_agent_up", worker.pid()), 1.0);
        server.expect(agent(worker).up().from("none"));
        // It may have been unknown for a while, because the server did not see it for too long.
        assert_eq!(server.history(worker), ["up: first_beat"]);
    }
}

#[test]
fn a_second_handle_is_the_same_agent_and_either_of_them_keeps_it_up() {
    let server = Server::start(STALL_AFTER);
    let mut worker = server.start_agent(&[]);
    let pid = worker.pid();
    server.await_beats(&[pid], 3);
    worker.ask("second");
    server.await_beats_and_seconds(&[pid], 20, 1.5);
    worker.ask("drop-first");
    let scrape = server.await_beats_and_seconds(&[pid], 10, 1.5);
    assert_it_was_always_one_agent_and_up(&server, &scrape, pid);
    assert_no_more_beats_are_missed_than_were_dropped(&mut worker, &scrape);
}

#[test]
fn a_handle_that_is_made_again_goes_on_where_the_old_one_stopped() {
    let server = Server::start(STALL_AFTER);
    let mut worker = server.start_agent(&[]);
    let pid = worker.pid();
    for _ in 0..5 {
        server.await_beats(&[pid], 3);
        worker.ask("recreate");
    }
    let scrape = server.await_beats_and_seconds(&[pid], 5, 1.5);
    assert_it_was_always_one_agent_and_up(&server, &scrape, pid);
    assert_no_more_beats_are_missed_than_were_dropped(&mut worker, &scrape);
}

#[test]
fn a_process_that_makes_a_handle_for_each_beat_is_up() {
    let server = Server::start(STALL_AFTER);
    let worker = server.start_agent(&["--handle-per-beat"]);
    let scrape = server.await_beats_and_seconds(&[worker.pid()], 20, 1.5);
    assert_it_was_always_one_agent_and_up(&server, &scrape, worker.pid());
}

#[test]
fn a_process_that_replaces_itself_by_exec_stays_the_same_agent() {
    let server = Server::start(STALL_AFTER);
    let mut worker = server.start_agent(&[]);
    let pid = worker.pid();
    for _ in 0..3 {
        server.await_beats(&[pid], 5);
        assert_eq!(worker.ask("exec"), format!("ready {pid}"));
    }
    let scrape = server.await_beats_and_seconds(&[pid], 5, 1.5);
    assert_it_was_always_one_agent_and_up(&server, &scrape, pid);
}

#[test]
fn a_forked_child_is_an_agent_of_its_own_and_its_parents_fate_is_not_its_own() {
    let server = Server::start(STALL_AFTER);
    let mut parent = server.start_agent(&[]);
    server.await_beats(&[parent.pid()], 3);
    let child = parent.fork();
    server.await_agents("up", 2);
    server.await_beats_and_seconds(&[parent.pid(), child], 5, 1.5);

    parent.signal(Signal::Stop);
    server.expect(agent(&parent).stalled().seen_as("stopped"));
    server.await_beats_and_seconds(&[child], 5, 1.5);
    parent.signal(Signal::Continue);
    server.expect(agent(&parent).up().because("recovered"));
    parent.signal(Signal::Kill);
    server.expect(agent(&parent).down().because("killed"));

    let scrape = server.await_beats_and_seconds(&[child], 5, 1.5);
    assert_nothing_was_refused(&scrape);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 2.0);
    assert_eq!(scrape.of_agent("varta_agent_up", parent.pid()), 0.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", parent.pid()), 1.0);
    assert_eq!(scrape.of_agent("varta_agent_up", child), 1.0);
    server.expect(agent(child).up().from("none"));
    assert_eq!(server.history(child), ["up: first_beat"]);
}

#[test]
fn a_panic_is_critical_at_once_and_the_end_after_it_is_known_for_one() {
    let server = Server::start(STALL_AFTER);
    let mut worker = server.start_agent(&SELDOM_WITH_A_HOOK);
    let pid = worker.pid();
    server.await_beats(&[pid], 3);
    worker.ask("panic");
    assert_eq!(worker.wait().code(), Some(101), "the panic itself goes on as without the hook");

    server.expect(agent(pid).up().because("panicked").with_status("critical"));
    server.expect(agent(pid).down().because("panicked").with_status("critical"));
    server.expect_history(pid, &["up: first_beat", "up: panicked", "down: panicked"]);
    let scrape = server.scrape();
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 0.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", pid), 0.0);
    assert_nothing_was_refused(&scrape);
}

#[test]
fn the_silence_after_a_panic_is_known_for_one_and_so_is_the_end() {
    let server = Server::start(STALL_AFTER);
    // It survives its panic, and no beat comes after that.
    let mut worker = server.start_agent(&["--panic-hook", "--interval-ms", "3600000"]);
    let pid = worker.pid();
    worker.ask("panic-in-thread");
    server.expect(agent(pid).up().because("panicked"));
    server.expect(agent(pid).stalled().because("panicked").after_silence(DEADLINE).within(DEADLINE));
    worker.signal(Signal::Kill);
    server.expect(agent(pid).down().because("panicked"));
    let history = server.history(pid);
    // There may be a silence before it panics, on a machine that is slow to pass the command on.
    assert!(history.ends_with(&["stalled: panicked".into(), "down: panicked".into()]), "{history:?}");
    let scrape = server.scrape();
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 0.0);
    assert_nothing_was_refused(&scrape);
}

#[test]
fn a_critical_agent_is_an_alarm_before_any_deadline() {
    // No deadline comes in the lifetime of this test.
    let server = Server::start(["--stall-after", "1h"]);
    let mut worker = server.start_agent(&["--panic-hook", "--interval-ms", "3600000"]);
    let pid = worker.pid();
    worker.ask("panic-in-thread");
    server.await_scrape("the panic is seen", |scrape| {
        scrape.of_agent("varta_status", pid) == 2.0 && scrape.of_agent("varta_agent_up", pid) == 0.0
    });
}

#[test]
fn a_process_that_survives_its_panic_and_beats_on_stays_up() {
    let server = Server::start(STALL_AFTER);
    let mut worker = server.start_agent(&SELDOM_WITH_A_HOOK);
    let pid = worker.pid();
    server.await_beats(&[pid], 3);
    worker.ask("panic-in-thread");
    server.expect(agent(pid).up().because("panicked"));
    server.expect(agent(pid).up().because("reported"));
    let scrape = server.await_beats_and_seconds(&[pid], 5, 1.5);
    assert_nothing_was_refused(&scrape);
    assert_eq!(scrape.of_agent("varta_agent_up", pid), 1.0);
    assert_eq!(scrape.of_agent("varta_status", pid), 0.0);
    assert_eq!(scrape.of_agent("varta_stalls_total", pid), 0.0);
    assert_eq!(server.history(pid), ["up: first_beat", "up: panicked", "up: reported"]);
}

#[test]
fn a_change_of_status_is_seen_at_once_and_the_payload_comes_with_it() {
    // Neither a deadline nor the next beat in turn comes in the lifetime of this test.
    let server = Server::start(["--stall-after", "1h"]);
    let mut worker = server.start_agent(&["--interval-ms", "3600000"]);
    let pid = worker.pid();
    worker.ask("payload 4711");
    for (status, value, up) in [("degraded", 1.0, 1.0), ("critical", 2.0, 0.0), ("ok", 0.0, 1.0)] {
        worker.ask(&format!("status {status}"));
        let scrape = server.await_scrape(&format!("the agent is {status}"), |scrape| {
            scrape.of_agent("varta_status", pid) == value
        });
        assert_eq!(scrape.of_agent("varta_agent_up", pid), up);
        assert_eq!(scrape.of_agent("varta_agent_payload", pid), 4711.0);
    }
    let transitions = server.transitions();
    let reported: Vec<_> = transitions[1..].iter().map(|change| change.status.as_str()).collect();
    assert_eq!(reported, ["degraded", "critical", "ok"]);
    assert!(transitions[1..].iter().all(|change| change.cause == "reported" && change.payload == 4711));
}

#[test]
fn every_beat_of_a_process_is_counted_and_named_by_what_the_kernel_calls_it() {
    let server = Server::start(Options::new());
    let mut worker =
        AgentProcess::start(server.socket(), &["--interval-ms", "10", "--beats", "30", "--exit-code", "3"]);
    let pid = worker.pid();
    assert_eq!(worker.wait().code(), Some(3));
    let scrape = server.expect(metric("varta_beats_total").with("pid", pid).is(30.0));
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
