//! Sealed beats: what a server opens, and that no nonce repeats.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use common::UdpServer;
use varta_agent::{BeatOutcome, BeatTransport, DropReason, Frame, Key, SecureUdpTransport, Status, Varta};
use varta_proto::secure::{OpenError, Opened, open_agent, open_master, open_shared};

const NOBODY: BeatOutcome = BeatOutcome::Dropped(DropReason::NoObserver);

type Agent = Varta<SecureUdpTransport>;

fn key() -> Key {
    Key::from_bytes([0x8f; 32])
}

fn shared(addr: SocketAddr) -> Agent {
    Varta::connect_secure_udp(addr, key()).unwrap()
}

fn master(addr: SocketAddr) -> Agent {
    Varta::connect_secure_udp_with_master(addr, key()).unwrap()
}

fn beat(agent: &mut Agent) -> BeatOutcome {
    agent.beat(Status::Ok, 0)
}

fn opened(server: &UdpServer) -> Vec<Opened> {
    let datagrams = server.arrived();
    let beats = datagrams.iter().filter(|datagram| datagram.len() == 60);
    beats.map(|datagram| open_shared(&key(), datagram).unwrap()).collect()
}

fn counters(opened: &[Opened]) -> Vec<u32> {
    opened.iter().map(|opened| opened.iv_counter).collect()
}

/// Checks that no nonce repeats, and returns the prefixes in the order of their appearance.
fn prefixes(opened: &[Opened]) -> Vec<[u8; 8]> {
    let mut nonces = HashSet::new();
    let mut prefixes = Vec::new();
    for Opened { iv_random, iv_counter, .. } in opened {
        assert!(nonces.insert((iv_random, iv_counter)), "a nonce came twice");
        if prefixes.last() != Some(iv_random) {
            assert!(!prefixes.contains(iv_random), "a prefix that was left came again");
            prefixes.push(*iv_random);
        }
    }
    prefixes
}

#[allow(clippy::print_stdout, reason = "a test that was not run says so")]
fn a_beat_arrives_at(ip: impl Into<IpAddr>) {
    let ip = ip.into();
    let server = match UdpServer::on(ip) {
        Ok(server) => server,
        Err(error) => {
            println!("no address {ip} here ({error}), not tested");
            return;
        }
    };
    for (mut agent, length) in [(shared(server.addr()), 60), (master(server.addr()), 64)] {
        assert_eq!(agent.beat(Status::Degraded, 0xdead_beef), BeatOutcome::Sent);
        let datagram = server.datagram();
        assert_eq!(datagram.len(), length);
        let opened = match length {
            60 => open_shared(&key(), &datagram).unwrap(),
            _ => open_master(&key(), &datagram).unwrap(),
        };
        let frame = opened.frame;
        assert_eq!((frame.status, frame.pid), (Status::Degraded, std::process::id()));
        assert_eq!((frame.nonce, frame.payload, opened.iv_counter), (1, 0xdead_beef, 1));
    }
}

#[test]
fn a_beat_opens_over_ipv4_as_it_was_made() {
    a_beat_arrives_at(Ipv4Addr::LOCALHOST);
}

#[test]
fn a_beat_opens_over_ipv6_as_it_was_made() {
    a_beat_arrives_at(Ipv6Addr::LOCALHOST);
}

#[test]
fn another_key_opens_nothing() {
    let server = UdpServer::listening();
    assert!(beat(&mut shared(server.addr())).is_sent());
    assert!(beat(&mut master(server.addr())).is_sent());
    let other = Key::from_bytes([0x8e; 32]);
    assert_eq!(open_shared(&other, &server.datagram()), Err(OpenError::AuthFailed));
    assert_eq!(open_master(&other, &server.datagram()), Err(OpenError::AuthFailed));
}

#[test]
fn in_master_mode_the_key_is_that_of_the_pid_in_the_frame() {
    let server = UdpServer::listening();
    let mut transport = SecureUdpTransport::connect_with_master(server.addr(), key()).unwrap();
    for pid in [4242, 4243, 4243, 4242] {
        let frame = Frame::new(Status::Ok, pid, 0, 1, 0);
        assert_eq!(transport.send(&frame.to_bytes()).unwrap(), 32);
        assert_eq!(open_agent(&key().agent_key(pid), &server.datagram()).unwrap().frame, frame);
    }
}

#[test]
fn counters_go_up_by_one_under_one_prefix() {
    let server = UdpServer::listening();
    let mut agent = shared(server.addr());
    for _ in 0..50 {
        assert!(beat(&mut agent).is_sent());
    }
    let opened = opened(&server);
    assert_eq!(prefixes(&opened).len(), 1);
    assert_eq!(counters(&opened), (1..=50).collect::<Vec<_>>());
}

#[test]
fn each_reconnect_and_each_handle_has_a_prefix_of_its_own() {
    let server = UdpServer::listening();
    for _ in 0..2 {
        let mut agent = shared(server.addr());
        for _ in 0..3 {
            assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
            agent.reconnect().unwrap();
        }
    }
    let opened = opened(&server);
    assert_eq!(prefixes(&opened).len(), 6);
    assert_eq!(counters(&opened), [1, 2].repeat(6));
    let nonces: Vec<u64> = opened.iter().map(|opened| opened.frame.nonce).collect();
    assert_eq!(nonces, [1, 2, 3, 4, 5, 6].repeat(2), "the frames know nothing of it");
}

#[test]
fn a_send_that_fails_has_spent_its_counter() {
    let server = UdpServer::absent();
    let addr = server.addr();
    let mut agent = shared(addr);
    let started = Instant::now();
    let mut beats = 1;
    while beat(&mut agent) != NOBODY {
        assert!(started.elapsed() < Duration::from_secs(20), "never refused");
        thread::yield_now();
        beats += 1;
    }
    drop(server);
    let server = std::net::UdpSocket::bind(addr).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(beat(&mut agent).is_sent());
    let mut datagram = [0; 60];
    server.recv(&mut datagram).unwrap();
    let opened = open_shared(&key(), &datagram).unwrap();
    assert_eq!((opened.iv_counter, opened.frame.nonce), (beats + 1, u64::from(beats) + 1));
}

#[test]
fn a_handle_that_reconnects_sends_the_refused_beat_again() {
    let server = UdpServer::absent();
    let transport = SecureUdpTransport::connect(server.addr(), key()).unwrap();
    let mut agent = Varta::builder().transport(transport).connect().unwrap();
    for _ in 0..20 {
        assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    }
}

#[cfg(feature = "test-hooks")]
#[test]
fn the_prefix_changes_before_the_counter_wraps() {
    let server = UdpServer::listening();
    let mut transport = SecureUdpTransport::connect(server.addr(), key()).unwrap();
    transport.skip_for_test(0, u32::MAX - 2).unwrap();
    let mut agent = Varta::builder().transport(transport).connect().unwrap();
    for _ in 0..4 {
        assert!(beat(&mut agent).is_sent());
    }
    let opened = opened(&server);
    assert_eq!(prefixes(&opened).len(), 2);
    assert_eq!(counters(&opened), [u32::MAX - 1, u32::MAX, 1, 2]);
}

#[cfg(feature = "test-hooks")]
#[test]
fn a_session_that_is_used_up_is_followed_by_a_new_one() {
    let server = UdpServer::listening();
    let mut transport = SecureUdpTransport::connect(server.addr(), key()).unwrap();
    transport.skip_for_test(u32::MAX, u32::MAX - 1).unwrap();
    let mut agent = Varta::builder().transport(transport).connect().unwrap();
    for _ in 0..3 {
        assert!(beat(&mut agent).is_sent());
    }
    let opened = opened(&server);
    assert_eq!(prefixes(&opened).len(), 2);
    assert_eq!(counters(&opened), [u32::MAX, 1, 2]);
}

#[test]
fn a_handle_shows_nothing_of_its_keys() {
    let server = UdpServer::listening();
    for (mut agent, mode) in [(shared(server.addr()), "shared key"), (master(server.addr()), "master key")] {
        assert!(beat(&mut agent).is_sent());
        let shown = format!("{agent:?}");
        assert!(shown.contains(mode) && shown.contains(&server.addr().to_string()), "{shown}");
        // 0x8f twice, in either base: a port may have the digits of one.
        assert!(!shown.contains("143, 143") && !shown.to_lowercase().contains("8f8f"), "{shown}");
    }
}

#[test]
fn port_0_is_refused_and_the_address_named() {
    let addr = ([127, 0, 0, 1], 0).into();
    for result in [Varta::connect_secure_udp(addr, key()), Varta::connect_secure_udp_with_master(addr, key())]
    {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("127.0.0.1:0"), "{error}");
    }
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_heartbeat_is_sealed_too() {
    let server = UdpServer::listening();
    let heartbeat = shared(server.addr()).spawn_heartbeat(Duration::from_millis(1)).unwrap();
    common::await_beats(&heartbeat, 2).await;
    heartbeat.stop().await;
    assert_eq!(counters(&opened(&server))[..2], [1, 2]);
}
