//! The 32-byte base frame: one beat of one process.
//!
//! Encoding and decoding treat the frame as four little-endian words that stay in registers: the checksum
//! instruction takes whole words, and the compiler emits one load or store for each.

use crate::wire::{FRAME_LEN, MAGIC, NONCE_TERMINAL, VERSION};
use crate::{DecodeError, Status, crc32c};

/// The lowest valid pid. Pid 0 is no process, and pid 1 of a container does not identify the container.
const MIN_PID: u32 = 2;

/// Magic and version as the low 24 bits of the first word.
const HEADER: u64 = u64::from_le_bytes([MAGIC[0], MAGIC[1], VERSION, 0, 0, 0, 0, 0]);

/// One beat: its sender, the sender's status, and its number in the session.
///
/// The fields are plain values, and a `Frame` can hold values that are invalid on the wire
/// ([`Status::Stall`], pid 0): [`encode`](Self::encode) writes the fields unchecked, so that a beat costs no
/// checks and tests can build invalid frames; [`decode`](Self::decode) returns only valid frames.
///
/// ```
/// use varta_proto::{Frame, Status};
///
/// let wire = Frame::new(Status::Ok, 4242, 0, 1, 0).to_bytes();
/// assert_eq!(wire[..8], [b'V', b'A', 2, 0, 0x92, 0x10, 0, 0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The sender's status.
    pub status: Status,
    /// The sender's process id. An agent determines it for each process: a forked child has another pid.
    pub pid: u32,
    /// Nanoseconds on the sender's monotonic clock since its session began; never decreases within a session.
    pub timestamp: u64,
    /// The number of the beat in its session, from 1. [`NONCE_TERMINAL`] in a terminal frame; 0 follows the
    /// largest ordinary nonce.
    pub nonce: u64,
    /// A number of the application's choice, carried unchanged.
    pub payload: u32,
}

impl Frame {
    /// Creates a frame from its fields, in the order of the wire.
    ///
    /// ```
    /// use varta_proto::{Frame, Status};
    ///
    /// const FIRST: Frame = Frame::new(Status::Ok, 4242, 0, 1, 0);
    /// assert_eq!(FIRST.nonce, 1);
    /// ```
    #[inline]
    pub const fn new(status: Status, pid: u32, timestamp: u64, nonce: u64, payload: u32) -> Self {
        Self { status, pid, timestamp, nonce, payload }
    }

    /// Decodes a datagram as a frame. It accepts any bytes and never panics.
    ///
    /// A datagram that only starts with a valid frame is an error too, so receive into a buffer of more than
    /// 32 bytes.
    ///
    /// ```
    /// use varta_proto::{DecodeError, Frame, Status};
    ///
    /// let mut wire = Frame::new(Status::Ok, 4242, 0, 1, 0).to_bytes();
    /// assert!(Frame::decode(&wire).is_ok());
    ///
    /// wire[12] ^= 0x40;
    /// assert!(matches!(Frame::decode(&wire), Err(DecodeError::BadCrc { .. })));
    /// ```
    ///
    /// # Errors
    ///
    /// The first rule that the bytes break, in the order of the variants of [`DecodeError`].
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (&[head, timestamp, nonce, tail], []) = bytes.as_chunks::<8>() else {
            return Err(DecodeError::BadLength { actual: bytes.len() });
        };
        let [head, timestamp, nonce, tail] = [head, timestamp, nonce, tail].map(u64::from_le_bytes);
        let [magic_version_status, pid] = halves(head);
        let [v, a, version, status] = magic_version_status.to_le_bytes();
        let [payload, crc] = halves(tail);

        if [v, a] != MAGIC {
            return Err(DecodeError::BadMagic);
        }
        if version != VERSION {
            return Err(DecodeError::BadVersion { actual: version });
        }
        let expected = crc32c::checksum_28(head, timestamp, nonce, payload);
        if crc != expected {
            return Err(DecodeError::BadCrc { expected, actual: crc });
        }
        let status = match Status::from_u8(status) {
            None => return Err(DecodeError::BadStatus { actual: status }),
            Some(Status::Stall) => return Err(DecodeError::StallOnWire),
            Some(sent @ (Status::Ok | Status::Degraded | Status::Critical)) => sent,
        };
        if pid < MIN_PID {
            return Err(DecodeError::BadPid { actual: pid });
        }
        if timestamp == u64::MAX {
            return Err(DecodeError::BadTimestamp);
        }
        if nonce == NONCE_TERMINAL && !matches!(status, Status::Critical) {
            return Err(DecodeError::BadNonce);
        }
        Ok(Self { status, pid, timestamp, nonce, payload })
    }

    /// Writes all 32 bytes of the frame into `out`. It cannot fail and checks nothing.
    ///
    /// ```
    /// use varta_proto::{FRAME_LEN, Frame, Status};
    ///
    /// let mut wire = [0; FRAME_LEN];
    /// Frame::new(Status::Ok, 2, 0, 1, 0).encode(&mut wire);
    /// assert_eq!(wire[28..], [0xe4, 0x11, 0x6b, 0xaa]);
    /// ```
    #[inline]
    pub fn encode(&self, out: &mut [u8; FRAME_LEN]) {
        let head = HEADER | u64::from(self.status as u8) << 24 | u64::from(self.pid) << 32;
        let crc = crc32c::checksum_28(head, self.timestamp, self.nonce, self.payload);
        out[0..8].copy_from_slice(&head.to_le_bytes());
        out[8..16].copy_from_slice(&self.timestamp.to_le_bytes());
        out[16..24].copy_from_slice(&self.nonce.to_le_bytes());
        out[24..28].copy_from_slice(&self.payload.to_le_bytes());
        out[28..32].copy_from_slice(&crc.to_le_bytes());
    }

    /// Returns the 32 bytes that [`encode`](Self::encode) writes.
    ///
    /// ```
    /// use varta_proto::{Frame, Status};
    ///
    /// let frame = Frame::new(Status::Ok, 4242, 0, 1, 0);
    /// assert_eq!(Frame::decode(&frame.to_bytes()), Ok(frame));
    /// ```
    #[inline]
    pub fn to_bytes(&self) -> [u8; FRAME_LEN] {
        let mut out = [0; FRAME_LEN];
        self.encode(&mut out);
        out
    }

    /// Returns whether this is the frame of a panic hook: status critical and nonce [`NONCE_TERMINAL`].
    ///
    /// A critical frame with any other nonce is a warning from a process that goes on. A process may survive
    /// its panic, so ordinary beats can follow a terminal frame.
    ///
    /// ```
    /// use varta_proto::{Frame, NONCE_TERMINAL, Status};
    ///
    /// assert!(Frame::new(Status::Critical, 4242, 0, NONCE_TERMINAL, 0).is_terminal());
    /// assert!(!Frame::new(Status::Critical, 4242, 0, 7, 0).is_terminal());
    /// ```
    #[inline]
    pub const fn is_terminal(&self) -> bool {
        self.nonce == NONCE_TERMINAL && matches!(self.status, Status::Critical)
    }
}

/// Splits a little-endian word into its two integers, in the order of the wire.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}
