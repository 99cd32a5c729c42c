//! How many beats a second are taken from one sender that sends as fast as it may and waits when the queue is full.
//!
//! Counted at the tracker, beside a bare loop of `recvmmsg` with credentials. The sender's last send returns when all but
//! the queue's few have been taken, so its time is the receiver's. There are two bare loops, one that waits in `recvmmsg`
//! and one that waits in `epoll_wait`, and two ways for the sender to wait, asleep in `send` or trying again: which of
//! them is fastest depends on machine and moment, so the best bare loop is the yardstick.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use varta_agent::{Frame, Status};

use crate::programs::{self, Process, Server};
use crate::statistics::{median, rate, show_rate};
use crate::{Fallible, Row, sys};

const FRAMES: u64 = 200_000;
/// The peer is slower.
const PEER_FRAMES: u64 = 50_000;
const ROUNDS: usize = 15;
/// How the bare loop waits.
const LOOPS: [&str; 2] = ["recvmmsg", "epoll"];
/// How the sender waits.
const SENDERS: [&str; 2] = ["sleeping", "retrying"];

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let (bare_path, path, peer_path) = (
        directory.path().join("bare.sock"),
        directory.path().join("varta.sock"),
        directory.path().join("peer.sock"),
    );
    let server = Server::start(&path)?;
    let peer = programs::peer(&peer_path)?;
    let mut rows = Vec::new();
    let mut expected = 0;
    for sender in SENDERS {
        let mut bare = LOOPS.map(|_| Vec::new());
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for (how, rates) in LOOPS.into_iter().zip(&mut bare) {
                let receiver = start_and_wait(&[
                    "role-receive",
                    &bare_path.to_string_lossy(),
                    &FRAMES.to_string(),
                    how,
                ])?;
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
        let medians = bare.each_ref().map(|rates| median(&mut rates.clone()).unwrap_or(0.0));
        let best = usize::from(medians[1] > medians[0]);
        let mut row = |work: String, rates: &mut [f64], reach, limit| {
            // Each round's rate beside the bare loop of the same round: the machine's moods hit both.
            let mut ratios: Vec<f64> =
                rates.iter().zip(&bare[best]).map(|(taken, bare)| taken / bare).collect();
            if let (Some(taken), Some(ratio)) = (median(rates), median(&mut ratios)) {
                let yardstick = format!("bare loop, waits in {}: {}", LOOPS[best], show_rate(medians[best]));
                rows.push(Row {
                    work,
                    ours: show_rate(taken),
                    yardstick,
                    ratio,
                    reach,
                    reached: ratio >= limit,
                });
            }
        };
        row(format!("ingest, one sender ({sender}), nothing lost"), &mut ours, "≥ 0.85", 0.85);
        row(format!("the peer's ingest, one sender ({sender})"), &mut peers, "–", 0.0);
    }
    Ok(rows)
}

/// Waits until the tracker has counted every beat that was sent.
fn await_accepted(server: &Server, expected: u64) -> Fallible<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let accepted = server.sample("varta_frames_total{transport=\"unix\",outcome=\"accepted\"}")?;
        if accepted == expected {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{accepted} of {expected} beats were counted").into());
        }
    }
}

/// Sends from a process of its own and gives the time that it took.
fn send_all(path: &Path, frames: u64, how: &str) -> Fallible<Duration> {
    let mut sender = start(&["role-send", &path.to_string_lossy(), &frames.to_string(), how])?;
    let line = first_line(&mut sender)?;
    if !sender.0.wait()?.success() {
        return Err(line.into());
    }
    Ok(Duration::from_nanos(line.trim().parse()?))
}

fn start(arguments: &[&str]) -> Fallible<Process> {
    Ok(Process(programs::role(arguments).spawn()?))
}

fn start_and_wait(arguments: &[&str]) -> Fallible<Process> {
    let mut process = start(arguments)?;
    first_line(&mut process)?;
    Ok(process)
}

fn first_line(process: &mut Process) -> Fallible<String> {
    let child: &mut Child = &mut process.0;
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().ok_or("no standard output")?).read_line(&mut line)?;
    Ok(line)
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

/// The yardstick's process: `PATH FRAMES HOW`. Prints a line when it is ready.
pub(crate) fn receive(arguments: &[String]) -> Fallible<()> {
    let [path, frames, how] = arguments else { return Err("wants PATH FRAMES HOW".into()) };
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
    socket.set_passcred(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    println!("ready");
    std::hint::black_box(sys::receive_all(socket.as_fd(), frames.parse()?, how == "epoll")?);
    Ok(())
}
