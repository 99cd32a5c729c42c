//! Properties of every frame and of every other sequence of bytes.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use varta_proto::{DecodeError, FRAME_LEN, Frame, MAGIC, NONCE_TERMINAL, Status, VERSION, crc32c};

/// Any valid frame, with the values at the edges of its fields more often than by chance.
fn valid_frame() -> impl Strategy<Value = Frame> {
    let status = prop_oneof![Just(Status::Ok), Just(Status::Degraded), Just(Status::Critical)];
    let pid = prop_oneof![Just(2), Just(u32::MAX), 2..=u32::MAX];
    let timestamp = prop_oneof![Just(0), Just(u64::MAX - 1), 0..u64::MAX];
    let nonce = prop_oneof![Just(0), Just(1), Just(NONCE_TERMINAL - 1), Just(NONCE_TERMINAL), any::<u64>()];
    (status, pid, timestamp, nonce, any::<u32>())
        .prop_map(|(status, pid, timestamp, nonce, payload)| {
            Frame::new(status, pid, timestamp, nonce, payload)
        })
        .prop_filter("only a critical frame is terminal", |frame| {
            frame.nonce != NONCE_TERMINAL || frame.status == Status::Critical
        })
}

/// Any fields at all, with the right magic, version and checksum.
fn sealed_bytes() -> impl Strategy<Value = [u8; FRAME_LEN]> {
    let edge = || prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()];
    (0_u8..6, prop_oneof![0_u32..4, any::<u32>()], edge(), edge(), any::<u32>()).prop_map(
        |(status, pid, timestamp, nonce, payload)| {
            let mut bytes = Frame::new(Status::Ok, pid, timestamp, nonce, payload).to_bytes();
            bytes[3] = status;
            seal(&mut bytes);
            bytes
        },
    )
}

/// Writes the checksum of the rest of the frame.
fn seal(bytes: &mut [u8; FRAME_LEN]) {
    let checksum = crc32c::checksum(&bytes[..28]);
    bytes[28..].copy_from_slice(&checksum.to_le_bytes());
}

/// The rules of the wire in an independent implementation, a field at a time, in the order in which they are
/// checked.
fn first_fault(bytes: &[u8]) -> Option<DecodeError> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    if bytes.len() != 32 {
        return Some(DecodeError::BadLength { actual: bytes.len() });
    }
    let checksum = ::crc32c::crc32c(&bytes[..28]);
    [
        (bytes[..2] != *b"VA", DecodeError::BadMagic),
        (bytes[2] != 2, DecodeError::BadVersion { actual: bytes[2] }),
        (word(28) != checksum, DecodeError::BadCrc { expected: checksum, actual: word(28) }),
        (bytes[3] > 3, DecodeError::BadStatus { actual: bytes[3] }),
        (bytes[3] == 3, DecodeError::StallOnWire),
        (word(4) < 2, DecodeError::BadPid { actual: word(4) }),
        (long(8) == u64::MAX, DecodeError::BadTimestamp),
        (long(16) == u64::MAX && bytes[3] != 2, DecodeError::BadNonce),
    ]
    .into_iter()
    .find_map(|(broken, fault)| broken.then_some(fault))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_encoded_decodes_to_itself(frame in valid_frame()) {
        prop_assert_eq!(Frame::decode(&frame.to_bytes()), Ok(frame));
    }

    #[test]
    fn encoding_overwrites_whatever_was_there(frame in valid_frame(), mut out: [u8; FRAME_LEN]) {
        frame.encode(&mut out);
        prop_assert_eq!(out, frame.to_bytes());
    }

    #[test]
    fn any_bytes_are_answered_and_never_with_a_panic(bytes in vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(Frame::decode(&bytes).err(), first_fault(&bytes));
    }

    #[test]
    fn the_first_broken_rule_is_the_one_reported(bytes in sealed_bytes()) {
        prop_assert_eq!(Frame::decode(&bytes).err(), first_fault(&bytes));
    }

    #[test]
    fn damage_is_reported_before_what_it_damaged(
        bytes in sealed_bytes(), place in 0..FRAME_LEN, flip in 1..=u8::MAX,
    ) {
        let mut bytes = bytes;
        bytes[place] ^= flip;
        prop_assert_eq!(Frame::decode(&bytes).err(), first_fault(&bytes));
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(bytes in sealed_bytes()) {
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_flipped_bit_is_always_an_error(frame in valid_frame()) {
        for bit in 0..8 * FRAME_LEN {
            let mut bytes = frame.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Frame::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_followed_or_cut_by_anything_is_a_bad_length(
        frame in valid_frame(), cut in any::<Index>(), more in vec(any::<u8>(), 1..64),
    ) {
        let wire = frame.to_bytes();
        let short = &wire[..cut.index(FRAME_LEN)];
        prop_assert_eq!(Frame::decode(short), Err(DecodeError::BadLength { actual: short.len() }));
        let long = [&wire[..], &more].concat();
        prop_assert_eq!(Frame::decode(&long), Err(DecodeError::BadLength { actual: long.len() }));
    }
}

#[test]
fn every_other_length_is_a_bad_length() {
    let wire = Frame::new(Status::Ok, 2, 0, 1, 0).to_bytes();
    let bytes: Vec<u8> = wire.into_iter().cycle().take(4 * FRAME_LEN).collect();
    for actual in 0..=bytes.len() {
        let answer = Frame::decode(&bytes[..actual]);
        if actual == FRAME_LEN {
            assert!(answer.is_ok());
        } else {
            assert_eq!(answer, Err(DecodeError::BadLength { actual }));
        }
    }
}

#[test]
fn encoding_writes_what_may_not_be_sent() {
    let bytes = Frame::new(Status::Stall, 0, u64::MAX, NONCE_TERMINAL, 9).to_bytes();
    assert_eq!(bytes[..4], [MAGIC[0], MAGIC[1], VERSION, 3]);
    assert_eq!(Frame::decode(&bytes), Err(DecodeError::StallOnWire));
}

#[test]
fn only_a_critical_frame_with_the_last_nonce_is_terminal() {
    let is_terminal = |status, nonce| Frame::new(status, 2, 0, nonce, 0).is_terminal();
    assert!(is_terminal(Status::Critical, NONCE_TERMINAL));
    assert!(!is_terminal(Status::Critical, NONCE_TERMINAL - 1));
    assert!(!is_terminal(Status::Degraded, NONCE_TERMINAL));
}

#[test]
fn a_frame_and_the_answer_to_a_datagram_are_no_bigger_than_the_wire() {
    assert!(size_of::<Frame>() <= FRAME_LEN);
    assert!(size_of::<Result<Frame, DecodeError>>() <= FRAME_LEN);
}
