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

fn parse(line: &str) -> Option<Event> {
    let fields: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| fields.get(name)?.as_str().map(str::to_owned);
    Some(Event {
        agent: text("agent")?,
        pid: fields.get("pid")?.as_u64()?.try_into().ok()?,
        to: text("to")?,
        cause: text("cause").unwrap_or_default(),
        line: line.to_owned(),
    })
}
