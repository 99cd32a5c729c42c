use super::*;
use DropReason::{KernelQueueFull, NoObserver, PeerGone, StorageFull};

#[test]
fn every_error_number_has_its_class() {
    let dropped = [
        (libc::ENOBUFS, KernelQueueFull),
        (libc::EAGAIN, KernelQueueFull),
        (libc::EWOULDBLOCK, KernelQueueFull),
        (libc::ECONNREFUSED, NoObserver),
        (libc::ENOENT, NoObserver),
        (libc::ECONNRESET, PeerGone),
        (libc::ENOTCONN, PeerGone),
        (libc::EPIPE, PeerGone),
        (libc::ENOSPC, StorageFull),
    ];
    for errno in 1..134 {
        let error = io::Error::from_raw_os_error(errno);
        let expected = dropped
            .iter()
            .find(|(number, _)| *number == errno)
            .map_or(BeatOutcome::Failed(BeatError { errno, kind: error.kind() }), |(_, reason)| {
                BeatOutcome::Dropped(*reason)
            });
        assert_eq!(classify_send_error(&error), expected, "{error}");
    }
}

#[test]
fn an_error_without_a_number_is_judged_by_its_kind() {
    let table = [
        (io::ErrorKind::WouldBlock, Some(KernelQueueFull)),
        (io::ErrorKind::ConnectionRefused, Some(NoObserver)),
        (io::ErrorKind::NotFound, Some(NoObserver)),
        (io::ErrorKind::ConnectionReset, Some(PeerGone)),
        (io::ErrorKind::NotConnected, Some(PeerGone)),
        (io::ErrorKind::BrokenPipe, Some(PeerGone)),
        (io::ErrorKind::StorageFull, Some(StorageFull)),
        (io::ErrorKind::Interrupted, None),
        (io::ErrorKind::TimedOut, None),
        (io::ErrorKind::Other, None),
    ];
    for (kind, reason) in table {
        for error in [io::Error::from(kind), io::Error::new(kind, "with a message")] {
            let outcome = classify_send_error(&error);
            assert_eq!(outcome.drop_reason(), reason, "{error:?}");
            assert_eq!(outcome.error(), reason.is_none().then_some(BeatError { errno: 0, kind }));
        }
    }
}

#[test]
fn an_outcome_is_one_of_three() {
    let failed = BeatOutcome::Failed(BeatError::of_kind(io::ErrorKind::InvalidInput));
    let table = [BeatOutcome::Sent, BeatOutcome::Dropped(PeerGone), failed]
        .map(|outcome| [outcome.is_sent(), outcome.is_dropped(), outcome.is_failed()]);
    assert_eq!(table, [[true, false, false], [false, true, false], [false, false, true]]);
}

#[test]
fn outcomes_read_like_sentences() {
    let errno = BeatOutcome::Failed(BeatError::from_io(&io::Error::from_raw_os_error(libc::EACCES)));
    let kind = BeatOutcome::Failed(BeatError::of_kind(io::ErrorKind::InvalidInput));
    assert_eq!(BeatOutcome::Sent.to_string(), "sent");
    assert_eq!(BeatOutcome::Dropped(KernelQueueFull).to_string(), "dropped: the kernel's queue is full");
    assert!(errno.to_string().starts_with("failed: Permission denied"), "{errno}");
    assert_eq!(kind.to_string(), "failed: invalid input parameter");
    assert_eq!(format!("{:?}", BeatOutcome::Dropped(PeerGone)), "Dropped(PeerGone)");
}
