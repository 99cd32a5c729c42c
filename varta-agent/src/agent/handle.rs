//! The handle, and what a beat does.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use varta_proto::{Frame, NONCE_TERMINAL, Status};

use crate::check::{self, Admission};
use crate::control_schedule::ControlSchedule;
use crate::counters::Counters;
use crate::fork::ProcessLife;
use crate::outcome::{BeatError, BeatOutcome, DropReason, QUEUE_FULL, classify_send_error};
use crate::sys;
use crate::time::nanoseconds;
use crate::transport::{BeatTransport, UdsTransport};

/// The largest nonce of an ordinary beat.
const MAX_NONCE: u64 = NONCE_TERMINAL - 1;

const NONCE_WRAPPED_MESSAGE: &str = "varta: a session has used up its nonces and begins again at 0\n";

/// A handle that sends beats: each reports that this process is alive, and its status.
///
/// It belongs to one thread at a time (`Send`, not `Sync`). A process may have several; each is a session of
/// its own, whose beats are numbered from 1. Dropping a handle closes its socket and sends nothing;
/// [`close`](Self::close) says goodbye.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("varta.sock");
/// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
/// use varta_agent::{Status, Varta};
///
/// let mut agent = Varta::connect(&path)?;
/// for job in 0..10 {
///     // … do it …
///     let _ = agent.beat(Status::Ok, job);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # After a fork
///
/// A child of `fork` may use the handles that it has inherited. The first beat of each detects the fork,
/// connects again and starts a session of the child: its pid, nonce 1, a clock at 0. The parent's handle is
/// unaffected.
///
/// Detection takes no system call, see the [crate's](crate#what-happens-on-fork) page.
pub struct Varta<T: BeatTransport = UdsTransport> {
    pub(super) transport: T,
    pub(super) process_life: ProcessLife,
    /// The zero of timestamps. An `Instant` does not go backwards if the platform keeps its guarantees.
    pub(super) start: Instant,
    /// The timestamp of the last beat, the minimum of the next.
    pub(super) last_timestamp: u64,
    /// The nonce of the last beat.
    pub(super) nonce: u64,
    /// At most `reconnect_after`, if that is not 0.
    pub(super) dropped_in_a_row: u32,
    /// 0 for never.
    pub(super) reconnect_after: u32,
    pub(super) clock_regressions: u64,
    pub(super) fork_recoveries: u64,
    /// The schedule and the content of control datagrams.
    pub(super) control_schedule: ControlSchedule,
    pub(super) counters: Counters,
    /// A flag and not a transport of its own: a program can switch beats off without changing a type.
    pub(super) enabled: bool,
    /// The beats of a session are sequential, so a handle must not be shared.
    not_sync: PhantomData<Cell<()>>,
}

impl<T: BeatTransport> Varta<T> {
    pub(crate) fn new(transport: T, reconnect_after: u32) -> Self {
        Self::with(transport, ProcessLife::current(), reconnect_after, ControlSchedule::new(None), true)
    }

    pub(super) fn with(
        transport: T,
        process_life: ProcessLife,
        reconnect_after: u32,
        control_schedule: ControlSchedule,
        enabled: bool,
    ) -> Self {
        Self {
            transport,
            process_life,
            start: Instant::now(),
            last_timestamp: 0,
            nonce: 0,
            dropped_in_a_row: 0,
            reconnect_after,
            clock_regressions: 0,
            fork_recoveries: 0,
            control_schedule,
            counters: if enabled { Counters::from_recorder() } else { Counters::noop() },
            enabled,
            not_sync: PhantomData,
        }
    }

    /// Sends a beat: this process is alive, with this status and a number of the program's choice.
    ///
    /// It never blocks, never panics, and allocates nothing; a lost beat is not stored. The result may be
    /// ignored. The first Hello of a connection precedes its first beat, later ones follow a beat that was
    /// sent; a Hello does not affect the outcome.
    ///
    /// - The first beat has nonce 1 and each one the next, lost or not. The timestamp never decreases.
    /// - The first beat after a fork connects again, starts a new session, and counts as a [fork
    ///   recovery](Self::fork_recoveries). If it cannot connect it is [`Failed`](BeatOutcome::Failed):
    ///   nothing is sent or counted, and the next beat tries again.
    /// - A [`Dropped`](BeatOutcome::Dropped) beat may reconnect and be sent once more, see
    ///   [`set_reconnect_after`](Self::set_reconnect_after).
    /// - [`Status::Stall`] is a server's verdict: the beat is `Failed` with
    ///   [`InvalidInput`](io::ErrorKind::InvalidInput), and the handle is unchanged.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// use varta_agent::{BeatOutcome, DropReason, Status, Varta};
    ///
    /// let mut agent = Varta::connect(&path)?;
    /// assert_eq!(agent.beat(Status::Degraded, 42), BeatOutcome::Sent);
    ///
    /// drop(server);
    /// assert_eq!(agent.beat(Status::Ok, 0), BeatOutcome::Dropped(DropReason::NoObserver));
    /// assert!(agent.beat(Status::Stall, 0).is_failed());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn beat(&mut self, status: Status, payload: u32) -> BeatOutcome {
        match self.reject(status) {
            Some(rejected) => rejected,
            None => self.beat_at(Instant::now(), status, payload),
        }
    }

    /// Asks the server whether it takes the beats of this process, and waits at most `timeout` for the answer. A
    /// beat that the server refuses is [`Sent`](BeatOutcome::Sent) all the same.
    ///
    /// The server judges as it judges beats: by the user, the groups and the pid of the process that asks. It does
    /// not say whether it has room for one more agent. No beat asks; a program may, at its start.
    ///
    /// # Errors
    ///
    /// The check socket of the server, its path with `.check` appended, cannot be opened, for another reason than
    /// that this process has no permission; there is no answer within `timeout`, or one that makes no sense.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use varta_agent::{Admission, Varta};
    ///
    /// let agent = Varta::connect_default()?;
    /// if let Admission::Refused { advice, .. } = agent.check(Duration::from_secs(1))? {
    ///     eprintln!("nobody watches this process: {advice}");
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn check(&self, timeout: Duration) -> io::Result<Admission> {
        self.server_path().map_or(Ok(Admission::Unknown), |server| check::check(&server, timeout))
    }

    /// Returns the path of the server's socket, if the handle sends to one.
    pub(crate) fn server_path(&self) -> Option<PathBuf> {
        if self.enabled { self.transport.server_path() } else { None }
    }

    /// Returns a number that is another one after each reconnect.
    #[cfg(feature = "tokio")]
    pub(crate) const fn connection(&self) -> u32 {
        self.control_schedule.reconnects()
    }

    /// Replaces the connection, and nothing else: the nonce, the clock and all counts continue.
    ///
    /// In a forked child this also handles the fork, so that the next beat does not start a new session; the
    /// beats have the child's pid. For a session of its own a child just beats.
    ///
    /// # Errors
    ///
    /// The error of the transport. The old connection stays in place.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// use varta_agent::{Status, Varta};
    ///
    /// let mut agent = Varta::connect(&path)?;
    /// # drop(server);
    /// # std::fs::remove_file(&path)?;
    /// let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// assert!(agent.beat(Status::Ok, 0).is_dropped());
    /// agent.reconnect()?;
    /// assert!(agent.beat(Status::Ok, 0).is_sent());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reconnect(&mut self) -> io::Result<()> {
        if self.enabled {
            let process_life = ProcessLife::current();
            self.transport.reconnect()?;
            self.counters.count_reconnect();
            if self.process_life.is_current() {
                self.control_schedule.handle_reconnect();
            } else {
                self.control_schedule.handle_fork();
            }
            self.process_life = process_life;
        }
        Ok(())
    }

    /// Makes beats reconnect after `n` of them in a row were [`Dropped`](BeatOutcome::Dropped); 0 for never.
    /// The count of dropped beats restarts at 0.
    ///
    /// The `n`th beat reconnects and sends the same frame once more; the outcome is that of the second
    /// attempt. While beats continue to be dropped each of them tries again. If there is no new connection,
    /// the beat stays dropped for its own reason, and the old connection is kept.
    ///
    /// A full queue counts too: reconnecting leaves a socket that no server reads any more.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// use varta_agent::{Status, Varta};
    ///
    /// let mut agent = Varta::connect(&path)?;
    /// agent.set_reconnect_after(1);
    /// # drop(server);
    /// # std::fs::remove_file(&path)?;
    /// let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// assert!(agent.beat(Status::Ok, 0).is_sent());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub const fn set_reconnect_after(&mut self, n: u32) {
        self.reconnect_after = n;
        self.dropped_in_a_row = 0;
    }

    /// Returns the number of beats for which the clock had gone backwards. They had the timestamp of the beat
    /// before.
    ///
    /// More than 0 means that the platform's monotonic clock is not monotonic.
    pub const fn clock_regressions(&self) -> u64 {
        self.clock_regressions
    }

    /// Returns the number of forks that this handle has recovered from: 0 in the process that connected it, 1
    /// in a child that has sent a beat.
    pub const fn fork_recoveries(&self) -> u64 {
        self.fork_recoveries
    }

    /// Returns whether beats are sent: `false` only for a [`disabled`](Varta::disabled) handle.
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Sets the threshold for reconnecting to 1, if none was set.
    #[cfg(feature = "tokio")]
    pub(crate) const fn ensure_reconnects(&mut self) {
        if self.reconnect_after == 0 {
            self.set_reconnect_after(1);
        }
    }

    /// Returns the outcome of a beat that needs no clock: an invalid status, or a disabled handle.
    #[inline]
    pub(super) fn reject(&self, status: Status) -> Option<BeatOutcome> {
        if matches!(status, Status::Stall) {
            return Some(BeatOutcome::Failed(BeatError::of_kind(io::ErrorKind::InvalidInput)));
        }
        (!self.enabled).then_some(BeatOutcome::Dropped(DropReason::NoObserver))
    }

    pub(super) fn beat_at(&mut self, now: Instant, status: Status, payload: u32) -> BeatOutcome {
        if !self.process_life.is_current()
            && let Err(error) = self.recover_from_fork(now)
        {
            return BeatOutcome::Failed(error);
        }
        let nonce = self.next_nonce();
        let timestamp = self.next_timestamp(now);
        let mut wire = [0; 32];
        Frame::new(status, self.process_life.pid(), timestamp, nonce, payload).encode(&mut wire);
        if self.control_schedule.is_introduction_due() {
            self.send_hello(self.previous_nonce());
        }
        let outcome = match self.send(&wire) {
            dropped @ BeatOutcome::Dropped(_) => self.handle_dropped(&wire, dropped),
            outcome => {
                self.dropped_in_a_row = 0;
                outcome
            }
        };
        self.counters.count_beat(outcome);
        if !outcome.is_sent() {
            self.control_schedule.count_unsent();
        } else if self.control_schedule.is_hello_due(timestamp)
            && !self.control_schedule.is_introduction_due()
        {
            self.send_hello(self.nonce);
        }
        outcome
    }

    /// Starts a session of this process, if there is a connection for it.
    #[cold]
    pub(super) fn recover_from_fork(&mut self, now: Instant) -> Result<(), BeatError> {
        let process_life = ProcessLife::current();
        self.transport.reconnect().map_err(|error| BeatError::from_io(&error))?;
        self.process_life = process_life;
        self.start = now;
        self.last_timestamp = 0;
        self.nonce = 0;
        self.dropped_in_a_row = 0;
        self.control_schedule.handle_fork();
        self.fork_recoveries = self.fork_recoveries.saturating_add(1);
        self.counters.count_fork_recovery();
        Ok(())
    }

    #[inline]
    fn next_nonce(&mut self) -> u64 {
        if self.nonce < MAX_NONCE {
            self.nonce += 1;
        } else {
            sys::write_to_stderr(NONCE_WRAPPED_MESSAGE);
            self.nonce = 0;
        }
        self.nonce
    }

    /// Returns the nonce of the beat before the one that has taken the current nonce; 0 before the first.
    const fn previous_nonce(&self) -> u64 {
        // 0 follows the largest nonce.
        match self.nonce.checked_sub(1) {
            Some(nonce) => nonce,
            None => MAX_NONCE,
        }
    }

    #[inline]
    pub(super) fn next_timestamp(&mut self, now: Instant) -> u64 {
        let elapsed = nanoseconds(now.saturating_duration_since(self.start));
        if elapsed < self.last_timestamp {
            self.clock_regressions = self.clock_regressions.saturating_add(1);
            self.counters.count_clock_regression();
        }
        self.last_timestamp = self.last_timestamp.max(elapsed);
        self.last_timestamp
    }

    #[inline]
    fn send(&mut self, wire: &[u8; 32]) -> BeatOutcome {
        match self.transport.send(wire) {
            Ok(32) => BeatOutcome::Sent,
            Ok(_) => BeatOutcome::Failed(BeatError::of_kind(io::ErrorKind::WriteZero)),
            Err(error) => classify_send_error(&error),
        }
    }

    #[cold]
    fn handle_dropped(&mut self, wire: &[u8; 32], dropped: BeatOutcome) -> BeatOutcome {
        self.dropped_in_a_row = self.dropped_in_a_row.saturating_add(1);
        if self.reconnect_after == 0 || self.dropped_in_a_row < self.reconnect_after {
            return dropped;
        }
        // From here on every lost beat tries again, until one is sent.
        self.dropped_in_a_row = self.reconnect_after;
        if self.transport.reconnect().is_err() {
            return dropped;
        }
        self.counters.count_reconnect();
        if dropped != QUEUE_FULL {
            self.control_schedule.handle_reconnect();
            if self.control_schedule.is_introduction_due() {
                self.send_hello(self.previous_nonce());
            }
        }
        let retried = self.send(wire);
        if !retried.is_dropped() {
            self.dropped_in_a_row = 0;
        }
        // If the new queue is full too, it is taken to be the same queue.
        if dropped == QUEUE_FULL && retried != QUEUE_FULL {
            self.control_schedule.handle_reconnect();
            if retried.is_sent() && self.control_schedule.is_introduction_due() {
                self.send_hello(self.nonce);
            }
        }
        retried
    }
}

impl<T: BeatTransport + fmt::Debug> fmt::Debug for Varta<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Varta")
            .field("transport", &self.transport)
            .field("enabled", &self.enabled)
            .field("nonce", &self.nonce)
            .field("reconnect_after", &self.reconnect_after)
            .finish_non_exhaustive()
    }
}
