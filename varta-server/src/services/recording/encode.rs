//! Encodes records to blocks of 64 bytes, the inverse of `decode`.

use std::time::Duration;

use varta_proto::Frame;
use varta_proto::control::ReportEvent;

use crate::base::time::{MonoTime, millis, nanos};
use crate::domain::beat::{
    ControlMessage, Hello, KeepAlives, Notification, ReceivedBeat, ReceivedControl, RemoteEndpoint, Sender,
};
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::process::{ExitStatus, ProcessId};
use crate::domain::report::Report;
use crate::domain::tracker::AgentId;
use crate::engine::InputRecord;
use crate::services::recording::format::{
    CRC_AT, Fields, MAX_NAME_LEN, TEXT, TEXT_AT, close, end, event, flag, kind,
};

/// Appends a record: one block, after the blocks of its name if it has one.
pub(crate) fn encode(record: &InputRecord, out: &mut Vec<u8>) {
    match record {
        InputRecord::Beat(beat) => encode_beat(beat, out),
        InputRecord::Control(control) => encode_control(control, out),
        InputRecord::Process { pid, identity } => {
            let mut fields = Fields { pid: *pid, ..Fields::of(kind::PROCESS, MonoTime::START) };
            if let Some(ProcessIdentity {
                start_time,
                tag,
                name,
                is_group,
                is_unit: _,
                place: _,
                lineage,
                has_ended,
            }) = identity
            {
                put_name(name, out);
                fields = fields.with(start_time.get(), tag.number().into());
                fields.nonce = lineage.command.into();
                let flags =
                    [(!name.is_empty(), flag::NAME), (*is_group, flag::GROUP), (*has_ended, flag::ENDED)];
                fields.flags =
                    flags.iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, bit)| flags | bit);
            }
            fields.put(out);
        }
        InputRecord::Blind { from, to } => Fields::of(kind::BLIND, *to).with(from.as_nanos(), 0).put(out),
        InputRecord::Loss { transport, at } => {
            let way = u8::try_from(transport.index()).expect("there are few transports");
            Fields { way, ..Fields::of(kind::LOSS, *at) }.put(out);
        }
        InputRecord::Exit { pid, process, death, lineage, noticed_at, at } => {
            let (start, tag) = start_and_tag(*process);
            let fields = Fields::of(kind::DEATH, *at).with(start, noticed_at.as_nanos());
            let (nonce, timestamp) = (lineage.command.into(), tag);
            Fields { pid: *pid, nonce, timestamp, ..fields }.of_death(*death).put(out);
        }
        InputRecord::Absence { pid, process, death, at } => {
            let (start, tag) = start_and_tag(*process);
            let fields = Fields::of(kind::ABSENCE, *at).with(start, tag);
            Fields { pid: *pid, ..fields }.of_death(*death).put(out);
        }
        InputRecord::Forget { agent: AgentId { name, origin, pid, twin }, at } => {
            put_name(name, out);
            let sender = Sender { origin: *origin, pid: *pid, lane: RemoteEndpoint::default() };
            let flags = if name.is_empty() { 0 } else { flag::NAME };
            let fields = Fields::of_sender(kind::FORGET, *at, sender);
            Fields { detail: twin.number(), flags, ..fields }.put(out);
        }
        InputRecord::Gap { from, to, records } => {
            Fields::of(kind::GAP, *to).with(from.as_nanos(), *records).put(out);
        }
        InputRecord::End { at } => Fields::of(kind::END, *at).put(out),
    }
}

/// The start of a process in ticks and its tag; zeros of one that could not be identified.
fn start_and_tag(process: Option<ProcessId>) -> (u64, u64) {
    process.map_or((0, 0), |process| (process.start_time.get(), process.tag.number().into()))
}

pub(crate) fn encode_beat(beat: &ReceivedBeat, out: &mut Vec<u8>) {
    let ReceivedBeat { received_at, sender, frame } = *beat;
    let Frame { status, pid: _, timestamp, nonce, payload } = frame;
    let fields = Fields::of_sender(kind::BEAT, received_at, sender);
    Fields { detail: status as u8, timestamp, nonce, short: payload, ..fields }.put(out);
}

pub(crate) fn encode_control(control: &ReceivedControl, out: &mut Vec<u8>) {
    let ReceivedControl { received_at, sender, ref said } = *control;
    match said {
        ControlMessage::Hello(hello) => {
            let Hello { name, interval, stall_after, busy_for, no_progress_after, labels: _, uid: _ } = hello;
            if let Some(name) = name {
                put_name(name.as_str(), out);
            }
            let times = [
                (flag::INTERVAL, *interval),
                (flag::STALL_AFTER, *stall_after),
                (flag::BUSY_FOR, *busy_for),
                (flag::NO_PROGRESS_AFTER, *no_progress_after),
            ];
            let flags =
                times.iter().filter(|(_, time)| time.is_some()).fold(0, |flags, (flag, _)| flags | flag);
            let [interval, stall_after, busy_for, stands] =
                times.map(|(_, time)| time.map_or(0, millis).min(u32::MAX.into()));
            Fields {
                short: u32::try_from(interval).unwrap_or(u32::MAX),
                nonce: stall_after,
                timestamp: busy_for | stands << 32,
                flags: flags | if name.is_some() { flag::NAME } else { 0 },
                ..Fields::of_sender(kind::HELLO, received_at, sender)
            }
            .put(out);
        }
        ControlMessage::Goodbye { nonce, timestamp, reason } => {
            let fields = Fields::of_sender(kind::GOODBYE, received_at, sender);
            let detail = reason.map_or(0, |reason| reason as u8);
            let flags = if reason.is_some() { flag::REASON } else { 0 };
            Fields { nonce: *nonce, timestamp: *timestamp, detail, flags, ..fields }.put(out);
        }
        // What is declared influences no verdict of a replay, which knows no jobs, and is not recorded.
        ControlMessage::Report(Report { name, event, stall_after, declared: _ }) => {
            put_name(name.as_str(), out);
            let (detail, status) = match event {
                ReportEvent::Started => (event::STARTED, None),
                ReportEvent::Ended => (event::ENDED, None),
                ReportEvent::Failed { status } => (event::FAILED, *status),
                ReportEvent::Declared => (event::DECLARED, None),
                _ => (event::BEAT, None),
            };
            let given = [(stall_after.is_some(), flag::STALL_AFTER), (status.is_some(), flag::STATUS)];
            let flags =
                given.iter().filter(|(is_set, _)| *is_set).fold(flag::NAME, |flags, (_, bit)| flags | bit);
            let fields = Fields::of_sender(kind::REPORT, received_at, sender);
            let (short, nonce) = (status.map_or(0, u32::from), stall_after.map_or(0, millis));
            Fields { detail, short, nonce, flags, ..fields }.put(out);
        }
        // Words influence no verdict, and are not recorded.
        ControlMessage::Said { .. } => {}
        ControlMessage::Attach => Fields::of_sender(kind::ATTACH, received_at, sender).put(out),
        ControlMessage::Notification(notification) => {
            // The status influences no verdict, and is not recorded.
            let Notification { frame, is_beat, keep_alives, busy_for, status: _, is_goodbye, is_derived: _ } =
                notification;
            let (kept, within) = match keep_alives {
                None => (0, Duration::ZERO),
                Some(KeepAlives::Unawaited) => (flag::UNAWAITED, Duration::ZERO),
                Some(KeepAlives::Within(timeout)) => (flag::STALL_AFTER, *timeout),
                Some(KeepAlives::Every(interval)) => (flag::INTERVAL, *interval),
            };
            let given =
                [(*is_beat, flag::BEAT), (*is_goodbye, flag::LEAVES), (busy_for.is_some(), flag::BUSY_FOR)];
            let flags = given.iter().filter(|(is_set, _)| *is_set).fold(kept, |flags, (_, bit)| flags | bit);
            let Frame { status, pid: _, timestamp, nonce, payload } = *frame;
            Fields {
                detail: status as u8,
                timestamp,
                nonce,
                short: payload,
                flags,
                ..Fields::of_sender(kind::NOTIFICATION, received_at, sender)
            }
            .with(nanos(within), busy_for.map_or(0, nanos))
            .put(out);
        }
    }
}

impl Fields {
    fn of_death(self, death: ExitStatus) -> Self {
        let (detail, short, flags) = match death {
            ExitStatus::Unknown => (end::UNKNOWN, 0, 0),
            ExitStatus::Exited { code } => (end::EXITED, code, 0),
            ExitStatus::Killed { signal, core_dumped } => {
                (end::KILLED, signal, if core_dumped { flag::CORE_DUMPED } else { 0 })
            }
        };
        Fields { detail, short: short.into(), flags, ..self }
    }
}

fn put_name(name: &str, out: &mut Vec<u8>) {
    let end = (0..=MAX_NAME_LEN.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    for text in name.as_bytes()[..end.unwrap_or(0)].chunks(TEXT) {
        let begin = out.len();
        let length = u8::try_from(text.len()).expect("a part is shorter than a record");
        out.extend([kind::NAME, 0, 0, length]);
        out.resize(begin + TEXT_AT, 0);
        out.extend(text);
        out.resize(begin + CRC_AT, 0);
        close(out, begin);
    }
}
