//! The command `events`: prints changes of agents.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::base::Glob;
use crate::base::error::Error;
use crate::base::visible::visible_text;
use crate::services::follow::client::{ApiError, Client, encode};
use crate::services::follow::follower::{Follower, Next};
use crate::services::maintenance::{ControlArgs, parse_pattern};

/// Which changes to print, and how.
#[derive(Clone, Debug, Args)]
pub struct ChangesArgs {
    /// Pattern of agent names, as batch-*; all by default
    ///
    /// `*` matches any characters or none, `?` matches one.
    #[arg(value_name = "PATTERN", value_parser = parse_pattern)]
    pub pattern: Option<Glob>,

    /// Print changes as they come, without an end
    #[arg(long, short)]
    pub follow: bool,

    /// How many of the last changes to print first [default: 50, with --follow 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=500))]
    pub last: Option<u16>,

    /// Print JSON, an object in each line, on a terminal too
    #[arg(long)]
    pub json: bool,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Why printing ends.
enum Stop {
    /// Nobody reads any more.
    Unread,
    Failed(Error),
}

impl ChangesArgs {
    /// Prints the changes.
    ///
    /// # Errors
    ///
    /// The server cannot be asked, or nothing can be printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        match self.print_all() {
            Ok(()) | Err(Stop::Unread) => Ok(ExitCode::SUCCESS),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    fn print_all(&self) -> Result<(), Stop> {
        let client = Client::new(self.control.path().map_err(Stop::Failed)?);
        let refused = |error: ApiError| match error {
            ApiError::Unreachable(error) => Stop::Failed(error),
            other => Stop::Failed(Error::file(client.path(), other.to_string())),
        };
        let name = self.pattern.as_ref().map(|pattern| format!("name={}", encode(pattern.as_str())));
        let name = name.unwrap_or_default();
        let mut since = None;
        let last = self.last.unwrap_or(if self.follow { 0 } else { 50 });
        if last > 0 {
            let page = client.get(&format!("/api/v1/transitions?limit={last}&{name}")).map_err(refused)?;
            since = page["revision"].as_str().map(str::to_owned);
            let changes = page["transitions"].as_array().map(Vec::as_slice).unwrap_or_default();
            changes.iter().rev().try_for_each(|change| self.print(change))?;
        }
        if !self.follow {
            return Ok(());
        }
        let mut follower = Follower::new(&client, format!("/api/v1/stream?{name}"), since);
        loop {
            match follower.next(None).map_err(refused)? {
                Next::Event(event) => match event.kind.as_str() {
                    "change" => self.print(&event.data)?,
                    "resync" => {
                        let reason = event.data["reason"].as_str().unwrap_or("the server does not say why");
                        warn(&format!("changes may be missing here: {reason}"));
                    }
                    _ => {}
                },
                Next::Lost(fault) => warn(&format!("{fault}; waiting for it to come back")),
                Next::Back => warn("the server answers again"),
                Next::Nothing => {}
            }
        }
    }

    fn print(&self, change: &Value) -> Result<(), Stop> {
        let mut out = io::stdout();
        let line = if self.json || !out.is_terminal() { change.to_string() } else { sentence(change) };
        match writeln!(out, "{line}") {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stop::Unread),
            written => {
                written.map_err(|source| Stop::Failed(Error::Runtime { action: "print the changes", source }))
            }
        }
    }
}

/// A change as a person reads it.
fn sentence(change: &Value) -> String {
    let text = |key: &str| change[key].as_str().unwrap_or_default();
    visible_text(&format!("{} {}", text("at"), text("summary")))
}

fn warn(text: &str) {
    // Whether anybody can hear it makes no difference.
    let _ = writeln!(io::stderr(), "varta-server: {}", visible_text(text));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_reads_when_and_what_and_no_agent_writes_on_the_terminal() {
        let change =
            json!({ "at": "2026-11-23T16:00:00.000Z", "summary": "a\u{1b}[2J[1] is up: first beat" });
        assert_eq!(sentence(&change), "2026-11-23T16:00:00.000Z a?[2J[1] is up: first beat");
    }
}
