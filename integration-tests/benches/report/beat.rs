//! What a `beat()` costs beside a bare `send(2)` of 32 bytes to the same socket.
//!
//! Nobody sleeps on the receiving end: this thread itself takes each datagram, outside the measured time. To wake a
//! receiver costs several times what the send itself does, the same for everybody, and would hide the difference that is
//! looked for. The senders take turns, each goes first equally often, and all leave the same pause.

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use varta_agent::{Status, Varta};

use crate::statistics::percentile;
use crate::{Fallible, Row, sys};

const TURNS: usize = 200_000;
const WARM_UP: usize = 2_000;
const PAUSE: Duration = Duration::from_micros(5);

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("drained.sock");
    let receiver = UnixDatagram::bind(&path)?;

    let bare = UnixDatagram::unbound()?;
    bare.connect(&path)?;
    let mut ours = Varta::connect(&path)?;
    let mut peer = varta_client::Varta::connect(&path)?;
    let frame = varta_agent::Frame::new(Status::Ok, 42, 1, 1, 0).to_bytes();

    let mut times = [const { Vec::new() }; 3];
    for turn in 0..WARM_UP + TURNS {
        // Whoever comes first in one turn comes last in the next but one.
        for place in 0..3 {
            pause();
            let who = (turn + place) % 3;
            let start = Instant::now();
            let arrived = match who {
                0 => sys::send(bare.as_fd(), &frame).is_ok(),
                1 => ours.beat(Status::Ok, 0) == varta_agent::BeatOutcome::Sent,
                _ => matches!(peer.beat(varta_client::Status::Ok, 0), varta_client::BeatOutcome::Sent),
            };
            let time = start.elapsed();
            if !arrived {
                return Err("a send was refused though the queue was empty".into());
            }
            receiver.recv(&mut [0; 64])?;
            if turn >= WARM_UP {
                times[who].push(u64::try_from(time.as_nanos())?);
            }
        }
    }

    let mut rows = Vec::new();
    let names = [
        ("`beat()`, median", "`beat()`, 99th percentile", "≤ 1.08", 1.08),
        ("the peer's `beat()`, median", "the peer's `beat()`, 99th percentile", "–", f64::INFINITY),
    ];
    for (who, (median, high, reach, limit)) in names.into_iter().enumerate() {
        for (work, share, reach, limit) in [(median, 0.5, reach, limit), (high, 0.99, "–", f64::INFINITY)] {
            let bare = percentile(&mut times[0], share).ok_or("no samples")?;
            let beat = percentile(&mut times[1 + who], share).ok_or("no samples")?;
            let ratio = beat as f64 / bare as f64;
            let (ours, yardstick) = (format!("{beat} ns"), format!("bare send {bare} ns"));
            rows.push(Row { work: work.to_owned(), ours, yardstick, ratio, reach, reached: ratio <= limit });
        }
    }
    Ok(rows)
}

fn pause() {
    let start = Instant::now();
    while start.elapsed() < PAUSE {
        std::hint::spin_loop();
    }
}
