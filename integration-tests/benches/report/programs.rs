//! Starting what is measured, and saying on what machine. Nothing in here waits without a limit.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub(crate) use varta_integration_tests::LIMIT;
use varta_integration_tests::{Scrape, http, wait_for_at};

use crate::{Fallible, sys};

/// The pause between two calls of a probe: short, because what is measured may end with one of them.
const PAUSE: Duration = Duration::from_micros(100);

/// A child process that does not outlive the benchmark, and the lines that it prints.
pub(crate) struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts a program, of which one output at the most is a pipe.
    pub(crate) fn start(command: &mut Command) -> Fallible<Self> {
        let mut child = sys::die_together(command).spawn()?;
        let stdout = child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
        let stderr = child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
        let (to_lines, lines) = mpsc::channel();
        if let Some(stream) = stdout.or(stderr) {
            // It reads on when nobody listens any more, or the pipe would fill.
            std::thread::spawn(move || {
                let read = BufReader::new(stream).lines().map_while(Result::ok);
                read.for_each(|line| drop(to_lines.send(line)));
            });
        }
        Ok(Process { child, lines })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub(crate) fn line(&self) -> Fallible<String> {
        self.lines
            .recv_timeout(LIMIT)
            .map_err(|error| format!("a child process says nothing: {error}").into())
    }

    /// Writes a line to its standard input, which is a pipe.
    pub(crate) fn tell(&mut self, what: impl std::fmt::Display) -> Fallible<()> {
        Ok(writeln!(self.child.stdin.as_mut().ok_or("no standard input")?, "{what}")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls `probe` again and again until it gives a value, for [`LIMIT`] at the most.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Fallible<Option<T>>) -> Fallible<T> {
    wait_for_at(PAUSE, LIMIT, || probe().transpose())
        .unwrap_or_else(|| Err(format!("not within {LIMIT:?}: {what}").into()))
}

/// A running server and where it can be reached.
pub(crate) struct Server {
    process: Process,
    metrics: SocketAddr,
    udp: Option<SocketAddr>,
    secure_udp: Option<SocketAddr>,
}

impl Server {
    /// Starts the server as it is released, with no limit on what an agent may send.
    pub(crate) fn start<T: AsRef<OsStr>>(arguments: impl IntoIterator<Item = T>) -> Fallible<Self> {
        let process = Process::start(
            Command::new(server()?)
                .args(["--metrics-addr", "127.0.0.1:0", "--max-beat-rate", "0", "--log-format", "json"])
                .args(arguments)
                .stderr(Stdio::piped()),
        )?;
        let (mut udp, mut secure_udp) = (None, None);
        let metrics = loop {
            let line = process.line()?;
            if let Some(address) = after(&line, "listening on udp:", ';') {
                udp = Some(address);
            } else if let Some(address) = after(&line, "listening on secure-udp:", ';') {
                secure_udp = Some(address);
            } else if let Some(address) = after(&line, "http://", '/') {
                break address;
            }
        };
        Ok(Server { process, metrics, udp, secure_udp })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The next line of its log.
    pub(crate) fn line(&self) -> Fallible<String> {
        self.process.line()
    }

    /// Where it listens for plaintext.
    pub(crate) fn udp(&self) -> Fallible<SocketAddr> {
        Ok(self.udp.ok_or("the server has no socket for plaintext")?)
    }

    /// Where it listens for sealed datagrams.
    pub(crate) fn secure_udp(&self) -> Fallible<SocketAddr> {
        Ok(self.secure_udp.ok_or("the server has no socket for sealed datagrams")?)
    }

    /// Where it is asked over HTTP.
    pub(crate) fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    pub(crate) fn scrape(&self) -> Fallible<Scrape> {
        Ok(Scrape::parse(&http::get(self.metrics, "/metrics", &[])?.body)?)
    }

    /// What has become of the datagrams of a transport so far.
    pub(crate) fn counts(&self, transport: &str) -> Fallible<Counts> {
        let scrape = self.scrape()?;
        let of_transport = ("transport", transport);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole")]
        let sum = |name, labels: &[_]| scrape.sum(name, labels) as u64;
        let accepted = sum("varta_frames_total", &[of_transport, ("outcome", "accepted")]);
        Ok(Counts {
            accepted,
            refused: sum("varta_frames_total", &[of_transport]) - accepted,
            dropped: sum("varta_kernel_drops_total", &[of_transport]),
        })
    }
}

/// What a server counts of datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// What the tracker took.
    pub(crate) accepted: u64,
    /// What was read and refused, for whatever reason.
    pub(crate) refused: u64,
    /// What the kernel dropped because the queue was full.
    pub(crate) dropped: u64,
}

impl Counts {
    pub(crate) const fn since(self, before: Self) -> Self {
        Counts {
            accepted: self.accepted - before.accepted,
            refused: self.refused - before.refused,
            dropped: self.dropped - before.dropped,
        }
    }

    pub(crate) const fn sum(self) -> u64 {
        self.accepted + self.refused + self.dropped
    }
}

/// The address between `mark` and `end`.
fn after(line: &str, mark: &str, end: char) -> Option<SocketAddr> {
    line.split_once(mark)?.1.split(end).next()?.parse().ok()
}

/// The server's program as it is released, built if it is not.
pub(crate) fn server() -> Fallible<PathBuf> {
    let target = target_directory()?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--quiet", "-p", "varta-server", "--target-dir"]).arg(&target);
    // What cargo has told this program of its own package would have build scripts run anew that ask for it, and after
    // them most of the server be built again, now and at the next start of the benchmark.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            cargo.env_remove(name);
        }
    }
    let built = cargo.status()?;
    if built.success() {
        Ok(target.join("release/varta-server"))
    } else {
        Err("cannot build varta-server".into())
    }
}

/// The published observer's program, if `scripts/test` or somebody else has put it there.
pub(crate) fn peers_server() -> Fallible<Option<PathBuf>> {
    let program = target_directory()?.join("foreign/bin/varta-watch");
    Ok(program.exists().then_some(program))
}

/// The published observer, if its program is there.
pub(crate) fn peer<T: AsRef<OsStr>>(
    socket: &Path,
    arguments: impl IntoIterator<Item = T>,
) -> Fallible<Option<Process>> {
    let Some(program) = peers_server()? else { return Ok(None) };
    let process = Process::start(
        Command::new(program)
            .arg("--socket")
            .arg(socket)
            .args(["--max-beat-rate", "0", "--global-beat-rate", "0"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )?;
    wait_for("the peer's socket", || Ok(socket.exists().then_some(())))?;
    Ok(Some(process))
}

/// This program once more, in another role.
pub(crate) fn role<T: AsRef<OsStr>>(arguments: impl IntoIterator<Item = T>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// `target`, of which this program is in `release/deps`.
fn target_directory() -> Fallible<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.ancestors().nth(3).ok_or("this program is not in a target directory")?.to_path_buf())
}

/// Processor, cores, kernel and the length of a Unix socket's queue.
pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{}, {cores} cores, Linux {}, max_dgram_qlen {}",
        model.trim_start_matches([':', ' ', '\t']),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/sys/net/unix/max_dgram_qlen").trim(),
    )
}

/// Time on a processor that a process has had so far, all threads together.
pub(crate) fn cpu_time(pid: u32) -> Fallible<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += text.split_ascii_whitespace().next().ok_or("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}
