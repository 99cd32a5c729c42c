//! The cost of a beat in addition to its system call.
//!
//! Run it with `cargo bench -p varta-agent --bench beat --features secure-udp`; without the feature it omits
//! UDP. All benchmarks of a group send to the same socket, and each datagram is received on the same thread,
//! outside the measured time: so the kernel's short queue is never full, no second core is needed, and no
//! thread is woken, which would cost more than everything else. A bare send of 60 or 64 bytes is the
//! yardstick for the sealed beat of that length.

#![allow(unsafe_code, reason = "a bare send is a call of libc")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::io;
#[cfg(feature = "udp")]
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use varta_agent::{Status, Varta};

/// Times `send` alone, `times` times.
fn time(server: &impl Server, times: u64, mut send: impl FnMut() -> bool) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        let start = Instant::now();
        let sent = send();
        total += start.elapsed();
        assert!(sent, "not sent");
        server.take();
    }
    total
}

/// Receives the datagram that was sent.
trait Server {
    fn take(&self);
}

impl Server for UnixDatagram {
    fn take(&self) {
        self.recv(&mut [0; 100]).expect("the datagram that was sent");
    }
}

#[cfg(feature = "udp")]
impl Server for UdpSocket {
    fn take(&self) {
        self.recv(&mut [0; 100]).expect("the datagram that was sent");
    }
}

fn bare_send<const LENGTH: usize>(socket: &impl AsRawFd, datagram: [u8; LENGTH]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length are those of a live array, which the kernel only reads.
    let sent = unsafe { libc::send(socket.as_raw_fd(), datagram.as_ptr().cast(), datagram.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn beats(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("varta.sock");
    let server = UnixDatagram::bind(&path).expect("a socket");
    let mut group = criterion.benchmark_group("32 bytes over a Unix socket");

    let socket = UnixDatagram::unbound().expect("a socket");
    socket.connect(&path).expect("a connection");
    group.bench_function("bare send(2)", |bencher| {
        bencher.iter_custom(|times| time(&server, times, || bare_send(&socket, [7; 32]).is_ok()));
    });

    let mut agent = Varta::connect(&path).expect("a connection");
    group.bench_function("varta_agent::Varta::beat", |bencher| {
        bencher.iter_custom(|times| time(&server, times, || agent.beat(Status::Ok, 7).is_sent()));
    });

    let mut peer = varta_client::Varta::connect(&path).expect("a connection");
    group.bench_function("varta_client::Varta::beat", |bencher| {
        bencher.iter_custom(|times| {
            time(&server, times, || {
                matches!(peer.beat(varta_client::Status::Ok, 7), varta_client::BeatOutcome::Sent)
            })
        });
    });

    group.finish();
}

#[cfg(feature = "udp")]
fn beats_by_udp(criterion: &mut Criterion) {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let addr = server.local_addr().expect("an address");
    let mut group = criterion.benchmark_group("over UDP");

    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.connect(addr).expect("a connection");
    group.bench_function("bare send(2), 32 bytes", |bencher| {
        bencher.iter_custom(|times| time(&server, times, || bare_send(&socket, [7; 32]).is_ok()));
    });

    let mut agent = Varta::connect_udp(addr).expect("a connection");
    group.bench_function("varta_agent::Varta::beat", |bencher| {
        bencher.iter_custom(|times| time(&server, times, || agent.beat(Status::Ok, 7).is_sent()));
    });

    #[cfg(feature = "secure-udp")]
    {
        use varta_agent::Key;

        let key = || Key::from_bytes([0x8f; 32]);
        group.bench_function("bare send(2), 60 bytes", |bencher| {
            bencher.iter_custom(|times| time(&server, times, || bare_send(&socket, [7; 60]).is_ok()));
        });
        let mut agent = Varta::connect_secure_udp(addr, key()).expect("a connection");
        group.bench_function("varta_agent::Varta::beat, shared key", |bencher| {
            bencher.iter_custom(|times| time(&server, times, || agent.beat(Status::Ok, 7).is_sent()));
        });
        group.bench_function("bare send(2), 64 bytes", |bencher| {
            bencher.iter_custom(|times| time(&server, times, || bare_send(&socket, [7; 64]).is_ok()));
        });
        let mut agent = Varta::connect_secure_udp_with_master(addr, key()).expect("a connection");
        group.bench_function("varta_agent::Varta::beat, master key", |bencher| {
            bencher.iter_custom(|times| time(&server, times, || agent.beat(Status::Ok, 7).is_sent()));
        });
    }

    group.finish();
}

#[cfg(not(feature = "udp"))]
fn beats_by_udp(_: &mut Criterion) {}

criterion_group!(benches, beats, beats_by_udp);
criterion_main!(benches);
