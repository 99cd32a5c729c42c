//! The constructors of a handle.

use std::io;
#[cfg(feature = "udp")]
use std::net::SocketAddr;
use std::path::Path;

#[cfg(feature = "secure-udp")]
use varta_proto::secure::Key;

use super::handle::Varta;
use crate::builder::Builder;
use crate::control_schedule::ControlSchedule;
use crate::fork::ProcessLife;
#[cfg(feature = "secure-udp")]
use crate::transport::SecureUdpTransport;
#[cfg(all(feature = "shm", target_os = "linux"))]
use crate::transport::ShmTransport;
#[cfg(feature = "udp")]
use crate::transport::UdpTransport;
use crate::transport::UdsTransport;

impl Varta {
    /// Connects to the server that listens on the Unix socket at `path`.
    ///
    /// The handle reconnects only by [`reconnect`](Self::reconnect), or after
    /// [`set_reconnect_after`](Self::set_reconnect_after). One from the [`builder`](Self::builder) reconnects
    /// automatically.
    ///
    /// # Errors
    ///
    /// No server listens there, this process has no permission to connect, the path is invalid for a socket,
    /// or there is no descriptor left. The message names the path and says what to do.
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
    /// The environment variable `VARTA_SOCKET` has the path of the socket. If it is unset or empty, the
    /// handle takes the first of the usual paths at which a server answers: `$RUNTIME_DIRECTORY/varta.sock`,
    /// `$XDG_RUNTIME_DIR/varta/varta.sock`, `/run/varta/varta.sock` and `/tmp/varta-<uid>/varta.sock`. A
    /// directory below `/tmp` that belongs to another user is skipped.
    ///
    /// It is the handle for production, as one from the [`builder`](Self::builder): a missing server is not an
    /// error, each beat looks for one until it is found, and a restarted server is found again. Without a
    /// [name](Builder::name) the server names the agent by its systemd unit or container, else by its
    /// command.
    ///
    /// # Errors
    ///
    /// The path in `VARTA_SOCKET` is invalid for a socket. The message names it.
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

    /// Returns a builder, for a handle with other settings than those of [`connect`](Self::connect).
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// use varta_agent::Varta;
    ///
    /// let agent = Varta::builder().socket(&path).reconnect_after(3).connect()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Creates a handle that does nothing, for a program whose beats are switched off.
    ///
    /// Each beat returns [`Dropped(NoObserver)`](crate::DropReason::NoObserver) at once; it makes no system
    /// call, opens no descriptor and counts nothing.
    ///
    /// ```
    /// use varta_agent::{BeatOutcome, DropReason, Status, Varta};
    ///
    /// let mut agent = Varta::disabled();
    /// assert!(!agent.is_enabled());
    /// assert_eq!(agent.beat(Status::Ok, 0), BeatOutcome::Dropped(DropReason::NoObserver));
    /// ```
    pub fn disabled() -> Self {
        Self::with(UdsTransport::disconnected(), ProcessLife::none(), 0, ControlSchedule::new(None), false)
    }
}

/// Beats through a page of memory (feature `shm`, on Linux).
#[cfg(all(feature = "shm", target_os = "linux"))]
impl Varta<ShmTransport> {
    /// Connects to the server that listens on the Unix socket at `path`, as [`connect`](Varta::connect) does
    /// except that it finds a restarted server automatically, and sends most beats without a system call: the handle shares a page of memory with the server and
    /// writes beats into it, and the server reads the page several times within the shortest deadline.
    ///
    /// A beat with the status of the one before goes through the page. Every other datagram goes through the
    /// socket: the first beats until the server has accepted the page, a change of status, each
    /// [`Critical`](crate::Status::Critical) beat, a Hello, a goodbye and the terminal frame of a panic. So
    /// does every beat while no server reads the page, because the server does not support pages, has no room
    /// for another one, or has ended. A new page is handed over with the first beat after connecting, a
    /// reconnect or a fork, and once a minute while no server reads the current one.
    ///
    /// # What is different
    ///
    /// [`Sent`](crate::BeatOutcome::Sent) means that the beat is in the page. The server sees only the newest
    /// beat each time it reads; it neither counts the beats in between nor reports them as lost. A server
    /// that was killed is detected up to a second later than through the socket, or up to four of its read
    /// intervals later if that is longer; the outcome of the beats until then is `Sent`.
    ///
    /// A page takes 4 KiB of this process's memory and no descriptor. If the kernel cannot mark memory for
    /// every fork (before Linux 4.14), all beats go through the socket.
    ///
    /// # Errors
    ///
    /// As [`connect`](Varta::connect). A missing page is not an error.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// use varta_agent::{Status, Varta};
    ///
    /// let mut agent = Varta::connect_shm(&path)?;
    /// for job in 0..10 {
    ///     // … do it …
    ///     let _ = agent.beat(Status::Ok, job);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect_shm(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::new(ShmTransport::connect(path)?, 1))
    }
}

/// Beats over UDP (feature `udp`).
#[cfg(feature = "udp")]
impl Varta<UdpTransport> {
    /// Connects to the server at `addr`, an address of IPv4 or IPv6, by UDP without encryption: any host that
    /// can reach the server can impersonate this agent. On a network that is not trusted use
    /// `connect_secure_udp`.
    ///
    /// The handle reconnects only on request, as one from [`connect`](Varta::connect); the
    /// [builder](Varta::builder) takes an [`UdpTransport`] too.
    ///
    /// # What the outcomes mean
    ///
    /// [`Sent`](crate::BeatOutcome::Sent) means that the kernel took the beat, and not that the server
    /// received it. If no process listens on the port, the server's host may report it; the beat *after* that
    /// report is [`Dropped(NoObserver)`](crate::DropReason::NoObserver) and is not sent. So without a server
    /// about every other beat is dropped. A handle that reconnects after one dropped beat sends that beat
    /// again from a new socket, which has no pending report, and all of its beats are `Sent`.
    ///
    /// # Errors
    ///
    /// There is no route to this address, its port is 0, or there is no descriptor left. A missing server is
    /// not an error, because nothing is sent. The message names the address.
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

/// Sealed beats over UDP (feature `secure-udp`).
#[cfg(feature = "secure-udp")]
impl Varta<SecureUdpTransport> {
    /// Connects to the server at `addr` by UDP, with beats sealed with the key that the server shares with
    /// all its agents.
    ///
    /// The outcomes mean the same as for [`connect_udp`](Varta::connect_udp); the
    /// [crate's](crate#what-a-seal-protects) page describes what a seal protects. After a fork and on
    /// reconnect the handle draws new randomness from the operating system. If there is none, the beat is
    /// [`Failed`](crate::BeatOutcome::Failed) and not sent.
    ///
    /// # Errors
    ///
    /// There is no route to this address, its port is 0, there is no descriptor left, or the operating system
    /// has no randomness, as early at boot. The message names the address.
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

    /// Connects to the server at `addr` by UDP, with beats sealed with this process's own key, which is
    /// derived from the server's master key for the pid in its beats.
    ///
    /// The master key stays in the memory of this process, which derives a new key from it after a fork.
    /// Everything else is as for [`connect_secure_udp`](Self::connect_secure_udp).
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
