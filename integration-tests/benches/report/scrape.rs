//! `/metrics` with very many agents: what a scrape takes away from ingest, and how long it takes beside writing as many
//! rows into memory.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use varta_integration_tests::http;

use crate::Fallible;
use crate::ingest::send_all;
use crate::paced::{self, Paced};
use crate::programs::{self, Process, Server, wait_for};
use crate::statistics::{Comparison, rate, show_rate};
use crate::table::{Reach, Row};

const AGENTS: u32 = 100_000;
const FRAMES: u64 = 1_000_000;
/// More than are sent while scrapes are timed.
const ENDLESS: u64 = 1 << 40;
const ROUNDS: usize = 5;
const EVERY: Duration = Duration::from_secs(1);

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("varta.sock");
    let socket = path.to_string_lossy();
    let server = Server::start(paced::ARGUMENTS.iter().copied().chain([
        "--socket",
        &*socket,
        "--agent-metrics",
        "all",
        "--stall-after",
        "1h",
    ]))?;
    let mut crowd = Paced::new(&server, AGENTS)?;
    (0..AGENTS).try_for_each(|agent| crowd.beat(agent))?;
    wait_for("a row for each agent", || {
        let body = http::get(server.metrics(), "/metrics", &[])?.body;
        let rows = body.lines().filter(|line| line.starts_with("varta_beats_total{")).count();
        Ok((rows == AGENTS as usize).then_some(()))
    })?;
    let rows = Body::read(server.metrics())?.rows;

    let (mut alone, mut scraped) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(rate(FRAMES, send_all(&path, FRAMES, "sleeping")?));
        let scraper = Scraper::start(server.metrics());
        scraped.push(rate(FRAMES, send_all(&path, FRAMES, "sleeping")?));
        scraper.stop()?;
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let arguments = ["role-send", &*socket, &ENDLESS.to_string(), "sleeping"];
    let sender = Process::start(&mut programs::role(arguments))?;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let body = Body::read(server.metrics())?;
        ours.push(start.elapsed().as_secs_f64());
        if body.rows < rows {
            return Err(format!("{} rows, and there were {rows}", body.rows).into());
        }
        bare.push(format_rows(&body).as_secs_f64());
    }
    drop(sender);
    let kept = Reach { text: "≥ 0.95", holds: |compared| compared.ratio >= 0.95 };
    let quick = Reach { text: "≤ 3", holds: |compared| compared.ratio <= 3.0 };
    let show = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
    Ok(vec![
        Row::new(
            "ingest, one scrape of 100,000 agents a second",
            &Comparison::of(&scraped, &alone)?,
            "without",
            show_rate,
            kept,
        ),
        Row::new(
            format!("scrape of 100,000 agents, {rows} rows, during ingest"),
            &Comparison::of(&ours, &bare)?,
            "as many rows into one buffer",
            show,
            quick,
        ),
    ])
}

/// Size and rows of an answer that was read to its end.
struct Body {
    bytes: usize,
    rows: usize,
}

impl Body {
    /// Asks for the metrics. What is read is counted and thrown away.
    fn read(address: SocketAddr) -> Fallible<Self> {
        let mut stream = http::connect(address)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut room = vec![0; 1 << 20];
        let mut body = Body { bytes: 0, rows: 0 };
        loop {
            let length = stream.read(&mut room)?;
            if length == 0 {
                break;
            }
            body.bytes += length;
            body.rows += room[..length].iter().filter(|byte| **byte == b'\n').count();
        }
        Ok(body)
    }
}

/// Somebody who scrapes once a second.
struct Scraper {
    enough: mpsc::Sender<()>,
    thread: thread::JoinHandle<Result<(), String>>,
}

impl Scraper {
    fn start(address: SocketAddr) -> Self {
        let (enough, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut next = Instant::now() + EVERY / 2;
            // Told something or told nothing any more, it is over.
            while told.recv_timeout(next.saturating_duration_since(Instant::now()))
                == Err(mpsc::RecvTimeoutError::Timeout)
            {
                Body::read(address).map_err(|error| error.to_string())?;
                next += EVERY;
            }
            Ok(())
        });
        Scraper { enough, thread }
    }

    fn stop(self) -> Fallible<()> {
        drop(self.enough);
        Ok(self.thread.join().map_err(|_| "the scraper has panicked")??)
    }
}

/// The yardstick: how long it takes to write as many rows, on average as long, into one buffer.
fn format_rows(body: &Body) -> Duration {
    // The name is as long as it takes; the quote, the value and the end of the line follow.
    let length = (body.bytes / body.rows.max(1)).saturating_sub("\"} 0\n".len());
    let name = "a".repeat(length);
    let start = Instant::now();
    let mut buffer = String::with_capacity(body.bytes);
    for row in 0..body.rows {
        let begun = buffer.len();
        // Writing into memory does not fail.
        let _ = write!(buffer, "varta_agent_payload{{pid=\"{row}\",transport=\"udp\",agent=\"");
        buffer.push_str(&name[(buffer.len() - begun).min(length)..]);
        let _ = writeln!(buffer, "\"}} {}", row % 10);
    }
    black_box(&buffer);
    start.elapsed()
}
