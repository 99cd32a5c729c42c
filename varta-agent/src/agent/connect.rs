//! How a handle comes to its connection.

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
    /// Each beat returns [`Dropped(NoObserver)`](crate::DropReason::NoObserver) at once; no system call is made, no descriptor
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
        Self::with(UdsTransport::disconnected(), ProcessLife::none(), 0, ControlSchedule::new(None), false)
    }
}

/// Beats through a page of memory (feature `shm`, on Linux).
#[cfg(all(feature = "shm", target_os = "linux"))]
impl Varta<ShmTransport> {
    /// Beats to the server that listens on the Unix socket at `path`, as [`connect`](Varta::connect) does, and most of the
    /// time without a system call: the handle shares a page of memory with the server, writes a beat there, and the
    /// server looks at it several times within the shortest deadline.
    ///
    /// Through the page go the beats that say what the one before said. Everything that is news goes through the socket:
    /// the first beats until the server has taken the page, another status, each [`Critical`](crate::Status::Critical), a
    /// Hello, a goodbye and the last word of a panic. So does every beat while nobody looks at the page, because the server
    /// takes none, has no room for one more, or is gone. A new page is handed over with the first beat after connecting,
    /// a reconnect and a fork, and once a minute while nobody looks at the one there is.
    ///
    /// # What is different
    ///
    /// [`Sent`](crate::BeatOutcome::Sent) says that the beat stands where the server looks. It sees the newest one at each
    /// look, so it does not count the beats between two looks, and none of them as lost. A server that has died without
    /// a word is noticed up to a second later than through the socket, or up to four of its looks if that is longer; the
    /// beats of that time are `Sent` all the same.
    ///
    /// A page takes 4 KiB of this process's memory and no descriptor. Where the kernel does not tell a process of every
    /// fork (before Linux 4.14), all beats go through the socket.
    ///
    /// # Errors
    ///
    /// As [`connect`](Varta::connect). That there is no page is none.
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
        Ok(Self::new(ShmTransport::connect(path)?, 0))
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
    /// [`Sent`](crate::BeatOutcome::Sent) says that the kernel took the beat, and not that anybody got it. If nobody listens,
    /// the host of the server may say so; the beat *after* that is
    /// [`Dropped(NoObserver)`](crate::DropReason::NoObserver), and is not sent. So where nobody listens, every other beat or
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
    /// the operating system. A beat for which there is none is [`Failed`](crate::BeatOutcome::Failed) and not sent.
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
