use super::*;
use std::string::ToString;

/// Each error with its label and its text, in the order of the checks.
const TABLE: [(DecodeError, &str, &str); 11] = [
    (
        DecodeError::BadLength { actual: 31 },
        "bad_length",
        "a datagram of 31 bytes: a frame has 32, a control datagram what it says",
    ),
    (
        DecodeError::BadMagic,
        "bad_magic",
        "neither a frame, which begins with 56 41, nor a control datagram, with 56 43",
    ),
    (
        DecodeError::BadVersion { actual: 3 },
        "bad_version",
        "unknown version 3: frames have 2, control datagrams 1",
    ),
    (
        DecodeError::BadCrc { expected: 0xe306_9283, actual: 0x1f },
        "bad_crc",
        "damaged on its way: it carries the CRC-32C 0000001f, its bytes have e3069283",
    ),
    (DecodeError::BadStatus { actual: 255 }, "bad_status", "unknown status 255, a sender's is 0, 1 or 2"),
    (DecodeError::StallOnWire, "stall_on_wire", "status 3 (stall) is concluded by a server and never sent"),
    (DecodeError::BadPid { actual: 1 }, "bad_pid", "pid 1 is reserved"),
    (DecodeError::BadTimestamp, "bad_timestamp", "timestamp 18446744073709551615 is reserved"),
    (
        DecodeError::BadNonce,
        "bad_nonce",
        "nonce 18446744073709551615 marks a terminal frame, but the status is not critical",
    ),
    (DecodeError::BadKind { actual: 9 }, "bad_kind", "unknown kind 9, a control datagram's is 1, 2 or 3"),
    (
        DecodeError::BadBody,
        "bad_body",
        "the body of a control datagram has an illegal entry, or no session id",
    ),
];

#[test]
fn every_error_has_its_own_place_label_and_text() {
    for (place, (error, kind, text)) in TABLE.into_iter().enumerate() {
        assert_eq!((error.index(), error.kind()), (place, kind));
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(TABLE.map(|(_, kind, _)| kind), DecodeError::KINDS);
}

#[test]
fn the_text_of_bad_magic_names_both() {
    for [first, second] in [crate::MAGIC, crate::control::CONTROL_MAGIC] {
        let magic = std::format!("{first:02x} {second:02x}");
        assert!(DecodeError::BadMagic.to_string().contains(&magic));
    }
}
