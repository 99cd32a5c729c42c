//! The status of a process in a beat.
//!
//! It is separate from the frame because agents and servers use it without one.

use core::fmt;

/// The status of a process, the fourth byte of a frame.
///
/// A sender uses [`Ok`](Self::Ok), [`Degraded`](Self::Degraded) or [`Critical`](Self::Critical).
/// [`Stall`](Self::Stall) is a server's verdict on a silent process: it has a number because metrics show it
/// with the other statuses, and [`Frame::decode`](crate::Frame::decode) rejects it.
///
/// ```
/// use varta_proto::Status;
///
/// assert_eq!(Status::default(), Status::Ok);
/// assert_eq!(Status::Critical as u8, 2);
/// assert_eq!(Status::Critical.to_string(), "critical");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// The process works normally.
    #[default]
    Ok = 0,
    /// The process works with reduced quality.
    Degraded = 1,
    /// The process cannot do its work. With the nonce [`NONCE_TERMINAL`](crate::NONCE_TERMINAL) it is
    /// panicking.
    Critical = 2,
    /// The process has been silent for too long. Never sent.
    Stall = 3,
}

impl Status {
    /// Decodes a status byte; `None` above 3.
    ///
    /// ```
    /// use varta_proto::Status;
    ///
    /// assert_eq!(Status::from_u8(1), Some(Status::Degraded));
    /// assert_eq!(Status::from_u8(4), None);
    /// ```
    #[inline]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Ok),
            1 => Some(Self::Degraded),
            2 => Some(Self::Critical),
            3 => Some(Self::Stall),
            _ => None,
        }
    }

    /// Returns the status in lower case, as in log lines and metric labels: `ok`, `degraded`, `critical` or
    /// `stall`.
    ///
    /// ```
    /// assert_eq!(varta_proto::Status::Degraded.as_str(), "degraded");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
            Self::Stall => "stall",
        }
    }
}

/// Formats as [`as_str`](Status::as_str), with width and alignment.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn every_byte_reads_as_its_own_status_or_as_none() {
        for byte in 0..=u8::MAX {
            match Status::from_u8(byte) {
                Some(status) => assert_eq!(status as u8, byte),
                None => assert!(byte > 3, "{byte} is a status"),
            }
        }
    }

    #[test]
    fn the_names_are_those_of_the_metrics() {
        let names = [0, 1, 2, 3].map(|byte| Status::from_u8(byte).unwrap().as_str());
        assert_eq!(names, ["ok", "degraded", "critical", "stall"]);
    }

    #[test]
    fn display_keeps_to_the_width_that_is_asked_for() {
        assert_eq!(format!("[{:>9}]", Status::Stall), "[    stall]");
    }
}
