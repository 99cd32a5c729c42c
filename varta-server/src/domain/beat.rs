//! What a listener hands to the tracker: a decoded datagram, its sender as far as the transport attests it,
//! and the time at which it was read.
//!
//! These types are the border between ingest and tracker: listeners make them and know no agents, the tracker
//! takes them and knows no sockets.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use varta_proto::control::{AgentName, GoodbyeReason};
use varta_proto::{Frame, Status};

use crate::base::time::MonoTime;
use crate::domain::by_value;
use crate::domain::labels::Labels;
use crate::domain::report::Report;

/// A well-formed frame from an accepted sender, on its way to the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedBeat {
    /// When the listener read it. One reading of the clock serves a whole batch.
    pub received_at: MonoTime,
    /// The sender, as far as the transport attests it.
    pub sender: Sender,
    /// The decoded frame.
    pub frame: Frame,
}

/// A well-formed control datagram from an accepted sender, on its way to the tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedControl {
    /// When the listener read it.
    pub received_at: MonoTime,
    /// The sender, as far as the transport attests it.
    pub sender: Sender,
    /// The decoded message.
    pub said: ControlMessage,
}

impl ReceivedControl {
    /// Whether it came as a datagram of its own.
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        !matches!(self.said, ControlMessage::Notification(Notification { is_derived: true, .. }))
    }
}

/// A control message: what an agent sends in addition to its beats.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlMessage {
    /// The agent's identity and requests.
    Hello(Hello),
    /// From now on the listener sees only some of the agent's beats, because the agent writes them to a
    /// shared memory page.
    Attach,
    /// The agent leaves.
    Goodbye {
        /// The nonce of the last beat of the agent's session.
        nonce: u64,
        /// When the agent sent it, on the clock of its beats.
        timestamp: u64,
        /// The reason, if the agent gave one.
        reason: Option<GoodbyeReason>,
    },
    /// The agent is a service that speaks sd_notify(3), and has said something.
    Notification(Notification),
    /// A process says something of an agent that is known by its name alone.
    Report(Report),
    /// The agent says something of itself.
    Said {
        /// Words for people, which may be empty: at most
        /// [`MAX_SAID_LEN`](varta_proto::control::Report::MAX_SAID_LEN) bytes.
        words: Arc<str>,
        /// The child of its process that does its work, by the pid that it has for its parent; `None` for the one that
        /// was named before.
        child: Option<NonZeroU32>,
    },
}

/// What a service said by sd_notify(3), as far as it concerns its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The frame that it stands for: the next of its session if it is a sign of life, else the last.
    pub frame: Frame,
    /// Whether it is a sign of life, and counts as a beat.
    pub is_beat: bool,
    /// What is awaited of the agent from now on; `None` for what was awaited before.
    pub keep_alives: Option<KeepAlives>,
    /// The time from now on in which the agent may be silent.
    pub busy_for: Option<Duration>,
    /// Its status in its own words, of at most 256 bytes and without control characters.
    pub status: Option<Arc<str>>,
    /// Whether the agent leaves.
    pub is_goodbye: bool,
    /// Whether it follows from a message of another process, or from its end: it is not counted as a message.
    pub is_derived: bool,
}

impl Notification {
    /// Whether it is no more than a beat.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let Notification { frame, is_beat, keep_alives, busy_for, status, is_goodbye, is_derived } = self;
        let says_more = keep_alives.is_some() || busy_for.is_some() || status.is_some() || *is_goodbye;
        *is_beat && !says_more && !is_derived && frame.status == Status::Ok
    }
}

/// The keep-alives that are awaited of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepAlives {
    /// None: it is watched by its process alone. An agent that has beaten otherwise is awaited all the same.
    Unawaited,
    /// One within this time, which the service has named.
    Within(Duration),
    /// One at this interval, as far as it has been seen.
    Every(Duration),
}

/// The content of a Hello: the agent's identity and requests. Every field may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's name.
    #[serde(with = "by_value::name")]
    pub name: Option<AgentName>,
    /// The interval at which the agent intends to beat.
    pub interval: Option<Duration>,
    /// The stall timeout that the agent requests.
    pub stall_after: Option<Duration>,
    /// The time from now on in which the agent may be silent ("busy until").
    pub busy_for: Option<Duration>,
    /// How long the counter in the payload of the agent's beats may stand, if the agent says that it is one; zero
    /// leaves that to the server.
    pub no_progress_after: Option<Duration>,
    /// The agent's labels, by which operators sort agents.
    #[serde(with = "by_value::labels")]
    pub labels: Labels,
    /// The user whose process sent it, where the kernel attests that.
    pub uid: Option<u32>,
}

/// The sender of a datagram, as far as the transport attests it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sender {
    /// The transport and address that the datagram came from.
    pub origin: Origin,
    /// The process id on the sender's host. The kernel vouches for a pid of this host; a pid of another host
    /// is what the frame says.
    pub pid: u32,
    /// The source port and the key; the same for all processes of this host.
    pub lane: RemoteEndpoint,
}

/// The transport and address that beats come from. In JSON `"local"`, `"notify"`, `{"named": {"uid": 1000}}`,
/// `{"udp": "10.0.0.7"}` or `{"secure_udp": "10.0.0.7"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// A process of this host whose pid the kernel vouches for.
    Local,
    /// The same, known by what it said by sd_notify(3).
    Notify,
    /// What processes of this host report of a name, through the Unix socket. The kernel vouches for the user.
    Named {
        /// The user.
        uid: u32,
    },
    /// An address over plaintext UDP. Nothing vouches for the sender or the address.
    Udp(IpAddr),
    /// An address over sealed UDP. The sender holds a key; nothing vouches for the address.
    SecureUdp(IpAddr),
}

/// The remote endpoint: what distinguishes senders that share address and pid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RemoteEndpoint {
    /// The source port. It changes when an agent reconnects.
    pub port: u16,
    /// The key that opened the datagram.
    pub key: KeyId,
}

/// A key by its number. Numbers are assigned in the order in which keys are first seen, and never reused for
/// another key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyId(pub u16);

/// The transport of a datagram: the value of the metric label `transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// A Unix datagram socket with kernel credentials.
    Unix,
    /// A page of memory that a local process shares with this server. Its agent is one of
    /// [`Transport::Unix`], over which it sends control messages and every beat that reports something new.
    Shm,
    /// UDP in plaintext, which others can read and forge.
    Udp,
    /// UDP in sealed datagrams: encrypted and authenticated.
    SecureUdp,
    /// A Unix datagram socket for sd_notify(3), with kernel credentials.
    Notify,
}

impl Sender {
    /// A process of this host.
    #[must_use]
    pub const fn local(pid: u32) -> Self {
        Sender { origin: Origin::Local, pid, lane: RemoteEndpoint { port: 0, key: KeyId(0) } }
    }

    /// A service of this host, by its main process.
    #[must_use]
    pub const fn notify(pid: u32) -> Self {
        Sender { origin: Origin::Notify, ..Sender::local(pid) }
    }

    /// A user of this host, whose processes report of names.
    #[must_use]
    pub const fn named(uid: u32) -> Self {
        Sender { origin: Origin::Named { uid }, ..Sender::local(0) }
    }

    /// The sender of a plaintext datagram from `source`.
    #[must_use]
    pub fn udp(source: SocketAddr, pid: u32) -> Self {
        let lane = RemoteEndpoint { port: source.port(), key: KeyId(0) };
        // A host is the same whether its datagrams come through an IPv4 socket or a dual-stack one.
        Sender { origin: Origin::Udp(source.ip().to_canonical()), pid, lane }
    }

    /// The sender of a datagram from `source` that `key` opened.
    #[must_use]
    pub fn secure_udp(source: SocketAddr, pid: u32, key: KeyId) -> Self {
        let lane = RemoteEndpoint { port: source.port(), key };
        Sender { origin: Origin::SecureUdp(source.ip().to_canonical()), pid, lane }
    }
}

impl Origin {
    /// The transport of the origin's datagrams. Beats in shared memory are counted apart, and belong to the
    /// same agent.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Origin::Local | Origin::Named { .. } => Transport::Unix,
            Origin::Notify => Transport::Notify,
            Origin::Udp(_) => Transport::Udp,
            Origin::SecureUdp(_) => Transport::SecureUdp,
        }
    }

    /// The address of the remote host; `None` for this host.
    #[must_use]
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            Origin::Local | Origin::Notify | Origin::Named { .. } => None,
            Origin::Udp(address) | Origin::SecureUdp(address) => Some(address),
        }
    }

    /// Whether it is a process of this host.
    #[must_use]
    pub const fn is_local(self) -> bool {
        matches!(self, Origin::Local | Origin::Notify)
    }

    /// What tells apart agents of one name and pid, where `host` is the name of the host, see [`Origin::host`]: one
    /// address may have agents on two transports.
    pub(crate) fn place(self, host: &str) -> String {
        match self {
            Origin::Local | Origin::Notify => host.to_owned(),
            // One that has not come has no pid either.
            Origin::Named { .. } => format!("named:{host}"),
            Origin::Udp(_) | Origin::SecureUdp(_) => format!("{}:{host}", self.transport().as_str()),
        }
    }

    /// The name of the host: its address, or `own` for this host.
    #[must_use]
    pub fn host(self, own: &str) -> String {
        self.address().map_or_else(|| own.to_owned(), |address| address.to_string())
    }
}

impl Transport {
    /// Every transport, by [`Transport::index`].
    pub const ALL: [Transport; 5] =
        [Transport::Unix, Transport::Udp, Transport::SecureUdp, Transport::Shm, Transport::Notify];

    /// Its place in [`Transport::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Transport::Unix => 0,
            Transport::Udp => 1,
            Transport::SecureUdp => 2,
            Transport::Shm => 3,
            Transport::Notify => 4,
        }
    }

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Transport::Unix => "unix",
            Transport::Udp => "udp",
            Transport::SecureUdp => "secure_udp",
            Transport::Shm => "shm",
            Transport::Notify => "notify",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_the_same_through_a_socket_for_both_families() {
        let through_ipv4 = Sender::udp("10.0.0.7:4000".parse().unwrap(), 42);
        let through_both = Sender::udp("[::ffff:10.0.0.7]:4000".parse().unwrap(), 42);
        assert_eq!(through_ipv4, through_both);
    }

    #[test]
    fn every_transport_stands_at_its_index() {
        for (index, transport) in Transport::ALL.into_iter().enumerate() {
            assert_eq!(transport.index(), index);
        }
    }
}
