//! `varta-server exec`: runs a command under watch, as its child, and beats for it.
//!
//! The agent is the process of exec itself: its name and labels are the command's, and its beats are sent only while
//! the sources that were named say that the command is well. What happens is decided in `supervisor.rs`, a loop of
//! one thread around poll(2); the pure rules are in `sources.rs`, `signals.rs`, `outcome.rs` and `tail.rs`. Output is
//! moved by a thread for each stream, which may block on its reader.

mod agent;
mod check;
mod command;
mod declaring;
mod leftovers;
mod notify;
mod options;
mod outcome;
mod output;
mod process;
mod run;
mod signals;
mod sources;
mod splice;
mod supervisor;
mod sys;
mod tail;
mod terminal;

pub use self::command::ExecTask;
pub use self::options::{BeatSource, ExecArgs, RestartPolicy};
