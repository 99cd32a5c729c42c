//! What is wrong with bytes that are not a frame.
//!
//! A server counts refusals by their kind and rarely looks at one, so an error here is a small `Copy` value
//! that knows its metric label; the values that it carries are for the person who does look.

use core::fmt;

use crate::{FRAME_LEN, NONCE_TERMINAL, VERSION};

/// The first rule that a datagram broke, in the order of the variants.
///
/// The order is part of the protocol: [`BadMagic`](Self::BadMagic) and [`BadVersion`](Self::BadVersion) mean
/// that something else talks to this socket, [`BadCrc`](Self::BadCrc) means that a frame of ours was damaged,
/// and what comes after it means that the sender wrote a frame which it should not have written.
///
/// ```
/// use varta_proto::{DecodeError, Frame};
///
/// let error = Frame::decode(b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n").unwrap_err();
/// assert_eq!(error, DecodeError::BadMagic);
/// assert_eq!(error.to_string(), "not a VLP frame: it does not begin with the bytes 56 41");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The datagram is not 32 bytes long. Nothing in it was looked at.
    BadLength {
        /// Its length in bytes.
        actual: usize,
    },
    /// The first two bytes are not [`MAGIC`](crate::MAGIC): another protocol, or a control datagram.
    BadMagic,
    /// The third byte is not [`VERSION`]: another version of the protocol.
    BadVersion {
        /// The version byte that was there.
        actual: u8,
    },
    /// The checksum does not match: the frame was damaged on its way.
    BadCrc {
        /// The checksum of the bytes that arrived.
        expected: u32,
        /// The checksum that the frame carries.
        actual: u32,
    },
    /// The status byte is above 3.
    BadStatus {
        /// The status byte that was there.
        actual: u8,
    },
    /// The status is [`Status::Stall`](crate::Status::Stall), which a server concludes and nobody sends.
    StallOnWire,
    /// The pid is 0 or 1.
    BadPid {
        /// The pid that was there.
        actual: u32,
    },
    /// The timestamp is `u64::MAX`, which no clock reaches.
    BadTimestamp,
    /// The nonce is [`NONCE_TERMINAL`] and the status is not [`Status::Critical`](crate::Status::Critical).
    BadNonce,
}

impl DecodeError {
    /// The metric labels of all errors, in the order in which a receiver checks.
    ///
    /// A server that counts refusals has one counter for each, found by [`index`](Self::index).
    pub const KINDS: [&'static str; 9] = [
        "bad_length",
        "bad_magic",
        "bad_version",
        "bad_crc",
        "bad_status",
        "stall_on_wire",
        "bad_pid",
        "bad_timestamp",
        "bad_nonce",
    ];

    /// Gives the place of this error in [`KINDS`](Self::KINDS), so that counters can stand in an array.
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
        }
    }

    /// Names the error as the label `kind` of `varta_decode_errors_total` does.
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
                write!(f, "a frame is {FRAME_LEN} bytes long, this datagram is {actual}")
            }
            Self::BadMagic => f.write_str("not a VLP frame: it does not begin with the bytes 56 41"),
            Self::BadVersion { actual } => write!(f, "unknown protocol version {actual}, expected {VERSION}"),
            Self::BadCrc { expected, actual } => {
                write!(f, "damaged frame: it carries the CRC-32C {actual:08x}, its bytes have {expected:08x}")
            }
            Self::BadStatus { actual } => write!(f, "unknown status {actual}, a sender's is 0, 1 or 2"),
            Self::StallOnWire => f.write_str("status 3 (stall) is concluded by a server and never sent"),
            Self::BadPid { actual } => write!(f, "pid {actual} is reserved"),
            Self::BadTimestamp => write!(f, "timestamp {} is reserved", u64::MAX),
            Self::BadNonce => {
                write!(f, "nonce {NONCE_TERMINAL} marks a terminal frame, but the status is not critical")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    /// Each error with its label and its text, in the order of the checks.
    const TABLE: [(DecodeError, &str, &str); 9] = [
        (
            DecodeError::BadLength { actual: 31 },
            "bad_length",
            "a frame is 32 bytes long, this datagram is 31",
        ),
        (DecodeError::BadMagic, "bad_magic", "not a VLP frame: it does not begin with the bytes 56 41"),
        (DecodeError::BadVersion { actual: 1 }, "bad_version", "unknown protocol version 1, expected 2"),
        (
            DecodeError::BadCrc { expected: 0xe306_9283, actual: 0x1f },
            "bad_crc",
            "damaged frame: it carries the CRC-32C 0000001f, its bytes have e3069283",
        ),
        (DecodeError::BadStatus { actual: 255 }, "bad_status", "unknown status 255, a sender's is 0, 1 or 2"),
        (
            DecodeError::StallOnWire,
            "stall_on_wire",
            "status 3 (stall) is concluded by a server and never sent",
        ),
        (DecodeError::BadPid { actual: 1 }, "bad_pid", "pid 1 is reserved"),
        (DecodeError::BadTimestamp, "bad_timestamp", "timestamp 18446744073709551615 is reserved"),
        (
            DecodeError::BadNonce,
            "bad_nonce",
            "nonce 18446744073709551615 marks a terminal frame, but the status is not critical",
        ),
    ];

    #[test]
    fn every_error_has_its_own_place_label_and_text() {
        for (place, (error, kind, text)) in TABLE.into_iter().enumerate() {
            assert_eq!((error.index(), error.kind()), (place, kind));
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(TABLE.map(|(_, kind, _)| kind), DecodeError::KINDS);
    }

    #[test]
    fn the_text_of_bad_magic_names_the_magic() {
        let [v, a] = crate::MAGIC;
        let magic = std::format!("{v:02x} {a:02x}");
        assert!(DecodeError::BadMagic.to_string().contains(&magic));
    }
}
