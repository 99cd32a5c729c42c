//! What a `beat()` costs beside a bare `send(2)` of as many bytes to the same socket.
//!
//! Nobody sleeps on the receiving end: this thread itself takes each datagram, outside the measured time. To wake a
//! receiver costs several times what the send itself does, the same for everybody, and would hide the difference that is
//! looked for. The senders take turns, each goes first equally often, and all leave the same pause.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use varta_agent::{BeatOutcome, BeatTransport, Key, Status, Varta};
use varta_proto::FRAME_LEN;
use varta_proto::secure::{MASTER_LEN, SHARED_LEN};

use crate::programs::LIMIT;
use crate::statistics::{Comparison, percentile, show_nanos};
use crate::table::{Reach, Row};
use crate::{Fallible, sys};

const TURNS: usize = 200_000;
const WARM_UP: usize = 2_000;
const PAUSE: Duration = Duration::from_micros(5);
/// More than any beat has.
const ROOM: usize = 128;

const KEY: [u8; 32] = [0x5a; 32];

/// How long a sender took each time, in nanoseconds.
type Times = Vec<u64>;

/// Beats to a server on this host.
pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("drained.sock");
    let receiver = UnixDatagram::bind(&path)?;
    receiver.set_read_timeout(Some(LIMIT))?;
    let bare = UnixDatagram::unbound()?;
    bare.connect(&path)?;
    let way = Way { name: "`beat()`", length: FRAME_LEN, bare: bare.as_fd() };
    let reach = Reach { text: "≤ 1.05", holds: |compared| compared.ratio <= 1.05 };
    let (ours, peer) = (Varta::connect(&path)?, varta_client::Varta::connect(&path)?);
    way.compare(ours, peer, || receiver.recv(&mut [0; ROOM]), [reach; 2])
}

/// Beats to a server on another host: in plain sight, under the shared key and under the agent's own.
pub(crate) fn measure_remote() -> Fallible<Vec<Row>> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    receiver.set_read_timeout(Some(LIMIT))?;
    let to = receiver.local_addr()?;
    let bare = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    bare.connect(to)?;
    let receive = || receiver.recv(&mut [0; ROOM]);
    let key = || Key::from_bytes(KEY);
    let peers_key = || varta_vlp::crypto::Key::from_bytes(KEY);
    let sealed =
        Reach { text: "≤ bare + 350 ns", holds: |compared| compared.ours <= compared.yardstick + 350.0 };

    let way = Way { name: "`beat()` by UDP", length: FRAME_LEN, bare: bare.as_fd() };
    let (ours, peer) = (Varta::connect_udp(to)?, varta_client::Varta::connect_udp(to)?);
    let mut rows = way.compare(ours, peer, receive, [Reach::NONE; 2])?;

    let way = Way { name: "`beat()` under the shared key", length: SHARED_LEN, bare: bare.as_fd() };
    let ours = Varta::connect_secure_udp(to, key())?;
    let peer = varta_client::Varta::connect_secure_udp(to, peers_key())?;
    rows.extend(way.compare(ours, peer, receive, [sealed, Reach::NONE])?);

    let way = Way { name: "`beat()` under a master key", length: MASTER_LEN, bare: bare.as_fd() };
    let ours = Varta::connect_secure_udp_with_master(to, key())?;
    let peer = varta_client::Varta::connect_secure_udp_with_master(to, peers_key())?;
    rows.extend(way.compare(ours, peer, receive, [sealed, Reach::NONE])?);
    Ok(rows)
}

/// How beats get to the receiver, and the socket for as many bare bytes to the same one.
struct Way<'a> {
    name: &'a str,
    length: usize,
    bare: BorrowedFd<'a>,
}

impl Way<'_> {
    /// Compares our handle and the peer's with the bare socket; the reaches are for median and 99th percentile of ours.
    fn compare<T: BeatTransport, P: varta_client::BeatTransport>(
        &self,
        mut ours: Varta<T>,
        mut peer: varta_client::Varta<P>,
        receive: impl Fn() -> io::Result<usize>,
        reaches: [Reach; 2],
    ) -> Fallible<Vec<Row>> {
        let bytes = vec![0x5a; self.length];
        let [mut bare, ours, peer] = take_turns(
            &mut [
                &mut || sys::send(self.bare, &bytes).is_ok(),
                &mut || ours.beat(Status::Ok, 0) == BeatOutcome::Sent,
                &mut || matches!(peer.beat(varta_client::Status::Ok, 0), varta_client::BeatOutcome::Sent),
            ],
            receive,
        )?;
        let mut rows = Vec::new();
        for (whose, mut beat, reaches) in [("", ours, reaches), ("the peer's ", peer, [Reach::NONE; 2])] {
            for ((name, share), reach) in
                [("median", 0.5), ("99th percentile", 0.99)].into_iter().zip(reaches)
            {
                let beat = percentile(&mut beat, share).ok_or("no samples")?;
                let bare = percentile(&mut bare, share).ok_or("no samples")?;
                let work = format!("{whose}{}, {name}", self.name);
                let compared = Comparison::once(beat as f64, bare as f64);
                rows.push(Row::new(work, &compared, "bare send", show_nanos, reach));
            }
        }
        Ok(rows)
    }
}

/// Has senders take turns, each datagram being taken by `receive` before the next. A sender tells whether it was taken.
fn take_turns<const N: usize>(
    senders: &mut [&mut dyn FnMut() -> bool; N],
    receive: impl Fn() -> io::Result<usize>,
) -> Fallible<[Times; N]> {
    let mut times = [const { Vec::new() }; N];
    for turn in 0..WARM_UP + TURNS {
        // Each comes first equally often, and equally often after each of its neighbours: what the one before has left in
        // the caches is no advantage.
        let step = if (turn / N).is_multiple_of(2) { 1 } else { N - 1 };
        for place in 0..N {
            pause();
            let who = (turn + place * step) % N;
            let start = Instant::now();
            let sent = senders[who]();
            let time = start.elapsed();
            if !sent {
                return Err("a send was refused though the queue was empty".into());
            }
            receive()?;
            if turn >= WARM_UP {
                times[who].push(u64::try_from(time.as_nanos())?);
            }
        }
    }
    Ok(times)
}

fn pause() {
    let start = Instant::now();
    while start.elapsed() < PAUSE {
        std::hint::spin_loop();
    }
}
