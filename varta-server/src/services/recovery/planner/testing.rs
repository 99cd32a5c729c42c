//! Helpers of the tests of recovery.

use std::num::NonZeroU64;

use crate::domain::tracker::tests::sample;
use crate::domain::tracker::{Cause, Transition, Verdict};

/// A transition of a worker with the label `team=payments`.
pub(crate) fn transition(pid: u32, to: Verdict, cause: Cause) -> Transition {
    sample::transition("worker")
        .pid(pid)
        .started_at(NonZeroU64::MIN)
        .labels([("team", "payments")])
        .to(to, cause)
}
