//! A line of the log that a test waits for.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::expect::Expectation;
use crate::log::{Line, Log};
use crate::retry::LIMIT;
use crate::server::Server;

/// A line of the log whose message begins with `start`.
#[must_use]
pub fn line(start: &str) -> LogLine {
    LogLine { start: start.to_owned(), parts: Vec::new(), number: 1 }
}

/// A line of the log whose message has `part` in it.
#[must_use]
pub fn line_with(part: &str) -> LogLine {
    line("").with(part)
}

/// A line of the log: the first that has all that is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    start: String,
    parts: Vec<String>,
    number: usize,
}

impl LogLine {
    /// The message has this in it, too.
    #[must_use]
    pub fn with(mut self, part: &str) -> Self {
        self.parts.push(part.to_owned());
        self
    }

    /// Not the first such line but the `number`th, counted from 1.
    #[must_use]
    pub fn nth(self, number: usize) -> Self {
        LogLine { number, ..self }
    }

    fn is(&self, line: &Line) -> bool {
        let message = line.message();
        message.starts_with(&self.start) && self.parts.iter().all(|part| message.contains(part))
    }

    pub(super) fn wait_in(&self, log: &Log, limit: Duration) -> Result<Value, String> {
        log.wait_for(
            limit,
            |lines| {
                lines.iter().filter(|line| self.is(line)).nth(self.number - 1).map(|line| line.fields.clone())
            },
            |lines| {
                let lines: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
                format!("not within {limit:?}: {self}\nthe log is\n{}", lines.join("\n"))
            },
        )
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a line of the log")?;
        if !self.start.is_empty() {
            write!(f, " that begins with {:?}", self.start)?;
        }
        for part in &self.parts {
            write!(f, " that has {part:?} in it")?;
        }
        match self.number {
            1 => Ok(()),
            number => write!(f, ", number {number}"),
        }
    }
}

impl Expectation for LogLine {
    type Found = Value;

    fn wait(self, server: &Server) -> Result<Value, String> {
        self.wait_in(server.log(), LIMIT)
    }
}
