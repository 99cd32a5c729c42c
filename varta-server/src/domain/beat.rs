//! What a listener hands on: a decoded frame, who sent it as far as the transport can tell, and when it was read.
//!
//! It stands by itself because it is the border between the two rooms: listeners make these and know nothing of
//! agents, the tracker takes them and knows nothing of sockets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use varta_proto::Frame;
use varta_proto::control::{AgentName, GoodbyeReason};

use crate::base::time::MonoTime;
use crate::domain::labels::Labels;

/// A frame that was well formed and whose sender was accepted, on its way to the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedBeat {
    /// When the listener read it. One reading of the clock serves a whole batch.
    pub received_at: MonoTime,
    /// Who sent it.
    pub sender: Sender,
    /// What it says.
    pub frame: Frame,
}

/// A control datagram that was well formed and whose sender was accepted, on its way to the tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedControl {
    /// When the listener read it.
    pub received_at: MonoTime,
    /// Who sent it.
    pub sender: Sender,
    /// What it says.
    pub said: Said,
}

/// What an agent says beside its beats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Who it is and what it asks for.
    Hello(Introduction),
    /// That from now on some of its beats are seen, and not all, because it writes them to a page of memory.
    Attach,
    /// That it leaves.
    Goodbye {
        /// The nonce of its session's last beat.
        nonce: u64,
        /// When it said so, on the clock of its beats.
        timestamp: u64,
        /// Why, if it told that.
        reason: Option<GoodbyeReason>,
    },
}

/// Who an agent is and what it asks for; all of it may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Its name.
    pub name: Option<AgentName>,
    /// How often it means to beat.
    pub interval: Option<Duration>,
    /// How long it may be silent.
    pub stall_after: Option<Duration>,
    /// For how long from now it is not to be missed.
    pub busy_for: Option<Duration>,
    /// By what operators sort it.
    pub labels: Labels,
}

/// Who sent a beat, as far as the transport can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// Where it came from.
    pub origin: Origin,
    /// The process id that it goes by there: of this host the kernel vouches for it, of another one it is what the
    /// frame says.
    pub pid: u32,
    /// By which socket of its host, and under which key; the same for all processes of this host.
    pub lane: Lane,
}

/// Where beats come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// A process of this host whose pid the kernel vouches for.
    Local,
    /// Whoever can send from this address. Nobody vouches for anything.
    Udp(IpAddr),
    /// A holder of a key. For the address nobody vouches.
    SecureUdp(IpAddr),
}

/// What tells senders apart that share address and pid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lane {
    /// The source port. It changes when an agent connects anew.
    pub port: u16,
    /// The key that opened the datagram.
    pub key: KeyId,
}

/// A key by its number. Numbers are given in the order in which keys are first seen, and never to another key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyId(pub u16);

/// How beats arrive: the value of the metric label `transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A Unix datagram socket with kernel credentials.
    Unix,
    /// A page of memory that a local process shares with this server. Its agent is one of [`Transport::Unix`], where it
    /// says what is news.
    Shm,
    /// UDP, for everybody to read and to forge.
    Udp,
    /// UDP under a seal.
    SecureUdp,
}

impl Sender {
    /// A process of this host.
    #[must_use]
    pub const fn local(pid: u32) -> Self {
        Sender { origin: Origin::Local, pid, lane: Lane { port: 0, key: KeyId(0) } }
    }

    /// Somebody who sent a plaintext datagram from `source`.
    #[must_use]
    pub fn udp(source: SocketAddr, pid: u32) -> Self {
        let lane = Lane { port: source.port(), key: KeyId(0) };
        // The same host, whether its datagrams come through an IPv4 socket or one for both families.
        Sender { origin: Origin::Udp(source.ip().to_canonical()), pid, lane }
    }

    /// Somebody who sent a datagram from `source` that `key` opened.
    #[must_use]
    pub fn secure_udp(source: SocketAddr, pid: u32, key: KeyId) -> Self {
        let lane = Lane { port: source.port(), key };
        Sender { origin: Origin::SecureUdp(source.ip().to_canonical()), pid, lane }
    }
}

impl Origin {
    /// How its datagrams arrive. What a local process says through a page of memory is counted apart, and is that of
    /// the same agent.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Origin::Local => Transport::Unix,
            Origin::Udp(_) => Transport::Udp,
            Origin::SecureUdp(_) => Transport::SecureUdp,
        }
    }

    /// The address of the host from which they come; `None` for this host.
    #[must_use]
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            Origin::Local => None,
            Origin::Udp(address) | Origin::SecureUdp(address) => Some(address),
        }
    }

    /// What that host is called: its address, or `own` for this one.
    #[must_use]
    pub fn host(self, own: &str) -> String {
        self.address().map_or_else(|| own.to_owned(), |address| address.to_string())
    }
}

impl Transport {
    /// Every transport, by [`Transport::index`].
    pub const ALL: [Transport; 4] = [Transport::Unix, Transport::Udp, Transport::SecureUdp, Transport::Shm];

    /// Its place in [`Transport::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Transport::Unix => 0,
            Transport::Udp => 1,
            Transport::SecureUdp => 2,
            Transport::Shm => 3,
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
