//! Terminal frames by UDP.

use super::*;
use common::UdpServer;
use std::net::SocketAddr;
use varta_agent::install_panic_handler_udp;

pub(super) fn play(role: &str, mode: &str, addr: SocketAddr) {
    panic::set_hook(Box::new(|_| say(BEFORE)));
    match mode {
        "udp" => install_panic_handler_udp(addr).unwrap(),
        #[cfg(feature = "secure-udp")]
        mode => secure::install(mode, addr),
        #[cfg(not(feature = "secure-udp"))]
        other => panic!("no such mode: {other}"),
    }
    let panics = || drop(panic::catch_unwind(|| panic!("on request")));
    ready();
    match role {
        "panics" => panic!("on request"),
        "panics in many threads" => {
            let together = Barrier::new(THREADS);
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        together.wait();
                        (0..PANICS).for_each(|_| panics());
                    });
                }
            });
        }
        "panics before, in and after a fork" => {
            panics();
            forked(|| {
                panics();
                forked(panics);
                panics();
            });
            panics();
        }
        #[cfg(all(feature = "secure-udp", target_os = "linux"))]
        "forks a child without entropy" => {
            forked(|| {
                if common::take_entropy_away() {
                    panics();
                }
            });
            panics();
        }
        other => panic!("no such role: {other}"),
    }
}

/// All of their frames must fit into the queue of one socket.
pub(super) const THREADS: usize = 8;
pub(super) const PANICS: usize = 8;

pub(super) fn a_panic_sends_a_terminal_frame_by_udp() {
    let server = UdpServer::listening();
    let child = PanickingChild::start_by_udp("panics", "udp", server.addr());
    let pid = child.pid();
    let (status, output) = child.finish();
    assert_eq!((status.code(), output), (Some(101), vec![BEFORE.to_owned()]));
    let [datagram] = &server.arrived()[..] else { panic!("one frame") };
    assert_terminal(&Frame::decode(datagram).unwrap(), pid);
}

pub(super) fn by_udp_a_server_that_started_later_is_notified() {
    let absent = UdpServer::absent();
    let addr = absent.addr();
    let child = PanickingChild::start_by_udp("panics", "udp", addr);
    drop(absent);
    let server = std::net::UdpSocket::bind(addr).unwrap();
    let pid = child.pid();
    child.finish();
    let mut datagram = [0; 64];
    let length = server.recv(&mut datagram).unwrap();
    assert_terminal(&Frame::decode(&datagram[..length]).unwrap(), pid);
}
