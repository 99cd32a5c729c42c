//! The numbers of a sealed datagram, and what is authenticated with it.

use crate::FRAME_LEN;
use crate::control::{MAX_CONTROL_LEN, MIN_CONTROL_LEN};

/// How much longer the shared form is than what is sealed: a nonce and a tag.
pub const SHARED_OVERHEAD: usize = 28;

/// How much longer the master form is than what is sealed: a pid, a nonce and a tag.
pub const MASTER_OVERHEAD: usize = 32;

/// The length of every beat in the shared form, in bytes.
pub const SHARED_LEN: usize = FRAME_LEN + SHARED_OVERHEAD;

/// The length of every beat in the master form, in bytes.
pub const MASTER_LEN: usize = FRAME_LEN + MASTER_OVERHEAD;

/// The length of the longest sealed control datagram, in bytes.
pub const MAX_SEALED_CONTROL_LEN: usize = MAX_CONTROL_LEN + MASTER_OVERHEAD;

// The lengths of the wire, which `control` pads around whether or not this module is there.
const _: () = assert!(SHARED_LEN == 60 && MASTER_LEN == 64);

/// The length of the pid before the nonce in the master form.
pub(super) const PID_LEN: usize = 4;

/// What of a control datagram is authenticated without being sent, so that none is taken for a beat.
const CONTROL_AAD: &[u8; 12] = b"varta-ctl-v1";

/// What is under the seal. Each purpose is authenticated differently, so that one cannot pass for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Beat,
    Control,
}

impl Purpose {
    /// Calls `work` with the data that are authenticated beside what is sealed.
    #[inline]
    pub(super) fn with_aad<T>(self, pid: Option<[u8; PID_LEN]>, work: impl FnOnce(&[u8]) -> T) -> T {
        match (self, pid) {
            (Self::Beat, None) => work(&[]),
            (Self::Beat, Some(pid)) => work(&pid),
            (Self::Control, None) => work(CONTROL_AAD),
            (Self::Control, Some(pid)) => {
                let mut aad = [0; CONTROL_AAD.len() + PID_LEN];
                aad[..CONTROL_AAD.len()].copy_from_slice(CONTROL_AAD);
                aad[CONTROL_AAD.len()..].copy_from_slice(&pid);
                work(&aad)
            }
        }
    }

    /// Tells whether a datagram of this length, with a text of that length under the seal, can be for this.
    #[inline]
    pub(super) const fn allows_len(self, datagram: usize, text: usize) -> bool {
        match self {
            Self::Beat => text == FRAME_LEN,
            Self::Control => {
                MIN_CONTROL_LEN <= text
                    && text <= MAX_CONTROL_LEN
                    && datagram != SHARED_LEN
                    && datagram != MASTER_LEN
            }
        }
    }
}
