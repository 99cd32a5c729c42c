//! A check-up of this host and a running server, `varta-server doctor`: named checks, each with what was seen and what
//! to do.

mod check;
mod command;
mod facts;
mod host;
mod samples;
mod server;

pub use self::command::{DoctorArgs, DoctorTask};
