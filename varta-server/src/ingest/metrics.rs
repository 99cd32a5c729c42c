use std::sync::Arc;

use metrics::Counter;
use varta_proto::DecodeError;

use crate::domain::beat::Transport;
use crate::domain::outcome::{Outcome, Tally};
use crate::metrics::{Registry, family};

/// The books on datagrams: what became of each, once in `varta_frames_total` and again in the families by which
/// people have long known some of the refusals.
#[derive(Clone)]
pub(crate) struct FrameCounters {
    /// For each outcome the counters that it moves.
    by_outcome: Arc<[Vec<Counter>]>,
    io_errors: Counter,
}

impl FrameCounters {
    pub(crate) fn new(registry: &Registry, transport: Transport) -> Self {
        let labels = Outcome::labels();
        let mut by_outcome: Vec<Vec<Counter>> = labels
            .iter()
            .map(|outcome| {
                let labels = [("transport", transport.as_str()), ("outcome", outcome)];
                vec![registry.counter(family::FRAMES, &labels)]
            })
            .collect();
        let mut also =
            |outcome: Outcome, counter: &Counter| by_outcome[outcome.index()].push(counter.clone());

        let auth_failures = registry.counter(family::AUTH_FAILURES, &[]);
        also(Outcome::Unattested, &auth_failures);
        also(Outcome::PidMismatch, &auth_failures);
        also(Outcome::UidRefused, &auth_failures);
        let out_of_order = registry.counter(family::OUT_OF_ORDER, &[]);
        also(Outcome::OutOfOrder, &out_of_order);
        also(Outcome::Duplicate, &out_of_order);
        also(Outcome::RateLimitedAgent, &registry.counter(family::RATE_LIMITED, &[("reason", "per_pid")]));
        also(Outcome::RateLimitedGlobal, &registry.counter(family::RATE_LIMITED, &[("reason", "global")]));
        also(Outcome::SourceLimit, &registry.counter(family::SOURCE_LIMITED, &[]));
        also(Outcome::DecryptFailed, &registry.counter(family::DECRYPT_FAILURES, &[]));
        let replays = registry.counter(family::REPLAY_REFUSED, &[]);
        also(Outcome::Replayed, &replays);
        also(Outcome::ReplayTableFull, &replays);
        also(Outcome::Capacity, &registry.counter(family::CAPACITY_EXCEEDED, &[]));
        also(
            Outcome::Malformed(DecodeError::BadLength { actual: 0 }),
            &registry.counter(family::TRUNCATED, &[]),
        );
        for (counters, label) in by_outcome.iter_mut().zip(labels) {
            if DecodeError::KINDS.contains(&label) {
                counters.push(registry.counter(family::DECODE_ERRORS, &[("kind", label)]));
            }
        }
        let io_errors = registry.counter(family::IO_ERRORS, &[]);
        FrameCounters { by_outcome: by_outcome.into(), io_errors }
    }

    /// Enters what became of some datagrams.
    pub(crate) fn add(&self, tally: &Tally) {
        for (row, count) in tally.rows() {
            for counter in &self.by_outcome[row] {
                counter.increment(count);
            }
        }
    }

    pub(crate) fn io_error(&self) {
        self.io_errors.increment(1);
    }
}

impl std::fmt::Debug for FrameCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameCounters").finish_non_exhaustive()
    }
}
