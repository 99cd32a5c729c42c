//! Helpers of the tests of maintenance.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::Glob;
use crate::services::maintenance::pause::{Pause, RequestedBy};

pub(super) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) fn glob(text: &str) -> Glob {
    Glob::parse(text).unwrap()
}

/// A pause requested by user 7 at the start of Unix time.
pub(super) fn asked(pattern: &str, until: u64) -> Pause {
    let until = Some(at(until));
    Pause { pattern: glob(pattern), from: None, until, reason: None, by: RequestedBy::User(7), since: at(0) }
}

pub(super) fn planned(pattern: &str, from: Option<u64>, until: Option<u64>) -> Pause {
    let [from, until] = [from, until].map(|seconds| seconds.map(at));
    Pause { pattern: glob(pattern), from, until, reason: None, by: RequestedBy::Configuration, since: at(0) }
}
