//! Inherited handles that send by UDP.

use super::*;
use common::UdpServer;

fn frames(server: &UdpServer) -> Vec<Frame> {
    server.arrived().iter().map(|datagram| Frame::decode(datagram).unwrap()).collect()
}

pub(super) fn by_udp_a_forked_child_beats_as_itself() {
    let server = UdpServer::listening();
    let mut agent = Varta::connect_udp(server.addr()).unwrap();
    assert!(beat(&mut agent) && beat(&mut agent));
    let child = child(|| beat(&mut agent) && beat(&mut agent) && agent.fork_recoveries() == 1);
    assert!(beat(&mut agent));
    let parent = process::id();
    let expected = [(parent, 1), (parent, 2), (child, 1), (child, 2), (parent, 3)];
    assert_eq!(signed(&frames(&server)), expected);
}

pub(super) fn by_udp_a_reconnect_that_fails_leaves_the_handle_working() {
    let server = UdpServer::listening();
    let child = child(|| {
        let mut agent = Varta::connect_udp(server.addr()).unwrap();
        descriptors_are_refused(true);
        agent.reconnect().is_err() && beat(&mut agent)
    });
    assert_eq!(signed(&frames(&server)), [(child, 1)]);
}
