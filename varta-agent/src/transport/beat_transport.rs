//! What a transport does.

use std::io;

use varta_proto::control::EncodedControl;

/// Sends frames. Implement it to have beats go another way than through a Unix socket, or to record them in a test.
///
/// ```
/// use std::{io, sync::mpsc};
/// use varta_agent::{BeatTransport, Frame, Status, Varta};
///
/// struct ToChannel(mpsc::Sender<Frame>);
///
/// impl BeatTransport for ToChannel {
///     fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize> {
///         let frame = Frame::decode(frame).map_err(io::Error::other)?;
///         self.0.send(frame).map_err(|_| io::ErrorKind::NotConnected)?;
///         Ok(32)
///     }
///
///     fn reconnect(&mut self) -> io::Result<()> {
///         Ok(())
///     }
/// }
///
/// let (sender, beats) = mpsc::channel();
/// let mut agent = Varta::builder().transport(ToChannel(sender)).connect()?;
/// assert!(agent.beat(Status::Degraded, 7).is_sent());
///
/// let frame = beats.recv()?;
/// assert_eq!((frame.status, frame.nonce, frame.payload), (Status::Degraded, 1, 7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait BeatTransport: Send + 'static {
    /// Hands one frame to whoever carries it, and returns how many of its bytes were taken. Fewer than 32 make the beat
    /// [`Failed`](crate::BeatOutcome::Failed).
    ///
    /// It is called on the thread that beats, so it must not block; and what it allocates, the beat allocates.
    ///
    /// # Errors
    ///
    /// Why the frame was not taken; [`classify_send_error`](crate::classify_send_error) tells what that means for the
    /// beat.
    fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize>;

    /// Connects anew, because the process was forked or the server may have been replaced.
    ///
    /// It too is called by a beat and must not block. An implementation prepares everything first and then puts it in
    /// place, so that a reconnect that fails leaves the connection as it was.
    ///
    /// # Errors
    ///
    /// Why there is no new connection. After a fork the beat returns it; otherwise it is dropped, and the next beat
    /// that is lost tries again.
    fn reconnect(&mut self) -> io::Result<()>;

    /// Hands one control datagram to whoever carries it, and returns how many of its bytes were taken: the Hello of a
    /// handle that has a name or anything else to say of itself, or a Goodbye. It is 50 to 512 bytes long and never as
    /// long as a beat of any form.
    ///
    /// A transport that does not implement it carries beats alone, and a handle that says more than beats loses that
    /// and nothing else. One that wraps another hands it on.
    ///
    /// As [`send`](Self::send) it is called by a beat: it must not block, and had better not allocate.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("varta.sock");
    /// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
    /// use std::io;
    /// use varta_agent::{BeatTransport, EncodedControl, UdsTransport, Varta};
    ///
    /// struct Counted(UdsTransport, usize);
    ///
    /// impl BeatTransport for Counted {
    ///     fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize> {
    ///         self.1 += 1;
    ///         self.0.send(frame)
    ///     }
    ///
    ///     fn reconnect(&mut self) -> io::Result<()> {
    ///         self.0.reconnect()
    ///     }
    ///
    ///     fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
    ///         self.0.send_control(datagram)
    ///     }
    /// }
    /// # let mut out = [0; varta_proto::control::MAX_CONTROL_LEN];
    /// # let hello = varta_proto::control::Hello::new(4242, 0, 0, [7; 16]).encode(&mut out);
    /// # assert_eq!(Counted(UdsTransport::connect(&path)?, 0).send_control(hello)?, 50);
    /// # assert_eq!(server.recv(&mut [0; 600])?, 50);
    /// # Ok::<(), io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Why the datagram was not taken, judged as that of a beat: after an error that passes the next beat tries again,
    /// after any other some beat within the next minute. Without an implementation it is
    /// [`Unsupported`](io::ErrorKind::Unsupported).
    fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
        let _ = datagram;
        Err(io::ErrorKind::Unsupported.into())
    }
}
