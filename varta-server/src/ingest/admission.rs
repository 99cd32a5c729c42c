use crate::base::time::MonoTime;
use crate::domain::batch::Batch;
use crate::domain::beat::{ReceivedBeat, ReceivedControl, Sender, Transport};
use crate::domain::outcome::{Outcome, Tally};
use crate::ingest::fd_reaper::Closer;
use crate::ingest::keyring::Vault;
use crate::ingest::message::Message;
use crate::ingest::namespaces::Namespaces;
use crate::ingest::recvmmsg::{BATCH, ReceiveBuffer};
use crate::ingest::shm::Pages;
use crate::ingest::unix::AllowedSenders;
use crate::ingest::{udp, unix};

/// Whom to believe.
#[derive(Debug)]
pub(super) enum Gate {
    Unix {
        allowed: AllowedSenders,
        namespaces: Namespaces,
        /// How many datagrams fill its queue, if that is known.
        queue: Option<usize>,
        /// Where the memory goes that senders share.
        pages: Pages,
        closer: Closer,
    },
    Udp,
    SecureUdp(Vault),
}

impl Gate {
    const fn transport(&self) -> Transport {
        match self {
            Gate::Unix { .. } => Transport::Unix,
            Gate::Udp => Transport::Udp,
            Gate::SecureUdp(_) => Transport::SecureUdp,
        }
    }

    /// How many datagrams read at once show that the queue was full, and somebody was turned away or about to be. A UDP
    /// socket's drops are counted by the kernel instead.
    fn fills_queue(&self) -> usize {
        match self {
            Gate::Unix { queue: Some(queue), .. } => queue.saturating_add(1).min(BATCH),
            Gate::Unix { queue: None, .. } | Gate::Udp | Gate::SecureUdp(_) => usize::MAX,
        }
    }

    /// Whether what is passed along may be received: not while what came before cannot be closed.
    pub(super) fn takes_descriptors(&self) -> bool {
        match self {
            Gate::Unix { closer, .. } => closer.has_room(),
            Gate::Udp | Gate::SecureUdp(_) => false,
        }
    }

    /// Keeps the beats of what was received together, and counts the rest.
    pub(super) fn sort(&mut self, received: &mut ReceiveBuffer, received_at: MonoTime) -> (Batch, Tally) {
        let mut descriptors = received.take_descriptors();
        let datagrams = received.datagrams();
        let mut beats = Vec::with_capacity(datagrams.len());
        let mut refused = Tally::default();
        let mut controls = Vec::new();
        let mut enter = |judged: Result<(Sender, Message), Outcome>| match judged {
            Ok((sender, Message::Beat(frame))) => beats.push(ReceivedBeat { received_at, sender, frame }),
            Ok((sender, Message::Control(said))) => {
                controls.push((beats.len(), ReceivedControl { received_at, sender, said }));
            }
            // What was taken is told the tracker; what was not is well-formed all the same.
            Ok((_, Message::Attach { .. })) => refused.count(Outcome::Accepted),
            Err(outcome) => refused.count(outcome),
        };
        match self {
            Gate::Unix { allowed, namespaces, pages, .. } => {
                for (index, datagram) in datagrams.enumerate() {
                    let mut is_pid_of = |outer, inner| namespaces.has(outer, inner, received_at);
                    let judged = unix::judge(&datagram, allowed, &mut is_pid_of);
                    let descriptor = descriptors.iter().find(|(number, _)| *number == index);
                    enter(unix::settle(judged, pages, descriptor.map(|(_, passed)| passed), received_at));
                }
            }
            Gate::Udp => datagrams.for_each(|datagram| enter(udp::judge(&datagram))),
            Gate::SecureUdp(vault) => {
                let mut vault = vault.open();
                datagrams.for_each(|datagram| enter(vault.judge(&datagram, received_at)));
            }
        }
        if let Gate::Unix { closer, .. } = self {
            descriptors.drain(..).for_each(|(_, descriptor)| closer.close(descriptor));
        }
        let was_full = received.len() >= self.fills_queue();
        let turned_away_at = was_full.then_some(received_at);
        (Batch { transport: self.transport(), beats, controls, turned_away_at }, refused)
    }
}
