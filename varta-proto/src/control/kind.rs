//! The kinds of control datagrams, and the reasons of a goodbye.

use core::fmt;

/// The kind of a control datagram, its fourth byte.
///
/// ```
/// use varta_proto::control::ControlKind;
///
/// assert_eq!(ControlKind::Goodbye as u8, 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ControlKind {
    /// The agent introduces itself, for the first time or again.
    Hello = 1,
    /// The agent ends its session: its silence from now on is intended.
    Goodbye = 2,
    /// The agent hands over a page of memory for its beats. The page's file descriptor comes with the
    /// datagram, through a Unix socket.
    Attach = 3,
    /// A process speaks for something that is known by its name alone.
    Report = 4,
}

impl ControlKind {
    /// Decodes a kind byte; `None` for one that this version does not know.
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
            4 => Some(Self::Report),
            _ => None,
        }
    }
}

/// The reason of a goodbye.
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
    /// The process ends.
    Shutdown = 0,
    /// The process ends and will be started again.
    Restart = 1,
    /// Another process has replaced it.
    Replaced = 2,
}

impl GoodbyeReason {
    /// Decodes a reason byte; `None` for one that this version does not know.
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

    /// Returns the reason in lower case, as in log lines and metric labels.
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

/// Formats as [`as_str`](GoodbyeReason::as_str), with width and alignment.
impl fmt::Display for GoodbyeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
