//! Which beats go through the page. The agent's own mapping serves as the server's end.

use std::os::unix::net::UnixDatagram;

use varta_proto::control::{Control, Goodbye, GoodbyeReason};
use varta_proto::page::{BeatPage, Glance, LONGEST_PROMISE};
use varta_proto::{Frame, NONCE_TERMINAL};

use super::*;

/// A server's socket, which accepts pages when a test says so.
struct Server {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
    nonce: u64,
}

impl Server {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = Self::bind(dir.path());
        Self { dir, socket, nonce: 0 }
    }

    fn bind(dir: &Path) -> UnixDatagram {
        let socket = UnixDatagram::bind(dir.join("varta.sock")).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn restart(&mut self) {
        std::fs::remove_file(self.dir.path().join("varta.sock")).unwrap();
        self.socket = Self::bind(self.dir.path());
    }

    fn connect(&self) -> ShmTransport {
        ShmTransport::connect(self.dir.path().join("varta.sock")).unwrap()
    }

    /// Sends the next beat.
    fn beat(&mut self, transport: &mut ShmTransport, status: Status) -> io::Result<usize> {
        self.nonce += 1;
        transport.send(&Frame::new(status, std::process::id(), self.nonce, self.nonce, 0).to_bytes())
    }

    /// Receives the datagrams so far: nonces of beats, and 0 for an Attach.
    fn datagrams(&self) -> Vec<u64> {
        let mut datagram = [0; 600];
        let mut nonces = Vec::new();
        while let Ok(length) = self.socket.recv(&mut datagram) {
            nonces.push(match Frame::decode(&datagram[..length]) {
                Ok(frame) => frame.nonce,
                Err(_) => {
                    let control = Control::decode(&datagram[..length]).unwrap();
                    if control.kind() == ControlKind::Attach { 0 } else { NONCE_TERMINAL }
                }
            });
        }
        nonces
    }
}

fn page(transport: &ShmTransport) -> &BeatPage {
    transport.page.as_ref().unwrap().get().unwrap()
}

fn promise(transport: &ShmTransport) {
    page(transport).promise(sys::monotonic_nanos() + LONGEST_PROMISE / 2);
}

/// The nonce in the page; 0 if there is no frame.
fn in_page(transport: &ShmTransport) -> u64 {
    match page(transport).glance(u64::MAX, NOT_HELD) {
        Glance::Beat { frame, .. } => Frame::decode(&frame).unwrap().nonce,
        Glance::Empty { .. } => 0,
        other => panic!("{other:?}"),
    }
}

const NOT_HELD: u64 = u64::MAX;

#[test]
fn only_what_was_said_before_goes_through_the_page() {
    let mut server = Server::new();
    let mut transport = server.connect();
    for _ in 1..=3 {
        server.beat(&mut transport, Status::Ok).unwrap();
    }
    assert_eq!(
        server.datagrams(),
        [1, 0, 2, 3],
        "the page is handed over behind the first beat, and not taken"
    );
    promise(&transport);
    for nonce in 4..=6 {
        server.beat(&mut transport, Status::Ok).unwrap();
        assert_eq!(in_page(&transport), nonce);
    }
    assert_eq!(server.datagrams(), []);
    server.beat(&mut transport, Status::Degraded).unwrap();
    assert_eq!((in_page(&transport), server.datagrams()), (0, vec![7]), "it is emptied for a datagram");
    server.beat(&mut transport, Status::Degraded).unwrap();
    assert_eq!((in_page(&transport), server.datagrams()), (8, vec![]));
    for nonce in 9..=10 {
        server.beat(&mut transport, Status::Critical).unwrap();
        assert_eq!((in_page(&transport), server.datagrams()), (0, vec![nonce]));
    }
}

#[test]
fn a_server_that_does_not_look_any_more_gets_datagrams() {
    let mut server = Server::new();
    let mut transport = server.connect();
    server.beat(&mut transport, Status::Ok).unwrap();
    promise(&transport);
    server.beat(&mut transport, Status::Ok).unwrap();
    server.datagrams();
    for over in [0, sys::monotonic_nanos() - 1, u64::MAX] {
        page(&transport).promise(over);
        server.beat(&mut transport, Status::Ok).unwrap();
        assert_eq!(server.datagrams(), [server.nonce], "and no other page within a minute");
    }
}

#[test]
fn another_page_follows_after_a_while_if_no_server_reads_this_one() {
    let mut server = Server::new();
    let mut transport = server.connect();
    server.beat(&mut transport, Status::Ok).unwrap();
    assert!(transport.attach_due > sys::monotonic_nanos());
    transport.attach_due = 0;
    server.beat(&mut transport, Status::Ok).unwrap();
    assert_eq!(server.datagrams(), [1, 0, 2, 0]);
    promise(&transport);
    assert!(transport.is_read());
    transport.attach_due = 0;
    server.beat(&mut transport, Status::Degraded).unwrap();
    assert_eq!(server.datagrams(), [3], "somebody looks");
}

#[test]
fn a_server_that_was_held_up_keeps_the_page_that_it_has() {
    let mut server = Server::new();
    let mut transport = server.connect();
    server.beat(&mut transport, Status::Ok).unwrap();
    server.datagrams();
    let now = sys::monotonic_nanos();
    for (lapsed_before, datagrams) in [(1_000_000_000, vec![2]), (61_000_000_000, vec![3, 0])] {
        transport.attach_due = 0;
        page(&transport).promise(now.wrapping_sub(lapsed_before));
        server.beat(&mut transport, Status::Ok).unwrap();
        assert_eq!(server.datagrams(), datagrams);
    }
}

#[test]
fn a_beat_that_no_datagram_carries_leaves_the_one_in_the_page_there() {
    let mut server = Server::new();
    let mut transport = server.connect();
    server.beat(&mut transport, Status::Ok).unwrap();
    promise(&transport);
    server.beat(&mut transport, Status::Ok).unwrap();
    while server.socket.send_to(&[0; 32], server.dir.path().join("varta.sock")).is_ok() {}
    assert!(server.beat(&mut transport, Status::Degraded).is_err());
    assert_eq!(in_page(&transport), 2);
    assert!(server.beat(&mut transport, Status::Ok).is_err(), "nobody has heard the last, so this is news");
}

#[test]
fn a_page_that_finds_a_full_queue_is_handed_over_a_little_later() {
    let server = Server::new();
    let mut transport = server.connect();
    let frame = Frame::new(Status::Ok, std::process::id(), 1, 1, 0).to_bytes();
    while server.socket.send_to(&[0; 32], server.dir.path().join("varta.sock")).is_ok() {}
    transport.attach(&frame, 0);
    assert!(transport.page.is_none());
    assert_eq!(transport.attach_due, nanoseconds(RETRY_ATTACH_AFTER));
}

#[test]
fn a_reconnect_hands_over_another_page() {
    let mut server = Server::new();
    let mut transport = server.connect();
    server.beat(&mut transport, Status::Ok).unwrap();
    promise(&transport);
    server.restart();
    transport.reconnect().unwrap();
    assert!(transport.page.is_none());
    server.beat(&mut transport, Status::Ok).unwrap();
    assert_eq!(server.datagrams(), [2, 0]);
    std::fs::remove_file(server.dir.path().join("varta.sock")).unwrap();
    promise(&transport);
    assert!(transport.reconnect().is_err());
    assert!(transport.is_read(), "one that fails changes nothing");
}

#[test]
fn a_goodbye_comes_behind_every_beat() {
    let mut server = Server::new();
    let mut transport = server.connect();
    server.beat(&mut transport, Status::Ok).unwrap();
    promise(&transport);
    server.beat(&mut transport, Status::Ok).unwrap();
    server.datagrams();
    let mut buffer = [0; MAX_CONTROL_LEN];
    let goodbye =
        Goodbye::new(std::process::id(), 2, 2, [7; 16], GoodbyeReason::Shutdown).encode(&mut buffer);
    transport.send_control(goodbye).unwrap();
    assert_eq!((in_page(&transport), server.datagrams()), (0, vec![NONCE_TERMINAL]));
    server.beat(&mut transport, Status::Ok).unwrap();
    assert_eq!(server.datagrams(), [3], "who comes back says so");
}

#[test]
fn what_is_in_the_page_is_held_until_the_datagram_before_it_was_taken() {
    let mut server = Server::new();
    let mut transport = server.connect();
    server.beat(&mut transport, Status::Ok).unwrap();
    promise(&transport);
    let before = sys::monotonic_nanos();
    server.beat(&mut transport, Status::Degraded).unwrap();
    server.beat(&mut transport, Status::Degraded).unwrap();
    assert_eq!(page(&transport).glance(0, before), Glance::Held);
    let settled = sys::monotonic_nanos() + 1;
    assert!(matches!(page(&transport).glance(0, settled), Glance::Beat { .. }));
}
