//! Counters of received datagrams by transport and outcome.

use std::sync::Arc;

use metrics::Counter;
use varta_proto::DecodeError;

use crate::domain::beat::Transport;
use crate::domain::outcome::{FrameOutcome, OutcomeCounts};
use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    FRAMES = "varta_frames_total",
        "Datagrams received, and frames found in pages of memory, by transport and by what became of them: each is in exactly one row.";
    DECODE_ERRORS = "varta_decode_errors_total", "Datagrams that are no valid frame, by the first rule that they break.";
    TRUNCATED = "varta_truncated_datagrams_total", "Datagrams that do not have the length of a frame.";
    AUTH_FAILURES = "varta_frame_auth_failures_total",
        "Frames whose sender the kernel does not vouch for, is not allowed, or is not the process that the frame names.";
    DECRYPT_FAILURES = "varta_frame_decrypt_failures_total", "Sealed datagrams that no key opens.";
    REPLAY_REFUSED = "varta_replay_refused_total",
        "Sealed datagrams refused though a key opens them: they came before, or began a session for which there was no room.";
    KERNEL_DROPS = "varta_kernel_drops_total",
        "Datagrams that the kernel threw away because a socket's queue was full, by transport.";
    UDP_RECEIVE_BUFFER = "varta_udp_receive_buffer_bytes",
        "Bytes of datagrams that fit the queue of a UDP socket, as the kernel granted and counts them.";
    UNIX_QUEUE = "varta_unix_max_dgram_qlen",
        "Datagrams that wait in the shortest queue of a Unix socket, less one, before the kernel refuses more (--socket-queue, net.unix.max_dgram_qlen).";
    UNIX_QUEUE_FULL = "varta_unix_queue_full_total",
        "Times at which the queue of a Unix socket was found full: the kernel refused beats, or was about to.";
    SOURCE_LIMITED = "varta_source_limited_total",
        "Beats of new agents refused because their address had introduced enough (--max-agents-per-source).";
    IO_ERRORS = "varta_io_errors_total", "Failures to receive from a socket.";
    RATE_LIMITED = "varta_rate_limited_total", "Beats refused because too many came, from one pid or in all.";
    OUT_OF_ORDER = "varta_out_of_order_total", "Beats refused because their nonce is old or repeated.";
    CAPACITY_EXCEEDED = "varta_tracker_capacity_exceeded_total", "Beats of new agents refused because there was no room.";
}

/// The frame counters of one transport: each outcome counts once in `varta_frames_total` and, for some
/// refusals, again in older families of their own.
#[derive(Clone)]
pub(crate) struct FrameCounters {
    /// The counters that each outcome increments, by row.
    by_outcome: Arc<[Vec<Counter>]>,
    io_errors: Counter,
    queue_full: Counter,
}

impl FrameCounters {
    pub(crate) fn new(registry: &Registry, transport: Transport) -> Self {
        let labels = FrameOutcome::labels();
        let mut by_outcome: Vec<Vec<Counter>> = labels
            .iter()
            .map(|outcome| {
                let labels = [("transport", transport.as_str()), ("outcome", outcome)];
                vec![registry.counter(FRAMES, &labels)]
            })
            .collect();
        let mut also =
            |outcome: FrameOutcome, counter: &Counter| by_outcome[outcome.index()].push(counter.clone());

        let auth_failures = registry.counter(AUTH_FAILURES, &[]);
        also(FrameOutcome::Unattested, &auth_failures);
        also(FrameOutcome::PidMismatch, &auth_failures);
        also(FrameOutcome::UidRefused, &auth_failures);
        let out_of_order = registry.counter(OUT_OF_ORDER, &[]);
        also(FrameOutcome::OutOfOrder, &out_of_order);
        also(FrameOutcome::Duplicate, &out_of_order);
        also(FrameOutcome::RateLimitedAgent, &registry.counter(RATE_LIMITED, &[("reason", "per_pid")]));
        also(FrameOutcome::RateLimitedGlobal, &registry.counter(RATE_LIMITED, &[("reason", "global")]));
        also(FrameOutcome::SourceLimit, &registry.counter(SOURCE_LIMITED, &[]));
        also(FrameOutcome::DecryptFailed, &registry.counter(DECRYPT_FAILURES, &[]));
        let replays = registry.counter(REPLAY_REFUSED, &[]);
        also(FrameOutcome::Replayed, &replays);
        also(FrameOutcome::ReplayTableFull, &replays);
        also(FrameOutcome::Capacity, &registry.counter(CAPACITY_EXCEEDED, &[]));
        also(
            FrameOutcome::Malformed(DecodeError::BadLength { actual: 0 }),
            &registry.counter(TRUNCATED, &[]),
        );
        for (counters, label) in by_outcome.iter_mut().zip(labels) {
            if DecodeError::KINDS.contains(&label) {
                counters.push(registry.counter(DECODE_ERRORS, &[("kind", label)]));
            }
        }
        let io_errors = registry.counter(IO_ERRORS, &[]);
        let queue_full = registry.counter(UNIX_QUEUE_FULL, &[]);
        FrameCounters { by_outcome: by_outcome.into(), io_errors, queue_full }
    }

    /// Adds the outcomes of one batch.
    pub(crate) fn add(&self, tally: &OutcomeCounts) {
        for (row, count) in tally.rows() {
            for counter in &self.by_outcome[row] {
                counter.increment(count);
            }
        }
    }

    pub(crate) fn io_error(&self) {
        self.io_errors.increment(1);
    }

    pub(crate) fn queue_full(&self) {
        self.queue_full.increment(1);
    }
}

impl std::fmt::Debug for FrameCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameCounters").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_stands_at_zero_from_the_first_scrape() {
        let registry = Registry::for_test();
        let _counters = FrameCounters::new(&registry, Transport::Unix);
        let text = registry.handle().render();
        for outcome in FrameOutcome::labels() {
            let row = format!("outcome=\"{outcome}\"}} 0");
            assert!(text.contains(&row), "{row} is missing in\n{text}");
        }
        for kind in DecodeError::KINDS {
            assert!(text.contains(&format!("varta_decode_errors_total{{kind=\"{kind}\"}} 0")), "{kind}");
        }
        assert!(text.contains("# HELP varta_frames_total "));
        assert!(text.contains("# TYPE varta_frames_total counter"));
    }

    #[test]
    fn a_refusal_is_counted_once_in_the_books_and_again_where_people_look_for_it() {
        let registry = Registry::for_test();
        let counters = FrameCounters::new(&registry, Transport::Unix);
        let mut tally = OutcomeCounts::default();
        tally.count(FrameOutcome::Malformed(DecodeError::BadLength { actual: 3 }));
        tally.count(FrameOutcome::PidMismatch);
        tally.count(FrameOutcome::UidRefused);
        counters.add(&tally);
        let text = registry.handle().render();
        assert!(text.contains("varta_frames_total{transport=\"unix\",outcome=\"bad_length\"} 1"), "{text}");
        assert!(text.contains("varta_decode_errors_total{kind=\"bad_length\"} 1"));
        assert!(text.contains("varta_truncated_datagrams_total 1"));
        assert!(text.contains("varta_frame_auth_failures_total 2"));
    }
}
