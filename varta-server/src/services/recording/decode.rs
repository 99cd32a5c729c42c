//! Decodes records from untrusted bytes.

use std::mem;
use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::control::{AgentName, GoodbyeReason};
use varta_proto::{Frame, NONCE_TERMINAL, Status};

use crate::base::time::MonoTime;
use crate::domain::beat::{Introduction, ReceivedBeat, ReceivedControl, Said, Transport};
use crate::domain::labels::Labels;
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::process::{Death, ProcessId};
use crate::engine::Record;
use crate::services::recording::format::{
    Block, Fault, Fields, LONGEST_NAME, TEXT, TEXT_AT, check, end, flag, kind,
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
    pub(crate) fn decode(&mut self, block: &Block) -> Result<Option<Record>, Fault> {
        let name = mem::take(&mut self.name);
        check(block)?;
        let fields = Fields::get(block);
        if fields.kind == kind::NAME {
            self.name = extended(name, block, usize::from(fields.detail))?;
            return Ok(None);
        }
        let has_name = matches!(fields.kind, kind::HELLO | kind::PROCESS) && fields.has(flag::NAME);
        if has_name == name.is_empty() {
            return Err(Fault::Name);
        }
        record(&fields, name).map(Some)
    }
}

fn extended(mut name: Vec<u8>, block: &Block, length: usize) -> Result<Vec<u8>, Fault> {
    if length == 0 || length > TEXT || name.len() + length > LONGEST_NAME {
        return Err(Fault::Name);
    }
    name.extend(&block[TEXT_AT..TEXT_AT + length]);
    Ok(name)
}

fn record(fields: &Fields, name: Vec<u8>) -> Result<Record, Fault> {
    let at = MonoTime::from_nanos(fields.at);
    let [first, second] = fields.numbers();
    let pid = fields.pid;
    Ok(match fields.kind {
        kind::BEAT => {
            let (sender, frame) = (fields.sender()?, frame(fields)?);
            Record::Beat(ReceivedBeat { received_at: at, sender, frame })
        }
        kind::HELLO => {
            let said = Said::Hello(introduction(fields, name)?);
            Record::Control(ReceivedControl { received_at: at, sender: fields.sender()?, said })
        }
        kind::GOODBYE => {
            let reason = GoodbyeReason::from_u8(fields.detail).filter(|_| fields.has(flag::REASON));
            if fields.has(flag::REASON) && reason.is_none() {
                return Err(Fault::Value { what: "reason of a goodbye", found: fields.detail.into() });
            }
            let said = Said::Goodbye { nonce: fields.nonce, timestamp: fields.timestamp, reason };
            Record::Control(ReceivedControl { received_at: at, sender: fields.sender()?, said })
        }
        kind::ATTACH => {
            Record::Control(ReceivedControl { received_at: at, sender: fields.sender()?, said: Said::Attach })
        }
        kind::PROCESS => Record::Process { pid, identity: identity(fields, name)? },
        kind::BLIND => Record::Blind { from: MonoTime::from_nanos(first), to: at },
        kind::LOSS => {
            let transport = Transport::ALL.get(usize::from(fields.way)).copied();
            let unknown = Fault::Value { what: "transport", found: fields.way.into() };
            Record::Loss { transport: transport.ok_or(unknown)?, at }
        }
        kind::DEATH => Record::Death {
            process: ProcessId { pid, start_time: start_time(first)? },
            death: death(fields)?,
            noticed_at: MonoTime::from_nanos(second),
            at,
        },
        kind::ABSENCE => Record::Absence { pid, at },
        kind::GAP => Record::Gap { from: MonoTime::from_nanos(first), to: at, records: second },
        kind::END => Record::End { at },
        unknown => return Err(Fault::Kind(unknown)),
    })
}

/// A frame that the listeners would accept.
fn frame(fields: &Fields) -> Result<Frame, Fault> {
    let Fields { pid, timestamp, nonce, short: payload, detail, .. } = *fields;
    let status = match Status::from_u8(detail) {
        Some(status @ (Status::Ok | Status::Degraded | Status::Critical)) => status,
        Some(Status::Stall) | None => {
            return Err(Fault::Value { what: "status of a beat", found: detail.into() });
        }
    };
    if timestamp == u64::MAX {
        return Err(Fault::Value { what: "timestamp of a beat", found: timestamp });
    }
    if nonce == NONCE_TERMINAL && status != Status::Critical {
        return Err(Fault::Value { what: "nonce of such a beat", found: nonce });
    }
    Ok(Frame { status, pid, timestamp, nonce, payload })
}

fn introduction(fields: &Fields, name: Vec<u8>) -> Result<Introduction, Fault> {
    let name = match text(name)? {
        name if name.is_empty() => None,
        name => Some(AgentName::parse(&name).map_err(|_| Fault::Name)?),
    };
    let time = |flag, millis: u64| match u32::try_from(millis) {
        _ if !fields.has(flag) => Ok(None),
        Ok(millis) => Ok(Some(Duration::from_millis(millis.into()))),
        Err(_) => Err(Fault::Value { what: "time that an agent can ask for", found: millis }),
    };
    Ok(Introduction {
        name,
        interval: time(flag::INTERVAL, fields.short.into())?,
        stall_after: time(flag::STALL_AFTER, fields.nonce)?,
        busy_for: time(flag::BUSY_FOR, fields.timestamp)?,
        // Labels influence no verdict, and are not recorded.
        labels: Labels::default(),
    })
}

fn identity(fields: &Fields, name: Vec<u8>) -> Result<Option<ProcessIdentity>, Fault> {
    let [started, _] = fields.numbers();
    let name = text(name)?;
    let is_group = fields.has(flag::GROUP);
    Ok(NonZeroU64::new(started).map(|start_time| ProcessIdentity {
        start_time,
        name,
        is_group,
        is_unit: false,
    }))
}

fn text(name: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(name).map_err(|_| Fault::Name)
}

fn start_time(ticks: u64) -> Result<NonZeroU64, Fault> {
    NonZeroU64::new(ticks).ok_or(Fault::Value { what: "start of a process", found: ticks })
}

fn death(fields: &Fields) -> Result<Death, Fault> {
    let byte = u8::try_from(fields.short);
    match (fields.detail, byte) {
        (end::UNKNOWN, _) => Ok(Death::Unknown),
        (end::EXITED, Ok(code)) => Ok(Death::Exited { code }),
        (end::KILLED, Ok(signal)) => Ok(Death::Killed { signal, core_dumped: fields.has(flag::CORE_DUMPED) }),
        (end::EXITED | end::KILLED, Err(_)) => {
            Err(Fault::Value { what: "status of an end", found: fields.short.into() })
        }
        (other, _) => Err(Fault::Value { what: "end of a process", found: other.into() }),
    }
}
