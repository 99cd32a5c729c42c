//! Sealed terminal frames.

use super::udp::{PANICS, THREADS};
use super::*;
use common::UdpServer;
use std::collections::HashSet;
use std::net::SocketAddr;
use varta_agent::{Key, install_panic_handler_secure_udp, install_panic_handler_secure_udp_with_master};
use varta_proto::secure::{Opened, open_master, open_shared};

const MODES: [&str; 2] = ["shared", "master"];

fn key() -> Key {
    Key::from_bytes([0x8f; 32])
}

pub(super) fn install(mode: &str, addr: SocketAddr) {
    let nowhere = ([127, 0, 0, 1], 0).into();
    if mode == "shared" {
        assert!(install_panic_handler_secure_udp(nowhere, key()).is_err());
        install_panic_handler_secure_udp(addr, key()).unwrap();
    } else {
        assert!(install_panic_handler_secure_udp_with_master(nowhere, key()).is_err());
        install_panic_handler_secure_udp_with_master(addr, key()).unwrap();
    }
}

/// Opens the datagrams received so far, and checks that each is terminal and no nonce repeats.
fn open(mode: &str, server: &UdpServer) -> Vec<Opened> {
    let mut nonces = HashSet::new();
    let opened = server.arrived().into_iter().map(|datagram| {
        let opened = match mode {
            "shared" => open_shared(&key(), &datagram),
            _ => open_master(&key(), &datagram),
        }
        .unwrap();
        assert!(opened.frame.is_terminal());
        assert!(nonces.insert((opened.iv_random, opened.iv_counter)), "{mode}: a nonce came twice");
        opened
    });
    opened.collect()
}

pub(super) fn a_panic_sends_a_sealed_terminal_frame() {
    for mode in MODES {
        let server = UdpServer::listening();
        let child = PanickingChild::start_by_udp("panics", mode, server.addr());
        let pid = child.pid();
        let (status, output) = child.finish();
        assert_eq!((status.code(), output), (Some(101), vec![BEFORE.to_owned()]));
        let [opened] = open(mode, &server)[..] else { panic!("one frame") };
        assert_terminal(&opened.frame, pid);
    }
}

pub(super) fn threads_that_panic_together_share_no_nonce() {
    for mode in MODES {
        let server = UdpServer::listening();
        let child = PanickingChild::start_by_udp("panics in many threads", mode, server.addr());
        let pid = child.pid();
        let (status, output) = child.finish();
        assert!(status.success());
        assert_eq!(output.len(), THREADS * PANICS);
        let opened = open(mode, &server);
        assert_eq!(opened.len(), THREADS * PANICS);
        assert!(opened.iter().all(|opened| opened.frame.pid == pid));
    }
}

pub(super) fn a_forked_child_that_panics_has_nonces_and_a_key_of_its_own() {
    for mode in MODES {
        let server = UdpServer::listening();
        let child = PanickingChild::start_by_udp("panics before, in and after a fork", mode, server.addr());
        let pid = child.pid();
        assert!(child.finish().0.success());
        let opened = open(mode, &server);
        let [before, child, grandchild, again, after] = opened[..] else { panic!("five frames") };
        assert_eq!((before.frame.pid, after.frame.pid), (pid, pid));
        assert_eq!(child.frame.pid, again.frame.pid);
        assert_eq!(HashSet::from([pid, child.frame.pid, grandchild.frame.pid]).len(), 3);

        assert_eq!((after.iv_random, after.iv_counter), (before.iv_random, before.iv_counter + 1));
        let sessions = [before, child, grandchild, again].map(|opened| opened.iv_random);
        assert_eq!(HashSet::from(sessions).len(), 4);
    }
}

/// With a seccomp filter; where it cannot be installed the child does not panic.
#[cfg(target_os = "linux")]
pub(super) fn a_forked_child_without_entropy_panics_in_silence() {
    for mode in MODES {
        let server = UdpServer::listening();
        let child = PanickingChild::start_by_udp("forks a child without entropy", mode, server.addr());
        let pid = child.pid();
        assert!(child.finish().0.success());
        let [opened] = open(mode, &server)[..] else { panic!("one frame") };
        assert_eq!(opened.frame.pid, pid);
    }
}
