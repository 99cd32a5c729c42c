//! `varta-server schedule`: prints when a schedule is due, for who writes one.

mod command;

pub use self::command::{ScheduleArgs, ScheduleTask};
