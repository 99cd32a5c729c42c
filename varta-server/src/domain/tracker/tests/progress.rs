//! Claims about agents whose payload is a counter that must move.

use std::num::NonZeroU64;

use proptest::prelude::*;
use varta_proto::control::AgentName;

use crate::base::Glob;
use crate::domain::beat::{ControlMessage, Hello};
use crate::domain::expected::ExpectedAgents;
use crate::domain::process::ProcessId;
use crate::domain::rules::{ProgressRule, Rule, Rules};
use crate::domain::tracker::tests::*;

const MAY_STAND: Duration = Duration::from_secs(20);
/// The time of a movement is kept in units of this length, rounded up.
const UNIT: Duration = Duration::from_nanos(1 << 23);

const STUCK: (Verdict, Cause) = (Verdict::Stalled, Cause::NoProgress);
const MOVES: (Verdict, Cause) = (UP, Cause::Progressed);

/// An agent that counts.
struct Counter {
    handle: Handle,
    count: u32,
}

impl Counter {
    fn start(world: &mut World, now: MonoTime) -> Self {
        let mut counter = Counter { handle: Handle::connect(PID, now), count: 1 };
        counter.beat(world, now);
        counter
    }

    fn beat(&mut self, world: &mut World, now: MonoTime) {
        let mut beat = self.handle.next(now, Status::Ok);
        beat.frame.payload = self.count;
        assert_eq!(world.hear(beat), FrameOutcome::Accepted);
        world.pass(now);
    }

    /// Beats each second up to `to` without a change of the count.
    fn stand(&mut self, world: &mut World, from: u64, to: u64) {
        for second in from..=to {
            world.pass(at(second));
            self.beat(world, at(second));
        }
    }

    fn say(&self, world: &mut World, now: MonoTime, hello: Hello) {
        let said = ControlMessage::Hello(hello);
        let control = ReceivedControl { received_at: now, sender: Sender::local(PID), said };
        assert_eq!(world.handle_control(&control), FrameOutcome::Accepted);
    }
}

fn rule(is_payload: Option<bool>, after: Option<Duration>) -> Rules {
    let mut rules = Rules::default();
    let name = Glob::parse("work*").unwrap();
    rules.add(Rule { progress: ProgressRule { is_payload, after }, ..Rule::of(name) }).unwrap();
    rules
}

fn policy(rules: Rules) -> Policy {
    Policy { stall_after: STALL_AFTER, max_beat_rate: 0, rules, ..Policy::default() }
}

fn world() -> World {
    World::with(policy(rule(Some(true), Some(MAY_STAND))))
}

fn declares(after: Duration) -> Hello {
    Hello { no_progress_after: Some(after), ..Hello::default() }
}

fn told(world: &mut World) -> Vec<(Verdict, Cause)> {
    world.transitions().into_iter().map(|(_, to, cause)| (to, cause)).collect()
}

#[test]
fn who_beats_and_does_not_count_is_stalled_until_it_counts() {
    let mut world = world();
    let mut agent = Counter::start(&mut world, at(0));
    agent.stand(&mut world, 1, 20);
    assert_eq!(told(&mut world), [(UP, Cause::FirstBeat)]);
    agent.stand(&mut world, 21, 100);
    assert_eq!(told(&mut world), [STUCK], "once");
    agent.count += 1;
    agent.beat(&mut world, at(101));
    let up = world.tracker.poll_transition().unwrap();
    assert_eq!((up.to, up.cause), MOVES);
    assert!(up.silence >= Duration::from_secs(101).saturating_sub(UNIT), "{:?}", up.silence);
    agent.stand(&mut world, 102, 121);
    assert_eq!(told(&mut world), []);
    agent.stand(&mut world, 122, 122);
    assert_eq!(told(&mut world), [STUCK]);
}

#[test]
fn any_change_of_the_count_is_progress() {
    let mut world = world();
    let mut agent = Counter::start(&mut world, at(0));
    for (turn, count) in (1..).zip([9, 3, 0, u32::MAX, 0]) {
        agent.stand(&mut world, (turn - 1) * 15 + 1, turn * 15 - 1);
        agent.count = count;
        agent.beat(&mut world, at(turn * 15));
    }
    assert_eq!(told(&mut world), [(UP, Cause::FirstBeat)]);
}

#[test]
fn only_a_beat_proves_that_the_count_stands_and_silence_is_told_as_silence() {
    let patient = Rules::default();
    let mut world = World::with(Policy { stall_after: Duration::from_secs(60), ..policy(patient) });
    let mut agent = Counter::start(&mut world, at(0));
    agent.say(&mut world, at(0), declares(MAY_STAND));
    world.pass(at(50));
    assert_eq!(told(&mut world), [(UP, Cause::FirstBeat)]);
    agent.count += 1;
    agent.beat(&mut world, at(50));
    world.pass(at(109));
    assert_eq!(told(&mut world), [], "it may have moved since");
    world.pass(at(111));
    assert_eq!(told(&mut world), [(Verdict::Stalled, Cause::Silent)]);
    agent.beat(&mut world, at(115));
    assert_eq!(told(&mut world), [(UP, Cause::Recovered)]);
    agent.stand(&mut world, 116, 135);
    assert_eq!(told(&mut world), [], "it has all its time from then on");
    agent.stand(&mut world, 136, 136);
    assert_eq!(told(&mut world), [STUCK]);
}

#[test]
fn who_does_not_say_that_it_counts_need_not_count() {
    let mut world = World::with(policy(Rules::default()));
    let mut agent = Counter::start(&mut world, at(0));
    agent.stand(&mut world, 1, 500);
    assert_eq!(told(&mut world), [(UP, Cause::FirstBeat)]);
}

#[test]
fn the_time_is_that_of_the_rule_or_of_the_agent_or_the_default() {
    let minute = Policy::DEFAULT_NO_PROGRESS_AFTER;
    let seconds = Duration::from_secs;
    for (is_payload, ruled, declared, expected) in [
        (None, None, None, None),
        (None, Some(seconds(9)), None, None),
        (None, None, Some(Duration::ZERO), Some(minute)),
        (None, None, Some(seconds(30)), Some(seconds(30))),
        (None, Some(seconds(9)), Some(seconds(30)), Some(seconds(9))),
        (Some(true), None, None, Some(minute)),
        (Some(true), None, Some(seconds(30)), Some(seconds(30))),
        (Some(true), Some(seconds(9)), None, Some(seconds(9))),
        (Some(false), Some(seconds(9)), Some(seconds(30)), None),
    ] {
        let mut world = World::with(policy(rule(is_payload, ruled)));
        let mut agent = Counter::start(&mut world, at(0));
        if let Some(after) = declared {
            agent.say(&mut world, at(0), declares(after));
        }
        world.transitions();
        agent.stand(&mut world, 1, 100);
        let found = std::iter::from_fn(|| world.tracker.poll_transition()).map(|stuck| stuck.silence).next();
        let case = format!("{is_payload:?} {ruled:?} {declared:?}");
        match (found, expected) {
            (Some(found), Some(expected)) => {
                // The verdict comes with the first beat after the time has passed.
                assert!(found >= expected && found <= expected + seconds(1), "{case}: {found:?}");
            }
            (found, expected) => assert_eq!(found, expected, "{case}"),
        }
    }
}

#[test]
fn a_request_out_of_range_is_granted_as_far_as_it_may() {
    let mut world = World::with(policy(Rules::default()));
    let mut agent = Counter::start(&mut world, at(0));
    agent.say(&mut world, at(0), declares(Duration::from_millis(1)));
    world.pass(at(1));
    agent.beat(&mut world, at(1));
    assert_eq!(told(&mut world), [(UP, Cause::FirstBeat), STUCK]);
}

#[test]
fn while_it_is_busy_it_need_not_count() {
    let mut world = world();
    let mut agent = Counter::start(&mut world, at(0));
    agent.say(&mut world, at(1), Hello { busy_for: Some(Duration::from_secs(99)), ..Hello::default() });
    agent.stand(&mut world, 2, 99);
    assert_eq!(told(&mut world), [(UP, Cause::FirstBeat)]);
    agent.stand(&mut world, 100, 101);
    assert_eq!(told(&mut world), [STUCK]);
}

#[test]
fn what_the_server_could_not_see_is_not_held_against_it() {
    let mut world = world();
    let mut agent = Counter::start(&mut world, at(0));
    agent.stand(&mut world, 1, 10);
    world.tracker.handle_observer_gap(at(10), at(110));
    agent.beat(&mut world, at(110));
    agent.stand(&mut world, 111, 129);
    assert_eq!(told(&mut world), [(UP, Cause::FirstBeat)]);
    agent.stand(&mut world, 130, 132);
    assert_eq!(told(&mut world), [STUCK]);
}

#[test]
fn its_end_and_its_goodbye_count_as_of_any_other() {
    for is_killed in [true, false] {
        let mut world = world();
        let mut agent = Counter::start(&mut world, at(0));
        agent.stand(&mut world, 1, 30);
        world.transitions();
        if is_killed {
            let process = ProcessId::new(PID, NonZeroU64::new(100).unwrap());
            let killed = ExitStatus::Killed { signal: 9, core_dumped: false };
            world.tracker.handle_exit(process, killed, Lineage::default(), at(31), at(31));
            assert_eq!(told(&mut world), [(Verdict::Down, Cause::Killed { signal: 9 })]);
        }
        // Another process with this pid has its own count.
        world.spawn(PID, "worker", 200);
        let mut next = Counter { handle: Handle::connect(PID, at(40)), count: 1 };
        next.beat(&mut world, at(40));
        assert_eq!(told(&mut world), [(UP, Cause::Restarted)], "killed: {is_killed}");
        next.stand(&mut world, 41, 60);
        assert_eq!(told(&mut world), []);
        next.stand(&mut world, 61, 61);
        assert_eq!(told(&mut world), [STUCK]);
    }
}

#[test]
fn a_last_word_is_no_progress() {
    let mut world = world();
    let mut agent = Counter::start(&mut world, at(0));
    agent.stand(&mut world, 1, 30);
    world.transitions();
    let frame = Frame::new(Status::Critical, PID, 1, NONCE_TERMINAL, 99);
    world.hear(ReceivedBeat { received_at: at(31), sender: Sender::local(PID), frame });
    assert_eq!(told(&mut world), [(Verdict::Stalled, Cause::Panicked)]);
}

#[test]
fn rules_that_come_and_go_count_for_who_is_there_already() {
    let mut world = World::with(policy(Rules::default()));
    let mut agent = Counter::start(&mut world, at(0));
    agent.stand(&mut world, 1, 100);
    world.transitions();
    let none = ExpectedAgents::default();
    world.tracker.handle_rules(rule(Some(true), Some(MAY_STAND)), &none, at(100));
    world.tracker.handle_timeout(at(100));
    agent.stand(&mut world, 101, 119);
    assert_eq!(told(&mut world), [], "counted from then on");
    agent.stand(&mut world, 120, 125);
    assert_eq!(told(&mut world), [STUCK]);
    world.tracker.handle_rules(Rules::default(), &none, at(126));
    world.tracker.handle_timeout(at(126));
    agent.stand(&mut world, 127, 200);
    assert_eq!(told(&mut world), [(UP, Cause::Recovered)]);
}

#[test]
fn a_rule_for_another_name_ends_when_it_takes_that_name() {
    let mut world = world();
    let mut agent = Counter::start(&mut world, at(0));
    let name = Some(AgentName::parse("billing").unwrap());
    agent.say(&mut world, at(1), Hello { name, ..Hello::default() });
    agent.stand(&mut world, 2, 100);
    assert_eq!(told(&mut world), [(UP, Cause::FirstBeat)]);
}

#[test]
fn the_next_server_knows_who_stands_still_and_tells_nobody_twice() {
    let mut world = world();
    let mut agent = Counter::start(&mut world, at(0));
    agent.stand(&mut world, 1, 30);
    let known: Vec<_> = world.tracker.snapshot(0..usize::MAX).collect();
    let stood = known[0].stood.unwrap();
    assert!(stood <= Duration::from_secs(30) && stood + UNIT >= Duration::from_secs(30), "{stood:?}");
    for rules in [rule(Some(true), Some(MAY_STAND)), Rules::default()] {
        // The next server's clock starts at zero.
        let mut next = World::with(policy(rules));
        let before = AgentSnapshot { silent_before: Duration::from_secs(10), ..known[0].clone() };
        assert!(next.tracker.restore(&before, Fate::Lives, at(1)));
        let mut again = Counter { handle: Handle::connect(PID, at(1)), count: agent.count };
        again.stand(&mut next, 2, 60);
        again.say(&mut next, at(60), declares(Duration::ZERO));
        again.stand(&mut next, 61, 70);
        assert_eq!(told(&mut next), []);
        let again_known = next.tracker.snapshot(0..1).next().unwrap();
        assert!(again_known.stood.unwrap() >= stood + Duration::from_secs(79), "{:?}", again_known.stood);
        again.count += 1;
        again.beat(&mut next, at(71));
        let up = next.tracker.poll_transition().unwrap();
        assert_eq!((up.to, up.cause, up.silence), (UP, Cause::Progressed, stood + Duration::from_secs(80)));
        assert!(!next.tracker.agents.slot(0).is_counter_due());
    }
}

#[test]
fn another_tracker_goes_on_with_the_same_counts() {
    for hands_over_at in [5, 19, 20, 21, 25, 40] {
        let (mut world, mut seen) = (world(), Vec::new());
        let mut agent = Counter::start(&mut world, at(0));
        for second in 1..60 {
            agent.stand(&mut world, second, second);
            if second == hands_over_at {
                seen.extend(told(&mut world));
                world.hand_over(policy(rule(Some(true), Some(MAY_STAND))), at(second));
            }
            if second == 45 {
                agent.count += 1;
            }
        }
        seen.extend(told(&mut world));
        assert_eq!(seen, [(UP, Cause::FirstBeat), STUCK, MOVES], "{hands_over_at}");
    }
}

/// A step of an agent that counts.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It beats, with another count if this is true.
    Beat(bool),
    Pass(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Beat(true)),
        5 => Just(Step::Beat(false)),
        5 => (0_u64..4_000_000_000).prop_map(|nanos| Step::Pass(Duration::from_nanos(nanos))),
    ]
}

proptest! {
    /// Compared with a model that knows when the count changed: at every beat the agent is stalled for its count if
    /// that has stood for as long as it may since it changed or the agent came up, and never between beats.
    #[test]
    fn it_agrees_with_a_model_that_looks_at_every_beat(steps in prop::collection::vec(step(), 1..400)) {
        let mut world = world();
        let mut now = at(1);
        let mut agent = Counter::start(&mut world, now);
        let (mut moved, mut last, mut is_stuck, mut is_silent) = (now, now, false, false);
        for step in steps {
            match step {
                Step::Pass(time) => {
                    now = now + time;
                    world.pass(now);
                    is_silent |= !is_stuck && now >= last + STALL_AFTER + Duration::from_millis(1);
                    if is_stuck {
                        prop_assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
                    } else if now < last + STALL_AFTER {
                        prop_assert_eq!(world.verdict(PID), Some(UP));
                    }
                }
                Step::Beat(has_moved) => {
                    // Within a millisecond of the deadline the wheel may have been early or late.
                    is_silent = !is_stuck && world.verdict(PID) == Some(Verdict::Stalled);
                    agent.count += u32::from(has_moved);
                    agent.beat(&mut world, now);
                    last = now;
                    // The wheel turns once in a millisecond.
                    now = now + Duration::from_millis(1);
                    world.pass(now);
                    if has_moved || is_silent {
                        (moved, is_stuck) = (last, false);
                        prop_assert_eq!(world.verdict(PID), Some(UP));
                    } else {
                        let stood = last.since(moved);
                        let verdict = world.verdict(PID);
                        is_stuck |= stood >= MAY_STAND && verdict == Some(Verdict::Stalled);
                        prop_assert!(is_stuck || stood < MAY_STAND + UNIT, "{:?} at {:?}", stood, now);
                        prop_assert_eq!(verdict == Some(Verdict::Stalled), is_stuck);
                    }
                }
            }
        }
        prop_assert!(!is_silent || world.verdict(PID) == Some(Verdict::Stalled) || last + STALL_AFTER > now);
    }
}
