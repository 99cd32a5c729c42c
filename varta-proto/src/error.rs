//! The errors of bytes that are neither a frame nor a control datagram.
//!
//! A server counts decode errors by kind and rarely logs one, so an error is a small `Copy` value that knows
//! its metric label; the values in it are for the log.

use core::fmt;

use crate::control::CONTROL_VERSION;
use crate::wire::{FRAME_LEN, NONCE_TERMINAL, VERSION};

/// The first rule that a datagram breaks, in the order of the variants.
///
/// The order is part of the protocol. [`BadMagic`](Self::BadMagic) and [`BadVersion`](Self::BadVersion) mean
/// another protocol on this socket, [`BadCrc`](Self::BadCrc) means a datagram that was damaged in transit,
/// and every later variant means a sender that encodes invalid values. The last two are for [control
/// datagrams](crate::control), which have the first four in common with frames.
///
/// ```
/// use varta_proto::{DecodeError, Frame};
///
/// let error = Frame::decode(b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n").unwrap_err();
/// assert_eq!(error, DecodeError::BadMagic);
/// assert_eq!(error.to_string(), "neither a frame, which begins with 56 41, nor a control datagram, with 56 43");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A frame is not 32 bytes long, or the length of a control datagram differs from the one in its header.
    /// Nothing else was checked.
    BadLength {
        /// The length of the datagram in bytes.
        actual: usize,
    },
    /// The first two bytes are neither [`MAGIC`](crate::MAGIC) nor
    /// [`CONTROL_MAGIC`](crate::control::CONTROL_MAGIC): another protocol.
    BadMagic,
    /// The third byte is neither [`VERSION`] nor [`CONTROL_VERSION`]: another version of the protocol.
    BadVersion {
        /// The version byte of the datagram.
        actual: u8,
    },
    /// The checksum does not match: the datagram was damaged in transit.
    BadCrc {
        /// The checksum of the received bytes.
        expected: u32,
        /// The checksum field of the datagram.
        actual: u32,
    },
    /// The status byte is above 3.
    BadStatus {
        /// The status byte of the datagram.
        actual: u8,
    },
    /// The status is [`Status::Stall`](crate::Status::Stall), a server's verdict that is invalid in a frame.
    StallOnWire,
    /// The pid is 0 or 1.
    BadPid {
        /// The pid of the datagram.
        actual: u32,
    },
    /// The timestamp is `u64::MAX`, which is reserved.
    BadTimestamp,
    /// The nonce is [`NONCE_TERMINAL`] and the status is not [`Status::Critical`](crate::Status::Critical).
    BadNonce,
    /// The kind of a control datagram is unknown: not Hello, Goodbye or Attach.
    BadKind {
        /// The kind byte of the datagram.
        actual: u8,
    },
    /// An entry in the body of a control datagram is invalid or extends past its end, or there is no session
    /// id.
    BadBody,
}

impl DecodeError {
    /// The metric labels of all errors, in the order of the checks.
    ///
    /// A server that counts errors has one counter for each, found by [`index`](Self::index).
    pub const KINDS: [&'static str; 11] = [
        "bad_length",
        "bad_magic",
        "bad_version",
        "bad_crc",
        "bad_status",
        "stall_on_wire",
        "bad_pid",
        "bad_timestamp",
        "bad_nonce",
        "bad_kind",
        "bad_body",
    ];

    /// Returns the index of this error in [`KINDS`](Self::KINDS), for an array of counters.
    ///
    /// ```
    /// use varta_proto::{DecodeError, Frame};
    ///
    /// let mut refused = [0_u64; DecodeError::KINDS.len()];
    /// for datagram in [&b"hello"[..], &[0; 32], &[0; 32]] {
    ///     if let Err(error) = Frame::decode(datagram) {
    ///         refused[error.index()] += 1;
    ///     }
    /// }
    /// assert_eq!(refused[..3], [1, 2, 0]);
    /// ```
    #[inline]
    pub const fn index(self) -> usize {
        match self {
            Self::BadLength { .. } => 0,
            Self::BadMagic => 1,
            Self::BadVersion { .. } => 2,
            Self::BadCrc { .. } => 3,
            Self::BadStatus { .. } => 4,
            Self::StallOnWire => 5,
            Self::BadPid { .. } => 6,
            Self::BadTimestamp => 7,
            Self::BadNonce => 8,
            Self::BadKind { .. } => 9,
            Self::BadBody => 10,
        }
    }

    /// Returns the value of the label `kind` of `varta_decode_errors_total` for this error.
    ///
    /// ```
    /// assert_eq!(varta_proto::DecodeError::BadPid { actual: 1 }.kind(), "bad_pid");
    /// ```
    #[inline]
    pub const fn kind(self) -> &'static str {
        Self::KINDS[self.index()]
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadLength { actual } => {
                write!(
                    f,
                    "a datagram of {actual} bytes: a frame has {FRAME_LEN}, a control datagram what it says"
                )
            }
            Self::BadMagic => {
                f.write_str("neither a frame, which begins with 56 41, nor a control datagram, with 56 43")
            }
            Self::BadVersion { actual } => {
                write!(
                    f,
                    "unknown version {actual}: frames have {VERSION}, control datagrams {CONTROL_VERSION}"
                )
            }
            Self::BadCrc { expected, actual } => {
                write!(
                    f,
                    "damaged on its way: it carries the CRC-32C {actual:08x}, its bytes have {expected:08x}"
                )
            }
            Self::BadStatus { actual } => write!(f, "unknown status {actual}, a sender's is 0, 1 or 2"),
            Self::StallOnWire => f.write_str("status 3 (stall) is concluded by a server and never sent"),
            Self::BadPid { actual } => write!(f, "pid {actual} is reserved"),
            Self::BadTimestamp => write!(f, "timestamp {} is reserved", u64::MAX),
            Self::BadNonce => {
                write!(f, "nonce {NONCE_TERMINAL} marks a terminal frame, but the status is not critical")
            }
            Self::BadKind { actual } => write!(f, "unknown kind {actual}, a control datagram's is 1, 2 or 3"),
            Self::BadBody => {
                f.write_str("the body of a control datagram has an illegal entry, or no session id")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
