//! Authentication and classification of one received batch: beats and control messages go on, refusals are
//! counted.
//!
//! One value for each socket, because each transport proves its senders in its own way: kernel credentials,
//! source addresses, or authenticated encryption.

use crate::base::time::MonoTime;
use crate::domain::batch::Batch;
use crate::domain::beat::{ReceivedBeat, ReceivedControl, Sender, Transport};
use crate::domain::outcome::{FrameOutcome, OutcomeCounts};
use crate::ingest::fd_reaper::FdReaper;
use crate::ingest::keyring::Keyring;
use crate::ingest::message::Message;
use crate::ingest::namespaces::PidNamespaces;
use crate::ingest::queue_fill::QueueFill;
use crate::ingest::recvmmsg::{BATCH, ReceiveBuffer};
use crate::ingest::refusals::{Explanation, RefusalLog};
use crate::ingest::senders::Senders;
use crate::ingest::shm::ShmPages;
use crate::ingest::{udp, unix};

/// The admission rules of one socket.
#[derive(Debug)]
pub(super) enum Admission {
    Unix(Box<UnixAdmission>),
    Udp,
    SecureUdp(Keyring),
}

/// The admission rules of a Unix socket.
#[derive(Debug)]
pub(super) struct UnixAdmission {
    pub(super) senders: Senders,
    pub(super) namespaces: PidNamespaces,
    pub(super) refusals: RefusalLog,
    pub(super) queue: QueueFill,
    /// Receives the shared memory pages that agents attach.
    pub(super) pages: ShmPages,
    pub(super) closer: FdReaper,
}

impl Admission {
    const fn transport(&self) -> Transport {
        match self {
            Admission::Unix(_) => Transport::Unix,
            Admission::Udp => Transport::Udp,
            Admission::SecureUdp(_) => Transport::SecureUdp,
        }
    }

    /// Notes that no datagram waits.
    pub(super) fn note_empty(&mut self) {
        if let Admission::Unix(unix) = self {
            unix.queue.note_empty();
        }
    }

    /// Notes the batch just received. When it was received, if the queue was full and the kernel refused
    /// senders; `None` for a UDP socket, whose drops the kernel counts.
    fn note_fill(&mut self, received: &ReceiveBuffer, received_at: MonoTime) -> Option<MonoTime> {
        let Admission::Unix(unix) = self else { return None };
        if !unix.queue.note(received.len(), received.len() < BATCH) {
            return None;
        }
        if let Some(line) = unix.queue.explain(received.datagrams(), received_at) {
            tracing::warn!(target: "varta::ingest", "{line}");
        }
        Some(received_at)
    }

    /// Whether file descriptors may be received now; false while the queue of descriptors to close is full.
    pub(super) fn takes_descriptors(&self) -> bool {
        match self {
            Admission::Unix(unix) => unix.closer.has_room(),
            Admission::Udp | Admission::SecureUdp(_) => false,
        }
    }

    /// Splits a received batch into accepted beats and control messages, and counts the rest by outcome.
    pub(super) fn classify(
        &mut self,
        received: &mut ReceiveBuffer,
        received_at: MonoTime,
    ) -> (Batch, OutcomeCounts) {
        let mut descriptors = received.take_descriptors();
        let datagrams = received.datagrams();
        let mut beats = Vec::with_capacity(datagrams.len());
        let mut refused = OutcomeCounts::default();
        let mut controls = Vec::new();
        let mut enter = |judged: Result<(Sender, Message), FrameOutcome>| match judged {
            Ok((sender, Message::Beat(frame))) => beats.push(ReceivedBeat { received_at, sender, frame }),
            Ok((sender, Message::Control(said))) => {
                controls.push((beats.len(), ReceivedControl { received_at, sender, said }));
            }
            // An Attach whose page was mapped has become a control message. One whose page was refused is
            // well-formed all the same.
            Ok((_, Message::Attach { .. })) => refused.count(FrameOutcome::Accepted),
            Err(outcome) => refused.count(outcome),
        };
        match self {
            Admission::Unix(unix) => {
                let UnixAdmission { senders, namespaces, refusals, pages, .. } = &mut **unix;
                for (index, datagram) in datagrams.enumerate() {
                    let judged = unix::judge(&datagram, senders, namespaces, received_at);
                    if let Err(outcome) = judged
                        && let Some(explanation) = refusals.note(&datagram, outcome, received_at)
                    {
                        log_refusal(&explanation);
                    }
                    let descriptor = descriptors.iter().find(|(number, _)| *number == index);
                    enter(unix::attach_or_skip(
                        judged,
                        pages,
                        descriptor.map(|(_, passed)| passed),
                        received_at,
                    ));
                }
            }
            Admission::Udp => datagrams.for_each(|datagram| enter(udp::judge(&datagram))),
            Admission::SecureUdp(keyring) => {
                let mut keyring = keyring.open();
                datagrams.for_each(|datagram| enter(keyring.authenticate(&datagram, received_at)));
            }
        }
        if let Admission::Unix(unix) = self {
            descriptors.drain(..).for_each(|(_, descriptor)| unix.closer.close(descriptor));
        }
        let queue_full_at = self.note_fill(received, received_at);
        (Batch { transport: self.transport(), beats, controls, queue_full_at }, refused)
    }
}

fn log_refusal(explanation: &Explanation) {
    let sender = explanation.sender;
    tracing::warn!(
        target: "varta::ingest",
        uid = sender.map(|sender| sender.uid),
        pid = sender.map(|sender| sender.pid),
        reason = explanation.reason,
        "{explanation}"
    );
}
