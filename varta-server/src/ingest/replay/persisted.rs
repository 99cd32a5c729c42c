//! Saving and restoring replay windows, so that a restarted server refuses replays of what its predecessor
//! accepted.

use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};

use crate::base::time::MonoTime;
use crate::domain::beat::KeyId;
use crate::ingest::replay::{ReplayTable, ReplayWindow, SessionClock, seconds};

/// The persisted part of a session's replay window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PersistedWindow {
    /// The slot of the session in the table; unique.
    pub(crate) place: u32,
    /// The fingerprint of the key that opens its datagrams.
    pub(crate) key: u64,
    /// The prefix of their nonces.
    pub(crate) prefix: [u8; 8],
    /// The highest accepted counter.
    pub(crate) highest: u32,
    /// The nonce of the first beat that continued it under another prefix; `u64::MAX` while there is none.
    pub(crate) continued_at: u64,
    /// The nonce of its newest beat.
    pub(crate) nonce: u64,
    /// The start of the sender's clock, on the server's clock, in nanoseconds.
    pub(crate) start: i64,
    /// The arrival of its last datagram, to the second.
    pub(crate) heard_at: MonoTime,
}

impl ReplayWindow {
    /// The persisted part, of the session at this place of the table, whose key has this fingerprint.
    fn persisted(&self, place: u32, key: u64) -> PersistedWindow {
        let ReplayWindow { prefix, line: SessionClock { nonce, start }, continued_at, highest, .. } = *self;
        let heard_at = MonoTime::from_secs(u64::from(self.heard_at));
        PersistedWindow { place, key, prefix, highest, continued_at, nonce, start, heard_at }
    }
}

impl ReplayTable {
    /// The capacity in sessions.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Whether a session has changed since [`ReplayTable::unsaved_batch`] last began at slot 0.
    pub(crate) fn has_unsaved(&self) -> bool {
        self.has_unsaved
    }

    /// Takes at most `most` changed sessions from slot `from` on, examining at most `looks` slots, and marks
    /// them as saved. `fingerprint` resolves the id of a key. Returns the slot to continue from; `None` at
    /// the end of the table.
    pub(crate) fn unsaved_batch(
        &mut self,
        from: usize,
        looks: usize,
        most: usize,
        fingerprint: impl Fn(KeyId) -> Option<u64>,
    ) -> (Vec<PersistedWindow>, Option<usize>) {
        if from == 0 {
            self.has_unsaved = false;
        }
        let mut seals = Vec::new();
        let end = from.saturating_add(looks).min(self.sessions.len());
        for place in from..end {
            if seals.len() >= most {
                return (seals, Some(place));
            }
            let session = &mut self.sessions[place];
            if !std::mem::replace(&mut session.is_saved, true)
                && let (Ok(place), Some(key)) = (u32::try_from(place), fingerprint(session.key))
            {
                seals.push(session.persisted(place, key));
            }
        }
        (seals, (end < self.sessions.len()).then_some(end))
    }

    /// All sessions whose keys have fingerprints.
    pub(crate) fn windows(&self, fingerprint: impl Fn(KeyId) -> Option<u64>) -> Vec<PersistedWindow> {
        let windows = (0_u32..).zip(&self.sessions);
        windows
            .filter_map(|(place, session)| Some(session.persisted(place, fingerprint(session.key)?)))
            .collect()
    }

    /// Marks every session as unsaved, because the saved copy is lost.
    pub(crate) fn mark_unsaved(&mut self) {
        self.sessions.iter_mut().for_each(|session| session.is_saved = false);
        self.has_unsaved = true;
    }

    /// Restores a session that an earlier server saved, if there is room. Merged with a known session, the
    /// stricter of both values holds.
    pub(crate) fn restore(&mut self, key: KeyId, seal: &PersistedWindow) {
        let hash = self.hasher.hash_one((key, seal.prefix));
        let ReplayTable { sessions, by_prefix, hasher, .. } = self;
        let known = by_prefix.find(hash, |number| {
            let session = &sessions[*number as usize];
            session.prefix == seal.prefix && session.key == key
        });
        if let Some(number) = known {
            let session = &mut sessions[*number as usize];
            session.highest = session.highest.max(seal.highest);
            session.continued_at = session.continued_at.min(seal.continued_at);
            session.is_saved = false;
            self.has_unsaved = true;
            return;
        }
        let place = sessions.len();
        let Some(number) = u32::try_from(place).ok().filter(|_| place < self.most) else { return };
        sessions.push(ReplayWindow {
            prefix: seal.prefix,
            socket: None,
            line: SessionClock { nonce: seal.nonce, start: seal.start },
            continued_at: seal.continued_at,
            highest: seal.highest,
            heard_at: seconds(seal.heard_at),
            key,
            // A session that filled a gap has moved to another slot, and is saved again there.
            is_saved: number == seal.place,
        });
        by_prefix.insert_unique(hash, number, |number| sessions[*number as usize].hash(hasher));
        self.has_unsaved |= number != seal.place;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::domain::outcome::FrameOutcome;
    use crate::ingest::replay::SealedHeader;

    const REPLAYED: Result<(), FrameOutcome> = Err(FrameOutcome::Replayed);

    fn table() -> ReplayTable {
        ReplayTable::new(4, Duration::from_secs(60))
    }

    fn hear(
        table: &mut ReplayTable,
        prefix: u8,
        counter: u32,
        line: SessionClock,
    ) -> Result<(), FrameOutcome> {
        let source = SocketAddr::from(([10, 0, 0, 1], 7));
        let stamp = SealedHeader { key: KeyId(3), pid: 42, source, prefix: [prefix; 8], counter, line };
        table.admit(&stamp, MonoTime::from_secs(10))
    }

    fn line(nonce: u64) -> SessionClock {
        SessionClock { nonce, start: 7_000_000_000 }
    }

    fn unsaved(table: &mut ReplayTable) -> Vec<PersistedWindow> {
        table.unsaved_batch(0, 100, 100, |key| Some(u64::from(key.0) + 100)).0
    }

    fn restored(seals: &[PersistedWindow]) -> ReplayTable {
        let mut table = table();
        for seal in seals {
            assert_eq!(seal.key, 103);
            table.restore(KeyId(9), seal);
        }
        table
    }

    /// As [`hear`], with the id that the key has in the next server.
    fn hear_next(
        table: &mut ReplayTable,
        prefix: u8,
        counter: u32,
        line: SessionClock,
    ) -> Result<(), FrameOutcome> {
        let source = SocketAddr::from(([10, 0, 0, 1], 7));
        let stamp = SealedHeader { key: KeyId(9), pid: 42, source, prefix: [prefix; 8], counter, line };
        table.admit(&stamp, MonoTime::from_secs(1))
    }

    #[test]
    fn what_came_to_one_server_is_refused_by_the_next_and_its_sender_goes_on() {
        let mut table = table();
        for counter in [5, 6] {
            hear(&mut table, 1, counter, line(u64::from(counter))).unwrap();
        }
        let mut next = restored(&unsaved(&mut table));
        assert_eq!(hear_next(&mut next, 1, 5, line(5)), REPLAYED);
        assert_eq!(hear_next(&mut next, 1, 6, line(6)), REPLAYED);
        assert_eq!(hear_next(&mut next, 1, 7, line(7)), Ok(()));
    }

    #[test]
    fn a_prefix_that_its_sender_has_left_stays_over() {
        let mut table = table();
        hear(&mut table, 1, 5, line(5)).unwrap();
        hear(&mut table, 2, 1, line(8)).unwrap();
        let mut next = restored(&unsaved(&mut table));
        assert_eq!(hear_next(&mut next, 1, 7, line(7)), REPLAYED);
        // So does a session that is left after the restart.
        assert_eq!(hear_next(&mut next, 2, 2, line(9)), Ok(()));
        assert_eq!(hear_next(&mut next, 3, 1, line(12)), Ok(()));
        assert_eq!(hear_next(&mut next, 2, 3, line(10)), REPLAYED);
    }

    #[test]
    fn only_what_has_changed_is_handed_out_and_a_bounded_number_at_once() {
        let mut table = table();
        for prefix in 1..=4 {
            hear(&mut table, prefix, 1, line(1)).unwrap();
        }
        assert!(table.has_unsaved());
        let prefixes =
            |seals: Vec<PersistedWindow>| seals.iter().map(|seal| seal.prefix[0]).collect::<Vec<_>>();
        let (first, next) = table.unsaved_batch(0, 100, 3, |_| Some(0));
        assert_eq!((prefixes(first), next), (vec![1, 2, 3], Some(3)));
        let (last, next) = table.unsaved_batch(3, 100, 3, |_| Some(0));
        assert_eq!((prefixes(last), next), (vec![4], None));
        assert!(!table.has_unsaved());
        assert_eq!(hear(&mut table, 2, 1, line(1)), REPLAYED);
        assert!(!table.has_unsaved(), "a replay changes nothing");
        hear(&mut table, 2, 2, line(2)).unwrap();
        assert_eq!(prefixes(unsaved(&mut table)), [2]);
        table.mark_unsaved();
        assert_eq!(prefixes(unsaved(&mut table)), [1, 2, 3, 4]);
        assert_eq!(table.unsaved_batch(0, 2, 9, |_| Some(0)).1, Some(2));
    }

    #[test]
    fn of_one_session_twice_the_highest_counts_and_there_is_no_more_room_than_there_is() {
        let seal = |place, prefix, highest| PersistedWindow {
            place,
            key: 103,
            prefix: [prefix; 8],
            highest,
            continued_at: u64::MAX,
            nonce: 1,
            start: 0,
            heard_at: MonoTime::START,
        };
        let seals =
            [seal(1, 1, 5), seal(2, 1, 9), seal(3, 1, 4), seal(4, 2, 1), seal(5, 3, 1), seal(6, 4, 1)];
        let mut table = restored(&seals);
        table.restore(KeyId(9), &seal(7, 5, 1));
        assert_eq!((table.sessions.len(), table.by_prefix.len()), (4, 4));
        assert_eq!(hear_next(&mut table, 1, 9, line(9)), REPLAYED);
        assert_eq!(hear_next(&mut table, 1, 10, line(10)), Ok(()));
        assert_eq!(unsaved(&mut table).len(), 4, "all have moved up");
    }

    #[test]
    fn a_restored_session_makes_room_as_any_other_does() {
        let mut table = table();
        for prefix in 1..=4 {
            hear(&mut table, prefix, 1, line(1)).unwrap();
        }
        let mut next = restored(&unsaved(&mut table));
        let source = SocketAddr::from(([10, 0, 0, 2], 7));
        let stamp =
            SealedHeader { key: KeyId(9), pid: 42, source, prefix: [9; 8], counter: 1, line: line(1) };
        assert_eq!(next.admit(&stamp, MonoTime::from_secs(5)), Err(FrameOutcome::ReplayTableFull));
        assert_eq!(next.admit(&stamp, MonoTime::from_secs(500)), Ok(()));
        assert_eq!((next.sessions.len(), next.by_prefix.len()), (4, 4));
    }
}
