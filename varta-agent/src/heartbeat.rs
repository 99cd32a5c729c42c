//! A Tokio task that beats.
//!
//! The task owns the handle, and what the rest of the program has is a [`Heartbeat`]: a few words that the next beat
//! carries. Between the two stands a watch channel, because only the latest words count and because its end is the end
//! of the task.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};
use varta_proto::Status;

use crate::agent::Varta;
use crate::entropy;
use crate::outcome::{BeatError, BeatOutcome, DropReason};
use crate::transport::BeatTransport;

/// The longest interval, 49 days: what the protocol has room for.
const INTERVAL_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// How long a beat that met a full queue waits before its second attempt: at least this, and less than
/// [`RETRY_BEFORE`]. A queue is emptied in microseconds once its server runs, and agents that met it full together
/// should not meet again.
const RETRY_AFTER: Duration = Duration::from_millis(2);
const RETRY_BEFORE: Duration = Duration::from_millis(8);

impl<T: BeatTransport> Varta<T> {
    /// Has a task of the current Tokio runtime beat once per `interval`, until the [`Heartbeat`] is stopped or dropped.
    /// It begins with [`Status::Ok`] and payload 0.
    ///
    /// The first beat comes at a random time within the first interval, so that a thousand workers which are started
    /// together do not beat together. A beat that is late moves those after it and is never made up for by a burst; a
    /// beat that meets a full queue is followed by one more attempt, 2 to 8 ms later. If the handle was not told when
    /// to reconnect it does so at the first beat that is lost: a service outlives its server's restart.
    ///
    /// The timers of Tokio count in milliseconds. The interval should be a third of the time after which the server
    /// calls the process stalled, or less.
    ///
    /// # Errors
    ///
    /// The interval is zero or longer than 49 days; the calling thread is not in a Tokio runtime, or that runtime was
    /// built without its timer. The handle is lost then, and nothing else happens.
    ///
    /// Tokio tells of a missing timer by a panic. It is caught here, after the panic hooks have seen it; a program with
    /// `panic = "abort"` ends by it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = tokio::task::spawn_blocking({
    /// #     let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// #     move || server.recv(&mut [0; 32])
    /// # });
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let heartbeat = Varta::connect(&path)?.spawn_heartbeat(Duration::from_millis(5))?;
    /// assert_eq!(server.await??, 32);
    /// heartbeat.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn_heartbeat(mut self, interval: Duration) -> io::Result<Heartbeat> {
        if interval.is_zero() || interval > INTERVAL_MAX {
            let range = "the interval between beats is more than zero and at most 49 days";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, range));
        }
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        // Nothing else tells it, and in the task the panic would end the heartbeat without a word to the program.
        panic::catch_unwind(AssertUnwindSafe(|| drop(time::sleep(Duration::ZERO)))).map_err(|_| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "this Tokio runtime has no timer: build it with `enable_time`",
            )
        })?;
        self.ensure_reconnects();
        let (words, latest) = watch::channel(Words { status: Status::Ok, payload: 0 });
        let (report, seen) = watch::channel(Report { beats_sent: 0, last_outcome: None });
        let task = runtime.spawn(Beating { agent: self, interval, latest, report }.run());
        Ok(Heartbeat { words, seen, task })
    }
}

/// The handle to a task that beats. Dropping it ends the task.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use varta_agent::{Status, Varta};
///
/// let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1))?;
/// heartbeat.set_payload(17);
/// heartbeat.set_status(Status::Critical)?;
/// assert_eq!(heartbeat.status(), Status::Critical);
/// heartbeat.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends the heartbeat"]
pub struct Heartbeat {
    words: watch::Sender<Words>,
    seen: watch::Receiver<Report>,
    task: JoinHandle<()>,
}

impl Heartbeat {
    /// Changes what the beats say of this process. If it is a change, a beat says so at once and the rhythm goes on as
    /// before.
    ///
    /// # Errors
    ///
    /// [`Status::Stall`] is what a server concludes and nobody sends; nothing changes.
    pub fn set_status(&self, status: Status) -> Result<(), BeatError> {
        if matches!(status, Status::Stall) {
            return Err(BeatError::of_kind(io::ErrorKind::InvalidInput));
        }
        self.words.send_if_modified(|words| {
            let changes = words.status != status;
            words.status = status;
            changes
        });
        Ok(())
    }

    /// Changes the number that the beats carry, from the next one on.
    pub fn set_payload(&self, payload: u32) {
        self.words.send_if_modified(|words| {
            words.payload = payload;
            false
        });
    }

    /// Gives the status that beats carry.
    pub fn status(&self) -> Status {
        self.words.borrow().status
    }

    /// Counts the beats that the kernel has taken.
    pub fn beats_sent(&self) -> u64 {
        self.seen.borrow().beats_sent
    }

    /// Tells what became of the last beat; `None` before the first.
    pub fn last_outcome(&self) -> Option<BeatOutcome> {
        self.seen.borrow().last_outcome
    }

    /// Ends the heartbeat, and waits until the task is gone and its socket closed. A status that was set before is
    /// still beaten.
    ///
    /// The task never waits for anything but its timer, so this takes no longer than the runtime needs to get to it.
    pub async fn stop(self) {
        let Self { words, task, .. } = self;
        drop(words);
        // It can only have been cancelled, by a runtime that is going down.
        let _ = task.await;
    }
}

/// What the next beat says.
#[derive(Clone, Copy, Debug)]
struct Words {
    status: Status,
    payload: u32,
}

/// What became of the beats so far.
#[derive(Debug)]
struct Report {
    beats_sent: u64,
    last_outcome: Option<BeatOutcome>,
}

/// The task.
struct Beating<T: BeatTransport> {
    agent: Varta<T>,
    interval: Duration,
    latest: watch::Receiver<Words>,
    report: watch::Sender<Report>,
}

impl<T: BeatTransport> Beating<T> {
    async fn run(mut self) {
        let mut due = Instant::now() + part_of(self.interval, entropy::random());
        let mut retry = None;
        loop {
            // The watch comes first: what was said before the end is still beaten, and then the end is seen.
            let woken = time::timeout_at(retry.unwrap_or(due).min(due), self.latest.changed()).await;
            if let Ok(Err(_)) = woken {
                return;
            }
            let now = Instant::now();
            let retries = retry.take().is_some();
            if now >= due {
                due = next(due, now, self.interval);
            }
            if self.beat() == BeatOutcome::Dropped(DropReason::KernelQueueFull) && !retries {
                retry = Some(now + RETRY_AFTER + part_of(RETRY_BEFORE - RETRY_AFTER, entropy::random()));
            }
        }
    }

    fn beat(&mut self) -> BeatOutcome {
        let Words { status, payload } = *self.latest.borrow_and_update();
        let outcome = self.agent.beat(status, payload);
        self.report.send_modify(|report| {
            report.beats_sent += u64::from(outcome.is_sent());
            report.last_outcome = Some(outcome);
        });
        outcome
    }
}

/// Gives the time of the beat after the one that was `due` and happens `now`.
///
/// Beats keep their rhythm as long as they are on time. One that is late by more than a tenth of the interval starts
/// the rhythm anew, as `MissedTickBehavior::Delay` does: `Burst` would make up for the missed beats all at once, and
/// after `Skip` the next might come right behind, to keep to times of day that mean nothing to anybody.
fn next(due: Instant, now: Instant, interval: Duration) -> Instant {
    let late = now.saturating_duration_since(due) > interval / 10;
    (if late { now } else { due }) + interval
}

/// Gives the part of a span that a random number stands for, from nothing to almost all of it.
fn part_of(span: Duration, random: u64) -> Duration {
    let nanoseconds = (span.as_nanos() * u128::from(random)) >> u64::BITS;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_parts_of_a_span_go_from_none_to_almost_all() {
        assert_eq!(part_of(SECOND, 0), Duration::ZERO);
        assert_eq!(part_of(SECOND, 1 << 63), SECOND / 2);
        assert_eq!(part_of(SECOND, u64::MAX), SECOND - Duration::from_nanos(1));
        assert_eq!(part_of(INTERVAL_MAX, u64::MAX), INTERVAL_MAX - Duration::from_nanos(1));
    }

    #[test]
    fn a_beat_on_time_keeps_the_rhythm_and_a_late_one_starts_it_anew() {
        let due = Instant::now();
        for (late, expected) in [(0, 1000), (99, 1000), (100, 1000), (101, 1101), (900, 1900), (5000, 6000)] {
            let now = due + Duration::from_millis(late);
            assert_eq!(next(due, now, SECOND), due + Duration::from_millis(expected), "{late} ms late");
        }
    }
}
