//! What becomes of the beats of some while the deadlines of a million others pass in one second.
//!
//! A million agents say that they are busy until one moment, each with a Hello, and are silent from then on. When that
//! moment comes so many are silent that the server doubts its own eyes first and calls them unknown, and stalled when
//! they have had another stall-after: so there are two bursts. Meanwhile 100,000 others beat evenly, and a probe sends
//! through the Unix socket as fast as it may. Its queue is short, so a blocking send that takes long tells that nobody
//! has read for as long.

use std::io::{BufRead, stdin};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use varta_agent::{Frame, Status};

use crate::Fallible;
use crate::paced::{self, Paced};
use crate::programs::{self, Process, Server};
use crate::statistics::Comparison;
use crate::table::{Reach, Row};
use crate::verdicts::now;

const SILENT: u32 = 1_000_000;
const BEATING: u32 = 100_000;
/// Beats a second of those that beat, all together.
const RATE: u32 = 20_000;
const STALL_AFTER: Duration = Duration::from_secs(10);
/// From the beginning until the million is silent no longer with leave: first they all have to be known.
const BUSY: Duration = Duration::from_secs(36);
/// How much before the first burst and after the second belongs to them.
const MARGIN: Duration = Duration::from_secs(2);
/// For how long the longest gap is looked for, with the bursts and without.
const WINDOW: Duration = Duration::from_secs(2 * MARGIN.as_secs() + STALL_AFTER.as_secs());

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("varta.sock");
    let (socket, stall_after) = (path.to_string_lossy(), format!("{}s", STALL_AFTER.as_secs()));
    let server = Server::start(paced::ARGUMENTS.iter().copied().chain([
        "--socket",
        &*socket,
        // A quarter is kept free of those that come over UDP.
        "--max-agents",
        "1600000",
        "--agent-metrics",
        "off",
        "--stall-after",
        &stall_after,
    ]))?;
    let mut crowd = Paced::new(&server, SILENT + BEATING)?;
    let busy_until = now()? + BUSY;
    for agent in 0..SILENT {
        crowd.beat(agent)?;
        let left = busy_until.checked_sub(now()?).ok_or("too slow to make them all known")?;
        crowd.be_busy(agent, u32::try_from(left.as_millis())?)?;
    }
    let mut beating = Beating { crowd, begun_at: Instant::now(), beats: 0 };
    let mut probe =
        Process::start(programs::role(["role-probe".as_ref(), path.as_os_str()]).stdin(Stdio::piped()))?;
    let quiet_from = now()?;
    let bursts_from = busy_until - MARGIN;
    if quiet_from + WINDOW > bursts_from {
        return Err("it took too long to make them all known".into());
    }
    let end = bursts_from + WINDOW;
    while now()? < end {
        beating.beat_those_due()?;
        thread::sleep(Duration::from_millis(1));
    }
    probe.tell("enough")?;
    let gaps = Gaps::read(&probe)?;
    beating.crowd.await_taken(&server)?;
    check(&server, &gaps)?;
    let compared = Comparison::once(
        gaps.longest(bursts_from, end).as_secs_f64(),
        gaps.longest(bursts_from - WINDOW, bursts_from).as_secs_f64(),
    );
    let show = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
    let reach = Reach { text: "≤ 3", holds: |compared| compared.ratio <= 3.0 };
    let work = "longest gap in ingest while 1,000,000 agents expire at once";
    Ok(vec![Row::new(work, &compared, "before that", show, reach)])
}

/// That the million was doubted and is stalled, and nobody else is, and that nothing of the probe's was lost.
fn check(server: &Server, gaps: &Gaps) -> Fallible<()> {
    let scrape = server.scrape()?;
    let in_state = |state| scrape.sum("varta_agents", &[("state", state)]);
    // The probe has gone.
    let states = (in_state("up"), in_state("unknown"), in_state("stalled"));
    if states != (f64::from(BEATING), 0.0, f64::from(SILENT)) {
        return Err(format!("up, unknown and stalled are {states:?}").into());
    }
    let doubted = scrape.sum("varta_transitions_total", &[("to", "unknown")]);
    if doubted < f64::from(SILENT) / 2.0 {
        return Err(format!("of the first burst only {doubted} were called unknown").into());
    }
    let counts = server.counts("unix")?;
    if counts.accepted != gaps.sent || counts.refused + counts.dropped > 0 {
        return Err(format!("the probe has sent {}, {counts:?}", gaps.sent).into());
    }
    Ok(())
}

/// Those that beat.
struct Beating {
    crowd: Paced,
    begun_at: Instant,
    beats: u32,
}

impl Beating {
    /// Has those beat whose turn has come.
    fn beat_those_due(&mut self) -> Fallible<()> {
        while Duration::from_secs(1) * self.beats / RATE < self.begun_at.elapsed() {
            self.crowd.beat(SILENT + self.beats % BEATING)?;
            self.beats += 1;
        }
        Ok(())
    }
}

/// What the probe has to say: when it looked back, and the longest send since it last had.
struct Gaps {
    longest: Vec<(Duration, Duration)>,
    sent: u64,
}

impl Gaps {
    fn read(probe: &Process) -> Fallible<Self> {
        let mut longest = Vec::new();
        loop {
            let line = probe.line()?;
            let fields = line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>();
            match fields.map_err(|_| line)?[..] {
                [at, gap] => longest.push((Duration::from_nanos(at), Duration::from_nanos(gap))),
                [sent] => return Ok(Gaps { longest, sent }),
                _ => return Err("a line of another kind".into()),
            }
        }
    }

    fn longest(&self, from: Duration, to: Duration) -> Duration {
        let within = self.longest.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, gap)| *gap).max().unwrap_or_default()
    }
}

/// The probe's process: `PATH`. Sends as fast as it may until it is told something. Prints every tenth of a second when
/// that was and how long the longest send since the last line took, in nanoseconds; and at last how many there were.
pub(crate) fn probe(arguments: &[String]) -> Fallible<()> {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    let [path] = arguments else { return Err("wants PATH".into()) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    thread::spawn(|| {
        // Told something or told nothing any more, it is over.
        let _ = stdin().lock().read_line(&mut String::new());
        ENOUGH.store(true, Ordering::Relaxed);
    });
    let (pid, begun_at) = (std::process::id(), Instant::now());
    let (mut sent, mut longest, mut told_at) = (0, Duration::ZERO, begun_at);
    while !ENOUGH.load(Ordering::Relaxed) {
        sent += 1;
        let before = Instant::now();
        let timestamp = u64::try_from(before.duration_since(begun_at).as_nanos())?;
        socket.send(&Frame::new(Status::Ok, pid, timestamp, sent, 0).to_bytes())?;
        let after = Instant::now();
        longest = longest.max(after.duration_since(before));
        if after.duration_since(told_at) >= Duration::from_millis(100) {
            println!("{} {}", now()?.as_nanos(), longest.as_nanos());
            (longest, told_at) = (Duration::ZERO, after);
        }
    }
    println!("{sent}");
    Ok(())
}
