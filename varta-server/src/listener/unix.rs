//! The listener for a Unix datagram socket: every sender is known from the kernel.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use varta_proto::{DecodeError, Frame};

use super::batch::{BATCH, Credentials, Datagram, ReceiveBuffer};
use super::socket_file::{SocketFile, SocketOptions};
use super::{Batch, Unread};
use crate::beat::{ReceivedBeat, Sender};
use crate::clock::Clock;
use crate::error::Error;
use crate::metrics::FrameCounters;
use crate::outcome::{Outcome, Tally};

/// System calls in a row before the other tasks of the thread get their turn.
const ROUNDS: usize = 8;
/// How long to leave the socket alone when the kernel is short of something.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);
/// So many failures in a row, a second's worth, and it is not a shortage that passes.
const MOST_ERRORS: u32 = 50;
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

/// A bound socket and what is to be done with what comes in on it.
#[derive(Debug)]
pub(crate) struct UnixListener {
    socket: std::os::unix::net::UnixDatagram,
    file: SocketFile,
    allowed: AllowedSenders,
}

impl UnixListener {
    pub(crate) fn bind(options: &SocketOptions, allowed: AllowedSenders) -> Result<Self, Error> {
        let (socket, file) = SocketFile::bind(options)?;
        Ok(UnixListener { socket, file, allowed })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Tells from outside whether something waits to be read.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left.
    pub(crate) fn unread(&self) -> Result<Unread, Error> {
        let descriptor = self.socket.as_fd().try_clone_to_owned();
        let path = self.file.path().to_path_buf();
        descriptor.map(Unread).map_err(|source| Error::Socket {
            path,
            action: "duplicate the socket",
            source,
        })
    }

    /// Hands on batches of beats until `stop` is cancelled, and then what has arrived by that moment.
    pub(crate) async fn run(
        self,
        stop: CancellationToken,
        inbox: mpsc::Sender<Batch>,
        clock: Clock,
        counters: FrameCounters,
    ) -> Result<(), Error> {
        let UnixListener { socket, file, allowed } = self;
        let path = file.path().to_path_buf();
        let failed = |action| {
            let path = path.clone();
            move |source| Error::Socket { path, action, source }
        };
        let socket = UnixDatagram::from_std(socket).map_err(failed("watch the socket"))?;
        // Declared after the socket and so dropped before it: as long as the file is there somebody answers behind it,
        // and no other server takes its place.
        let _file = file;
        let mut buffer = ReceiveBuffer::new();
        let mut errors_in_a_row = 0;
        // Registered once and not for each batch.
        let mut stopped = pin!(stop.cancelled());
        loop {
            // Looked at before reading, so that what senders were told is delivered by then is still taken.
            let last_round = stop.is_cancelled();
            if !last_round {
                tokio::select! {
                    ready = socket.readable() => ready.map_err(failed("wait for the socket"))?,
                    () = &mut stopped => continue,
                }
            }
            for _ in 0..ROUNDS {
                let received = if last_round {
                    receive_now(&socket, &mut buffer)
                } else {
                    receive(&socket, &mut buffer)
                };
                match received {
                    Ok(0) => break,
                    Ok(_) => errors_in_a_row = 0,
                    Err(error) => {
                        errors_in_a_row += 1;
                        counters.io_error();
                        if errors_in_a_row >= MOST_ERRORS {
                            return Err(failed("receive from the socket")(error));
                        }
                        if errors_in_a_row == 1 {
                            tracing::warn!("{}: cannot receive: {error}; trying again", path.display());
                        }
                        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                        break;
                    }
                }
                let batch = sort(&buffer, &allowed, clock, &counters);
                if !batch.beats.is_empty() && inbox.send(batch).await.is_err() {
                    return Ok(());
                }
            }
            if last_round {
                return Ok(());
            }
            // Beats that keep coming must not keep the tracker from taking them.
            tokio::task::yield_now().await;
        }
    }
}

/// Takes what is waiting, at most a batch, whatever the runtime knows of it; 0 when nothing is.
fn receive_now(socket: &UnixDatagram, buffer: &mut ReceiveBuffer) -> io::Result<usize> {
    match buffer.receive(socket.as_fd()) {
        Err(error) if is_nothing(&error) => Ok(0),
        received => received,
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Takes what is waiting, at most a batch; 0 when nothing is.
fn receive(socket: &UnixDatagram, buffer: &mut ReceiveBuffer) -> io::Result<usize> {
    let mut received = 0;
    let result = socket.try_io(Interest::READABLE, || {
        received = buffer.receive(socket.as_fd())?;
        // A batch that is not full has emptied the queue. To ask the kernel once more, only to hear that, would be the
        // dearest part of a small batch; what arrives from here on makes the socket ready anew.
        if received < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match result {
        Err(error) if is_nothing(&error) => Ok(received),
        other => other.map(|()| received),
    }
}

/// Keeps the beats of a batch and counts the rest.
fn sort(buffer: &ReceiveBuffer, allowed: &AllowedSenders, clock: Clock, counters: &FrameCounters) -> Batch {
    let received_at = clock.now();
    let datagrams = buffer.datagrams();
    let mut beats = Vec::with_capacity(datagrams.len());
    let mut refused = Tally::default();
    for datagram in datagrams {
        match judge(&datagram, allowed) {
            Ok((sender, frame)) => beats.push(ReceivedBeat { received_at, sender, frame }),
            Err(outcome) => refused.count(outcome),
        }
    }
    counters.add(&refused);
    Batch { beats }
}

/// Who sent what, or why it is refused.
fn judge(datagram: &Datagram<'_>, allowed: &AllowedSenders) -> Result<(Sender, Frame), Outcome> {
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
    let frame = Frame::decode(datagram.payload).map_err(Outcome::Malformed)?;
    if frame.pid != credentials.pid && frame.pid & NOT_A_PID == 0 {
        return Err(Outcome::PidMismatch);
    }
    Ok((Sender::Local { pid: credentials.pid }, frame))
}

#[cfg(test)]
mod tests {
    use varta_proto::Status;

    use super::*;

    const US: Credentials = Credentials { pid: 4242, uid: 1000, gid: 100 };

    fn allowed() -> AllowedSenders {
        AllowedSenders { uids: vec![1000], gids: vec![7] }
    }

    fn frame_of(pid: u32) -> [u8; 32] {
        Frame::new(Status::Ok, pid, 10, 1, 0).to_bytes()
    }

    fn outcome(payload: &[u8], change: impl FnOnce(&mut Datagram<'_>)) -> Outcome {
        let mut datagram =
            Datagram { payload, truncated: false, extra_ancillary: false, credentials: Some(US) };
        change(&mut datagram);
        judge(&datagram, &allowed()).map_or_else(|refused| refused, |_| Outcome::Accepted)
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
    fn process_1_of_a_container_is_known_by_the_kernels_word() {
        assert_eq!(outcome(&frame_of(0x8000_1234), |_| {}), Outcome::Accepted);
    }
}
