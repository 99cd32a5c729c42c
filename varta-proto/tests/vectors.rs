//! The test vectors of the protocol, each entry exactly.
//!
//! `data/vectors.json` is the published set, unchanged. Unit tests of the crate check what needs private
//! functions: sealing to exact bytes, because no public function takes a nonce, and the derivations.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the helpers of tests are tests too")]

#[path = "../src/test_vectors.rs"]
mod test_vectors;

use serde_json::Value;
use test_vectors::{for_each, hex, number, optional, text, vectors};
use varta_proto::control::{
    AgentName, Control, ControlKind, Goodbye, GoodbyeReason, Hello, Label, LabelSet, MAX_CONTROL_LEN,
};
use varta_proto::{DecodeError, Frame, NONCE_TERMINAL, Status, VERSION, crc32c};

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

#[test]
fn every_control_datagram_says_what_it_says() {
    for_each("control", |id, entry| {
        let wire = hex(entry, "wire");
        let control = Control::decode(&wire).expect(id);
        let kind = match text(entry, "kind") {
            "hello" => ControlKind::Hello,
            "goodbye" => ControlKind::Goodbye,
            other => panic!("unknown kind {other}"),
        };
        assert_eq!(control.kind(), kind, "{id}");
        assert_eq!(control.pid(), number::<u32>(entry, "pid"), "{id}");
        assert_eq!(control.timestamp(), number::<u64>(entry, "timestamp"), "{id}");
        assert_eq!(control.nonce(), number::<u64>(entry, "nonce"), "{id}");
        assert_eq!(control.session()[..], hex(entry, "session"), "{id}");
        assert_eq!(control.name().map(AgentName::as_str), entry.get("name").and_then(Value::as_str), "{id}");
        assert_eq!(control.interval_ms(), optional(entry, "interval_ms"), "{id}");
        assert_eq!(control.stall_after_ms(), optional(entry, "stall_after_ms"), "{id}");
        assert_eq!(control.unsent(), optional(entry, "unsent"), "{id}");
        assert_eq!(control.reason().map(|reason| reason as u8), optional(entry, "reason"), "{id}");
        assert!(control.labels().eq(labels(entry).iter()), "{id}: {control:?}");
        assert_eq!(*control.encoded(), *wire, "{id}");
    });
}

#[test]
fn every_control_datagram_of_ours_has_exactly_its_bytes() {
    for_each("control", |id, entry| {
        // This version does not send what a later version may.
        if id == "hello-unknown-tag-skipped" {
            return;
        }
        let pid = number(entry, "pid");
        let timestamp = number(entry, "timestamp");
        let nonce = number(entry, "nonce");
        let session = hex(entry, "session").try_into().unwrap();
        let mut out = [0xee; MAX_CONTROL_LEN];
        let encoded = if text(entry, "kind") == "hello" {
            let name = entry.get("name").map(|_| AgentName::parse(text(entry, "name")).unwrap());
            Hello {
                name: name.as_ref(),
                interval_ms: optional(entry, "interval_ms"),
                stall_after_ms: optional(entry, "stall_after_ms"),
                labels: &labels(entry),
                ..Hello::new(pid, timestamp, nonce, session)
            }
            .encode(&mut out)
        } else {
            let reason = GoodbyeReason::from_u8(number(entry, "reason")).unwrap();
            let unsent = optional(entry, "unsent");
            Goodbye { unsent, ..Goodbye::new(pid, timestamp, nonce, session, reason) }.encode(&mut out)
        };
        assert_eq!(*encoded, *hex(entry, "wire"), "{id}");
    });
}

/// The labels of an entry, in the order of their keys.
fn labels(entry: &Value) -> LabelSet {
    let mut labels = LabelSet::new();
    for (key, value) in entry.get("labels").and_then(Value::as_object).into_iter().flatten() {
        labels.push(Label::new(key, value.as_str().unwrap()).unwrap()).unwrap();
    }
    labels
}

#[test]
fn every_bad_control_datagram_is_refused_for_its_first_fault() {
    for_each("control_errors", |id, entry| {
        let error = Control::decode(&hex(entry, "wire")).expect_err(id);
        assert_eq!(name(error), text(entry, "error"), "{id}: {error}");
    });
}

#[cfg(feature = "secure")]
mod secure {
    use super::*;
    use varta_proto::secure::{
        AgentKeys, Key, OpenError, Opened, Opener, open_agent, open_any, open_control_any,
        open_control_master, open_control_shared, open_master, open_shared,
    };

    fn key(entry: &Value, field: &str) -> Key {
        Key::from_hex(text(entry, field)).unwrap()
    }

    fn is_shared(entry: &Value) -> bool {
        match text(entry, "mode") {
            "shared" => true,
            "master" => false,
            other => panic!("unknown mode {other}"),
        }
    }

    #[test]
    fn every_sealed_frame_opens() {
        for_each("secure", |id, entry| {
            let wire = hex(entry, "wire");
            let expected = Ok(Opened {
                frame: Frame::decode(&hex(entry, "plaintext")).expect(id),
                iv_random: hex(entry, "iv_random").try_into().unwrap(),
                iv_counter: number(entry, "iv_counter"),
            });
            if is_shared(entry) {
                let key = key(entry, "key");
                assert_eq!(open_shared(&key, &wire), expected, "{id}");
                assert_eq!(
                    open_any([Opener::Shared(&key)], &wire),
                    expected.map(|opened| (0, opened)),
                    "{id}"
                );
            } else {
                let (master, agent_key) = (key(entry, "master_key"), key(entry, "agent_key"));
                assert_eq!(open_master(&master, &wire), expected, "{id}");
                assert_eq!(open_agent(&agent_key, &wire), expected, "{id}");
                let openers = [Opener::Agent(&master), Opener::Agent(&agent_key), Opener::Master(&master)];
                assert_eq!(open_any(openers, &wire), expected.map(|opened| (1, opened)), "{id}");
                let prepared = AgentKeys::new(&master);
                let opened = open_any([Opener::Agents(&prepared)], &wire);
                assert_eq!(opened, expected.map(|opened| (0, opened)), "{id}");
            }
        });
    }

    #[test]
    fn every_bad_sealed_frame_is_refused_for_its_first_fault() {
        for_each("secure_errors", |id, entry| {
            let wire = hex(entry, "wire");
            let answers = if is_shared(entry) {
                let key = key(entry, "key");
                [open_shared(&key, &wire), open_any([Opener::Shared(&key)], &wire).map(|(_, opened)| opened)]
            } else {
                let key = key(entry, "master_key");
                [open_master(&key, &wire), open_any([Opener::Master(&key)], &wire).map(|(_, opened)| opened)]
            };
            for answer in answers {
                let error = answer.expect_err(id);
                assert_eq!(open_name(error), text(entry, "error"), "{id}: {error}");
            }
        });
    }

    #[test]
    fn every_agent_key_is_exactly_the_one() {
        for_each("kdf", |id, entry| {
            if id == "kdf-agent-key" {
                assert_eq!(key(entry, "ikm").agent_key(42), key(entry, "okm"));
            }
        });
    }

    #[test]
    fn every_sealed_control_datagram_opens() {
        for_each("control_secure", |id, entry| {
            let wire = hex(entry, "wire");
            let mut room = [0; MAX_CONTROL_LEN];
            let mut more_room = [0; MAX_CONTROL_LEN];
            let wrong = Key::from_bytes([0; 32]);
            let (opened, (index, also)) = if is_shared(entry) {
                let key = key(entry, "key");
                let openers = [Opener::Master(&key), Opener::Shared(&wrong), Opener::Shared(&key)];
                (
                    open_control_shared(&key, &wire, &mut room).expect(id),
                    open_control_any(openers, &wire, &mut more_room).expect(id),
                )
            } else {
                let key = key(entry, "master_key");
                let openers = [Opener::Shared(&key), Opener::Master(&wrong), Opener::Master(&key)];
                (
                    open_control_master(&key, &wire, &mut room).expect(id),
                    open_control_any(openers, &wire, &mut more_room).expect(id),
                )
            };
            assert_eq!(index, 2, "{id}");
            for opened in [opened, also] {
                assert_eq!(*opened.control.encoded(), *hex(entry, "plaintext"), "{id}");
                assert_eq!(opened.iv_random[..], hex(entry, "iv_random"), "{id}");
                assert_eq!(opened.iv_counter, number::<u32>(entry, "iv_counter"), "{id}");
            }
        });
    }

    /// The name of an error in the vectors.
    fn open_name(error: OpenError) -> &'static str {
        match error {
            OpenError::BadLength { .. } => "BadLength",
            OpenError::AuthFailed => "AuthFailed",
            OpenError::PidMismatch => "PidMismatch",
            OpenError::Frame(error) => name(error),
            other => panic!("the vectors have no name for {other:?}"),
        }
    }
}

/// The name of an error in the vectors.
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
        DecodeError::BadKind { .. } => "BadKind",
        DecodeError::BadBody => "BadBody",
        other => panic!("the vectors have no name for {other:?}"),
    }
}
