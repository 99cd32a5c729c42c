//! The agents in alarm at present, each with when and why it came to be so: what the tracker itself does not keep,
//! and a person asks first.

mod board;
pub(crate) mod service;

pub(crate) use self::board::{Alarm, Alarms};
