//! Sends messages to the service manager.
//!
//! Written here because the crate `sd-notify` knows no abstract addresses and waits without a limit.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::Counter;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

/// The longest time that a message waits for a place in the queue of the service manager.
const SEND_WITHIN: Duration = Duration::from_secs(1);

/// The sending side of sd_notify(3). Clones share the count of failures.
#[derive(Clone)]
pub(super) struct Notifier {
    address: SocketAddr,
    failures: Counter,
    /// Whether the last message failed: only the first of several failures is logged.
    fails: Arc<AtomicBool>,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Notifier {
    /// Takes the value of `NOTIFY_SOCKET`: a path from the root, or `@` and an abstract name.
    ///
    /// # Errors
    ///
    /// It is neither, or too long for an address.
    pub(super) fn new(address: &OsStr, failures: Counter) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name)?,
            [b'/', _, ..] => SocketAddr::from_pathname(address)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is no path from the root and no @NAME",
                ));
            }
        };
        Ok(Notifier { address, failures, fails: Arc::default() })
    }

    /// Sends assignments, one on each line, and returns whether they were taken. A failure is counted, and
    /// logged if the message before it was taken.
    pub(super) async fn send(&self, message: &str) -> bool {
        self.send_with(message, None).await
    }

    /// The same with a descriptor.
    pub(super) async fn send_with(&self, message: &str, descriptor: Option<BorrowedFd<'_>>) -> bool {
        let sent = timeout(SEND_WITHIN, self.try_send(message, descriptor)).await;
        match sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => {
                self.fails.store(false, Ordering::Relaxed);
                true
            }
            Err(error) => {
                self.failures.increment(1);
                if !self.fails.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        target: "varta::server",
                        "the service manager at NOTIFY_SOCKET did not take a message: {error}"
                    );
                }
                false
            }
        }
    }

    /// A socket for each message: one that is connected for good never reaches a service manager that was
    /// started anew.
    async fn try_send(&self, message: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let socket = StdDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&self.address)?;
        let socket = UnixDatagram::from_std(socket)?;
        let numbers: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let rights = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        let text = [IoSlice::new(message.as_bytes())];
        let send = || Ok(sendmsg::<()>(socket.as_raw_fd(), &text, rights, MsgFlags::empty(), None)?);
        let sent = socket.async_io(Interest::WRITABLE, send).await?;
        debug_assert_eq!(sent, message.len(), "a datagram is sent whole");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use crate::services::systemd::metrics::failures;

    fn notifier(address: impl AsRef<OsStr>) -> (Registry, io::Result<Notifier>) {
        let registry = Registry::for_test();
        let notifier = Notifier::new(address.as_ref(), failures(&registry));
        (registry, notifier)
    }

    fn received(socket: &StdDatagram) -> String {
        let mut room = [0; 64];
        let length = socket.recv(&mut room).unwrap();
        String::from_utf8_lossy(&room[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_message_reaches_a_path_and_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("varta-notifier-test-{}", std::process::id());
        let places = [
            (StdDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                StdDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}").into(),
            ),
        ];
        for (receiver, address) in places {
            let (_registry, notifier) = notifier(&address);
            notifier.unwrap().send("READY=1\nSTATUS=none").await;
            assert_eq!(received(&receiver), "READY=1\nSTATUS=none");
        }
    }

    #[tokio::test]
    async fn a_receiver_that_comes_back_is_reached_and_what_it_missed_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let (registry, notifier) = notifier(&path);
        let notifier = notifier.unwrap();
        assert!(!notifier.send("READY=1").await);
        let receiver = StdDatagram::bind(&path).unwrap();
        assert!(notifier.send("STATUS=one").await);
        assert_eq!(received(&receiver), "STATUS=one");
        std::fs::remove_file(&path).unwrap();
        let receiver = StdDatagram::bind(&path).unwrap();
        notifier.send("STATUS=two").await;
        assert_eq!(received(&receiver), "STATUS=two");
        let rendered = registry.handle().render();
        assert!(rendered.lines().any(|line| line == "varta_notify_failures_total 1"), "{rendered}");
    }

    #[tokio::test]
    async fn one_that_does_not_read_holds_nobody_up_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _receiver = StdDatagram::bind(&path).unwrap();
        let (registry, notifier) = notifier(&path);
        let full = StdDatagram::unbound().unwrap();
        full.set_nonblocking(true).unwrap();
        full.connect(&path).unwrap();
        while full.send(b"x").is_ok() {}
        tokio::time::pause();
        notifier.unwrap().send("READY=1").await;
        assert!(registry.handle().render().contains("varta_notify_failures_total 1\n"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("/{}", "x".repeat(200));
        for address in ["", "@", "/", "notify", "vsock:2:1234", &long] {
            assert!(notifier(address).1.is_err(), "{address}");
        }
    }
}
