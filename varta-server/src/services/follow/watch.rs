//! The command `watch`: waits until an agent is in a state.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::base::Glob;
use crate::base::error::Error;
use crate::base::options::parse_duration;
use crate::base::stdout::print;
use crate::base::visible::visible_text;
use crate::services::follow::client::{ApiError, Client, encode};
use crate::services::follow::follower::{Follower, Next};
use crate::services::follow::stream::StreamEvent;
use crate::services::follow::watched::{Quantity, Watched};
use crate::services::maintenance::{ControlArgs, parse_pattern};

/// The exit status where the time is over.
const TIMED_OUT: u8 = 1;
/// The same where nobody can tell.
const UNKNOWN: u8 = 2;
/// How long a server that has gone is waited for where no time is given.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(30);
/// The pause before it is asked for a list again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// The most agents that are named when it is so.
const SHOWN: usize = 20;
/// The agents of one page of a list.
const PAGE: usize = 500;

/// A state in which an agent can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum State {
    /// It beats.
    Up,
    /// It is silent.
    Stalled,
    /// It has ended, and not well.
    Down,
    /// It has ended well.
    Gone,
    /// This server could not see whether it beats.
    Unknown,
    /// It is awaited.
    Expected,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Stalled => "stalled",
            State::Down => "down",
            State::Gone => "gone",
            State::Unknown => "unknown",
            State::Expected => "expected",
        }
    }
}

/// Whom to wait for, and for how long.
#[derive(Clone, Debug, Args)]
pub struct WatchArgs {
    /// Pattern of agent names, as batch-*
    ///
    /// `*` matches any characters or none, `?` matches one.
    #[arg(value_name = "PATTERN", value_parser = parse_pattern)]
    pub pattern: Glob,

    /// State to wait for; of several, separated by commas, one is enough
    #[arg(long, value_name = "STATE", value_enum, required = true, value_delimiter = ',')]
    pub until: Vec<State>,

    /// How long to wait; for ever by default
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,

    /// Wait until all agents that match are in that state, and there is one
    ///
    /// By default one is enough.
    #[arg(long, conflicts_with = "any")]
    pub all: bool,

    /// Wait until one of the agents that match is in that state; the default
    #[arg(long)]
    pub any: bool,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// How the wait has ended.
enum End {
    Reached,
    TimedOut,
    Unknown(String),
}

impl WatchArgs {
    /// Waits, and prints who is in the state. Gives the exit status: 0 if it has come to be so, 1 if not in time, 2 if
    /// no server can tell.
    ///
    /// # Errors
    ///
    /// When the result cannot be printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        match self.wait()? {
            End::Reached => Ok(ExitCode::SUCCESS),
            End::TimedOut => {
                warn(&format!("{} is in no such state in time", self.pattern.as_str()));
                Ok(ExitCode::from(TIMED_OUT))
            }
            End::Unknown(fault) => {
                warn(&fault);
                Ok(ExitCode::from(UNKNOWN))
            }
        }
    }

    fn wait(&self) -> Result<End, Error> {
        let client = match self.control.path() {
            Ok(path) => Client::new(path),
            Err(error) => return Ok(End::Unknown(error.to_string())),
        };
        let mut patience = Patience::new(self.timeout);
        loop {
            let (mut watched, revision) = match self.load(&client) {
                Ok(loaded) => loaded,
                Err(fault @ ApiError::Unreachable(_)) if patience.was_there => {
                    let lost_at = patience.lost();
                    if patience.is_over(Some(lost_at)) {
                        return Ok(End::Unknown(fault.to_string()));
                    }
                    thread::sleep(AGAIN_AFTER);
                    continue;
                }
                Err(fault) => return Ok(End::Unknown(fault.to_string())),
            };
            patience.answered();
            let target = format!("/api/v1/stream?name={}", encode(self.pattern.as_str()));
            let mut follower = Follower::new(&client, target, Some(revision));
            let mut fault = String::new();
            loop {
                if self.is_reached(&watched)? {
                    return Ok(End::Reached);
                }
                if patience.is_over(follower.lost_at()) {
                    let is_lost = follower.lost_at().is_some();
                    return Ok(if is_lost { End::Unknown(fault) } else { End::TimedOut });
                }
                match follower.next(patience.left()) {
                    Ok(Next::Event(StreamEvent { kind, data: _ })) if kind == "resync" => break,
                    Ok(Next::Event(StreamEvent { kind, data })) if !watched.event(&kind, &data) => {
                        return Ok(End::Unknown(ApiError::Senseless(data.to_string()).to_string()));
                    }
                    Ok(Next::Lost(why)) => fault = why,
                    Ok(Next::Event(_) | Next::Back | Next::Nothing) => {}
                    // Between the list and the stream.
                    Err(ApiError::Unreachable(_)) => break,
                    Err(fault) => return Ok(End::Unknown(fault.to_string())),
                }
            }
        }
    }

    /// Prints who is in the state, if enough agents are.
    fn is_reached(&self, watched: &Watched) -> Result<bool, Error> {
        let states: Vec<_> = self.until.iter().map(|state| state.as_str()).collect();
        let quantity = if self.all { Quantity::All } else { Quantity::Any };
        let Some(reached) = watched.reached(&states, quantity) else { return Ok(false) };
        let lines =
            reached.iter().take(SHOWN).map(|(id, state)| format!("{} is {state}\n", visible_text(id)));
        let more = match reached.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("and {more} more\n"),
        };
        print(&lines.chain([more]).collect::<String>())?;
        Ok(true)
    }

    /// The agents whose names match, and the revision of the list.
    fn load(&self, client: &Client) -> Result<(Watched, String), ApiError> {
        let mut watched = Watched::default();
        let first = format!("/api/v1/agents?name={}&limit={PAGE}&sort=name", encode(self.pattern.as_str()));
        let (mut target, mut revision) = (first.clone(), None);
        loop {
            let page = client.get(&target)?;
            let senseless = |what: &str| ApiError::Senseless(format!("it has no {what}"));
            let rows = page["agents"].as_array().ok_or_else(|| senseless("agents"))?;
            if !rows.iter().all(|row| watched.row(row)) {
                return Err(senseless("states of agents"));
            }
            // What has happened since the first page is told by the stream behind it.
            if revision.is_none() {
                let first = page["revision"].as_str().ok_or_else(|| senseless("revision"))?;
                revision = Some(first.to_owned());
            }
            match page["next"].as_str() {
                Some(next) if !rows.is_empty() => target = format!("{first}&cursor={}", encode(next)),
                _ => return Ok((watched, revision.unwrap_or_default())),
            }
        }
    }
}

/// For how long to go on.
struct Patience {
    until: Option<Instant>,
    was_there: bool,
    /// Since when no list can be had.
    lost_at: Option<Instant>,
}

impl Patience {
    fn new(timeout: Option<Duration>) -> Self {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Patience { until, was_there: false, lost_at: None }
    }

    fn answered(&mut self) {
        (self.was_there, self.lost_at) = (true, None);
    }

    fn lost(&mut self) -> Instant {
        *self.lost_at.get_or_insert_with(Instant::now)
    }

    /// Whether the time is over, or the server has been gone for too long where no time is given.
    fn is_over(&self, lost_at: Option<Instant>) -> bool {
        match self.until {
            Some(until) => until <= Instant::now(),
            None => lost_at.is_some_and(|lost_at| lost_at.elapsed() > COMES_BACK_WITHIN),
        }
    }

    fn left(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

fn warn(fault: &str) {
    // Whether anybody can hear it makes no difference.
    let _ = writeln!(io::stderr(), "varta-server: {}", visible_text(fault));
}
