//! What an accepted datagram carries: a beat, a control message, or the announcement of a shared memory page.

use std::num::NonZeroU32;
use std::time::Duration;

use varta_proto::control::{CONTROL_MAGIC, Control, ControlKind, ReportEvent};
use varta_proto::{DecodeError, FRAME_LEN, Frame};

use crate::base::visible::visible_text;
use crate::domain::beat::{ControlMessage, Hello};
use crate::domain::job::DeclaredJob;
use crate::domain::report::Report;

/// The decoded content of a datagram from an authenticated sender.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Beat(Frame),
    Control(ControlMessage),
    /// A report about a name. It is a message only where the kernel attests the user who sends it.
    Report(Box<Report>),
    /// A descriptor of a shared memory page comes along, whose frames will carry this pid.
    Attach {
        pid: u32,
    },
}

impl Message {
    /// Decodes a plaintext datagram. A datagram of a beat's length is always decoded as a beat.
    pub(super) fn decode(payload: &[u8]) -> Result<(u32, Message), DecodeError> {
        if payload.len() != FRAME_LEN && payload.starts_with(&CONTROL_MAGIC) {
            let control = Control::decode(payload)?;
            return Ok((control.pid(), Message::of(&control)?));
        }
        let frame = Frame::decode(payload)?;
        Ok((frame.pid, Message::Beat(frame)))
    }

    /// Decodes a report. One with words is about the agent that its sender is.
    pub(super) fn decode_report(payload: &[u8]) -> Result<(u32, Message), DecodeError> {
        let control = Control::decode(payload)?;
        // An event of a later version is no word of this one's.
        let (Some(name), Some(event)) = (control.name(), control.event()) else {
            return Err(DecodeError::BadBody);
        };
        if event == ReportEvent::Said {
            let said = control.said().ok_or(DecodeError::BadBody)?;
            let child = control.child().and_then(NonZeroU32::new);
            let said = ControlMessage::Said { words: visible_text(said).into(), child };
            return Ok((control.pid(), Message::Control(said)));
        }
        let stall_after = control.stall_after_ms().map(|millis| Duration::from_millis(u64::from(millis)));
        let millis = |millis: Option<u64>| millis.map(Duration::from_millis);
        let declared = control.declaration().map(|declaration| DeclaredJob {
            schedule: declaration.schedule().into(),
            timezone: declaration.timezone().map(Into::into),
            grace: millis(declaration.grace_ms),
            longest_run: millis(declaration.longest_run_ms),
            alarm_on_overlap: declaration.alarm_on_overlap,
        });
        let report = Report { name: *name, event, stall_after, declared };
        Ok((control.pid(), Message::Report(Box::new(report))))
    }

    /// Converts a control datagram that is neither an Attach nor a Report: both are for processes of this host.
    pub(super) fn of(control: &Control<'_>) -> Result<Self, DecodeError> {
        let duration = |millis: Option<u32>| millis.map(|millis| Duration::from_millis(u64::from(millis)));
        Ok(Message::Control(match control.kind() {
            ControlKind::Hello => ControlMessage::Hello(Hello {
                name: control.name().copied(),
                interval: duration(control.interval_ms()),
                stall_after: duration(control.stall_after_ms()),
                busy_for: duration(control.busy_for_ms()),
                labels: control.labels().map(|label| (label.key(), label.value())).collect(),
                no_progress_after: duration(control.no_progress_after_ms()),
                uid: None,
            }),
            ControlKind::Goodbye => ControlMessage::Goodbye {
                nonce: control.nonce(),
                timestamp: control.timestamp(),
                reason: control.reason(),
            },
            other => return Err(DecodeError::BadKind { actual: other as u8 }),
        }))
    }
}
