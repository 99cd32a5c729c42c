//! Starting what is measured, and saying on what machine.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Fallible;

/// A child process that does not outlive the benchmark.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server and where its metrics are.
pub(crate) struct Server {
    process: Process,
    metrics: String,
}

impl Server {
    /// Builds the server as it is released and starts it on `socket`.
    pub(crate) fn start(socket: &Path) -> Fallible<Self> {
        let target = target_directory()?;
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet", "-p", "varta-server", "--target-dir"])
            .arg(&target)
            .status()?;
        if !built.success() {
            return Err("cannot build varta-server".into());
        }
        let mut child = Command::new(target.join("release/varta-server"))
            .arg("--socket")
            .arg(socket)
            .args(["--metrics-addr", "127.0.0.1:0", "--max-beat-rate", "0", "--log-format", "text"])
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
        let process = Process(child);
        let metrics = loop {
            let line = lines.next().ok_or("the server ended before it said where its metrics are")??;
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.trim_end_matches("/metrics").to_owned();
            }
        };
        // Somebody has to read the rest, or the pipe fills.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Server { process, metrics })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// The value of the sample whose name and labels are `sample`.
    pub(crate) fn sample(&self, sample: &str) -> Fallible<u64> {
        let mut stream = TcpStream::connect(&self.metrics)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let value = answer.lines().find_map(|line| line.strip_prefix(sample)).ok_or("no such sample")?;
        Ok(value.trim().parse()?)
    }
}

/// The published observer, if `scripts/test` or somebody else has put it there.
pub(crate) fn peer(socket: &Path) -> Fallible<Option<Process>> {
    let program = target_directory()?.join("foreign/bin/varta-watch");
    if !program.exists() {
        return Ok(None);
    }
    let child = Command::new(program)
        .arg("--socket")
        .arg(socket)
        .args(["--threshold-ms", "5000", "--max-beat-rate", "0", "--global-beat-rate", "0"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Some(Process(child)))
}

/// This program once more, in another role.
pub(crate) fn role(arguments: &[&str]) -> Command {
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
