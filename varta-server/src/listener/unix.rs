//! Whom to believe on a Unix datagram socket: every sender is known from the kernel.

use varta_proto::DecodeError;

use super::Message;
use super::batch::{Credentials, Datagram};
use crate::beat::Sender;
use crate::outcome::Outcome;

/// An agent that is process 1 of its container may not say so; it sends a number with this bit, which is no pid.
const NOT_A_PID: u32 = 1 << 31;

/// Which attested senders are accepted: those with one of the users or one of the groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedSenders {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids.
    pub gids: Vec<u32>,
}

impl AllowedSenders {
    fn include(&self, credentials: &Credentials) -> bool {
        self.uids.contains(&credentials.uid) || self.gids.contains(&credentials.gid)
    }
}

/// Who sent what, or why it is refused. `is_pid_of` tells whether the process that the kernel names has another pid in a
/// namespace of its own.
pub(super) fn judge(
    datagram: &Datagram<'_>,
    allowed: &AllowedSenders,
    is_pid_of: &mut impl FnMut(u32, u32) -> bool,
) -> Result<(Sender, Message), Outcome> {
    if datagram.extra_ancillary {
        return Err(Outcome::Ancillary);
    }
    let credentials =
        datagram.credentials.filter(|credentials| credentials.pid != 0).ok_or(Outcome::Unattested)?;
    if !allowed.include(&credentials) {
        return Err(Outcome::UidRefused);
    }
    if datagram.truncated {
        return Err(Outcome::Malformed(DecodeError::BadLength { actual: datagram.payload.len() }));
    }
    let (pid, message) = Message::decode(datagram.payload).map_err(Outcome::Malformed)?;
    if pid != credentials.pid && pid & NOT_A_PID == 0 && !is_pid_of(credentials.pid, pid) {
        return Err(Outcome::PidMismatch);
    }
    Ok((Sender::local(credentials.pid), message))
}

#[cfg(test)]
mod tests {
    use varta_proto::{Frame, Status};

    use super::*;

    const US: Credentials = Credentials { pid: 4242, uid: 1000, gid: 100 };

    fn allowed() -> AllowedSenders {
        AllowedSenders { uids: vec![1000], gids: vec![7] }
    }

    fn frame_of(pid: u32) -> [u8; 32] {
        Frame::new(Status::Ok, pid, 10, 1, 0).to_bytes()
    }

    fn outcome(payload: &[u8], change: impl FnOnce(&mut Datagram<'_>)) -> Outcome {
        let mut datagram = Datagram {
            payload,
            truncated: false,
            extra_ancillary: false,
            credentials: Some(US),
            source: None,
        };
        change(&mut datagram);
        judge(&datagram, &allowed(), &mut |outer, inner| (outer, inner) == (US.pid, 7))
            .map_or_else(|refused| refused, |_| Outcome::Accepted)
    }

    #[test]
    fn each_fault_has_its_own_outcome() {
        let frame = frame_of(US.pid);
        assert_eq!(outcome(&frame, |_| {}), Outcome::Accepted);
        assert_eq!(outcome(&frame, |datagram| datagram.extra_ancillary = true), Outcome::Ancillary);
        assert_eq!(outcome(&frame, |datagram| datagram.credentials = None), Outcome::Unattested);
        let nobody = Some(Credentials { pid: 0, ..US });
        assert_eq!(outcome(&frame, |datagram| datagram.credentials = nobody), Outcome::Unattested);
        let foreigner = Some(Credentials { uid: 1001, ..US });
        assert_eq!(outcome(&frame, |datagram| datagram.credentials = foreigner), Outcome::UidRefused);
        assert_eq!(outcome(&frame_of(4243), |_| {}), Outcome::PidMismatch);
        assert!(matches!(
            outcome(&frame[..31], |_| {}),
            Outcome::Malformed(DecodeError::BadLength { actual: 31 })
        ));
        assert!(matches!(
            outcome(&frame, |datagram| datagram.truncated = true),
            Outcome::Malformed(DecodeError::BadLength { .. })
        ));
        assert_eq!(outcome(&[0; 32], |_| {}), Outcome::Malformed(DecodeError::BadMagic));
    }

    #[test]
    fn a_group_admits_where_the_user_does_not() {
        let in_group = Some(Credentials { uid: 1001, gid: 7, ..US });
        assert_eq!(outcome(&frame_of(US.pid), |datagram| datagram.credentials = in_group), Outcome::Accepted);
    }

    #[test]
    fn a_process_of_a_namespace_may_name_the_pid_that_it_has_there() {
        assert_eq!(outcome(&frame_of(7), |_| {}), Outcome::Accepted);
        assert_eq!(outcome(&frame_of(8), |_| {}), Outcome::PidMismatch);
    }

    #[test]
    fn process_1_of_a_container_is_known_by_the_kernels_word() {
        assert_eq!(outcome(&frame_of(0x8000_1234), |_| {}), Outcome::Accepted);
    }
}
