//! Claims about adaptive timeouts: agents that request no timeout get one by their beats.

use std::time::Duration;

use varta_proto::Status;
use varta_proto::control::AgentName;

use crate::base::Glob;
use crate::domain::beat::{ControlMessage, Hello, ReceivedControl};
use crate::domain::rules::{Rule, Rules};
use crate::domain::tracker::detection::arrival::{ArrivalPolicy, Bounds, Kind};
use crate::domain::tracker::tests::*;

const TENTH: Duration = Duration::from_millis(100);
const FIVE: Duration = Duration::from_secs(5);

fn hourly() -> Policy {
    let bounds = Bounds { mistake_every: Some(Duration::from_secs(3_600)), ..Bounds::default() };
    let arrival = ArrivalPolicy { kind: Kind::Chen(bounds), ..ArrivalPolicy::default() };
    Policy { stall_after: STALL_AFTER, arrival, max_beat_rate: 0, ..Policy::default() }
}

fn remote(mut beat: ReceivedBeat) -> ReceivedBeat {
    beat.sender = Sender::udp(([10, 0, 0, 1], 4_000).into(), PID);
    beat
}

impl World {
    /// Lets an agent beat every tenth of a second, and returns the time of the last beat.
    fn teach(
        &mut self,
        handle: &mut Handle,
        from: MonoTime,
        beats: u32,
        way: impl Fn(ReceivedBeat) -> ReceivedBeat,
    ) -> MonoTime {
        let mut now = from;
        for _ in 0..beats {
            now = now + TENTH;
            self.pass(now);
            assert_eq!(self.hear(way(handle.next(now, Status::Ok))), FrameOutcome::Accepted);
        }
        now
    }

    fn given(&self) -> Duration {
        self.tracker.agents(0..usize::MAX).next().unwrap().stall_after
    }
}

#[test]
fn who_beats_often_is_missed_soon_and_the_wheel_knows_it() {
    for way in [remote, |beat| beat] {
        let mut world = World::with(hourly());
        let mut handle = Handle::connect(PID, at(0));
        // As soon as there is an estimate: the wheel was armed for five seconds, or for half of them.
        let last = world.teach(&mut handle, at(1), 18, way);
        let given = world.given();
        assert!(given > TENTH && given < Duration::from_secs(4), "{given:?}");
        world.pass(last + given);
        assert_eq!(world.verdict(PID), Some(UP));
        world.pass(last + given + Duration::from_millis(1));
        assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
    }
}

#[test]
fn nothing_is_kept_where_all_have_the_same_time() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.teach(&mut handle, at(1), 100, |beat| beat);
    assert_eq!((world.given(), world.tracker.adaptive_timeouts.room()), (FIVE, 0));
}

#[test]
fn what_an_agent_asks_for_goes_before_what_was_learned() {
    let mut world = World::with(hourly());
    let mut handle = Handle::connect(PID, at(0));
    let last = world.teach(&mut handle, at(1), 50, |beat| beat);
    assert!(world.given() < FIVE);
    let asks = Hello { stall_after: Some(Duration::from_secs(30)), ..Hello::default() };
    let sender = Sender::local(PID);
    world.handle_control(&ReceivedControl { received_at: last, sender, said: ControlMessage::Hello(asks) });
    assert_eq!(world.given(), Duration::from_secs(30));
    world.teach(&mut handle, last, 50, |beat| beat);
    assert_eq!(world.given(), Duration::from_secs(30));
}

#[test]
fn an_agent_that_gives_its_name_its_interval_or_labels_is_learned_as_one_that_gives_none() {
    let second = Duration::from_secs(1);
    let name = Some(AgentName::parse("billing").unwrap());
    for introduction in [
        Hello { name, ..Hello::default() },
        Hello { interval: Some(TENTH), ..Hello::default() },
        Hello { name, interval: Some(TENTH), ..Hello::default() },
        Hello { busy_for: Some(TENTH), ..Hello::default() },
    ] {
        let mut silent = World::with(hourly());
        let mut told = World::with(hourly());
        let said = ControlMessage::Hello(introduction.clone());
        let hello = ReceivedControl { received_at: at(1), sender: Sender::local(PID), said };
        told.handle_control(&hello);
        for (world, is_told) in [(&mut silent, false), (&mut told, true)] {
            let mut handle = Handle::connect(PID, at(0));
            let last = world.teach(&mut handle, at(1), 50, |beat| beat);
            if is_told {
                world.handle_control(&ReceivedControl { received_at: last, ..hello.clone() });
            }
            world.teach(&mut handle, last, 50, |beat| beat);
        }
        assert_eq!(told.given(), silent.given(), "{introduction:?}");
        assert!(told.given() < second);
    }
}

#[test]
fn until_an_agent_is_learned_three_of_its_intervals_hold() {
    let mut world = World::with(hourly());
    let mut handle = Handle::connect(PID, at(0));
    let said = ControlMessage::Hello(Hello { interval: Some(TENTH), ..Hello::default() });
    world.handle_control(&ReceivedControl { received_at: at(0), sender: Sender::local(PID), said });
    let last = world.teach(&mut handle, at(1), 1, |beat| beat);
    assert_eq!(world.given(), 3 * TENTH);
    world.teach(&mut handle, last, 50, |beat| beat);
    assert_ne!(world.given(), 3 * TENTH);
}

#[test]
fn who_announces_to_beat_less_often_than_it_did_is_not_missed_before_that() {
    let mut world = World::with(hourly());
    let mut handle = Handle::connect(PID, at(0));
    let last = world.teach(&mut handle, at(1), 50, |beat| beat);
    let learned = world.given();
    for (interval, given) in [(2 * FIVE, 6 * FIVE), (learned, 3 * learned), (learned / 2, learned)] {
        let said = ControlMessage::Hello(Hello { interval: Some(interval), ..Hello::default() });
        let sender = Sender::local(PID);
        world.handle_control(&ReceivedControl { received_at: last, sender, said });
        assert_eq!(world.given(), given, "{interval:?}");
    }
}

#[test]
fn a_rule_goes_before_what_was_learned_and_when_it_goes_that_begins_anew() {
    let mut world = World::with(hourly());
    let mut handle = Handle::connect(PID, at(0));
    let last = world.teach(&mut handle, at(1), 50, |beat| beat);
    let mut rules = Rules::default();
    let name = Glob::parse("*").unwrap();
    rules.add(Rule { stall_after: Some(Duration::from_secs(20)), ..Rule::of(name) }).unwrap();
    world.tracker.handle_rules(rules, &Default::default(), last);
    world.pass(last);
    assert_eq!(world.given(), Duration::from_secs(20));
    world.tracker.handle_rules(Rules::default(), &Default::default(), last);
    world.pass(last);
    assert_eq!(world.given(), FIVE);
    world.teach(&mut handle, last, 50, |beat| beat);
    assert!(world.given() < FIVE);
}

#[test]
fn several_handles_that_beat_in_turn_teach_nothing_and_one_that_is_left_does() {
    let mut world = World::with(hourly());
    let (mut first, mut second) = (Handle::connect(PID, at(0)), Handle::connect(PID, at(1)));
    let mut last = world.teach(&mut first, at(1), 50, |beat| beat);
    for _ in 0..50 {
        last = world.teach(&mut second, last, 1, |beat| beat);
        last = world.teach(&mut first, last, 1, |beat| beat);
        assert_eq!(world.given(), FIVE);
    }
    world.teach(&mut second, last, 700, |beat| beat);
    assert!(world.given() < FIVE, "the first was left behind a minute ago");
}

#[test]
fn another_process_is_learned_anew() {
    let mut world = World::with(hourly());
    let mut handle = Handle::connect(PID, at(0));
    let last = world.teach(&mut handle, at(1), 50, |beat| beat);
    world.spawn(PID, "worker", 200);
    world.teach(&mut Handle::connect(PID, last), last, 1, |beat| beat);
    assert_eq!(world.given(), FIVE);
}

#[test]
fn beats_refused_for_their_rate_are_not_lost() {
    let mut world = World::with(Policy { max_beat_rate: 5, ..hourly() });
    let mut handle = Handle::connect(PID, at(0));
    let mut now = at(1);
    let mut refused = 0;
    for _ in 0..500 {
        now = now + TENTH;
        world.pass(now);
        refused += usize::from(world.hear(handle.next(now, Status::Ok)) == FrameOutcome::RateLimitedAgent);
    }
    assert!(refused > 200, "{refused}");
    assert!(world.given() < Duration::from_secs(1), "{:?}", world.given());
}

#[test]
fn a_rule_that_makes_an_agent_be_missed_sooner_counts_from_its_first_beat() {
    let mut rules = Rules::default();
    let name = Glob::parse("10.*").unwrap();
    rules.add(Rule { stall_after: Some(Duration::from_secs(1)), ..Rule::of(name) }).unwrap();
    let mut world = World::with(Policy { rules, ..Policy::default() });
    world.hear(remote(Handle::connect(PID, at(0)).next(at(0), Status::Ok)));
    world.pass(MonoTime::from_millis(1_001));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
}

#[test]
fn a_rule_holds_for_the_process_that_takes_the_pid_of_another() {
    let mut rules = Rules::default();
    let name = Glob::parse("worker").unwrap();
    rules.add(Rule { stall_after: Some(Duration::from_secs(20)), ..Rule::of(name) }).unwrap();
    let mut world = World::with(Policy { rules, ..Policy::default() });
    for start_time in [100, 200] {
        world.spawn(PID, "worker", start_time);
        world.hear(Handle::connect(PID, at(start_time)).next(at(start_time), Status::Ok));
        assert_eq!(world.given(), Duration::from_secs(20));
    }
}
