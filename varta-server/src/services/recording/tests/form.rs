//! Tests of the format of recordings, also with hostile input.

use std::num::NonZeroU64;

use proptest::prelude::*;
use varta_proto::control::{AgentName, GoodbyeReason};
use varta_proto::crc32c;

use crate::domain::beat::{
    ControlMessage, Hello, KeepAlives, KeyId, Notification, Origin, ReceivedControl, Transport,
};
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::process::{ExitStatus, Lineage, PidfdTag, ProcessId};
use crate::domain::tracker::{AgentId, Twin};
use crate::services::recording::decode::Decoder;
use crate::services::recording::format::{Block, FormatError};
use crate::services::recording::tests::*;

fn blocks(bytes: &[u8]) -> impl Iterator<Item = Block> + '_ {
    bytes.chunks(LENGTH).map(|block| block.try_into().unwrap())
}

fn decode(bytes: &[u8]) -> Result<Vec<InputRecord>, FormatError> {
    let mut decoder = Decoder::default();
    blocks(bytes).filter_map(|block| decoder.decode(&block).transpose()).collect()
}

fn encoded(records: &[InputRecord]) -> Vec<u8> {
    bytes(records).split_off(LENGTH)
}

fn control(said: ControlMessage) -> InputRecord {
    let sender = Sender::secure_udp("[fd00::1]:4000".parse().unwrap(), PID, KeyId(3));
    InputRecord::Control(ReceivedControl { received_at: at(9), sender, said })
}

fn service(
    is_beat: bool,
    keep_alives: Option<KeepAlives>,
    busy_for: Option<Duration>,
    is_goodbye: bool,
) -> InputRecord {
    let InputRecord::Beat(beat) = beat(PID, 1, 2) else { panic!("no beat") };
    let status = None;
    let notification = Notification {
        frame: beat.frame,
        is_beat,
        keep_alives,
        busy_for,
        status,
        is_goodbye,
        is_derived: false,
    };
    InputRecord::Control(ReceivedControl {
        received_at: at(9),
        sender: Sender::notify(PID),
        said: ControlMessage::Notification(notification),
    })
}

fn forget(origin: Origin, name: &str, pid: u32, twin: u8) -> InputRecord {
    let twin = Twin::from_number(twin).unwrap();
    InputRecord::Forget { agent: AgentId { name: name.into(), origin, pid, twin }, at: at(5) }
}

fn process(name: &str) -> InputRecord {
    let start_time = NonZeroU64::new(77).unwrap();
    InputRecord::Process {
        pid: PID,
        identity: Some(ProcessIdentity {
            tag: PidfdTag::of_inode(0xffff),
            start_time,
            name: name.to_owned(),
            is_group: true,
            is_unit: false,
            place: None,
            lineage: Lineage { command: 77 },
            has_ended: true,
        }),
    }
}

/// A record of each kind, in each of its forms.
fn all() -> Vec<InputRecord> {
    let remote = |sender| match beat(PID, u64::MAX, 3) {
        InputRecord::Beat(beat) => {
            let frame = Frame { status: Status::Critical, ..beat.frame };
            InputRecord::Beat(ReceivedBeat { sender, frame, ..beat })
        }
        other => other,
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let whole = Hello {
        name: Some(AgentName::parse(&"n".repeat(AgentName::MAX_LEN)).unwrap()),
        interval: seconds(1),
        stall_after: seconds(5),
        busy_for: seconds(60),
        no_progress_after: seconds(90),
        ..Hello::default()
    };
    let process_id =
        ProcessId { tag: PidfdTag::of_inode(7), ..ProcessId::new(PID, NonZeroU64::new(77).unwrap()) };
    let death_of = |process, death| InputRecord::Exit {
        pid: PID,
        process,
        death,
        lineage: Lineage { command: u32::MAX },
        noticed_at: at(1),
        at: at(2),
    };
    let death = |death| death_of(Some(process_id), death);
    vec![
        beat(PID, 1, 2),
        remote(Sender::udp("10.0.0.1:4000".parse().unwrap(), PID)),
        remote(Sender::secure_udp("[fd00::1]:4000".parse().unwrap(), PID, KeyId(3))),
        control(ControlMessage::Hello(whole)),
        control(ControlMessage::Hello(Hello::default())),
        control(ControlMessage::Hello(Hello { no_progress_after: seconds(0), ..Hello::default() })),
        control(ControlMessage::Hello(Hello { busy_for: seconds(60), ..Hello::default() })),
        control(ControlMessage::Goodbye { nonce: 5, timestamp: 6, reason: Some(GoodbyeReason::Restart) }),
        control(ControlMessage::Goodbye { nonce: 5, timestamp: 6, reason: None }),
        control(ControlMessage::Attach),
        service(true, None, None, false),
        service(true, Some(KeepAlives::Unawaited), None, false),
        service(true, Some(KeepAlives::Within(Duration::from_micros(1))), seconds(9), false),
        service(true, Some(KeepAlives::Every(Duration::from_secs(1))), None, false),
        service(false, None, None, true),
        process("worker"),
        process(""),
        process(&"x".repeat(132)),
        InputRecord::Process { pid: PID, identity: None },
        InputRecord::Blind { from: at(1), to: at(2) },
        InputRecord::Loss { transport: Transport::SecureUdp, at: at(2) },
        death(ExitStatus::Exited { code: 3 }),
        death(ExitStatus::Killed { signal: 9, core_dumped: true }),
        death(ExitStatus::Unknown),
        death_of(None, ExitStatus::Unknown),
        InputRecord::Absence { pid: PID, process: None, death: ExitStatus::Exited { code: 9 }, at: at(3) },
        InputRecord::Absence { pid: PID, process: Some(process_id), death: ExitStatus::Unknown, at: at(3) },
        forget(Origin::Local, "worker", 7, 1),
        forget(Origin::SecureUdp("fd00::1".parse().unwrap()), "", 7, 64),
        forget(Origin::Local, &"x".repeat(132), 0, 1),
        InputRecord::Gap { from: at(1), to: at(2), records: 99 },
        InputRecord::End { at: at(4) },
    ]
}

#[test]
fn what_was_written_is_read_again() {
    assert_eq!(decode(&encoded(&all())), Ok(all()));
    let header = Header { unix_start: 12, stall_after: STALL_AFTER };
    assert_eq!(Header::decode(&header.encode()), Ok(header));
}

#[test]
fn a_name_that_is_too_long_is_cut_where_a_character_ends() {
    let name = "é".repeat(100);
    let cut = name[..132].to_owned();
    assert_eq!(decode(&encoded(&[process(&name)])), Ok(vec![process(&cut)]));
    let odd = format!("x{name}");
    assert_eq!(decode(&encoded(&[process(&odd)])), Ok(vec![process(&odd[..131])]));
}

#[test]
fn a_changed_bit_is_noticed_wherever_it_is() {
    let whole = encoded(&all());
    for bit in 0..whole.len() * 8 {
        let mut changed = whole.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&changed), Err(FormatError::Checksum), "bit {bit}");
    }
}

/// A block with a matching checksum.
fn sealed(mut block: Block) -> Block {
    let checksum = crc32c::checksum(&block[..LENGTH - 4]);
    block[LENGTH - 4..].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// Decodes the first block of a record with one byte changed, and a matching checksum.
fn with_byte(record: &InputRecord, place: usize, value: u8) -> Result<Vec<InputRecord>, FormatError> {
    let mut block = blocks(&encoded(std::slice::from_ref(record))).next().unwrap();
    block[place] = value;
    decode(&sealed(block))
}

#[test]
fn what_makes_no_sense_is_refused_though_its_checksum_fits() {
    let value = |what, found| Err(FormatError::Value { what, found });
    assert_eq!(with_byte(&beat(PID, 1, 1), 0, 99), Err(FormatError::Kind(99)));
    assert_eq!(with_byte(&beat(PID, 1, 1), 1, 9), value("way of a datagram", 9));
    assert_eq!(with_byte(&beat(PID, 1, 1), 2, 4), value("way of a datagram", 0));
    assert_eq!(with_byte(&beat(PID, 1, 1), 2, 5), value("family of an address", 5));
    assert_eq!(with_byte(&beat(PID, 1, 1), 3, 3), value("status of a beat", 3));
    let terminal = beat(PID, u64::MAX, 1);
    assert_eq!(with_byte(&terminal, 3, 1), value("nonce of such a beat", u64::MAX));
    let loss = InputRecord::Loss { transport: Transport::Unix, at: at(1) };
    assert_eq!(with_byte(&loss, 1, 77), value("transport", 77));
    let goodbye =
        control(ControlMessage::Goodbye { nonce: 1, timestamp: 1, reason: Some(GoodbyeReason::Shutdown) });
    assert_eq!(with_byte(&goodbye, 3, 200), value("reason of a goodbye", 200));
    let id = ProcessId::new(PID, NonZeroU64::new(77).unwrap());
    assert_eq!(with_byte(&forget(Origin::Local, "", 7, 1), 3, 65), value("number of a twin", 65));
    let death = InputRecord::Exit {
        pid: PID,
        process: Some(id),
        death: ExitStatus::Unknown,
        lineage: Lineage::default(),
        noticed_at: at(1),
        at: at(1),
    };
    assert_eq!(with_byte(&death, 3, 7), value("end of a process", 7));
}

#[test]
fn a_name_belongs_to_the_record_that_follows() {
    let named = encoded(&[process("worker")]);
    let (name, owner) = named.split_at(LENGTH);
    assert_eq!(decode(owner), Err(FormatError::Name), "without its name");
    assert_eq!(decode(&[name, &encoded(&[beat(PID, 1, 1)])].concat()), Err(FormatError::Name), "of a beat");
    assert_eq!(decode(&[name, name, name, name, owner].concat()).map(|records| records.len()), Ok(1));
    let long = encoded(&[process(&"x".repeat(44))]);
    let (part, owner) = long.split_at(LENGTH);
    assert_eq!(decode(&[part, part, part, part, owner].concat()), Err(FormatError::Name), "without end");
    let mut wrong: Block = part.try_into().unwrap();
    wrong[16] = 0xff;
    assert_eq!(decode(&[&sealed(wrong), owner].concat()), Err(FormatError::Name), "no text");
    wrong[3] = 45;
    assert_eq!(
        decode(&[&sealed(wrong), owner].concat()),
        Err(FormatError::Name),
        "longer than there is room"
    );
}

#[test]
fn a_file_of_another_kind_or_version_is_told_from_a_broken_one() {
    let block = Header { unix_start: 1, stall_after: STALL_AFTER }.encode();
    let with = |place: usize, value: u8| {
        let mut block = block;
        block[place] = value;
        Header::decode(&block)
    };
    assert_eq!(with(0, b'v'), Err(FormatError::NotARecording));
    assert_eq!(
        [0, 6].map(|version| with(8, version)),
        [0, 6].map(|found| Err(FormatError::Version { found }))
    );
    assert_eq!(with(8, 1), Err(FormatError::Checksum), "version 1 is read");
    assert_eq!(with(30, 1), Err(FormatError::Checksum));
}

proptest! {
    /// A block with a valid checksum and arbitrary content decodes to a record or an error, and a record can
    /// be encoded.
    #[test]
    fn no_block_does_any_harm(kind in 0_u8..16, rest in prop::collection::vec(any::<u8>(), LENGTH - 5)) {
        let mut block = [0; LENGTH];
        block[0] = kind;
        block[1..LENGTH - 4].copy_from_slice(&rest);
        if let Ok(records) = decode(&sealed(block)) {
            prop_assert_eq!(decode(&encoded(&records)), Ok(records));
        }
    }
}
