//! Which sealed datagrams have come before.
//!
//! A sealed datagram is genuine for ever, so whoever recorded one can send it again. Its nonce tells: a prefix that
//! stands for the sender's session, and a counter that only goes up within it. For each prefix that a key has opened
//! the highest counter is remembered; what is not higher is refused, from wherever it comes. A sender may have several
//! sessions at once (two handles, two containers behind one address), so a new prefix by itself ends no other. One is
//! over when the beats under it are continued under another prefix from the same socket: then what is older than the first
//! of those is refused too. Nothing that an attacker can make of recordings ends a session that goes on.

pub(in crate::ingest) mod persisted;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use hashbrown::HashTable;

use crate::base::time::MonoTime;
use crate::domain::beat::KeyId;
use crate::domain::outcome::Outcome;

/// How many sessions are looked at to find one that may make room for a new one.
const LOOKS: usize = 1024;
/// Beats continue those under another prefix if their clock started at the same moment, give or take the jitter of a
/// network.
const CONTINUES_WITHIN_NANOS: u64 = 50_000_000;

/// The sessions of authenticated senders.
#[derive(Debug)]
pub(super) struct ReplayTable {
    sessions: Vec<Session>,
    /// The most that there may be.
    most: usize,
    /// How long after its last datagram a session is live and cannot be forgotten.
    live_for: Duration,
    /// Session numbers by key and prefix.
    by_prefix: HashTable<u32>,
    /// The newest session of each socket, by what tells sockets apart.
    by_socket: HashTable<u32>,
    /// Where to look next for one that makes room.
    hand: usize,
    /// Whether a session has changed since they were last handed out to be saved.
    has_unsaved: bool,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    prefix: [u8; 8],
    /// A number for the socket that it came from first, with key and pid. Of one that a server before this one knew there is
    /// none until it is heard: the numbers are others in each process.
    socket: Option<NonZeroU64>,
    /// Of its newest beat.
    line: Line,
    /// The nonce of the first beat by which it was continued under another prefix; `u64::MAX` while it was not.
    continued_at: u64,
    highest: u32,
    /// When its last datagram came, in seconds.
    heard_at: u32,
    key: KeyId,
    /// Whether it was handed out to be saved as it is.
    is_saved: bool,
}

/// Where the beats under a prefix are: which of them is the newest, and when their clock started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) nonce: u64,
    /// On the server's clock, in nanoseconds, which the start of the server may be after.
    pub(super) start: i64,
}

impl Line {
    /// Of a beat with `nonce` and `timestamp` that came at `at`.
    pub(super) fn of(nonce: u64, timestamp: u64, at: MonoTime) -> Self {
        let start = i128::from(at.as_nanos()) - i128::from(timestamp);
        Line { nonce, start: i64::try_from(start).unwrap_or(i64::MIN) }
    }

    fn continues(&self, earlier: &Line) -> bool {
        self.nonce > earlier.nonce && self.start.abs_diff(earlier.start) <= CONTINUES_WITHIN_NANOS
    }
}

/// What the outside of a datagram says, its key having opened it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) key: KeyId,
    pub(super) pid: u32,
    pub(super) source: SocketAddr,
    pub(super) prefix: [u8; 8],
    pub(super) counter: u32,
    pub(super) line: Line,
}

impl ReplayTable {
    /// Makes a table for at most `most` sessions, each of which is kept for at least `live_for` after its last datagram.
    pub(super) fn new(most: usize, live_for: Duration) -> Self {
        ReplayTable {
            sessions: Vec::new(),
            most: most.min(u32::MAX as usize),
            live_for,
            by_prefix: HashTable::new(),
            by_socket: HashTable::new(),
            hand: 0,
            has_unsaved: false,
            hasher: RandomState::new(),
        }
    }

    /// Takes note of an opened datagram that is new.
    ///
    /// # Errors
    ///
    /// [`Outcome::Replayed`] for one that is not, [`Outcome::ReplayTableFull`] for one that begins a session for which
    /// there is no room. Nothing changes then.
    pub(super) fn admit(&mut self, stamp: &Stamp, at: MonoTime) -> Result<(), Outcome> {
        let heard_at = seconds(at);
        let hash = self.hasher.hash_one((stamp.key, stamp.prefix));
        let known = self.by_prefix.find(hash, |number| {
            let session = &self.sessions[*number as usize];
            session.prefix == stamp.prefix && session.key == stamp.key
        });
        if let Some(number) = known {
            let session = &mut self.sessions[*number as usize];
            let is_over = session.continued_at != u64::MAX && stamp.line.nonce <= session.continued_at;
            if is_over || stamp.counter <= session.highest {
                return Err(Outcome::Replayed);
            }
            session.highest = stamp.counter;
            session.heard_at = heard_at;
            session.line = stamp.line;
            session.is_saved = false;
            self.has_unsaved = true;
            if session.socket.is_none() {
                let number = *number;
                self.settle(number, stamp);
            }
            return Ok(());
        }
        let socket = self.number_of_socket(stamp);
        let session = Session {
            prefix: stamp.prefix,
            socket: Some(socket),
            line: stamp.line,
            continued_at: u64::MAX,
            highest: stamp.counter,
            heard_at,
            key: stamp.key,
            is_saved: false,
        };
        let number = self.place(session)?;
        self.has_unsaved = true;
        let ReplayTable { sessions, by_prefix, by_socket, hasher, .. } = self;
        by_prefix.insert_unique(hash, number, |number| sessions[*number as usize].hash(hasher));
        match by_socket.find_mut(socket.get(), |number| sessions[*number as usize].socket == Some(socket)) {
            Some(newest) => {
                let before = &mut sessions[*newest as usize];
                if stamp.line.continues(&before.line) {
                    before.continued_at = stamp.line.nonce;
                    before.is_saved = false;
                }
                *newest = number;
            }
            None => {
                by_socket.insert_unique(socket.get(), number, |number| {
                    sessions[*number as usize].hash_of_socket()
                });
            }
        }
        Ok(())
    }

    /// Gives a session that a server before this one knew the socket that it was heard from.
    fn settle(&mut self, number: u32, stamp: &Stamp) {
        let socket = self.number_of_socket(stamp);
        let ReplayTable { sessions, by_socket, .. } = self;
        if by_socket.find(socket.get(), |known| sessions[*known as usize].socket == Some(socket)).is_none() {
            by_socket
                .insert_unique(socket.get(), number, |number| sessions[*number as usize].hash_of_socket());
        }
        sessions[number as usize].socket = Some(socket);
    }

    fn number_of_socket(&self, stamp: &Stamp) -> NonZeroU64 {
        let hash = self.hasher.hash_one((stamp.source, stamp.key, stamp.pid));
        NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN)
    }

    /// Finds a place for a session: a free one, or that of one that has long been silent, the longest of those that are
    /// looked at. Where there is none, a sender that is known by its socket has that of its own last session.
    fn place(&mut self, session: Session) -> Result<u32, Outcome> {
        let full = |_| Outcome::ReplayTableFull;
        let next = self.sessions.len();
        if next < self.most {
            self.sessions.push(session);
            return u32::try_from(next).map_err(full);
        }
        let looked_at = (0..LOOKS.min(next)).map(|step| (self.hand + step) % next);
        let silent = looked_at.min_by_key(|number| self.sessions[*number].heard_at);
        self.hand = (self.hand + LOOKS) % next.max(1);
        let is_stale = |number: &usize| {
            let heard_at = self.sessions[*number].heard_at;
            Duration::from_secs(u64::from(session.heard_at.saturating_sub(heard_at))) > self.live_for
        };
        let number = match silent.filter(is_stale) {
            Some(number) => u32::try_from(number).map_err(full)?,
            None => {
                let of_socket = |number: &u32| self.sessions[*number as usize].socket == session.socket;
                *self.by_socket.find(session.hash_of_socket(), of_socket).ok_or(Outcome::ReplayTableFull)?
            }
        };
        let before = self.sessions[number as usize];
        self.forget(number, &before);
        self.sessions[number as usize] = session;
        Ok(number)
    }

    fn forget(&mut self, number: u32, session: &Session) {
        let hash = session.hash(&self.hasher);
        if let Ok(entry) = self.by_prefix.find_entry(hash, |candidate| *candidate == number) {
            entry.remove();
        }
        if let Ok(entry) =
            self.by_socket.find_entry(session.hash_of_socket(), |candidate| *candidate == number)
        {
            entry.remove();
        }
    }
}

impl Session {
    fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((self.key, self.prefix))
    }

    fn hash_of_socket(&self) -> u64 {
        self.socket.map_or(0, NonZeroU64::get)
    }
}

/// Whole seconds; they do for telling the living from the dead.
fn seconds(at: MonoTime) -> u32 {
    u32::try_from(at.as_nanos() / 1_000_000_000).unwrap_or(u32::MAX)
}
