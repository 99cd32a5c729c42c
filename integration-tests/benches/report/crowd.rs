//! A thousand processes that beat as fast as they may through one Unix socket: how much is taken of all together, and how
//! fairly they are served.
//!
//! All of them are started and known first, and then begin at one moment. A blocking send that finds the queue full
//! sleeps, and whom the kernel wakes next is not the receiver's to say; but a receiver that reads in bigger gulps, or
//! pauses, is seen in it. What each sender counts is checked against the server's own row for it.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use varta_agent::{Frame, Status};

use crate::Fallible;
use crate::ingest::bare_loop;
use crate::programs::{self, Process, Server, wait_for};
use crate::statistics::{Comparison, show_rate};
use crate::sys::{self, FAREWELL, Until, Waits};
use crate::table::{Reach, Row};
use crate::verdicts::now;

const SENDERS: usize = 1_000;
const ROUNDS: usize = 3;
/// How long they send.
const SPAN: Duration = Duration::from_secs(3);
/// From when all are ready until they begin.
const NOTICE: Duration = Duration::from_millis(200);

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let (path, bare_path) = (directory.path().join("varta.sock"), directory.path().join("bare.sock"));
    let server = Server::start(["--socket".as_ref(), path.as_os_str()])?;
    let mut ours = Served::default();
    let mut bare = Waits::ALL.map(|_| Served::default());
    for _ in 0..ROUNDS {
        for (waits, served) in Waits::ALL.into_iter().zip(&mut bare) {
            let arguments = ["role-receive-crowd", &bare_path.to_string_lossy(), waits.name()];
            let receiver = Process::start(&mut programs::role(arguments))?;
            receiver.line()?;
            let crowd = Crowd::start(&bare_path)?;
            let round = crowd.run()?;
            let farewell = UnixDatagram::unbound()?;
            farewell.send_to(&FAREWELL, &bare_path)?;
            round.check(receiver.line()?.parse()?)?;
            served.add(&round)?;
            std::fs::remove_file(&bare_path)?;
        }
        let before = server.counts("unix")?.accepted;
        let crowd = Crowd::start(&path)?;
        let round = crowd.run()?;
        let expected = before + round.sent();
        wait_for(&format!("{expected} beats counted"), || {
            Ok((server.counts("unix")?.accepted == expected).then_some(()))
        })?;
        let scrape = server.scrape()?;
        for (pid, count) in &round.counts {
            let booked = scrape.sum("varta_beats_total", &[("pid", pid)]);
            if booked != *count as f64 {
                return Err(format!("{pid} has sent {count} beats, and its row says {booked}").into());
            }
        }
        ours.add(&round)?;
    }
    let rates: Vec<_> = bare.iter().map(|served| served.rates.clone()).collect();
    let (best, compared) = Comparison::with_highest(&ours.rates, &rates)?;
    let title = Waits::ALL[best].title();
    let reach = Reach { text: "≥ 0.9", holds: |compared| compared.ratio >= 0.9 };
    let half = Reach { text: "≥ 0.5", holds: |compared| compared.ratio >= 0.5 };
    let fairness = |who: &str, served: &Served, reach| {
        let compared = Comparison::of(&served.least, &served.means)?;
        let show = |beats: f64| format!("{beats:.0} beats");
        let work = format!("{who}: least of 1,000 agents beside their mean");
        Fallible::Ok(Row::new(work, &compared, "mean", show, reach))
    };
    Ok(vec![
        Row::new("ingest, nothing lost, 1,000 senders (sleeping)", &compared, title, show_rate, reach),
        fairness("ingest", &ours, half)?,
        fairness(title.trim_end_matches(':'), &bare[best], Reach::NONE)?,
    ])
}

/// How a receiver has served the senders, round by round.
#[derive(Default)]
struct Served {
    rates: Vec<f64>,
    /// Beats of the sender that got the fewest.
    least: Vec<f64>,
    means: Vec<f64>,
}

impl Served {
    fn add(&mut self, round: &Round) -> Fallible<()> {
        // The first beat of each is from before the round.
        let counts = || round.counts.iter().map(|(_, count)| count - 1);
        let (sum, least) = (counts().sum::<u64>() as f64, counts().min().ok_or("no senders")? as f64);
        self.rates.push(sum / round.time.as_secs_f64());
        self.least.push(least);
        self.means.push(sum / round.counts.len() as f64);
        Ok(())
    }
}

/// What the senders say of a round. While it is there they are, so that each has its row yet.
struct Round {
    /// Pids, and beats that were sent.
    counts: Vec<(String, u64)>,
    /// From the beginning until the last of them ended.
    time: Duration,
    _crowd: Crowd,
}

impl Round {
    fn sent(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    fn check(&self, received: u64) -> Fallible<()> {
        let sent = self.sent();
        if sent == received {
            Ok(())
        } else {
            Err(format!("{sent} were sent, and {received} received").into())
        }
    }
}

/// The sending processes, with two pipes for all: what they are told and what they say.
struct Crowd {
    senders: Vec<Child>,
    told: Option<PipeWriter>,
    said: BufReader<PipeReader>,
}

impl Crowd {
    /// Starts them and waits until each has beaten once.
    fn start(path: &Path) -> Fallible<Self> {
        let (hears, told) = std::io::pipe()?;
        let (said, says) = std::io::pipe()?;
        let mut crowd = Crowd { senders: Vec::new(), told: Some(told), said: BufReader::new(said) };
        for _ in 0..SENDERS {
            let mut command = programs::role(["role-send-crowd".as_ref(), path.as_os_str()]);
            command.stdin(Stdio::from(hears.try_clone()?)).stdout(Stdio::from(says.try_clone()?));
            crowd.senders.push(sys::die_together(&mut command).spawn()?);
        }
        // Nobody else holds these ends: when the last sender is gone, that is seen.
        drop((hears, says));
        for _ in 0..SENDERS {
            let line = crowd.line()?;
            if line != "ready" {
                return Err(line.into());
            }
        }
        Ok(crowd)
    }

    fn line(&mut self) -> Fallible<String> {
        let mut line = String::new();
        if self.said.read_line(&mut line)? == 0 {
            return Err("the senders have gone".into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Has all begin at one moment, and waits for what they have to say.
    fn run(mut self) -> Fallible<Round> {
        let begin = now()? + NOTICE;
        let begin_nanos = u64::try_from(begin.as_nanos())?.to_le_bytes();
        let told = self.told.as_mut().ok_or("nobody listens")?;
        told.write_all(&begin_nanos.repeat(SENDERS))?;
        let (mut counts, mut end) = (Vec::new(), begin);
        for _ in 0..SENDERS {
            let line = self.line()?;
            let fields: Vec<&str> = line.split(' ').collect();
            let [pid, count, ended] = fields[..] else { return Err(line.into()) };
            counts.push((pid.to_owned(), count.parse()?));
            end = end.max(Duration::from_nanos(ended.parse()?));
        }
        Ok(Round { counts, time: end.saturating_sub(begin), _crowd: self })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // They wait for the end of what they are told.
        self.told = None;
        for sender in &mut self.senders {
            let _ = sender.wait();
        }
    }
}

/// A sender's process: `PATH`. Beats once and says so, reads when to begin, beats as fast as it may until the time is over,
/// says its pid, how many beats that were and when it was done, and stays until nobody listens to it any more.
pub(crate) fn send(arguments: &[String]) -> Fallible<()> {
    let [path] = arguments else { return Err("wants PATH".into()) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    let pid = std::process::id();
    let made_at = Instant::now();
    let mut sent = 0;
    let mut beat = || {
        sent += 1;
        let timestamp = u64::try_from(made_at.elapsed().as_nanos())?;
        socket.send(&Frame::new(Status::Ok, pid, timestamp, sent, 0).to_bytes())?;
        Fallible::Ok(sent)
    };
    let mut count = beat()?;
    say("ready\n")?;
    // Without a buffer, which would take what is for the others.
    let mut told = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut begin = [0; 8];
    told.read_exact(&mut begin)?;
    let begin = Duration::from_nanos(u64::from_le_bytes(begin));
    std::thread::sleep(begin.saturating_sub(now()?));
    let start = Instant::now();
    while start.elapsed() < SPAN {
        count = beat()?;
    }
    say(&format!("{pid} {count} {}\n", now()?.as_nanos()))?;
    told.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Writes a line in one piece, for others write to the same pipe.
fn say(line: &str) -> Fallible<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}

/// The yardstick's process: `PATH HOW`. Prints a line when it is ready, and after the farewell how many datagrams came.
pub(crate) fn receive(arguments: &[String]) -> Fallible<()> {
    let [path, how] = arguments else { return Err("wants PATH HOW".into()) };
    let mut bare = bare_loop(path, how)?;
    println!("ready");
    let (received, _) = std::hint::black_box(bare.run(Until::Farewell)?);
    println!("{received}");
    Ok(())
}
