//! Authentication and classification of one received batch: beats and control messages go on, refusals are
//! counted.
//!
//! One value for each socket, because each transport proves its senders in its own way: kernel credentials,
//! source addresses, or authenticated encryption.

use std::os::fd::BorrowedFd;

use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, ReceivedControl, Sender, Transport};
use crate::domain::outcome::{FrameOutcome, OutcomeCounts};
use crate::ingest::batch::Batch;
use crate::ingest::fd_reaper::FdReaper;
use crate::ingest::keyring::Keyring;
use crate::ingest::message::Message;
use crate::ingest::namespaces::PidNamespaces;
use crate::ingest::queue_fill::QueueFill;
use crate::ingest::recvmmsg::{BATCH, Datagram, Passed, ReceiveBuffer};
use crate::ingest::refusals::{Explanation, RefusalLog};
use crate::ingest::sender_pidfds::SenderPidfds;
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
    pub(super) pidfds: SenderPidfds,
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

    /// What is received with each datagram of `socket` now: no descriptors while the queue of those to close
    /// is full.
    pub(super) fn passed(&mut self, socket: BorrowedFd<'_>) -> Passed {
        let Admission::Unix(unix) = self else { return Passed::Nothing };
        let has_room = unix.closer.has_room();
        match unix.pidfds.ask(socket, has_room) {
            true => Passed::DescriptorAndPidfd,
            false if has_room => Passed::Descriptor,
            false => Passed::Nothing,
        }
    }

    /// Notes that another server may have read the socket.
    pub(super) fn forget_pidfds(&mut self) {
        if let Admission::Unix(unix) = self {
            unix.pidfds.forget();
        }
    }

    /// When pidfds of senders are asked for again; `None` while they are.
    #[inline]
    pub(super) fn pidfds_resume_at(&self) -> Option<MonoTime> {
        let Admission::Unix(unix) = self else { return None };
        unix.pidfds.resumes_at()
    }

    /// Asks for the pidfds of those who send to `socket` again.
    pub(super) fn resume_pidfds(&mut self, socket: BorrowedFd<'_>, now: MonoTime) {
        if let Admission::Unix(unix) = self {
            unix.pidfds.begin(now);
            self.passed(socket);
        }
    }

    /// Splits a received batch into accepted beats and control messages, and counts the rest by outcome.
    pub(super) fn classify(
        &mut self,
        received: &mut ReceiveBuffer,
        received_at: MonoTime,
    ) -> (Batch, OutcomeCounts) {
        let mut descriptors = received.take_descriptors();
        let mut arrived = received.take_pidfds().into_iter().peekable();
        let mut pidfds = Vec::new();
        let datagrams = received.datagrams();
        let mut beats = Vec::with_capacity(datagrams.len());
        let mut refused = OutcomeCounts::default();
        let mut controls = Vec::new();
        let transport = self.transport();
        let mut enter =
            |judged: Result<(Sender, Message), FrameOutcome>, datagram: &Datagram<'_>| match judged {
                Ok((sender, Message::Beat(frame))) => beats.push(ReceivedBeat { received_at, sender, frame }),
                Ok((sender, Message::Control(said))) => {
                    controls.push((beats.len(), ReceivedControl { received_at, sender, said }));
                }
                // An Attach whose page was mapped has become a control message. One whose page was refused is
                // well-formed all the same.
                Ok((_, Message::Attach { .. } | Message::Report(_))) => refused.count(FrameOutcome::Accepted),
                Err(outcome) => {
                    debug_refusal(transport, datagram, outcome);
                    refused.count(outcome);
                }
            };
        match self {
            Admission::Unix(unix) => {
                let UnixAdmission { senders, namespaces, refusals, pages, .. } = &mut **unix;
                senders.refresh();
                for (index, datagram) in datagrams.enumerate() {
                    let judged = unix::judge(&datagram, senders, namespaces, received_at);
                    if let Err(outcome) = judged
                        && let Some(explanation) = refusals.note(&datagram, outcome, received_at)
                    {
                        log_refusal(&explanation);
                    }
                    if let Some((_, pidfd)) = arrived.next_if(|(number, _)| *number == index)
                        && let Ok((sender, _)) = judged
                    {
                        pidfds.push((sender.pid, pidfd));
                    }
                    let descriptor = descriptors.iter().find(|(number, _)| *number == index);
                    let passed = descriptor.map(|(_, passed)| passed);
                    enter(unix::attach_or_skip(judged, pages, passed, received_at), &datagram);
                }
            }
            Admission::Udp => datagrams.for_each(|datagram| enter(udp::judge(&datagram), &datagram)),
            Admission::SecureUdp(keyring) => {
                let mut keyring = keyring.open();
                datagrams.for_each(|datagram| {
                    enter(keyring.authenticate(&datagram, received_at), &datagram);
                });
            }
        }
        if let Admission::Unix(unix) = self {
            descriptors.drain(..).for_each(|(_, descriptor)| unix.closer.close(descriptor));
            unix.pidfds.note(received.len(), received_at);
        }
        let queue_full_at = self.note_fill(received, received_at);
        (Batch { transport, beats, controls, queue_full_at, pidfds }, refused)
    }
}

/// Each refused datagram, for who looks into it.
#[cold]
pub(super) fn debug_refusal(transport: Transport, datagram: &Datagram<'_>, outcome: FrameOutcome) {
    let sender = datagram.credentials;
    tracing::debug!(
        target: "varta::ingest",
        transport = transport.as_str(),
        uid = sender.map(|sender| sender.uid),
        pid = sender.map(|sender| sender.pid),
        source = datagram.source.map(tracing::field::display),
        bytes = datagram.payload.len(),
        reason = FrameOutcome::labels()[outcome.index()],
        "a datagram of {} bytes from {} is refused: {}",
        datagram.payload.len(),
        sender_text(datagram),
        FrameOutcome::labels()[outcome.index()]
    );
}

fn sender_text(datagram: &Datagram<'_>) -> String {
    match (datagram.credentials, datagram.source) {
        (Some(sender), _) => format!("process {} of uid {}", sender.pid, sender.uid),
        (None, Some(source)) => source.to_string(),
        (None, None) => "somebody".to_owned(),
    }
}

pub(super) fn log_refusal(explanation: &Explanation) {
    let sender = explanation.sender;
    tracing::warn!(
        target: "varta::ingest",
        uid = sender.map(|sender| sender.uid),
        pid = sender.map(|sender| sender.pid),
        reason = explanation.reason,
        "{explanation}"
    );
}
