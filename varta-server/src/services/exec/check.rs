//! A command that says whether the watched one is well: one at a time, in its own process group, without input and
//! output, and with a time limit.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

use crate::base::children::{self, OwnChild};
use crate::observe::Pidfd;
use crate::services::exec::outcome::Ending;
use crate::services::exec::sys;

/// The check, and the one that runs.
#[derive(Debug)]
pub(super) struct Check {
    words: Vec<String>,
    every: Duration,
    mask: SigSet,
    /// When the next one is started.
    next: Instant,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: OwnChild,
    pidfd: Option<Pidfd>,
    deadline: Instant,
    is_killed: bool,
}

/// What a check said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CheckResult {
    Well,
    Unwell(Fault),
}

/// Why the command is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    NotStarted(String),
    Ended(Ending),
    TimedOut(Duration),
    /// The command itself said so, by sd_notify.
    SaidSo,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotStarted(error) => write!(f, "its check cannot be started: {error}"),
            Fault::Ended(ending) => write!(f, "its check {ending}"),
            Fault::SaidSo => f.write_str("it says so, by WATCHDOG=trigger"),
            Fault::TimedOut(limit) => {
                write!(f, "its check took longer than {limit:?} and was killed; see --every")
            }
        }
    }
}

impl Check {
    /// The first is started an interval after `now`.
    pub(super) fn new(words: Vec<String>, every: Duration, mask: SigSet, now: Instant) -> Self {
        Check { words, every, mask, next: now + every, running: None }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None` while a killed check has not ended.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.running {
            None => Some(self.next),
            Some(running) if running.is_killed => None,
            Some(running) => Some(running.deadline),
        }
    }

    /// Starts a check that is due, and kills one that takes too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<CheckResult> {
        if let Some(running) = &mut self.running {
            if running.is_killed || now < running.deadline {
                return None;
            }
            running.kill();
            return Some(CheckResult::Unwell(Fault::TimedOut(self.every)));
        }
        if now < self.next {
            return None;
        }
        self.next = now + self.every;
        match self.start(now) {
            Ok(running) => {
                self.running = Some(running);
                None
            }
            Err(error) => Some(CheckResult::Unwell(Fault::NotStarted(error.to_string()))),
        }
    }

    /// A child has ended: gives the result if it is the check.
    pub(super) fn handle_child(&mut self) -> Option<CheckResult> {
        let running = self.running.as_mut()?;
        // What is left of its group is killed before its number can be another's.
        if running.pidfd.as_ref().is_some_and(Pidfd::has_ended) && !running.is_killed {
            signal_group(&running.child);
        }
        let status = running.child.try_wait().ok()??;
        // Its number may be another's from here on.
        let was_killed = std::mem::replace(&mut running.is_killed, true);
        self.running = None;
        match Ending::of(status) {
            _ if was_killed => None,
            Ending::Exited(0) => Some(CheckResult::Well),
            ending => Some(CheckResult::Unwell(Fault::Ended(ending))),
        }
    }

    fn start(&self, now: Instant) -> std::io::Result<Running> {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or("", String::as_str));
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        sys::prepare(&mut command, self.mask);
        let child = children::spawn(&mut command)?;
        let pidfd = Pidfd::open(child.id()).ok();
        Ok(Running { child, pidfd, deadline: now + self.every, is_killed: false })
    }
}

impl Running {
    fn kill(&mut self) {
        self.is_killed = true;
        signal_group(&self.child);
    }
}

/// The command has ended, and nobody asks any more.
impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_killed {
            self.kill();
        }
    }
}

/// Kills the group that the child leads.
fn signal_group(child: &OwnChild) {
    let Ok(group) = i32::try_from(child.id()) else { return };
    // It fails when all of it has ended.
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
}
