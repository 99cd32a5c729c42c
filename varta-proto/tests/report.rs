//! Reports: what a process says of something that is known by its name alone.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use proptest::option;
use proptest::prelude::*;
use varta_proto::DecodeError;
use varta_proto::control::{
    AgentName, Control, ControlKind, Declaration, MAX_CONTROL_LEN, Report, ReportEvent,
};

/// A declaration with all that it may have.
fn declared<'a>(
    schedule: &'a str,
    zone: Option<&'a str>,
    times: (Option<u64>, Option<u64>),
) -> Option<Declaration<'a>> {
    let mut declaration = Declaration::new(schedule, zone)?;
    declaration.alarm_on_overlap = times.0.is_some();
    (declaration.grace_ms, declaration.longest_run_ms) = times;
    Some(declaration)
}

fn event() -> impl Strategy<Value = ReportEvent> {
    prop_oneof![
        Just(ReportEvent::Beat),
        Just(ReportEvent::Started),
        Just(ReportEvent::Ended),
        option::of(any::<u8>()).prop_map(|status| ReportEvent::Failed { status }),
        Just(ReportEvent::Declared),
        Just(ReportEvent::Said),
    ]
}

proptest! {
    #[test]
    fn a_report_decodes_to_itself(
        pid: u32, session: [u8; 16], name in "[-A-Za-z0-9._:/@]{1,64}", event in event(),
        stall_after_ms in option::of(any::<u32>()),
        texts in option::of(("\\PC{1,60}", option::of("[A-Za-z/_]{1,64}"))),
        grace_ms in option::of(any::<u64>()), longest_run_ms in option::of(any::<u64>()),
        said in option::of("\\PC{0,300}"), child in option::of(any::<u32>()),
    ) {
        let name = AgentName::parse(&name).unwrap();
        let declaration = texts.as_ref().and_then(|(schedule, zone)| {
            declared(schedule, zone.as_deref(), (grace_ms, longest_run_ms))
        });
        let said = said.as_deref();
        let report =
            Report { stall_after_ms, declaration, said, child, ..Report::new(pid, session, &name, event) };
        let mut out = [0; MAX_CONTROL_LEN];
        let encoded = report.encode(&mut out);
        prop_assert!(![32, 60, 64].contains(&encoded.len()));
        let control = Control::decode(&encoded).unwrap();
        prop_assert_eq!((control.kind(), control.pid(), control.session()), (ControlKind::Report, pid, session));
        prop_assert_eq!((control.name(), control.event()), (Some(&name), Some(event)));
        prop_assert_eq!(control.stall_after_ms(), stall_after_ms);
        prop_assert_eq!((control.declaration(), control.child()), (declaration, child));
        let sent = said.filter(|_| declaration.is_none());
        prop_assert_eq!(control.said().is_some(), sent.is_some());
        if let (Some(came), Some(sent)) = (control.said(), sent) {
            prop_assert!(sent.starts_with(came) && came.len() <= Report::MAX_SAID_LEN);
            prop_assert!(came == sent || came.len() > Report::MAX_SAID_LEN - 4);
        }
    }
}

#[test]
fn the_bytes_of_a_report_are_these() {
    let name = AgentName::parse("backup").unwrap();
    let mut report = Report::new(4242, [7; 16], &name, ReportEvent::Failed { status: Some(3) });
    report.stall_after_ms = Some(1_000);
    report.declaration = declared("@daily", Some("UTC"), (Some(60_000), Some(1)));
    report.child = Some(4243);
    let mut out = [0; MAX_CONTROL_LEN];
    let encoded = report.encode(&mut out);
    let body = [
        &[1, 16, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7][..],
        b"\x02\x06backup\x09\x02\x03\x03\x04\x04\xe8\x03\0\0\x0a\x06@daily\x0b\x03UTC",
        b"\x0c\x08\x60\xea\0\0\0\0\0\0\x0d\x08\x01\0\0\0\0\0\0\0\x10\0\x0f\x04\x93\x10\0\0",
    ]
    .concat();
    assert_eq!(encoded[..8], *b"VC\x01\x04\x92\x10\0\0");
    assert_eq!(encoded[8..24], [0; 16]);
    assert_eq!(encoded[28..encoded.len() - 4], body);
}

#[test]
fn the_longest_report_fits() {
    let name = AgentName::parse(&"n".repeat(AgentName::MAX_LEN)).unwrap();
    let (schedule, zone) = ("s".repeat(255), "z".repeat(64));
    let mut report = Report::new(1, [7; 16], &name, ReportEvent::Failed { status: Some(255) });
    report.stall_after_ms = Some(u32::MAX);
    report.declaration = declared(&schedule, Some(&zone), (Some(u64::MAX), Some(u64::MAX)));
    report.child = Some(u32::MAX);
    let mut out = [0; MAX_CONTROL_LEN];
    assert_eq!(Control::decode(&report.encode(&mut out)).unwrap().declaration(), report.declaration);
}

#[test]
fn a_text_that_is_empty_too_long_or_has_control_characters_is_no_declaration() {
    let long = "x".repeat(256);
    for schedule in ["", &long, "a\0", "\u{85}"] {
        assert_eq!(Declaration::new(schedule, None), None);
    }
    for zone in ["", &long[..65], "a\n"] {
        assert_eq!(Declaration::new("daily", Some(zone)), None);
    }
}

#[test]
fn an_event_of_a_later_version_is_well_formed_and_not_understood() {
    let name = AgentName::parse("n").unwrap();
    let mut out = [0; MAX_CONTROL_LEN];
    let mut bytes = Report::new(1, [7; 16], &name, ReportEvent::Beat).encode(&mut out).to_vec();
    let (event, end) = (28 + 18 + 3 + 2, bytes.len() - 4);
    bytes[event] = 200;
    let checksum = varta_proto::crc32c::checksum(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(Control::decode(&bytes).unwrap().event(), None);
    bytes[event - 2] = 99;
    let checksum = varta_proto::crc32c::checksum(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(Control::decode(&bytes).unwrap_err(), DecodeError::BadBody, "without an event");
}
