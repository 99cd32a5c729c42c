//! A server's standard error, line by line.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::ChildStderr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// One change of verdict, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When the line was written, by the wall clock.
    pub timestamp: String,
    /// The agent's name.
    pub agent: String,
    /// Its pid.
    pub pid: u32,
    /// The address that its beats come from; empty for an agent of this host.
    pub host: String,
    /// How its beats arrive.
    pub transport: String,
    /// The verdict before; `none` for an agent that was not known.
    pub from: String,
    /// The verdict now.
    pub to: String,
    /// The cause of the change.
    pub cause: String,
    /// How long the agent had been silent.
    pub silence_ms: u64,
    /// The status that it reported last.
    pub status: String,
    /// The number that it sent last.
    pub payload: u32,
    /// The exit status of its process, where the line has one.
    pub exit_code: Option<u64>,
    /// The signal that killed its process, where the line has one.
    pub signal: Option<u64>,
    /// What was seen of its process; empty where the line has nothing of it.
    pub dossier: String,
}

impl Transition {
    fn from_line(line: &Value) -> Option<Self> {
        let text = |name: &str| Some(line.get(name)?.as_str()?.to_owned());
        // Figures may also be text; whether they should be is a test of its own.
        let number = |name: &str| {
            let value = line.get(name)?;
            value.as_u64().or_else(|| value.as_str()?.parse().ok())
        };
        if line.get("target")? != "varta::agent" {
            return None;
        }
        Some(Transition {
            timestamp: text("timestamp").unwrap_or_default(),
            agent: text("agent")?,
            pid: u32::try_from(number("pid")?).ok()?,
            host: text("host").unwrap_or_default(),
            transport: text("transport")?,
            from: text("from")?,
            to: text("to")?,
            cause: text("cause")?,
            silence_ms: number("silence_ms")?,
            status: text("status")?,
            payload: u32::try_from(number("payload")?).ok()?,
            exit_code: number("exit_code"),
            signal: number("signal"),
            dossier: text("dossier").unwrap_or_default(),
        })
    }

    /// Whether an agent of this host is stalled with nothing known of its process, because the server's look
    /// at it came too late: a verdict waits for the look for a moment only, and on a busy machine it may take
    /// longer.
    #[must_use]
    pub fn has_no_look(&self) -> bool {
        self.to == "stalled" && self.cause == "silent" && self.host.is_empty() && self.dossier.is_empty()
    }

    /// Whether the change only says that the server could not see for a while, or that this is over: it
    /// accuses no agent, and happens on a busy machine.
    #[must_use]
    pub fn is_observer_gap(&self) -> bool {
        self.to == "unknown" || (self.from == "unknown" && self.to == "up" && self.cause == "recovered")
    }
}

/// One line, such as `12:00:01Z billing[4242] by unix: up to stalled: stopped; silent for 2003 ms, ok,
/// payload 0`.
impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Transition { timestamp, agent, pid, transport, from, to, cause, .. } = self;
        let time = timestamp.split_once('T').map_or(timestamp.as_str(), |(_, time)| time);
        write!(f, "{time} {agent}[{pid}] by {transport}")?;
        if !self.host.is_empty() {
            write!(f, " from {}", self.host)?;
        }
        let Transition { silence_ms, status, payload, .. } = self;
        write!(f, ": {from} to {to}: {cause}; silent for {silence_ms} ms, {status}, payload {payload}")?;
        for (name, value) in [("exit code", self.exit_code), ("signal", self.signal)] {
            if let Some(value) = value {
                write!(f, ", {name} {value}")?;
            }
        }
        if !self.dossier.is_empty() {
            write!(f, "; {}", self.dossier)?;
        }
        Ok(())
    }
}

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// The line as it was written.
    pub text: String,
    /// Its fields; `Null` for a line that is not JSON.
    pub fields: Value,
    /// The change of verdict, if it is one.
    pub transition: Option<Transition>,
}

impl Line {
    pub(crate) fn parse(text: &str) -> Self {
        let fields = serde_json::from_str(text).unwrap_or_default();
        let transition = Transition::from_line(&fields);
        Line { text: text.to_owned(), fields, transition }
    }

    /// Its message; empty for a line that has none.
    #[must_use]
    pub fn message(&self) -> &str {
        self.fields["message"].as_str().unwrap_or_default()
    }
}

/// The changes of verdict among lines, in their order.
pub(crate) fn transitions(lines: &[Line]) -> impl Iterator<Item = &Transition> {
    lines.iter().filter_map(|line| line.transition.as_ref())
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<Line>,
    /// No line comes after these: the server has ended, or the reader has stopped here.
    is_complete: bool,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    grown: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lock());
        self.grown.notify_all();
    }
}

/// The lines read so far. A line comes a moment after the event that it reports: a test that concludes
/// something from a line that is missing waits for a later one first.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    /// Gives the stream back where it stops before the end.
    reader: Option<thread::JoinHandle<ChildStderr>>,
}

impl Log {
    /// Reads in a thread of its own; to the end, or to the first line for which `enough` holds. After that
    /// the pipe stays open and is not read any more.
    pub(crate) fn read(stream: ChildStderr, enough: fn(&str) -> bool) -> Self {
        let shared = Arc::new(Shared::default());
        let filled = Arc::clone(&shared);
        let reader = thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            read_lines(&mut stream, enough, &filled);
            stream.into_inner()
        });
        Log { shared, reader: Some(reader) }
    }

    /// All lines so far, as they were written.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.shared.lock().lines.iter().map(|line| line.text.clone()).collect()
    }

    /// All changes of verdict so far.
    #[must_use]
    pub fn transitions(&self) -> Vec<Transition> {
        transitions(&self.shared.lock().lines).cloned().collect()
    }

    /// The fields of the first line so far whose message begins with `start`.
    #[must_use]
    pub fn find(&self, start: &str) -> Option<Value> {
        self.find_all(start).into_iter().next()
    }

    /// The fields of all lines so far whose message begins with `start`.
    #[must_use]
    pub fn find_all(&self, start: &str) -> Vec<Value> {
        let lines = &self.shared.lock().lines;
        lines
            .iter()
            .filter(|line| line.message().starts_with(start))
            .map(|line| line.fields.clone())
            .collect()
    }

    /// Calls `probe` with all lines so far, now and after each further line, until it gives a value.
    ///
    /// # Errors
    ///
    /// It has given none within `limit`, or for all lines of a log that is complete. The result is what
    /// `failure` makes of all lines.
    pub(crate) fn wait_for<T, E>(
        &self,
        limit: Duration,
        mut probe: impl FnMut(&[Line]) -> Option<T>,
        failure: impl FnOnce(&[Line]) -> E,
    ) -> Result<T, E> {
        let deadline = Instant::now() + limit;
        let mut lines = self.shared.lock();
        loop {
            if let Some(found) = probe(&lines.lines) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.is_complete || left.is_zero() {
                return Err(failure(&lines.lines));
            }
            lines = self.shared.grown.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the last line, of a server that has ended or whose log is not read further. Then the pipe is
    /// closed.
    pub(crate) fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // The stream is of no use any more.
            let _ = reader.join();
        }
    }

    /// A log with these lines and no server.
    #[cfg(test)]
    pub(crate) fn of(text: &str, is_complete: bool) -> Self {
        let lines = text.lines().map(Line::parse).collect();
        Log {
            shared: Arc::new(Shared { lines: Lines { lines, is_complete }.into(), ..Shared::default() }),
            reader: None,
        }
    }
}

fn read_lines(stream: &mut BufReader<impl Read>, enough: fn(&str) -> bool, shared: &Shared) {
    loop {
        let mut line = Vec::new();
        // A stream that cannot be read has ended.
        if matches!(stream.read_until(b'\n', &mut line), Ok(0) | Err(_)) {
            break;
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let is_last = enough(&line);
        shared.change(|lines| lines.lines.push(Line::parse(&line)));
        if is_last {
            break;
        }
    }
    shared.change(|lines| lines.is_complete = true);
}
