//! What the program does instead of serving: the options of each task, and what it prints.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{AuditTask, DetectorArgs, PauseArgs, PausesArgs, ResumeArgs};
use crate::error::Error;
use crate::recording::{Replay, replay};

/// What the program can do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Says what another policy would have made of a recording
    ///
    /// The file is one that a server wrote with --record. Agents are judged by their silence anew, under the detector and
    /// the stall-after that are given here, and all other options at their defaults.
    Replay(ReplayArgs),

    /// Has a running server pause agents for a time: they are watched and shown, and alarm nobody
    ///
    /// Only the server's own user and root may ask for it. A pause of the same pattern replaces the former.
    Pause(PauseArgs),

    /// Has a running server lift a pause before it is over
    Resume(ResumeArgs),

    /// Lists the pauses of a running server, those of its configuration's file among them
    Pauses(PausesArgs),

    /// Looks after an audit log
    #[command(subcommand)]
    Audit(AuditTask),
}

/// Prints what a task has to say.
pub(super) fn print(text: &str) -> Result<(), Error> {
    match io::stdout().write_all(text.as_bytes()) {
        // Who reads it has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|source| Error::Runtime { action: "print the result", source }),
    }
}

/// What to replay, and under which policy.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// How long an agent may be silent before it is called stalled [default: as it was when that was recorded]
    #[arg(long, env = "VARTA_STALL_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub stall_after: Option<Duration>,

    /// How long an agent may be silent that asks for nothing.
    #[command(flatten)]
    pub detector: DetectorArgs,

    /// Print one JSON object, with times in seconds
    #[arg(long)]
    pub json: bool,
}

impl ReplayArgs {
    /// Replays the recording and prints what came of it.
    ///
    /// # Errors
    ///
    /// When the options make no sense, the recording cannot be read, or nothing can be printed.
    pub fn run(&self) -> Result<(), Error> {
        let ReplayArgs { ref file, stall_after, ref detector, json } = *self;
        let arrival = detector.policy()?;
        let report = replay(&Replay { path: file.clone(), stall_after, arrival })?;
        let text = if json { report.to_json() } else { report.to_string() };
        print(&text)
    }
}
