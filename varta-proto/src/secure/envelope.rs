//! The unencrypted part of a sealed datagram, and the layout of the whole.

use super::OpenError;
use super::crypto::{NONCE_LEN, TAG_LEN};
use super::wire::PID_LEN;

/// The unencrypted part of a sealed datagram, which anyone can read and forge.
///
/// A receiver uses it to choose the key and to check the nonce for replay, and trusts it only after the
/// datagram has been opened.
///
/// ```
/// use varta_proto::secure::{Envelope, Key, Session, seal_master};
/// use varta_proto::{Frame, Status};
///
/// let agent_key = Key::from_bytes([1; 32]).agent_key(4242);
/// let frame = Frame::new(Status::Ok, 4242, 0, 1, 0).to_bytes();
/// let datagram = seal_master(&agent_key, 4242, &mut Session::new([2; 16]), &frame)?;
///
/// let envelope = Envelope::of_master(&datagram).unwrap();
/// assert_eq!((envelope.pid, envelope.iv_counter), (Some(4242), 1));
/// # Ok::<(), varta_proto::secure::Exhausted>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The pid whose key sealed the datagram; `None` in the shared form.
    pub pid: Option<u32>,
    /// The random part of the nonce, which identifies the sender's session.
    pub iv_random: [u8; 8],
    /// The counter part of the nonce, which increases by one for each datagram of the session.
    pub iv_counter: u32,
}

impl Envelope {
    /// Reads the envelope of a beat or a control datagram in the shared form; `None` if it is too short.
    /// Nothing is verified.
    ///
    /// ```
    /// use varta_proto::secure::Envelope;
    ///
    /// let envelope = Envelope::of_shared(&[7; 60]).unwrap();
    /// assert_eq!((envelope.pid, envelope.iv_random, envelope.iv_counter), (None, [7; 8], 0x0707_0707));
    /// assert_eq!(Envelope::of_shared(&[7; 27]), None);
    /// ```
    #[inline]
    pub const fn of_shared(datagram: &[u8]) -> Option<Self> {
        match SealedParts::of_shared(datagram) {
            Some(parts) => Some(parts.envelope()),
            None => None,
        }
    }

    /// Reads the envelope of a beat or a control datagram in the master form; `None` if it is too short.
    /// Nothing is verified.
    ///
    /// ```
    /// use varta_proto::secure::Envelope;
    ///
    /// let envelope = Envelope::of_master(&[7; 64]).unwrap();
    /// assert_eq!(envelope.pid, Some(0x0707_0707));
    /// assert_eq!(Envelope::of_master(&[7; 31]), None);
    /// ```
    #[inline]
    pub const fn of_master(datagram: &[u8]) -> Option<Self> {
        match SealedParts::of_master(datagram) {
            Some(parts) => Some(parts.envelope()),
            None => None,
        }
    }

    /// Compares the pid in the envelope with the sealed one, which has the same offset in a frame and in a
    /// control datagram.
    #[inline]
    pub(super) fn check_pid(&self, plain: &[u8]) -> Result<(), OpenError> {
        let inside = plain.get(4..8);
        match self.pid {
            Some(pid) if inside != Some(&pid.to_le_bytes()) => Err(OpenError::PidMismatch),
            _ => Ok(()),
        }
    }
}

/// The parts of a sealed datagram.
pub(super) struct SealedParts<'d> {
    pub(super) pid: Option<&'d [u8; PID_LEN]>,
    pub(super) nonce: &'d [u8; NONCE_LEN],
    pub(super) text: &'d [u8],
    pub(super) tag: &'d [u8; TAG_LEN],
}

impl<'d> SealedParts<'d> {
    #[inline]
    pub(super) const fn of_shared(datagram: &'d [u8]) -> Option<Self> {
        Self::after_pid(None, datagram)
    }

    #[inline]
    pub(super) const fn of_master(datagram: &'d [u8]) -> Option<Self> {
        match datagram.split_first_chunk() {
            Some((pid, rest)) => Self::after_pid(Some(pid), rest),
            None => None,
        }
    }

    #[inline]
    const fn after_pid(pid: Option<&'d [u8; PID_LEN]>, rest: &'d [u8]) -> Option<Self> {
        let Some((nonce, rest)) = rest.split_first_chunk() else { return None };
        let Some((text, tag)) = rest.split_last_chunk() else { return None };
        Some(Self { pid, nonce, text, tag })
    }

    #[inline]
    pub(super) const fn envelope(&self) -> Envelope {
        let &[a, b, c, d, e, f, g, h, counter @ ..] = self.nonce;
        Envelope {
            pid: match self.pid {
                Some(pid) => Some(u32::from_le_bytes(*pid)),
                None => None,
            },
            iv_random: [a, b, c, d, e, f, g, h],
            iv_counter: u32::from_le_bytes(counter),
        }
    }
}
