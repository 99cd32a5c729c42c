//! Sealed beats over UDP.
//!
//! The invariant of this file: a key and a nonce never seal two datagrams. A [`Session`] guarantees it within
//! one process. This file guarantees the rest: the salt of each session is random, and a session that was
//! inherited through a fork is never used.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use varta_proto::control::EncodedControl;
use varta_proto::secure::{
    Exhausted, Key, MASTER_LEN, MAX_SEALED_CONTROL_LEN, SHARED_LEN, Session, seal_control_master,
    seal_control_shared, seal_master, seal_shared,
};

use crate::entropy::strict;
use crate::fork::ProcessLife;
use crate::transport::BeatTransport;
use crate::transport::udp::{self, UdpTransport};

/// Seals beats with ChaCha20-Poly1305 and sends them to a server by UDP, over IPv4 or IPv6 (feature
/// `secure-udp`). [`Varta::connect_secure_udp`](crate::Varta::connect_secure_udp) and
/// [`connect_secure_udp_with_master`](crate::Varta::connect_secure_udp_with_master) create handles with it.
///
/// Beats and control datagrams share one sequence of numbers, separate from the nonces of the frames in them;
/// a number counts as used before the datagram is sent, with any outcome.
///
/// In the child of a fork, [`send`](BeatTransport::send) reconnects before it seals anything, unless the
/// handle has done so: parent and child never seal with the same nonce.
///
/// ```
/// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// # let addr = server.local_addr()?;
/// use varta_agent::{BeatTransport, Frame, Key, SecureUdpTransport, Status};
///
/// let mut transport = SecureUdpTransport::connect(addr, Key::from_bytes([0x8f; 32]))?;
/// let frame = Frame::new(Status::Ok, std::process::id(), 0, 1, 0);
/// assert_eq!(transport.send(&frame.to_bytes())?, 32);
/// assert_eq!(server.recv(&mut [0; 100])?, 60);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SecureUdpTransport {
    udp: UdpTransport,
    /// Boxed, because moving a key leaves a copy that is not wiped.
    keys: Box<Keys>,
    session: Session,
    /// The process in which the session was started.
    process_life: ProcessLife,
}

impl SecureUdpTransport {
    /// Creates a socket for the server at `addr`, and a session under the key that the server shares with its
    /// agents.
    ///
    /// # Errors
    ///
    /// As [`UdpTransport::connect`]; or the operating system has no randomness, as early at boot or in a
    /// chroot without `/dev/urandom` where the system call is forbidden. The message names the address.
    pub fn connect(addr: SocketAddr, key: Key) -> io::Result<Self> {
        Self::with(addr, Keys::shared(key), UdpTransport::connect)
    }

    /// Creates a socket for the server at `addr`, and a session under keys that are derived from the server's
    /// master key for the pids in the frames.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_with_master(addr: SocketAddr, key: Key) -> io::Result<Self> {
        Self::with(addr, Keys::master(key), UdpTransport::connect)
    }

    pub(crate) fn with(
        addr: SocketAddr,
        keys: Box<Keys>,
        connect: impl FnOnce(SocketAddr) -> io::Result<UdpTransport>,
    ) -> io::Result<Self> {
        let process_life = ProcessLife::current();
        let session = new_session(addr)?;
        Ok(Self { udp: connect(addr)?, keys, session, process_life })
    }

    /// Seals in the session of this process, and in a new one after a fork or when the session is exhausted.
    #[inline]
    fn seal<R>(
        &mut self,
        mut seal: impl FnMut(&mut Keys, &mut Session) -> Result<R, Exhausted>,
    ) -> io::Result<R> {
        if !self.process_life.is_current() {
            self.reconnect()?;
        }
        match seal(&mut self.keys, &mut self.session) {
            Ok(sealed) => Ok(sealed),
            Err(Exhausted) => {
                self.reconnect()?;
                // Only if the new salt equals the old one.
                seal(&mut self.keys, &mut self.session)
                    .map_err(|Exhausted| io::Error::from(io::ErrorKind::Other))
            }
        }
    }

    /// Starts a session at a position after `prefixes` prefixes and `datagrams` datagrams of the next one
    /// (feature `test-hooks`). Its salt is new, so no nonce repeats.
    ///
    /// # Errors
    ///
    /// The operating system has no randomness.
    #[cfg(feature = "test-hooks")]
    #[doc(hidden)]
    pub fn skip_for_test(&mut self, prefixes: u32, datagrams: u32) -> io::Result<()> {
        let salt = strict::salt().map_err(io::Error::other)?;
        self.session = Session::resume_for_test(salt, prefixes, datagrams);
        Ok(())
    }
}

impl BeatTransport for SecureUdpTransport {
    #[inline]
    fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize> {
        let datagram = self.seal(|keys, session| keys.seal(session, frame))?;
        let sent = self.udp.send_datagram(datagram.as_ref())?;
        Ok(if sent == datagram.as_ref().len() { frame.len() } else { 0 })
    }

    #[cold]
    fn reconnect(&mut self) -> io::Result<()> {
        let process_life = ProcessLife::current();
        let salt = strict::salt().map_err(strict::NoEntropy::into_beat_error)?;
        // The last step that can fail.
        self.udp.reconnect()?;
        self.session.renew(salt);
        self.process_life = process_life;
        Ok(())
    }

    #[cold]
    fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
        let mut buffer = [0; MAX_SEALED_CONTROL_LEN];
        let sealed = self.seal(|keys, session| keys.seal_control(session, datagram, &mut buffer))?;
        let sent = self.udp.send_datagram(&buffer[..sealed])?;
        Ok(if sent == sealed { datagram.len() } else { 0 })
    }
}

/// Shows the address and the position of the session, and nothing of the keys.
impl fmt::Debug for SecureUdpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureUdpTransport")
            .field("server", &self.udp.server())
            .field("mode", &self.keys.mode())
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// Starts a session with a random salt. The error has the server's address.
pub(crate) fn new_session(server: SocketAddr) -> io::Result<Session> {
    match strict::salt() {
        Ok(salt) => Ok(Session::new(salt)),
        Err(error) => Err(udp::connect_error(server, io::Error::other(error))),
    }
}

/// The key that the program configured.
pub(crate) enum Secret {
    /// The key shared by the server and all its agents.
    Shared(Key),
    /// The key from which the keys of all agents are derived. It stays in memory, because a child of this
    /// process needs a key of its own.
    Master(Key),
}

impl Secret {
    /// Seals one frame, and derives the key if necessary. [`Keys`] caches the derived key for a handle, which
    /// seals many.
    #[cfg(feature = "panic-handler")]
    pub(crate) fn seal(&self, session: &mut Session, frame: &[u8; 32]) -> Result<SealedFrame, Exhausted> {
        match self {
            Self::Shared(key) => seal_shared(key, session, frame).map(SealedFrame::Shared),
            Self::Master(master) => {
                let pid = frame_pid(frame);
                seal_master(&master.agent_key(pid), pid, session, frame).map(SealedFrame::Master)
            }
        }
    }
}

/// The configured key, and the one that was last derived from it.
pub(crate) struct Keys {
    secret: Secret,
    /// The pid of the derived key, and the key. The pid is the one in the frame and not that of the process:
    /// a custom frame may have any pid, and the sealed pid must equal the one in the envelope.
    agent: Option<(u32, Key)>,
}

impl Keys {
    pub(crate) fn shared(key: Key) -> Box<Self> {
        Box::new(Self { secret: Secret::Shared(key), agent: None })
    }

    pub(crate) fn master(key: Key) -> Box<Self> {
        Box::new(Self { secret: Secret::Master(key), agent: None })
    }

    /// Returns the kind of the configured key, for `Debug`.
    pub(crate) const fn mode(&self) -> &'static str {
        match self.secret {
            Secret::Shared(_) => "shared key",
            Secret::Master(_) => "master key",
        }
    }

    #[inline]
    fn seal(&mut self, session: &mut Session, frame: &[u8; 32]) -> Result<SealedFrame, Exhausted> {
        match &self.secret {
            Secret::Shared(key) => seal_shared(key, session, frame).map(SealedFrame::Shared),
            Secret::Master(master) => {
                let pid = frame_pid(frame);
                let key = agent_key(&mut self.agent, master, pid);
                seal_master(key, pid, session, frame).map(SealedFrame::Master)
            }
        }
    }

    /// Seals a control datagram into `buffer`, and returns its length.
    fn seal_control(
        &mut self,
        session: &mut Session,
        control: EncodedControl<'_>,
        buffer: &mut [u8; MAX_SEALED_CONTROL_LEN],
    ) -> Result<usize, Exhausted> {
        let sealed = match &self.secret {
            Secret::Shared(key) => seal_control_shared(key, session, control, buffer)?,
            Secret::Master(master) => {
                let pid =
                    frame_pid(control.first_chunk().expect("no control datagram is shorter than a frame"));
                let key = agent_key(&mut self.agent, master, pid);
                seal_control_master(key, pid, session, control, buffer)?
            }
        };
        Ok(sealed.len())
    }
}

/// Returns the key of an agent, and derives it unless it was the last one used.
#[inline]
fn agent_key<'k>(last: &'k mut Option<(u32, Key)>, master: &Key, pid: u32) -> &'k Key {
    if last.as_ref().is_some_and(|(of, _)| *of != pid) {
        // Dropped in place, which wipes it.
        *last = None;
    }
    let (_, key) = last.get_or_insert_with(|| (pid, master.agent_key(pid)));
    key
}

/// A sealed frame, ready to send.
pub(crate) enum SealedFrame {
    Shared([u8; SHARED_LEN]),
    Master([u8; MASTER_LEN]),
}

impl AsRef<[u8]> for SealedFrame {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Shared(datagram) => datagram,
            Self::Master(datagram) => datagram,
        }
    }
}

/// Reads the pid of an encoded frame, or of the header of a control datagram, which has it at the same
/// offset.
#[inline]
fn frame_pid(frame: &[u8; 32]) -> u32 {
    let [_, _, _, _, a, b, c, d, ..] = *frame;
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use varta_proto::control::{Hello, MAX_CONTROL_LEN};
    use varta_proto::secure::open_control_master;
    use varta_proto::{Frame, Status};

    #[test]
    fn the_pid_of_a_frame_is_read_from_its_bytes() {
        for pid in [2, 4242, 0x8123_4567] {
            assert_eq!(frame_pid(&Frame::new(Status::Ok, pid, u64::MAX - 1, 1, u32::MAX).to_bytes()), pid);
        }
    }

    #[test]
    fn the_key_of_an_agent_is_derived_again_when_the_pid_changes() {
        let mut keys = Keys::master(Key::from_bytes([7; 32]));
        let mut session = Session::new([9; 16]);
        for pid in [2, 3, 3, 2] {
            let frame = Frame::new(Status::Ok, pid, 0, 1, 0);
            let sealed = keys.seal(&mut session, &frame.to_bytes()).unwrap();
            let opened =
                varta_proto::secure::open_master(&Key::from_bytes([7; 32]), sealed.as_ref()).unwrap();
            assert_eq!(opened.frame, frame);
        }
    }

    #[test]
    fn a_control_datagram_is_sealed_for_its_own_pid_and_takes_the_next_number_after_a_beat() {
        let master = Key::from_bytes([7; 32]);
        let mut keys = Keys::master(Key::from_bytes([7; 32]));
        let mut session = Session::new([9; 16]);
        keys.seal(&mut session, &Frame::new(Status::Ok, 2, 0, 1, 0).to_bytes()).unwrap();
        let (mut plain, mut sealed) = ([0; MAX_CONTROL_LEN], [0; MAX_SEALED_CONTROL_LEN]);
        for (pid, counter) in [(2, 2), (3, 3), (u32::MAX, 4)] {
            let hello = Hello::new(pid, 0, 1, [5; 16]).encode(&mut plain);
            let length = keys.seal_control(&mut session, hello, &mut sealed).unwrap();
            let mut buffer = [0; MAX_CONTROL_LEN];
            let opened = open_control_master(&master, &sealed[..length], &mut buffer).unwrap();
            assert_eq!((opened.control.pid(), opened.iv_counter), (pid, counter));
        }
    }
}
