//! Beats by UDP: to a running server, a missing one, and one that starts later.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use common::UdpServer;
use varta_agent::{BeatOutcome, BeatTransport, DropReason, Frame, Status, UdpTransport, Varta};

const NOBODY: BeatOutcome = BeatOutcome::Dropped(DropReason::NoObserver);

fn beat(agent: &mut Varta<UdpTransport>) -> BeatOutcome {
    agent.beat(Status::Ok, 0)
}

/// Sends beats until the kernel knows that no process listens.
fn beat_until_refused(agent: &mut Varta<UdpTransport>) -> BeatOutcome {
    let started = Instant::now();
    loop {
        match beat(agent) {
            BeatOutcome::Sent if started.elapsed() < Duration::from_secs(20) => thread::yield_now(),
            outcome => return outcome,
        }
    }
}

fn nonces(server: &UdpServer) -> Vec<u64> {
    let datagrams = server.arrived();
    let frames = datagrams.iter().filter(|datagram| datagram.len() == 32);
    frames.map(|datagram| Frame::decode(datagram).unwrap().nonce).collect()
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
    let mut agent = Varta::connect_udp(server.addr()).unwrap();
    assert_eq!(agent.beat(Status::Degraded, 0xdead_beef), BeatOutcome::Sent);
    let frame = Frame::decode(&server.datagram()).unwrap();
    assert_eq!((frame.status, frame.pid), (Status::Degraded, std::process::id()));
    assert_eq!((frame.nonce, frame.payload), (1, 0xdead_beef));
}

#[test]
fn a_beat_arrives_over_ipv4_as_it_was_made() {
    a_beat_arrives_at(Ipv4Addr::LOCALHOST);
}

#[test]
fn a_beat_arrives_over_ipv6_as_it_was_made() {
    a_beat_arrives_at(Ipv6Addr::LOCALHOST);
}

#[test]
fn a_missing_server_shows_at_a_later_beat() {
    let server = UdpServer::absent();
    let mut agent = Varta::connect_udp(server.addr()).unwrap();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!(beat_until_refused(&mut agent), NOBODY);
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
}

#[test]
fn a_handle_that_reconnects_sends_the_refused_beat_again() {
    let server = UdpServer::absent();
    let mut agent =
        Varta::builder().transport(UdpTransport::connect(server.addr()).unwrap()).connect().unwrap();
    for _ in 0..20 {
        assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    }
}

#[test]
fn reconnect_takes_another_socket_and_goes_on() {
    let server = UdpServer::listening();
    let mut agent = Varta::connect_udp(server.addr()).unwrap();
    assert!(beat(&mut agent).is_sent());
    agent.reconnect().unwrap();
    assert!(beat(&mut agent).is_sent());
    assert_eq!(nonces(&server), [1, 2]);
}

#[test]
fn a_server_that_comes_later_gets_the_next_beat() {
    let server = UdpServer::absent();
    let addr = server.addr();
    let mut agent = Varta::connect_udp(addr).unwrap();
    assert_eq!(beat_until_refused(&mut agent), NOBODY);
    drop(server);
    let server = std::net::UdpSocket::bind(addr).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!(server.recv(&mut [0; 100]).unwrap(), 32);
}

#[test]
fn port_0_is_refused_and_the_address_named() {
    let error = Varta::connect_udp(([127, 0, 0, 1], 0).into()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("127.0.0.1:0"), "{error}");
}

#[test]
fn the_transport_takes_all_of_a_frame() {
    let server = UdpServer::listening();
    let mut transport = UdpTransport::connect(server.addr()).unwrap();
    assert_eq!(transport.send(&[7; 32]).unwrap(), 32);
    assert_eq!(server.datagram(), [7; 32]);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_heartbeat_goes_by_udp_too() {
    let server = UdpServer::listening();
    let transport = UdpTransport::connect(server.addr()).unwrap();
    let agent = Varta::builder().transport(transport).connect().unwrap();
    let heartbeat = agent.spawn_heartbeat(Duration::from_millis(1)).unwrap();
    common::await_beats(&heartbeat, 2).await;
    heartbeat.stop().await;
    assert_eq!(nonces(&server)[..2], [1, 2]);
}

#[test]
fn a_handle_of_the_builder_needs_no_route_and_one_of_connect_does() {
    // The kernel refuses to connect to the broadcast address as it does where there is no route.
    let nowhere = SocketAddr::from(([255, 255, 255, 255], 9));
    assert!(Varta::connect_udp(nowhere).is_err());
    let mut agent = Varta::builder().name("sensor").udp(nowhere).connect().unwrap();
    for _ in 0..2 {
        assert!(agent.beat(Status::Ok, 0).is_failed());
    }
}
