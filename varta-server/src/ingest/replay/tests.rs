//! Tests of the replay table: replays, continued sessions, and replacement in a full table.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const FRESH: Result<(), FrameOutcome> = Ok(());
const REPLAYED: Result<(), FrameOutcome> = Err(FrameOutcome::Replayed);
const FULL: Result<(), FrameOutcome> = Err(FrameOutcome::ReplayTableFull);

struct World {
    table: ReplayTable,
    at: MonoTime,
}

impl World {
    fn with_room_for(most: usize) -> Self {
        World { table: ReplayTable::new(most, HOUR), at: MonoTime::from_secs(10) }
    }

    /// Admits a datagram of session `prefix` with `counter` from a port; its clock and nonces differ from all
    /// others.
    fn hears(&mut self, prefix: u8, counter: u32, port: u16) -> Result<(), FrameOutcome> {
        let line = SessionClock { nonce: u64::from(counter), start: i64::from(prefix) * 1_000_000_000 };
        self.hears_in(line, prefix, counter, port)
    }

    fn hears_in(
        &mut self,
        line: SessionClock,
        prefix: u8,
        counter: u32,
        port: u16,
    ) -> Result<(), FrameOutcome> {
        let source = SocketAddr::from(([10, 0, 0, 1], port));
        let stamp = SealedHeader { key: KeyId(0), pid: 42, source, prefix: [prefix; 8], counter, line };
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

/// The position of beat `nonce` of a single handle.
const fn beat(nonce: u64) -> SessionClock {
    SessionClock { nonce, start: 7_000_000_000 }
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
        // From an earlier session: its clock started at another moment.
        let line = SessionClock { nonce, start: 1_000_000_000 };
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
    let line = SessionClock { nonce: 1, start: 0 };
    let other = SealedHeader { key: KeyId(1), pid: 42, source, prefix: [1; 8], counter: 1, line };
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
