//! A server's standard error, line by line.

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::Value;

/// One change of verdict as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The agent's name.
    pub agent: String,
    /// Its pid.
    pub pid: u32,
    /// The address that its beats come from; empty for an agent of this host.
    pub host: String,
    /// How its beats arrive.
    pub transport: String,
    /// What was concluded before; `none` for an agent that was not known.
    pub from: String,
    /// What is concluded now.
    pub to: String,
    /// Why.
    pub cause: String,
    /// How long the agent had been silent.
    pub silence_ms: u64,
    /// The status that it reported last.
    pub status: String,
    /// The number that it sent last.
    pub payload: u32,
    /// With which status its process exited, where the line tells.
    pub exit_code: Option<u64>,
    /// Which signal killed its process, where the line tells.
    pub signal: Option<u64>,
    /// What was seen of its process; empty where the line does not tell.
    pub dossier: String,
}

impl Transition {
    fn from_line(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
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
}

/// The lines read so far. They come a moment after what they tell of: whoever concludes something from a line that is
/// missing waits for a later one first.
#[derive(Debug)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    /// Gives the stream back if it was told not to read to the end.
    reader: Option<thread::JoinHandle<ChildStderr>>,
}

impl Log {
    /// Reads beside the running test; to the end, or to the first line for which `enough` holds. After that the pipe stays
    /// open and nobody takes anything out of it.
    pub(crate) fn read(stream: ChildStderr, enough: fn(&str) -> bool) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            loop {
                let mut line = Vec::new();
                match stream.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                let is_last = enough(&line);
                ours.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                if is_last {
                    break;
                }
            }
            stream.into_inner()
        });
        Log { lines, reader: Some(reader) }
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All changes of verdict so far.
    #[must_use]
    pub fn transitions(&self) -> Vec<Transition> {
        self.lines().iter().filter_map(|line| Transition::from_line(line)).collect()
    }

    /// The first line so far whose message begins with `start`.
    #[must_use]
    pub fn find(&self, start: &str) -> Option<Value> {
        self.find_all(start).into_iter().next()
    }

    /// All lines so far whose message begins with `start`.
    #[must_use]
    pub fn find_all(&self, start: &str) -> Vec<Value> {
        let is_it = |line: &String| {
            let line: Value = serde_json::from_str(line).ok()?;
            line.get("message")?.as_str()?.starts_with(start).then_some(line)
        };
        self.lines().iter().filter_map(is_it).collect()
    }

    /// Waits for the last line that is to be read, of a server that has ended or that was not to be read further. Then
    /// the pipe is closed.
    pub(crate) fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // The stream is of no use any more.
            let _ = reader.join();
        }
    }
}
