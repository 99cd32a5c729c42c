//! `varta-server beat`: reports something of an agent that is known by its name alone, and ends.
//!
//! It is one line of a crontab or a script. The report is a control datagram of its own kind, so that a server
//! without support for it refuses it as a whole and takes it for no beat of this process.

mod command;
mod sender;

pub use self::command::{BeatArgs, BeatTask};
pub(crate) use self::sender::ReportSender;
