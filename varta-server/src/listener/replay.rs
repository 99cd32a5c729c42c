//! Which sealed datagrams have come before.
//!
//! A sealed datagram is genuine for ever, so whoever recorded one can send it again. Its nonce tells: a prefix that
//! stands for the sender's session, and a counter that only goes up within it. For each prefix that a key has opened
//! the highest counter is remembered; what is not higher is refused, from wherever it comes. A sender may have several
//! sessions at once (two handles, two containers behind one address), so a new prefix by itself ends no other. One is
//! over when the beats under it are continued under another prefix from the same socket: then what is older than the first
//! of those is refused too. Nothing that an attacker can make of recordings ends a session that goes on.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

use hashbrown::HashTable;

use crate::beat::KeyId;
use crate::outcome::Outcome;
use crate::time::MonoTime;

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
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    prefix: [u8; 8],
    /// A number for the socket that it came from first, with key and pid.
    socket: u64,
    /// Of its newest beat.
    line: Line,
    /// The nonce of the first beat by which it was continued under another prefix; `u64::MAX` while it was not.
    continued_at: u64,
    highest: u32,
    /// When its last datagram came, in seconds.
    heard_at: u32,
    key: KeyId,
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
            return Ok(());
        }
        let socket = self.hasher.hash_one((stamp.source, stamp.key, stamp.pid));
        let session = Session {
            prefix: stamp.prefix,
            socket,
            line: stamp.line,
            continued_at: u64::MAX,
            highest: stamp.counter,
            heard_at,
            key: stamp.key,
        };
        let number = self.place(session)?;
        let ReplayTable { sessions, by_prefix, by_socket, hasher, .. } = self;
        by_prefix.insert_unique(hash, number, |number| sessions[*number as usize].hash(hasher));
        match by_socket.find_mut(socket, |number| sessions[*number as usize].socket == socket) {
            Some(newest) => {
                let before = &mut sessions[*newest as usize];
                if stamp.line.continues(&before.line) {
                    before.continued_at = stamp.line.nonce;
                }
                *newest = number;
            }
            None => {
                by_socket.insert_unique(socket, number, |number| sessions[*number as usize].socket);
            }
        }
        Ok(())
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
                *self.by_socket.find(session.socket, of_socket).ok_or(Outcome::ReplayTableFull)?
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
        if let Ok(entry) = self.by_socket.find_entry(session.socket, |candidate| *candidate == number) {
            entry.remove();
        }
    }
}

impl Session {
    fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((self.key, self.prefix))
    }
}

/// Whole seconds; they do for telling the living from the dead.
fn seconds(at: MonoTime) -> u32 {
    u32::try_from(at.as_nanos() / 1_000_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const FRESH: Result<(), Outcome> = Ok(());
    const REPLAYED: Result<(), Outcome> = Err(Outcome::Replayed);
    const FULL: Result<(), Outcome> = Err(Outcome::ReplayTableFull);

    struct World {
        table: ReplayTable,
        at: MonoTime,
    }

    impl World {
        fn with_room_for(most: usize) -> Self {
            World { table: ReplayTable::new(most, HOUR), at: MonoTime::from_secs(10) }
        }

        /// A datagram of session `prefix` with `counter`, from a port. Its clock and nonces are those of no other.
        fn hears(&mut self, prefix: u8, counter: u32, port: u16) -> Result<(), Outcome> {
            let line = Line { nonce: u64::from(counter), start: i64::from(prefix) * 1_000_000_000 };
            self.hears_in(line, prefix, counter, port)
        }

        fn hears_in(&mut self, line: Line, prefix: u8, counter: u32, port: u16) -> Result<(), Outcome> {
            let source = SocketAddr::from(([10, 0, 0, 1], port));
            let stamp = Stamp { key: KeyId(0), pid: 42, source, prefix: [prefix; 8], counter, line };
            self.table.admit(&stamp, self.at)
        }
    }

    #[test]
    fn only_a_higher_counter_is_new() {
        let mut world = World::with_room_for(10);
        assert_eq!(world.hears(1, 0, 7), FRESH);
        assert_eq!(world.hears(1, 0, 7), REPLAYED);
        assert_eq!(world.hears(1, 5, 7), FRESH);
        assert_eq!(world.hears(1, 4, 7), REPLAYED);
        assert_eq!(world.hears(1, u32::MAX, 7), FRESH);
        assert_eq!(world.hears(1, u32::MAX, 7), REPLAYED);
    }

    #[test]
    fn another_port_makes_nothing_new() {
        let mut world = World::with_room_for(10);
        assert_eq!(world.hears(1, 5, 7), FRESH);
        assert_eq!(world.hears(1, 5, 8), REPLAYED);
        assert_eq!(world.hears(1, 6, 8), FRESH, "an agent whose port was translated anew goes on");
    }

    /// Beat `nonce` of the one handle that there is.
    const fn beat(nonce: u64) -> Line {
        Line { nonce, start: 7_000_000_000 }
    }

    #[test]
    fn a_prefix_that_is_continued_under_another_is_over_also_for_what_was_held_back() {
        let mut world = World::with_room_for(10);
        assert_eq!(world.hears_in(beat(5), 1, 5, 7), FRESH);
        assert_eq!(world.hears_in(beat(8), 2, 1, 7), FRESH);
        assert_eq!(world.hears_in(beat(6), 1, 6, 7), REPLAYED);
        assert_eq!(world.hears_in(beat(7), 1, 7, 9), REPLAYED);
        assert_eq!(world.hears_in(beat(9), 2, 2, 7), FRESH);
    }

    #[test]
    fn a_recording_that_seems_to_come_from_its_socket_ends_no_session() {
        let mut world = World::with_room_for(10);
        assert_eq!(world.hears_in(beat(5), 1, 5, 7), FRESH);
        for (prefix, nonce) in [(2, 1), (3, 500)] {
            // Of a session before: its clock started at another moment.
            let line = Line { nonce, start: 1_000_000_000 };
            assert_eq!(world.hears_in(line, prefix, 9, 7), FRESH, "nobody knows it");
        }
        assert_eq!(world.hears_in(beat(6), 1, 6, 7), FRESH);
    }

    #[test]
    fn not_even_a_recording_that_fits_keeps_a_session_out_that_goes_on() {
        let mut world = World::with_room_for(10);
        assert_eq!(world.hears_in(beat(5), 1, 5, 7), FRESH);
        assert_eq!(world.hears_in(beat(6), 2, 9, 7), FRESH);
        assert_eq!(world.hears_in(beat(6), 1, 6, 7), REPLAYED);
        assert_eq!(world.hears_in(beat(7), 1, 7, 7), FRESH);
    }

    #[test]
    fn whose_port_somebody_else_has_now_goes_on() {
        let mut world = World::with_room_for(10);
        assert_eq!(world.hears(1, 5, 7), FRESH);
        assert_eq!(world.hears(1, 6, 8), FRESH);
        assert_eq!(world.hears(2, 1, 7), FRESH);
        assert_eq!(world.hears(1, 7, 8), FRESH);
    }

    #[test]
    fn in_a_full_table_a_sender_goes_on_under_another_prefix() {
        let mut world = World::with_room_for(2);
        assert_eq!(world.hears_in(beat(5), 1, 5, 7), FRESH);
        assert_eq!(world.hears(9, 1, 9), FRESH);
        assert_eq!(world.hears_in(beat(6), 2, 1, 7), FRESH);
        assert_eq!(world.hears_in(beat(7), 2, 2, 7), FRESH);
        assert_eq!(world.hears(9, 1, 9), REPLAYED, "and nobody else was forgotten for it");
        assert_eq!(world.table.sessions.len(), 2);
        assert_eq!((world.table.by_prefix.len(), world.table.by_socket.len()), (2, 2));
    }

    #[test]
    fn two_sessions_of_one_sender_live_beside_each_other() {
        let mut world = World::with_room_for(10);
        for counter in 1..5 {
            assert_eq!(world.hears(1, counter, 7), FRESH);
            assert_eq!(world.hears(2, counter, 8), FRESH);
        }
    }

    #[test]
    fn the_same_prefix_under_another_key_is_another_session() {
        let mut world = World::with_room_for(10);
        assert_eq!(world.hears(1, 5, 7), FRESH);
        let source = SocketAddr::from(([10, 0, 0, 1], 9));
        let line = Line { nonce: 1, start: 0 };
        let other = Stamp { key: KeyId(1), pid: 42, source, prefix: [1; 8], counter: 1, line };
        assert_eq!(world.table.admit(&other, world.at), FRESH);
        assert_eq!(world.hears(1, 6, 7), FRESH);
    }

    #[test]
    fn a_full_table_refuses_new_senders_and_never_a_live_one() {
        let mut world = World::with_room_for(100);
        for prefix in 0..100 {
            assert_eq!(world.hears(prefix, 1, 1000 + u16::from(prefix)), FRESH);
        }
        assert_eq!(world.hears(200, 1, 7), FULL);
        for prefix in 0..100 {
            assert_eq!(world.hears(prefix, 1, 8), REPLAYED, "it was not forgotten");
            assert_eq!(world.hears(prefix, 2, 1000 + u16::from(prefix)), FRESH, "and may go on");
        }
        assert_eq!(world.table.sessions.len(), 100);
    }

    #[test]
    fn who_was_silent_for_long_makes_room_when_there_is_none() {
        let mut world = World::with_room_for(3);
        for prefix in 1..=3 {
            assert_eq!(world.hears(prefix, 1, u16::from(prefix)), FRESH);
        }
        world.at = MonoTime::from_secs(10 + 3601);
        assert_eq!(world.hears(2, 2, 2), FRESH);
        assert_eq!(world.hears(4, 1, 4), FRESH);
        assert_eq!(world.hears(5, 1, 5), FRESH);
        assert_eq!(world.hears(6, 1, 6), FULL, "all that are left are live");
        assert_eq!(world.hears(2, 2, 2), REPLAYED);
        assert_eq!(world.table.by_prefix.len(), 3);
        assert_eq!(world.table.by_socket.len(), 3);
    }
}
