//! How soon a verdict follows what it tells of: a death beside a bare wake-up by a pidfd, a deadline beside a bare timer
//! of the runtime and beside the peer.
//!
//! A verdict's time is the one in its line of the log, so what the sinks take is counted too. All times are read from the
//! host's one clock, and everybody's turn is in the same run.

use std::collections::HashMap;
use std::fs;
use std::io::stdin;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use varta_agent::{BeatOutcome, Frame, Status, Varta};
use varta_integration_tests::Signal;
use varta_integration_tests::sys::send_signal;

use crate::programs::{self, LIMIT, Process, Server, wait_for};
use crate::statistics::{Comparison, percentile};
use crate::table::{Reach, Row};
use crate::{Fallible, sys};

const DEATHS: usize = 200;
/// From when a process is known until it is killed: by then everybody sleeps again.
const QUIET: Duration = Duration::from_millis(5);
const AGENTS: u32 = 10_000;
/// As many of them fall silent, one after the other.
const SILENT: u32 = 500;
const EVERY: Duration = Duration::from_millis(20);
const STALL_AFTER: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_secs(1);
const FIRST_PID: u32 = 100_000;
/// For the peer: one agent falls silent so often.
const PEERS_ROUNDS: u32 = 20;
const PEERS_STALL_AFTER: Duration = Duration::from_millis(500);

/// Time on the clock of the host, which all its processes share.
pub(crate) fn now() -> Fallible<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

pub(crate) fn show_micros(micros: f64) -> String {
    format!("{micros:.0} µs")
}

pub(crate) fn micros(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1e6).collect()
}

/// A change of verdict as a line of the log tells it.
pub(crate) struct Told {
    pid: u32,
    to: String,
    /// Since midnight.
    at: Duration,
}

impl Told {
    fn from_line(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let pid = line.get("pid")?.as_u64()?;
        let time = line.get("timestamp")?.as_str()?.split_once('T')?.1.trim_end_matches('Z');
        let mut parts = time.split(':').map(str::parse::<f64>);
        let mut next = || parts.next()?.ok();
        let seconds = next()? * 3_600.0 + next()? * 60.0 + next()?;
        let to = line.get("to")?.as_str()?.to_owned();
        Some(Told { pid: u32::try_from(pid).ok()?, to, at: Duration::from_secs_f64(seconds) })
    }

    /// How long it came after `since`.
    pub(crate) fn after(&self, since: Duration) -> Fallible<Duration> {
        let midnight = Duration::from_secs(since.as_secs() / 86_400 * 86_400);
        let after = (midnight + self.at).checked_sub(since);
        Ok(after.ok_or("a verdict before what it tells of, or midnight: once more, please")?)
    }
}

/// The next change to a verdict of which the server tells.
fn await_told(server: &Server, to: &str) -> Fallible<Told> {
    loop {
        if let Some(told) = Told::from_line(&server.line()?).filter(|told| told.to == to) {
            return Ok(told);
        }
    }
}

/// The same of one process. By then it may have been told of others.
pub(crate) fn await_told_of(server: &Server, to: &str, pid: u32) -> Fallible<Told> {
    loop {
        let told = await_told(server, to)?;
        if told.pid == pid {
            return Ok(told);
        }
    }
}

/// Rows for median and 99th percentile of two lists of times, with the reach of each.
fn rows(
    what: &str,
    ours: &[Duration],
    (name, yardstick): (&str, &[Duration]),
    reach: [Reach; 2],
) -> Fallible<Vec<Row>> {
    let shares = [("median", 0.5), ("99th percentile", 0.99)];
    let row = |((share, at), reach)| {
        let of = |times| percentile(&mut micros(times), at).ok_or("no samples");
        let compared = Comparison::once(of(ours)?, of(yardstick)?);
        Ok(Row::new(format!("{what}, {share}"), &compared, name, show_micros, reach))
    };
    shares.into_iter().zip(reach).map(row).collect()
}

/// From `kill` to the verdict, beside a process that waits for one pidfd.
pub(crate) fn measure_deaths() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("varta.sock");
    let server = Server::start(["--socket".as_ref(), path.as_os_str()])?;
    let mut bare = Process::start(programs::role(["role-await-death"]).stdin(Stdio::piped()))?;
    let (mut ours, mut yardstick) = (Vec::new(), Vec::new());
    for round in 0..DEATHS {
        let watched = Process::start(&mut programs::role(["role-agent".as_ref(), path.as_os_str()]))?;
        await_told(&server, "up")?;
        let other = Process::start(&mut programs::role(["role-agent"]))?;
        bare.tell(other.pid())?;
        bare.line()?;
        for turn in 0..2 {
            std::thread::sleep(QUIET);
            let killed_at = now()?;
            if (round + turn).is_multiple_of(2) {
                send_signal(watched.pid(), Signal::Kill)?;
                ours.push(await_told(&server, "down")?.after(killed_at)?);
            } else {
                send_signal(other.pid(), Signal::Kill)?;
                let woken_at = Duration::from_nanos(bare.line()?.parse()?);
                yardstick.push(woken_at.checked_sub(killed_at).ok_or("a clock that goes backwards")?);
            }
        }
    }
    let reach = [Reach { text: "≤ 3", holds: |compared| compared.ratio <= 3.0 }, Reach::NONE];
    rows("death to verdict", &ours, ("bare pidfd", &yardstick), reach)
}

/// The yardstick's process. For each pid that it reads it prints a line when it waits, and when it was woken.
pub(crate) fn await_deaths() -> Fallible<()> {
    for line in stdin().lines() {
        let pidfd = sys::open_pidfd(line?.parse()?)?;
        println!("waiting");
        varta_integration_tests::sys::wait_readable(pidfd.as_fd(), false, LIMIT)?;
        println!("{}", now()?.as_nanos());
    }
    Ok(())
}

/// From the deadline to the verdict, while many others beat.
pub(crate) fn measure_deadlines() -> Fallible<Vec<Row>> {
    let stall_after = format!("{}ms", STALL_AFTER.as_millis());
    let server = Server::start([
        "--socket",
        "none",
        "--udp",
        "127.0.0.1:0",
        "--udp-receive-buffer",
        "8388608",
        "--max-agents-per-source",
        "0",
        "--stall-after",
        &stall_after,
    ])?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server.udp()?)?;
    let timers = Process::start(&mut programs::role(["role-timers"]))?;
    timers.line()?;
    let last = Beating::new(socket).run()?;
    let mut ours = Vec::new();
    while ours.len() < SILENT as usize {
        let told = await_told(&server, "stalled")?;
        let last = last.get(&told.pid).ok_or("an agent that beats was called stalled")?;
        ours.push(told.after(*last + STALL_AFTER)?);
    }
    let lateness = timers.line()?;
    let lateness = lateness.split(' ').map(|nanos| Ok(Duration::from_nanos(nanos.parse()?)));
    let lateness = lateness.collect::<Fallible<Vec<_>>>()?;
    let reach = [
        Reach { text: "≤ 2", holds: |compared| compared.ratio <= 2.0 },
        Reach { text: "≤ 4", holds: |compared| compared.ratio <= 4.0 },
    ];
    let what = "deadline to verdict, 10,000 agents";
    let mut all = rows(what, &ours, ("bare timer of the runtime", &lateness), reach)?;
    if let Some(peers) = peers_deadlines()? {
        let reach = [Reach { text: "≤ 0.1", holds: |compared| compared.ratio <= 0.1 }, Reach::NONE];
        all.extend(rows(what, &ours, ("the peer, one agent", &peers), reach)?);
    }
    Ok(all)
}

/// Many agents that beat from one socket in turn.
struct Beating {
    socket: UdpSocket,
    begun_at: Instant,
    nonces: Vec<u64>,
}

impl Beating {
    fn new(socket: UdpSocket) -> Self {
        Beating { socket, begun_at: Instant::now(), nonces: vec![0; AGENTS as usize] }
    }

    fn beat(&mut self, agent: u32) -> Fallible<Duration> {
        let nonce = &mut self.nonces[agent as usize];
        *nonce += 1;
        let timestamp = u64::try_from(self.begun_at.elapsed().as_nanos())?;
        let frame = Frame::new(Status::Ok, FIRST_PID + agent, timestamp, *nonce, 0);
        self.socket.send(&frame.to_bytes())?;
        now()
    }

    /// Has all beat evenly spread, and one after the other fall silent. When those beat last, by their pids; the others go
    /// on until all that have to be told are.
    fn run(mut self) -> Fallible<HashMap<u32, Duration>> {
        let mut last = HashMap::new();
        // Two rounds in which nobody is silent.
        let silence_from = 2 * INTERVAL;
        let silent_at = |agent: u32| silence_from + EVERY * agent;
        let end = silent_at(SILENT) + INTERVAL + STALL_AFTER;
        for number in 0.. {
            let (round, agent) = (number / AGENTS, number % AGENTS);
            // Those that fall silent stand apart from each other in the round.
            let agent = u32::try_from(u64::from(agent) * 7_919 % u64::from(AGENTS))?;
            let due = INTERVAL * round + INTERVAL * (number % AGENTS) / AGENTS;
            if due > end {
                return Ok(last);
            }
            if agent < SILENT && due > silent_at(agent) {
                continue;
            }
            if let Some(early) = due.checked_sub(self.begun_at.elapsed()) {
                std::thread::sleep(early);
            }
            let at = self.beat(agent)?;
            if agent < SILENT {
                last.insert(FIRST_PID + agent, at);
            }
        }
        Ok(last)
    }
}

/// The yardstick's process: timers of the runtime that the server has, as long as the deadlines and as many. Prints by
/// how many nanoseconds each was late.
pub(crate) fn ring_timers() -> Fallible<()> {
    println!("ready");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let begun_at = tokio::time::Instant::now() + 2 * INTERVAL;
    let late = runtime.block_on(async {
        let mut timers = tokio::task::JoinSet::new();
        for number in 0..SILENT {
            timers.spawn(async move {
                let starts_at = begun_at + EVERY * number;
                tokio::time::sleep_until(starts_at).await;
                let due = tokio::time::Instant::now() + STALL_AFTER;
                tokio::time::sleep_until(due).await;
                due.elapsed()
            });
        }
        timers.join_all().await
    });
    let late: Vec<_> = late.iter().map(|late| late.as_nanos().to_string()).collect();
    println!("{}", late.join(" "));
    Ok(())
}

/// The same of the peer, with nobody to take beats from but one agent, this process: by the times that its own file of
/// events gives to a beat and to the stall after it. `None` where it is not installed.
fn peers_deadlines() -> Fallible<Option<Vec<Duration>>> {
    let directory = tempfile::tempdir()?;
    let (path, events) = (directory.path().join("peer.sock"), directory.path().join("events"));
    let threshold = PEERS_STALL_AFTER.as_millis().to_string();
    let arguments =
        ["--threshold-ms".as_ref(), threshold.as_ref(), "--export-file".as_ref(), events.as_os_str()];
    let Some(peer) = programs::peer(&path, arguments)? else { return Ok(None) };
    let mut agent = Varta::connect(&path)?;
    for round in 0..PEERS_ROUNDS {
        if agent.beat(Status::Ok, 0) != BeatOutcome::Sent {
            return Err("the peer does not take a beat".into());
        }
        // Longer than it says that it may take, and not always to the same point of its cycle.
        std::thread::sleep(PEERS_STALL_AFTER + Duration::from_millis(400 + u64::from(round) * 37 % 100));
    }
    // It writes when it ends.
    send_signal(peer.pid(), Signal::Terminate)?;
    wait_for("the peer's events", || {
        let late = lateness_of(&fs::read_to_string(&events)?);
        Ok(late.filter(|late| late.len() == PEERS_ROUNDS as usize))
    })
    .map(Some)
}

/// By how much each stall was late of which a file of the peer's events tells.
fn lateness_of(events: &str) -> Option<Vec<Duration>> {
    let (mut late, mut beaten_at) = (Vec::new(), None);
    for line in events.lines() {
        let mut fields = line.split('\t');
        let at = Duration::from_nanos(fields.next()?.parse().ok()?);
        match fields.next()? {
            "beat" => beaten_at = Some(at),
            "stall" => late.push(at.checked_sub(beaten_at? + PEERS_STALL_AFTER)?),
            _ => {}
        }
    }
    Some(late)
}
