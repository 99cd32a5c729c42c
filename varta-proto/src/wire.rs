//! The constants of the base frame.

#[cfg(doc)]
use crate::Status;

/// The length of every base frame, in bytes.
pub const FRAME_LEN: usize = 32;

/// The first two bytes of every base frame.
pub const MAGIC: [u8; 2] = *b"VA";

/// The version of the protocol, the third byte of every base frame.
pub const VERSION: u8 = 2;

/// The nonce of a terminal frame, which a panic hook sends with [`Status::Critical`]. An ordinary beat never
/// has it.
pub const NONCE_TERMINAL: u64 = u64::MAX;
