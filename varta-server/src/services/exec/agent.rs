//! The agent that exec is: its beats to the server.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use varta_agent::{Admission, BeatOutcome, DropReason, GoodbyeReason, Status, Varta};
use varta_proto::address::candidate_socket_paths;
use varta_proto::control::{AgentName, Label, ReportEvent};

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::rate_limit::{RateLimit, Usage};
use crate::base::time::{MonoTime, nanos};
use crate::services::beat::ReportSender;
use crate::services::exec::declaring::{Declaring, EVERY as TOLD_EVERY};
use crate::services::exec::options::ExecOptions;

/// How long the server may take to say whether it takes the beats. It does at once, unless it hangs.
const ADMISSION_WITHIN: Duration = Duration::from_millis(200);
/// The most lines about a command within a minute.
const MAX_LINES: NonZeroU32 = NonZeroU32::new(20).expect("is not zero");

/// Beats for a command.
#[derive(Debug)]
pub(super) struct Agent {
    handle: Varta,
    introduction: Introduction,
    /// Until when the silence is accepted that was asked for last.
    busy_until: Option<Instant>,
    /// When the command is to run, if it is a job.
    declaring: Option<Declaring>,
    /// Whether the last beat reached a server; `None` before the first.
    is_heard: Option<bool>,
    said: Usage,
    /// Lines that were not said since the last one.
    left_out: u64,
    /// How often the command was started again: what each beat carries.
    restarts: u32,
    reports: ReportSender,
    has_told: bool,
    command: Option<Command>,
}

/// The command that runs, whose process the server is to look at when this agent is silent.
#[derive(Clone, Copy, Debug)]
struct Command {
    pid: u32,
    /// When the server was told.
    told_at: Option<Duration>,
}

/// What a handle tells the server of the agent.
#[derive(Debug)]
struct Introduction {
    name: AgentName,
    labels: Vec<String>,
    socket: Option<PathBuf>,
    every: Duration,
    deadline: Duration,
}

impl Introduction {
    fn connect(&self) -> io::Result<Varta> {
        let mut builder =
            Varta::builder().name(self.name.as_str()).interval(self.every).stall_after(self.deadline);
        if let Some(path) = &self.socket {
            builder = builder.socket(path);
        }
        for label in self.labels.iter().filter_map(|text| Label::parse(text).ok()) {
            builder = builder.label(label.key(), label.value());
        }
        builder.connect()
    }
}

impl Agent {
    /// Needs no server.
    ///
    /// # Errors
    ///
    /// The path is none of a socket.
    pub(super) fn connect(options: &ExecOptions) -> Result<Self, Error> {
        let introduction = Introduction {
            name: options.name,
            labels: options.labels.clone(),
            socket: options.socket.clone(),
            every: options.every,
            deadline: options.stall_after,
        };
        let refused = |error: io::Error| Error::Option { option: "--socket", fault: error.to_string() };
        let handle = introduction.connect().map_err(refused)?;
        Ok(Agent {
            handle,
            introduction,
            busy_until: None,
            declaring: Declaring::new(options),
            is_heard: None,
            said: Usage::default(),
            left_out: 0,
            restarts: 0,
            reports: ReportSender::new(options.socket.as_ref()),
            has_told: false,
            command: None,
        })
    }

    /// Beats, and says when no server hears it, or one does again.
    pub(super) fn beat(&mut self, status: Status) {
        // Before the first beat, so that this is known as the begin of a run.
        if let Some(declaring) = &mut self.declaring {
            declaring.tell();
        }
        let outcome = self.handle.beat(status, self.restarts);
        let is_heard = match outcome {
            BeatOutcome::Sent => {
                self.name_command();
                true
            }
            // A server is there, and busy.
            BeatOutcome::Dropped(DropReason::KernelQueueFull) => return,
            BeatOutcome::Dropped(_) | BeatOutcome::Failed(_) => false,
        };
        let before = self.is_heard.replace(is_heard);
        if before == Some(is_heard) {
            return;
        }
        if is_heard {
            self.ask_for_admission();
        }
        match (before, is_heard) {
            // The first beat that arrives is nothing to speak of.
            (None, true) => {}
            (_, true) => self.say("is watched: a server takes its beats"),
            (_, false) => {
                self.say(&format!("runs unwatched until a server takes its beats: {outcome}; see --socket"));
            }
        }
    }

    /// Says something about the command to the person who started exec, unless much has been said within a minute.
    pub(super) fn say(&mut self, text: &str) {
        let now = MonoTime::from_nanos(nanos(Clock::monotonic_now()));
        let lines = RateLimit::within(MAX_LINES, Duration::from_secs(60));
        if !lines.try_take(&mut self.said, now) {
            self.left_out += 1;
            return;
        }
        self.say_last(text);
    }

    /// The same, for what ends exec, which is always said.
    pub(super) fn say_last(&mut self, text: &str) {
        let left_out = match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            count => format!(" ({count} lines before this one were left out)"),
        };
        say(&format!("{} {text}{left_out}", self.introduction.name));
    }

    /// Has the server learn of an agent that never was one, and says nothing about it.
    pub(super) fn beat_once(&mut self, status: Status) {
        // The failure that it tells has been said.
        let _ = self.handle.beat(status, self.restarts);
    }

    /// A server that refuses the beats says why, and what to do.
    fn ask_for_admission(&mut self) {
        if let Ok(Admission::Refused { reason, advice }) = self.handle.check(ADMISSION_WITHIN) {
            self.say(&format!("is not watched: the server refuses its beats ({reason}): {advice}"));
        }
    }

    /// Tells the server another interval and deadline from now on, by a beat of a session of its own: a handle says them
    /// when it connects.
    pub(super) fn set_deadline(&mut self, every: Duration, deadline: Duration, status: Status) {
        if (self.introduction.every, self.introduction.deadline) == (every, deadline) {
            return;
        }
        (self.introduction.every, self.introduction.deadline) = (every, deadline);
        match self.introduction.connect() {
            Ok(handle) => self.handle = handle,
            Err(error) => return self.say(&format!("keeps its deadline: {error}")),
        }
        self.beat(status);
        let left = self.busy_until.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            self.busy_for(left);
        }
    }

    /// The command may be silent for so long from now on; zero takes that back.
    pub(super) fn busy_for(&mut self, span: Duration) {
        self.busy_until = Instant::now().checked_add(span);
        // What is not sent is sent with a later beat.
        let _ = self.handle.busy_for(span);
    }

    /// The command was started again. What was told of the one before ends.
    pub(super) fn count_restart(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
        if self.has_told {
            self.tell("");
        }
    }

    /// The command runs, as this child; `None` when it has ended.
    pub(super) fn set_command(&mut self, pid: Option<u32>) {
        self.command = pid.map(|pid| Command { pid, told_at: None });
    }

    /// Tells the server which child does the work, if that is due: another server may be there.
    fn name_command(&mut self) {
        let now = Clock::monotonic_now();
        let is_due =
            |command: &Command| command.told_at.is_none_or(|at| now.saturating_sub(at) >= TOLD_EVERY);
        let Some(command) = self.command.filter(is_due) else { return };
        let Ok(mut report) = self.reports.report(&self.introduction.name, ReportEvent::Said) else { return };
        // While a command runs, nothing is said of the one before.
        (report.said, report.child) = (Some(""), Some(command.pid));
        if self.reports.try_send(&report) {
            self.command = Some(Command { told_at: Some(now), ..command });
        }
    }

    /// Tells the server what a person should read beside a verdict; nothing if that is empty. A server that is away, or
    /// whose queue is full, does not learn of it.
    pub(super) fn tell(&mut self, words: &str) {
        let Ok(mut report) = self.reports.report(&self.introduction.name, ReportEvent::Said) else { return };
        report.said = Some(words);
        self.has_told = self.reports.try_send(&report) && !words.is_empty();
    }

    /// The command has ended well, or as it was asked to.
    pub(super) fn say_goodbye(self) {
        // Without a server nobody waits for it.
        let _ = self.handle.close(GoodbyeReason::Shutdown);
    }
}

/// The path of the server's socket: the one that was given, else the first usual one at which there is something, else
/// the first.
pub(super) fn socket_path(given: Option<&PathBuf>) -> PathBuf {
    if let Some(path) = given {
        return path.clone();
    }
    let paths = candidate_socket_paths(geteuid().as_raw());
    let found = paths.iter().find(|path| path.symlink_metadata().is_ok());
    found.or(paths.first()).cloned().unwrap_or_default()
}

/// Says something to the person who started exec, in one piece, as the command may write there too. A closed standard
/// error makes no difference.
pub(super) fn say(text: &str) {
    let _ = io::stderr().write_all(format!("varta-server exec: {text}\n").as_bytes());
}
