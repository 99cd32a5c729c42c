//! The trait of transports.

use std::io;
use std::path::PathBuf;

use varta_proto::control::EncodedControl;

/// Sends frames. Implement it to send beats other than through a Unix socket, or to record them in a test.
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
    /// Sends one frame, and returns how many of its bytes were taken. Fewer than 32 make the beat
    /// [`Failed`](crate::BeatOutcome::Failed).
    ///
    /// It is called on the thread of the beat, so it must not block; an allocation here is an allocation of
    /// the beat.
    ///
    /// # Errors
    ///
    /// Why the frame was not sent; [`classify_send_error`](crate::classify_send_error) decides what that
    /// means for the beat.
    fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize>;

    /// Replaces the connection, because the process was forked or the server may have been replaced.
    ///
    /// It is called by a beat and must not block. An implementation first prepares the new connection and
    /// then replaces the old one, so that a failed reconnect leaves the connection unchanged.
    ///
    /// # Errors
    ///
    /// Why there is no new connection. After a fork it is the error of the beat; otherwise the beat stays
    /// dropped, and the next lost beat tries again.
    fn reconnect(&mut self) -> io::Result<()>;

    /// Sends one control datagram, and returns how many of its bytes were taken: the Hello of a handle with a
    /// name or other settings for it, or a Goodbye. A control datagram is 50 to 512 bytes long and never has
    /// the length of a beat of any form.
    ///
    /// A transport without this method carries only beats: the control datagrams of its handle are lost, and
    /// nothing else. A transport that wraps another forwards the datagram.
    ///
    /// It is called by a beat, as [`send`](Self::send) is: it must not block, and should not allocate.
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
    /// Why the datagram was not sent, classified as for a beat: after a temporary error the next beat tries
    /// again, after any other error a beat within the next minute does. The default is
    /// [`Unsupported`](io::ErrorKind::Unsupported).
    fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
        let _ = datagram;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the path of the Unix socket to which the frames go, for [`Varta::check`](crate::Varta::check);
    /// `None`, the default, if they do not go to one or it is not known yet. A transport that wraps another
    /// asks that one.
    fn server_path(&self) -> Option<PathBuf> {
        None
    }
}
