//! Admission on a Unix datagram socket: the kernel attests every sender's pid, uid and gid.

use std::ops::Range;
use std::os::fd::OwnedFd;

use varta_proto::control::{CONTROL_MAGIC, Control, ControlKind};
use varta_proto::{DecodeError, FRAME_LEN, crc32c};

use crate::base::time::MonoTime;
use crate::domain::beat::{ControlMessage, Hello, Sender};
use crate::domain::outcome::FrameOutcome;
use crate::ingest::message::Message;
use crate::ingest::namespaces::PidNamespaces;
use crate::ingest::recvmmsg::Datagram;
use crate::ingest::senders::Senders;
use crate::ingest::shm::ShmPages;

/// An agent of ours that is pid 1 of its container may not send that pid; it sends a number with this bit
/// instead, which no pid has.
const NOT_A_PID: u32 = 1 << 31;
/// The bytes of the pid in a frame, and the first byte of its checksum, which covers all bytes before it.
const PID: Range<usize> = 4..8;
const CHECKSUM: usize = FRAME_LEN - 4;
/// The pid that a process 1 of a container may send though no frame may carry it.
const FIRST_PID: u32 = 1;

/// Authenticates and decodes a datagram that was received at `now`. Returns sender and message, or why it is
/// refused.
pub(super) fn judge(
    datagram: &Datagram<'_>,
    senders: &mut Senders,
    namespaces: &mut PidNamespaces,
    now: MonoTime,
) -> Result<(Sender, Message), FrameOutcome> {
    let is_attach = is_control(datagram.payload, ControlKind::Attach);
    // Only an Attach has a descriptor to pass.
    if datagram.extra_ancillary || datagram.has_descriptor && !is_attach {
        return Err(FrameOutcome::Ancillary);
    }
    let credentials =
        datagram.credentials.filter(|credentials| credentials.pid != 0).ok_or(FrameOutcome::Unattested)?;
    if !senders.admit(&credentials, now) {
        return Err(FrameOutcome::UidRefused);
    }
    if datagram.truncated {
        return Err(FrameOutcome::Malformed(DecodeError::BadLength { actual: datagram.payload.len() }));
    }
    let decoded = if is_attach {
        decode_attach(datagram.payload)
    } else if is_control(datagram.payload, ControlKind::Report) {
        Message::decode_report(datagram.payload)
    } else {
        Message::decode(datagram.payload)
    };
    let decoded = match decoded {
        Err(error @ DecodeError::BadPid { actual: FIRST_PID })
            if namespaces.has(credentials.pid, FIRST_PID, now) =>
        {
            with_pid(datagram.payload, credentials.pid).ok_or(error).and_then(|frame| Message::decode(&frame))
        }
        other => other,
    };
    let (pid, message) = decoded.map_err(FrameOutcome::Malformed)?;
    if pid != credentials.pid && pid & NOT_A_PID == 0 && !namespaces.may_have(credentials.pid, pid, now) {
        return Err(FrameOutcome::PidMismatch);
    }
    Ok(match message {
        Message::Report(report) => {
            (Sender::named(credentials.uid), Message::Control(ControlMessage::Report(*report)))
        }
        Message::Control(ControlMessage::Hello(hello)) => {
            let hello = Hello { uid: Some(credentials.uid), ..hello };
            (Sender::local(credentials.pid), Message::Control(ControlMessage::Hello(hello)))
        }
        message => (Sender::local(credentials.pid), message),
    })
}

/// Applies what a datagram means for shared pages: attaches a page that came along, and skips earlier beats
/// of a process whose datagram reports a panic.
pub(super) fn attach_or_skip(
    judged: Result<(Sender, Message), FrameOutcome>,
    pages: &ShmPages,
    descriptor: Option<&OwnedFd>,
    at: MonoTime,
) -> Result<(Sender, Message), FrameOutcome> {
    match judged {
        Ok((sender, Message::Attach { pid })) if pages.attach(sender.pid, pid, descriptor, at) => {
            Ok((sender, Message::Control(ControlMessage::Attach)))
        }
        Ok((sender, Message::Beat(frame))) if frame.is_terminal() => {
            // A beat that was written before the panic is no sign of life after it.
            pages.skip(sender.pid);
            judged
        }
        Ok(_) | Err(_) => judged,
    }
}

/// Whether a datagram claims to be a control datagram of this kind.
#[inline]
fn is_control(payload: &[u8], kind: ControlKind) -> bool {
    payload.len() != FRAME_LEN && payload.starts_with(&CONTROL_MAGIC) && payload.get(3) == Some(&(kind as u8))
}

/// A frame with another pid, and the checksum of that; `None` for what has not the length of a frame.
fn with_pid(payload: &[u8], pid: u32) -> Option<[u8; FRAME_LEN]> {
    let mut frame: [u8; FRAME_LEN] = payload.try_into().ok()?;
    frame[PID].copy_from_slice(&pid.to_le_bytes());
    let checksum = crc32c::checksum(&frame[..CHECKSUM]);
    frame[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    Some(frame)
}

fn decode_attach(payload: &[u8]) -> Result<(u32, Message), DecodeError> {
    let pid = Control::decode(payload)?.pid();
    Ok((pid, Message::Attach { pid }))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use tokio::sync::watch;
    use varta_proto::control::{AgentName, Attach, MAX_CONTROL_LEN, Report, ReportEvent};
    use varta_proto::{Frame, Status};

    use super::*;
    use crate::ingest::recvmmsg::Credentials;
    use crate::ingest::senders::{AllowedSenders, OverflowIds};

    const US: Credentials = Credentials { pid: 4242, uid: 1000, gid: 100 };
    /// The same user's process in a container, with pid 1 there.
    const CONTAINED: Credentials = Credentials { pid: 5000, ..US };

    fn frame_of(pid: u32) -> [u8; 32] {
        Frame::new(Status::Ok, pid, 10, 1, 0).to_bytes()
    }

    fn of_us(payload: &[u8]) -> Datagram<'_> {
        Datagram {
            payload,
            truncated: false,
            extra_ancillary: false,
            has_descriptor: false,
            credentials: Some(US),
            source: None,
        }
    }

    fn outcome(payload: &[u8], change: impl FnOnce(&mut Datagram<'_>)) -> FrameOutcome {
        let mut datagram = of_us(payload);
        change(&mut datagram);
        judged(&datagram).map_or_else(|refused| refused, |_| FrameOutcome::Accepted)
    }

    fn judged(datagram: &Datagram<'_>) -> Result<(Sender, Message), FrameOutcome> {
        let allowed = AllowedSenders { uids: vec![1000], gids: vec![7] };
        let (mut senders, _) = Senders::new(watch::channel(allowed).1, OverflowIds::default(), |_| None);
        let mut namespaces = PidNamespaces::new(|outer| match outer {
            4242 => vec![4242, 7],
            5000 => vec![5000, 1],
            other => vec![other],
        });
        judge(datagram, &mut senders, &mut namespaces, MonoTime::from_secs(1))
    }

    #[test]
    fn each_fault_has_its_own_outcome() {
        let frame = frame_of(US.pid);
        assert_eq!(outcome(&frame, |_| {}), FrameOutcome::Accepted);
        assert_eq!(outcome(&frame, |datagram| datagram.extra_ancillary = true), FrameOutcome::Ancillary);
        assert_eq!(outcome(&frame, |datagram| datagram.has_descriptor = true), FrameOutcome::Ancillary);
        assert_eq!(outcome(&frame, |datagram| datagram.credentials = None), FrameOutcome::Unattested);
        let nobody = Some(Credentials { pid: 0, ..US });
        assert_eq!(outcome(&frame, |datagram| datagram.credentials = nobody), FrameOutcome::Unattested);
        let foreigner = Some(Credentials { uid: 1001, ..US });
        assert_eq!(outcome(&frame, |datagram| datagram.credentials = foreigner), FrameOutcome::UidRefused);
        assert_eq!(outcome(&frame_of(4243), |_| {}), FrameOutcome::PidMismatch);
        assert!(matches!(
            outcome(&frame[..31], |_| {}),
            FrameOutcome::Malformed(DecodeError::BadLength { actual: 31 })
        ));
        assert!(matches!(
            outcome(&frame, |datagram| datagram.truncated = true),
            FrameOutcome::Malformed(DecodeError::BadLength { .. })
        ));
        assert_eq!(outcome(&[0; 32], |_| {}), FrameOutcome::Malformed(DecodeError::BadMagic));
    }

    #[test]
    fn an_attach_may_pass_a_descriptor_and_is_judged_as_everything_else() {
        let mut room = [0; MAX_CONTROL_LEN];
        let attach = Attach::new(US.pid, 10, 1, [7; 16]).encode(&mut room);
        assert_eq!(outcome(&attach, |datagram| datagram.has_descriptor = true), FrameOutcome::Accepted);
        assert_eq!(outcome(&attach, |datagram| datagram.extra_ancillary = true), FrameOutcome::Ancillary);
        let foreigner = Some(Credentials { uid: 1001, ..US });
        assert_eq!(outcome(&attach, |datagram| datagram.credentials = foreigner), FrameOutcome::UidRefused);
        let of_another = Attach::new(4243, 10, 1, [7; 16]).encode(&mut room);
        assert_eq!(
            outcome(&of_another, |datagram| datagram.has_descriptor = true),
            FrameOutcome::PidMismatch
        );
        let is_refused =
            |bytes: &[u8]| matches!(Message::decode(bytes), Err(DecodeError::BadKind { actual: 3 }));
        assert!(is_refused(&of_another), "on every other way");
    }

    #[test]
    fn a_report_is_about_its_name_and_words_are_about_who_sends_them() {
        let name = AgentName::parse("backup").unwrap();
        let mut room = [0; MAX_CONTROL_LEN];
        let mut report = Report::new(US.pid, [7; 16], &name, ReportEvent::Started);
        let sender_of = |payload: &[u8]| judged(&of_us(payload)).map(|(sender, _)| sender);
        assert_eq!(sender_of(&report.encode(&mut room)), Ok(Sender::named(US.uid)));
        report.event = ReportEvent::Said;
        assert_eq!(sender_of(&report.encode(&mut room)), Err(FrameOutcome::Malformed(DecodeError::BadBody)));
        report.said = Some("a\nb");
        let (sender, message) = judged(&of_us(&report.encode(&mut room))).unwrap();
        assert_eq!(sender, Sender::local(US.pid));
        let said = |words: &str, child| Message::Control(ControlMessage::Said { words: words.into(), child });
        assert_eq!(message, said("a?b", None));
        (report.said, report.child) = (Some(""), Some(4243));
        let (_, message) = judged(&of_us(&report.encode(&mut room))).unwrap();
        assert_eq!(message, said("", NonZeroU32::new(4243)));
    }

    #[test]
    fn a_group_admits_where_the_user_does_not() {
        let in_group = Some(Credentials { uid: 1001, gid: 7, ..US });
        assert_eq!(
            outcome(&frame_of(US.pid), |datagram| datagram.credentials = in_group),
            FrameOutcome::Accepted
        );
    }

    #[test]
    fn a_process_of_a_namespace_may_name_the_pid_that_it_has_there() {
        assert_eq!(outcome(&frame_of(7), |_| {}), FrameOutcome::Accepted);
        assert_eq!(outcome(&frame_of(8), |_| {}), FrameOutcome::PidMismatch);
    }

    #[test]
    fn process_1_of_a_container_is_known_by_the_kernels_word() {
        assert_eq!(outcome(&frame_of(0x8000_1234), |_| {}), FrameOutcome::Accepted);
    }

    #[test]
    fn pid_1_is_accepted_from_process_1_of_a_container_and_from_nobody_else() {
        let sent = frame_of(1);
        assert_eq!(
            outcome(&sent, |_| {}),
            FrameOutcome::Malformed(DecodeError::BadPid { actual: 1 }),
            "in the namespace of the server"
        );
        assert_eq!(outcome(&sent, |datagram| datagram.credentials = Some(CONTAINED)), FrameOutcome::Accepted);
        let datagram = Datagram {
            payload: &sent,
            truncated: false,
            extra_ancillary: false,
            has_descriptor: false,
            credentials: Some(CONTAINED),
            source: None,
        };
        let (sender, message) = judged(&datagram).unwrap();
        let frame = Frame::new(Status::Ok, CONTAINED.pid, 10, 1, 0);
        assert_eq!((sender, message), (Sender::local(CONTAINED.pid), Message::Beat(frame)));
        let mut damaged = sent;
        damaged[20] ^= 1;
        let outcome = outcome(&damaged, |datagram| datagram.credentials = Some(CONTAINED));
        assert!(matches!(outcome, FrameOutcome::Malformed(DecodeError::BadCrc { .. })));
    }
}
