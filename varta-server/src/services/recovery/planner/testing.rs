//! Helpers of the tests of recovery.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use crate::base::Glob;
use crate::domain::tracker::tests::sample;
use crate::domain::tracker::{Cause, Transition, Verdict};
use crate::services::recovery::job::Job;
use crate::services::recovery::rule::{Action, RecoveryRule, Step, UnhealthyState};

/// A transition of a worker with the label `team=payments`.
pub(crate) fn transition(pid: u32, to: Verdict, cause: Cause) -> Transition {
    sample::transition("worker")
        .pid(pid)
        .started_at(NonZeroU64::MIN)
        .labels([("team", "payments")])
        .to(to, cause)
}

/// The first attempt of the only step of a rule, for the agent of a transition.
pub(crate) fn job(transition: Transition, action: Action, causes: &[&'static str]) -> Job {
    let rule = RecoveryRule {
        name: Glob::any(),
        labels: Vec::new(),
        states: vec![UnhealthyState::Stalled],
        causes: causes.to_vec(),
        transports: Vec::new(),
        steps: vec![Step { wait: Duration::ZERO, action }],
        debounce: Duration::ZERO,
        backoff: Duration::ZERO,
        attempts: 1,
        budget: "1/1s".parse().unwrap(),
        min_healthy: None,
        give_up_retry: None,
        final_exit_statuses: Vec::new(),
    };
    Job {
        number: 1,
        transition: Arc::new(transition),
        rule: Arc::new(rule),
        step: 0,
        attempt: 1,
        was_signalled: false,
        has_helped: false,
        has_waited_for_dump: false,
    }
}
