//! Which session of a process a frame belongs to, and whether it is new there.
//!
//! The wire names no session: a process that opens a second handle, re-creates its handle or calls `exec` simply
//! starts again at nonce 1, and none of that is a replay. What can be used is that a nonce and a timestamp only ever
//! rise within a session, and that a session's clock started when its handle connected, so that "received minus
//! timestamp" tells the sessions of a process apart.

use std::time::Duration;

use varta_proto::{Frame, NONCE_TERMINAL};

use crate::time::MonoTime;

/// How many frames may be lost across the wrap of the nonce before it is no longer recognised as one.
const WRAP_WINDOW: u64 = 1 << 20;
/// Sessions remembered for one process beside the current one, as many as a program has threads with a handle each; the
/// one silent for longest makes room.
pub(crate) const MAX_OTHER_SESSIONS: usize = 255;
/// Frames remembered that fitted nowhere.
const MAX_STRAYS: usize = 16;
/// How long such a frame is remembered.
const STRAYS_KEPT: Duration = Duration::from_secs(600);
/// A first frame that comes again within this time is a duplicate; later it is more likely that of a client with a coarse
/// clock, which makes a handle for each beat.
const OPENING_REPEATED_WITHIN: Duration = Duration::from_millis(20);
/// How far a sender's clock may seem to run from ours between two frames that open a session together.
const CLOCK_SLACK_NANOS: u128 = 1_000_000_000;

/// The newest frame that was accepted in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) nonce: u64,
    pub(crate) timestamp: u64,
}

/// A session that is not the one heard last.
#[derive(Clone, Copy, Debug)]
struct Other {
    session: Session,
    heard_at: MonoTime,
}

/// What is remembered of a process beyond the session heard last. Most processes have none of it.
#[derive(Debug, Default)]
pub(crate) struct OtherSessions {
    others: Vec<Other>,
    /// Frames that fitted nowhere. When another one follows such a frame at the pace of real time, the two are of a
    /// session whose first frames were lost.
    strays: Vec<Other>,
}

/// What a frame is to the sessions known so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The next frame of a session, after `lost` frames that did not arrive.
    Next { lost: u64, wrapped: bool },
    /// The first frame of a session.
    Opens,
    /// The newest frame of a session once more.
    Duplicate,
    /// An old frame, or one out of nowhere.
    OutOfOrder,
}

impl Session {
    /// Of an agent that has said nothing but that it panicked; whatever it says next follows.
    pub(crate) const UNHEARD: Session = Session { nonce: NONCE_TERMINAL, timestamp: 0 };

    pub(crate) fn of(frame: &Frame) -> Self {
        Session { nonce: frame.nonce, timestamp: frame.timestamp }
    }

    /// Whether `frame` may be a later one of this session: how many are missing in between, and whether the nonce
    /// went round.
    #[inline]
    pub(crate) fn followed_by(&self, frame: &Frame) -> Option<(u64, bool)> {
        if frame.timestamp < self.timestamp {
            None
        } else if frame.nonce > self.nonce {
            Some((frame.nonce - self.nonce - 1, false))
        } else if *self == Session::UNHEARD {
            Some((0, false))
        } else if self.nonce >= NONCE_TERMINAL - WRAP_WINDOW && frame.nonce < WRAP_WINDOW {
            // The last ordinary nonce is NONCE_TERMINAL - 1; after it comes 0.
            Some((NONCE_TERMINAL - 1 - self.nonce + frame.nonce, true))
        } else {
            None
        }
    }

    /// Whether a goodbye after the beat `last` may be that of this session.
    pub(crate) fn ends_with(&self, last: Session) -> bool {
        *self == Session::UNHEARD || last.nonce >= self.nonce && last.timestamp >= self.timestamp
    }

    /// A clock that says 0 tells nothing: a client that re-creates its handle for each beat may send the same bytes
    /// each time and yet be alive. So does one with a coarse clock.
    fn is_repeated_by(&self, heard_at: MonoTime, frame: &Frame, received_at: MonoTime) -> bool {
        let same = *self == Session::of(frame) && frame.timestamp != 0;
        same && (frame.nonce != 1 || received_at.since(heard_at) < OPENING_REPEATED_WITHIN)
    }

    /// How far the start of the session that `frame` suggests is from the start of this one.
    pub(crate) fn distance(&self, heard_at: MonoTime, frame: &Frame, received_at: MonoTime) -> u128 {
        let start = i128::from(heard_at.as_nanos()) - i128::from(self.timestamp);
        let suggested = i128::from(received_at.as_nanos()) - i128::from(frame.timestamp);
        start.abs_diff(suggested)
    }
}

impl OtherSessions {
    /// Whether anything is remembered at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.others.is_empty() && self.strays.is_empty()
    }

    /// Closes the session whose last beat was `last`, as was said at `at`. Whether it was the only one that still beat:
    /// one of which nothing was heard for `stall_after` does not count.
    pub(crate) fn close(
        &mut self,
        current: &mut Session,
        heard_at: MonoTime,
        last: Session,
        at: MonoTime,
        stall_after: Duration,
    ) -> bool {
        let said = i128::from(at.as_nanos()) - i128::from(last.timestamp);
        let distance = |session: &Session, heard_at: MonoTime| {
            let start = i128::from(heard_at.as_nanos()) - i128::from(session.timestamp);
            session.ends_with(last).then_some(start.abs_diff(said))
        };
        let of_current = distance(current, heard_at);
        let nearest = (0..self.others.len())
            .filter_map(|index| {
                let Other { session, heard_at } = &self.others[index];
                Some((distance(session, *heard_at)?, index))
            })
            .min();
        match (of_current, nearest) {
            (Some(of_current), nearest) if nearest.is_none_or(|(distance, _)| of_current <= distance) => {
                let newest = (0..self.others.len()).max_by_key(|index| self.others[*index].heard_at);
                let Some(newest) = newest.map(|index| self.others.swap_remove(index)) else { return true };
                *current = newest.session;
                at.since(newest.heard_at) >= stall_after
            }
            (_, Some((_, index))) => {
                self.others.swap_remove(index);
                false
            }
            (_, None) => false,
        }
    }

    /// Finds the session of `frame` among `current`, heard last at `heard_at`, and the others. Afterwards the session
    /// of an accepted frame is the current one; a refused frame changes no session.
    pub(crate) fn place(
        &mut self,
        current: &mut Session,
        heard_at: MonoTime,
        frame: &Frame,
        received_at: MonoTime,
    ) -> Place {
        self.strays.retain(|stray| received_at.since(stray.heard_at) < STRAYS_KEPT);
        let all =
            self.others.iter().map(|other| (other.session, other.heard_at)).chain([(*current, heard_at)]);
        if all.clone().any(|(session, heard_at)| session.is_repeated_by(heard_at, frame, received_at)) {
            return Place::Duplicate;
        }
        let candidates = all.enumerate().filter_map(|(index, (session, heard_at))| {
            let (lost, wrapped) = session.followed_by(frame)?;
            Some((session.distance(heard_at, frame, received_at), index, Place::Next { lost, wrapped }))
        });
        if let Some((_, index, place)) = candidates.min_by_key(|(distance, ..)| *distance) {
            if index < self.others.len() {
                self.others[index] = Other { session: *current, heard_at };
            }
            *current = Session::of(frame);
            return place;
        }
        let fitting = self.strays.iter().enumerate().filter_map(|(index, stray)| {
            stray.session.followed_by(frame)?;
            let distance = stray.session.distance(stray.heard_at, frame, received_at);
            (distance <= CLOCK_SLACK_NANOS).then_some((distance, index))
        });
        let followed = fitting.min().map(|(_, index)| index);
        if let Some(index) = followed {
            self.strays.swap_remove(index);
        }
        if frame.nonce == 1 || followed.is_some() {
            replace_oldest(&mut self.others, MAX_OTHER_SESSIONS, Other { session: *current, heard_at });
            *current = Session::of(frame);
            return Place::Opens;
        }
        let stray = Other { session: Session::of(frame), heard_at: received_at };
        replace_oldest(&mut self.strays, MAX_STRAYS, stray);
        Place::OutOfOrder
    }
}

/// Adds one, in the place of the one heard longest ago if there are `most` already.
fn replace_oldest(list: &mut Vec<Other>, most: usize, new: Other) {
    if list.len() >= most
        && let Some(oldest) = (0..list.len()).min_by_key(|index| list[*index].heard_at)
    {
        list.swap_remove(oldest);
    }
    list.push(new);
}

#[cfg(test)]
mod tests {
    use varta_proto::Status;

    use super::*;

    /// A process with one session that has sent nonces 1 to 5, one a second, the last of them at second 105.
    struct Process {
        current: Session,
        heard_at: MonoTime,
        others: OtherSessions,
    }

    impl Process {
        fn after_five_beats() -> Self {
            Process {
                current: Session { nonce: 5, timestamp: secs(5) },
                heard_at: MonoTime::from_secs(105),
                others: OtherSessions::default(),
            }
        }

        fn hears(&mut self, at_secs: u64, nonce: u64, timestamp: u64) -> Place {
            let frame = Frame::new(Status::Ok, 42, timestamp, nonce, 0);
            let at = MonoTime::from_secs(at_secs);
            let place = self.others.place(&mut self.current, self.heard_at, &frame, at);
            if matches!(place, Place::Next { .. } | Place::Opens) {
                self.heard_at = at;
            }
            place
        }
    }

    const NEXT: Place = Place::Next { lost: 0, wrapped: false };

    fn secs(seconds: u64) -> u64 {
        seconds * 1_000_000_000
    }

    #[test]
    fn the_next_nonce_continues_and_a_gap_is_counted() {
        let mut process = Process::after_five_beats();
        assert_eq!(process.hears(106, 6, secs(6)), NEXT);
        assert_eq!(process.hears(110, 10, secs(10)), Place::Next { lost: 3, wrapped: false });
    }

    #[test]
    fn the_newest_frame_again_is_a_duplicate() {
        let mut process = Process::after_five_beats();
        assert_eq!(process.hears(106, 5, secs(5)), Place::Duplicate);
    }

    #[test]
    fn an_old_frame_is_out_of_order_and_changes_no_session() {
        let mut process = Process::after_five_beats();
        assert_eq!(process.hears(106, 3, secs(3)), Place::OutOfOrder);
        assert_eq!(process.hears(106, 6, secs(6)), NEXT);
    }

    #[test]
    fn two_handles_beat_in_turn() {
        let mut process = Process::after_five_beats();
        assert_eq!(process.hears(106, 1, 1_000), Place::Opens);
        for second in 1..50 {
            assert_eq!(
                process.hears(106 + second, 5 + second, secs(6 + second)),
                NEXT,
                "first handle, {second}"
            );
            assert_eq!(
                process.hears(106 + second, 1 + second, secs(second)),
                NEXT,
                "second handle, {second}"
            );
        }
    }

    #[test]
    fn a_faster_handle_is_not_taken_for_the_slower_one_that_it_overtakes() {
        let mut process = Process::after_five_beats();
        assert_eq!(process.hears(106, 1, 1_000), Place::Opens);
        for beat in 1..200 {
            assert_eq!(process.hears(106 + beat, 1 + beat, secs(beat)), NEXT);
        }
        assert_eq!(process.hears(306, 6, secs(206)), NEXT, "the slow handle's next beat after 200 seconds");
    }

    #[test]
    fn a_session_whose_first_frame_was_lost_is_known_from_its_second_on() {
        let mut process = Process::after_five_beats();
        assert_eq!(process.hears(110, 2, secs(1)), Place::OutOfOrder);
        assert_eq!(process.hears(111, 3, secs(2)), Place::Opens);
        assert_eq!(process.hears(112, 4, secs(3)), NEXT);
    }

    #[test]
    fn several_sessions_whose_first_frames_were_lost_may_beat_in_turn() {
        let mut process = Process::after_five_beats();
        for handle in 0..10 {
            assert_eq!(process.hears(200, 2, secs(50 - handle)), Place::OutOfOrder);
        }
        for handle in 0..10 {
            assert_eq!(process.hears(201, 3, secs(51 - handle)), Place::Opens, "handle {handle}");
        }
    }

    #[test]
    fn a_hundred_threads_with_a_handle_each_all_stay_known() {
        let mut process = Process::after_five_beats();
        for thread in 0..100 {
            assert_eq!(process.hears(106, 1, 1_000 + thread), Place::Opens);
        }
        for second in 1..10 {
            for thread in 0..100 {
                assert_eq!(process.hears(106 + second, 1 + second, secs(second) + 1_000 + thread), NEXT);
            }
        }
    }

    #[test]
    fn a_first_frame_again_is_a_duplicate_at_once_and_a_new_handle_later() {
        let mut process = Process::after_five_beats();
        assert_eq!(process.hears(106, 1, 1_000_000), Place::Opens);
        assert_eq!(process.hears(106, 1, 1_000_000), Place::Duplicate);
        assert_eq!(process.hears(107, 1, 1_000_000), Place::Opens);
    }

    #[test]
    fn old_frames_that_come_at_another_pace_than_they_were_sent_open_no_session() {
        let mut process = Process::after_five_beats();
        assert_eq!(process.hears(110, 2, secs(2)), Place::OutOfOrder);
        assert_eq!(process.hears(110, 4, secs(4)), Place::OutOfOrder);
    }

    #[test]
    fn the_nonce_wraps_past_the_terminal_one() {
        let mut process = Process::after_five_beats();
        process.current.nonce = NONCE_TERMINAL - 1;
        assert_eq!(process.hears(106, 0, secs(6)), Place::Next { lost: 0, wrapped: true });
        process.current.nonce = NONCE_TERMINAL - 2;
        assert_eq!(process.hears(107, 1, secs(7)), Place::Next { lost: 2, wrapped: true });
    }

    #[test]
    fn a_client_that_makes_a_handle_for_each_beat_is_heard() {
        let mut process = Process::after_five_beats();
        for second in 0..100 {
            assert_eq!(process.hears(106 + second, 1, 0), Place::Opens);
        }
        assert!(process.others.others.len() <= MAX_OTHER_SESSIONS);
    }
}
