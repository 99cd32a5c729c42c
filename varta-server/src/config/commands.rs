//! What the program does instead of serving: the options of each task, and what it prints.

use clap::Subcommand;

use crate::services::audit::AuditTask;
use crate::services::maintenance::{PauseArgs, PausesArgs, ResumeArgs};
use crate::services::recording::ReplayArgs;

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
