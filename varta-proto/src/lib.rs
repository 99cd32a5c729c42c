//! The Varta Lifeline Protocol on the wire: 32-byte heartbeat frames.
//!
//! A monitored process sends a [`Frame`] at intervals, and a server that reads the frames detects which
//! process went silent. This crate holds what both sides agree on, byte for byte: it encodes a frame as 32
//! bytes, decodes it, and names what is wrong with bytes that are not a frame. It opens no socket, reads no
//! clock and allocates nothing, so it works in a boot loader as well as in a server.
//!
//! # Encoding and decoding
//!
//! Encoding cannot fail and writes into the caller's array. Decoding takes any bytes and returns a [`Frame`]
//! or the first rule that the bytes break.
//!
//! ```
//! use varta_proto::{DecodeError, FRAME_LEN, Frame, Status};
//!
//! let frame = Frame::new(Status::Degraded, 4242, 1_500_000_000, 7, 0xc0ffee);
//!
//! let mut wire = [0; FRAME_LEN];
//! frame.encode(&mut wire);
//! assert_eq!(Frame::decode(&wire), Ok(frame));
//!
//! let error = Frame::decode(&wire[..20]).unwrap_err();
//! assert_eq!(error, DecodeError::BadLength { actual: 20 });
//! assert_eq!(error.kind(), "bad_length");
//! ```
//!
//! # The frame
//!
//! | offset | size | field | rule for a receiver |
//! |---|---|---|---|
//! | 0 | 2 | magic | [`MAGIC`], `VA` |
//! | 2 | 1 | version | [`VERSION`] |
//! | 3 | 1 | [status](Status) | 0, 1 or 2; 3 is a server's verdict and is an error |
//! | 4 | 4 | pid | not 0 and not 1 |
//! | 8 | 8 | timestamp | nanoseconds on the sender's monotonic clock, not `u64::MAX` |
//! | 16 | 8 | nonce | [`NONCE_TERMINAL`] only with [`Status::Critical`] |
//! | 24 | 4 | payload | a number of the application's choice |
//! | 28 | 4 | crc32c | [CRC-32C](crc32c) of bytes 0 to 27 |
//!
//! All integers are little-endian.
//!
//! # Other datagrams
//!
//! - [`control`]: an agent's name, its interval and its goodbye. A server distinguishes them from frames by
//!   their length.
//! - [`page`]: shared memory in which an agent stores its newest beat for a server on the same host.
//! - `secure`, with the feature of that name: encrypted and authenticated frames and control datagrams.
//!
//! # Features
//!
//! No feature is on by default. Without `secure` the crate has no dependencies.
//!
//! - `std`: the module `address`, with the paths of a host's socket; keys from files; and detection of the
//!   checksum instruction on aarch64. Detection on x86-64 needs no feature.
//! - `secure`: the module of that name, built on ring. It needs neither the standard library nor an
//!   allocator.
//! - `test-hooks`: sessions of `secure` that start at a position of the test's choice. Not for production:
//!   with it a nonce can be used twice.

#![no_std]

#[cfg(any(test, feature = "std"))]
extern crate std;

#[cfg(feature = "std")]
pub mod address;
pub mod control;
pub mod crc32c;
mod error;
mod frame;
#[cfg(target_has_atomic = "64")]
pub mod page;
#[cfg(feature = "secure")]
pub mod secure;
mod status;
#[cfg(test)]
mod test_vectors;
mod wire;

pub use error::DecodeError;
pub use frame::Frame;
pub use status::Status;
pub use wire::{FRAME_LEN, MAGIC, NONCE_TERMINAL, VERSION};
