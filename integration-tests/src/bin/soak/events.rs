//! The file of `--events-file`, read as it grows.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

/// A change of verdict.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) agent: String,
    pub(crate) pid: u32,
    /// The verdict before, empty for an agent that was not known.
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) cause: String,
    pub(crate) line: String,
}

#[derive(Debug)]
pub(crate) struct Events {
    file: BufReader<File>,
    /// A line that is not whole yet.
    begun: String,
    pub(crate) count: u64,
}

impl Events {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Events { file: BufReader::new(File::open(path)?), begun: String::new(), count: 0 })
    }

    /// The events that have come since the last call.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Event>> {
        let mut read = Vec::new();
        while self.file.read_line(&mut self.begun)? > 0 && self.begun.ends_with('\n') {
            let event = parse(self.begun.trim_end())
                .ok_or_else(|| io::Error::other(format!("this is no event: {}", self.begun)))?;
            read.push(event);
            self.begun.clear();
            self.count += 1;
        }
        Ok(read)
    }
}

impl Event {
    /// Whether an agent that came under the name of its command takes, by its own name, the place of another: it
    /// was counted when it came.
    pub(crate) fn is_late_introduction(&self) -> bool {
        self.from == self.to && self.cause == "restarted"
    }

    /// The event in short.
    pub(crate) fn brief(&self) -> String {
        let Event { from, to, cause, .. } = self;
        let at = self.line.split('"').nth(3).unwrap_or_default();
        format!("{at} {from} to {to} ({cause})")
    }
}

fn parse(line: &str) -> Option<Event> {
    let fields: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
    Some(Event {
        agent: text("agent")?,
        pid: fields.get("pid")?.as_u64()?.try_into().ok()?,
        from: text("from").unwrap_or_default(),
        to: text("to")?,
        cause: text("cause").unwrap_or_default(),
        line: line.to_owned(),
    })
}
