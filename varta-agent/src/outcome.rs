//! The outcome of a beat.
//!
//! A failed beat must cost the program nothing, so every type here is a small `Copy` value: reporting an
//! error allocates nothing.

use std::error::Error;
use std::fmt;
use std::io;

/// The outcome of one [`beat`](crate::Varta::beat).
///
/// A program may ignore it: `let _ = agent.beat(Status::Ok, 0);` is a whole statement. The server detects
/// missing beats; the sender does not have to.
///
/// ```
/// use varta_agent::{BeatOutcome, DropReason};
///
/// let outcome = BeatOutcome::Dropped(DropReason::NoObserver);
/// assert!(!outcome.is_sent());
/// assert_eq!(outcome.drop_reason(), Some(DropReason::NoObserver));
/// assert_eq!(outcome.to_string(), "dropped: nobody listens");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a beat that was not sent says why; `let _ =` if that is all the same"]
pub enum BeatOutcome {
    /// The kernel took the beat.
    Sent,
    /// The beat was lost for a temporary reason: the next one may be sent.
    Dropped(DropReason),
    /// The beat was not sent, for a reason that lasts until something changes.
    Failed(BeatError),
}

/// The outcome for which a later attempt on the same connection may succeed.
pub(crate) const QUEUE_FULL: BeatOutcome = BeatOutcome::Dropped(DropReason::KernelQueueFull);

impl BeatOutcome {
    /// Returns whether the kernel took the beat.
    #[inline]
    pub const fn is_sent(self) -> bool {
        matches!(self, Self::Sent)
    }

    /// Returns whether the beat was lost for a temporary reason.
    #[inline]
    pub const fn is_dropped(self) -> bool {
        matches!(self, Self::Dropped(_))
    }

    /// Returns whether the beat was not sent for a lasting reason.
    #[inline]
    pub const fn is_failed(self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// Returns the reason of a dropped beat.
    #[inline]
    pub const fn drop_reason(self) -> Option<DropReason> {
        match self {
            Self::Dropped(reason) => Some(reason),
            Self::Sent | Self::Failed(_) => None,
        }
    }

    /// Returns the error of a failed beat.
    #[inline]
    pub const fn error(self) -> Option<BeatError> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Sent | Self::Dropped(_) => None,
        }
    }
}

/// Formats as `sent`, `dropped: <reason>` or `failed: <error>`.
impl fmt::Display for BeatOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent => f.write_str("sent"),
            Self::Dropped(reason) => write!(f, "dropped: {reason}"),
            Self::Failed(error) => write!(f, "failed: {error}"),
        }
    }
}

/// Why a beat was dropped. Each reason is temporary and needs no action of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum DropReason {
    /// The queue of the server's socket is full (`EAGAIN`), or the kernel has no buffer left (`ENOBUFS`). All
    /// senders share that queue, so it says nothing about this one.
    KernelQueueFull,
    /// There is no socket at the server's address (`ENOENT`), or no process receives from it
    /// (`ECONNREFUSED`).
    NoObserver,
    /// The server that this handle was connected to has closed its socket (`ECONNRESET`, `ENOTCONN`,
    /// `EPIPE`); a handle that [reconnects](crate::Varta::set_reconnect_after) finds its successor.
    PeerGone,
    /// The file system has no space left (`ENOSPC`).
    StorageFull,
}

/// `Result<_, DropReason>` needs no more than one byte for the reason.
const _: () = assert!(size_of::<DropReason>() == 1);

impl DropReason {
    /// Returns the reason in a few words.
    const fn as_str(self) -> &'static str {
        match self {
            Self::KernelQueueFull => "the kernel's queue is full",
            Self::NoObserver => "nobody listens",
            Self::PeerGone => "the server has gone",
            Self::StorageFull => "no space left",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The error of a failed beat: the content of an [`io::Error`] without its allocation.
///
/// ```
/// use std::io;
/// use varta_agent::BeatError;
///
/// let error = BeatError::from_io(&io::Error::from_raw_os_error(13));
/// assert_eq!((error.errno, error.kind), (13, io::ErrorKind::PermissionDenied));
/// assert_eq!(error.to_io_error().raw_os_error(), Some(13));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BeatError {
    /// The error number of the operating system, or [`UNKNOWN_ERRNO`](Self::UNKNOWN_ERRNO).
    pub errno: i32,
    /// The kind of the error.
    pub kind: io::ErrorKind,
}

impl BeatError {
    /// The `errno` of an error that does not come from the operating system, whose errors never have this
    /// number.
    pub const UNKNOWN_ERRNO: i32 = 0;

    /// Converts an I/O error, without its message. It allocates nothing.
    #[inline]
    pub fn from_io(error: &io::Error) -> Self {
        Self { errno: error.raw_os_error().unwrap_or(Self::UNKNOWN_ERRNO), kind: error.kind() }
    }

    /// Converts the error back to an I/O error. It allocates nothing.
    ///
    /// ```
    /// use std::io;
    /// use varta_agent::BeatError;
    ///
    /// let error = BeatError::from_io(&io::Error::other("a message, which is lost"));
    /// assert_eq!(error.errno, BeatError::UNKNOWN_ERRNO);
    /// assert_eq!(error.to_io_error().kind(), io::ErrorKind::Other);
    /// ```
    pub fn to_io_error(self) -> io::Error {
        match self.errno {
            Self::UNKNOWN_ERRNO => self.kind.into(),
            errno => io::Error::from_raw_os_error(errno),
        }
    }

    /// Creates an error that does not come from the operating system.
    pub(crate) const fn of_kind(kind: io::ErrorKind) -> Self {
        Self { errno: Self::UNKNOWN_ERRNO, kind }
    }
}

/// Formats as the message of the operating system, or of the error kind if there is none.
impl fmt::Display for BeatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_io_error().fmt(f)
    }
}

impl Error for BeatError {}

impl From<BeatError> for io::Error {
    fn from(error: BeatError) -> Self {
        error.to_io_error()
    }
}

/// Returns the outcome of a beat whose send failed with `error`: [`Dropped`](BeatOutcome::Dropped) for a
/// temporary reason, else [`Failed`](BeatOutcome::Failed). It never returns [`Sent`](BeatOutcome::Sent), and
/// allocates nothing.
///
/// An error of the operating system is classified by its number. Any other error, as from a
/// [transport](crate::BeatTransport) of your own, is classified by its kind; no kind stands for a kernel
/// without buffers.
///
/// ```
/// use std::io;
/// use varta_agent::{BeatOutcome, DropReason, classify_send_error};
///
/// let outcome = classify_send_error(&io::ErrorKind::WouldBlock.into());
/// assert_eq!(outcome, BeatOutcome::Dropped(DropReason::KernelQueueFull));
///
/// assert!(classify_send_error(&io::ErrorKind::PermissionDenied.into()).is_failed());
/// ```
pub fn classify_send_error(error: &io::Error) -> BeatOutcome {
    let reason = match error.raw_os_error() {
        Some(errno) => reason_of_errno(errno),
        None => reason_of_kind(error.kind()),
    };
    reason.map_or_else(|| BeatOutcome::Failed(BeatError::from_io(error)), BeatOutcome::Dropped)
}

const fn reason_of_errno(errno: i32) -> Option<DropReason> {
    // The two constants are equal on most systems and differ on some.
    if errno == libc::EAGAIN || errno == libc::EWOULDBLOCK {
        return Some(DropReason::KernelQueueFull);
    }
    match errno {
        libc::ENOBUFS => Some(DropReason::KernelQueueFull),
        libc::ECONNREFUSED | libc::ENOENT => Some(DropReason::NoObserver),
        libc::ECONNRESET | libc::ENOTCONN | libc::EPIPE => Some(DropReason::PeerGone),
        libc::ENOSPC => Some(DropReason::StorageFull),
        _ => None,
    }
}

const fn reason_of_kind(kind: io::ErrorKind) -> Option<DropReason> {
    match kind {
        io::ErrorKind::WouldBlock => Some(DropReason::KernelQueueFull),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Some(DropReason::NoObserver),
        io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe => {
            Some(DropReason::PeerGone)
        }
        io::ErrorKind::StorageFull => Some(DropReason::StorageFull),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
