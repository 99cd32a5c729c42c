//! A server with nothing to do does nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::thread;
use std::time::Duration;

use varta_integration_tests::{Server, Signal, wait_for};

/// How long it is watched at a time: what it did once a second, or once in a stall-after, would show.
const WINDOW: Duration = Duration::from_secs(3);
const STALL_AFTER: [&str; 2] = ["--stall-after", "100ms"];
/// The most wake-ups in that time of a server that counts as asleep: another process may have looked at it.
const AT_MOST: u64 = 1;

/// How often the threads of a process have gone to sleep, which is how often they have woken up.
fn sleeps(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| sleeps_of_thread(&thread.unwrap().path().join("status"))).sum()
}

fn sleeps_of_thread(status: &std::path::Path) -> u64 {
    // A thread that has ended in the meantime sleeps no more.
    let status = fs::read_to_string(status).unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

/// Waits for a whole window in which the server slept.
#[track_caller]
fn await_sleep(server: &Server) {
    let mut seen = Vec::new();
    let slept = wait_for(|| {
        let before = sleeps(server.pid());
        // This is no wait for a condition: the claim is that nothing happens in this time.
        thread::sleep(WINDOW);
        let woken = sleeps(server.pid()) - before;
        seen.push(woken);
        (woken <= AT_MOST).then_some(())
    });
    assert!(slept.is_some(), "it woke up so often in each {WINDOW:?}: {seen:?}");
}

#[test]
fn a_server_without_agents_makes_no_wake_ups() {
    let server = Server::start(STALL_AFTER);
    await_sleep(&server);
}

#[test]
fn a_server_that_was_scraped_goes_back_to_sleep() {
    let server = Server::start(STALL_AFTER);
    for _ in 0..3 {
        let _ = server.scrape();
    }
    await_sleep(&server);
}

#[test]
fn a_server_whose_agents_are_all_silent_goes_back_to_sleep() {
    let server = Server::start(STALL_AFTER);
    let workers = [(); 3].map(|()| server.start_agent(&[]));
    for worker in &workers {
        worker.signal(Signal::Stop);
    }
    server.await_agents("stalled", workers.len());
    await_sleep(&server);
}

#[test]
fn a_server_whose_agents_have_died_goes_back_to_sleep() {
    let server = Server::start(STALL_AFTER);
    let workers = [(); 3].map(|()| server.start_agent(&[]));
    for worker in &workers {
        worker.signal(Signal::Kill);
    }
    // Their exit status has not been asked for so far.
    server.await_agents("down", workers.len());
    await_sleep(&server);
}
