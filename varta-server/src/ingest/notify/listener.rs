//! The listener of a socket for notifications.
//!
//! Most services send blocking and share one queue, so that it is read as soon as anything is there, and whatever a
//! message carries is closed at once: who has sent a barrier waits for that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;

use socket2::Type;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use varta_proto::DecodeError;

use crate::base::error::Error;
use crate::base::given_sockets::{GivenSocket, GivenSockets};
use crate::base::socket_store::KeptSocket;
use crate::base::time::MonoTime;
use crate::base::{SocketFile, SocketOptions};
use crate::domain::beat::{ControlMessage, ReceivedBeat, ReceivedControl, Sender, Transport};
use crate::domain::outcome::{FrameOutcome, OutcomeCounts};
use crate::domain::service_message::ServiceMessage;
use crate::ingest::admission::{debug_refusal, log_refusal};
use crate::ingest::batch::Batch;
use crate::ingest::endpoint::Endpoint;
use crate::ingest::fd_reaper::FdReaper;
use crate::ingest::held_socket::HeldSocket;
use crate::ingest::listener::{Intake, give_way};
use crate::ingest::long_queue;
use crate::ingest::notify::address::NotifyAddress;
use crate::ingest::notify::bridge::Fate;
use crate::ingest::notify::receive::{MAX_DESCRIPTORS, MessageBuffer, ReceivedMessage};
use crate::ingest::notify::services::NotifyServices;
use crate::ingest::queue_fill::QueueFill;
use crate::ingest::receive_failures::ReceiveFailures;
use crate::ingest::recvmmsg::{Datagram, pass_pidfds};
use crate::ingest::refusals::RefusalLog;
use crate::ingest::senders::{AllowedSenders, OverflowIds, Senders};
use crate::observe::user_and_groups;

/// The most messages that are read before others get to run.
const MESSAGES_PER_TURN: usize = 64;
/// The same before the listener ends: more than the longest queue of a Unix socket holds.
const LAST_TURNS: usize = 1_024;

/// A bound socket for notifications.
#[derive(Debug)]
pub(crate) struct NotifyListener {
    socket: OwnedFd,
    /// The file of a socket that has one, removed on drop.
    file: Option<(SocketFile, HeldSocket)>,
    endpoint: Endpoint,
    queue: Option<usize>,
    rules: Rules,
    /// The socket with an abstract name as one that may go on without the server.
    kept: Option<Arc<KeptSocket>>,
}

/// Whose messages are accepted, and what becomes of them.
#[derive(Debug)]
struct Rules {
    senders: Senders,
    refusals: RefusalLog,
    fill: QueueFill,
    closer: FdReaper,
    services: NotifyServices,
}

impl NotifyListener {
    /// Binds a socket that is a file, or takes a given one that is bound to its path. `queue` is the number of messages
    /// that the queue of a new one is to hold.
    pub(crate) fn at_path(
        options: &SocketOptions,
        queue: usize,
        allowed: watch::Receiver<AllowedSenders>,
        services: NotifyServices,
        given: &GivenSockets,
    ) -> Result<Self, Error> {
        let of_others = given.take_unix(&options.path, Type::DGRAM, "--notify-socket")?;
        let is_of_others = of_others.is_some();
        let (socket, mut file, queue) = if let Some(socket) = of_others {
            long_queue::adopt(socket, options, given.files())?
        } else if let Some(socket) = given.take_stored_unix(&options.path)? {
            let bound = long_queue::adopt(socket, options, given.files())?;
            // They may have been others then.
            bound.1.place().give_access(options.mode, options.group)?;
            bound
        } else {
            long_queue::bind(options, queue, given.files())?
        };
        file.note_queue(queue);
        // A socket unit keeps its own.
        if file.is_removed() || !is_of_others {
            file.keep_in(given.store(), socket.as_fd(), queue);
        }
        let address = NotifyAddress::Path(file.path().to_path_buf());
        let held = HeldSocket::new(options.clone(), file.place().clone(), file.is_removed());
        Self::new(socket.into(), Some((file, held)), address, queue, allowed, services)
    }

    /// Binds a socket with an abstract name, or takes a given one.
    pub(crate) fn at_name(
        address: &NotifyAddress,
        allowed: watch::Receiver<AllowedSenders>,
        services: NotifyServices,
        given: &GivenSockets,
    ) -> Result<Self, Error> {
        let name = address.abstract_name().unwrap_or_default();
        let of_others = given.take_abstract(name, "--notify-socket")?;
        let is_kept = of_others.as_ref().is_none_or(GivenSocket::removes_file);
        let before = if of_others.is_some() { of_others } else { given.take_stored_abstract(name)? };
        let (socket, queue): (OwnedFd, _) = match before {
            Some(socket) => {
                let queue = socket.queue();
                (socket.into_socket().into(), queue)
            }
            None => long_queue::bind_abstract(address)?,
        };
        let kept = if is_kept { given.store().keep(socket.as_fd(), None, queue) } else { None };
        let listener = Self::new(socket, None, address.clone(), queue, allowed, services)?;
        Ok(NotifyListener { kept, ..listener })
    }

    fn new(
        socket: OwnedFd,
        file: Option<(SocketFile, HeldSocket)>,
        address: NotifyAddress,
        queue: Option<usize>,
        allowed: watch::Receiver<AllowedSenders>,
        services: NotifyServices,
    ) -> Result<Self, Error> {
        let endpoint = Endpoint::Notify(address);
        let failed = |action| {
            let endpoint = &endpoint;
            move |source| endpoint.failed(action, source)
        };
        let closer = FdReaper::start().map_err(failed("start a thread for it"))?;
        // Where the kernel has no such option, the pid has to do.
        let _ = pass_pidfds(socket.as_fd(), true);
        let (senders, nobody) = Senders::new(allowed, OverflowIds::of_server(), user_and_groups);
        nobody.warn();
        let fill = QueueFill::new(endpoint.to_string().into(), queue);
        let rules = Rules { senders, refusals: RefusalLog::new(), fill, closer, services };
        Ok(NotifyListener { socket, file, endpoint, queue, rules, kept: None })
    }

    pub(crate) fn file(&self) -> Option<&HeldSocket> {
        self.file.as_ref().map(|(_, held)| held)
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) const fn queue(&self) -> Option<usize> {
        self.queue
    }

    /// A second descriptor of the socket.
    ///
    /// # Errors
    ///
    /// The process is out of file descriptors.
    pub(crate) fn duplicate(&self) -> Result<OwnedFd, Error> {
        self.socket.try_clone().map_err(|source| self.endpoint.failed("duplicate the socket", source))
    }

    /// Sends what services say to the engine until `stop` is cancelled, then what has arrived by that moment. While the
    /// gate is shut it reads nothing.
    pub(crate) async fn run(self, intake: Intake) -> Result<(), Error> {
        let Intake { stop, inbox, clock, counters, gate } = intake;
        let NotifyListener { socket, file, endpoint, mut rules, kept: _kept, .. } = self;
        let failed = |action| {
            let endpoint = &endpoint;
            move |source| endpoint.failed(action, source)
        };
        let socket = UnixDatagram::from_std(socket.into()).map_err(failed("watch the socket"))?;
        let ends = rules.services.open(clock.now()).map_err(failed("watch the services of"))?;
        // Declared after the socket and so dropped before it, as for every listener.
        let _file = file;
        let mut buffer = MessageBuffer::new();
        let Some(mut permit) = gate.enter(&stop).await else { return Ok(()) };
        let mut shut = pin!(gate.shut());
        let mut stopped = pin!(stop.cancelled());
        let mut timer = pin!(tokio::time::sleep_until(clock.instant(MonoTime::NEVER)));
        // Whether more may wait than the runtime's readiness shows: at first, what has waited at the gate.
        let mut failures = ReceiveFailures::default();
        let (mut turns, mut goes_on) = (0, true);
        loop {
            let is_shut = gate.is_shut();
            let is_last = stop.is_cancelled();
            if !goes_on && !is_shut && !is_last {
                timer.as_mut().reset(clock.instant(rules.services.next_due().unwrap_or(MonoTime::NEVER)));
                tokio::select! {
                    ready = socket.readable() => ready.map_err(failed("wait for the socket"))?,
                    ended = ends.readable() => ended.map_err(failed("watch the services of"))?.clear_ready(),
                    () = &mut timer => {}
                    () = &mut stopped => continue,
                    () = &mut shut => continue,
                }
            }
            let mut batch = Batch::of_services();
            let mut counts = OutcomeCounts::default();
            let at_once = goes_on || is_shut || is_last;
            let read = rules.read(&socket, at_once, &mut buffer, &mut batch, &mut counts, || clock.now());
            let (is_empty, fault) = match read {
                Ok(is_empty) => (is_empty, None),
                Err(error) => (true, Some(error)),
            };
            if is_empty && (is_shut || is_last) {
                // Who goes on after this server knows nothing of what was not decided.
                let now = clock.now();
                let fates = rules.services.with(|bridge| bridge.settle_all(now));
                enter(fates, &mut batch, &mut counts);
            } else if is_empty {
                rules
                    .note_time(&mut batch, &mut counts, clock.now())
                    .map_err(failed("watch the services of"))?;
            }
            counters.add(&counts);
            if batch.queue_full_at.is_some() {
                counters.queue_full();
            }
            if !batch.is_empty() && inbox.send(batch).await.is_err() {
                return Ok(());
            }
            match fault {
                None => failures.clear(),
                Some(error) => failures.add(error, &endpoint, &counters).await?,
            }
            turns = if is_empty { 0 } else { turns + 1 };
            if is_last && (is_empty || turns > LAST_TURNS) {
                return Ok(());
            }
            if is_shut && is_empty {
                drop(permit);
                let Some(next) = gate.enter(&stop).await else { return Ok(()) };
                permit = next;
                shut.set(gate.shut());
                goes_on = true;
                continue;
            }
            goes_on = !is_empty;
            give_way().await;
        }
    }
}

impl Rules {
    /// Reads what waits, at most [`MESSAGES_PER_TURN`]; with `at_once` whatever the runtime knows of the socket. Returns
    /// whether that was all.
    fn read(
        &mut self,
        socket: &UnixDatagram,
        at_once: bool,
        buffer: &mut MessageBuffer,
        batch: &mut Batch,
        counts: &mut OutcomeCounts,
        now: impl Fn() -> MonoTime,
    ) -> io::Result<bool> {
        self.senders.refresh();
        for read in 0..MESSAGES_PER_TURN {
            let takes_descriptors = self.closer.has_room_for(MAX_DESCRIPTORS);
            let received = if at_once {
                buffer.receive(socket.as_fd(), takes_descriptors)
            } else {
                socket.try_io(Interest::READABLE, || buffer.receive(socket.as_fd(), takes_descriptors))
            };
            let message = match received {
                Ok(message) => message,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.fill.note(read, true);
                    self.fill.note_empty();
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let at = now();
            self.take(message, at, batch, counts);
        }
        if self.fill.note(MESSAGES_PER_TURN, false) {
            batch.queue_full_at = Some(now());
        }
        Ok(false)
    }

    fn take(
        &mut self,
        message: ReceivedMessage<'_>,
        at: MonoTime,
        batch: &mut Batch,
        counts: &mut OutcomeCounts,
    ) {
        let ReceivedMessage { text, is_cut, sender, pidfd, descriptors } = message;
        let refused = match sender.filter(|sender| sender.pid != 0) {
            None => Some(FrameOutcome::Unattested),
            Some(sender) if !self.senders.admit(&sender, at) => Some(FrameOutcome::UidRefused),
            Some(_) if is_cut => Some(FrameOutcome::Malformed(DecodeError::BadLength { actual: text.len() })),
            Some(_) => None,
        };
        match (refused, sender) {
            (None, Some(sender)) => {
                let said = ServiceMessage::parse(text);
                let fates = self.services.with(|bridge| bridge.handle(&sender, pidfd, said, at));
                enter(fates, batch, counts);
            }
            (refused, _) => {
                let outcome = refused.unwrap_or(FrameOutcome::Unattested);
                let datagram = Datagram {
                    payload: text,
                    truncated: is_cut,
                    extra_ancillary: false,
                    has_descriptor: !descriptors.is_empty(),
                    credentials: sender,
                    source: None,
                };
                if let Some(explanation) = self.refusals.note(&datagram, outcome, at) {
                    log_refusal(&explanation);
                }
                debug_refusal(Transport::Notify, &datagram, outcome);
                counts.count(outcome);
            }
        }
        descriptors.into_iter().for_each(|descriptor| self.closer.close(descriptor));
    }

    /// Handles the ends of processes, and what time has decided.
    fn note_time(&mut self, batch: &mut Batch, counts: &mut OutcomeCounts, now: MonoTime) -> io::Result<()> {
        let (mut fault, mut pidfds) = (Ok(()), Vec::new());
        let fates = self.services.with(|bridge| {
            let ended = bridge.kin().take_ended().unwrap_or_else(|error| {
                fault = Err(error);
                Vec::new()
            });
            let mut fates: Vec<_> = ended.into_iter().flat_map(|pid| bridge.handle_end(pid, now)).collect();
            fates.extend(bridge.settle(now));
            pidfds = bridge.take_pidfds();
            fates
        });
        batch.pidfds.extend(pidfds);
        enter(fates, batch, counts);
        fault
    }
}

/// Puts what is said into a batch, and counts the rest.
fn enter(fates: Vec<Fate>, batch: &mut Batch, counts: &mut OutcomeCounts) {
    for fate in fates {
        match fate {
            Fate::Said(pid, received_at, notification) if notification.is_plain() => {
                let (sender, frame) = (Sender::notify(pid), notification.frame);
                batch.beats.push(ReceivedBeat { received_at, sender, frame });
            }
            Fate::Said(pid, received_at, notification) => {
                let said = ControlMessage::Notification(notification);
                let control = ReceivedControl { received_at, sender: Sender::notify(pid), said };
                batch.controls.push((batch.beats.len(), control));
            }
            Fate::Passed => counts.count(FrameOutcome::Accepted),
            Fate::Unattributed => counts.count(FrameOutcome::Unattributed),
            Fate::NoRoom => counts.count(FrameOutcome::Capacity),
        }
    }
}
