//! How many beats a second are taken from one sender that sends as fast as it may and waits when the queue is full.
//!
//! Counted at the tracker, beside a bare loop of `recvmmsg` with credentials. The sender's last send returns when all but
//! the queue's few have been taken, so its time is the receiver's. There are two bare loops, one that waits in `recvmmsg`
//! and one that waits in `epoll_wait`, and two ways for the sender to wait, asleep in `send` or trying again: which of
//! them is fastest depends on machine and moment, so the best bare loop is the yardstick.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use varta_agent::{Frame, Status};

use crate::Fallible;
use crate::programs::{self, Process, Server, wait_for};
use crate::statistics::{Comparison, rate, show_rate};
use crate::sys::{self, BareLoop, Until, Waits};
use crate::table::{Reach, Row};

const FRAMES: u64 = 200_000;
/// The peer is slower.
const PEER_FRAMES: u64 = 50_000;
const ROUNDS: usize = 15;
/// How the sender waits.
const SENDERS: [&str; 2] = ["sleeping", "retrying"];

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let (bare_path, path, peer_path) = (
        directory.path().join("bare.sock"),
        directory.path().join("varta.sock"),
        directory.path().join("peer.sock"),
    );
    let server = Server::start(["--socket".as_ref(), path.as_os_str()])?;
    let peer = programs::peer(&peer_path, ["--threshold-ms", "5000"])?;
    let mut rows = Vec::new();
    let mut expected = 0;
    for sender in SENDERS {
        let mut bare = Waits::ALL.map(|_| Vec::new());
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for (waits, rates) in Waits::ALL.into_iter().zip(&mut bare) {
                let arguments =
                    ["role-receive", &bare_path.to_string_lossy(), &FRAMES.to_string(), waits.name()];
                let receiver = Process::start(&mut programs::role(arguments))?;
                receiver.line()?;
                rates.push(rate(FRAMES, send_all(&bare_path, FRAMES, sender)?));
                drop(receiver);
                std::fs::remove_file(&bare_path)?;
            }
            ours.push(rate(FRAMES, send_all(&path, FRAMES, sender)?));
            expected += FRAMES;
            await_accepted(&server, expected)?;
            if peer.is_some() && sender == "retrying" {
                peers.push(rate(PEER_FRAMES, send_all(&peer_path, PEER_FRAMES, sender)?));
            }
        }
        let row = |work, rates, reach| {
            let (best, compared) = Comparison::with_highest(rates, &bare)?;
            let work = format!("{work}, one sender ({sender})");
            Fallible::Ok(Row::new(work, &compared, Waits::ALL[best].title(), show_rate, reach))
        };
        // How much one that tries again leaves to the receiver is the scheduler's to say.
        let reach = match sender {
            "sleeping" => Reach { text: "≥ 0.97", holds: |compared| compared.ratio >= 0.97 },
            _ => Reach::NONE,
        };
        rows.push(row("ingest, nothing lost", &ours, reach)?);
        if !peers.is_empty() {
            rows.push(row("the peer's ingest", &peers, Reach::NONE)?);
        }
    }
    Ok(rows)
}

/// Waits until the tracker has counted every beat that was sent.
fn await_accepted(server: &Server, expected: u64) -> Fallible<()> {
    wait_for(&format!("{expected} beats counted"), || {
        let accepted = server.counts("unix")?.accepted;
        Ok((accepted == expected).then_some(()))
    })
}

/// Sends from a process of its own and gives the time that it took.
pub(crate) fn send_all(path: &Path, frames: u64, how: &str) -> Fallible<Duration> {
    let arguments = ["role-send", &path.to_string_lossy(), &frames.to_string(), how];
    let line = Process::start(&mut programs::role(arguments))?.line()?;
    Ok(Duration::from_nanos(line.parse().map_err(|_| line)?))
}

/// The sending process: `PATH FRAMES HOW`. Prints the nanoseconds that it took.
pub(crate) fn send(arguments: &[String]) -> Fallible<()> {
    let [path, frames, how] = arguments else { return Err("wants PATH FRAMES HOW".into()) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(how == "retrying")?;
    let frames: u64 = frames.parse()?;
    let pid = std::process::id();
    let start = Instant::now();
    for nonce in 1..=frames {
        let timestamp = u64::try_from(start.elapsed().as_nanos())?;
        let frame = Frame::new(Status::Ok, pid, timestamp, nonce, 0).to_bytes();
        while let Err(error) = socket.send(&frame) {
            if error.kind() != std::io::ErrorKind::WouldBlock {
                return Err(error.into());
            }
            std::thread::yield_now();
        }
    }
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

/// A bare loop on a new Unix socket, which waits as it is told.
pub(crate) fn bare_loop(path: &str, how: &str) -> Fallible<BareLoop> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
    socket.set_passcred(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    Ok(BareLoop::new(socket.into(), sys::Sender::Credentials, Waits::named(how)?)?)
}

/// The yardstick's process: `PATH FRAMES HOW`. Prints a line when it is ready.
pub(crate) fn receive(arguments: &[String]) -> Fallible<()> {
    let [path, frames, how] = arguments else { return Err("wants PATH FRAMES HOW".into()) };
    let mut bare = bare_loop(path, how)?;
    println!("ready");
    std::hint::black_box(bare.run(Until::Received(frames.parse()?))?);
    Ok(())
}
