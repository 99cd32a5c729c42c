//! Agents that beat through a page of shared memory: what reaches the server that way, and what goes through
//! the socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use varta_integration_tests::{
    AgentProcess, Options, Scrape, Scratch, Server, Signal, agent, metric, wait_until,
};

/// An agent that beats through a page, and is known.
#[track_caller]
fn start(server: &Server, arguments: &[&str]) -> AgentProcess {
    server.start_agent(&[&["--shm", "--interval-ms", "20"], arguments].concat())
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
fn assert_all_is_accounted_for(scrape: &Scrape) {
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams(), "{}", scrape.text);
    assert_eq!(scrape.sum("varta_agent_beats_lost_total", &[]), 0.0, "{}", scrape.text);
    assert_eq!(scrape.sum("varta_shm_refused_total", &[]), 0.0, "{}", scrape.text);
}

#[test]
fn beats_that_are_no_news_come_through_the_page_and_nothing_through_the_socket() {
    let server = Server::start(["--stall-after", "2s"]);
    let worker = start(&server, &[]);
    await_pages(&server, 1);
    // A server that did not run for a while, as on a busy machine, lets the promise of its page expire for so
    // long.
    let is_silent = (0..20).any(|_| {
        let before = server.scrape();
        let after = server.await_scrape("more beats come through the page", |scrape| {
            accepted(scrape, "shm") >= accepted(&before, "shm") + 3.0
        });
        accepted(&after, "unix") == accepted(&before, "unix")
    });
    assert!(is_silent, "{}", server.scrape().text);
    let scrape = server.scrape();
    assert_all_is_accounted_for(&scrape);
    assert_eq!(server.history(&worker), ["up: first_beat"]);
    assert_eq!(scrape.of_agent("varta_agent_up", worker.pid()), 1.0);
}

#[test]
fn another_status_goes_through_the_socket_and_the_last_number_is_seen() {
    let server = Server::start(["--stall-after", "10s"]);
    let mut worker = start(&server, &[]);
    await_pages(&server, 1);
    let before = accepted(&server.scrape(), "unix");
    worker.ask("status degraded");
    server.expect(agent(&worker).up().because("reported"));
    assert!(accepted(&server.scrape(), "unix") > before, "it did not wait for a look at the page");
    worker.ask("payload 77");
    server.expect(metric("varta_agent_payload").with("pid", worker.pid()).is(77.0));
    await_pages(&server, 1);
    assert_all_is_accounted_for(&server.scrape());
}

#[test]
fn an_agent_that_is_stopped_is_stalled_until_it_goes_on() {
    let server = Server::start(["--stall-after", "1s"]);
    let (stopped, other) = (start(&server, &[]), start(&server, &[]));
    await_pages(&server, 2);
    stopped.signal(Signal::Stop);
    let second = Duration::from_secs(1);
    server.expect(agent(&stopped).stalled().seen_as("stopped").after_silence(second).within(second));
    stopped.signal(Signal::Continue);
    server.expect(agent(&stopped).up().because("recovered"));
    await_pages(&server, 2);
    assert_all_is_accounted_for(&server.scrape());
    assert_eq!(server.history(&other), ["up: first_beat"]);
}

#[test]
fn an_agent_that_is_killed_is_down_at_once_and_its_page_goes() {
    let server = Server::start(["--stall-after", "1h"]);
    let (killed, other) = (start(&server, &[]), start(&server, &[]));
    await_pages(&server, 2);
    killed.signal(Signal::Kill);
    server.expect(agent(&killed).down().because("killed"));
    await_pages(&server, 1);
    assert_eq!(server.history(&other), ["up: first_beat"]);
}

#[test]
fn an_agent_that_panics_has_panicked_whatever_it_wrote_just_before() {
    let server = Server::start(["--stall-after", "1h"]);
    // It writes to its page all the time.
    let mut worker = start(&server, &["--interval-ms", "0", "--panic-hook"]);
    server.expect(metric("varta_shm_pages").is(1.0));
    worker.ask("panic");
    worker.wait();
    server.expect_history(&worker, &["up: first_beat", "up: panicked", "down: panicked"]);
}

#[test]
fn an_agent_that_says_goodbye_is_gone_and_nothing_of_it_is_read_afterwards() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut worker = start(&server, &[]);
    await_pages(&server, 1);
    worker.ask("goodbye");
    server.expect(agent(&worker).gone().because("goodbye"));
    server.expect(metric("varta_shm_pages").is(0.0));
    assert_eq!(server.history(&worker), ["up: first_beat", "gone: goodbye"]);
}

#[test]
fn a_child_of_fork_is_an_agent_of_its_own_with_a_page_of_its_own() {
    let server = Server::start(["--stall-after", "1h"]);
    let mut worker = start(&server, &[]);
    await_pages(&server, 1);
    let child = worker.fork();
    server.expect(agent(child).up());
    let scrape = await_pages(&server, 2);
    assert_all_is_accounted_for(&scrape);
    server.await_beats(&[worker.pid(), child], 3);
    assert_eq!(server.history(&worker), ["up: first_beat"]);
}

#[test]
fn two_handles_of_a_process_have_two_pages_and_are_one_agent() {
    let server = Server::start(["--stall-after", "2s"]);
    let mut worker = start(&server, &[]);
    worker.ask("second");
    await_pages(&server, 2);
    worker.ask("drop-first");
    let scrape = await_pages(&server, 1);
    assert_all_is_accounted_for(&scrape);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 1.0);
    assert_eq!(server.history(&worker), ["up: first_beat"]);
}

#[test]
fn the_next_server_gets_a_page_whether_the_one_before_was_stopped_or_killed() {
    let scratch = Scratch::make();
    let options = || Options::from(["--stall-after", "5s"]).socket(&scratch.socket());
    let mut server = Server::start(options());
    let worker = start(&server, &[]);
    await_pages(&server, 1);
    for end in [Server::stop, Server::kill] {
        end(&mut server);
        server = Server::start(options());
        let scrape = await_pages(&server, 1);
        assert_all_is_accounted_for(&scrape);
        assert_eq!(server.history(&worker), ["up: first_beat"]);
    }
}

#[test]
fn a_server_that_was_stopped_for_a_while_accuses_no_agent_and_goes_on_with_pages() {
    let server = Server::start(["--stall-after", "1s", "--socket-queue", "1"]);
    let mut worker = start(&server, &["--attempts", "1"]);
    await_pages(&server, 1);
    server.pause();
    // The promise of the page has expired by then, and the queue is full of beats that went by datagram
    // instead.
    wait_until("beats are dropped", || worker.ask("dropped") != "ok 0");
    server.resume();
    await_pages(&server, 1);
    assert!(server.transitions().iter().all(|change| change.to != "stalled"));
}

#[test]
fn where_there_is_no_room_for_a_page_beats_go_on_as_datagrams() {
    let server = Server::start(["--stall-after", "2s", "--max-shm-agents", "1"]);
    let first = start(&server, &[]);
    await_pages(&server, 1);
    let second = start(&server, &[]);
    let scrape = server.await_beats_and_seconds(&[first.pid(), second.pid()], 5, 2.5);
    // The agent may ask again.
    assert!(scrape.value("varta_shm_refused_total", &[("reason", "no_room")]) >= 1.0, "{}", scrape.text);
    assert_eq!(scrape.value("varta_shm_pages", &[]), 1.0);
    assert_eq!(server.history(&second), ["up: first_beat"]);
}

#[test]
fn a_rule_for_a_shorter_deadline_has_pages_looked_at_more_often() {
    let scratch = Scratch::make();
    let rule = "[[rule]]\nname = \"quick-*\"\nstall-after = \"2s\"\n";
    let server = Server::start(Options::from(["--stall-after", "1h"]).config(&scratch, rule));
    let slow = start(&server, &[]);
    await_pages(&server, 1);
    let quick = start(&server, &["--name", "quick-1"]);
    await_pages(&server, 2);
    // Longer than its deadline.
    server.await_beats_and_seconds(&[slow.pid(), quick.pid()], 3, 3.0);
    assert_eq!(server.history(&quick), ["up: first_beat"]);
    quick.signal(Signal::Stop);
    let deadline = Duration::from_secs(2);
    server.expect(agent(&quick).stalled().seen_as("stopped").after_silence(deadline).within(deadline));
    assert_all_is_accounted_for(&server.scrape());
    assert_eq!(server.history(&slow), ["up: first_beat"]);
}
