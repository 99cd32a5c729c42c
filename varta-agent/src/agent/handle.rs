//! The handle that beats.
//!
//! A beat has to be so cheap and so harmless that nobody thinks twice before putting one into a loop: it reads the
//! clock once and a word of memory, encodes on the stack, and makes one system call that does not wait.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Instant;

use varta_proto::{Frame, NONCE_TERMINAL, Status};

use crate::control_schedule::ControlSchedule;
use crate::counters::Counters;
use crate::fork::ProcessLife;
use crate::outcome::{BeatError, BeatOutcome, DropReason, classify_send_error};
use crate::sys;
use crate::time::nanoseconds;
use crate::transport::{BeatTransport, UdsTransport};

/// The largest nonce of an ordinary beat.
const MAX_NONCE: u64 = NONCE_TERMINAL - 1;

pub(super) const QUEUE_FULL: BeatOutcome = BeatOutcome::Dropped(DropReason::KernelQueueFull);

const NONCE_WRAPPED_MESSAGE: &str = "varta: a session has used up its nonces and begins again at 0\n";

/// A handle that beats: it tells the server that this process is alive, and how it is.
///
/// It belongs to one thread at a time (`Send`, not `Sync`). A process may have several; each is a session of its own,
/// whose beats are numbered from 1. Dropping a handle closes its socket and says nothing to the server;
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
/// A child of `fork` may go on with the handles that it has inherited. The first beat of each notices, connects anew
/// and begins a session of the child's own: its pid, nonce 1, a clock at 0. The parent's handle knows nothing of it.
///
/// No system call is made for that, see the [crate's](crate#what-happens-on-fork) page.
pub struct Varta<T: BeatTransport = UdsTransport> {
    pub(super) transport: T,
    pub(super) process_life: ProcessLife,
    /// What timestamps count from. An `Instant` does not go backwards where the platform keeps its word.
    pub(super) start: Instant,
    /// The timestamp of the last beat, below which none may go.
    pub(super) last_timestamp: u64,
    /// The nonce of the last beat.
    pub(super) nonce: u64,
    /// Never above the threshold, if there is one.
    pub(super) dropped_in_a_row: u32,
    /// 0 means never.
    pub(super) reconnect_after: u32,
    pub(super) clock_regressions: u64,
    pub(super) fork_recoveries: u64,
    /// What else there is to say than beats.
    pub(super) control_schedule: ControlSchedule,
    pub(super) counters: Counters,
    /// A flag and not a transport of its own: a program may switch beats off without changing a type.
    pub(super) enabled: bool,
    /// A session's beats come one after the other, so a handle is not to be shared.
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

    /// Tells the server that this process is alive and how it is, with a number of the program's own choice.
    ///
    /// It never blocks, never panics, and allocates nothing; a lost beat is not kept. The result may be ignored.
    /// Where a Hello is due it goes out behind a beat that was sent, and makes no difference to its outcome.
    ///
    /// - The first beat has nonce 1 and each one the next, lost or not. The timestamp never decreases.
    /// - The first beat after a fork connects anew, begins a new session, and counts as a [fork
    ///   recovery](Self::fork_recoveries). If it cannot connect it is [`Failed`](BeatOutcome::Failed): nothing is sent
    ///   or counted, and the next beat tries again.
    /// - A [`Dropped`](BeatOutcome::Dropped) beat may reconnect and go out once more, see
    ///   [`set_reconnect_after`](Self::set_reconnect_after).
    /// - [`Status::Stall`] is what a server concludes and nobody sends: the beat is `Failed` with
    ///   [`InvalidInput`](io::ErrorKind::InvalidInput), and the handle is as it was.
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

    /// Replaces the connection, and nothing else: the nonce, the clock and all counts go on.
    ///
    /// In a forked child it also counts as the answer to the fork, so that the next beat does not begin a new session;
    /// the beats carry the child's pid. A child that wants a session of its own just beats.
    ///
    /// # Errors
    ///
    /// What the transport says. The old connection stays in place.
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

    /// Has beats reconnect when `n` of them in a row were [`Dropped`](BeatOutcome::Dropped); 0 never does. The count of
    /// beats dropped so far begins anew.
    ///
    /// The `n`th beat reconnects and goes out once more, the same frame; what becomes of that is its outcome. As long
    /// as beats go on being dropped each of them tries again. If there is no new connection to be had the beat stays
    /// dropped for its own reason, and the old connection is kept.
    ///
    /// A full queue counts too: reconnecting leads away from a socket that nobody reads any more.
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

    /// Counts the beats for which the clock had gone backwards. They carried the timestamp of the beat before.
    ///
    /// Above 0 it tells of a platform that breaks the promise of a monotonic clock.
    pub const fn clock_regressions(&self) -> u64 {
        self.clock_regressions
    }

    /// Counts the forks that this handle has gone through and noticed: 0 in the process that connected it, 1 in a child
    /// that has beaten.
    pub const fn fork_recoveries(&self) -> u64 {
        self.fork_recoveries
    }

    /// Tells whether beats go anywhere, which they do unless the handle is [`disabled`](Varta::disabled).
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Reconnects at least when this beat was lost and the ones before it, if no threshold was set.
    #[cfg(feature = "tokio")]
    pub(crate) const fn ensure_reconnects(&mut self) {
        if self.reconnect_after == 0 {
            self.set_reconnect_after(1);
        }
    }

    /// Answers the beats that do not get as far as the clock.
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
        } else if self.control_schedule.is_hello_due(timestamp) {
            self.send_hello();
        }
        outcome
    }

    /// Begins a session of this process's own, if there is a connection for it.
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
        // From here on every lost beat tries again, until one gets through.
        self.dropped_in_a_row = self.reconnect_after;
        if self.transport.reconnect().is_err() {
            return dropped;
        }
        self.counters.count_reconnect();
        let retried = self.send(wire);
        if !retried.is_dropped() {
            self.dropped_in_a_row = 0;
        }
        // A queue that is as full as the one before is the same one.
        if (dropped, retried) != (QUEUE_FULL, QUEUE_FULL) {
            self.control_schedule.handle_reconnect();
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
