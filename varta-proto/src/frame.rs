//! The 32-byte base frame: one beat of one process.
//!
//! Both directions work on the frame as four little-endian words that stay in registers: the checksum
//! instruction takes them whole, and the compiler makes one load or store of each.

use crate::wire::{FRAME_LEN, MAGIC, NONCE_TERMINAL, VERSION};
use crate::{DecodeError, Status, crc32c};

/// The lowest pid that may send: 0 is nobody, and process 1 of a container says nothing about which
/// container.
const MIN_PID: u32 = 2;

/// Magic and version as the low 24 bits of the first word.
const HEADER: u64 = u64::from_le_bytes([MAGIC[0], MAGIC[1], VERSION, 0, 0, 0, 0, 0]);

/// One beat: who it is from, how that process is, and which beat of its session it is.
///
/// The fields are plain values, and a `Frame` can hold what may not be sent ([`Status::Stall`], pid 0):
/// [`encode`](Self::encode) writes what it is given, so that a beat costs no checks and tests can make bad
/// frames, and [`decode`](Self::decode) gives out only what the protocol allows.
///
/// ```
/// use varta_proto::{Frame, Status};
///
/// let wire = Frame::new(Status::Ok, 4242, 0, 1, 0).to_bytes();
/// assert_eq!(wire[..8], [b'V', b'A', 2, 0, 0x92, 0x10, 0, 0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// How the sender is.
    pub status: Status,
    /// The sender's process id. An agent reads it afresh for each frame, because a forked child has another.
    pub pid: u32,
    /// Nanoseconds on the sender's own monotonic clock since its session began; never decreases within a
    /// session.
    pub timestamp: u64,
    /// The number of the beat in its session, from 1; [`NONCE_TERMINAL`] in a terminal frame, and 0 follows
    /// the largest ordinary one.
    pub nonce: u64,
    /// The application's own number, carried unchanged.
    pub payload: u32,
}

impl Frame {
    /// Makes a frame of its fields, in the order of the wire.
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

    /// Reads a datagram as a frame. It takes any bytes and never panics.
    ///
    /// A datagram of which a valid frame is only the beginning is refused too, so read with room for more
    /// than 32 bytes.
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

    /// Writes the frame into `out`, all 32 bytes of it. It cannot fail, and it checks nothing.
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

    /// Gives the frame as the 32 bytes that [`encode`](Self::encode) writes.
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

    /// Tells whether this is the frame that a panic hook sends: critical, and with the nonce
    /// [`NONCE_TERMINAL`].
    ///
    /// A critical frame with any other nonce is an alarm of a process that lives on. A process may also
    /// survive its panic, so ordinary beats can follow a terminal frame.
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

/// Splits a little-endian word into the two integers that stand in it, the first one first.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
const fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}
