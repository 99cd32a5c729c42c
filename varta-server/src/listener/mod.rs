//! Listeners: one task for each socket. A listener reads what has come, checks who sent it and whether it is a frame,
//! and hands on what is good. It knows sockets and nothing of agents.

mod batch;
mod closer;
mod namespaces;
mod page;
mod pages;
mod probe;
mod replay;
mod socket_file;
mod udp;
mod unix;
mod vault;
mod watched;

pub use self::socket_file::SocketOptions;
pub use self::unix::AllowedSenders;
pub use self::vault::KeyFiles;

pub(crate) use self::pages::Pages;
pub(crate) use self::probe::Probe;
pub(crate) use self::replay::Seal;
pub(crate) use self::socket_file::SocketFile;
pub(crate) use self::udp::Options as UdpOptions;
pub(crate) use self::vault::Vault;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use varta_proto::control::{CONTROL_MAGIC, Control, ControlKind};
use varta_proto::{DecodeError, FRAME_LEN, Frame};

use self::batch::{BATCH, ReceiveBuffer};
use self::closer::Closer;
use self::namespaces::Namespaces;
use self::watched::{Watched, receive, receive_now};
use crate::beat::{Introduction, ReceivedBeat, ReceivedControl, Said, Sender, Transport};
use crate::clock::Clock;
use crate::error::Error;
use crate::metrics::FrameCounters;
use crate::outcome::{Outcome, Tally};
use crate::process::namespace_pids;
use crate::queues;
use crate::time::MonoTime;

/// How many batches may wait for the tracker. With 64 beats in each that is the work of about a millisecond. A
/// listener that finds no place waits, and does not read meanwhile: then the kernel's queue fills, which senders see.
pub(crate) const INBOX_BATCHES: usize = 32;
/// System calls in a row before the other tasks of the thread get their turn.
const ROUNDS: usize = 8;
/// How long to leave the socket alone when the kernel is short of something.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);
/// So many failures in a row, a second's worth, and it is not a shortage that passes.
const MOST_ERRORS: u32 = 50;

/// Beats that were read together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) transport: Transport,
    pub(crate) beats: Vec<ReceivedBeat>,
    /// What came between them, each with the number of beats before it. There are few.
    pub(crate) controls: Vec<(usize, ReceivedControl)>,
    /// When it was read, if the socket's queue was full, so that senders were turned away.
    pub(crate) turned_away_at: Option<MonoTime>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.beats.is_empty() && self.controls.is_empty() && self.turned_away_at.is_none()
    }
}

/// What a datagram says whose sender is believed.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Beat(Frame),
    Control(Said),
    /// A page of memory comes with it, in which frames are going to have this pid.
    Attach {
        pid: u32,
    },
}

impl Message {
    /// Reads a plain datagram. Only a beat is as long as a beat.
    fn decode(payload: &[u8]) -> Result<(u32, Message), DecodeError> {
        if payload.len() != FRAME_LEN && payload.starts_with(&CONTROL_MAGIC) {
            let control = Control::decode(payload)?;
            return Ok((control.pid(), Message::of(&control)?));
        }
        let frame = Frame::decode(payload)?;
        Ok((frame.pid, Message::Beat(frame)))
    }

    /// What a control datagram says that is no Attach: memory is shared with nobody but processes of this host.
    fn of(control: &Control<'_>) -> Result<Self, DecodeError> {
        let duration = |millis: Option<u32>| millis.map(|millis| Duration::from_millis(u64::from(millis)));
        Ok(Message::Control(match control.kind() {
            ControlKind::Attach => return Err(DecodeError::BadKind { actual: ControlKind::Attach as u8 }),
            ControlKind::Hello => Said::Hello(Introduction {
                name: control.name().copied(),
                interval: duration(control.interval_ms()),
                stall_after: duration(control.stall_after_ms()),
                busy_for: duration(control.busy_for_ms()),
                labels: control.labels().map(|label| (label.key(), label.value())).collect(),
            }),
            ControlKind::Goodbye => Said::Goodbye {
                nonce: control.nonce(),
                timestamp: control.timestamp(),
                reason: control.reason(),
            },
        }))
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Unix(PathBuf),
    Udp(SocketAddr),
    SecureUdp(SocketAddr),
}

impl Endpoint {
    pub(crate) const fn transport(&self) -> Transport {
        match self {
            Endpoint::Unix(_) => Transport::Unix,
            Endpoint::Udp(_) => Transport::Udp,
            Endpoint::SecureUdp(_) => Transport::SecureUdp,
        }
    }

    /// The address of a UDP socket.
    pub(crate) const fn address(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Unix(_) => None,
            Endpoint::Udp(address) | Endpoint::SecureUdp(address) => Some(*address),
        }
    }
}

/// `unix:/run/varta/varta.sock`, `udp:127.0.0.1:9844`, `secure-udp:[::]:9845`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Udp(address) => write!(f, "udp:{address}"),
            Endpoint::SecureUdp(address) => write!(f, "secure-udp:{address}"),
        }
    }
}

/// Whom to believe.
#[derive(Debug)]
enum Gate {
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

/// A bound socket, and whom to believe on it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    /// That of a Unix socket.
    file: Option<SocketFile>,
    endpoint: Endpoint,
    gate: Gate,
}

impl Listener {
    /// Makes a Unix socket and its file.
    pub(crate) fn unix(
        options: &SocketOptions,
        allowed: AllowedSenders,
        pages: Pages,
    ) -> Result<Self, Error> {
        let (socket, file) = SocketFile::bind(options)?;
        let endpoint = Endpoint::Unix(file.path().to_path_buf());
        let queue = queues::unix_queue();
        let failed = |source| endpoint.failed("start a thread for", source);
        let closer = Closer::start().map_err(failed)?;
        let namespaces = Namespaces::new(namespace_pids);
        let gate = Gate::Unix { allowed, namespaces, queue, pages, closer };
        Ok(Listener { socket: socket.into(), file: Some(file), endpoint, gate })
    }

    /// Takes an address for plaintext.
    pub(crate) fn udp(options: &UdpOptions) -> Result<Self, Error> {
        let (socket, address) = udp::bind("--udp", options)?;
        Ok(Listener { socket, file: None, endpoint: Endpoint::Udp(address), gate: Gate::Udp })
    }

    /// Takes an address for what the keys of `vault` open.
    pub(crate) fn secure_udp(options: &UdpOptions, vault: Vault) -> Result<Self, Error> {
        let (socket, address) = udp::bind("--secure-udp", options)?;
        let endpoint = Endpoint::SecureUdp(address);
        Ok(Listener { socket, file: None, endpoint, gate: Gate::SecureUdp(vault) })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The address of a UDP socket and how many bytes its queue was granted.
    pub(crate) fn udp_queue(&self) -> Option<(SocketAddr, usize)> {
        let granted = socket2::SockRef::from(&self.socket).recv_buffer_size().ok()?;
        Some((self.endpoint.address()?, granted))
    }

    /// Gives what looks at the socket from outside.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left.
    pub(crate) fn probe(&self) -> Result<Probe, Error> {
        let descriptor = self.socket.try_clone();
        let transport = self.endpoint.transport();
        descriptor
            .map(|descriptor| Probe::new(descriptor, transport))
            .map_err(|source| self.endpoint.failed("duplicate the socket", source))
    }

    /// Hands on batches of beats until `stop` is cancelled, and then what has arrived by that moment.
    pub(crate) async fn run(
        self,
        stop: CancellationToken,
        inbox: mpsc::Sender<Batch>,
        clock: Clock,
        counters: FrameCounters,
    ) -> Result<(), Error> {
        let Listener { socket, file, endpoint, mut gate } = self;
        let failed = |action| {
            let endpoint = &endpoint;
            move |source| endpoint.failed(action, source)
        };
        let socket = match &gate {
            Gate::Unix { .. } => UnixDatagram::from_std(socket.into()).map(Watched::Unix),
            Gate::Udp | Gate::SecureUdp(_) => UdpSocket::from_std(socket.into()).map(Watched::Udp),
        };
        let socket = socket.map_err(failed("watch the socket"))?;
        // Declared after the socket and so dropped before it: as long as the file is there somebody answers behind it,
        // and no other server takes its place.
        let _file = file;
        let mut buffer = match &gate {
            Gate::Unix { .. } => ReceiveBuffer::for_unix(),
            Gate::Udp | Gate::SecureUdp(_) => ReceiveBuffer::for_udp(),
        };
        let mut errors_in_a_row = 0;
        // Registered once and not for each batch.
        let mut stopped = pin!(stop.cancelled());
        // Whether more is to be expected than the runtime knows of.
        let mut goes_on = false;
        loop {
            // Looked at before reading, so that what senders were told is delivered by then is still taken.
            let last_round = stop.is_cancelled();
            let at_once = last_round || goes_on;
            if !at_once {
                tokio::select! {
                    ready = socket.readable() => ready.map_err(failed("wait for the socket"))?,
                    () = &mut stopped => continue,
                }
            }
            goes_on = false;
            for _ in 0..ROUNDS {
                let takes_descriptors = gate.takes_descriptors();
                let received = if at_once {
                    receive_now(&socket, &mut buffer, takes_descriptors)
                } else {
                    receive(&socket, &mut buffer, takes_descriptors)
                };
                let is_full = match received {
                    Ok(0) => break,
                    Ok(received) => {
                        errors_in_a_row = 0;
                        received == BATCH
                    }
                    Err(error) => {
                        errors_in_a_row += 1;
                        counters.io_error();
                        if errors_in_a_row >= MOST_ERRORS {
                            return Err(endpoint.failed("receive from the socket", error));
                        }
                        if errors_in_a_row == 1 {
                            tracing::warn!(
                                target: "varta::ingest",
                                "{endpoint}: cannot receive: {error}; trying again"
                            );
                        }
                        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                        break;
                    }
                };
                goes_on = true;
                let (batch, refused) = gate.sort(&mut buffer, clock.now());
                counters.add(&refused);
                if batch.is_empty() {
                    // To refuse a batch may cost more than to hand one on, and whoever sends it must not keep others waiting.
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
            // Beats that keep coming must not keep the tracker from taking them; and while it does, more may come, for which
            // the kernel is asked directly.
            give_way().await;
        }
    }
}

/// Lets the tasks go first that are ready to run. Other than the runtime's own way, it does not have the kernel asked what
/// else is new.
async fn give_way() {
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

impl Endpoint {
    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Listener { endpoint: self.to_string(), action, source }
    }
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
    fn takes_descriptors(&self) -> bool {
        match self {
            Gate::Unix { closer, .. } => closer.has_room(),
            Gate::Udp | Gate::SecureUdp(_) => false,
        }
    }

    /// Keeps the beats of what was received together, and counts the rest.
    fn sort(&mut self, received: &mut ReceiveBuffer, received_at: MonoTime) -> (Batch, Tally) {
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
