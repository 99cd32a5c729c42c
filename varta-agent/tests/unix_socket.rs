//! Beats through real sockets: servers that restart, that are not there yet, or that do not read. A handle
//! with a page of memory behaves the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::io;
use std::thread;

use common::{HandleKind, Server};
use varta_agent::{BeatOutcome, BeatTransport, DropReason, Frame, Status, Varta};

const FULL: BeatOutcome = BeatOutcome::Dropped(DropReason::KernelQueueFull);
const NOBODY: BeatOutcome = BeatOutcome::Dropped(DropReason::NoObserver);
const GONE: BeatOutcome = BeatOutcome::Dropped(DropReason::PeerGone);

fn beat<T: BeatTransport>(agent: &mut Varta<T>) -> BeatOutcome {
    agent.beat(Status::Ok, 0)
}

fn nonces(frames: &[Frame]) -> Vec<u64> {
    frames.iter().map(|frame| frame.nonce).collect()
}

for_each_kind! {
    a_beat_arrives_as_it_was_made,
    timestamps_do_not_decrease,
    a_restarted_server_gets_the_beat_that_found_out,
    a_server_that_comes_back_after_a_while_is_found_by_the_next_beat,
    without_a_threshold_only_reconnect_leads_to_the_restarted_server,
    a_full_queue_drops_beats_until_it_is_read,
    a_lazy_handle_finds_its_server_as_soon_as_there_is_one,
    a_handle_of_the_builder_needs_no_server_and_finds_each_that_comes,
    connect_fails_where_nobody_listens_and_names_the_path,
    a_path_that_is_too_long_is_refused_lazy_or_not,
    a_handle_may_move_to_another_thread,
    a_handle_shows_where_it_sends,
}

fn a_beat_arrives_as_it_was_made<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    assert_eq!(agent.beat(Status::Degraded, 0xdead_beef), BeatOutcome::Sent);
    let frame = server.frame();
    assert_eq!((frame.status, frame.pid), (Status::Degraded, std::process::id()));
    assert_eq!((frame.nonce, frame.payload), (1, 0xdead_beef));
}

fn timestamps_do_not_decrease<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    let timestamps = [(); 200].map(|()| {
        assert!(beat(&mut agent).is_sent());
        server.frame().timestamp
    });
    assert!(timestamps.is_sorted());
    assert_eq!(agent.clock_regressions(), 0);
}

fn a_restarted_server_gets_the_beat_that_found_out<W: HandleKind>() {
    let mut server = Server::listening();
    let mut agent = W::build(Varta::builder().socket(server.path())).unwrap();
    assert!(beat(&mut agent).is_sent());
    for _ in 0..3 {
        server.kill();
        server.start();
        assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
    }
    assert_eq!(nonces(&server.arrived()), [6, 7]);
}

fn a_server_that_comes_back_after_a_while_is_found_by_the_next_beat<W: HandleKind>() {
    let mut server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    agent.set_reconnect_after(3);
    server.kill();
    assert_eq!(beat(&mut agent), NOBODY);
    for _ in 0..5 {
        assert_eq!(beat(&mut agent), GONE);
    }
    server.start();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!(nonces(&server.arrived()), [7]);
}

fn without_a_threshold_only_reconnect_leads_to_the_restarted_server<W: HandleKind>() {
    let mut server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    server.kill();
    server.start();
    assert_eq!(beat(&mut agent), NOBODY);
    assert_eq!(beat(&mut agent), GONE);
    agent.reconnect().unwrap();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!(nonces(&server.arrived()), [3]);
}

fn a_full_queue_drops_beats_until_it_is_read<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::build(Varta::builder().socket(server.path())).unwrap();
    let mut taken = 0;
    let full = loop {
        match beat(&mut agent) {
            BeatOutcome::Sent => taken += 1,
            other => break other,
        }
    };
    assert_eq!(full, FULL);
    assert_eq!(beat(&mut agent), FULL);
    assert_eq!(server.arrived().len(), taken);
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
}

fn a_lazy_handle_finds_its_server_as_soon_as_there_is_one<W: HandleKind>() {
    for threshold in [0, 1] {
        let mut server = Server::absent();
        let builder = Varta::builder().socket(server.path()).lazy().reconnect_after(threshold);
        let mut agent = W::build(builder).unwrap();
        assert_eq!((beat(&mut agent), beat(&mut agent)), (NOBODY, NOBODY));
        server.start();
        server.kill();
        assert_eq!(beat(&mut agent), NOBODY, "a socket that nobody listens on");
        server.start();
        assert_eq!(beat(&mut agent), BeatOutcome::Sent);
        assert_eq!(nonces(&server.arrived()), [4]);
    }
}

fn a_handle_of_the_builder_needs_no_server_and_finds_each_that_comes<W: HandleKind>() {
    let mut server = Server::absent();
    let mut agent = W::build(Varta::builder().socket(server.path())).unwrap();
    for round in 0..3 {
        assert!(beat(&mut agent).is_dropped());
        server.start();
        assert_eq!((beat(&mut agent), beat(&mut agent)), (BeatOutcome::Sent, BeatOutcome::Sent));
        assert_eq!(nonces(&server.arrived()), [round * 3 + 2, round * 3 + 3]);
        server.kill();
    }
}

#[cfg(all(feature = "shm", target_os = "linux"))]
#[test]
fn a_handle_of_connect_shm_fails_without_a_server_and_finds_a_restarted_one() {
    let mut server = Server::absent();
    assert_eq!(Varta::connect_shm(server.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    server.start();
    let mut agent = Varta::connect_shm(server.path()).unwrap();
    assert!(beat(&mut agent).is_sent());
    for nonce in 2..4 {
        server.kill();
        server.start();
        assert!(beat(&mut agent).is_sent());
        assert_eq!(nonces(&server.arrived()), [nonce]);
    }
}

fn connect_fails_where_nobody_listens_and_names_the_path<W: HandleKind>() {
    let mut server = Server::absent();
    let path = server.path();
    let refused = |kind| {
        for result in [W::connect(path.clone()), W::build(Varta::builder().socket(&path).eager())] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(error.to_string().contains("start varta-server"), "{error}");
        }
    };
    refused(io::ErrorKind::NotFound);
    server.start();
    server.kill();
    refused(io::ErrorKind::ConnectionRefused);
}

fn a_path_that_is_too_long_is_refused_lazy_or_not<W: HandleKind>() {
    let path = format!("/tmp/{}", "x".repeat(120));
    for builder in [Varta::builder().eager(), Varta::builder()] {
        let error = W::build(builder.socket(&path)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&path), "{error}");
    }
}

fn a_handle_may_move_to_another_thread<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    assert!(beat(&mut agent).is_sent());
    let outcome = thread::spawn(move || beat(&mut agent)).join().unwrap();
    assert_eq!(outcome, BeatOutcome::Sent);
    assert_eq!(nonces(&server.arrived()), [1, 2]);
}

fn a_handle_shows_where_it_sends<W: HandleKind>() {
    let server = Server::listening();
    let agent = W::connect(server.path()).unwrap();
    let shown = format!("{agent:?}");
    assert!(shown.contains("connected: true") && shown.contains(server.path().to_str().unwrap()), "{shown}");
}
