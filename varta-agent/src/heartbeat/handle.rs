//! The handle to a task that beats.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};
use varta_proto::Status;
use varta_proto::control::GoodbyeReason;

use super::task::{HeartbeatState, HeartbeatTask, Report};
use crate::agent::Varta;
use crate::outcome::{BeatError, BeatOutcome, DropReason};
use crate::profile::ProfileError;
use crate::progress::{Guard, Guards};
use crate::time::MAX_DURATION;
use crate::transport::BeatTransport;

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
    /// calls the process stalled, or less. A handle that has a [name](crate::Builder::name) or anything else to say of
    /// itself says this interval, whichever it was given before.
    ///
    /// # Errors
    ///
    /// The interval is zero, longer than 49 days, or not shorter than the [stall-after](crate::Builder::stall_after)
    /// that the handle asks for; the calling thread is not in a Tokio runtime, or that runtime was
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
        if interval.is_zero() || interval > MAX_DURATION {
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
        self.set_interval(interval).map_err(ProfileError::into_io)?;
        self.ensure_reconnects();
        let not_busy = (0, Instant::now());
        let (state, task_state) =
            watch::channel(HeartbeatState { status: Status::Ok, payload: 0, busy: not_busy, goodbye: None });
        let (task_report, report) = watch::channel(Report {
            beats_sent: 0,
            last_outcome: None,
            busy: (0, BeatOutcome::Dropped(DropReason::NoObserver)),
        });
        let guards = Arc::<Guards>::default();
        let task = HeartbeatTask {
            agent: self,
            interval,
            state: task_state,
            report: task_report,
            goodbye_sent: false,
            guards: guards.clone(),
        };
        Ok(Heartbeat { guards, state, report, task: Some(runtime.spawn(task.run())) })
    }
}

/// The handle to a task that beats. Dropping it ends the task, which says goodbye.
///
/// It says none when the handle is dropped by a panic that unwinds, because that is no orderly end; nor when the runtime
/// goes down and the handle is still there.
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
    state: watch::Sender<HeartbeatState>,
    report: watch::Receiver<Report>,
    guards: Arc<Guards>,
    /// There until it is awaited.
    task: Option<JoinHandle<()>>,
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
        self.state.send_if_modified(|state| {
            let changes = state.status != status;
            state.status = status;
            changes
        });
        Ok(())
    }

    /// Changes the number that the beats carry, from the next one on.
    pub fn set_payload(&self, payload: u32) {
        self.state.send_if_modified(|state| {
            state.payload = payload;
            false
        });
    }

    /// Gives the status that beats carry.
    pub fn status(&self) -> Status {
        self.state.borrow().status
    }

    /// Counts the beats that the kernel has taken.
    pub fn beats_sent(&self) -> u64 {
        self.report.borrow().beats_sent
    }

    /// Tells what became of the last beat; `None` before the first.
    pub fn last_outcome(&self) -> Option<BeatOutcome> {
        self.report.borrow().last_outcome
    }

    /// Ties the heartbeat to a piece of work, which from now on has to [tick](Guard::tick) at least once in `limit`; while
    /// it does not the heartbeat holds its beats back. `name` is what the log of this program calls it.
    ///
    /// The task looks before each beat, so it notices up to an interval late. A limit of several intervals, and of
    /// several times what the work takes at its slowest, is a good one. A work that is waiting for something to do
    /// ticks too, or gives up its guard meanwhile; for one that is known to take long there is
    /// [`busy_for`](Self::busy_for), which excuses all guards.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1))?;
    /// let guard = heartbeat.guard("consumer", Duration::from_secs(30));
    /// # let mut queue = tokio::time::interval(Duration::from_millis(1));
    /// tokio::spawn(async move {
    ///     loop {
    ///         let _message = queue.tick().await;
    ///         guard.tick();
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn guard(&self, name: impl AsRef<str>, limit: Duration) -> Guard {
        self.guards.add(name.as_ref(), limit)
    }

    /// Asks the server not to mind if this process is silent for `span` from now on, as [`Varta::busy_for`] does, and
    /// waits until the task has said so. After that the program may block the runtime.
    ///
    /// Zero takes it back. If the heartbeat is over the outcome is
    /// [`Dropped(NoObserver)`](DropReason::NoObserver).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1))?;
    /// let _ = heartbeat.busy_for(Duration::from_secs(90)).await;
    /// // … load the model, on this thread …
    /// let _ = heartbeat.busy_for(Duration::ZERO).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn busy_for(&self, span: Duration) -> BeatOutcome {
        let until = Instant::now() + span.min(MAX_DURATION);
        let mut count = 0;
        self.state.send_modify(|state| {
            count = state.busy.0 + 1;
            state.busy = (count, until);
        });
        let mut report = self.report.clone();
        let sent = report.wait_for(|report| report.busy.0 >= count).await;
        sent.map_or(BeatOutcome::Dropped(DropReason::NoObserver), |report| report.busy.1)
    }

    /// Ends the heartbeat with a goodbye, and waits until the task is gone and its socket closed. A status that was set
    /// before is still beaten.
    ///
    /// The task waits for nothing but its timer, so this takes no longer than the runtime needs to get to it; and up to
    /// 15 ms if the server's queue is full, because after a goodbye that is lost comes an alarm.
    pub async fn stop(self) {
        self.stop_with(GoodbyeReason::Shutdown).await;
    }

    /// As [`stop`](Self::stop), with another reason than that the process ends.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use varta_agent::{GoodbyeReason, Varta};
    ///
    /// let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1))?;
    /// heartbeat.stop_with(GoodbyeReason::Replaced).await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stop_with(mut self, reason: GoodbyeReason) {
        self.set_goodbye(reason);
        let task = self.task.take();
        drop(self);
        if let Some(task) = task {
            // It can only have been cancelled, by a runtime that is going down.
            let _ = task.await;
        }
    }

    /// Has the task say goodbye when it ends, and not before.
    fn set_goodbye(&self, reason: GoodbyeReason) {
        self.state.send_if_modified(|state| {
            state.goodbye.get_or_insert(reason);
            false
        });
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.set_goodbye(GoodbyeReason::Shutdown);
        }
    }
}
