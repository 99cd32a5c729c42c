//! What recovery costs everything else: ingest, and how soon a death is told, while two hundred commands run, beside the
//! same server a moment before and after, when none does.
//!
//! The commands sleep. What a command itself takes of the machine is not the server's, and how long it takes to start two
//! hundred processes is the kernel's.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use varta_agent::{Frame, Status};
use varta_integration_tests::Signal;
use varta_integration_tests::sys::send_signal;

use crate::Fallible;
use crate::ingest::send_all;
use crate::programs::{self, Process, Server, wait_for};
use crate::statistics::{Comparison, median, rate, show_rate};
use crate::table::{Reach, Row};
use crate::verdicts::{await_told_of, micros, now, show_micros};

const RECOVERIES: u32 = 200;
const ROUNDS: u32 = 9;
const FRAMES: u64 = 200_000;
const DEATHS: usize = 15;
/// Longer than a round takes.
const COMMAND: &str = "sleep 4";
/// From when a process is known until it is killed: by then everybody sleeps again.
const QUIET: Duration = Duration::from_millis(5);
const FIRST_PID: u32 = 100_000;

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("varta.sock");
    let words = "--udp 127.0.0.1:0 --stall-after 500ms --recovery-debounce 0s --recovery-backoff 1h \
                 --recovery-group-budget 1000000/1s --recovery-budget 1000000/1s --allow-recovery-for-remote";
    let mut arguments = vec!["--socket", path.to_str().ok_or("a path that is no text")?];
    arguments.extend(words.split(' '));
    // Those that beat through the Unix socket are only told of.
    let rules = directory.path().join("varta.toml");
    fs::write(&rules, format!("[[recovery]]\ntransport = 'udp'\nexec = '{COMMAND}'\n"))?;
    arguments.extend(["--config", rules.to_str().ok_or("a path that is no text")?]);
    let server = Server::start(arguments)?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server.udp()?)?;

    let mut rates = [Vec::new(), Vec::new()];
    let mut latencies = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (busy, (rates, latencies)) in rates.iter_mut().zip(&mut latencies).enumerate() {
            if busy == 1 {
                fall(&socket, round)?;
                await_running(&server, f64::from(RECOVERIES))?;
            }
            rates.push(rate(FRAMES, send_all(&path, FRAMES, "sleeping")?));
            latencies.push(death_to_verdict(&server, &path)?);
            if busy == 1 && running(&server)? < f64::from(RECOVERIES) {
                return Err("the commands ended too early; the machine is too busy for this".into());
            }
        }
        await_running(&server, 0.0)?;
    }
    let [quiet, busy] = &rates;
    let reach = Reach { text: "≥ 0.95", holds: |compared| compared.ratio >= 0.95 };
    let what = "ingest while 200 recovery commands run";
    let ingest = Row::new(what, &Comparison::of(busy, quiet)?, "without", show_rate, reach);
    let [quiet, busy] = &latencies;
    let reach = Reach { text: "≤ 1.05", holds: |compared| compared.ratio <= 1.05 };
    let what = "death to verdict while 200 recovery commands run";
    let deaths = Row::new(what, &Comparison::of(busy, quiet)?, "without", show_micros, reach);
    Ok(vec![ingest, deaths])
}

/// Has as many agents beat once, and nevermore.
fn fall(socket: &UdpSocket, round: u32) -> Fallible<()> {
    for number in 0..RECOVERIES {
        let frame = Frame::new(Status::Ok, FIRST_PID + round * RECOVERIES + number, 1, 1, 0);
        socket.send(&frame.to_bytes())?;
    }
    Ok(())
}

fn running(server: &Server) -> Fallible<f64> {
    Ok(server.scrape()?.value("varta_recovery_running", &[]))
}

fn await_running(server: &Server, count: f64) -> Fallible<()> {
    wait_for(&format!("{count} commands run"), || Ok((running(server)? == count).then_some(())))
}

/// From `kill` to the verdict, in microseconds: the median of some.
fn death_to_verdict(server: &Server, path: &Path) -> Fallible<f64> {
    let mut times = Vec::new();
    for _ in 0..DEATHS {
        let mut role = programs::role(["role-agent".as_ref(), path.as_os_str()]);
        let watched = Process::start(role.stdin(Stdio::null()))?;
        await_told_of(server, "up", watched.pid())?;
        std::thread::sleep(QUIET);
        let killed_at = now()?;
        send_signal(watched.pid(), Signal::Kill)?;
        times.push(await_told_of(server, "down", watched.pid())?.after(killed_at)?);
    }
    median(&mut micros(&times)).ok_or_else(|| "no deaths".into())
}
