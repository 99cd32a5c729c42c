//! Inherited handles that seal their beats.

use super::*;
use common::UdpServer;
use std::net::SocketAddr;
use varta_agent::{Key, SecureUdpTransport};
use varta_proto::control::MAX_CONTROL_LEN;
use varta_proto::secure::{Opened, open_agent, open_control_agent, open_shared};

fn key() -> Key {
    Key::from_bytes([0x8f; 32])
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    Shared,
    Master,
}

use Mode::{Master, Shared};

impl Mode {
    fn transport(self, addr: SocketAddr) -> SecureUdpTransport {
        match self {
            Shared => SecureUdpTransport::connect(addr, key()).unwrap(),
            Master => SecureUdpTransport::connect_with_master(addr, key()).unwrap(),
        }
    }

    fn connect(self, addr: SocketAddr) -> Varta<SecureUdpTransport> {
        match self {
            Shared => Varta::connect_secure_udp(addr, key()).unwrap(),
            Master => Varta::connect_secure_udp_with_master(addr, key()).unwrap(),
        }
    }

    /// Opens the datagrams received so far, each with the key of the process that is expected to have
    /// sent it.
    fn open(self, server: &UdpServer, senders: &[u32]) -> Vec<Opened> {
        let datagrams = server.arrived();
        assert_eq!(datagrams.len(), senders.len(), "{self:?}");
        let opened = datagrams.iter().zip(senders).map(|(datagram, sender)| {
            let opened = match self {
                Shared => open_shared(&key(), datagram),
                Master => open_agent(&key().agent_key(*sender), datagram),
            }
            .unwrap();
            assert_eq!(opened.frame.pid, *sender, "{self:?}");
            opened
        });
        opened.collect()
    }
}

fn counters(opened: &[Opened]) -> Vec<u32> {
    opened.iter().map(|opened| opened.iv_counter).collect()
}

/// Returns which datagrams have the prefix of the first.
fn as_the_first(opened: &[Opened]) -> Vec<bool> {
    opened.iter().map(|other| other.iv_random == opened[0].iv_random).collect()
}

pub(super) fn a_forked_child_seals_as_itself() {
    for mode in [Shared, Master] {
        let server = UdpServer::listening();
        let mut agent = mode.connect(server.addr());
        assert!(beat(&mut agent) && beat(&mut agent));
        let child = child(|| beat(&mut agent) && beat(&mut agent) && agent.fork_recoveries() == 1);
        assert!(beat(&mut agent));
        let parent = process::id();
        let opened = mode.open(&server, &[parent, parent, child, child, parent]);
        assert_eq!(as_the_first(&opened), [true, true, false, false, true]);
        assert_eq!(counters(&opened), [1, 2, 1, 2, 3]);
        let nonces: Vec<u64> = opened.iter().map(|opened| opened.frame.nonce).collect();
        assert_eq!(nonces, [1, 2, 1, 2, 3]);
    }
}

pub(super) fn a_named_child_seals_its_hello_as_itself() {
    let server = UdpServer::listening();
    let builder = Varta::builder().name("worker").secure_udp_with_master(server.addr(), key());
    let mut agent = builder.connect().unwrap();
    assert!(beat(&mut agent));
    let child = child(|| beat(&mut agent) && beat(&mut agent));
    let datagrams = server.arrived();
    let [parents, _, childs, _, last] = &datagrams[..] else { panic!("{}", datagrams.len()) };

    let mut rooms = [[0; MAX_CONTROL_LEN]; 2];
    let [first, second] = &mut rooms;
    let parents = open_control_agent(&key().agent_key(process::id()), parents, first).unwrap();
    let childs = open_control_agent(&key().agent_key(child), childs, second).unwrap();
    assert_eq!((parents.control.pid(), childs.control.pid()), (process::id(), child));
    assert_ne!(parents.control.session(), childs.control.session());
    assert_ne!(parents.iv_random, childs.iv_random);
    let last = open_agent(&key().agent_key(child), last).unwrap();
    assert_eq!((childs.iv_counter, last.iv_counter, last.iv_random), (1, 3, childs.iv_random));
}

pub(super) fn an_explicit_reconnect_in_the_child_seals_as_itself() {
    for mode in [Shared, Master] {
        let server = UdpServer::listening();
        let mut agent = mode.connect(server.addr());
        assert!(beat(&mut agent));
        let child = child(|| agent.reconnect().is_ok() && beat(&mut agent));
        let opened = mode.open(&server, &[process::id(), child]);
        assert_eq!(as_the_first(&opened), [true, false]);
        assert_eq!(opened[1].frame.nonce, 2);
    }
}

pub(super) fn a_child_that_uses_the_inherited_transport_itself_repeats_no_nonce() {
    for mode in [Shared, Master] {
        let server = UdpServer::listening();
        let mut transport = mode.transport(server.addr());
        let send = |transport: &mut SecureUdpTransport| {
            let frame = Frame::new(Status::Ok, process::id(), 0, 1, 0);
            transport.send(&frame.to_bytes()).is_ok()
        };
        assert!(send(&mut transport));
        let child = child(|| send(&mut transport) && send(&mut transport));
        assert!(send(&mut transport));
        let parent = process::id();
        let opened = mode.open(&server, &[parent, child, child, parent]);
        assert_eq!(as_the_first(&opened), [true, false, false, true]);
        assert_eq!(opened[1].iv_random, opened[2].iv_random);
        assert_eq!(counters(&opened), [1, 1, 2, 2]);
    }
}

pub(super) fn a_sealed_session_survives_a_reconnect_that_fails() {
    for mode in [Shared, Master] {
        let server = UdpServer::listening();
        let child_beats = || {
            let mut agent = mode.connect(server.addr());
            let before = beat(&mut agent);
            descriptors_are_refused(true);
            let kept = agent.reconnect().is_err() && beat(&mut agent);
            descriptors_are_refused(false);
            let moved = agent.reconnect().is_ok() && beat(&mut agent);
            before && kept && moved
        };
        let child = child(child_beats);
        let opened = mode.open(&server, &[child; 3]);
        assert_eq!(as_the_first(&opened), [true, true, false]);
        assert_eq!(counters(&opened), [1, 2, 1]);
    }
}

/// With a seccomp filter, which needs a privilege. Without it the test is skipped.
#[cfg(target_os = "linux")]
#[allow(clippy::print_stdout, reason = "a test that was not run says so")]
pub(super) fn without_entropy_nothing_new_is_sealed() {
    for mode in [Shared, Master] {
        let server = UdpServer::listening();
        let mut agent = mode.connect(server.addr());
        let mut transport = mode.transport(server.addr());
        let deprived = child(|| {
            let mut own = mode.connect(server.addr());
            if !common::take_entropy_away() {
                return true;
            }
            // The inherited transport has no session to continue, and its error is a lasting one.
            let failed =
                (0..2).all(|_| agent.beat(Status::Ok, 0).is_failed() && agent.fork_recoveries() == 0);
            let sent = transport.send(&Frame::new(Status::Ok, process::id(), 0, 1, 0).to_bytes());
            let refused = sent.is_err_and(|error| varta_agent::classify_send_error(&error).is_failed());
            // A transport that was created before continues its session.
            let kept = own.reconnect().is_err() && beat(&mut own) && beat(&mut own);
            let error = SecureUdpTransport::connect(server.addr(), key()).unwrap_err().to_string();
            failed && refused && kept && error.contains("gives no randomness")
        });
        assert!(beat(&mut agent), "the parent has lost nothing");
        let datagrams = server.arrived();
        if let [_] = datagrams[..] {
            println!("without_entropy_nothing_new_is_sealed: no permission for a filter, not tested");
            return;
        }
        assert_eq!(datagrams.len(), 3);
        let opened = datagrams[..2].iter().map(|datagram| match mode {
            Shared => open_shared(&key(), datagram).unwrap(),
            Master => open_agent(&key().agent_key(deprived), datagram).unwrap(),
        });
        assert_eq!(counters(&opened.collect::<Vec<_>>()), [1, 2]);
    }
}
