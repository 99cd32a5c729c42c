//! The errors of a datagram that does not open.

use core::fmt;

use crate::DecodeError;

/// The first rule that a sealed datagram breaks, in the order of the variants.
///
/// ```
/// use varta_proto::DecodeError;
/// use varta_proto::secure::{Key, OpenError, open_shared};
///
/// let error = open_shared(&Key::from_bytes([1; 32]), &[0; 60]).unwrap_err();
/// assert_eq!((error, error.kind()), (OpenError::AuthFailed, "auth_failed"));
/// assert_eq!(OpenError::Frame(DecodeError::BadMagic).kind(), "bad_magic");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// No datagram of this kind and form has this length. Nothing else was checked.
    BadLength {
        /// The length of the datagram in bytes.
        actual: usize,
    },
    /// The tag does not verify: another key, another form, or a datagram that was changed in transit. Nothing
    /// in the datagram can be trusted.
    AuthFailed,
    /// The sealed pid differs from the one in the envelope: an agent claimed to be another. Only in the
    /// master form.
    PidMismatch,
    /// The datagram was sealed with the right key, but its content is no valid frame or control datagram.
    Frame(DecodeError),
}

impl OpenError {
    /// Returns the value of a metric label for this error: `bad_length`, `auth_failed`, `pid_mismatch`, or
    /// for an invalid content the one of [`DecodeError::kind`].
    ///
    /// ```
    /// assert_eq!(varta_proto::secure::OpenError::PidMismatch.kind(), "pid_mismatch");
    /// ```
    #[inline]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::BadLength { actual } => DecodeError::BadLength { actual }.kind(),
            Self::AuthFailed => "auth_failed",
            Self::PidMismatch => "pid_mismatch",
            Self::Frame(error) => error.kind(),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadLength { actual } => write!(f, "no sealed datagram of this kind is {actual} bytes long"),
            Self::AuthFailed => f.write_str("the tag does not verify: another key, or a changed datagram"),
            Self::PidMismatch => f.write_str("the pid under the seal is not the one outside"),
            Self::Frame(error) => write!(f, "opened, and then: {error}"),
        }
    }
}

/// The text includes that of the frame's error, which is therefore not the source.
impl core::error::Error for OpenError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_error_has_its_own_label_and_text() {
        let table = [
            (
                OpenError::BadLength { actual: 61 },
                "bad_length",
                "no sealed datagram of this kind is 61 bytes long",
            ),
            (
                OpenError::AuthFailed,
                "auth_failed",
                "the tag does not verify: another key, or a changed datagram",
            ),
            (OpenError::PidMismatch, "pid_mismatch", "the pid under the seal is not the one outside"),
            (
                OpenError::Frame(DecodeError::BadPid { actual: 1 }),
                "bad_pid",
                "opened, and then: pid 1 is reserved",
            ),
        ];
        for (error, kind, text) in table {
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        }
    }
}
