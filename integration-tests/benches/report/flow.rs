//! Datagrams over UDP from one sender to one receiver: how fast they are taken, and for how much time on a processor.
//!
//! A UDP sender does not wait for anybody: what finds the queue full is thrown away. So what counts is what was
//! *received*, and each run is proved to the datagram: what was sent is what the receiver took, and what the kernel says
//! (`/proc/net/udp`) that it threw away; of a server its own counts must be the same.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use varta_integration_tests::Signal;
use varta_integration_tests::sys::send_signal;

use crate::Fallible;
use crate::load::Load;
use crate::programs::{self, Counts, Process, Server, cpu_time, wait_for};
use crate::statistics::{Comparison, WithBest, median, rate, show_nanos, show_rate};
use crate::sys::{self, BareLoop, FAREWELL, Until, Waits};
use crate::table::{Reach, Row};

/// The queue of each receiver, in bytes as the kernel counts them.
pub(crate) const RECEIVE_BUFFER: libc::c_int = 8 << 20;
/// How many datagrams are put into it at once. There is room for 10,000.
const FILL: u64 = 8_000;
/// The core of whoever receives. Left to itself the scheduler now and then puts sender and receiver on the same one, and
/// then it is that which is measured.
const RECEIVERS_CORE: usize = 1;
const SENDERS_CORE: usize = 0;
/// How often everybody has a turn. Many short ones: a disturbance from outside then hits few of them.
const ROUNDS: usize = 41;
/// From when the queue is empty until what was taken from it is dealt with.
const SETTLE: Duration = Duration::from_millis(5);

/// How the sender goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As fast as it can, while the receiver receives.
    FlatOut,
    /// The receiver is stopped while its queue is filled, and then empties it: it alone sets the pace, and all batches
    /// are full.
    FullQueue,
}

impl Manner {
    pub(crate) const ALL: [Manner; 2] = [Manner::FlatOut, Manner::FullQueue];
}

impl std::fmt::Display for Manner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Manner::FlatOut => "sender flat out",
            Manner::FullQueue => "from a full queue",
        })
    }
}

/// What one run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// Datagrams received a second, until the queue was empty.
    rate: f64,
    /// The receiver's time on a processor for each datagram, in nanoseconds.
    cpu: f64,
    /// The share of what was sent that the kernel threw away.
    dropped: f64,
}

/// Whoever takes datagrams.
pub(crate) trait Receiver {
    fn pid(&self) -> u32;

    /// Where it takes those of `load`.
    fn address(&self, load: &Load) -> Fallible<SocketAddr>;

    /// Called before a run.
    fn begin(&mut self, load: &Load) -> Fallible<()>;

    /// Called after a run: how many it took. `dropped` were thrown away by the kernel.
    fn finish(&mut self, load: &Load, dropped: u64) -> Fallible<u64>;
}

/// Has `receiver` take what one sender sends.
fn run(receiver: &mut dyn Receiver, load: &Load, manner: Manner) -> Fallible<Flow> {
    let address = receiver.address(load)?;
    let arguments = ["role-send-udp".to_owned(), address.to_string()].into_iter().chain(load.arguments());
    let mut sender = Process::start(programs::role(arguments).stdin(Stdio::piped()))?;
    expect(&sender, "ready")?;
    sys::keep_to_core(sender.pid(), SENDERS_CORE)?;
    receiver.begin(load)?;
    let dropped_before = Queue::of(address)?.dropped;
    let cpu_before = cpu_time(receiver.pid())?;

    let mut time = Duration::ZERO;
    let mut left = load.frames;
    while left > 0 {
        let count = left.min(if manner == Manner::FullQueue { FILL } else { u64::MAX });
        left -= count;
        let mut start = Instant::now();
        if manner == Manner::FullQueue {
            send_signal(receiver.pid(), Signal::Stop)?;
        }
        sender.tell(count)?;
        expect(&sender, "sent")?;
        if manner == Manner::FullQueue {
            start = Instant::now();
            send_signal(receiver.pid(), Signal::Continue)?;
        }
        wait_for("an empty queue", || Ok((Queue::of(address)?.waiting == 0).then_some(())))?;
        time += start.elapsed();
    }
    std::thread::sleep(SETTLE);
    let cpu = cpu_time(receiver.pid())? - cpu_before;
    let dropped = Queue::of(address)?.dropped - dropped_before;
    let received = receiver.finish(load, dropped)?;
    if received + dropped != load.frames {
        let sent = load.frames;
        return Err(format!("{sent} were sent, {received} received and {dropped} dropped").into());
    }
    Ok(Flow {
        rate: rate(received, time),
        cpu: cpu.as_nanos() as f64 / received as f64,
        dropped: dropped as f64 / load.frames as f64,
    })
}

/// Has several runs, each of them a receiver's number and a load, take turns, after a round to warm up. Whoever is first
/// in one round is second in the next.
pub(crate) fn take_turns(
    receivers: &mut [&mut dyn Receiver],
    runs: &[(usize, Load)],
    manner: Manner,
) -> Fallible<Vec<Vec<Flow>>> {
    let mut flows = vec![Vec::new(); runs.len()];
    for round in 0..=ROUNDS {
        for place in 0..runs.len() {
            let turn = (place + runs.len() * ROUNDS - round) % runs.len();
            let (receiver, load) = &runs[turn];
            let flow = run(receivers[*receiver], load, manner)?;
            if round > 0 {
                flows[turn].push(flow);
            }
        }
    }
    Ok(flows)
}

/// The rows of what was measured in one manner. The reach is for how many datagrams a second are taken.
pub(crate) fn rows(
    (what, who): (&str, &str),
    manner: Manner,
    ours: &[Flow],
    yardsticks: &[(&str, &[Flow])],
    reach: Reach,
) -> Fallible<Vec<Row>> {
    let mut rows = Vec::new();
    if manner == Manner::FlatOut {
        let dropped = median(&mut ours.iter().map(|flow| flow.dropped).collect::<Vec<_>>()).unwrap_or(0.0);
        let work = format!("{what} ingest, {who}, {:.1} % dropped", dropped * 100.0);
        rows.push(row(work, &RATE, ours, yardsticks, reach)?);
    }
    rows.push(row(format!("CPU, {what}, {who}, {manner}"), &CPU, ours, yardsticks, Reach::NONE)?);
    Ok(rows)
}

/// What is compared of two flows, and with which of several yardsticks.
pub(crate) struct Figure {
    of: fn(&Flow) -> f64,
    compare: WithBest,
    show: fn(f64) -> String,
}

/// Datagrams a second, beside the fastest.
const RATE: Figure = Figure { of: |flow| flow.rate, compare: Comparison::with_highest, show: show_rate };
/// Time on a processor for each datagram, beside the cheapest.
pub(crate) const CPU: Figure =
    Figure { of: |flow| flow.cpu, compare: Comparison::with_lowest, show: show_nanos };

/// A row of one figure, beside the best of the yardsticks.
pub(crate) fn row(
    work: String,
    figure: &Figure,
    ours: &[Flow],
    yardsticks: &[(&str, &[Flow])],
    reach: Reach,
) -> Fallible<Row> {
    let figures = |flows: &[Flow]| flows.iter().map(figure.of).collect::<Vec<f64>>();
    let all: Vec<_> = yardsticks.iter().map(|(_, flows)| figures(flows)).collect();
    let (best, compared) = (figure.compare)(&figures(ours), &all)?;
    Ok(Row::new(work, &compared, yardsticks[best].0, figure.show, reach))
}

fn expect(process: &Process, word: &str) -> Fallible<()> {
    let line = process.line()?;
    if line == word { Ok(()) } else { Err(line.into()) }
}

/// What the kernel says of a UDP socket.
pub(crate) struct Queue {
    /// Bytes that wait to be read.
    pub(crate) waiting: u64,
    dropped: u64,
}

impl Queue {
    /// That of the socket with this port.
    pub(crate) fn of(address: SocketAddr) -> Fallible<Self> {
        let port = format!(":{:04X}", address.port());
        // A list that changes while it is read may lack a line.
        wait_for("the kernel's word for a socket", || {
            let sockets = fs::read_to_string("/proc/net/udp")?;
            Ok(sockets.lines().find_map(|line| Self::of_line(line, &port)))
        })
    }

    fn of_line(line: &str, port: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        fields.get(1)?.ends_with(port).then_some(())?;
        let (_, waiting) = fields.get(4)?.split_once(':')?;
        let dropped = fields.get(12)?.parse().ok()?;
        Some(Queue { waiting: u64::from_str_radix(waiting, 16).ok()?, dropped })
    }
}

/// The server, and its counts at the beginning of a run.
pub(crate) struct Watched {
    server: Server,
    before: Counts,
}

impl Watched {
    /// Starts a server that listens on loopback, on sockets of both kinds if it gets keys.
    pub(crate) fn start(more: &[&str]) -> Fallible<Self> {
        let buffer = RECEIVE_BUFFER.to_string();
        let arguments = [
            ["--socket", "none", "--udp", "127.0.0.1:0", "--udp-receive-buffer", &buffer],
            // Nobody stalls, so that there is nothing to do but to take beats.
            ["--max-agents-per-source", "0", "--stall-after", "1h", "--agent-metrics", "off"],
        ];
        let server = Server::start(arguments.as_flattened().iter().chain(more))?;
        sys::keep_to_core(server.pid(), RECEIVERS_CORE)?;
        Ok(Watched { server, before: Counts::default() })
    }
}

impl Receiver for Watched {
    fn pid(&self) -> u32 {
        self.server.pid()
    }

    fn address(&self, load: &Load) -> Fallible<SocketAddr> {
        if load.kind.transport() == "udp" { self.server.udp() } else { self.server.secure_udp() }
    }

    fn begin(&mut self, load: &Load) -> Fallible<()> {
        self.before = self.server.counts(load.kind.transport())?;
        Ok(())
    }

    fn finish(&mut self, load: &Load, dropped: u64) -> Fallible<u64> {
        let mut last = Counts::default();
        let settled = wait_for("counts that balance", || {
            last = self.server.counts(load.kind.transport())?.since(self.before);
            Ok((last.sum() == load.frames).then_some(()))
        });
        let (taken, wrong) = if load.kind.is_genuine() {
            (last.accepted, last.refused)
        } else {
            (last.refused, last.accepted)
        };
        if settled.is_err() || wrong > 0 || last.dropped != dropped {
            return Err(format!("{load:?}: {last:?}, and by the kernel's count {dropped} dropped").into());
        }
        Ok(taken)
    }
}

/// A bare loop in a process of its own.
pub(crate) struct Bare {
    process: Process,
    address: SocketAddr,
}

impl Bare {
    pub(crate) fn start(waits: Waits) -> Fallible<Self> {
        let process = Process::start(&mut programs::role(["role-receive-udp", waits.name()]))?;
        let address = process.line()?.parse()?;
        sys::keep_to_core(process.pid(), RECEIVERS_CORE)?;
        Ok(Bare { process, address })
    }
}

impl Receiver for Bare {
    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn address(&self, _: &Load) -> Fallible<SocketAddr> {
        Ok(self.address)
    }

    fn begin(&mut self, _: &Load) -> Fallible<()> {
        Ok(())
    }

    fn finish(&mut self, _: &Load, _: u64) -> Fallible<u64> {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(&FAREWELL, self.address)?;
        Ok(self.process.line()?.parse()?)
    }
}

/// The yardstick's process: `HOW`. Prints its address, and after each farewell how many datagrams came before that.
pub(crate) fn receive(arguments: &[String]) -> Fallible<()> {
    let [how] = arguments else { return Err("wants HOW".into()) };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    sys::enlarge_queue(&socket, RECEIVE_BUFFER)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    println!("{}", socket.local_addr()?.as_socket().ok_or("no address")?);
    let mut bare = BareLoop::new(socket.into(), sys::Sender::Address, Waits::named(how)?)?;
    loop {
        let (received, _) = std::hint::black_box(bare.run(Until::Farewell)?);
        println!("{received}");
    }
}
