//! What a control datagram is, and why an agent goes.

use core::fmt;

/// What a control datagram is, as its fourth byte.
///
/// ```
/// use varta_proto::control::ControlKind;
///
/// assert_eq!(ControlKind::Goodbye as u8, 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ControlKind {
    /// The agent introduces itself, or does so again.
    Hello = 1,
    /// The agent takes its leave: its silence from now on is meant.
    Goodbye = 2,
    /// The agent hands over a page of memory, into which it is going to write beats. It comes with a file descriptor,
    /// through a Unix socket.
    Attach = 3,
}

impl ControlKind {
    /// Reads a kind byte; `None` for one that this version does not know.
    ///
    /// ```
    /// use varta_proto::control::ControlKind;
    ///
    /// assert_eq!(ControlKind::from_u8(1), Some(ControlKind::Hello));
    /// assert_eq!(ControlKind::from_u8(0), None);
    /// ```
    #[inline]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Hello),
            2 => Some(Self::Goodbye),
            3 => Some(Self::Attach),
            _ => None,
        }
    }
}

/// Why an agent takes its leave.
///
/// ```
/// use varta_proto::control::GoodbyeReason;
///
/// assert_eq!(GoodbyeReason::Restart as u8, 1);
/// assert_eq!(GoodbyeReason::Restart.to_string(), "restart");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum GoodbyeReason {
    /// It ends, and nobody need wait for it.
    Shutdown = 0,
    /// It ends to be started again.
    Restart = 1,
    /// Another process has taken over from it.
    Replaced = 2,
}

impl GoodbyeReason {
    /// Reads a reason byte; `None` for one that this version does not know.
    ///
    /// ```
    /// use varta_proto::control::GoodbyeReason;
    ///
    /// assert_eq!(GoodbyeReason::from_u8(2), Some(GoodbyeReason::Replaced));
    /// assert_eq!(GoodbyeReason::from_u8(3), None);
    /// ```
    #[inline]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Shutdown),
            1 => Some(Self::Restart),
            2 => Some(Self::Replaced),
            _ => None,
        }
    }

    /// Names the reason in lower case, as log lines and metric labels show it.
    ///
    /// ```
    /// assert_eq!(varta_proto::control::GoodbyeReason::Shutdown.as_str(), "shutdown");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Restart => "restart",
            Self::Replaced => "replaced",
        }
    }
}

/// Shows [`as_str`](GoodbyeReason::as_str), and honours width and alignment.
impl fmt::Display for GoodbyeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
