//! The handle that beats.
//!
//! A beat has to be so cheap and so harmless that nobody thinks twice before putting one into a loop: it reads the
//! clock once and a word of memory, encodes on the stack, and makes one system call that does not wait.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
#[cfg(feature = "udp")]
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

#[cfg(feature = "secure-udp")]
use varta_proto::secure::Key;
use varta_proto::{Frame, NONCE_TERMINAL, Status};

use crate::builder::Builder;
use crate::fork::Incarnation;
use crate::outcome::{BeatError, BeatOutcome, DropReason, classify_send_error};
use crate::sys;
#[cfg(feature = "secure-udp")]
use crate::transport::SecureUdpTransport;
#[cfg(feature = "udp")]
use crate::transport::UdpTransport;
use crate::transport::{BeatTransport, UdsTransport};

/// The largest nonce of an ordinary beat.
const NONCE_LAST: u64 = NONCE_TERMINAL - 1;

/// The largest timestamp; the one above it means an error in the protocol.
const TIMESTAMP_LAST: u64 = u64::MAX - 1;

const WRAPPED: &str = "varta: a session has used up its nonces and begins again at 0\n";

/// A handle that beats: it tells the server that this process is alive, and how it is.
///
/// It belongs to one thread at a time (`Send`, not `Sync`). A process may have several; each is a session of its own,
/// whose beats are numbered from 1. Dropping a handle closes its socket and says nothing to the server.
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
    transport: T,
    incarnation: Incarnation,
    /// What timestamps count from. An `Instant` does not go backwards where the platform keeps its word.
    start: Instant,
    /// The timestamp of the last beat, below which none may go.
    last_timestamp: u64,
    /// The nonce of the last beat.
    nonce: u64,
    /// Never above the threshold, if there is one.
    dropped_in_a_row: u32,
    /// 0 means never.
    reconnect_after: u32,
    clock_regressions: u64,
    fork_recoveries: u64,
    /// A flag and not a transport of its own: a program may switch beats off without changing a type.
    enabled: bool,
    /// A session's beats come one after the other, so a handle is not to be shared.
    not_sync: PhantomData<Cell<()>>,
}

impl Varta {
    /// Connects to the server that listens on the Unix socket at `path`.
    ///
    /// The handle reconnects only when told to: by [`reconnect`](Self::reconnect), or after
    /// [`set_reconnect_after`](Self::set_reconnect_after). One from the [`builder`](Self::builder) does so by itself.
    ///
    /// # Errors
    ///
    /// Nobody listens there, this process may not connect, no socket can have this path, or there is no descriptor
    /// left. The message names the path and says what to do.
    ///
    /// ```
    /// let error = varta_agent::Varta::connect("/nowhere/varta.sock").unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    /// assert!(error.to_string().starts_with("cannot connect to /nowhere/varta.sock: "));
    /// ```
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::new(UdsTransport::connect(path)?, 0))
    }

    /// Connects to the server of this host.
    ///
    /// The environment variable `VARTA_SOCKET` names its socket. Where it is not set or empty, the handle takes the
    /// first path at which a server answers of those where one may be: `$RUNTIME_DIRECTORY/varta.sock`,
    /// `$XDG_RUNTIME_DIR/varta/varta.sock`, `/run/varta/varta.sock` and `/tmp/varta-<uid>/varta.sock`. A directory
    /// below `/tmp` that belongs to another user is not looked into.
    ///
    /// The handle finds a restarted server by itself, as if by `reconnect_after(1)`.
    ///
    /// # Errors
    ///
    /// No server answers at any of them, or the one at `VARTA_SOCKET` does not. The message names the paths.
    ///
    /// ```no_run
    /// use varta_agent::{Status, Varta};
    ///
    /// let mut agent = Varta::connect_default()?;
    /// let _ = agent.beat(Status::Ok, 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect_default() -> io::Result<Self> {
        Self::builder().connect()
    }

    /// Begins a handle with other settings than [`connect`](Self::connect) has.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// use varta_agent::Varta;
    ///
    /// let agent = Varta::builder().socket(&path).lazy().reconnect_after(3).connect()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Makes a handle that does nothing, for a program that is told not to beat.
    ///
    /// Each beat returns [`Dropped(NoObserver)`](DropReason::NoObserver) at once; no system call is made, no descriptor
    /// opened, nothing counted.
    ///
    /// ```
    /// use varta_agent::{BeatOutcome, DropReason, Status, Varta};
    ///
    /// let mut agent = Varta::disabled();
    /// assert!(!agent.is_enabled());
    /// assert_eq!(agent.beat(Status::Ok, 0), BeatOutcome::Dropped(DropReason::NoObserver));
    /// ```
    pub fn disabled() -> Self {
        Self::with(UdsTransport::nowhere(), Incarnation::none(), 0, false)
    }
}

/// Beats over UDP (feature `udp`).
#[cfg(feature = "udp")]
impl Varta<UdpTransport> {
    /// Beats by UDP to the server at `addr`, an address of IPv4 or IPv6, in plain sight: whoever can send to the server
    /// can pass for this agent. Over a network that others use, take `connect_secure_udp`.
    ///
    /// The handle reconnects only when told to, as one from [`connect`](Varta::connect); the
    /// [builder](Varta::builder) takes an [`UdpTransport`] too.
    ///
    /// # What the outcomes mean
    ///
    /// [`Sent`](BeatOutcome::Sent) says that the kernel took the beat, and not that anybody got it. If nobody listens,
    /// the host of the server may say so; the beat *after* that is
    /// [`Dropped(NoObserver)`](DropReason::NoObserver), and is not sent. So where nobody listens, every other beat or
    /// so is dropped; and a handle that reconnects after one dropped beat sends that beat again, from a new socket
    /// that has heard of nothing, and all of its beats are `Sent`.
    ///
    /// # Errors
    ///
    /// There is no route to this address, its port is 0, or there is no descriptor left. A server that is not there
    /// is none: nothing is sent. The message names the address.
    ///
    /// ```
    /// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// # let addr = server.local_addr()?;
    /// use varta_agent::{Status, Varta};
    ///
    /// let mut agent = Varta::connect_udp(addr)?;
    /// let _ = agent.beat(Status::Ok, 0);
    /// # assert_eq!(server.recv(&mut [0; 64])?, 32);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect_udp(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(UdpTransport::connect(addr)?, 0))
    }
}

/// Beats over UDP under a seal (feature `secure-udp`).
#[cfg(feature = "secure-udp")]
impl Varta<SecureUdpTransport> {
    /// Beats by UDP to the server at `addr`, sealed with the key that this server shares with all its agents.
    ///
    /// What the outcomes mean is as for [`connect_udp`](Varta::connect_udp); what the seal is worth, on the
    /// [crate's](crate#what-a-seal-protects) page. After a fork and on reconnect the handle draws new randomness from
    /// the operating system. A beat for which there is none is [`Failed`](BeatOutcome::Failed) and not sent.
    ///
    /// # Errors
    ///
    /// There is no route to this address, its port is 0, there is no descriptor left, or the operating system gives no
    /// randomness, as early at boot. The message names the address.
    ///
    /// ```
    /// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// # let addr = server.local_addr()?;
    /// use varta_agent::{Key, Status, Varta};
    ///
    /// // A program reads it with `Key::from_file`.
    /// let key = Key::from_bytes([0x8f; 32]);
    /// let mut agent = Varta::connect_secure_udp(addr, key)?;
    /// let _ = agent.beat(Status::Ok, 0);
    /// # assert_eq!(server.recv(&mut [0; 100])?, 60);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect_secure_udp(addr: SocketAddr, key: Key) -> io::Result<Self> {
        Ok(Self::new(SecureUdpTransport::connect(addr, key)?, 0))
    }

    /// Beats by UDP to the server at `addr`, sealed with a key of this process's own that is derived from the server's
    /// master key for the pid in its beats.
    ///
    /// The master key stays in the memory of this process, which derives a new key from it when it finds itself to be
    /// a forked child. All else is as for [`connect_secure_udp`](Self::connect_secure_udp).
    ///
    /// # Errors
    ///
    /// As [`connect_secure_udp`](Self::connect_secure_udp).
    ///
    /// ```
    /// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// # let addr = server.local_addr()?;
    /// use varta_agent::{Key, Status, Varta};
    ///
    /// let master = Key::from_bytes([0x8f; 32]);
    /// let mut agent = Varta::connect_secure_udp_with_master(addr, master)?;
    /// let _ = agent.beat(Status::Ok, 0);
    /// # assert_eq!(server.recv(&mut [0; 100])?, 64);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect_secure_udp_with_master(addr: SocketAddr, key: Key) -> io::Result<Self> {
        Ok(Self::new(SecureUdpTransport::connect_with_master(addr, key)?, 0))
    }
}

impl<T: BeatTransport> Varta<T> {
    pub(crate) fn new(transport: T, reconnect_after: u32) -> Self {
        Self::with(transport, Incarnation::current(), reconnect_after, true)
    }

    fn with(transport: T, incarnation: Incarnation, reconnect_after: u32, enabled: bool) -> Self {
        Self {
            transport,
            incarnation,
            start: Instant::now(),
            last_timestamp: 0,
            nonce: 0,
            dropped_in_a_row: 0,
            reconnect_after,
            clock_regressions: 0,
            fork_recoveries: 0,
            enabled,
            not_sync: PhantomData,
        }
    }

    /// Tells the server that this process is alive and how it is, with a number of the program's own choice.
    ///
    /// It never blocks, never panics, and allocates nothing; a lost beat is not kept. The result may be ignored.
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
        match self.refuse(status) {
            Some(refused) => refused,
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
            let incarnation = Incarnation::current();
            self.transport.reconnect()?;
            self.incarnation = incarnation;
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
    fn refuse(&self, status: Status) -> Option<BeatOutcome> {
        if matches!(status, Status::Stall) {
            return Some(BeatOutcome::Failed(BeatError::of_kind(io::ErrorKind::InvalidInput)));
        }
        (!self.enabled).then_some(BeatOutcome::Dropped(DropReason::NoObserver))
    }

    fn beat_at(&mut self, now: Instant, status: Status, payload: u32) -> BeatOutcome {
        if !self.incarnation.is_current()
            && let Err(error) = self.begin_anew_after_fork(now)
        {
            return BeatOutcome::Failed(error);
        }
        let nonce = self.next_nonce();
        let timestamp = self.next_timestamp(now);
        let mut wire = [0; 32];
        Frame::new(status, self.incarnation.pid(), timestamp, nonce, payload).encode(&mut wire);
        match self.send(&wire) {
            dropped @ BeatOutcome::Dropped(_) => self.handle_dropped(&wire, dropped),
            outcome => {
                self.dropped_in_a_row = 0;
                outcome
            }
        }
    }

    /// Begins a session of this process's own, if there is a connection for it.
    #[cold]
    fn begin_anew_after_fork(&mut self, now: Instant) -> Result<(), BeatError> {
        let incarnation = Incarnation::current();
        self.transport.reconnect().map_err(|error| BeatError::from_io(&error))?;
        self.incarnation = incarnation;
        self.start = now;
        self.last_timestamp = 0;
        self.nonce = 0;
        self.dropped_in_a_row = 0;
        self.fork_recoveries = self.fork_recoveries.saturating_add(1);
        Ok(())
    }

    #[inline]
    fn next_nonce(&mut self) -> u64 {
        if self.nonce < NONCE_LAST {
            self.nonce += 1;
        } else {
            sys::write_to_stderr(WRAPPED);
            self.nonce = 0;
        }
        self.nonce
    }

    #[inline]
    fn next_timestamp(&mut self, now: Instant) -> u64 {
        let elapsed = nanoseconds(now.saturating_duration_since(self.start));
        if elapsed < self.last_timestamp {
            self.clock_regressions = self.clock_regressions.saturating_add(1);
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
        let again = self.send(wire);
        if !again.is_dropped() {
            self.dropped_in_a_row = 0;
        }
        again
    }
}

/// What tests need to force (feature `test-hooks`). Not for production.
#[cfg(feature = "test-hooks")]
impl<T: BeatTransport> Varta<T> {
    /// Beats as if the clock read `now`, which may be earlier than the beat before.
    pub fn beat_at_for_test(&mut self, now: Instant, status: Status, payload: u32) -> BeatOutcome {
        self.refuse(status).unwrap_or_else(|| self.beat_at(now, status, payload))
    }

    /// Has the last beat been the one with this nonce.
    pub const fn set_nonce_for_test(&mut self, nonce: u64) {
        self.nonce = nonce;
    }

    /// Has the handle been connected by process `pid`: by any other than this one, and the next beat notices a fork.
    pub fn set_connect_pid_for_test(&mut self, pid: u32) {
        self.incarnation = Incarnation::current();
        if pid != self.incarnation.pid() {
            self.incarnation.forget();
        }
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

/// Turns a time span into what fits on the wire; the last value stands for all beyond it, which begin after 584 years.
#[inline]
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).map_or(TIMESTAMP_LAST, |nanoseconds| nanoseconds.min(TIMESTAMP_LAST))
}

#[cfg(test)]
mod tests;
