//! Agents that beat through a page of memory: what reaches the server that way, and what goes past it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use varta_integration_tests::{AgentProcess, LIMIT, Options, Scrape, Server, Signal, wait_for};

fn start(server: &Server, arguments: &[&str]) -> AgentProcess {
    start_at(server.socket(), arguments)
}

fn start_at(socket: &Path, arguments: &[&str]) -> AgentProcess {
    AgentProcess::start(socket, &[&["--shm", "--interval-ms", "20"], arguments].concat())
}

fn accepted(scrape: &Scrape, transport: &str) -> f64 {
    scrape.value("varta_frames_total", &[("transport", transport), ("outcome", "accepted")])
}

/// Waits until the server finds beats in pages, and so many pages are there.
#[track_caller]
fn await_pages(server: &Server, pages: usize) -> Scrape {
    let before = accepted(&server.scrape(), "shm");
    server.await_scrape("beats come through pages", |scrape| {
        scrape.value("varta_shm_pages", &[]) == pages as f64 && accepted(scrape, "shm") >= before + 3.0
    })
}

/// Every frame was taken, none is missed and no page was refused.
#[track_caller]
fn assert_the_books_are_clean(scrape: &Scrape) {
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams(), "{}", scrape.text);
    assert_eq!(scrape.sum("varta_agent_beats_lost_total", &[]), 0.0, "{}", scrape.text);
    assert_eq!(scrape.sum("varta_shm_refused_total", &[]), 0.0, "{}", scrape.text);
}

#[test]
fn beats_that_are_no_news_come_through_the_page_and_nothing_through_the_socket() {
    let server = Server::start(["--stall-after", "2s"]);
    let agent = start(&server, &[]);
    await_pages(&server, 1);
    // A server that did not run for a while, as on a busy machine, has taken its promise back for so long.
    let is_silent = (0..20).any(|_| {
        let before = server.scrape();
        let after = server.await_scrape("more beats come through the page", |scrape| {
            accepted(scrape, "shm") >= accepted(&before, "shm") + 3.0
        });
        accepted(&after, "unix") == accepted(&before, "unix")
    });
    assert!(is_silent, "{}", server.scrape().text);
    let scrape = server.scrape();
    assert_the_books_are_clean(&scrape);
    assert_eq!(server.told(agent.pid()), ["up: first_beat"]);
    assert_eq!(scrape.of_agent("varta_agent_up", agent.pid()), 1.0);
}

#[test]
fn another_status_is_told_at_once_and_the_last_number_is_seen() {
    let server = Server::start(["--stall-after", "10s"]);
    let mut agent = start(&server, &[]);
    await_pages(&server, 1);
    agent.ask("status degraded");
    let told = server.await_transition(agent.pid(), "up", "reported");
    assert!(told.silence_ms < 5_000, "{told:?}");
    agent.ask("payload 77");
    server
        .await_sample("varta_agent_payload", &[("pid", &agent.pid().to_string())], |payload| payload == 77.0);
    await_pages(&server, 1);
    assert_the_books_are_clean(&server.scrape());
}

#[test]
fn who_is_stopped_is_stalled_and_who_goes_on_has_recovered() {
    let server = Server::start(["--stall-after", "1s"]);
    let (stopped, other) = (start(&server, &[]), start(&server, &[]));
    await_pages(&server, 2);
    stopped.signal(Signal::Stop);
    let stalled = server.await_transition(stopped.pid(), "stalled", "stopped");
    assert!(stalled.silence_ms >= 1_000, "{stalled:?}");
    stopped.signal(Signal::Continue);
    server.await_transition(stopped.pid(), "up", "recovered");
    await_pages(&server, 2);
    assert_the_books_are_clean(&server.scrape());
    assert_eq!(server.told(other.pid()), ["up: first_beat"]);
}

#[test]
fn who_is_killed_is_down_at_once_and_its_page_goes() {
    let server = Server::start(["--stall-after", "1h"]);
    let (killed, other) = (start(&server, &[]), start(&server, &[]));
    await_pages(&server, 2);
    killed.signal(Signal::Kill);
    server.await_transition(killed.pid(), "down", "killed");
    await_pages(&server, 1);
    assert_eq!(server.told(other.pid()), ["up: first_beat"]);
}

#[test]
fn who_panics_has_panicked_whatever_it_wrote_just_before() {
    let server = Server::start(["--stall-after", "1h"]);
    // It writes to its page all the time.
    let mut agent = start(&server, &["--interval-ms", "0", "--panic-hook"]);
    await_pages(&server, 1);
    agent.ask("panic");
    agent.wait();
    server.await_transition(agent.pid(), "down", "panicked");
    assert_eq!(server.told(agent.pid()), ["up: first_beat", "up: panicked", "down: panicked"]);
}

#[test]
fn who_says_goodbye_is_gone_and_nothing_of_it_is_read_afterwards() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut agent = start(&server, &[]);
    await_pages(&server, 1);
    agent.ask("goodbye");
    server.await_transition(agent.pid(), "gone", "goodbye");
    server.await_sample("varta_shm_pages", &[], |pages| pages == 0.0);
    assert_eq!(server.told(agent.pid()), ["up: first_beat", "gone: goodbye"]);
}

#[test]
fn a_child_of_fork_is_an_agent_of_its_own_with_a_page_of_its_own() {
    let server = Server::start(["--stall-after", "1h"]);
    let mut agent = start(&server, &[]);
    await_pages(&server, 1);
    let child = agent.fork();
    server.await_state(child, "up");
    let scrape = await_pages(&server, 2);
    assert_the_books_are_clean(&scrape);
    server.await_beats_and_seconds(&[agent.pid(), child], 3, 0.0);
    assert_eq!(server.told(agent.pid()), ["up: first_beat"]);
}

#[test]
fn two_handles_of_a_process_have_two_pages_and_are_one_agent() {
    let server = Server::start(["--stall-after", "2s"]);
    let mut agent = start(&server, &[]);
    agent.ask("second");
    await_pages(&server, 2);
    agent.ask("drop-first");
    let scrape = await_pages(&server, 1);
    assert_the_books_are_clean(&scrape);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 1.0);
    assert_eq!(server.told(agent.pid()), ["up: first_beat"]);
}

#[test]
fn the_next_server_gets_a_page_whether_the_one_before_was_stopped_or_killed() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("varta.sock");
    let options = || Options::new().socket(&socket).args(["--stall-after", "5s"]);
    let mut server = Server::start(options());
    let agent = start_at(&socket, &[]);
    await_pages(&server, 1);
    for signal in [Signal::Terminate, Signal::Kill] {
        server.signal(signal);
        server.wait();
        server = Server::start(options());
        let scrape = await_pages(&server, 1);
        assert_the_books_are_clean(&scrape);
        assert_eq!(server.told(agent.pid()), ["up: first_beat"]);
    }
}

#[test]
fn a_server_that_was_held_up_accuses_nobody_and_goes_on_with_pages() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut agent = start(&server, &["--attempts", "1"]);
    await_pages(&server, 1);
    server.pause();
    // Nobody has renewed the promise by then, and the queue is full of what went by datagram instead.
    let dropped = wait_for(|| (agent.ask("dropped") != "ok 0").then_some(()));
    assert!(dropped.is_some(), "beats still go somewhere after {LIMIT:?}");
    server.signal(Signal::Continue);
    await_pages(&server, 1);
    assert!(server.transitions().iter().all(|line| line.to != "stalled"));
}

#[test]
fn where_there_is_no_room_for_a_page_beats_go_on_as_datagrams() {
    let server = Server::start(["--stall-after", "2s", "--max-shm-agents", "1"]);
    let first = start(&server, &[]);
    await_pages(&server, 1);
    let second = start(&server, &[]);
    let scrape = server.await_beats_and_seconds(&[first.pid(), second.pid()], 5, 2.5);
    assert_eq!(scrape.value("varta_shm_refused_total", &[("reason", "no_room")]), 1.0);
    assert_eq!(scrape.value("varta_shm_pages", &[]), 1.0);
    assert_eq!(server.told(second.pid()), ["up: first_beat"]);
}

#[test]
fn a_rule_for_a_shorter_deadline_has_pages_looked_at_more_often() {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("varta.toml");
    fs::write(&config, "[[rule]]\nname = \"quick-*\"\nstall-after = \"2s\"\n").unwrap();
    let options = Options::new().args(["--stall-after", "1h"]).args([Path::new("--config"), &config]);
    let server = Server::start(options);
    let slow = start(&server, &[]);
    await_pages(&server, 1);
    let quick = start(&server, &["--name", "quick-1"]);
    await_pages(&server, 2);
    // Longer than its deadline.
    server.await_beats_and_seconds(&[slow.pid(), quick.pid()], 3, 3.0);
    assert_eq!(server.told(quick.pid()), ["up: first_beat"]);
    quick.signal(Signal::Stop);
    let stalled = server.await_transition(quick.pid(), "stalled", "stopped");
    assert!(stalled.silence_ms >= 2_000, "{stalled:?}");
    assert_the_books_are_clean(&server.scrape());
    assert_eq!(server.told(slow.pid()), ["up: first_beat"]);
}
