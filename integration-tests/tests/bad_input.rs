//! Datagrams that are no good beats: each is refused for exactly one reason, counted under it, and changes
//! nothing else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process;
use std::time::Duration;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::sys::NOBODY;
use varta_integration_tests::{
    AgentProcess, Datagrams, LIMIT, Options, Scrape, Server, Signal, agent, line_with, sys, wait_until,
    with_checksum,
};
use varta_proto::{Frame, NONCE_TERMINAL, Status};

const SECOND: u64 = 1_000_000_000;

/// A server that never gets to a deadline while a test runs.
fn patient_server() -> Server {
    Server::start(["--stall-after", "1h"])
}

/// A frame of this very process.
fn frame(status: Status, nonce: u64) -> Frame {
    Frame::new(status, process::id(), nonce.saturating_mul(SECOND).min(u64::MAX - 1), nonce, 7)
}

fn ok(nonce: u64) -> [u8; 32] {
    frame(Status::Ok, nonce).to_bytes()
}

/// The frame with other bytes from `offset` on, and the checksum that belongs to them.
fn patched<const N: usize>(offset: usize, bytes: [u8; N]) -> [u8; 32] {
    let mut wire = ok(9);
    wire[offset..offset + N].copy_from_slice(&bytes);
    with_checksum(wire)
}

fn damaged() -> [u8; 32] {
    let mut wire = ok(9);
    wire[12] ^= 0x40;
    wire
}

fn frames(outcome: &str) -> String {
    format!("varta_frames_total{{outcome={outcome:?},transport=\"unix\"}}")
}

fn decode_errors(kind: &str) -> String {
    format!("varta_decode_errors_total{{kind={kind:?}}}")
}

/// Introduces this process, sends what `send` sends, and checks that each of `rows` moved by the number of
/// datagrams, and nothing else did: no other row, and nothing of the agent that is known by then.
#[track_caller]
fn assert_only_these_rows_move(server: &Server, rows: &[String], send: impl FnOnce(&mut Datagrams)) {
    let mut datagrams = Datagrams::to(server.socket());
    let already = server.scrape().datagrams();
    datagrams.send(&ok(5));
    let before = server.await_datagrams(already + datagrams.sent());
    let sent_before = datagrams.sent();
    send(&mut datagrams);
    let after = server.await_datagrams(already + datagrams.sent());
    let count = datagrams.sent() - sent_before;
    let expected: BTreeMap<String, f64> = rows.iter().map(|row| (row.clone(), count)).collect();
    assert_eq!(after.changes_since(&before), expected);
    assert_eq!(after.datagrams(), already + datagrams.sent(), "every datagram is in one row");
    assert_eq!(server.transitions().len(), 1, "nothing was concluded but that the sender is up");
}

#[test]
fn a_datagram_of_another_length_is_refused_as_that() {
    let rows =
        [frames("bad_length"), decode_errors("bad_length"), "varta_truncated_datagrams_total".to_owned()];
    assert_only_these_rows_move(&patient_server(), &rows, |datagrams| {
        for length in [0, 1, 31, 33, 60, 64, 576, 577, 5000] {
            // The beginning is a good frame: that must not save it.
            let mut payload = ok(6).to_vec();
            payload.resize(length, 0);
            datagrams.send(&payload);
        }
    });
}

#[test]
fn a_broken_frame_is_refused_by_the_first_rule_that_it_breaks() {
    let terminal_and_ok = frame(Status::Ok, NONCE_TERMINAL).to_bytes();
    let everything_but_the_length = [0xff; 32];
    let table: [(&str, &[[u8; 32]]); 8] = [
        ("bad_magic", &[[0; 32], everything_but_the_length, patched(0, *b"VC")]),
        ("bad_version", &[patched(2, [1]), patched(2, [3])]),
        ("bad_crc", &[damaged()]),
        ("bad_status", &[patched(3, [4]), patched(3, [255])]),
        ("stall_on_wire", &[frame(Status::Stall, 9).to_bytes()]),
        ("bad_pid", &[patched(4, [0; 4]), patched(4, [1, 0, 0, 0])]),
        ("bad_timestamp", &[patched(8, [0xff; 8])]),
        ("bad_nonce", &[terminal_and_ok]),
    ];
    for (kind, wires) in table {
        assert_only_these_rows_move(&patient_server(), &[frames(kind), decode_errors(kind)], |datagrams| {
            wires.iter().for_each(|wire| datagrams.send(wire));
        });
    }
}

#[test]
fn a_pid_that_is_not_the_senders_is_refused() {
    let server = patient_server();
    let victim = AgentProcess::start(server.socket(), &["--interval-ms", "3600000"]);
    server.await_agents("up", 1);
    let mut datagrams = Datagrams::to(server.socket());
    let before = server.scrape();
    let forged = |status, nonce| Frame::new(status, victim.pid(), 3600 * SECOND, nonce, 99).to_bytes();
    datagrams.send(&forged(Status::Ok, 2));
    datagrams.send(&forged(Status::Critical, 3));
    datagrams.send(&forged(Status::Critical, NONCE_TERMINAL));
    let after = server.await_datagrams(before.datagrams() + datagrams.sent());
    let rows = [frames("pid_mismatch"), "varta_frame_auth_failures_total".to_owned()];
    assert_eq!(after.changes_since(&before), rows.map(|row| (row, datagrams.sent())).into());
    let who = format!("process {} of uid {}", process::id(), sys::user());
    server
        .expect(line_with(&who).with(&format!("carry pid {}", victim.pid())).with("connect after the fork"));
    assert_eq!(server.log().find_all(&format!("datagrams of {who}")).len(), 1, "and that is said once");
}

#[test]
fn a_number_that_is_no_pid_stands_for_the_process_that_the_kernel_names() {
    let server = patient_server();
    let mut datagrams = Datagrams::to(server.socket());
    datagrams.send(&Frame::new(Status::Degraded, 0x8000_1234, 1, 1, 7).to_bytes());
    let scrape = server.await_datagrams(1.0);
    assert_eq!(scrape.outcome("accepted"), 1.0);
    assert_eq!(scrape.of_agent("varta_status", process::id()), 1.0);
}

#[test]
fn a_user_who_is_not_allowed_is_refused() {
    if sys::user() != 0 {
        skip("only root can start an agent of another user");
        return;
    }
    let server = Server::start(Options::from(["--stall-after", "1h"]).open_to_all());
    let before = server.scrape();
    let worker = AgentProcess::start(server.socket(), &["--user", &NOBODY.to_string(), "--beats", "5"]);
    let after = server.await_datagrams(5.0);
    let rows = [frames("uid_refused"), "varta_frame_auth_failures_total".to_owned()];
    assert_eq!(after.changes_since(&before), rows.map(|row| (row, 5.0)).into());
    drop(worker);
}

#[test]
fn a_user_or_a_group_that_is_allowed_is_heard() {
    if sys::user() != 0 {
        skip("only root can start an agent of another user");
        return;
    }
    // The worker changes its user and keeps its group, which is root's.
    for allowed in [["--allow-uid", &NOBODY.to_string()], ["--allow-gid", "0"]] {
        let server = Server::start(Options::from(allowed).open_to_all());
        let worker = AgentProcess::start(server.socket(), &["--user", &NOBODY.to_string()]);
        server.await_beats(&[worker.pid()], 3);
        assert_eq!(server.scrape().outcome("uid_refused"), 0.0);
    }
}

#[test]
fn passed_file_descriptors_are_refused_with_their_datagram_and_none_is_kept() {
    let server = patient_server();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let (passed, mut witness) = UnixStream::pair().unwrap();
    assert_only_these_rows_move(&server, &[frames("ancillary")], |datagrams| {
        let before = descriptors();
        for nonce in 6..106 {
            // One, and several; not so many that an ordinary user would have too many on the way at once.
            let count = if nonce % 2 == 0 { 1 } else { 16 };
            datagrams.send_with_descriptors(&ok(nonce), &vec![passed.as_fd(); count]);
        }
        server.await_datagrams(datagrams.sent());
        // A scrape has a connection of its own, which may just be going.
        wait_until(&format!("there are {before} descriptors as before"), || descriptors() <= before);
    });
    // The other end is closed only when no process has the passed one any more, and no datagram on the way.
    drop(passed);
    witness.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(witness.read(&mut [0]).unwrap(), 0, "it is still held");
}

#[test]
fn a_repeated_beat_is_refused() {
    let rows = [frames("duplicate"), "varta_out_of_order_total".to_owned()];
    assert_only_these_rows_move(&patient_server(), &rows, |datagrams| {
        (0..10).for_each(|_| datagrams.send(&ok(5)));
    });
}

#[test]
fn an_old_beat_is_refused() {
    let rows = [frames("out_of_order"), "varta_out_of_order_total".to_owned()];
    assert_only_these_rows_move(&patient_server(), &rows, |datagrams| {
        [4, 3, 2].into_iter().for_each(|nonce| datagrams.send(&ok(nonce)));
    });
}

#[test]
fn a_refused_beat_does_not_put_off_a_deadline() {
    let server = Server::start(["--stall-after", "1s"]);
    let mut datagrams = Datagrams::to(server.socket());
    datagrams.send(&ok(5));
    let mut refused: Vec<Vec<u8>> = vec![ok(5).to_vec(), ok(4).to_vec(), damaged().to_vec(), Vec::new()];
    refused.push(Frame::new(Status::Ok, process::id() + 1, SECOND, 6, 0).to_bytes().to_vec());
    // Sent all the time, until the verdict is there.
    wait_until("the sender of nothing but refused beats is stalled", || {
        refused.iter().for_each(|payload| datagrams.send(payload));
        server.log().transitions().iter().any(|change| change.to == "stalled")
    });
    server.expect(agent(process::id()).stalled().after_silence(Duration::from_secs(1)));
    let scrape = server.await_datagrams(datagrams.sent());
    assert_eq!(scrape.datagrams(), datagrams.sent());
    assert_eq!(scrape.outcome("accepted"), 1.0);
}

#[test]
fn beats_beyond_the_rate_of_one_agent_are_refused_and_news_never_is() {
    let server = Server::start(["--stall-after", "1h", "--max-beat-rate", "10"]);
    let mut datagrams = Datagrams::to(server.socket());
    let mut nonce = 0;
    let mut send = |datagrams: &mut Datagrams, status| {
        nonce += 1;
        datagrams.send(&frame(status, nonce).to_bytes());
    };
    for _ in 0..200 {
        send(&mut datagrams, Status::Ok);
    }
    let ordinary = server.await_datagrams(datagrams.sent());
    let (accepted, limited) = (ordinary.outcome("accepted"), ordinary.outcome("rate_limited_per_pid"));
    assert!(accepted >= 10.0 && limited >= 1.0, "{accepted} accepted, {limited} limited");
    assert_eq!(accepted + limited, 200.0);
    assert_eq!(ordinary.value("varta_rate_limited_total", &[("reason", "per_pid")]), limited);
    assert_eq!(ordinary.of_agent("varta_beats_total", process::id()), accepted);
    assert_eq!(ordinary.of_agent("varta_agent_beats_lost_total", process::id()), 0.0, "they did arrive");

    for _ in 0..20 {
        send(&mut datagrams, Status::Degraded);
        send(&mut datagrams, Status::Critical);
    }
    for _ in 0..10 {
        datagrams.send(&frame(Status::Critical, NONCE_TERMINAL).to_bytes());
    }
    let news = server.await_datagrams(datagrams.sent());
    assert_eq!(news.outcome("accepted"), accepted + 50.0);
    assert_eq!(news.outcome("rate_limited_per_pid"), limited);
    let reported = [("to", "up"), ("cause", "reported")];
    assert_eq!(news.value("varta_transitions_total", &reported), 40.0);
    assert_eq!(news.datagrams(), datagrams.sent());
}

#[test]
fn beats_beyond_the_rate_of_all_agents_are_refused_and_news_never_is() {
    let server = Server::start(["--stall-after", "1h", "--max-total-rate", "10"]);
    let mut datagrams = Datagrams::to(server.socket());
    (1..=200).for_each(|nonce| datagrams.send(&ok(nonce)));
    let ordinary = server.await_datagrams(datagrams.sent());
    let (accepted, limited) = (ordinary.outcome("accepted"), ordinary.outcome("rate_limited_global"));
    assert!(accepted >= 10.0 && limited >= 1.0, "{accepted} accepted, {limited} limited");
    assert_eq!(accepted + limited, 200.0);
    assert_eq!(ordinary.value("varta_rate_limited_total", &[("reason", "global")]), limited);

    datagrams.send(&frame(Status::Degraded, 201).to_bytes());
    datagrams.send(&frame(Status::Critical, NONCE_TERMINAL).to_bytes());
    let news = server.await_datagrams(datagrams.sent());
    assert_eq!(news.outcome("accepted"), accepted + 2.0);
    assert_eq!(news.datagrams(), datagrams.sent());
}

#[test]
fn an_agent_for_which_there_is_no_room_is_refused_and_the_others_are_left_alone() {
    let server = Server::start(["--stall-after", "1s", "--max-agents", "2"]);
    let known = [(); 2].map(|()| server.start_agent(&[]));
    let pids = known.each_ref().map(AgentProcess::pid);
    let third = AgentProcess::start(server.socket(), &[]);
    server.await_scrape("the third is refused", |scrape| scrape.outcome("capacity") >= 3.0);
    let scrape = server.await_beats_and_seconds(&pids, 5, 1.5);
    assert_eq!(scrape.value("varta_tracker_capacity_exceeded_total", &[]), scrape.outcome("capacity"));
    assert_eq!(scrape.value("varta_tracker_capacity", &[]), 2.0);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 2.0);
    assert_eq!(scrape.get("varta_beats_total", &[("pid", &third.pid().to_string())]), None);
    assert_eq!(scrape.outcome("accepted") + scrape.outcome("capacity"), scrape.datagrams());
    let transitions = server.transitions();
    assert!(transitions.len() == 2 && transitions.iter().all(|change| change.cause == "first_beat"));

    // A silent agent keeps its place: it may come back.
    known[0].signal(Signal::Stop);
    server.expect(agent(pids[0]).stalled().seen_as("stopped").within(Duration::from_secs(1)));
    let refused = server.scrape().outcome("capacity");
    server
        .await_scrape("the third is refused as before", |scrape| scrape.outcome("capacity") >= refused + 3.0);
    known[0].signal(Signal::Continue);
    server.expect(agent(pids[0]).up().because("recovered"));

    // A dead one makes room: it does not come back.
    known[1].signal(Signal::Kill);
    server.expect(agent(pids[1]).down().because("killed"));
    server.expect(agent(&third).up().because("first_beat"));
    let refused = server.scrape().outcome("capacity");
    let scrape = server.await_beats_and_seconds(&[pids[0], third.pid()], 5, 1.5);
    assert_eq!(scrape.outcome("capacity"), refused);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 2.0);
    assert_eq!(scrape.get("varta_beats_total", &[("pid", &pids[1].to_string())]), None);
    let changes: Vec<_> = server.transitions().into_iter().map(|change| (change.pid, change.to)).collect();
    let expected = [(pids[0], "stalled"), (pids[0], "up"), (pids[1], "down"), (third.pid(), "up")];
    assert_eq!(changes[2..], expected.map(|(pid, to)| (pid, to.to_owned())));
}

#[test]
fn the_books_balance_whatever_comes() {
    let server = patient_server();
    let mut datagrams = Datagrams::to(server.socket());
    let (passed, _other) = UnixStream::pair().unwrap();
    for round in 1..=50 {
        datagrams.send(&ok(round));
        datagrams.send(&ok(round));
        datagrams.send(&damaged());
        datagrams.send(&patched(3, [u8::try_from(round).unwrap()]));
        datagrams.send(&vec![b'V'; usize::try_from(round).unwrap() * 7]);
        datagrams.send(&Frame::new(Status::Ok, process::id() + 1, 1, 1, 0).to_bytes());
        datagrams.send_with_descriptors(&ok(round), &[passed.as_fd()]);
    }
    let scrape = server.await_datagrams(datagrams.sent());
    // Nothing more comes after all are accounted for: counted twice would be too many.
    let later = server.await_scrape("half a second later", |later| {
        let uptime = |scrape: &Scrape| scrape.value("varta_watch_uptime_seconds", &[]);
        uptime(later) >= uptime(&scrape) + Duration::from_millis(500).as_secs_f64()
    });
    assert_eq!(later.datagrams(), datagrams.sent());
    assert_eq!(later.outcome("ancillary"), 50.0);
    assert_eq!(later.outcome("pid_mismatch"), 50.0);
    assert_eq!(later.of_agent("varta_beats_total", process::id()), later.outcome("accepted"));
}
