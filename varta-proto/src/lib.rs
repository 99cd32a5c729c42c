//! The Varta Lifeline Protocol on the wire: 32-byte heartbeat frames.
//!
//! A process that wants to be watched sends a [`Frame`] now and then, and a server that reads them concludes
//! who went silent. This crate is the part that both have to agree on, byte for byte: it turns a frame into
//! 32 bytes and back, and it names what is wrong with bytes that are not a frame. It opens no socket, reads
//! no clock and allocates nothing, so it serves a boot loader as well as a server.
//!
//! # Encoding and decoding
//!
//! Encoding cannot fail and writes into the caller's array. Decoding takes whatever arrived, and answers with
//! a [`Frame`] or with the first rule that was broken.
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
//! | 3 | 1 | [status](Status) | 0, 1 or 2; 3 is what a server concludes and is refused |
//! | 4 | 4 | pid | not 0 and not 1 |
//! | 8 | 8 | timestamp | nanoseconds on the sender's monotonic clock, not `u64::MAX` |
//! | 16 | 8 | nonce | [`NONCE_TERMINAL`] only with [`Status::Critical`] |
//! | 24 | 4 | payload | the application's own |
//! | 28 | 4 | crc32c | [CRC-32C](crc32c) of bytes 0 to 27 |
//!
//! All integers are little-endian.
//!
//! # Other datagrams
//!
//! - [`control`]: an agent's name, its interval and its farewell. A server tells them from frames by their
//!   length.
//! - [`page`]: the memory in which an agent leaves its newest beat for a server on the same host.
//! - `secure`, with the feature of that name: frames and control datagrams under a seal.
//!
//! # Features
//!
//! None is on by default, and without `secure` the crate has no dependencies.
//!
//! - `std`: the module `address`, where a server and its agents look for the socket of a host; keys from
//!   files; and the detection of the checksum instruction on aarch64. On x86-64 it is found without.
//! - `secure`: the module of that name, on top of ring. It needs neither the standard library nor an
//!   allocator.
//! - `test-hooks`: sessions of `secure` that begin where a test wants them to. Not for programs: with it a
//!   nonce can be used twice.

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
