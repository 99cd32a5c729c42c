//! Replay protection of sealed datagrams.
//!
//! A sealed datagram stays genuine for ever, so a recorded one can be sent again. Its nonce holds a prefix,
//! which stands for the sender's session, and a counter, which only rises within the session. The table keeps
//! the highest counter of each prefix that a key has opened, and refuses every counter that is not higher,
//! from any address: an anti-replay window of size one (compare RFC 4303, section 3.4.3). A sender may have
//! several sessions at once (two handles, two containers behind one address), so a new prefix ends no other
//! session. A session is over once its beats are continued under another prefix from the same socket; beats
//! older than the first of those are then refused as well. No replay of recordings can end a session that is
//! in use.

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
use crate::domain::outcome::FrameOutcome;

/// The number of sessions examined to find one to replace.
const LOOKS: usize = 1024;
/// The largest difference between the clock starts of two prefixes of which one continues the other, in
/// nanoseconds: the jitter of a network.
const CONTINUES_WITHIN_NANOS: u64 = 50_000_000;

/// The replay windows of all authenticated senders.
#[derive(Debug)]
pub(super) struct ReplayTable {
    sessions: Vec<ReplayWindow>,
    /// The capacity.
    most: usize,
    /// The time after its last datagram for which a session cannot be replaced.
    live_for: Duration,
    /// Session indices by key and prefix.
    by_prefix: HashTable<u32>,
    /// The newest session of each socket, by the hash that identifies a socket.
    by_socket: HashTable<u32>,
    /// The clock hand: where the next search for a session to replace begins.
    hand: usize,
    /// Whether a session has changed since the last pass of `unsaved_batch` began.
    has_unsaved: bool,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct ReplayWindow {
    prefix: [u8; 8],
    /// The hash of the socket of its first datagram, with key and pid. `None` for a session restored from
    /// disk until its next datagram: the hashes differ in each process.
    socket: Option<NonZeroU64>,
    /// The clock of its newest beat.
    line: SessionClock,
    /// The nonce of the first beat that continued it under another prefix; `u64::MAX` while there is none.
    continued_at: u64,
    highest: u32,
    /// The arrival of its last datagram, in whole seconds.
    heard_at: u32,
    key: KeyId,
    /// Whether its present state was handed out to be saved.
    is_saved: bool,
}

/// The position of a session: the nonce of its newest beat, and the start of the sender's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionClock {
    pub(super) nonce: u64,
    /// On the server's clock, in nanoseconds; negative if before the start of the server.
    pub(super) start: i64,
}

impl SessionClock {
    /// The position that a beat with `nonce` and `timestamp` shows, which arrived at `at`.
    pub(super) fn of(nonce: u64, timestamp: u64, at: MonoTime) -> Self {
        let start = i128::from(at.as_nanos()) - i128::from(timestamp);
        SessionClock { nonce, start: i64::try_from(start).unwrap_or(i64::MIN) }
    }

    fn is_same_sender(&self, earlier: &SessionClock) -> bool {
        self.nonce > earlier.nonce && self.start.abs_diff(earlier.start) <= CONTINUES_WITHIN_NANOS
    }
}

/// The header of a sealed datagram that its key has opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct SealedHeader {
    pub(super) key: KeyId,
    pub(super) pid: u32,
    pub(super) source: SocketAddr,
    pub(super) prefix: [u8; 8],
    pub(super) counter: u32,
    pub(super) line: SessionClock,
}

impl ReplayTable {
    /// Makes a table for at most `most` sessions, each of which is kept for at least `live_for` after its
    /// last datagram.
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

    /// Keeps each session for at least so long after its last datagram.
    pub(super) fn keep_for(&mut self, live_for: Duration) {
        self.live_for = live_for;
    }

    /// Records the counter of an opened datagram if it is new.
    ///
    /// # Errors
    ///
    /// [`FrameOutcome::Replayed`] for a counter that is not new, [`FrameOutcome::ReplayTableFull`] for a new
    /// session without room. The table is unchanged then.
    pub(super) fn admit(&mut self, stamp: &SealedHeader, at: MonoTime) -> Result<(), FrameOutcome> {
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
                return Err(FrameOutcome::Replayed);
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
        let session = ReplayWindow {
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
                if stamp.line.is_same_sender(&before.line) {
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

    /// Binds a session that was restored from disk to the socket of its first datagram.
    fn settle(&mut self, number: u32, stamp: &SealedHeader) {
        let socket = self.number_of_socket(stamp);
        let ReplayTable { sessions, by_socket, .. } = self;
        if by_socket.find(socket.get(), |known| sessions[*known as usize].socket == Some(socket)).is_none() {
            by_socket
                .insert_unique(socket.get(), number, |number| sessions[*number as usize].hash_of_socket());
        }
        sessions[number as usize].socket = Some(socket);
    }

    fn number_of_socket(&self, stamp: &SealedHeader) -> NonZeroU64 {
        let hash = self.hasher.hash_one((stamp.source, stamp.key, stamp.pid));
        NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN)
    }

    /// Finds a slot for a session: a free one, or that of the longest silent of the examined sessions if that
    /// is stale, or that of the last session of the same socket.
    fn place(&mut self, session: ReplayWindow) -> Result<u32, FrameOutcome> {
        let full = |_| FrameOutcome::ReplayTableFull;
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
                *self
                    .by_socket
                    .find(session.hash_of_socket(), of_socket)
                    .ok_or(FrameOutcome::ReplayTableFull)?
            }
        };
        let before = self.sessions[number as usize];
        self.forget(number, &before);
        self.sessions[number as usize] = session;
        Ok(number)
    }

    fn forget(&mut self, number: u32, session: &ReplayWindow) {
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

impl ReplayWindow {
    fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((self.key, self.prefix))
    }

    fn hash_of_socket(&self) -> u64 {
        self.socket.map_or(0, NonZeroU64::get)
    }
}

/// Whole seconds, which are exact enough to tell live sessions from stale ones.
fn seconds(at: MonoTime) -> u32 {
    u32::try_from(at.as_nanos() / 1_000_000_000).unwrap_or(u32::MAX)
}
