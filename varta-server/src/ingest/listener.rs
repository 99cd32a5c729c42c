//! Listeners: one task for each socket receives batches of datagrams, authenticates and decodes them, and
//! sends the accepted ones to the engine. A listener knows sockets and nothing of agents.

use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::task::Poll;

use socket2::Type;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::base::time::MonoTime;
use crate::base::{SocketFile, SocketOptions};
use crate::ingest::admission::{Admission, UnixAdmission};
use crate::ingest::batch::Batch;
use crate::ingest::endpoint::Endpoint;
use crate::ingest::fd_reaper::FdReaper;
use crate::ingest::gate::Gate;
use crate::ingest::held_socket::HeldSocket;
use crate::ingest::keyring::Keyring;
use crate::ingest::metrics::FrameCounters;
use crate::ingest::namespaces::PidNamespaces;
use crate::ingest::queue_fill::QueueFill;
use crate::ingest::queue_probe::Probe;
use crate::ingest::readiness::{AsyncSocket, receive, receive_now};
use crate::ingest::receive_failures::ReceiveFailures;
use crate::ingest::recvmmsg::{BATCH, ReceiveBuffer};
use crate::ingest::refusals::RefusalLog;
use crate::ingest::sender_pidfds::SenderPidfds;
use crate::ingest::senders::{AllowedSenders, OverflowIds, Senders};
use crate::ingest::shm::ShmPages;
use crate::ingest::udp::Options as UdpOptions;
use crate::ingest::{long_queue, udp};
use crate::observe::{namespace_pids, user_and_groups};

/// The capacity of the engine's inbox in batches. With 64 beats in each, a full inbox is about a millisecond
/// of work. A listener stops reading while the inbox is full; the kernel's queue then fills, and senders see
/// the backpressure.
pub(crate) const INBOX_BATCHES: usize = 32;
/// The most receive calls in a row before the task yields.
const ROUNDS: usize = 8;
/// The same before the listener ends: more than the longest queue of a Unix socket holds.
const LAST_ROUNDS: usize = 1_024;

/// Where a listener sends what it receives, and when.
#[derive(Clone)]
pub(crate) struct Intake {
    pub(crate) stop: CancellationToken,
    pub(crate) inbox: mpsc::Sender<Batch>,
    pub(crate) clock: Clock,
    pub(crate) counters: FrameCounters,
    /// Shut while another server takes over.
    pub(crate) gate: Gate,
}

/// A bound socket and its admission rules.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    /// The file of a Unix socket, removed on drop.
    file: Option<(SocketFile, HeldSocket)>,
    endpoint: Endpoint,
    gate: Admission,
}

impl Listener {
    /// Binds a Unix socket, or takes a given one that is bound to its path. `queue` is the number of datagrams that
    /// the queue of a new one is to hold.
    pub(crate) fn unix(
        options: &SocketOptions,
        queue: usize,
        allowed: watch::Receiver<AllowedSenders>,
        pages: ShmPages,
        given: &GivenSockets,
    ) -> Result<Self, Error> {
        let (socket, file, queue) = match given.take_unix(&options.path, Type::DGRAM, "--socket")? {
            Some(socket) => long_queue::adopt(socket, options, given.files())?,
            None => long_queue::bind(options, queue, given.files())?,
        };
        file.note_queue(queue);
        let endpoint = Endpoint::Unix(file.path().to_path_buf());
        let queue = QueueFill::new(file.path().to_path_buf(), queue);
        let failed = |source| endpoint.failed("start a thread for it", source);
        let closer = FdReaper::start().map_err(failed)?;
        let namespaces = PidNamespaces::new(namespace_pids);
        let (senders, nobody) = Senders::new(allowed, OverflowIds::of_server(), user_and_groups);
        nobody.warn();
        let refusals = RefusalLog::new();
        let pidfds = SenderPidfds::new();
        let rules = UnixAdmission { senders, namespaces, refusals, queue, pages, closer, pidfds };
        let gate = Admission::Unix(Box::new(rules));
        let held = HeldSocket::new(options.clone(), file.place().clone(), file.is_removed());
        Ok(Listener { socket: socket.into(), file: Some((file, held)), endpoint, gate })
    }

    /// Binds a plaintext UDP socket, or takes a given one.
    pub(crate) fn udp(options: &UdpOptions, given: &GivenSockets) -> Result<Self, Error> {
        let (socket, address) = udp::bind_or_take("--udp", options, given)?;
        Ok(Listener { socket, file: None, endpoint: Endpoint::Udp(address), gate: Admission::Udp })
    }

    /// Binds a UDP socket for datagrams that the keys of `keyring` open, or takes a given one.
    pub(crate) fn secure_udp(
        options: &UdpOptions,
        keyring: Keyring,
        given: &GivenSockets,
    ) -> Result<Self, Error> {
        let (socket, address) = udp::bind_or_take("--secure-udp", options, given)?;
        let endpoint = Endpoint::SecureUdp(address);
        Ok(Listener { socket, file: None, endpoint, gate: Admission::SecureUdp(keyring) })
    }

    /// The file of a Unix socket.
    pub(super) fn file(&self) -> Option<&HeldSocket> {
        self.file.as_ref().map(|(_, held)| held)
    }

    /// A second descriptor of the socket.
    ///
    /// # Errors
    ///
    /// The process is out of file descriptors.
    pub(super) fn duplicate(&self) -> Result<OwnedFd, Error> {
        self.socket.try_clone().map_err(|source| self.endpoint.failed("duplicate the socket", source))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The datagrams that the queue of a Unix socket holds; `None` for a UDP socket, and where it is not known.
    fn unix_queue(&self) -> Option<usize> {
        match &self.gate {
            Admission::Unix(unix) => unix.queue.length(),
            Admission::Udp | Admission::SecureUdp(_) => None,
        }
    }

    /// A second descriptor of the socket, for readiness and drop counts.
    ///
    /// # Errors
    ///
    /// The process is out of file descriptors.
    pub(crate) fn probe(&self) -> Result<Probe, Error> {
        Ok(Probe::new(self.duplicate()?, self.endpoint.clone(), self.unix_queue()))
    }

    /// Sends batches to `inbox` until `stop` is cancelled, then drains what has arrived by that moment. While the
    /// gate is shut it reads nothing.
    pub(crate) async fn run(self, intake: Intake) -> Result<(), Error> {
        let Intake { stop, inbox, clock, counters, gate: way } = intake;
        let Listener { socket, file, endpoint, mut gate } = self;
        let failed = |action| {
            let endpoint = &endpoint;
            move |source| endpoint.failed(action, source)
        };
        let socket = match &gate {
            Admission::Unix(_) => UnixDatagram::from_std(socket.into()).map(AsyncSocket::Unix),
            Admission::Udp | Admission::SecureUdp(_) => {
                UdpSocket::from_std(socket.into()).map(AsyncSocket::Udp)
            }
        };
        let socket = socket.map_err(failed("watch the socket"))?;
        // Declared after the socket and so dropped before it: while the file exists its socket is open, and
        // no other server takes over the path.
        let _file = file;
        let mut buffer = match &gate {
            Admission::Unix(_) => ReceiveBuffer::for_unix(),
            Admission::Udp | Admission::SecureUdp(_) => ReceiveBuffer::for_udp(),
        };
        let mut failures = ReceiveFailures::default();
        let Some(mut permit) = way.enter(&stop).await else { return Ok(()) };
        let mut shut = pin!(way.shut());
        // Registered once instead of once for each batch.
        let mut stopped = pin!(stop.cancelled());
        // Whether more datagrams may wait than the runtime's readiness shows: at first, what has waited at the gate.
        let mut goes_on = true;
        let mut pidfds_timer = pin!(tokio::time::sleep_until(clock.instant(MonoTime::NEVER)));
        let mut pidfds_resume_at = None;
        loop {
            if way.is_shut() {
                drop(permit);
                let Some(next) = way.enter(&stop).await else { return Ok(()) };
                permit = next;
                gate.forget_pidfds();
                shut.set(way.shut());
                goes_on = true;
            }
            // Read before the receive call, so that everything delivered before the stop is still received.
            let last_round = stop.is_cancelled();
            let rounds = if last_round { LAST_ROUNDS } else { ROUNDS };
            let at_once = last_round || goes_on;
            if !at_once {
                tokio::select! {
                    ready = socket.readable() => ready.map_err(failed("wait for the socket"))?,
                    () = &mut stopped => continue,
                    () = &mut shut => continue,
                    () = &mut pidfds_timer, if pidfds_resume_at.is_some() => {
                        pidfds_resume_at = None;
                        gate.resume_pidfds(socket.as_fd(), clock.now());
                        continue;
                    }
                }
            }
            goes_on = false;
            for _ in 0..rounds {
                let passed = gate.passed(socket.as_fd());
                let received = if at_once {
                    receive_now(&socket, &mut buffer, passed)
                } else {
                    receive(&socket, &mut buffer, passed)
                };
                let is_full = match received {
                    Ok(0) => {
                        gate.note_empty();
                        break;
                    }
                    Ok(received) => {
                        failures.clear();
                        received == BATCH
                    }
                    Err(error) => {
                        failures.add(error, &endpoint, &counters).await?;
                        break;
                    }
                };
                goes_on = true;
                let (batch, refused) = gate.classify(&mut buffer, clock.now());
                counters.add(&refused);
                let resumes_at = gate.pidfds_resume_at();
                if pidfds_resume_at != resumes_at {
                    pidfds_resume_at = resumes_at;
                    pidfds_timer.as_mut().reset(clock.instant(resumes_at.unwrap_or(MonoTime::NEVER)));
                }
                if batch.queue_full_at.is_some() {
                    counters.queue_full();
                }
                if batch.is_empty() {
                    // A refused batch may cost more than an accepted one; its senders must not starve other
                    // tasks.
                    tokio::task::yield_now().await;
                } else if inbox.send(batch).await.is_err() {
                    return Ok(());
                }
                if !is_full {
                    break;
                }
            }
            if last_round {
                return Ok(());
            }
            // The engine must get to run while beats keep coming. Afterwards the kernel is asked directly,
            // because more may have arrived.
            give_way().await;
        }
    }
}

/// Lets the ready tasks of this thread run first. Unlike `tokio::task::yield_now`, it does not make the
/// runtime poll for I/O.
pub(super) async fn give_way() {
    let mut has_given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
