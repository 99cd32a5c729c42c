//! A Unix socket whose queue is full: the kernel refuses beats of agents that beat, and the server accuses none
//! of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use varta_integration_tests::foreign::skip;
use varta_integration_tests::sys::{self, NOBODY};
use varta_integration_tests::{AgentProcess, Datagrams, Options, Server, Signal, agent, line_with};

/// Clients that beat at the same moments: four times as many as the shortest queue holds.
const CLIENTS: usize = 40;
const STALL_AFTER: Duration = Duration::from_secs(1);
/// Beats, and tries each beat once.
const PLAIN: [&str; 3] = ["--plain", "--attempts", "1"];

/// A server with the queue that the host gives to everybody.
fn server_with_short_queue() -> Server {
    Server::start(["--stall-after", "1s", "--socket-queue", "1"])
}

/// Sends garbage from several threads, which wait for room, while `act` runs. The kernel has refused beats
/// before that.
fn while_the_queue_is_full<T>(server: &Server, act: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut flood = Datagrams::to(server.socket());
                while !is_over.load(Ordering::Relaxed) {
                    flood.send(b"not a frame");
                }
            });
        }
        // A panic of `act` must not leave the threads sending for ever.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            server.await_scrape("the queue is full", |scrape| {
                scrape.value("varta_unix_queue_full_total", &[]) > 0.0
            });
            act()
        }));
        is_over.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
    })
}

/// How often agents were called stalled.
fn stalls(server: &Server) -> usize {
    server.transitions().iter().filter(|change| change.to == "stalled").count()
}

#[test]
fn forty_that_beat_at_the_same_moments_are_not_called_stalled_for_a_full_queue_and_are_when_they_stop() {
    let server = server_with_short_queue();
    let arguments = ["--plain", "--interval-ms", "250", "--on-the-tick", "--attempts", "1"];
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.start_agent(&arguments)).collect();

    let [mut silent, mut doomed] = [(); 2].map(|()| server.start_agent(&PLAIN));

    while_the_queue_is_full(&server, || {
        // They live and sleep: as far as the server can know, their beats are refused.
        silent.ask("rest");
        doomed.ask("rest");
        // On a busy host the server may have doubts of its own first.
        server.expect(agent(silent.pid()).unknown());
        server.expect(line_with("which holds").with("was full").with("--socket-queue"));
        server.await_scrape("it is silent for four stall timeouts", |scrape| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            let last = scrape.of_agent("varta_agent_last_beat_timestamp_seconds", silent.pid());
            now - last > 4.0 * STALL_AFTER.as_secs_f64()
        });
        // A death is known from the kernel, whatever the queue.
        doomed.signal(Signal::Kill);
        server.expect(agent(doomed.pid()).down().because("killed"));
        assert_eq!(stalls(&server), 0, "{:?}", server.transitions());
    });

    // Forty at once may fill the queue further on. With room for a stall timeout nobody has an excuse.
    clients.truncate(1);
    clients[0].signal(Signal::Stop);
    // A look at it may find no place among those at all who have just been killed.
    server.expect(agent(clients[0].pid()).stalled());
    server.expect(agent(silent.pid()).stalled());
    let scrape = server.scrape();
    assert!(scrape.value("varta_transitions_total", &[("to", "unknown"), ("cause", "queue_full")]) >= 1.0);
    assert_eq!(stalls(&server), 2, "{:?}", server.transitions());
}

#[test]
fn a_user_who_is_not_let_in_and_floods_the_socket_makes_nobody_stalled() {
    if sys::user() != 0 {
        skip("only root can start an agent of another user");
        return;
    }
    let options = Options::from(["--stall-after", "1s", "--socket-queue", "1"]).open_to_all();
    let server = Server::start(options);
    let _agents: Vec<_> = (0..10).map(|_| server.start_agent(&PLAIN)).collect();
    let mut silent = server.start_agent(&PLAIN);
    let user = NOBODY.to_string();
    let flooders: Vec<_> = (0..4)
        .map(|_| {
            let arguments = ["--user", &user, "--plain", "--interval-ms", "0", "--attempts", "1"];
            AgentProcess::start(server.socket(), &arguments)
        })
        .collect();
    server.await_scrape("they are refused, and the queue is full", |scrape| {
        scrape.outcome("uid_refused") > 0.0 && scrape.value("varta_unix_queue_full_total", &[]) > 0.0
    });
    silent.ask("rest");
    server.expect(agent(silent.pid()).unknown());
    let refused = server.scrape().outcome("uid_refused");
    server.await_scrape("the flood goes on", |scrape| scrape.outcome("uid_refused") > refused + 10_000.0);
    assert_eq!(stalls(&server), 0, "{:?}", server.transitions());
    drop(flooders);
    server.expect(agent(silent.pid()).stalled());
    assert_eq!(stalls(&server), 1, "{:?}", server.transitions());
}

#[test]
fn a_server_that_may_have_a_queue_of_its_own_refuses_no_one_of_two_hundred_at_once() {
    let server = Server::start(["--stall-after", "1h"]);
    let length = server.scrape().value("varta_unix_max_dgram_qlen", &[]);
    if length < 256.0 {
        skip("no longer queue can be made here: that takes CAP_SYS_ADMIN");
        return;
    }
    // They all come while nobody reads.
    let senders: Vec<_> = (0..200).map(|_| Datagrams::to(server.socket())).collect();
    server.pause();
    let refused = senders.into_iter().filter_map(|mut sender| sender.try_send(&[0; 32]).err()).count();
    server.signal(Signal::Continue);
    assert_eq!(refused, 0);
    server.await_datagrams(200.0);
    assert_eq!(server.scrape().value("varta_unix_queue_full_total", &[]), 0.0);
}
