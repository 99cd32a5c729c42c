//! Properties of every control datagram and of every other sequence of bytes.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use varta_proto::control::{
    AgentName, Attach, CONTROL_MAGIC, CONTROL_VERSION, Control, ControlKind, EncodedControl, Goodbye,
    GoodbyeReason, Hello, Label, LabelSet, MAX_CONTROL_LEN, MAX_LABELS,
};
use varta_proto::{DecodeError, crc32c};

/// The content of a Hello, with what it borrows.
#[derive(Clone, Debug)]
struct Said {
    pid: u32,
    timestamp: u64,
    nonce: u64,
    session: [u8; 16],
    name: Option<AgentName>,
    interval_ms: Option<u32>,
    stall_after_ms: Option<u32>,
    labels: LabelSet,
    unsent: Option<u64>,
    busy_for_ms: Option<u32>,
    no_progress_after_ms: Option<u32>,
}

impl Said {
    fn encode<'o>(&self, out: &'o mut [u8; MAX_CONTROL_LEN]) -> EncodedControl<'o> {
        let Self { pid, timestamp, nonce, session, interval_ms, stall_after_ms, unsent, .. } = *self;
        let Self { busy_for_ms, no_progress_after_ms, .. } = *self;
        let (name, labels) = (self.name.as_ref(), &self.labels);
        Hello {
            pid,
            timestamp,
            nonce,
            session,
            name,
            interval_ms,
            stall_after_ms,
            labels,
            unsent,
            busy_for_ms,
            no_progress_after_ms,
        }
        .encode(out)
    }

    fn of(control: &Control<'_>) -> Self {
        Self {
            pid: control.pid(),
            timestamp: control.timestamp(),
            nonce: control.nonce(),
            session: control.session(),
            name: control.name().copied(),
            interval_ms: control.interval_ms(),
            stall_after_ms: control.stall_after_ms(),
            labels: label_set(control.labels()),
            unsent: control.unsent(),
            busy_for_ms: control.busy_for_ms(),
            no_progress_after_ms: control.no_progress_after_ms(),
        }
    }
}

/// As many of the labels as there is room for.
fn label_set<'a>(labels: impl IntoIterator<Item = Label<'a>>) -> LabelSet {
    let mut set = LabelSet::new();
    for label in labels {
        let _ = set.push(label);
    }
    set
}

fn said() -> impl Strategy<Value = Said> {
    let head = (any::<u32>(), any::<u64>(), any::<u64>(), any::<[u8; 16]>());
    let name = option::of("[-A-Za-z0-9._:/@]{1,64}".prop_map(|text| AgentName::parse(&text).unwrap()));
    let labels = vec(("_?[A-Za-z][A-Za-z0-9_]{0,20}", "\\PC{0,40}"), 0..12)
        .prop_map(|texts| label_set(texts.iter().filter_map(|(key, value)| Label::new(key, value).ok())));
    let numbers = (option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u64>()));
    let allowed = (option::of(any::<u32>()), option::of(any::<u32>()));
    (head, name, labels, numbers, allowed).prop_map(|(head, name, labels, numbers, allowed)| {
        let (pid, timestamp, nonce, session) = head;
        let (interval_ms, stall_after_ms, unsent) = numbers;
        let (busy_for_ms, no_progress_after_ms) = allowed;
        Said {
            pid,
            timestamp,
            nonce,
            session,
            name,
            interval_ms,
            stall_after_ms,
            labels,
            unsent,
            busy_for_ms,
            no_progress_after_ms,
        }
    })
}

/// An entry from any sender: more often than not a valid one.
fn entry() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let sized = |len: usize| vec(any::<u8>(), len);
    let label = prop_oneof![
        "[a-c]{1,2}=[a-z]{0,3}".prop_map(String::into_bytes),
        "\\PC{0,8}".prop_map(String::into_bytes),
    ];
    prop_oneof![
        4 => sized(16).prop_map(|value| (1, value)),
        2 => "[a-z@]{1,64}".prop_map(|name| (2, name.into_bytes())),
        3 => (select(vec![3_u8, 4, 8, 15, 17]), sized(4)),
        4 => label.prop_map(|value| (5, value)),
        1 => sized(8).prop_map(|value| (6, value)),
        1 => sized(1).prop_map(|value| (7, value)),
        2 => vec(0_u8..6, 1..3).prop_map(|value| (9, value)),
        1 => ((10_u8..12), "\\PC{1,70}").prop_map(|(tag, text)| (tag, text.into_bytes())),
        1 => (any::<u8>(), vec(any::<u8>(), 0..70)),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let entries = vec(entry(), 0..14).prop_map(|entries| entries.iter().flat_map(entry_bytes).collect());
    let cut = (vec(entry(), 1..5), any::<Index>()).prop_map(|(entries, cut)| {
        let mut body: Vec<u8> = entries.iter().flat_map(entry_bytes).collect();
        body.truncate(cut.index(body.len()));
        body
    });
    prop_oneof![8 => entries, 2 => cut, 1 => vec(any::<u8>(), 0..480)]
}

fn entry_bytes((tag, value): &(u8, Vec<u8>)) -> Vec<u8> {
    [&[*tag, u8::try_from(value.len()).unwrap()][..], value].concat()
}

/// Adds the header before a body and the right checksum after it.
fn around(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&CONTROL_MAGIC[..], &[CONTROL_VERSION, kind]].concat();
    bytes.extend(4242_u32.to_le_bytes());
    bytes.extend(9_u64.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(body);
    let checksum = crc32c::checksum(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// The rules of the wire in an independent implementation, in the order in which they are checked.
fn first_fault(bytes: &[u8]) -> Option<DecodeError> {
    let bad_length = DecodeError::BadLength { actual: bytes.len() };
    if !(32..=512).contains(&bytes.len()) {
        return Some(bad_length);
    }
    let (covered, crc) = bytes.split_at(bytes.len() - 4);
    let checksum = ::crc32c::crc32c(covered);
    let actual = u32::from_le_bytes(crc.try_into().unwrap());
    [
        (usize::from(bytes[24]) + 256 * usize::from(bytes[25]) != covered.len() - 28, bad_length),
        (bytes[..2] != *b"VC", DecodeError::BadMagic),
        (bytes[2] != 1, DecodeError::BadVersion { actual: bytes[2] }),
        (actual != checksum, DecodeError::BadCrc { expected: checksum, actual }),
        (![1, 2, 3, 4].contains(&bytes[3]), DecodeError::BadKind { actual: bytes[3] }),
        (!is_legal_body(bytes[3], &covered[28..]), DecodeError::BadBody),
    ]
    .into_iter()
    .find_map(|(broken, fault)| broken.then_some(fault))
}

fn is_legal_body(kind: u8, mut body: &[u8]) -> bool {
    let (mut sessions, mut names, mut events) = (0, 0, 0);
    let mut keys = Vec::new();
    while let [tag, len, rest @ ..] = body {
        let Some((value, rest)) = rest.split_at_checked(usize::from(*len)) else { return false };
        body = rest;
        let legal = match tag {
            1 => {
                sessions += 1;
                value.len() == 16
            }
            2 => {
                names += 1;
                (1..=64).contains(&value.len())
                    && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-:/@".contains(byte))
            }
            3 | 4 | 8 | 15 => value.len() == 4,
            5 => match std::str::from_utf8(value).ok().and_then(|text| text.split_once('=')) {
                Some((key, value)) => {
                    let repeated = keys.contains(&key);
                    keys.push(key);
                    let letters = key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
                    let all = key.chars().all(|other| other.is_ascii_alphanumeric() || other == '_');
                    letters && all && !key.starts_with("__") && !value.contains(char::is_control) && !repeated
                }
                None => false,
            },
            6 | 12 | 13 => value.len() == 8,
            7 => value.len() == 1,
            9 => {
                events += 1;
                [1, 2].contains(&value.len())
            }
            10 | 11 => std::str::from_utf8(value).is_ok_and(|text| {
                (1..=if *tag == 10 { 255 } else { 64 }).contains(&text.len())
                    && !text.contains(char::is_control)
            }),
            14 => value.len() <= 240 && std::str::from_utf8(value).is_ok(),
            16 => value.is_empty(),
            _ => true,
        };
        if !legal {
            return false;
        }
    }
    body.is_empty() && sessions > 0 && keys.len() <= 8 && (kind != 4 || names > 0 && events > 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_encoded_decodes_to_itself(said in said(), mut out: [u8; MAX_CONTROL_LEN]) {
        let encoded = said.encode(&mut out);
        let control = Control::decode(&encoded).unwrap();
        prop_assert_eq!(control.kind(), ControlKind::Hello);
        prop_assert_eq!(format!("{:?}", Said::of(&control)), format!("{said:?}"));
        prop_assert_eq!(control.reason(), None);
        prop_assert_eq!(control.encoded(), encoded);
    }

    #[test]
    fn no_length_is_that_of_a_beat(said in said(), mut out: [u8; MAX_CONTROL_LEN]) {
        let len = said.encode(&mut out).len();
        prop_assert!(len <= MAX_CONTROL_LEN);
        for sealed in [len, len + 28, len + 32] {
            prop_assert!(![32, 60, 64].contains(&sealed), "{len} bytes");
        }
    }

    #[test]
    fn a_goodbye_decodes_to_itself(
        pid: u32, timestamp: u64, nonce: u64, session: [u8; 16], unsent: Option<u64>, reason in 0_u8..3,
    ) {
        let reason = GoodbyeReason::from_u8(reason).unwrap();
        let mut out = [0; MAX_CONTROL_LEN];
        let goodbye = Goodbye { unsent, ..Goodbye::new(pid, timestamp, nonce, session, reason) };
        let control = Control::decode(goodbye.encode(&mut out).as_bytes()).unwrap();
        prop_assert_eq!(control.kind(), ControlKind::Goodbye);
        prop_assert_eq!((control.pid(), control.timestamp(), control.nonce()), (pid, timestamp, nonce));
        prop_assert_eq!((control.session(), control.unsent()), (session, unsent));
        prop_assert_eq!(control.reason(), Some(reason));
    }

    #[test]
    fn an_attach_decodes_to_itself(pid: u32, timestamp: u64, nonce: u64, session: [u8; 16]) {
        let mut out = [0; MAX_CONTROL_LEN];
        let attach = Attach::new(pid, timestamp, nonce, session);
        let control = Control::decode(attach.encode(&mut out).as_bytes()).unwrap();
        prop_assert_eq!(control.kind(), ControlKind::Attach);
        prop_assert_eq!((control.pid(), control.timestamp(), control.nonce()), (pid, timestamp, nonce));
        prop_assert_eq!(control.session(), session);
    }

    #[test]
    fn any_bytes_are_answered_and_never_with_a_panic(bytes in vec(any::<u8>(), 0..600)) {
        prop_assert_eq!(Control::decode(&bytes).err(), first_fault(&bytes));
    }

    #[test]
    fn the_first_broken_rule_is_the_one_reported(body in body(), kind in 0_u8..6) {
        let bytes = around(kind, &body);
        let answer = Control::decode(&bytes);
        prop_assert_eq!(answer.err(), first_fault(&bytes));
        if let Ok(control) = answer {
            prop_assert!(control.labels().count() <= MAX_LABELS);
            prop_assert_ne!(format!("{control:?}"), "");
        }
    }

    #[test]
    fn damage_is_reported_before_what_it_damaged(
        body in body(), place in any::<Index>(), flip in 1..=u8::MAX,
    ) {
        let mut bytes = around(1, &body);
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        prop_assert_eq!(Control::decode(&bytes).err(), first_fault(&bytes));
    }

    #[test]
    fn a_cut_or_longer_datagram_is_a_bad_length(
        said in said(), cut in any::<Index>(), more in vec(any::<u8>(), 1..64),
    ) {
        let mut out = [0; MAX_CONTROL_LEN];
        let wire = said.encode(&mut out);
        for bytes in [&wire[..cut.index(wire.len())], &[&wire[..], &more].concat()] {
            let error = Control::decode(bytes).unwrap_err();
            prop_assert_eq!(error, DecodeError::BadLength { actual: bytes.len() });
        }
    }

    #[test]
    fn unknown_tags_are_passed_over(
        said in said(), tag in 18..=u8::MAX, value in vec(any::<u8>(), 0..30), place in any::<Index>(),
    ) {
        let mut out = [0; MAX_CONTROL_LEN];
        let wire = said.encode(&mut out);
        let body = &wire[28..wire.len() - 4];
        let mut starts = vec![0];
        while let Some(len) = body.get(starts[starts.len() - 1] + 1) {
            starts.push(starts[starts.len() - 1] + 2 + usize::from(*len));
        }
        let (before, behind) = body.split_at(starts[place.index(starts.len())]);
        let more = around(1, &[before, &entry_bytes(&(tag, value)), behind].concat());
        prop_assume!(more.len() <= MAX_CONTROL_LEN);

        let head = |bytes: &[u8]| bytes[..24].to_vec();
        let mut with_its_head = [&head(&wire)[..], &more[24..more.len() - 4]].concat();
        let checksum = crc32c::checksum(&with_its_head);
        with_its_head.extend(checksum.to_le_bytes());
        let control = Control::decode(&with_its_head).unwrap();
        prop_assert_eq!(format!("{:?}", Said::of(&control)), format!("{said:?}"));
    }

    #[test]
    fn what_was_parsed_parses_again(name in "\\PC{0,70}", label in "\\PC{0,280}") {
        if let Ok(parsed) = AgentName::parse(&name) {
            prop_assert_eq!(parsed.as_str(), name);
        }
        if let Ok(parsed) = Label::parse(&label) {
            prop_assert_eq!(parsed.to_string(), label);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_is_always_an_error(said in said()) {
        let mut out = [0; MAX_CONTROL_LEN];
        let wire = said.encode(&mut out);
        for bit in 0..8 * wire.len() {
            let mut bytes = wire.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Control::decode(&bytes).is_err(), "bit {bit}");
        }
    }
}

/// The minimal valid body.
const SESSION: [u8; 18] = [1, 16, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];

fn fault(body: &[u8]) -> Option<DecodeError> {
    Control::decode(&around(1, body)).err()
}

#[test]
fn a_length_that_a_beat_has_is_padded_away() {
    let len_with_name_of = |len: usize| {
        let name = AgentName::parse(&"x".repeat(len)).unwrap();
        let mut out = [0; MAX_CONTROL_LEN];
        Hello { name: Some(&name), ..Hello::new(2, 0, 0, [7; 16]) }.encode(&mut out).len()
    };
    let lengths = [7, 8, 9, 10, 11, 12, 13, 14].map(len_with_name_of);
    assert_eq!(lengths, [59, 62, 61, 62, 63, 66, 65, 66]);
}

#[test]
fn the_fullest_hello_has_the_greatest_length() {
    let name = AgentName::parse(&"x".repeat(AgentName::MAX_LEN)).unwrap();
    let value = "x".repeat(Label::MAX_LEN - 2);
    let mut labels = LabelSet::new();
    labels.push(Label::new("a", &value).unwrap()).unwrap();
    labels.push(Label::new("b", &value[..LabelSet::ROOM - 257 - 4]).unwrap()).unwrap();
    let hello = Hello {
        name: Some(&name),
        interval_ms: Some(1),
        stall_after_ms: Some(2),
        labels: &labels,
        unsent: Some(3),
        busy_for_ms: Some(4),
        no_progress_after_ms: Some(5),
        ..Hello::new(2, 0, 0, [7; 16])
    };
    let mut out = [0; MAX_CONTROL_LEN];
    assert_eq!(hello.encode(&mut out).len(), MAX_CONTROL_LEN);
    assert!(Control::decode(&out).is_ok());
}

#[test]
fn a_ninth_label_or_a_key_that_is_there_already_is_a_bad_body() {
    let labels = |texts: &[&str]| {
        let mut body = SESSION.to_vec();
        for text in texts {
            body.extend(entry_bytes(&(5, text.as_bytes().to_vec())));
        }
        fault(&body)
    };
    assert_eq!(labels(&["a=", "b=", "c=", "d=", "e=", "f=", "g=", "h="]), None);
    assert_eq!(labels(&["a=", "b=", "c=", "d=", "e=", "f=", "g=", "h=", "i="]), Some(DecodeError::BadBody));
    assert_eq!(labels(&["a=1", "b=1", "a=2"]), Some(DecodeError::BadBody));
}

#[test]
fn a_value_of_a_wrong_length_is_a_bad_body() {
    let lengths = [(1, 16), (3, 4), (4, 4), (6, 8), (7, 1), (8, 4), (12, 8), (13, 8), (15, 4), (16, 0)];
    for (tag, right) in lengths {
        for len in 0..20 {
            let body = [&SESSION[..], &entry_bytes(&(tag, vec![0; len]))].concat();
            let expected = (len != right).then_some(DecodeError::BadBody);
            assert_eq!(fault(&body), expected, "tag {tag} with {len} bytes");
        }
    }
}

#[test]
fn what_comes_again_counts_as_it_came_first() {
    let mut body = SESSION.to_vec();
    for (tag, value) in [(2, &b"one"[..]), (3, &[1, 0, 0, 0]), (7, &[9])] {
        body.extend(entry_bytes(&(tag, value.to_vec())));
    }
    for (tag, value) in [(1, &[8; 16][..]), (2, b"two"), (3, &[2, 0, 0, 0]), (7, &[1])] {
        body.extend(entry_bytes(&(tag, value.to_vec())));
    }
    let bytes = around(2, &body);
    let control = Control::decode(&bytes).unwrap();
    assert_eq!((control.session(), control.interval_ms()), ([7; 16], Some(1)));
    assert_eq!(control.name().map(AgentName::as_str), Some("one"));
    assert_eq!(control.reason(), None, "a reason of a later version");
}

#[test]
fn the_two_reserved_bytes_are_not_looked_at() {
    let mut bytes = around(1, &SESSION);
    bytes[26] = 0xff;
    let covered = bytes.len() - 4;
    let checksum = crc32c::checksum(&bytes[..covered]);
    bytes[covered..].copy_from_slice(&checksum.to_le_bytes());
    assert!(Control::decode(&bytes).is_ok());
}

#[test]
fn an_empty_body_has_no_session_id() {
    assert_eq!(fault(&[]), Some(DecodeError::BadBody));
    assert_eq!(fault(&SESSION), None);
}

#[test]
fn debug_shows_every_field() {
    let name = AgentName::parse("billing-worker").unwrap();
    let labels = label_set([Label::new("zone", "a").unwrap()]);
    let mut out = [0; MAX_CONTROL_LEN];
    let hello = Hello { name: Some(&name), labels: &labels, ..Hello::new(4242, 5, 6, [0xd1; 16]) };
    let shown = format!("{:?}", Control::decode(hello.encode(&mut out).as_bytes()).unwrap());
    assert_eq!(
        shown,
        "Control { kind: Hello, pid: 4242, timestamp: 5, nonce: 6, session: d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1, \
         name: Some(\"billing-worker\"), interval_ms: None, stall_after_ms: None, labels: {\"zone\": \"a\"}, \
         unsent: None, reason: None, busy_for_ms: None, no_progress_after_ms: None, event: None, declaration: None, said: None, child: None }"
    );
}
