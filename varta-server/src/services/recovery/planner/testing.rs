//! What tests of recovery share.

use std::num::NonZeroU64;

use crate::domain::tracker::tests::sample;
use crate::domain::tracker::{Cause, Transition, Verdict};

/// That a worker of the team `payments` has come to a verdict.
pub(crate) fn transition(pid: u32, to: Verdict, cause: Cause) -> Transition {
    sample::transition("worker")
        .pid(pid)
        .started_at(NonZeroU64::MIN)
        .labels([("team", "payments")])
        .to(to, cause)
}
