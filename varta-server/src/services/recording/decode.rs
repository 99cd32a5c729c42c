//! Decodes records from untrusted bytes.

use std::mem;
use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::control::{AgentName, GoodbyeReason, ReportEvent};
use varta_proto::{Frame, NONCE_TERMINAL, Status};

use crate::base::time::MonoTime;
use crate::domain::beat::{
    ControlMessage, Hello, KeepAlives, Notification, ReceivedBeat, ReceivedControl, Sender, Transport,
};
use crate::domain::labels::Labels;
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::process::{ExitStatus, Lineage, PidfdTag, ProcessId};
use crate::domain::report::Report;
use crate::domain::tracker::{AgentId, Twin};
use crate::engine::InputRecord;
use crate::services::recording::format::{
    Block, Fields, FormatError, MAX_NAME_LEN, TEXT, TEXT_AT, check, end, event, flag, kind,
};

/// Assembles records from blocks in sequence.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The collected part of the name of the next record.
    name: Vec<u8>,
}

impl Decoder {
    /// Decodes the next block; `None` when it is a part of the next record's name.
    ///
    /// # Errors
    ///
    /// Why the block is invalid here. The collected part of a name is discarded.
    pub(crate) fn decode(&mut self, block: &Block) -> Result<Option<InputRecord>, FormatError> {
        let name = mem::take(&mut self.name);
        check(block)?;
        let fields = Fields::get(block);
        if fields.kind == kind::NAME {
            self.name = extended(name, block, usize::from(fields.detail))?;
            return Ok(None);
        }
        let has_name = matches!(fields.kind, kind::HELLO | kind::PROCESS | kind::FORGET | kind::REPORT)
            && fields.has(flag::NAME);
        if has_name == name.is_empty() {
            return Err(FormatError::Name);
        }
        record(&fields, name).map(Some)
    }
}

fn extended(mut name: Vec<u8>, block: &Block, length: usize) -> Result<Vec<u8>, FormatError> {
    if length == 0 || length > TEXT || name.len() + length > MAX_NAME_LEN {
        return Err(FormatError::Name);
    }
    name.extend(&block[TEXT_AT..TEXT_AT + length]);
    Ok(name)
}

fn record(fields: &Fields, name: Vec<u8>) -> Result<InputRecord, FormatError> {
    let at = MonoTime::from_nanos(fields.at);
    let [first, second] = fields.numbers();
    let pid = fields.pid;
    Ok(match fields.kind {
        kind::BEAT => {
            let (sender, frame) = (fields.sender()?, frame(fields)?);
            InputRecord::Beat(ReceivedBeat { received_at: at, sender, frame })
        }
        kind::HELLO => {
            let said = ControlMessage::Hello(introduction(fields, name)?);
            InputRecord::Control(ReceivedControl { received_at: at, sender: fields.sender()?, said })
        }
        kind::GOODBYE => {
            let reason = GoodbyeReason::from_u8(fields.detail).filter(|_| fields.has(flag::REASON));
            if fields.has(flag::REASON) && reason.is_none() {
                return Err(FormatError::Value { what: "reason of a goodbye", found: fields.detail.into() });
            }
            let said = ControlMessage::Goodbye { nonce: fields.nonce, timestamp: fields.timestamp, reason };
            InputRecord::Control(ReceivedControl { received_at: at, sender: fields.sender()?, said })
        }
        kind::ATTACH => InputRecord::Control(ReceivedControl {
            received_at: at,
            sender: fields.sender()?,
            said: ControlMessage::Attach,
        }),
        kind::NOTIFICATION => InputRecord::Control(ReceivedControl {
            received_at: at,
            sender: fields.sender()?,
            said: ControlMessage::Notification(notification(fields)?),
        }),
        kind::REPORT => InputRecord::Control(ReceivedControl {
            received_at: at,
            sender: fields.sender()?,
            said: ControlMessage::Report(report(fields, name)?),
        }),
        kind::PROCESS => InputRecord::Process { pid, identity: identity(fields, name)? },
        kind::BLIND => InputRecord::Blind { from: MonoTime::from_nanos(first), to: at },
        kind::LOSS => {
            let transport = Transport::ALL.get(usize::from(fields.way)).copied();
            let unknown = FormatError::Value { what: "transport", found: fields.way.into() };
            InputRecord::Loss { transport: transport.ok_or(unknown)?, at }
        }
        kind::DEATH => InputRecord::Exit {
            pid,
            process: process(pid, first, fields.timestamp)?,
            death: death(fields)?,
            lineage: lineage(fields.nonce)?,
            noticed_at: MonoTime::from_nanos(second),
            at,
        },
        kind::ABSENCE => {
            let process = process(pid, first, second)?;
            InputRecord::Absence { pid, process, death: death(fields)?, at }
        }
        kind::FORGET => InputRecord::Forget { agent: agent(fields, name)?, at },
        kind::GAP => InputRecord::Gap { from: MonoTime::from_nanos(first), to: at, records: second },
        kind::END => InputRecord::End { at },
        unknown => return Err(FormatError::Kind(unknown)),
    })
}

/// The process that had a pid; `None` where its start was not known.
fn process(pid: u32, start_time: u64, number: u64) -> Result<Option<ProcessId>, FormatError> {
    let tag = tag(number)?;
    Ok(NonZeroU64::new(start_time).map(|start_time| ProcessId { pid, start_time, tag }))
}

/// A frame that the listeners would accept.
fn frame(fields: &Fields) -> Result<Frame, FormatError> {
    let Fields { pid, timestamp, nonce, short: payload, detail, .. } = *fields;
    let status = match Status::from_u8(detail) {
        Some(status @ (Status::Ok | Status::Degraded | Status::Critical)) => status,
        Some(Status::Stall) | None => {
            return Err(FormatError::Value { what: "status of a beat", found: detail.into() });
        }
    };
    if timestamp == u64::MAX {
        return Err(FormatError::Value { what: "timestamp of a beat", found: timestamp });
    }
    if nonce == NONCE_TERMINAL && status != Status::Critical {
        return Err(FormatError::Value { what: "nonce of such a beat", found: nonce });
    }
    Ok(Frame { status, pid, timestamp, nonce, payload })
}

fn notification(fields: &Fields) -> Result<Notification, FormatError> {
    let [within, busy_for] = fields.numbers().map(Duration::from_nanos);
    let keep_alives = match fields.flags & (flag::UNAWAITED | flag::STALL_AFTER | flag::INTERVAL) {
        0 => None,
        flag::UNAWAITED => Some(KeepAlives::Unawaited),
        flag::STALL_AFTER => Some(KeepAlives::Within(within)),
        flag::INTERVAL => Some(KeepAlives::Every(within)),
        other => return Err(FormatError::Value { what: "kind of keep-alives", found: other.into() }),
    };
    Ok(Notification {
        frame: frame(fields)?,
        is_beat: fields.has(flag::BEAT),
        keep_alives,
        busy_for: fields.has(flag::BUSY_FOR).then_some(busy_for),
        status: None,
        is_goodbye: fields.has(flag::LEAVES),
        is_derived: false,
    })
}

fn report(fields: &Fields, name: Vec<u8>) -> Result<Report, FormatError> {
    let status = u8::try_from(fields.short)
        .map_err(|_| FormatError::Value { what: "status of a failure", found: fields.short.into() })?;
    let event = match fields.detail {
        event::BEAT => ReportEvent::Beat,
        event::STARTED => ReportEvent::Started,
        event::ENDED => ReportEvent::Ended,
        event::FAILED => ReportEvent::Failed { status: fields.has(flag::STATUS).then_some(status) },
        event::DECLARED => ReportEvent::Declared,
        other => return Err(FormatError::Value { what: "event of a report", found: other.into() }),
    };
    Ok(Report {
        name: AgentName::parse(&text(name)?).map_err(|_| FormatError::Name)?,
        event,
        stall_after: fields.has(flag::STALL_AFTER).then(|| Duration::from_millis(fields.nonce)),
        declared: None,
    })
}

fn introduction(fields: &Fields, name: Vec<u8>) -> Result<Hello, FormatError> {
    let name = match text(name)? {
        name if name.is_empty() => None,
        name => Some(AgentName::parse(&name).map_err(|_| FormatError::Name)?),
    };
    let time = |flag, millis: u64| match u32::try_from(millis) {
        _ if !fields.has(flag) => Ok(None),
        Ok(millis) => Ok(Some(Duration::from_millis(millis.into()))),
        Err(_) => Err(FormatError::Value { what: "time that an agent can ask for", found: millis }),
    };
    Ok(Hello {
        name,
        interval: time(flag::INTERVAL, fields.short.into())?,
        stall_after: time(flag::STALL_AFTER, fields.nonce)?,
        busy_for: time(flag::BUSY_FOR, fields.timestamp & u64::from(u32::MAX))?,
        no_progress_after: time(flag::NO_PROGRESS_AFTER, fields.timestamp >> 32)?,
        // Labels influence no verdict, and are not recorded.
        labels: Labels::default(),
        uid: None,
    })
}

fn identity(fields: &Fields, name: Vec<u8>) -> Result<Option<ProcessIdentity>, FormatError> {
    let [started, number] = fields.numbers();
    let tag = tag(number)?;
    let name = text(name)?;
    let is_group = fields.has(flag::GROUP);
    let lineage = lineage(fields.nonce)?;
    Ok(NonZeroU64::new(started).map(|start_time| ProcessIdentity {
        start_time,
        tag,
        name,
        is_group,
        is_unit: false,
        // It influences no verdict, and is not recorded.
        place: None,
        lineage,
        has_ended: fields.has(flag::ENDED),
    }))
}

/// A recording of version 1 has none.
fn tag(number: u64) -> Result<PidfdTag, FormatError> {
    let unknown = FormatError::Value { what: "tag of a process", found: number };
    u16::try_from(number).map(|number| PidfdTag::of_inode(number.into())).map_err(|_| unknown)
}

/// An agent that was forgotten.
fn agent(fields: &Fields, name: Vec<u8>) -> Result<AgentId, FormatError> {
    let unknown = FormatError::Value { what: "number of a twin", found: fields.detail.into() };
    let Sender { origin, pid, .. } = fields.sender()?;
    let twin = Twin::from_number(fields.detail).ok_or(unknown)?;
    Ok(AgentId { name: text(name)?.into(), origin, pid, twin })
}

/// A recording of an earlier version has none.
fn lineage(command: u64) -> Result<Lineage, FormatError> {
    let unknown = FormatError::Value { what: "lineage", found: command };
    u32::try_from(command).map(|command| Lineage { command }).map_err(|_| unknown)
}

fn text(name: Vec<u8>) -> Result<String, FormatError> {
    String::from_utf8(name).map_err(|_| FormatError::Name)
}

fn death(fields: &Fields) -> Result<ExitStatus, FormatError> {
    let byte = u8::try_from(fields.short);
    match (fields.detail, byte) {
        (end::UNKNOWN, _) => Ok(ExitStatus::Unknown),
        (end::EXITED, Ok(code)) => Ok(ExitStatus::Exited { code }),
        (end::KILLED, Ok(signal)) => {
            Ok(ExitStatus::Killed { signal, core_dumped: fields.has(flag::CORE_DUMPED) })
        }
        (end::EXITED | end::KILLED, Err(_)) => {
            Err(FormatError::Value { what: "status of an end", found: fields.short.into() })
        }
        (other, _) => Err(FormatError::Value { what: "end of a process", found: other.into() }),
    }
}
