//! The control datagrams of a handle, as they arrive through each of the transports.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::time::Duration;

use common::{HandleKind, Server};
use varta_agent::{
    BeatOutcome, BeatTransport, Builder, Control, ControlKind, DropReason, Frame, GoodbyeReason, Status,
    Varta,
};

const FULL: BeatOutcome = BeatOutcome::Dropped(DropReason::KernelQueueFull);

fn worker() -> Builder {
    Varta::builder().name("worker").interval(Duration::from_millis(250)).label("zone", "a")
}

fn beat<T: BeatTransport>(agent: &mut Varta<T>) -> BeatOutcome {
    agent.beat(Status::Ok, 0)
}

/// Checks that it is a Hello of [`worker`], and returns its nonce.
fn hello(datagram: &[u8]) -> u64 {
    let hello = Control::decode(datagram).unwrap();
    assert_eq!((hello.kind(), hello.pid()), (ControlKind::Hello, std::process::id()));
    assert_eq!(hello.name().map(|name| name.as_str()), Some("worker"));
    assert_eq!((hello.interval_ms(), hello.stall_after_ms()), (Some(250), None));
    assert_eq!(hello.labels().map(|label| label.to_string()).collect::<Vec<_>>(), ["zone=a"]);
    hello.nonce()
}

fn nonce(datagram: &[u8]) -> u64 {
    Frame::decode(datagram).unwrap().nonce
}

for_each_kind! {
    a_named_handle_says_hello_and_then_beats,
    a_lazy_handle_says_nothing_until_its_first_beat_and_then_its_name_first,
    a_handle_without_a_name_sends_only_frames,
    a_server_that_was_restarted_hears_the_name_before_the_beat_that_found_it,
    a_full_queue_has_the_hello_wait_and_takes_the_beat_first,
    a_goodbye_arrives_behind_the_beats_and_dropping_a_handle_sends_nothing,
    a_goodbye_to_a_server_that_was_restarted_arrives,
    a_busy_handle_says_so_and_its_beats_are_as_ever,
}

fn a_named_handle_says_hello_and_then_beats<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::build(worker().socket(server.path()).eager()).unwrap();
    assert_eq!(hello(&server.datagrams()[0]), 0, "an eager handle says it at once");
    drop(agent);
    agent = W::build(worker().socket(server.path())).unwrap();
    assert_eq!((beat(&mut agent), beat(&mut agent)), (BeatOutcome::Sent, BeatOutcome::Sent));
    let datagrams = server.datagrams();
    let [control, one, two] = &datagrams[..] else { panic!("{datagrams:?}") };
    assert_eq!((hello(control), nonce(one), nonce(two)), (0, 1, 2));
}

fn a_lazy_handle_says_nothing_until_its_first_beat_and_then_its_name_first<W: HandleKind>() {
    for absent in [false, true] {
        let mut server = if absent { Server::absent() } else { Server::listening() };
        let mut agent = W::build(worker().socket(server.path())).unwrap();
        if absent {
            assert!(beat(&mut agent).is_dropped() && beat(&mut agent).is_dropped());
            server.start();
        }
        assert!(server.datagrams().is_empty());
        assert!(beat(&mut agent).is_sent());
        let datagrams = server.datagrams();
        let [control, one] = &datagrams[..] else { panic!("{datagrams:?}") };
        let before = if absent { 2 } else { 0 };
        assert_eq!((hello(control), nonce(one)), (before, before + 1));
    }
}

fn a_handle_without_a_name_sends_only_frames<W: HandleKind>() {
    let server = Server::listening();
    let builder = || Varta::builder().socket(server.path());
    let agents = [W::connect(server.path()), W::build(builder()), W::build(builder().eager())];
    for agent in agents {
        let mut agent = agent.unwrap();
        assert!(beat(&mut agent).is_sent());
        agent.reconnect().unwrap();
        assert!(beat(&mut agent).is_sent());
        drop(agent);
        let datagrams = server.datagrams();
        assert!(datagrams.iter().all(|datagram| datagram.len() == 32));
        assert_eq!(datagrams.iter().map(|datagram| nonce(datagram)).collect::<Vec<_>>(), [1, 2]);
    }
}

fn a_server_that_was_restarted_hears_the_name_before_the_beat_that_found_it<W: HandleKind>() {
    let mut server = Server::listening();
    let mut agent = W::build(worker().socket(server.path())).unwrap();
    assert!(beat(&mut agent).is_sent());
    for beats in 2..5 {
        server.kill();
        server.start();
        assert!(beat(&mut agent).is_sent());
        let datagrams = server.datagrams();
        let [control, one] = &datagrams[..] else { panic!("{datagrams:?}") };
        assert_eq!((hello(control), nonce(one)), (beats - 1, beats));
    }
}

fn a_full_queue_has_the_hello_wait_and_takes_the_beat_first<W: HandleKind>() {
    let server = Server::listening();
    common::fill(&server.path());
    let mut agent = W::build(worker().socket(server.path()).reconnect_after(0).eager()).unwrap();
    assert_eq!(beat(&mut agent), FULL);
    assert!(server.datagrams().iter().all(|datagram| datagram.len() == 32 && *datagram == [0; 32]));

    // One place is left, which the beat takes.
    common::fill(&server.path());
    server.take();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!(beat(&mut agent), FULL);
    let datagrams = server.datagrams();
    assert_eq!(nonce(datagrams.last().unwrap()), 2);

    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    let datagrams = server.datagrams();
    let [one, control] = &datagrams[..] else { panic!("{datagrams:?}") };
    assert_eq!((nonce(one), hello(control)), (4, 4));
    assert_eq!(Control::decode(control).unwrap().unsent(), Some(2));
}

fn a_goodbye_arrives_behind_the_beats_and_dropping_a_handle_sends_nothing<W: HandleKind>() {
    let server = Server::listening();
    for reason in [GoodbyeReason::Shutdown, GoodbyeReason::Restart, GoodbyeReason::Replaced] {
        let mut agent = W::connect(server.path()).unwrap();
        assert!(beat(&mut agent).is_sent());
        assert!(agent.close(reason).is_sent());
        let datagrams = server.datagrams();
        let [_, last] = &datagrams[..] else { panic!("{datagrams:?}") };
        let goodbye = Control::decode(last).unwrap();
        assert_eq!((goodbye.reason(), goodbye.nonce()), (Some(reason), 1));
    }
    let mut agent = W::build(worker().socket(server.path())).unwrap();
    assert!(beat(&mut agent).is_sent());
    drop(agent);
    assert_eq!(server.datagrams().len(), 2, "Hello and beat");
}

fn a_goodbye_to_a_server_that_was_restarted_arrives<W: HandleKind>() {
    let mut server = Server::listening();
    let mut agent = W::build(Varta::builder().socket(server.path())).unwrap();
    assert!(beat(&mut agent).is_sent());
    server.kill();
    server.start();
    assert!(agent.close(GoodbyeReason::Shutdown).is_sent());
    assert_eq!(Control::decode(&server.datagrams()[0]).unwrap().nonce(), 1);
}

fn a_busy_handle_says_so_and_its_beats_are_as_ever<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    assert!(agent.busy_for(Duration::from_secs(90)).is_sent());
    assert!(beat(&mut agent).is_sent());
    let datagrams = server.datagrams();
    let [busy, one] = &datagrams[..] else { panic!("{datagrams:?}") };
    assert_eq!(Control::decode(busy).unwrap().busy_for_ms(), Some(90_000));
    assert_eq!((Control::decode(busy).unwrap().name(), nonce(one)), (None, 1));
}

#[cfg(feature = "udp")]
mod udp {
    use super::*;
    use common::UdpServer;

    #[test]
    fn by_udp_a_named_handle_says_hello_and_then_beats() {
        let server = UdpServer::listening();
        let mut agent = worker().udp(server.addr()).connect().unwrap();
        assert!(beat(&mut agent).is_sent());
        agent.reconnect().unwrap();
        assert!(beat(&mut agent).is_sent());
        let datagrams = server.arrived();
        let [control, one, again, two] = &datagrams[..] else { panic!("{datagrams:?}") };
        assert_eq!((hello(control), nonce(one), hello(again), nonce(two)), (0, 1, 1, 2));
    }

    #[test]
    fn by_udp_a_handle_without_a_name_sends_only_frames() {
        let server = UdpServer::listening();
        for agent in [Varta::connect_udp(server.addr()), Varta::builder().udp(server.addr()).connect()] {
            let mut agent = agent.unwrap();
            assert!(beat(&mut agent).is_sent());
            drop(agent);
            let datagrams = server.arrived();
            assert_eq!(datagrams.iter().map(|datagram| nonce(datagram)).collect::<Vec<_>>(), [1]);
        }
    }

    #[test]
    fn by_udp_a_goodbye_arrives() {
        let server = UdpServer::listening();
        let mut agent = Varta::connect_udp(server.addr()).unwrap();
        assert!(beat(&mut agent).is_sent() && agent.close(GoodbyeReason::Shutdown).is_sent());
        let datagrams = server.arrived();
        let [_, last] = &datagrams[..] else { panic!("{datagrams:?}") };
        let goodbye = Control::decode(last).unwrap();
        assert_eq!((goodbye.reason(), goodbye.nonce()), (Some(GoodbyeReason::Shutdown), 1));
    }

    #[test]
    fn an_address_that_cannot_be_is_the_error_of_connect() {
        let error = Varta::builder().udp(([127, 0, 0, 1], 0).into()).connect().unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:0"), "{error}");
        let error = Varta::builder().name("").udp(([127, 0, 0, 1], 9).into()).connect().unwrap_err();
        assert!(error.to_string().contains("1 to 64 characters"), "{error}");
    }
}

#[cfg(feature = "secure-udp")]
mod secure {
    use super::*;
    use common::UdpServer;
    use varta_agent::{Key, SecureUdpTransport};
    use varta_proto::control::MAX_CONTROL_LEN;
    use varta_proto::secure::{Opened, open_control_master, open_control_shared, open_master, open_shared};

    fn key() -> Key {
        Key::from_bytes([0x8f; 32])
    }

    /// Handles of both modes, with the length of their beats.
    fn agents(server: &UdpServer, builder: fn() -> Builder) -> [(Varta<SecureUdpTransport>, usize); 2] {
        let shared = builder().secure_udp(server.addr(), key()).connect().unwrap();
        let master = builder().secure_udp_with_master(server.addr(), key()).connect().unwrap();
        [(shared, 60), (master, 64)]
    }

    fn open(datagram: &[u8]) -> Opened {
        match datagram.len() {
            60 => open_shared(&key(), datagram).unwrap(),
            _ => open_master(&key(), datagram).unwrap(),
        }
    }

    /// Opens a Hello, and returns its nonce in the session and the one of its seal.
    fn open_hello(datagram: &[u8], length_of_beat: usize) -> (u64, [u8; 8], u32) {
        let mut room = [0; MAX_CONTROL_LEN];
        let opened = match length_of_beat {
            60 => open_control_shared(&key(), datagram, &mut room).unwrap(),
            _ => open_control_master(&key(), datagram, &mut room).unwrap(),
        };
        (hello(&opened.control.encoded()), opened.iv_random, opened.iv_counter)
    }

    #[test]
    fn a_sealed_hello_opens_and_its_number_is_in_one_sequence_with_the_beats() {
        let server = UdpServer::listening();
        for ((mut agent, length), control) in agents(&server, worker).into_iter().zip(server.arrived()) {
            assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
            let beats = server.arrived();
            let (nonce, prefix, counter) = open_hello(&control, length);
            assert_eq!((nonce, counter), (0, 1));
            for (datagram, number) in beats.iter().zip(2..) {
                let opened = open(datagram);
                assert_eq!((opened.iv_random, opened.iv_counter), (prefix, number));
            }

            agent.reconnect().unwrap();
            assert!(beat(&mut agent).is_sent() && beat(&mut agent).is_sent());
            let datagrams = server.arrived();
            let [control, one, two] = &datagrams[..] else { panic!("{}", datagrams.len()) };
            let (nonce, fresh, counter) = open_hello(control, length);
            assert!(fresh != prefix && nonce == 2);
            assert_eq!((counter, open(one).iv_counter, open(two).iv_counter), (1, 2, 3));
            assert!(open(one).iv_random == fresh && open(two).iv_random == fresh);
        }
    }

    #[test]
    fn a_sealed_handle_without_a_name_sends_only_beats() {
        let server = UdpServer::listening();
        for (mut agent, length) in agents(&server, Varta::builder) {
            assert!(beat(&mut agent).is_sent());
            drop(agent);
            let datagrams = server.arrived();
            assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [length]);
            assert_eq!((open(&datagrams[0]).frame.nonce, open(&datagrams[0]).iv_counter), (1, 1));
        }
    }

    #[test]
    fn a_sealed_goodbye_opens() {
        let server = UdpServer::listening();
        for (mut agent, length) in agents(&server, Varta::builder) {
            assert!(beat(&mut agent).is_sent() && agent.close(GoodbyeReason::Restart).is_sent());
            let datagrams = server.arrived();
            let mut room = [0; MAX_CONTROL_LEN];
            let opened = match length {
                60 => open_control_shared(&key(), &datagrams[1], &mut room).unwrap(),
                _ => open_control_master(&key(), &datagrams[1], &mut room).unwrap(),
            };
            assert_eq!((opened.control.reason(), opened.iv_counter), (Some(GoodbyeReason::Restart), 2));
        }
    }

    #[test]
    fn a_builder_shows_nothing_of_its_key() {
        let shown = format!("{:?}", worker().secure_udp(([127, 0, 0, 1], 9).into(), key()));
        assert!(shown.contains("shared key") && shown.contains("127.0.0.1:9"), "{shown}");
        assert!(!shown.contains("143") && !shown.to_lowercase().contains("8f8f"), "{shown}");
    }
}
