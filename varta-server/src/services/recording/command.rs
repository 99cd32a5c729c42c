//! The `replay` command: its arguments, and the report that it prints.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::base::error::Error;
use crate::base::files::atomic;
use crate::base::options::parse_duration;
use crate::base::progress::Progress;
use crate::base::stdout::print;
use crate::engine::DetectorArgs;
use crate::services::recording::replay::{Replay, replay_showing};

/// What can be done with a recording.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum RecordingTask {
    /// Replay a recording and report how another policy would have judged its agents
    ///
    /// The file is a recording that a server wrote with --record. The replay judges the silences of agents
    /// with the detector and the stall-after that are given here, and with the defaults of all other options.
    Replay(ReplayArgs),
}

impl RecordingTask {
    /// Does it, and prints what came of it.
    ///
    /// # Errors
    ///
    /// See [`ReplayArgs::run`].
    pub fn run(&self) -> Result<(), Error> {
        let RecordingTask::Replay(args) = self;
        args.run()
    }
}

/// What to replay, and under which policy.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Path of the recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Silence after which an agent is stalled [default: as recorded]
    #[arg(long, env = "VARTA_STALL_AFTER", value_name = "DURATION", value_parser = parse_duration)]
    pub stall_after: Option<Duration>,

    /// How long an agent may be silent that asks for nothing.
    #[command(flatten)]
    pub detector: DetectorArgs,

    /// SVG file to draw the gaps, the deadlines and the mistakes into
    ///
    /// One that is there is replaced.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

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
        let ReplayArgs { ref file, stall_after, ref detector, ref plot, json } = *self;
        let arrival = detector.policy()?;
        let progress = Progress::of_command("replaying");
        let replay = Replay { path: file.clone(), stall_after, arrival };
        let (report, picture) = replay_showing(&replay, &progress, plot.is_some())?;
        drop(progress);
        if let (Some(plot), Some(picture)) = (plot, picture) {
            let failed = |error| Error::file(plot, format!("cannot be written: {error}; see --plot"));
            atomic::replace(plot, picture.as_bytes()).map_err(failed)?;
        }
        let text = if json { report.to_json() } else { report.to_string() };
        print(&text)
    }
}
