//! The golden bytes of the protocol, each entry exactly.
//!
//! `data/vectors.json` is the published set, unchanged. The sections `crc32c`, `frames` and `frame_errors`
//! are covered here; `secure`, `secure_errors` and `kdf` belong to sealed datagrams, and `control`,
//! `control_errors` and `control_secure` to control datagrams.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use serde_json::Value;
use varta_proto::{DecodeError, Frame, NONCE_TERMINAL, Status, VERSION, crc32c};

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/vectors.json")).unwrap()
}

/// Runs `check` on every entry of a section, with the entry's id for its messages. An empty section is a
/// failure: it would hold whatever the code does.
fn for_each(section: &str, check: impl Fn(&str, &Value)) {
    let vectors = vectors();
    let entries = vectors[section].as_array().unwrap_or_else(|| panic!("no section {section}"));
    assert!(!entries.is_empty(), "section {section} is empty");
    for entry in entries {
        check(text(entry, "id"), entry);
    }
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_else(|| panic!("{key} is no string in {entry}"))
}

/// Reads a decimal string, or a number.
fn number<T: TryFrom<u64>>(entry: &Value, key: &str) -> T {
    let number = match &entry[key] {
        Value::String(digits) => digits.parse().unwrap(),
        number => number.as_u64().unwrap_or_else(|| panic!("{key} is no number in {entry}")),
    };
    T::try_from(number).unwrap_or_else(|_| panic!("{key} is out of range in {entry}"))
}

fn hex(entry: &Value, key: &str) -> Vec<u8> {
    let (pairs, []) = text(entry, key).as_bytes().as_chunks::<2>() else {
        panic!("{key} has an odd length in {entry}");
    };
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(|pair| byte(pair)).collect()
}

fn status(entry: &Value) -> Status {
    let name = text(entry, "status");
    let known = [Status::Ok, Status::Degraded, Status::Critical];
    known
        .into_iter()
        .find(|status| status.as_str() == name)
        .unwrap_or_else(|| panic!("unknown status in {entry}"))
}

#[test]
fn the_vectors_are_of_this_version() {
    assert_eq!(vectors()["version_byte"], VERSION);
}

#[test]
fn every_checksum_holds() {
    for_each("crc32c", |id, entry| {
        let expected = u32::from_str_radix(text(entry, "crc"), 16).unwrap();
        assert_eq!(crc32c::checksum(&hex(entry, "input")), expected, "{id}");
    });
}

#[test]
fn every_frame_has_exactly_its_bytes() {
    for_each("frames", |id, entry| {
        let nonce = number(entry, "nonce");
        let frame = Frame::new(
            status(entry),
            number(entry, "pid"),
            number(entry, "timestamp"),
            nonce,
            number(entry, "payload"),
        );
        let wire = hex(entry, "wire");
        assert_eq!(frame.to_bytes()[..], wire, "{id}");
        assert_eq!(Frame::decode(&wire), Ok(frame), "{id}");
        assert_eq!(frame.is_terminal(), nonce == NONCE_TERMINAL, "{id}");
    });
}

#[test]
fn every_bad_frame_is_refused_for_its_first_fault() {
    for_each("frame_errors", |id, entry| {
        let error = Frame::decode(&hex(entry, "wire")).expect_err(id);
        assert_eq!(name(error), text(entry, "error"), "{id}: {error}");
    });
}

/// What the vectors call an error.
fn name(error: DecodeError) -> &'static str {
    match error {
        DecodeError::BadLength { .. } => "BadLength",
        DecodeError::BadMagic => "BadMagic",
        DecodeError::BadVersion { .. } => "BadVersion",
        DecodeError::BadCrc { .. } => "BadCrc",
        DecodeError::BadStatus { .. } => "BadStatus",
        DecodeError::StallOnWire => "StallOnWire",
        DecodeError::BadPid { .. } => "BadPid",
        DecodeError::BadTimestamp => "BadTimestamp",
        DecodeError::BadNonce => "BadNonce",
        other => panic!("the vectors have no name for {other:?}"),
    }
}
