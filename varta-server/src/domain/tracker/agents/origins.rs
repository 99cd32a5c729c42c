//! The origins of agents, each stored once, and the number of agents at each.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::{DefaultHashBuilder, HashTable};

use serde::{Deserialize, Serialize};

use crate::domain::beat::Origin;

/// An origin by its number, which fits an agent's cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct SourceId(u32);

impl SourceId {
    /// This host.
    pub(in crate::domain::tracker) const LOCAL: SourceId = SourceId(0);
    /// The number of no origin, for a sender whose origin has no agents.
    pub(in crate::domain::tracker) const UNHEARD: SourceId = SourceId(u32::MAX);

    #[cfg(test)]
    pub(in crate::domain::tracker) const fn numbered(number: u32) -> Self {
        SourceId(number)
    }
}

/// The origins of all agents, at most as many as agents, and this host.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct Sources {
    /// By number; this host is the first.
    entries: Vec<OriginUsage>,
    vacant: Vec<u32>,
    /// The numbers of the remote origins.
    #[serde(skip)]
    index: HashTable<u32>,
    /// Seeded differently in each process, so that nobody can choose addresses that collide.
    #[serde(skip)]
    hasher: DefaultHashBuilder,
    /// The number of plaintext agents in each neighbourhood.
    plain: HashMap<IpAddr, usize>,
    plain_in_all: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct OriginUsage {
    origin: Origin,
    agents: usize,
}

impl Default for Sources {
    fn default() -> Self {
        Sources {
            entries: vec![OriginUsage { origin: Origin::Local, agents: 0 }],
            vacant: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            plain: HashMap::new(),
            plain_in_all: 0,
        }
    }
}

impl Sources {
    /// Finds the numbers of all origins again, after they were read.
    pub(in crate::domain::tracker) fn reindex(&mut self) {
        let Sources { entries, index, hasher, .. } = self;
        index.clear();
        for (number, entry) in (0_u32..).zip(entries.iter()).skip(1).filter(|(_, entry)| entry.agents > 0) {
            index.insert_unique(hasher.hash_one(entry.origin), number, |number| {
                hasher.hash_one(entries[*number as usize].origin)
            });
        }
    }

    /// Whether there is an origin with this number.
    pub(in crate::domain::tracker) fn has(&self, source: SourceId) -> bool {
        source == SourceId::LOCAL && !self.entries.is_empty()
            || self.entries.get(source.0 as usize).is_some_and(|entry| entry.agents > 0)
    }

    /// The number of an origin that has agents, and of this host in any case.
    #[inline]
    pub(in crate::domain::tracker) fn find(&self, origin: Origin) -> Option<SourceId> {
        if origin.is_local() {
            return Some(SourceId::LOCAL);
        }
        let hash = self.hasher.hash_one(origin);
        self.index.find(hash, |number| self.entries[*number as usize].origin == origin).copied().map(SourceId)
    }

    /// Counts one more agent at an origin, and returns its number.
    pub(in crate::domain::tracker) fn enter(&mut self, origin: Origin) -> SourceId {
        if let Origin::Udp(address) = origin {
            *self.plain.entry(neighbourhood(address)).or_default() += 1;
            self.plain_in_all += 1;
        }
        if let Some(known) = self.find(origin) {
            self.entries[known.0 as usize].agents += 1;
            return known;
        }
        let entry = OriginUsage { origin, agents: 1 };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                let number = u32::try_from(self.entries.len())
                    .expect("each has an agent, and there are fewer of those than numbers");
                self.entries.push(entry);
                number
            }
        };
        let Sources { entries, index, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(origin), number, |number| {
            hasher.hash_one(entries[*number as usize].origin)
        });
        SourceId(number)
    }

    /// Counts one agent less. A remote origin is forgotten with its last agent.
    pub(in crate::domain::tracker) fn leave(&mut self, source: SourceId) {
        let SourceId(number) = source;
        let entry = &mut self.entries[number as usize];
        if let Origin::Udp(address) = entry.origin {
            let neighbourhood = neighbourhood(address);
            self.plain_in_all -= 1;
            if let Some(agents) = self.plain.get_mut(&neighbourhood) {
                *agents -= 1;
                if *agents == 0 {
                    self.plain.remove(&neighbourhood);
                }
            }
        }
        entry.agents -= 1;
        if entry.agents > 0 || source == SourceId::LOCAL {
            return;
        }
        let hash = self.hasher.hash_one(entry.origin);
        if let Ok(found) = self.index.find_entry(hash, |candidate| *candidate == number) {
            found.remove();
            self.vacant.push(number);
        }
    }

    /// The number of plaintext agents in the neighbourhood of an address, all of which one host can add.
    pub(in crate::domain::tracker) fn plain_agents_near(&self, address: IpAddr) -> usize {
        self.plain.get(&neighbourhood(address)).copied().unwrap_or(0)
    }

    /// The number of plaintext agents.
    pub(in crate::domain::tracker) fn plain_agents(&self) -> usize {
        self.plain_in_all
    }

    /// The number of agents at an origin of remote agents or of a user.
    pub(in crate::domain::tracker) fn agents(&self, origin: Origin) -> usize {
        self.find(origin).map_or(0, |source| self.entries[source.0 as usize].agents)
    }

    /// The origin with this number.
    pub(in crate::domain::tracker) fn origin(&self, source: SourceId) -> Origin {
        self.entries[source.0 as usize].origin
    }
}

/// The neighbourhood of an address: those that one host can use without forging any. An IPv4 address, all of
/// loopback, or an IPv6 network of 64 bits.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> Origin {
        Origin::Udp([10, 0, 0, last].into())
    }

    #[test]
    fn an_origin_lasts_as_long_as_it_has_agents() {
        let mut sources = Sources::default();
        let first = sources.enter(host(1));
        assert_eq!(sources.enter(host(1)), first);
        assert_ne!(sources.enter(host(2)), first);
        let near = |sources: &Sources, last| sources.plain_agents_near([10, 0, 0, last].into());
        assert_eq!((near(&sources, 1), near(&sources, 2), sources.plain_agents()), (2, 1, 3));
        sources.leave(first);
        assert_eq!(sources.find(host(1)), Some(first));
        sources.leave(first);
        assert_eq!(sources.find(host(1)), None);
        assert_eq!((near(&sources, 1), sources.plain_agents()), (0, 1));
        assert_eq!(sources.enter(host(3)), first, "its number is given again");
        assert_eq!(sources.origin(first), host(3));
    }

    #[test]
    fn the_addresses_of_one_host_are_one_neighbourhood() {
        let same = |one: &str, other: &str| {
            neighbourhood(one.parse().unwrap()) == neighbourhood(other.parse().unwrap())
        };
        assert!(same("127.0.0.1", "127.9.9.9") && same("fd00::1:2:3:4", "fd00::5:6:7:8"));
        assert!(!same("10.0.0.1", "10.0.0.2") && !same("fd00::1", "fd00:0:0:1::1"));
    }

    #[test]
    fn plain_and_sealed_from_one_address_are_two_origins() {
        let mut sources = Sources::default();
        let sealed = Origin::SecureUdp([10, 0, 0, 1].into());
        assert_ne!(sources.enter(host(1)), sources.enter(sealed));
    }

    #[test]
    fn this_host_is_always_known() {
        let mut sources = Sources::default();
        let local = sources.enter(Origin::Local);
        sources.leave(local);
        assert_eq!(sources.find(Origin::Local), Some(SourceId::LOCAL));
    }
}
