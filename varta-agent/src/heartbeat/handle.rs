//! The handle of the heartbeat task, and how the task is spawned.

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

use super::admission::AdmissionCheck;
use super::task::{HeartbeatState, HeartbeatTask, Report};
use crate::agent::{Varta, lower_bits};
use crate::check::Admission;
use crate::outcome::{BeatError, BeatOutcome, DropReason};
use crate::profile::ProfileError;
use crate::progress::{Guard, Guards};
use crate::time::MAX_DURATION;
use crate::transport::BeatTransport;

impl<T: BeatTransport> Varta<T> {
    /// Spawns a task on the current Tokio runtime that sends a beat once per `interval`, until the
    /// [`Heartbeat`] is stopped or dropped. The first beats have [`Status::Ok`] and payload 0.
    ///
    /// The first beat comes at a random time within the first interval, so that a thousand workers that are
    /// started together do not beat together. A late beat delays those after it, which are never sent in a
    /// burst; after a beat that met a full queue there is one more attempt, 2 to 8 ms later. If the handle
    /// has no setting for reconnecting it reconnects at the first lost beat: a service outlives its server's
    /// restart.
    ///
    /// Tokio's timers have a resolution of a millisecond. The interval should be at most a third of the time
    /// after which the server calls the process stalled. A handle that was built with an
    /// [interval](crate::Builder::interval) announces this one in its place. One that was built without, and
    /// with a [name](crate::Builder::name) or another setting for Hellos, announces it only if three of them
    /// are longer than 5 s, the default of a server: a heartbeat does not ask to be missed sooner than the
    /// server's operator decided.
    ///
    /// # Errors
    ///
    /// The interval is zero, longer than 49 days, or not shorter than the
    /// [stall-after](crate::Builder::stall_after) of the handle; the calling thread is not in a Tokio
    /// runtime, or that runtime was built without its timer. The handle is dropped then, and nothing else
    /// happens.
    ///
    /// Tokio reports a missing timer with a panic. It is caught here, after the panic hooks have run; a
    /// program with `panic = "abort"` ends.
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
        // There is no other way to detect it, and in the task the panic would end the heartbeat without an
        // error.
        panic::catch_unwind(AssertUnwindSafe(|| drop(time::sleep(Duration::ZERO)))).map_err(|_| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "this Tokio runtime has no timer: build it with `enable_time`",
            )
        })?;
        self.set_heartbeat_interval(interval).map_err(ProfileError::into_io)?;
        self.ensure_reconnects();
        let not_busy = (0, Instant::now());
        let (state, task_state) = watch::channel(HeartbeatState {
            status: Status::Ok,
            payload: 0,
            counts: false,
            busy: not_busy,
            goodbye: None,
        });
        let (task_report, report) = watch::channel(Report {
            beats_sent: 0,
            last_outcome: None,
            busy: (0, BeatOutcome::Dropped(DropReason::NoObserver)),
            admission: Admission::Unknown,
        });
        let guards = Arc::<Guards>::default();
        let task = HeartbeatTask {
            agent: self,
            interval,
            state: task_state,
            report: task_report,
            goodbye_sent: false,
            guards: guards.clone(),
            admission: AdmissionCheck::new(),
        };
        Ok(Heartbeat { guards, state, report, task: Some(runtime.spawn(task.run())) })
    }
}

/// The handle of a heartbeat task. Dropping it ends the task, which says goodbye.
///
/// The task sends no goodbye if the handle is dropped by an unwinding panic, which is no orderly end, or if
/// the runtime shuts down before the handle is dropped.
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
    /// `None` once it has been awaited.
    task: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Sets the status of the beats. If that is a change, a beat with it is sent at once, and the rhythm
    /// continues as before.
    ///
    /// # Errors
    ///
    /// [`Status::Stall`], which is a server's verdict; nothing changes.
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

    /// Sets the payload of the beats, from the next one on.
    pub fn set_payload(&self, payload: u32) {
        self.state.send_if_modified(|state| {
            state.payload = payload;
            false
        });
    }

    /// Says how much work this process has done, as [`Varta::progress`] does: the count is the payload of the beats, from
    /// the next one on, and a server that finds it unchanged for too long says that this process makes no progress.
    ///
    /// What several tasks do is counted by their [guards](crate::Guard::progress), which go before this count.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1))?;
    /// for message in 1..=3 {
    ///     // … handle it …
    ///     heartbeat.progress(message);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn progress(&self, count: u64) {
        self.state.send_if_modified(|state| {
            (state.payload, state.counts) = (lower_bits(count), true);
            false
        });
    }

    /// Returns the status of the beats.
    pub fn status(&self) -> Status {
        self.state.borrow().status
    }

    /// Returns the number of beats that were sent.
    pub fn beats_sent(&self) -> u64 {
        self.report.borrow().beats_sent
    }

    /// Returns the outcome of the last beat; `None` before the first.
    pub fn last_outcome(&self) -> Option<BeatOutcome> {
        self.report.borrow().last_outcome
    }

    /// Returns whether the server takes the beats: a beat that it refuses is sent all the same.
    ///
    /// The task asks as [`Varta::check`] does, without ever waiting: with the first beat on each connection, and
    /// once a minute while no beat is sent. It is [`Unknown`](Admission::Unknown) until the server has answered.
    /// A refusal is logged once, as a warning with its reason and what to do.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use varta_agent::{Admission, Varta};
    ///
    /// let heartbeat = Varta::connect_default()?.spawn_heartbeat(Duration::from_secs(1))?;
    /// if let Admission::Refused { reason, advice } = heartbeat.admission() {
    ///     eprintln!("nobody watches this process ({reason}): {advice}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn admission(&self) -> Admission {
        self.report.borrow().admission.clone()
    }

    /// Creates a guard for a piece of work, which must [tick](Guard::tick) at least once in `limit` from now
    /// on; otherwise the heartbeat withholds its beats. `name` identifies the guard in the log of this
    /// program.
    ///
    /// The task checks guards before each beat, so it detects a stuck one up to an interval late. A good
    /// limit is several intervals, and several times the work's longest duration. Work that waits for input
    /// ticks too, or drops its guard meanwhile; for work that takes long there is
    /// [`busy_for`](Self::busy_for), which suspends all guards.
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

    /// Asks the server to accept a silence of `span` from now on, as [`Varta::busy_for`] does, and waits
    /// until the task has sent the request. After that the program may block the runtime.
    ///
    /// Zero withdraws the request. If the heartbeat has ended, the outcome is
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

    /// Ends the heartbeat with a goodbye, and waits until the task has ended and its socket is closed. A beat
    /// with a status that was set before is still sent.
    ///
    /// The task waits only for its timer, so this takes no longer than the runtime needs to schedule it, and
    /// up to 15 ms more if the server's queue is full, because a lost goodbye would cause an alert.
    pub async fn stop(self) {
        self.stop_with(GoodbyeReason::Shutdown).await;
    }

    /// As [`stop`](Self::stop), with a reason other than the end of the process.
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
            // The only possible error is cancellation, by a runtime that shuts down.
            let _ = task.await;
        }
    }

    /// Sets the reason of the goodbye, which the task sends when it ends.
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
