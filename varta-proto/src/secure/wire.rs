//! The constants of a sealed datagram, and the data that are authenticated with it.

use crate::FRAME_LEN;
use crate::control::{MAX_CONTROL_LEN, MIN_CONTROL_LEN};

/// The number of bytes that the shared form adds: a nonce and a tag.
pub const SHARED_OVERHEAD: usize = 28;

/// The number of bytes that the master form adds: a pid, a nonce and a tag.
pub const MASTER_OVERHEAD: usize = 32;

/// The length of every beat in the shared form, in bytes.
pub const SHARED_LEN: usize = FRAME_LEN + SHARED_OVERHEAD;

/// The length of every beat in the master form, in bytes.
pub const MASTER_LEN: usize = FRAME_LEN + MASTER_OVERHEAD;

/// The maximum length of a sealed control datagram, in bytes.
pub const MAX_SEALED_CONTROL_LEN: usize = MAX_CONTROL_LEN + MASTER_OVERHEAD;

// The lengths that `control` pads around, with or without this module.
const _: () = assert!(SHARED_LEN == 60 && MASTER_LEN == 64);

/// The length of the pid before the nonce in the master form, in bytes.
pub(super) const PID_LEN: usize = 4;

/// Additional authenticated data of a control datagram, which are not sent: they keep a receiver from opening
/// one as a beat.
const CONTROL_AAD: &[u8; 12] = b"varta-ctl-v1";

/// The kind of a sealed content. Each kind has its own authenticated data, so that one cannot pass for the
/// other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Beat,
    Control,
}

impl Purpose {
    /// Calls `work` with the additional authenticated data.
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

    /// Returns whether a datagram of this length, with a sealed content of length `text`, can be of this
    /// kind.
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
