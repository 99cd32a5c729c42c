//! Claims about what agents say of themselves in control messages, and what rules say of them.

use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::Status;
use varta_proto::control::{AgentName, GoodbyeReason};

use crate::base::Glob;
use crate::domain::beat::{ControlMessage, Hello, ReceivedControl};
use crate::domain::expected::{Expected, ExpectedAgents};
use crate::domain::process::ProcessId;
use crate::domain::rules::{Rule, Rules};
use crate::domain::tracker::tests::*;

const SHUTDOWN: Option<GoodbyeReason> = Some(GoodbyeReason::Shutdown);

impl Handle {
    fn goodbye(&self, at: MonoTime) -> ReceivedControl {
        let timestamp = u64::try_from(at.since(self.connected_at).as_nanos()).unwrap() + 1_000;
        let said = ControlMessage::Goodbye { nonce: self.nonce, timestamp, reason: SHUTDOWN };
        ReceivedControl { received_at: at, sender: Sender::local(self.pid), said }
    }

    fn hello(&self, at: MonoTime, introduction: Hello) -> ReceivedControl {
        ReceivedControl {
            received_at: at,
            sender: Sender::local(self.pid),
            said: ControlMessage::Hello(introduction),
        }
    }
}

fn asks_for(stall_after: Duration) -> Hello {
    Hello { stall_after: Some(stall_after), ..Hello::default() }
}

fn named(name: &str) -> Hello {
    Hello { name: Some(AgentName::parse(name).unwrap()), ..Hello::default() }
}

impl World {
    fn told(&mut self) -> Vec<(Verdict, Cause)> {
        self.transitions().into_iter().map(|(_, to, cause)| (to, cause)).collect()
    }
}

const FAREWELL: (Verdict, Cause) = (Verdict::Gone, Cause::Goodbye { reason: SHUTDOWN });

#[test]
fn who_says_goodbye_is_gone_and_never_stalled() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    assert_eq!(world.handle_control(&handle.goodbye(at(1))), FrameOutcome::Accepted);
    world.pass(at(100));
    assert_eq!(world.told(), [(UP, Cause::FirstBeat), FAREWELL]);
}

#[test]
fn a_process_that_ends_badly_after_its_goodbye_alarms_nobody() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    world.handle_control(&handle.goodbye(at(1)));
    world.told();
    let process = ProcessId::new(PID, NonZeroU64::new(100).unwrap());
    world.tracker.handle_exit(
        process,
        ExitStatus::Killed { signal: 15, core_dumped: false },
        Lineage::default(),
        at(2),
        at(2),
    );
    assert_eq!(world.told(), []);
}

#[test]
fn the_goodbye_of_one_handle_is_not_that_of_another() {
    let mut world = World::new();
    let (mut first, mut second) = (Handle::connect(PID, at(0)), Handle::connect(PID, at(3)));
    world.hear(first.next(at(3), Status::Ok));
    world.hear(second.next(at(3), Status::Ok));
    world.hear(first.next(at(4), Status::Ok));
    world.handle_control(&first.goodbye(at(5)));
    assert_eq!(world.verdict(PID), Some(UP));
    world.hear(second.next(at(5), Status::Ok));
    world.handle_control(&second.goodbye(at(6)));
    assert_eq!(world.verdict(PID), Some(Verdict::Gone));
}

#[test]
fn an_old_handles_goodbye_after_its_successors_first_beat_is_no_goodbye() {
    let mut world = World::new();
    let mut old = Handle::connect(PID, at(0));
    for second in 0..5 {
        world.hear(old.next(at(second), Status::Ok));
    }
    let mut new = Handle::connect(PID, at(5));
    world.hear(new.next(at(5), Status::Ok));
    world.handle_control(&old.goodbye(at(5)));
    world.hear(new.next(at(6), Status::Ok));
    assert_eq!(world.told(), [(UP, Cause::FirstBeat)]);
}

#[test]
fn who_beats_again_after_its_goodbye_is_up() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    world.handle_control(&handle.goodbye(at(1)));
    world.hear(Handle::connect(PID, at(20)).next(at(20), Status::Ok));
    assert_eq!(world.told(), [(UP, Cause::FirstBeat), FAREWELL, (UP, Cause::Recovered)]);
    world.pass(at(26));
    assert_eq!(world.told(), [(Verdict::Stalled, Cause::Silent)]);
}

#[test]
fn an_agent_may_ask_for_a_deadline_of_its_own() {
    for (asked, granted) in [(1, 1), (30, 30), (100_000, 3_600)] {
        let mut world = World::new();
        let mut handle = Handle::connect(PID, at(0));
        world.hear(handle.next(at(0), Status::Ok));
        world.handle_control(&handle.hello(at(0), asks_for(Duration::from_secs(asked))));
        world.told();
        world.pass(at(granted).before(Duration::from_millis(1)));
        assert_eq!(world.told(), [], "{asked}");
        world.pass(at(granted) + Duration::from_millis(1));
        assert_eq!(world.told(), [(Verdict::Stalled, Cause::Silent)], "{asked}");
    }
}

fn beats_every(interval: Duration) -> Hello {
    Hello { interval: Some(interval), ..Hello::default() }
}

#[test]
fn who_announces_an_interval_and_requests_no_timeout_is_given_three_of_them_shorter_or_longer() {
    let (milli, hour) = (Duration::from_millis(1), Duration::from_secs(3_600));
    for (interval, granted) in [
        (Duration::from_secs(10), Duration::from_secs(30)),
        (Duration::from_millis(500), Duration::from_millis(1_500)),
        (milli, Duration::from_millis(10)),
        (hour, hour),
        (Duration::MAX, hour),
    ] {
        let mut world = World::new();
        let mut handle = Handle::connect(PID, at(0));
        world.hear(handle.next(at(0), Status::Ok));
        world.handle_control(&handle.hello(at(0), beats_every(interval)));
        world.told();
        world.pass((at(0) + granted).before(milli));
        assert_eq!(world.told(), [], "{interval:?}");
        world.pass(at(0) + granted + milli);
        assert_eq!(world.told(), [(Verdict::Stalled, Cause::Silent)], "{interval:?}");
    }
}

#[test]
fn a_requested_timeout_goes_before_three_intervals_in_either_order() {
    let (second, ten) = (Duration::from_secs(1), Duration::from_secs(10));
    let both = Hello { interval: Some(second), ..asks_for(ten) };
    for (hellos, granted) in [
        (&[both][..], ten),
        (&[beats_every(second), asks_for(ten)], ten),
        (&[asks_for(ten), beats_every(second)], 3 * second),
        (&[asks_for(ten), named("billing"), Hello::default()], ten),
    ] {
        let mut world = World::new();
        let mut handle = Handle::connect(PID, at(0));
        world.hear(handle.next(at(0), Status::Ok));
        for hello in hellos {
            world.handle_control(&handle.hello(at(0), hello.clone()));
        }
        assert_eq!(world.tracker.agents(0..usize::MAX).next().unwrap().stall_after, granted, "{hellos:?}");
    }
}

#[test]
fn who_says_that_it_is_busy_is_not_missed_until_then() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    let busy = Hello { busy_for: Some(Duration::from_secs(60)), ..Hello::default() };
    world.handle_control(&handle.hello(at(1), busy));
    world.told();
    world.pass(at(60));
    assert_eq!(world.told(), []);
    world.pass(at(62));
    assert_eq!(world.told(), [(Verdict::Stalled, Cause::Silent)]);
}

#[test]
fn an_introduction_waits_for_the_first_beat_and_is_no_beat_itself() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    assert_eq!(world.handle_control(&handle.hello(at(0), named("billing"))), FrameOutcome::Accepted);
    assert_eq!(world.tracker.len(), 0);
    world.hear(handle.next(at(1), Status::Ok));
    assert_eq!(&*world.tracker.poll_transition().unwrap().agent.name, "billing");
}

#[test]
fn the_first_transition_of_a_process_that_takes_a_pid_over_has_the_name_that_it_gave_before_its_first_beat() {
    let mut world = World::new();
    let mut first = Handle::connect(PID, at(0));
    world.handle_control(&first.hello(at(0), named("billing")));
    world.hear(first.next(at(0), Status::Ok));
    let process = ProcessId::new(PID, NonZeroU64::new(100).unwrap());
    world.tracker.handle_exit(process, ExitStatus::Exited { code: 3 }, Lineage::default(), at(1), at(1));
    world.told();

    world.spawn(PID, "another", 200);
    let mut second = Handle::connect(PID, at(2));
    world.handle_control(&second.hello(at(2), named("mail")));
    let name = |world: &World| world.tracker.agents(0..usize::MAX).next().unwrap().name.to_string();
    assert_eq!(name(&world), "billing", "a Hello is no beat, and the dead keep their names");
    world.hear(second.next(at(2), Status::Ok));
    let change = world.tracker.poll_transition().unwrap();
    assert_eq!((&*change.agent.name, change.to), ("mail", UP));
    assert_eq!(world.told(), []);
}

#[test]
fn who_says_hello_after_a_goodbye_is_known_by_it_from_the_next_beat_on() {
    let mut world = World::new();
    let mut first = Handle::connect(PID, at(0));
    world.hear(first.next(at(0), Status::Ok));
    world.handle_control(&first.goodbye(at(1)));
    world.told();
    let mut second = Handle::connect(PID, at(2));
    world.handle_control(&second.hello(at(2), named("mail")));
    world.hear(second.next(at(2), Status::Ok));
    let change = world.tracker.poll_transition().unwrap();
    assert_eq!((&*change.agent.name, change.from, change.to), ("mail", Some(Verdict::Gone), UP));
}

#[test]
fn a_successor_that_gives_its_name_before_its_first_beat_is_up_once() {
    let mut world = World::new();
    let mut first = Handle::connect(PID, at(0));
    world.handle_control(&first.hello(at(0), named("billing")));
    world.hear(first.next(at(0), Status::Ok));
    let process = ProcessId::new(PID, NonZeroU64::new(100).unwrap());
    world.tracker.handle_exit(process, ExitStatus::Exited { code: 3 }, Lineage::default(), at(1), at(1));
    world.told();
    let mut second = Handle::connect(77, at(2));
    world.handle_control(&second.hello(at(2), named("billing")));
    world.hear(second.next(at(2), Status::Ok));
    assert_eq!(world.told(), [(UP, Cause::Restarted)]);
    assert_eq!((world.verdict(PID), world.tracker.len()), (None, 1));
}

#[test]
fn a_name_that_was_given_stays_when_the_command_changes() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    world.handle_control(&handle.hello(at(0), named("billing")));
    world.spawn(PID, "renamed", 100);
    world.hear(Handle::connect(PID, at(1)).next(at(1), Status::Ok));
    assert_eq!(&**world.tracker.agents(0..usize::MAX).next().unwrap().name, "billing");
}

#[test]
fn a_new_process_has_promised_nothing() {
    let mut world = World::new();
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    let promise = Hello { stall_after: Some(Duration::from_secs(600)), ..named("billing") };
    world.handle_control(&handle.hello(at(0), promise));
    world.spawn(PID, "another", 200);
    world.hear(Handle::connect(PID, at(1)).next(at(1), Status::Ok));
    let agent = world.tracker.agents(0..usize::MAX).next().unwrap();
    assert_eq!((&**agent.name, agent.stall_after), ("another", STALL_AFTER));
}

#[test]
fn introductions_of_nobody_are_bounded() {
    let mut world = World::new();
    for pid in 2..10_002 {
        world.handle_control(&Handle::connect(pid, at(0)).hello(at(0), named("nobody")));
    }
    world.hear(Handle::connect(2, at(0)).next(at(1), Status::Ok));
    assert_eq!(&*world.tracker.poll_transition().unwrap().agent.name, "unknown", "the oldest were dropped");
    world.hear(Handle::connect(10_001, at(0)).next(at(1), Status::Ok));
    assert_eq!(&*world.tracker.poll_transition().unwrap().agent.name, "nobody");
}

#[test]
fn the_goodbye_of_a_stranger_is_refused() {
    let mut world = World::new();
    let handle = Handle::connect(PID, at(0));
    assert_eq!(world.handle_control(&handle.goodbye(at(1))), FrameOutcome::OutOfOrder);
}

#[test]
fn who_gives_the_name_of_one_that_died_takes_its_place() {
    let mut world = World::new();
    let mut first = Handle::connect(PID, at(0));
    world.hear(first.next(at(0), Status::Ok));
    world.handle_control(&first.hello(at(0), named("billing")));
    let process = ProcessId::new(PID, NonZeroU64::new(100).unwrap());
    world.tracker.handle_exit(process, ExitStatus::Exited { code: 3 }, Lineage::default(), at(1), at(1));
    world.told();

    let mut second = Handle::connect(77, at(2));
    world.hear(second.next(at(2), Status::Ok));
    world.handle_control(&second.hello(at(2), named("billing")));
    assert_eq!(world.told(), [(UP, Cause::FirstBeat), (UP, Cause::Restarted)]);
    assert_eq!((world.verdict(PID), world.tracker.len()), (None, 1));
    world.handle_control(&second.hello(at(3), named("billing")));
    assert_eq!(world.told(), [], "once is enough");
}

#[test]
fn a_rule_for_its_name_goes_before_what_an_agent_asks_for() {
    let mut rules = Rules::default();
    let name = Glob::parse("billing-*").unwrap();
    rules.add(Rule { stall_after: Some(Duration::from_secs(30)), ..Rule::of(name) }).unwrap();
    let mut world = World::with(Policy { rules, ..Policy::default() });
    let mut handle = Handle::connect(PID, at(0));
    world.hear(handle.next(at(0), Status::Ok));
    let stall_after = |world: &World| world.tracker.agents(0..usize::MAX).next().unwrap().stall_after;
    assert_eq!(stall_after(&world), Duration::from_secs(5));
    let asks = Hello { stall_after: Some(Duration::from_secs(10)), ..named("billing-1") };
    world.handle_control(&handle.hello(at(0), asks.clone()));
    assert_eq!(stall_after(&world), Duration::from_secs(30));
    world.handle_control(&handle.hello(at(1), Hello { ..named("mail") }));
    assert_eq!(stall_after(&world), Duration::from_secs(10), "what it asked for counts where no rule does");
    let announces = Hello { interval: Some(Duration::from_secs(1)), ..named("billing-1") };
    world.handle_control(&handle.hello(at(2), announces));
    assert_eq!(stall_after(&world), Duration::from_secs(30), "an interval does not shorten a rule's timeout");
}

#[test]
fn other_rules_hold_for_those_who_are_there_a_bounded_number_in_each_turn() {
    let mut world = World::new();
    let agents = u32::try_from(LOOKS_PER_TURN).unwrap() + 1;
    for pid in 1..=agents {
        world.hear(Handle::connect(pid, at(0)).next(at(0), Status::Ok));
    }
    world.told();
    let mut rules = Rules::default();
    let name = Glob::parse("*").unwrap();
    rules.add(Rule { stall_after: Some(Duration::from_secs(2)), ..Rule::of(name) }).unwrap();
    world.tracker.handle_rules(rules, &ExpectedAgents::default(), at(1));
    let ruled = |world: &World| {
        let agents = world.tracker.agents(0..usize::MAX);
        agents.filter(|agent| agent.stall_after == Duration::from_secs(2)).count()
    };
    assert!(world.tracker.poll_timeout().is_some_and(|due| due <= at(1)), "it wants to go on at once");
    world.tracker.handle_timeout(at(1));
    assert_eq!(ruled(&world), LOOKS_PER_TURN);
    world.tracker.handle_timeout(at(1));
    assert_eq!(ruled(&world), LOOKS_PER_TURN + 1);
    // Their deadlines are earlier now.
    world.pass(at(3));
    assert_eq!(world.told().len(), LOOKS_PER_TURN + 1);
}

#[test]
fn who_was_expected_before_keeps_its_time_and_who_is_there_is_not_expected() {
    let mut world = world_that_expects("early", Duration::from_secs(30));
    world.hear(Handle::connect(PID, at(1)).next(at(1), Status::Ok));
    world.told();
    let mut expected = ExpectedAgents::default();
    for name in ["early", "late", "worker"] {
        let grace = Duration::from_secs(20);
        expected.add(Expected { grace, ..Expected::named(name).unwrap() }).unwrap();
    }
    world.tracker.handle_rules(Rules::default(), &expected, at(20));
    assert_eq!(world.tracker.population()[Verdict::EXPECTED], 2);
    let missing = |world: &World| world.tracker.missing().map(ToString::to_string).collect::<Vec<_>>();
    world.pass(at(31));
    assert_eq!(missing(&world), ["early"]);
    world.pass(at(41));
    assert_eq!(missing(&world), ["early", "late"]);
    world.tracker.handle_rules(Rules::default(), &ExpectedAgents::default(), at(42));
    assert_eq!((missing(&world).len(), world.tracker.population()[Verdict::EXPECTED]), (0, 0));
}

fn world_that_expects(name: &str, grace: Duration) -> World {
    let mut expected = ExpectedAgents::default();
    expected.add(Expected { grace, ..Expected::named(name).unwrap() }).unwrap();
    World::with(Policy { expected, ..Policy::default() })
}

#[test]
fn who_is_expected_and_does_not_come_is_an_alarm_once() {
    let mut world = world_that_expects("billing", Duration::from_secs(30));
    assert_eq!(world.tracker.population()[Verdict::EXPECTED], 1);
    assert_eq!(world.tracker.poll_timeout(), Some(at(30)));
    world.pass(at(100));
    let missing = world.tracker.poll_transition().unwrap();
    assert_eq!(
        (&*missing.agent.name, missing.to, missing.cause),
        ("billing", Verdict::Expected, Cause::NeverSeen)
    );
    assert!(missing.to.is_alarm());
    assert_eq!(world.tracker.poll_transition(), None);
    assert_eq!(world.tracker.missing().count(), 1);

    let mut handle = Handle::connect(PID, at(100));
    world.hear(handle.next(at(100), Status::Ok));
    world.told();
    world.handle_control(&handle.hello(at(100), named("billing")));
    let there = world.tracker.poll_transition().unwrap();
    assert_eq!((there.from, there.to, there.cause), (Some(Verdict::Expected), UP, Cause::FirstBeat));
    assert_eq!((world.tracker.missing().count(), world.tracker.population()[Verdict::EXPECTED]), (0, 0));
}

#[test]
fn who_comes_in_time_was_never_missing() {
    let mut world = world_that_expects("worker", Duration::from_secs(30));
    world.hear(Handle::connect(PID, at(1)).next(at(1), Status::Ok));
    assert_eq!(world.told(), [(UP, Cause::FirstBeat)]);
    world.pass(at(5));
    assert_eq!(world.tracker.population()[Verdict::EXPECTED], 0);
    world.pass(at(100));
    assert_eq!(world.told().len(), 1, "only that it fell silent");
}
