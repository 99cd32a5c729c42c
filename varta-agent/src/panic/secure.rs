//! The panic hook with sealed frames over UDP.
//!
//! Any thread may panic, in this process or in a child that was forked at any moment. No two of them may seal
//! with the same nonce, and none may wait for another, which may not exist after a fork.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;

use varta_proto::Frame;
use varta_proto::secure::{Key, Session};

use super::hook::{PanicTransport, install};
use crate::entropy::strict;
use crate::fork::ProcessLife;
use crate::transport::secure::{SealedFrame, Secret, new_session};
use crate::transport::udp;

/// Installs a panic hook that sends a terminal frame to the server at `addr` by UDP, sealed with the key that
/// this server shares with its agents (features `panic-handler` and `secure-udp`).
///
/// Everything described for [`install_panic_handler`](crate::install_panic_handler) applies, with one
/// exception: the hook has a session, whose salt is drawn by this call, and which panics at the same time
/// would share. A thread that finds the session in use, and the child of a fork, draw a salt of their own at
/// the panic and do not wait; if the operating system has no randomness then, they send nothing. The key
/// stays in memory as long as the process lives.
///
/// # Errors
///
/// There is no route to this address, its port is 0, there is no descriptor left, the operating system has no
/// randomness, or the calling thread is panicking. No hook is installed then.
///
/// ```
/// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// # let addr = server.local_addr()?;
/// use varta_agent::Key;
///
/// varta_agent::install_panic_handler_secure_udp(addr, Key::from_bytes([0x8f; 32]))?;
/// let _ = std::panic::catch_unwind(|| panic!("out of cheese"));
/// assert_eq!(server.recv(&mut [0; 100])?, 60);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn install_panic_handler_secure_udp(addr: SocketAddr, key: Key) -> io::Result<()> {
    install(PanicSecureUdp::prepare(addr, Secret::Shared(key))?)
}

/// Installs a panic hook that sends a terminal frame to the server at `addr` by UDP, sealed with a key that
/// is derived from the server's master key for the pid of the process that panics (features `panic-handler`
/// and `secure-udp`).
///
/// Everything else is as for [`install_panic_handler_secure_udp`]. The master key stays in memory.
///
/// # Errors
///
/// As [`install_panic_handler_secure_udp`].
///
/// ```
/// # let server = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// # let addr = server.local_addr()?;
/// use varta_agent::Key;
///
/// varta_agent::install_panic_handler_secure_udp_with_master(addr, Key::from_bytes([0x8f; 32]))?;
/// let _ = std::panic::catch_unwind(|| panic!("out of cheese"));
/// assert_eq!(server.recv(&mut [0; 100])?, 64);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn install_panic_handler_secure_udp_with_master(addr: SocketAddr, key: Key) -> io::Result<()> {
    install(PanicSecureUdp::prepare(addr, Secret::Master(key))?)
}

struct PanicSecureUdp {
    server: SocketAddr,
    /// Boxed, because moving a key leaves a copy that is not wiped.
    secret: Box<Secret>,
    /// Never waited for: after a fork its holder may not exist.
    session: Mutex<Session>,
    /// The process in which the session was started.
    process_life: ProcessLife,
}

impl PanicSecureUdp {
    fn prepare(server: SocketAddr, secret: Secret) -> io::Result<Self> {
        let secret = Box::new(secret);
        let process_life = ProcessLife::current();
        let session = Mutex::new(new_session(server)?);
        Ok(Self { server, secret, session, process_life })
    }

    /// Returns whether the frame's process is the one in which the session was started. The pid also detects
    /// a raw `clone` on a system where the marker does not.
    fn is_current_process(&self, frame: &Frame) -> bool {
        self.process_life.is_current() && self.process_life.pid() == frame.pid
    }
}

impl PanicTransport for PanicSecureUdp {
    type Socket = UdpSocket;
    type Datagram = SealedFrame;

    fn connect(&self) -> io::Result<UdpSocket> {
        udp::connect_socket(self.server)
    }

    fn connect_error(&self, source: io::Error) -> io::Error {
        udp::connect_error(self.server, source)
    }

    /// Seals the frame once, for all attempts to send it.
    fn datagram(&self, frame: &Frame) -> Option<SealedFrame> {
        let bytes = frame.to_bytes();
        if self.is_current_process(frame)
            && let Ok(mut session) = self.session.try_lock()
        {
            return self.secret.seal(&mut session, &bytes).ok();
        }
        let mut session = Session::new(strict::salt().ok()?);
        self.secret.seal(&mut session, &bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use varta_proto::secure::{Opened, open_master};
    use varta_proto::{NONCE_TERMINAL, Status};

    fn transport() -> PanicSecureUdp {
        PanicSecureUdp::prepare(([127, 0, 0, 1], 9).into(), Secret::Master(Key::from_bytes([7; 32]))).unwrap()
    }

    fn seal(transport: &PanicSecureUdp, pid: u32) -> Opened {
        let frame = Frame::new(Status::Critical, pid, 0, NONCE_TERMINAL, 0);
        let sealed = transport.datagram(&frame).unwrap();
        open_master(&Key::from_bytes([7; 32]), sealed.as_ref()).unwrap()
    }

    #[test]
    fn panics_one_after_the_other_go_on_in_the_session_of_the_install() {
        let transport = transport();
        let [one, other] = [(); 2].map(|()| seal(&transport, std::process::id()));
        assert_eq!(one.iv_random, other.iv_random);
        assert_eq!((one.iv_counter, other.iv_counter), (1, 2));
    }

    #[test]
    fn a_panic_that_finds_the_session_taken_seals_in_one_of_its_own_and_does_not_wait() {
        let transport = transport();
        let first = seal(&transport, std::process::id());
        let taken = transport.session.lock().unwrap();
        let meanwhile = seal(&transport, std::process::id());
        drop(taken);
        let last = seal(&transport, std::process::id());
        assert_ne!(meanwhile.iv_random, first.iv_random);
        assert_eq!((last.iv_random, last.iv_counter), (first.iv_random, 2));
    }

    #[test]
    fn another_process_never_goes_on_in_the_session() {
        let mut transport = transport();
        let first = seal(&transport, std::process::id());
        assert_ne!(seal(&transport, 4_194_305).iv_random, first.iv_random);
        transport.process_life.invalidate();
        let forked = [(); 2].map(|()| seal(&transport, std::process::id()).iv_random);
        assert_eq!(HashSet::from([first.iv_random, forked[0], forked[1]]).len(), 3);
    }
}
