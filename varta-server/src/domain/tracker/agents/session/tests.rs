//! Claims about which session a frame belongs to.

use varta_proto::Status;

use super::*;

/// A process with one session that has sent nonces 1 to 5, one a second, the last of them at second 105.
struct Process {
    current: Session,
    handles: Handles,
    heard_at: MonoTime,
    others: OtherSessions,
}

impl Process {
    fn after_five_beats() -> Self {
        Process {
            current: Session { nonce: 5, timestamp: secs(5) },
            handles: Handles::Several,
            heard_at: MonoTime::from_secs(105),
            others: OtherSessions::default(),
        }
    }

    fn hears(&mut self, at_secs: u64, nonce: u64, timestamp: u64) -> FramePosition {
        let frame = Frame::new(Status::Ok, 42, timestamp, nonce, 0);
        let at = MonoTime::from_secs(at_secs);
        let mut newest = Newest { session: &mut self.current, heard_at: self.heard_at };
        let place = self.others.place(&mut newest, &frame, at, self.handles);
        if matches!(place, FramePosition::Next { .. } | FramePosition::Opens) {
            self.heard_at = at;
        }
        place
    }
}

const NEXT: FramePosition = FramePosition::Next { lost: 0, wrapped: false };

fn secs(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}

#[test]
fn the_next_nonce_continues_and_a_gap_is_counted() {
    let mut process = Process::after_five_beats();
    assert_eq!(process.hears(106, 6, secs(6)), NEXT);
    assert_eq!(process.hears(110, 10, secs(10)), FramePosition::Next { lost: 3, wrapped: false });
}

#[test]
fn the_newest_frame_again_is_a_duplicate() {
    let mut process = Process::after_five_beats();
    assert_eq!(process.hears(106, 5, secs(5)), FramePosition::Duplicate);
}

#[test]
fn an_old_frame_is_out_of_order_and_changes_no_session() {
    let mut process = Process::after_five_beats();
    assert_eq!(process.hears(106, 3, secs(3)), FramePosition::OutOfOrder);
    assert_eq!(process.hears(106, 6, secs(6)), NEXT);
}

#[test]
fn two_handles_beat_in_turn() {
    let mut process = Process::after_five_beats();
    assert_eq!(process.hears(106, 1, 1_000), FramePosition::Opens);
    for second in 1..50 {
        assert_eq!(process.hears(106 + second, 5 + second, secs(6 + second)), NEXT, "first handle, {second}");
        assert_eq!(process.hears(106 + second, 1 + second, secs(second)), NEXT, "second handle, {second}");
    }
}

#[test]
fn a_faster_handle_is_not_taken_for_the_slower_one_that_it_overtakes() {
    let mut process = Process::after_five_beats();
    assert_eq!(process.hears(106, 1, 1_000), FramePosition::Opens);
    for beat in 1..200 {
        assert_eq!(process.hears(106 + beat, 1 + beat, secs(beat)), NEXT);
    }
    assert_eq!(process.hears(306, 6, secs(206)), NEXT, "the slow handle's next beat after 200 seconds");
}

#[test]
fn a_session_whose_first_frame_was_lost_is_known_from_its_second_on() {
    let mut process = Process::after_five_beats();
    assert_eq!(process.hears(110, 2, secs(1)), FramePosition::OutOfOrder);
    assert_eq!(process.hears(111, 3, secs(2)), FramePosition::Opens);
    assert_eq!(process.hears(112, 4, secs(3)), NEXT);
}

#[test]
fn several_sessions_whose_first_frames_were_lost_may_beat_in_turn() {
    let mut process = Process::after_five_beats();
    for handle in 0..10 {
        assert_eq!(process.hears(200, 2, secs(50 - handle)), FramePosition::OutOfOrder);
    }
    for handle in 0..10 {
        assert_eq!(process.hears(201, 3, secs(51 - handle)), FramePosition::Opens, "handle {handle}");
    }
}

#[test]
fn a_hundred_threads_with_a_handle_each_all_stay_known() {
    let mut process = Process::after_five_beats();
    for thread in 0..100 {
        assert_eq!(process.hears(106, 1, 1_000 + thread), FramePosition::Opens);
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
    assert_eq!(process.hears(106, 1, 1_000_000), FramePosition::Opens);
    assert_eq!(process.hears(106, 1, 1_000_000), FramePosition::Duplicate);
    assert_eq!(process.hears(107, 1, 1_000_000), FramePosition::Opens);
}

#[test]
fn old_frames_that_come_at_another_pace_than_they_were_sent_open_no_session() {
    let mut process = Process::after_five_beats();
    assert_eq!(process.hears(110, 2, secs(2)), FramePosition::OutOfOrder);
    assert_eq!(process.hears(110, 4, secs(4)), FramePosition::OutOfOrder);
}

#[test]
fn the_nonce_wraps_past_the_terminal_one() {
    let mut process = Process::after_five_beats();
    process.current.nonce = NONCE_TERMINAL - 1;
    assert_eq!(process.hears(106, 0, secs(6)), FramePosition::Next { lost: 0, wrapped: true });
    process.current.nonce = NONCE_TERMINAL - 2;
    assert_eq!(process.hears(107, 1, secs(7)), FramePosition::Next { lost: 2, wrapped: true });
}

#[test]
fn a_client_that_makes_a_handle_for_each_beat_is_heard() {
    let mut process = Process::after_five_beats();
    for second in 0..100 {
        assert_eq!(process.hears(106 + second, 1, 0), FramePosition::Opens);
    }
    assert!(process.others.others.len() <= MAX_OTHER_SESSIONS);
}

impl Process {
    /// A process of another host, at one of its ports.
    fn on_a_port() -> Self {
        Process { handles: Handles::OneAtATime, ..Process::after_five_beats() }
    }

    fn says_goodbye(&mut self, at_secs: u64, nonce: u64, timestamp: u64) -> bool {
        let last = Session { nonce, timestamp };
        let mut newest = Newest { session: &mut self.current, heard_at: self.heard_at };
        let at = MonoTime::from_secs(at_secs);
        self.others.close(&mut newest, last, at, Duration::from_secs(5), self.handles)
    }
}

#[test]
fn from_a_port_old_frames_open_no_session_however_many_come() {
    let mut process = Process::on_a_port();
    for nonce in 3..=4 {
        assert_eq!(process.hears(102 + nonce, nonce, secs(nonce)), FramePosition::OutOfOrder, "{nonce}");
    }
    assert!(process.others.is_empty());
    assert_eq!(process.hears(107, 7, secs(7)), FramePosition::Next { lost: 1, wrapped: false });
}

#[test]
fn a_new_handle_at_the_port_is_another_session_whatever_was_lost_of_it() {
    let mut process = Process::on_a_port();
    assert_eq!(process.hears(110, 1, 1_000), FramePosition::Opens);
    let mut process = Process::on_a_port();
    assert_eq!(process.hears(111, 2, secs(1)), FramePosition::OutOfOrder);
    assert_eq!(process.hears(112, 3, secs(2)), FramePosition::Opens);
}

#[test]
fn what_comes_late_of_a_former_handle_at_the_port_is_out_of_order() {
    let mut process = Process::on_a_port();
    assert_eq!(process.hears(118, 18, secs(18)), FramePosition::Next { lost: 12, wrapped: false });
    assert_eq!(process.hears(119, 1, 1_000), FramePosition::Opens);
    // Frames older than the newest, the newest again, and a later one.
    for (nonce, timestamp) in [(17, secs(17)), (18, secs(18)), (19, secs(19))] {
        let place = process.hears(119, nonce, timestamp);
        assert!(matches!(place, FramePosition::OutOfOrder | FramePosition::Duplicate), "{nonce}: {place:?}");
    }
    assert_eq!(process.hears(120, 2, secs(1)), NEXT);
}

#[test]
fn a_handle_that_goes_on_had_no_other_in_its_place() {
    let mut process = Process::on_a_port();
    // A forged frame.
    assert_eq!(process.hears(106, 1, 1_000), FramePosition::Opens);
    assert_eq!(process.hears(110, 10, secs(10)), FramePosition::Next { lost: 4, wrapped: false });
    assert_eq!(process.hears(111, 11, secs(11)), NEXT);
}

#[test]
fn one_invented_frame_does_not_silence_the_handle_for_good() {
    let mut process = Process::on_a_port();
    assert!(matches!(process.hears(105, 1 << 40, u64::MAX / 2), FramePosition::Next { .. }));
    assert_eq!(process.hears(106, 6, secs(6)), FramePosition::OutOfOrder);
    assert_eq!(process.hears(107, 7, secs(7)), FramePosition::Opens);
    assert_eq!(process.hears(108, 8, secs(8)), NEXT);
}

#[test]
fn a_client_that_makes_a_handle_for_each_beat_is_heard_from_one_port_too() {
    let mut process = Process::on_a_port();
    for second in 0..100 {
        assert_eq!(process.hears(110 + second, 1, 1_000 + second * 7_919 % 100), FramePosition::Opens);
        assert!(process.others.others.len() <= MAX_FORMER_SESSIONS);
    }
    for second in 0..100 {
        assert_eq!(process.hears(210 + 2 * second, 1, 500), FramePosition::Opens, "with a coarse clock");
    }
}

#[test]
fn a_goodbye_from_a_port_is_for_good_and_what_comes_after_it_is_late() {
    let mut process = Process::on_a_port();
    assert_eq!(process.hears(106, 1, 1_000), FramePosition::Opens);
    assert!(process.says_goodbye(109, 4, secs(3)), "the one before it was over when it came");
    for nonce in 2..=4 {
        let place = process.hears(109, nonce, secs(nonce - 1));
        assert!(matches!(place, FramePosition::OutOfOrder | FramePosition::Duplicate), "{nonce}: {place:?}");
    }
}

#[test]
fn the_only_beat_before_a_goodbye_is_a_duplicate_when_it_comes_again_and_another_first_frame_is_not() {
    let after_a_goodbye = || {
        let mut process = Process::on_a_port();
        assert_eq!(process.hears(120, 1, 1_000), FramePosition::Opens);
        assert!(process.says_goodbye(120, 1, 2_000));
        assert!(process.says_goodbye(120, 1, 2_000), "the network doubles that, too");
        process
    };
    assert_eq!(after_a_goodbye().hears(120, 1, 1_000), FramePosition::Duplicate);
    assert_eq!(after_a_goodbye().hears(120, 1, 1_001), FramePosition::Opens, "a new handle, made at once");
    assert_eq!(after_a_goodbye().hears(121, 1, 1_000), FramePosition::Opens, "too late to be doubled");
}

#[test]
fn a_late_goodbye_of_a_former_handle_does_not_close_the_new_one() {
    let mut process = Process::on_a_port();
    assert_eq!(process.hears(120, 1, 1_000), FramePosition::Opens);
    assert!(!process.says_goodbye(121, 6, secs(19)));
    assert_eq!(process.hears(122, 2, secs(2)), NEXT);
}

#[test]
fn a_handle_that_is_made_after_a_goodbye_is_the_only_one() {
    let mut process = Process::after_five_beats();
    assert!(process.says_goodbye(106, 5, secs(6)));
    assert_eq!(process.hears(107, 1, 1_000), NEXT);
    process.heard_at = MonoTime::from_secs(107);
    assert!(process.says_goodbye(108, 1, secs(1)));
}

#[test]
fn what_two_handles_of_a_process_say_alike_is_not_said_twice() {
    let mut process = Process::after_five_beats();
    assert_eq!(process.hears(200, 1, secs(1)), FramePosition::Opens);
    for nonce in 2..10 {
        assert_eq!(process.hears(199 + nonce, nonce, secs(nonce)), NEXT, "{nonce}");
    }
}
