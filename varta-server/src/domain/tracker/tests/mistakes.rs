//! Claims about false positives: when a verdict that is taken back was wrong from the start.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use varta_proto::Status;

use crate::domain::tracker::tests::*;

/// A beat of an agent of another host, sent at `sent` by a clock that started at 0, and received at `at`.
fn beat(nonce: u64, sent: u64, at: u64) -> ReceivedBeat {
    let (sent, at) = (MonoTime::from_millis(sent), MonoTime::from_millis(at));
    let sender = Sender::udp(SocketAddr::from(([10, 0, 0, 1], 4_000)), PID);
    let frame = Frame::new(Status::Ok, PID, sent.as_nanos() + 1, nonce, 0);
    ReceivedBeat { received_at: at, sender, frame }
}

impl World {
    /// Handles a beat after every deadline before it.
    fn hear_at(&mut self, beat: ReceivedBeat) {
        self.pass(beat.received_at);
        assert_eq!(self.hear(beat), FrameOutcome::Accepted);
    }

    /// The length of each false positive that was taken back since the last call.
    fn mistakes(&mut self) -> Vec<Option<Duration>> {
        let recovered = std::iter::from_fn(|| self.tracker.poll_transition())
            .filter(|transition| transition.cause == Cause::Recovered);
        recovered.map(|transition| transition.mistake).collect()
    }

    /// The false positives of the only agent, and in total.
    fn counts(&self) -> (u32, u64) {
        let agent = self.tracker.agents(0..usize::MAX).next().unwrap();
        (agent.false_positives, self.tracker.statistics().false_positives)
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_beat_that_was_sent_before_the_verdict_shows_that_it_was_a_mistake() {
    let mut world = World::new();
    world.hear_at(beat(1, 0, 10));
    // Sent after three seconds, and delayed by the network for as long.
    world.hear_at(beat(2, 3_000, 6_010));
    assert_eq!(world.mistakes(), [Some(SECOND)]);
    assert_eq!(world.counts(), (1, 1));
}

#[test]
fn beats_that_are_missing_show_that_it_was_a_mistake() {
    let mut world = World::new();
    world.hear_at(beat(1, 0, 0));
    world.hear_at(beat(7, 6_000, 6_000));
    assert_eq!(world.mistakes(), [Some(SECOND)]);
    assert_eq!(world.tracker.statistics().lost, 5);
}

#[test]
fn who_was_silent_and_comes_back_was_rightly_called_stalled() {
    let mut world = World::new();
    world.hear_at(beat(1, 0, 10));
    world.hear_at(beat(2, 5_050, 5_060));
    world.hear_at(beat(3, 60_000, 60_010));
    assert_eq!(world.mistakes(), [None, None]);
    assert_eq!(world.counts(), (0, 0));
}

#[test]
fn who_was_silent_and_whose_first_beats_afterwards_are_lost_was_rightly_called_stalled() {
    let mut world = World::new();
    for second in 0..60 {
        world.hear_at(beat(second + 1, second * 1_000, second * 1_000));
    }
    // Silent for twenty seconds; of the beats after that the third arrives.
    world.hear_at(beat(63, 81_000, 81_000));
    assert_eq!(world.mistakes(), [None]);
    world.hear_at(beat(82, 100_000, 100_000));
    assert_eq!(world.mistakes(), [Some(Duration::from_secs(14))], "and now it was beating");
}

#[test]
fn a_clock_that_stands_still_tells_nothing() {
    let mut world = World::new();
    world.hear_at(beat(1, 0, 10));
    world.hear_at(beat(2, 0, 6_010));
    assert_eq!(world.mistakes(), [None]);
}

#[test]
fn another_session_or_another_process_tells_nothing_of_the_silence() {
    let mut world = World::new();
    world.hear_at(Handle::connect(PID, at(0)).next(at(0), Status::Ok));
    world.hear_at(Handle::connect(PID, at(6)).next(at(6), Status::Ok));
    assert_eq!(world.mistakes(), [None]);
    world.pass(at(12));
    world.spawn(PID, "worker", 200);
    let mut next = Handle::connect(PID, at(0));
    next.nonce = 7;
    world.hear_at(next.next(at(13), Status::Ok));
    assert!(world.transitions().contains(&(PID, UP, Cause::Restarted)));
    assert_eq!(world.counts(), (0, 0));
}

#[test]
fn of_several_sessions_the_one_that_a_beat_continues_is_asked() {
    let mut world = World::new();
    let mut handles = [0, 1].map(|second| Handle::connect(PID, at(second)));
    for handle in &mut handles {
        world.hear_at(handle.next(at(2), Status::Ok));
    }
    // The older handle beats again: once after a silence, once after beats that were lost.
    world.hear_at(handles[0].next(at(10), Status::Ok));
    handles[0].nonce += 2;
    world.hear_at(handles[0].next(at(20), Status::Ok));
    let lasted = world.mistakes();
    assert_eq!(lasted, [None, Some(Duration::from_secs(5))]);
}

#[test]
fn mistakes_are_counted_on_for_the_next_process_of_the_series() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear_at(handle.next(at(0), Status::Ok));
    handle.nonce += 1;
    world.hear_at(handle.next(at(6), Status::Ok));
    world.spawn(PID, "worker", 200);
    world.hear_at(Handle::connect(PID, at(7)).next(at(7), Status::Ok));
    assert_eq!(world.counts(), (1, 1));
    assert!(world.transitions().contains(&(PID, UP, Cause::Restarted)));
}

#[test]
fn what_a_server_before_this_one_said_is_no_mistake_of_this_one() {
    let mut world = World::new();
    world.hear_at(beat(1, 0, 0));
    world.pass(at(6));
    let known: Vec<AgentSnapshot> = world.tracker.snapshot(0..usize::MAX).collect();
    let mut next = World::new();
    assert!(next.tracker.restore(&known[0], Fate::Unknown, at(1)));
    next.hear_at(beat(9, 8_000, 8_000));
    assert_eq!(next.mistakes(), [None]);
}

proptest! {
    #[test]
    fn every_verdict_about_an_agent_that_never_pauses_is_a_mistake(
        beats in prop::collection::vec((prop::bool::weighted(0.6), 0_u64..9_000), 1..200),
    ) {
        let mut world = World::new();
        let mut arrives = 0;
        for (number, (is_lost, delay)) in (0..).zip(&beats) {
            // A delayed beat delays those behind it.
            arrives = arrives.max(number * 1_000 + delay);
            if !is_lost {
                world.hear_at(beat(number + 1, number * 1_000, arrives));
            }
        }
        prop_assert!(world.mistakes().iter().all(Option::is_some));
    }

    #[test]
    fn no_verdict_about_an_agent_that_loses_nothing_and_is_on_time_is_a_mistake(
        pauses in prop::collection::vec(1_u64..20_000, 1..100),
    ) {
        let mut world = World::new();
        let mut now = 0;
        for (number, pause) in (0..).zip(&pauses) {
            now += pause;
            world.hear_at(beat(number + 1, now, now));
        }
        prop_assert!(world.mistakes().iter().all(Option::is_none));
    }
}
