//! Every datagram that is sent is counted once, to the datagram: read and accepted, read and refused, or
//! dropped by the kernel, however much comes and from however many senders at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{process, thread};

use varta_integration_tests::{
    ANOTHER_KEY, Flood, Network, Options, RemoteAgent, Server, Signal, loopback_socket, with_checksum,
};
use varta_proto::{Frame, Status};

/// How many datagrams each sender has for the server.
const EACH: u64 = 20_000;
/// How many of them while the server is stopped: more than its queue holds.
const UNREAD: u64 = 1_000;

/// What a sender sends, one after the other and again. Over the network in plain sight a forgery cannot be
/// seen.
fn mixture(agent: &mut RemoteAgent, forger: &mut RemoteAgent) -> [Vec<u8>; 6] {
    let good = agent.next_frame(Status::Ok).to_bytes();
    let forged = Frame { pid: forger.pid(), ..agent.next_frame(Status::Ok) }.to_bytes();
    let mut stall = good;
    stall[3] = 3;
    let sealed = agent.wrap(&good);
    [
        sealed.clone(),
        // The same bytes: a replay where they are sealed, a repeated beat where they are not.
        sealed,
        // A repeated beat in either case.
        agent.wrap(&good),
        // No frame.
        agent.wrap(&with_checksum(stall)),
        // Not even as long as one.
        forger.wrap(&forged).split_at(30).0.to_vec(),
        // Under a key that is not the agent's, or of another process.
        forger.wrap(&forged),
    ]
}

/// Sends so many datagrams as fast as it can. Gives how many of them the kernel took.
fn pour(
    agent: &mut RemoteAgent,
    forger: &mut RemoteAgent,
    count: u64,
    mut send: impl FnMut(&[u8]) -> bool,
) -> u64 {
    let mut sent = 0;
    for _ in 0..count.div_ceil(6) {
        sent += mixture(agent, forger).iter().map(|datagram| u64::from(send(datagram))).sum::<u64>();
    }
    sent
}

/// A sender over a network, from its beginning to its end. It gives how many datagrams the kernel took.
fn remote(network: Network, server: SocketAddr, pid: u32) -> impl FnMut(u64) -> u64 + Send {
    let socket = Arc::new(loopback_socket());
    let mut agent = RemoteAgent::on(Arc::clone(&socket), network, server, pid);
    let mut forger = RemoteAgent::with_key(socket, network, ANOTHER_KEY, server, pid);
    move |count| {
        let socket = agent.socket().try_clone().unwrap();
        pour(&mut agent, &mut forger, count, |datagram| socket.send_to(datagram, server).is_ok())
    }
}

/// A sender of this host that does not wait for room in the queue.
fn local(path: &Path) -> impl FnMut(u64) -> u64 + Send + use<> {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let [mut agent, mut forger] =
        [process::id(), process::id() + 1].map(|pid| RemoteAgent::new(Network::Plain, nowhere, pid));
    move |count| {
        pour(&mut agent, &mut forger, count, |datagram| match socket.send(datagram) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                false
            }
        })
    }
}

#[test]
fn what_was_sent_is_what_was_accepted_and_refused_and_thrown_away() {
    let any = "127.0.0.1:0";
    let options = Options::from(["--stall-after", "1h", "--udp-receive-buffer", "50000"]);
    let options = options.udp(any).secure_udp(any).key_of(Network::SharedKey).key_of(Network::MasterKey);
    let server = Server::start(options);
    let (plain, secure) = (server.udp_address(0), server.secure_udp_address(0));
    type Sender = Box<dyn FnMut(u64) -> u64 + Send>;
    let mut senders: Vec<(&str, Sender)> = vec![
        ("unix", Box::new(local(server.socket()))),
        ("unix", Box::new(local(server.socket()))),
        ("udp", Box::new(remote(Network::Plain, plain, 4242))),
        ("udp", Box::new(remote(Network::Plain, plain, 4243))),
        ("secure_udp", Box::new(remote(Network::SharedKey, secure, 4242))),
        ("secure_udp", Box::new(remote(Network::MasterKey, secure, 4243))),
    ];

    let mut flood = Flood::begin();
    server.pause();
    for (transport, send) in &mut senders {
        flood.sent(transport, send(UNREAD));
    }
    server.signal(Signal::Continue);
    let pouring: Vec<_> = senders
        .into_iter()
        .map(|(transport, mut send)| (transport, thread::spawn(move || send(EACH))))
        .collect();
    for (transport, sender) in pouring {
        flood.sent(transport, sender.join().unwrap());
    }
    let scrape = flood.await_balance(&server);

    for transport in ["udp", "secure_udp"] {
        let thrown_away = scrape.value("varta_kernel_drops_total", &[("transport", transport)]);
        assert!(thrown_away > 0.0, "the queue of {transport} was too long for this test");
    }
    assert_eq!(
        scrape.sum("varta_kernel_drops_total", &[("transport", "unix")]),
        0.0,
        "there the sender gets an error instead"
    );
    let some_ended_as = |transport, outcomes: &[&str]| {
        for outcome in outcomes {
            let row = [("transport", transport), ("outcome", *outcome)];
            assert!(scrape.value("varta_frames_total", &row) > 0.0, "{row:?} in\n{}", scrape.text);
        }
    };
    some_ended_as("unix", &["accepted", "duplicate", "stall_on_wire", "bad_length", "pid_mismatch"]);
    some_ended_as("udp", &["accepted", "duplicate", "stall_on_wire", "bad_length"]);
    some_ended_as(
        "secure_udp",
        &["accepted", "duplicate", "stall_on_wire", "bad_length", "replayed", "decrypt_failed"],
    );
    assert_eq!(scrape.sum("varta_beats_total", &[]), scrape.outcome("accepted"));
}

#[test]
fn every_beat_of_containers_behind_one_address_is_counted_to_one_of_them() {
    const CONTAINERS: usize = 5;
    const BEATS: usize = 20;
    for network in Network::ALL {
        let server = Server::start(
            Options::from(["--stall-after", "1h"]).on(network, &["127.0.0.1".parse().unwrap()]),
        );
        let address =
            if network == Network::Plain { server.udp_address(0) } else { server.secure_udp_address(0) };
        let mut containers = [(); CONTAINERS].map(|()| RemoteAgent::new(network, address, 4242));
        for _ in 0..BEATS {
            for container in &mut containers {
                container.beat();
                container.put_clock_forward(Duration::from_secs(1));
            }
        }
        let scrape = server.await_datagrams((BEATS * CONTAINERS) as f64);
        assert_eq!(scrape.outcome("accepted"), scrape.datagrams());
        assert_eq!(
            scrape.sum("varta_beats_total", &[]),
            scrape.outcome("accepted"),
            "{network:?}\n{}",
            scrape.text
        );
    }
}
