//! What is wrong with bytes that are neither a frame nor a control datagram.
//!
//! A server counts refusals by their kind and rarely looks at one, so an error here is a small `Copy` value
//! that knows its metric label; the values that it carries are for the person who does look.

use core::fmt;

use crate::control::CONTROL_VERSION;
use crate::wire::{FRAME_LEN, NONCE_TERMINAL, VERSION};

/// The first rule that a datagram broke, in the order of the variants.
///
/// The order is part of the protocol: [`BadMagic`](Self::BadMagic) and [`BadVersion`](Self::BadVersion) mean
/// that something else talks to this socket, [`BadCrc`](Self::BadCrc) means that a datagram of ours was
/// damaged, and what comes after it means that the sender wrote one which it should not have written. The
/// last two are of [control datagrams](crate::control), which share the first four with frames.
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
    /// A frame is not 32 bytes long, or a control datagram not as long as it says. Nothing else in it was
    /// looked at.
    BadLength {
        /// Its length in bytes.
        actual: usize,
    },
    /// The first two bytes are not [`MAGIC`](crate::MAGIC), or
    /// [`CONTROL_MAGIC`](crate::control::CONTROL_MAGIC): another protocol.
    BadMagic,
    /// The third byte is not [`VERSION`], or [`CONTROL_VERSION`]: another version of the protocol.
    BadVersion {
        /// The version byte that was there.
        actual: u8,
    },
    /// The checksum does not match: the datagram was damaged on its way.
    BadCrc {
        /// The checksum of the bytes that arrived.
        expected: u32,
        /// The checksum that the datagram carries.
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
    /// A control datagram is neither Hello nor Goodbye.
    BadKind {
        /// The kind byte that was there.
        actual: u8,
    },
    /// An entry in the body of a control datagram runs past its end or is illegal, or there is no session id.
    BadBody,
}

impl DecodeError {
    /// The metric labels of all errors, in the order in which a receiver checks.
    ///
    /// A server that counts refusals has one counter for each, found by [`index`](Self::index).
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
            Self::BadKind { .. } => 9,
            Self::BadBody => 10,
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
mod tests {
    use super::*;
    use std::string::ToString;

    /// Each error with its label and its text, in the order of the checks.
    const TABLE: [(DecodeError, &str, &str); 11] = [
        (
            DecodeError::BadLength { actual: 31 },
            "bad_length",
            "a datagram of 31 bytes: a frame has 32, a control datagram what it says",
        ),
        (
            DecodeError::BadMagic,
            "bad_magic",
            "neither a frame, which begins with 56 41, nor a control datagram, with 56 43",
        ),
        (
            DecodeError::BadVersion { actual: 3 },
            "bad_version",
            "unknown version 3: frames have 2, control datagrams 1",
        ),
        (
            DecodeError::BadCrc { expected: 0xe306_9283, actual: 0x1f },
            "bad_crc",
            "damaged on its way: it carries the CRC-32C 0000001f, its bytes have e3069283",
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
        (DecodeError::BadKind { actual: 9 }, "bad_kind", "unknown kind 9, a control datagram's is 1, 2 or 3"),
        (
            DecodeError::BadBody,
            "bad_body",
            "the body of a control datagram has an illegal entry, or no session id",
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
    fn the_text_of_bad_magic_names_both() {
        for [first, second] in [crate::MAGIC, crate::control::CONTROL_MAGIC] {
            let magic = std::format!("{first:02x} {second:02x}");
            assert!(DecodeError::BadMagic.to_string().contains(&magic));
        }
    }
}
