//! The task that sends beats.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};
use varta_proto::Status;
use varta_proto::control::GoodbyeReason;

use super::admission::AdmissionCheck;
use crate::agent::Varta;
use crate::check::Admission;
use crate::entropy;
use crate::outcome::{BeatOutcome, QUEUE_FULL};
use crate::progress::{Guards, Progress};
use crate::retry::RETRY_DELAYS;
use crate::transport::BeatTransport;

/// The delay of a second attempt after a beat that met a full queue: at least this, and less than
/// [`MAX_RETRY_DELAY`]. A running server empties its queue in microseconds, and agents that met the full
/// queue together should not retry together.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(2);
const MAX_RETRY_DELAY: Duration = Duration::from_millis(8);

/// What the program has set: the content of the next beat, and what else is to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeartbeatState {
    pub(super) status: Status,
    pub(super) payload: u32,
    /// Whether the payload is a counter of the work done.
    pub(super) counts: bool,
    /// The number of calls of `busy_for`, and the time until which the last one lasts.
    pub(super) busy: (u64, Instant),
    /// Set when the heartbeat ends, unless it ends by a panic.
    pub(super) goodbye: Option<GoodbyeReason>,
}

/// What the task has sent so far.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) beats_sent: u64,
    pub(super) last_outcome: Option<BeatOutcome>,
    /// The number of calls of `busy_for` that were sent, and the outcome of the last.
    pub(super) busy: (u64, BeatOutcome),
    /// Whether the server takes the beats.
    pub(super) admission: Admission,
}

/// The heartbeat task.
pub(super) struct HeartbeatTask<T: BeatTransport> {
    pub(super) agent: Varta<T>,
    pub(super) interval: Duration,
    pub(super) state: watch::Receiver<HeartbeatState>,
    pub(super) report: watch::Sender<Report>,
    pub(super) goodbye_sent: bool,
    pub(super) guards: Arc<Guards>,
    pub(super) admission: AdmissionCheck,
}

impl<T: BeatTransport> HeartbeatTask<T> {
    /// Sends beats until the [`Heartbeat`](super::Heartbeat) is dropped, and then the goodbye.
    pub(super) async fn run(mut self) {
        let mut due = Instant::now() + fraction(self.interval, entropy::random());
        let mut retry = None;
        loop {
            // The watch is polled first: a change made before the end is still sent, and then the end is
            // seen.
            let beat_at = retry.unwrap_or(due).min(due);
            let wake_at = self.admission.wake_at().map_or(beat_at, |at| at.min(beat_at));
            let woken = time::timeout_at(wake_at, self.state.changed()).await;
            if let Ok(Err(_)) = woken {
                break;
            }
            let now = Instant::now();
            if woken.is_err() && now < beat_at {
                self.check_admission(now);
                continue;
            }
            let retries = retry.take().is_some();
            if now >= due {
                due = next_due(due, now, self.interval);
            }
            if self.beat(now) == Some(QUEUE_FULL) && !retries {
                retry = Some(
                    now + MIN_RETRY_DELAY + fraction(MAX_RETRY_DELAY - MIN_RETRY_DELAY, entropy::random()),
                );
            }
        }
        for pause in RETRY_DELAYS {
            if self.send_goodbye() != Some(QUEUE_FULL) {
                return;
            }
            time::sleep(pause).await;
        }
    }

    /// Sends a beat, unless a guard is stuck: then it sends nothing, because anything would count as a sign
    /// of life.
    fn beat(&mut self, now: Instant) -> Option<BeatOutcome> {
        let HeartbeatState { status, payload, counts, busy, .. } = *self.state.borrow_and_update();
        let count = self.guards.count();
        if counts || count.is_some() {
            self.agent.declare_progress();
        }
        self.send_busy(now, busy);
        let status = match self.guards.check(now, self.interval, now < busy.1) {
            Progress::Good => status,
            Progress::Critical => Status::Critical,
            Progress::Stuck => return None,
        };
        let outcome = self.agent.beat(status, count.unwrap_or(payload));
        self.report.send_modify(|report| {
            report.beats_sent += u64::from(outcome.is_sent());
            report.last_outcome = Some(outcome);
        });
        self.admission.handle_beat(outcome, self.agent.connection(), now);
        self.check_admission(now);
        Some(outcome)
    }

    /// Asks the server whether it takes the beats, if that is due, and reports its answer.
    fn check_admission(&mut self, now: Instant) {
        let Some(answer) = self.admission.advance(|| self.agent.server_path(), now) else { return };
        self.admission.log(&answer);
        self.report.send_modify(|report| report.admission = answer);
    }

    /// Sends a Hello with the busy time, if `busy_for` was called since the last one.
    fn send_busy(&mut self, now: Instant, (count, until): (u64, Instant)) {
        if self.report.borrow().busy.0 == count {
            return;
        }
        let outcome = self.agent.busy_for(until.saturating_duration_since(now));
        self.report.send_modify(|report| report.busy = (count, outcome));
    }

    /// Sends the goodbye, if there is a reason for one and it was not sent yet.
    fn send_goodbye(&mut self) -> Option<BeatOutcome> {
        if self.goodbye_sent {
            return None;
        }
        let reason = self.state.borrow().goodbye?;
        let outcome = self.agent.send_goodbye(reason);
        self.goodbye_sent = outcome != QUEUE_FULL;
        Some(outcome)
    }
}

/// A runtime that shuts down drops its tasks, often before this one has seen the end of the
/// [`Heartbeat`](super::Heartbeat): at the end of `main` both happen at once.
impl<T: BeatTransport> Drop for HeartbeatTask<T> {
    fn drop(&mut self) {
        self.send_goodbye();
    }
}

/// Returns the time of the beat after the one that was `due` and was sent `now`.
///
/// Beats keep their rhythm while they are on time. One that is late by more than a tenth of the interval
/// restarts the rhythm, as `MissedTickBehavior::Delay` does: `Burst` would send the missed beats all at once,
/// and after `Skip` the next beat might follow at once, only to keep multiples of the interval.
fn next_due(due: Instant, now: Instant, interval: Duration) -> Instant {
    let late = now.saturating_duration_since(due) > interval / 10;
    (if late { now } else { due }) + interval
}

/// Returns the fraction of a span that a random number stands for, from zero to just below the span.
fn fraction(span: Duration, random: u64) -> Duration {
    let nanoseconds = (span.as_nanos() * u128::from(random)) >> u64::BITS;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MAX_DURATION;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_parts_of_a_span_go_from_none_to_almost_all() {
        assert_eq!(fraction(SECOND, 0), Duration::ZERO);
        assert_eq!(fraction(SECOND, 1 << 63), SECOND / 2);
        assert_eq!(fraction(SECOND, u64::MAX), SECOND - Duration::from_nanos(1));
        assert_eq!(fraction(MAX_DURATION, u64::MAX), MAX_DURATION - Duration::from_nanos(1));
    }

    #[test]
    fn a_beat_on_time_keeps_the_rhythm_and_a_late_one_restarts_it() {
        let due = Instant::now();
        for (late, expected) in [(0, 1000), (99, 1000), (100, 1000), (101, 1101), (900, 1900), (5000, 6000)] {
            let now = due + Duration::from_millis(late);
            assert_eq!(next_due(due, now, SECOND), due + Duration::from_millis(expected), "{late} ms late");
        }
    }
}
