//! Any bytes are either a frame that encodes to the same bytes, or an error. Never a panic.
//!
//! ```text
//! cargo +nightly fuzz run decode -- -max_total_time=10
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use varta_proto::{FRAME_LEN, Frame, MAGIC, VERSION, crc32c};

fuzz_target!(|bytes: &[u8]| {
    check(bytes);

    // The same bytes with the right magic, version and checksum, which random bytes have once in 2^56: this
    // tests the rules for the other fields too.
    if let Ok(mut sealed) = <[u8; FRAME_LEN]>::try_from(bytes) {
        sealed[..2].copy_from_slice(&MAGIC);
        sealed[2] = VERSION;
        let checksum = crc32c::checksum(&sealed[..28]);
        sealed[28..].copy_from_slice(&checksum.to_le_bytes());
        check(&sealed);
    }
});

fn check(bytes: &[u8]) {
    match Frame::decode(bytes) {
        Ok(frame) => assert_eq!(frame.to_bytes(), bytes),
        Err(error) => assert!(!error.to_string().is_empty() && !error.kind().is_empty()),
    }
}
